"""SynthSkin: six drawn classes, read as their layout's release would be, and known by symptoms."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from dassl.data.datasets import build_dataset
from PIL import Image

import train
from datasets import synthetic, synthskin
from datasets.splits import SPLITS, shared_patients
from datasets.synthskin import SKIN
from engine.config import load_cfg
from results.record import read_record


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The folder of the datasets, with SynthSkin drawn in it."""
    folder = tmp_path_factory.mktemp("data")
    synthetic.write_once(folder / "synthskin", synthskin.write_release)
    return folder


def dataset(data, *opts):
    return build_dataset(load_cfg("CoOp", "synthskin", "tiny", opts=opts, root=str(data))[0])


def test_it_has_the_release_s_layout(data):
    """Columns, folders, codes and names as in PAD-UFES-20; the true attributes beside."""
    folder = data / "synthskin"
    with open(folder / "metadata.csv") as file:
        rows = list(csv.DictReader(file))
    with open(folder / "attributes.csv") as file:
        shown = list(csv.DictReader(file))
    assert list(rows[0]) == synthskin.COLUMNS and len(synthskin.COLUMNS) == 26
    codes = {synthskin.CODES[name]: n for name, n in synthskin.COUNTS.items()}
    assert Counter(row["diagnostic"] for row in rows) == codes
    assert {len(list(folder.glob(f"images/imgs_part_{n}/*.png"))) for n in (1, 2, 3)} == {280}
    assert len({row["lesion_id"] for row in rows}) == len(rows) == 840
    assert set(Counter(row["patient_id"] for row in rows).values()) == {1, 2, 3}
    for row, truth in zip(rows, shown, strict=True):
        assert Path(truth["picture"]).name == row["img_id"]
        assert row["img_id"].startswith(f"{row['patient_id']}_{row['lesion_id']}_")
        assert synthskin.CODES[truth["class"]] == row["diagnostic"]
    pixels, attributes = synthetic.picture(SKIN, synthskin.SEED, 5, shown[5]["class"])
    assert np.array_equal(np.asarray(Image.open(folder / shown[5]["picture"])), pixels)
    assert attributes.items() <= shown[5].items()


def test_its_split_is_the_same_for_everybody_and_keeps_patients_apart(data):
    """Each class in each split in proportion; the general reader of tables gives the same."""
    found = dataset(data)

    assert found.split_fingerprint == "275a6691c582"
    assert [len(found.split[side]) for side in SPLITS] == [412, 134, 294]
    assert shared_patients(found.split) == {}
    for name, n in synthskin.COUNTS.items():
        assert found.class_counts["test"][name] == 35 * n // 100
    settings = ["DATASET.NAME", "ImageFolder", "DATASET.PATH", "synthskin"]
    assert dataset(data, *settings).split_fingerprint == found.split_fingerprint


@pytest.mark.parametrize(
    ("half", "names"),
    [
        ("base", ["actinic keratosis", "basal cell carcinoma", "melanoma"]),
        ("new", ["nevus", "squamous cell carcinoma", "seborrheic keratosis"]),
    ],
)
def test_each_half_has_three_classes_that_its_symptoms_tell_apart(data, tmp_path, half, names):
    """Base to new: the names say little to the embedded CLIP, the symptoms most."""
    args = ["--trainer", "ZeroshotCLIP", "--dataset", "synthskin", "--backbone", "tiny"]
    args += ["--root", str(data), "DATASET.SUBSAMPLE_CLASSES", half]
    accuracies = {}
    for prompts in ("names", "symptoms"):
        folder = tmp_path / prompts
        train.main([*args, "PROMPTS", prompts, "--output-dir", str(folder)])
        record = read_record(folder)
        assert list(record.classnames) == names
        accuracies[prompts] = record.metrics.accuracy
    assert accuracies["names"] < 0.5 < 0.8 < accuracies["symptoms"]


def test_the_embedded_clip_knows_its_symptoms_and_not_its_names(data, tmp_path):
    """Six classes: names are near chance (1 in 6), symptoms far above."""
    args = ["--trainer", "ZeroshotCLIP", "--dataset", "synthskin", "--backbone", "tiny"]
    args += ["--root", str(data)]
    train.main([*args, "--output-dir", str(tmp_path / "names")])
    train.main([*args, "PROMPTS", "symptoms", "--output-dir", str(tmp_path / "symptoms")])

    assert read_record(tmp_path / "names").metrics.balanced_accuracy < 0.3
    assert read_record(tmp_path / "symptoms").metrics.balanced_accuracy > 0.7
