"""MedMNIST: the 2D sets, read from the arrays of their .npz files; ChestMNIST has findings."""

import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from dassl.data.datasets import DATASET_REGISTRY

from core.errors import InputError, short

from .arrays import ImageArray, address_of, open_arrays
from .base import MedicalDataset
from .multi_label import SeveralFindings, joined
from .npz import read_values
from .pictures import Finder, Picture
from .splits import SPLITS, Split

RECORD = "https://zenodo.org/records/10519652"  # of all sets in all sizes
SIZES = (28, 64, 128, 224)
# Images of each set in train, val and test.
COUNTS = {
    "pathmnist": (89996, 10004, 7180),
    "chestmnist": (78468, 11219, 22433),
    "dermamnist": (7007, 1003, 2005),
    "octmnist": (97477, 10832, 1000),
    "pneumoniamnist": (4708, 524, 624),
    "retinamnist": (1080, 120, 400),
    "breastmnist": (546, 78, 156),
    "bloodmnist": (11959, 1712, 3421),
    "tissuemnist": (165466, 23640, 47280),
    "organamnist": (34561, 6491, 17778),
    "organcmnist": (12975, 2392, 8216),
    "organsmnist": (13932, 2452, 8827),
}


@DATASET_REGISTRY.register()
class MedMNIST(MedicalDataset):
    """A 2D set of MedMNIST (Yang et al., Scientific Data 2023; Zenodo 10519652).

    ``DATASET.FLAG`` names the set and ``DATASET.SIZE`` the pixels a side. The images stay in
    ``<FLAG>.npz`` (28 pixels) or ``<FLAG>_<SIZE>.npz``; an image's identity is its split and its
    place there, from 0: ``train/00005``. The split is the file's, patients are not known.
    """

    dataset_dir = "medmnist"
    source = f"download MedMNIST's .npz files from {RECORD} into it"
    duplicates_allowed = True  # the released split does not care

    def prepare(self) -> None:
        flag = str(self.settings.FLAG)
        if flag not in COUNTS:
            what = "a 3D set, which is not read" if flag.endswith("3d") else short(flag)
            raise InputError(f"DATASET.FLAG is {what}; choose one of {', '.join(COUNTS)}")
        self.paper_counts = COUNTS[flag]

    def find_classnames(self) -> list[str]:
        """The YAML's names; the file has numbers alone."""
        if not self.settings.CLASSNAMES:
            raise InputError(
                f"DATASET.CLASSNAMES is empty; name the classes as in configs/datasets/"
                f"{self.settings.FLAG}.yaml"
            )
        return list(self.settings.CLASSNAMES)

    def read(self) -> Split:
        given: Split = {}
        for side in SPLITS:
            labels = self._labels(side)
            named = [(self._name(side, index), label) for index, label in enumerate(labels)]
            given[side] = [
                Picture(f"{self._file}#{name}", label, self._said(label), name)
                for name, label in named
                if not (self.settings.EXCLUDE and self.is_excluded(self.dataset_dir / name))
            ]
        first = self._arrays["train"].shape
        colour = "RGB" if len(first) == 4 else "grey"
        self.given_by = f"{self._file.name}, {first[2]} x {first[1]} pixels, {colour}"
        return given

    def identity(self, path: str | Path) -> str:
        address = address_of(path)
        return (
            super().identity(path) if address is None else self._name(address.part, address.place)
        )

    def find_listed(self, finder: Finder, relative: str) -> Path | None:
        match = re.fullmatch(r"(\w+)/(\d+)", relative)
        if not match or match[1] not in SPLITS:
            return None
        index = int(match[2])
        known = index < self._arrays[match[1]].shape[0]
        return Path(f"{self._file}#{self._name(match[1], index)}") if known else None

    # The file

    @cached_property
    def _file(self) -> Path:
        flag, size = self.settings.FLAG, self.settings.SIZE
        names = {n: f"{flag}.npz" if n == 28 else f"{flag}_{n}.npz" for n in SIZES}
        finder = Finder()
        if found := finder.find(self.dataset_dir, names[size]):
            return found
        others = [n for n in SIZES if finder.find(self.dataset_dir, names[n])]
        hint = f" ({names[others[-1]]} is there: DATASET.SIZE {others[-1]})" if others else ""
        raise InputError(
            f"{self.dataset_dir / names[size]}: is missing{hint}; download it from {RECORD}, or "
            f"let the package medmnist do it (size={size}, download=True), and set DATASET.PATH to "
            "its folder"
        )

    @cached_property
    def _arrays(self) -> dict[str, ImageArray]:
        """The images of each split, all of the size that the settings say."""
        arrays = open_arrays(self._file, self.settings.COPIES_GB)
        size = self.settings.SIZE
        for side in SPLITS:
            if side not in arrays:
                raise InputError(f"{self._file}: has no {side}_images; {self._again()}")
            shape = arrays[side].shape
            if shape[1:3] != (size, size):
                raise InputError(
                    f"{self._file}: its {side}_images have {shape[2]} x {shape[1]} pixels, and "
                    f"DATASET.SIZE is {size}; {self._again()}"
                )
        return arrays

    def _again(self) -> str:
        return f"download it again from {RECORD}"

    @cached_property
    def _digits(self) -> int:
        """As many as the last image needs, so that the order of names is that of the file."""
        return max(5, *(len(str(array.shape[0] - 1)) for array in self._arrays.values()))

    def _name(self, side: str, index: int) -> str:
        return f"{side}/{index:0{self._digits}}"

    def label_rows(self, side: str) -> np.ndarray:
        """[n, k] integer labels of the images of a split: k is 1, or 14 for ChestMNIST."""
        name = f"{side}_labels"
        rows = read_values(self._file, name)
        n = self._arrays[side].shape[0]
        if rows.ndim == 1:
            rows = rows[:, None]
        if rows.ndim != 2 or len(rows) != n or rows.dtype.kind not in "iu":
            raise InputError(
                f"{self._file}: {name} is {rows.dtype} of shape {rows.shape}, and {n:,} images "
                f"need integers of shape ({n}, 1); {self._again()}"
            )
        return rows

    def _said(self, label: Any) -> str:
        return self.classes.names[label]

    def _labels(self, side: str) -> list[Any]:
        rows = self.label_rows(side)
        if rows.shape[1] != 1:
            raise InputError(
                f"{self._file}: each image has {rows.shape[1]} labels, and here it has one class; "
                "set DATASET.MULTI_LABEL True, or choose another DATASET.FLAG"
            )
        n_cls = len(self.classes.names)
        if len(rows) and not 0 <= rows.min() <= rows.max() < n_cls:
            raise InputError(
                f"{self._file}: {side}_labels has labels from {rows.min()} to {rows.max()}, and "
                f"DATASET.CLASSNAMES has {n_cls} names, for 0 to {n_cls - 1}; name every class"
            )
        return rows[:, 0].tolist()


@DATASET_REGISTRY.register()
class MultiLabelMedMNIST(SeveralFindings, MedMNIST):
    """What ``DATASET.NAME MedMNIST`` is with ``DATASET.MULTI_LABEL True``: ChestMNIST."""

    def _said(self, label: Any) -> str:
        return joined(self.findings, label)

    def _labels(self, side: str) -> list[Any]:
        rows = self.label_rows(side)
        if rows.shape[1] != len(self.findings) or rows.shape[1] == 1:
            raise InputError(
                f"{self._file}: {side}_labels has {rows.shape[1]} labels an image, and "
                f"DATASET.CLASSNAMES has {len(self.findings)} findings"
                + ("; set DATASET.MULTI_LABEL False" if rows.shape[1] == 1 else "")
            )
        if wrong := sorted({*np.unique(rows).tolist()} - {0, 1}):
            raise InputError(
                f"{self._file}: {side}_labels has the label {wrong[0]}; a finding is 0 or 1; "
                f"{self._again()}"
            )
        return [tuple(map(float, row)) for row in rows.tolist()]
