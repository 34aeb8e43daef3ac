"""SynthDerm: drawn lesions in the layout and size of Derm7pt."""

import csv
from pathlib import Path

import numpy as np
from dassl.data.datasets import DATASET_REGISTRY

from . import synthetic
from .derm7pt import Derm7pt

SEED = 7  # of the images; the dataset is the same for everybody
MELANOMA = {"train": (90, 346), "valid": (61, 161), "test": (101, 320)}  # of how many

COLUMNS = (
    "case_num diagnosis seven_point_score pigment_network streaks pigmentation "
    "regression_structures dots_and_globules blue_whitish_veil vascular_structures "
    "level_of_diagnostic_difficulty elevation location sex management clinic derm case_id notes"
).split()
POINTS = {  # of the seven-point checklist
    ("pigment_network", "atypical"): 2,
    ("blue_whitish_veil", "present"): 2,
    ("streaks", "irregular"): 1,
    ("pigmentation", "diffuse irregular"): 1,
    ("dots_and_globules", "irregular"): 1,
}


@DATASET_REGISTRY.register()
class SynthDerm(Derm7pt):
    """827 drawn lesions, 252 "melanoma" and 575 "nevus": synthetic, of no medical meaning.

    Drawn once below ROOT, in the release's own layout, so that the reader of the real data reads
    it. ``attributes.csv`` beside it holds what each image shows.
    """

    dataset_dir = "synthderm/release_v0"
    source = "give another DATASET.ROOT, or delete the folder and it is drawn again"
    drawn_from = (synthetic.LESIONS, SEED)  # row i of attributes.csv is image i of this series

    def prepare(self) -> None:
        synthetic.write_once(self.dataset_dir, write_release)


def write_release(folder: Path) -> None:
    """Draw every image, the table, the indexes and the true attributes below ``folder``."""
    rng = np.random.default_rng(SEED)
    classnames: list[str] = []
    indexes: dict[str, range] = {}
    for split, (n_melanoma, n) in MELANOMA.items():
        indexes[split] = range(len(classnames), len(classnames) + n)
        classnames += list(
            rng.permutation(["melanoma"] * n_melanoma + ["nevus"] * (n - n_melanoma))
        )
    rows, shown = [], []
    for i, classname in enumerate(map(str, classnames)):
        name = f"SYN/Syn{i:03d}.jpg"
        pixels, attributes = synthetic.picture(synthetic.LESIONS, SEED, i, classname)
        synthetic.write_jpeg(folder / "images" / name, pixels)
        rows.append(_meta_row(i, name, classname, attributes))
        shown.append((f"images/{name}", classname, attributes))
    (folder / "meta").mkdir()
    with open(folder / "meta" / "meta.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for split, numbers in indexes.items():
        lines = "\n".join(map(str, ("indexes", *numbers)))
        (folder / "meta" / f"{split}_indexes.csv").write_text(lines + "\n")
    synthetic.write_attributes(folder / "attributes.csv", synthetic.LESIONS, shown)


def _meta_row(
    index: int, name: str, classname: str, attributes: dict[str, str]
) -> dict[str, object]:
    """The release's columns; a drawn structure is regular where the lesion is symmetric."""
    has, regular = attributes.get, attributes["symmetry"] == "symmetric"
    row: dict[str, object] = dict.fromkeys(COLUMNS, "")
    row |= {
        "case_num": index + 1,
        "diagnosis": classname,
        "pigment_network": "absent",
        "streaks": "absent",
        "pigmentation": "absent",
        "regression_structures": "absent",
        "dots_and_globules": "absent",
        "blue_whitish_veil": "present" if has("veil") == "veil" else "absent",
        # Redness is drawn around the lesion, where vessels would form a wreath.
        "vascular_structures": "wreath" if has("redness") == "red" else "absent",
        "elevation": "flat",
        "derm": name,
        "case_id": f"synthetic {index:03d}",
        "notes": "drawn by a program; not a medical image",
    }
    kind = "regular" if regular else "irregular"
    if has("network") == "network":
        row["pigment_network"] = "typical" if regular else "atypical"
    if has("border") == "jagged":
        row["streaks"] = kind
    if has("colours") == "several":
        row["pigmentation"] = f"diffuse {kind}"
    if has("dots") == "dots":
        row["dots_and_globules"] = kind
    row["seven_point_score"] = sum(n for (key, what), n in POINTS.items() if row[key] == what)
    sure = synthetic.posterior(synthetic.LESIONS, attributes)[classname]
    row["level_of_diagnostic_difficulty"] = (
        "low" if sure > 0.9 else "medium" if sure > 0.5 else "high"
    )
    return row
