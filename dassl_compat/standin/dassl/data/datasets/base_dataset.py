"""What a dataset is: lists of images with labels.

The module has Dassl's name because CoOp pickles its few-shot splits: a file that the installed
Dassl wrote is read here, and the other way round.
"""

import os
import random
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from dassl.utils import Registry, check_isfile

from core.errors import InputError

DATASET_REGISTRY = Registry("DATASET")


def build_dataset(cfg: Any) -> Any:
    """Build the dataset that ``cfg.DATASET.NAME`` names."""
    return DATASET_REGISTRY.build(cfg.DATASET.NAME, cfg)


class Datum:
    """One image: its file, label, domain (where it comes from) and the name of its class.

    The attributes are read-only.
    """

    def __init__(
        self, impath: str = "", label: int = 0, domain: int = 0, classname: str = ""
    ) -> None:
        if not isinstance(impath, str):
            raise TypeError(f"impath must be a string, not {impath!r}")
        if not check_isfile(impath):
            raise InputError(f'there is no image "{impath}"')
        self._impath = impath
        self._label = label
        self._domain = domain
        self._classname = classname

    @property
    def impath(self) -> str:
        return self._impath

    @property
    def label(self) -> int:
        return self._label

    @property
    def domain(self) -> int:
        return self._domain

    @property
    def classname(self) -> str:
        return self._classname


class DatasetBase:
    """Lists of Datum: labelled and unlabelled training images, validation and test images.

    A list that is not given is None.
    """

    dataset_dir = ""  # the folder's name below DATASET.ROOT
    domains: list[str] = []  # the names of all domains

    def __init__(
        self,
        train_x: list[Any],
        train_u: list[Any] | None = None,
        val: list[Any] | None = None,
        test: list[Any] | None = None,
    ) -> None:
        self._train_x = train_x
        self._train_u = train_u
        self._val = val
        self._test = test
        self._num_classes = max(item.label for item in train_x) + 1
        self._lab2cname = {item.label: item.classname for item in train_x}

    @property
    def train_x(self) -> list[Any]:
        return self._train_x

    @property
    def train_u(self) -> Any:
        return self._train_u

    @property
    def val(self) -> Any:
        return self._val

    @property
    def test(self) -> Any:
        return self._test

    @property
    def lab2cname(self) -> dict[int, str]:
        return self._lab2cname

    @property
    def classnames(self) -> list[str]:
        """The class names in the order of their labels."""
        return [self._lab2cname[label] for label in sorted(self._lab2cname)]

    @property
    def num_classes(self) -> int:
        """One more than the highest label."""
        return self._num_classes

    def download_data(self, url: str, dst: str, from_gdrive: bool = True) -> None:
        """Download a zip or tar archive to ``dst`` and unpack it in its folder."""
        folder = os.path.dirname(os.path.abspath(dst))
        os.makedirs(folder, exist_ok=True)
        if from_gdrive:
            import gdown

            gdown.download(url, dst, quiet=False)
        else:
            torch.hub.download_url_to_file(url, dst)
        print("Extracting file ...")
        if zipfile.is_zipfile(dst):
            with zipfile.ZipFile(dst) as zipped:
                zipped.extractall(folder)
        else:
            with tarfile.open(dst) as archive:
                archive.extractall(folder, filter="data")  # nothing outside the folder
        print(f"File extracted to {folder}")

    def generate_fewshot_dataset(
        self, *data_sources: list[Datum], num_shots: int = -1, repeat: bool = False
    ) -> Any:
        """Draw ``num_shots`` images of each class, from each source.

        Args:
            data_sources: lists of Datum.
            num_shots: all images are kept if less than one.
            repeat: draw from a class that has fewer with replacement; else all of it is taken.

        Returns:
            One list, or one for each source if there are several.
        """
        if num_shots < 1:
            return data_sources[0] if len(data_sources) == 1 else data_sources
        print(f"Creating a {num_shots}-shot dataset")
        output = []
        for data_source in data_sources:
            drawn: list[Datum] = []
            for items in self.split_dataset_by_label(data_source).values():
                if len(items) >= num_shots:
                    drawn.extend(random.sample(items, num_shots))
                elif repeat:
                    drawn.extend(random.choices(items, k=num_shots))
                else:
                    drawn.extend(items)
            output.append(drawn)
        return output[0] if len(output) == 1 else output

    def split_dataset_by_label(self, data_source: Sequence[Datum]) -> dict[int, list[Datum]]:
        """{label: list of Datum}."""
        return _grouped(data_source, "label")

    def split_dataset_by_domain(self, data_source: Sequence[Datum]) -> dict[int, list[Datum]]:
        """{domain: list of Datum}."""
        return _grouped(data_source, "domain")


def _grouped(data_source: Sequence[Datum], attribute: str) -> dict[int, list[Datum]]:
    groups = defaultdict(list)
    for item in data_source:
        groups[getattr(item, attribute)].append(item)
    return groups
