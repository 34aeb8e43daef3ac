"""Drawn chest films with planted findings, in the layout and with the columns of two archives."""

import csv

import numpy as np

from datasets import synthetic

# Label in the table -> the attribute of a drawn chest that it is. A hernia is drawn nowhere: only
# chance finds it.
PLANTED = {
    "Consolidation": ("opacity", "opaque"),
    "Effusion": ("effusion", "fluid"),
    "Infiltration": ("markings", "increased"),
}
LABELS = [*PLANTED, "Hernia"]
# The embedded CLIP does not know the word "infiltration", but what it looks like.
NAMES = ["consolidation", "effusion", "coarse markings", "hernia"]
SYMPTOMS = {
    "consolidation": ["a white opacity in the lung"],
    "effusion": ["white fluid fills the base of the lung"],
    "coarse markings": ["increased coarse lung markings"],
    "hernia": ["a round mass behind the heart"],
    "no effusion": ["clear lung bases without fluid"],
    "no finding": ["clear lungs", "normal lung markings"],
}


def films(count, seed=0):
    """``count`` images with the findings that each shows: [(pixels, {finding: bool}), ...]."""
    rng = np.random.default_rng(seed)
    drawn = []
    for index in range(count):
        pixels, shown = synthetic.picture(synthetic.CHESTS, 91 + seed, index)
        found = {name: shown[key] == value for name, (key, value) in PLANTED.items()}
        drawn.append((pixels, found | {"Hernia": bool(rng.random() < 0.3)}))
    return drawn


def write_nih(folder, count):
    """NIH ChestX-ray14's layout: images_001/images/*.png and Data_Entry_2017.csv."""
    rows = []
    for index, (pixels, found) in enumerate(films(count)):
        patient = 1 + index * 2 // 3  # every other patient has two images
        name = f"{patient:08d}_{index % 3:03d}.png"
        synthetic.write_png(folder / "images_001" / "images" / name, pixels)
        labels = "|".join(name for name, there in found.items() if there) or "No Finding"
        rows.append([name, labels, index % 3, patient, 50, "F", "PA"])
    header = ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age"]
    with open(folder / "Data_Entry_2017.csv", "w", newline="") as file:
        csv.writer(file).writerows([[*header, "Patient Gender", "View Position"], *rows])
    return rows


def write_chexpert(folder, count):
    """CheXpert's layout: CheXpert-v1.0-small/train/patient*/study1/*.jpg and train.csv.

    Every seventh label is uncertain, and every eleventh that is not there is not mentioned.
    """
    rows = []
    for index, (pixels, found) in enumerate(films(count)):
        study = f"patient{index // 2:05d}/study{index % 2 + 1}"
        path = f"CheXpert-v1.0-small/train/{study}/view1_frontal.jpg"
        synthetic.write_jpeg(folder / path, pixels)
        values = []
        for place, there in enumerate(found.values()):
            number = 4 * index + place
            said = "1.0" if there else "" if number % 11 == 0 else "0.0"
            values.append("-1.0" if number % 7 == 0 else said)
        rows.append([path, "Male", 60, "Frontal", "AP", *values])
    header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS]
    with open(folder / "CheXpert-v1.0-small" / "train.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return rows
