"""Chest X-rays of children with and without pneumonia."""

import re
from pathlib import Path
from typing import Any

from dassl.data.datasets import DATASET_REGISTRY

from core.errors import InputError

from .base import MedicalDataset
from .pictures import Picture
from .splits import SPLIT_NAMES, Split

# The Kaggle copy sets this many of the release's training images apart as its "val".
_KAGGLE_VAL = 16
_NORMAL = re.compile(r"(?:IM|NORMAL)-(\d+)", re.IGNORECASE)
_SICK = re.compile(r"(?:person|bacteria-|virus-)(\d+)", re.IGNORECASE)
_SUBTYPES = (("bacteria", "bacterial"), ("virus", "viral"))


@DATASET_REGISTRY.register()
class Pneumonia(MedicalDataset):
    """5,856 chest X-rays (Kermany et al., Cell 2018; Mendeley doi 10.17632/rscbjbr9sj).

    Read from {train,test}/{NORMAL,PNEUMONIA}. The validation split is drawn: a tenth of each class,
    rounded down, from the training images, at random as in the paper or with patients apart. A
    ``val`` of 16 images or fewer is the Kaggle copy's and goes back to the training images; a
    larger one is taken as the validation split.
    """

    dataset_dir = "pneumonia/chest_xray"
    inner_dirs = ("chest_xray",)
    source = "get ChestXRay2017 from https://doi.org/10.17632/rscbjbr9sj and unpack it there"
    class_names = ("normal lung", "pneumonia")
    class_aliases = (("normal", "normal lung"), ("pneumonia",))
    positive_class = "pneumonia"
    paper_counts: tuple[int, int, int] | None = (4710, 522, 624)
    # The release holds some thirty X-rays twice, and the paper's random split does not care.
    duplicates_allowed = True

    def read(self) -> Split:
        given = self.read_split_folders()
        if "test" not in given:
            raise InputError(f"{self.dataset_dir}: there is no folder 'test' in it; {self.source}")
        if 0 < len(given.get("val", [])) <= _KAGGLE_VAL:
            val = given.pop("val")
            given["train"] += val
            self.notes.append(f"the folder val, of {len(val)} images, added to train")
        return given

    def describe(self, name: str, label: int) -> tuple[str, str]:
        """The patient's number, and bacterial or viral.

        Bacterial and viral images of one number are one patient; a normal one of that number is
        another.
        """
        if label == 0:
            match = _NORMAL.search(name)
            return (f"normal{int(match[1])}" if match else ""), ""
        match = _SICK.search(name)
        subtype = next((what for word, what in _SUBTYPES if word in name.lower()), "")
        return (f"person{int(match[1])}" if match else ""), subtype

    def picture(self, path: str | Path, label: int, *known: Any, **named: Any) -> Picture:
        picture = super().picture(path, label, *known, **named)
        if picture.patient and SPLIT_NAMES.get(picture.id.split("/")[0].lower()) == "test":
            # The numbers start again there: the same one is another patient.
            picture.patient = f"test-{picture.patient}"
        return picture

    def split_key(self, picture: Picture) -> str:
        # The file name: the Kaggle copy has some of the same files in another folder.
        return picture.id.rsplit("/", 1)[-1]
