"""Made copies of public datasets: their true folders, file names and tables, with drawn images."""

import json

import numpy as np
from dassl.data.datasets import DATASET_REGISTRY
from PIL import Image

from engine.config import load_cfg

# Of BiomedCoOp's sets: the name of the n-th image of a class, as released (its folder's name is the
# class name with "_" for blanks).
NAMES = {
    "btmri": ("BTMRI", "image{n:02}.jpg"),
    "busi": ("BUSI", "{first} ({n}).png"),
    "chmnist": ("CHMNIST", "10{n:03X}_CRC-Prim-HE-{slide:02}_032.tif_Row_1951_Col_2701.tif"),
    "covid_19": ("COVID_19", "COVID-{n}.png"),
    "ctkidney": ("CTKidney", "Cyst- ({n}).jpg"),
    "dermamnist_biomedcoop": ("DermaMNIST", "train{n}_{label}.png"),
    "kneexray": ("KneeXray", "90{label}{n:04}{side}.png"),
    "kvasir": ("Kvasir", "0053d7cd-549c-48cd-b370-{n:012}.jpg"),
    "lungcolon": ("LungColon", "colonca{n}.jpeg"),
    "octmnist_biomedcoop": ("OCTMNIST", "train{n}_{label}.png"),
    "retina": ("RETINA", "{eye}_{eye_side}.jpg"),
}
SIDES = {"train": 6, "val": 3, "test": 5}  # images of each class


def draw(path, label=0, seed=0, size=40):
    """Draw an image of a class, different for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([label, seed])
    pixels = rng.integers(0, 120, (size, size, 3), dtype=np.uint8)
    pixels[..., label % 3] += np.uint8(60 + 20 * (label // 3 % 3))
    with open(path, "wb") as file:
        Image.fromarray(pixels).save(
            file, {"jpg": "JPEG", "jpeg": "JPEG", "tif": "TIFF"}.get(path.suffix[1:].lower(), "PNG")
        )
    return path


def biomedcoop_set(root, name, classnames):
    """A set below ``root`` as its authors release it; returns {side: identities}."""
    folder, pattern = NAMES[name]
    split = {side: [] for side in SIDES}
    n = 0
    for label, classname in enumerate(classnames):
        for side, count in SIDES.items():
            for _ in range(count):
                n += 1
                file = pattern.format(
                    n=n,
                    label=label,
                    first=classname.split()[0],
                    slide=n % 10 + 1,
                    side="LR"[n % 2],
                    eye=n // 2,
                    eye_side=("left", "right")[n % 2],
                )
                relative = f"{classname.replace(' ', '_')}/{file}"
                draw(root / folder / folder / relative, label, n)
                split[side].append([relative, label, classname])
    path = root / folder / f"split_{folder}.json"
    path.write_text(json.dumps(split, indent=4))
    return {side: [row[0] for row in rows] for side, rows in split.items()}


def load(name, root, *opts):
    """The dataset of configs/datasets/<name>.yaml below ``root``, as a run loads it."""
    cfg, _ = load_cfg("ZeroshotCLIP", name, "tiny", opts=opts, root=str(root))
    return DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg)


def counts(dataset):
    """Images of each split."""
    return tuple(len(dataset.split[side]) for side in SIDES)


def table(path, header, rows):
    """Write a table of comma-separated rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")
