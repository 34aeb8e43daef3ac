"""What is described: classes and their training images, from a dataset or from folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yacs.config import CfgNode

import trainers  # noqa: F401  (registers the methods, and makes dassl importable)

# isort: split
from dassl.data.datasets import build_dataset

from core.errors import InputError
from datasets.base import MedicalDataset
from datasets.multi_label import check_one_class
from datasets.pictures import find_pictures
from engine.config import load_cfg
from symptom_generator.montage import SourceImage

ImagesByClass = dict[str, list[SourceImage]]


@dataclass(frozen=True)
class File:
    """An image of a folder given on the command line."""

    impath: str
    id: str


def backbone_cfg(dataset: str, backbone: str, root: str, opts: Sequence[str] = ()) -> CfgNode:
    """The configuration of a dataset and a backbone, for no run in particular."""
    # Of a method that reads no symptoms: the symptom file is only being made or checked.
    opts = [*opts, "TRAINER.COOP.PREC", "fp32"]
    return load_cfg("CoOp", dataset, backbone, (), opts, root=root)[0]


def training_images(cfg: CfgNode) -> tuple[MedicalDataset, ImagesByClass]:
    """The dataset of ``cfg``, and its training images by class."""
    dataset = build_dataset(cfg)
    check_one_class(dataset, "a question about the images of each class")
    images: ImagesByClass = {name: [] for name in dataset.classnames}
    for image in dataset.train_x:
        images[image.classname].append(image)
    return dataset, images


def folder_images(folder: str, classes: Sequence[str]) -> ImagesByClass:
    """The images in ``folder``, which has one folder per class.

    Raises:
        InputError: a class has no image there.
    """
    images: ImagesByClass = {}
    for name in classes:
        below = Path(folder) / name
        found = find_pictures(below)[0] if below.is_dir() else []
        if not found:
            raise InputError(f"{below}: contains no images of class {name!r}")
        images[name] = [File(str(p), p.relative_to(below).as_posix()) for p in found]
    return images
