"""Datasets as released and a user's own: counts, splits, shots, pictures, and what is refused."""

import csv
import io
import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, build_dataset
from PIL import Image

import datasets.registered  # noqa: F401  (registers them)
from core.errors import InputError
from datasets import checks
from datasets.base import DEFAULTS
from datasets.pictures import read_picture
from datasets.splits import SPLITS, draw_shots, draw_split, shared_patients

ROOT = Path(__file__).resolve().parents[1]


def jpeg(size=8):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


JPEG = jpeg()


_numbers = itertools.count()


def put(folder, *names, content=None):
    """Write files; without ``content``, JPEGs of different bytes (a number follows the image)."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG + b"%d" % next(_numbers) if content is None else content)


def load(name, path, seed=1, **settings):
    cfg = get_cfg_default()
    for key, value in {**DEFAULTS, "ROOT": "data", "NAME": name, "PATH": str(path)}.items():
        cfg.DATASET[key] = value
    for key, value in settings.items():
        cfg.DATASET[key] = value
    cfg.SEED = seed
    return build_dataset(cfg)


def own(path, **settings):
    return load("ImageFolder", path, **settings)


def ids(dataset):
    return {side: [p.id for p in getattr(dataset, side)] for side in ("train_x", "val", "test")}


def totals(dataset):
    return tuple(sum(dataset.class_counts[side].values()) for side in SPLITS)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """The tests have their own memory of checked pictures, and leave the user's alone."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


# Derm7pt

COLUMNS = (
    "case_num,diagnosis,seven_point_score,pigment_network,streaks,pigmentation,"
    "regression_structures,dots_and_globules,blue_whitish_veil,vascular_structures,"
    "level_of_diagnostic_difficulty,elevation,location,sex,management,clinic,derm,case_id,notes"
).split(",")
MELANOMA = ["melanoma", "melanoma (in situ)", "melanoma (less than 0.76 mm)", "melanoma metastasis"]
NEVUS = ["clark nevus", "reed or spitz nevus", "dermal nevus", "blue nevus", "combined nevus"]
OTHER = ["basal cell carcinoma", "melanosis", "lentigo", "seborrheic keratosis"]
RELEASED = {"train": (90, 256, 67), "valid": (61, 100, 42), "test": (101, 219, 75)}
FEW = {"train": (4, 4, 2), "valid": (2, 2, 1), "test": (3, 3, 1)}


def derm7pt_release(root, sizes):
    """A release whose table and disk do not agree on the case of letters."""
    rng = random.Random(0)
    sides = [
        (side, rng.choice(names))
        for side, counts in sizes.items()
        for names, count in zip((MELANOMA, NEVUS, OTHER), counts, strict=True)
        for _ in range(count)
    ]
    rng.shuffle(sides)
    (root / "meta").mkdir(parents=True)
    with open(root / "meta/meta.csv", "w", encoding="latin-1", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for row, (_, diagnosis) in enumerate(sides):
            folder, on_disk = (("NEL", "Nel"), ("Fal", "FAL"))[row % 2]
            ending = ".JPG" if row % 3 else ".jpg"
            table.writerow(
                {
                    **dict.fromkeys(COLUMNS, "x"),
                    "case_num": row + 1,
                    "diagnosis": diagnosis,
                    "clinic": f"{folder}/clinic{row}.jpg",
                    "derm": f"{folder}/Derm{row:04}{ending}",
                    "notes": "a comma, and \xe9",
                }
            )
            put(root / "images" / on_disk, f"derm{row:04}.jpg")
    for side in sizes:
        rows = [str(row) for row, (of, _) in enumerate(sides) if of == side]
        (root / f"meta/{side}_indexes.csv").write_text("\n".join(["indexes", *rows]) + "\n")
    return root


@pytest.fixture(scope="module")
def derm7pt(tmp_path_factory):
    return derm7pt_release(tmp_path_factory.mktemp("derm7pt") / "release_v0", RELEASED)


def test_derm7pt_has_the_papers_counts(derm7pt, capsys):
    """346, 161 and 320 pictures by the release's indexes, whatever the case of its paths."""
    dataset = load("Derm7pt", derm7pt)

    assert dataset.classnames == ["melanoma", "nevus"]
    assert dataset.lab2cname == {0: "melanoma", 1: "nevus"}
    assert [dict(dataset.class_counts[side]) for side in SPLITS] == [
        {"melanoma": 90, "nevus": 256},
        {"melanoma": 61, "nevus": 100},
        {"melanoma": 101, "nevus": 219},
    ]
    picture = dataset.train_x[0]
    assert os.path.isfile(picture.impath) and picture.impath.endswith(picture.id)
    assert picture.id.startswith("images/") and picture.subtype in MELANOMA + NEVUS
    card = capsys.readouterr().out
    assert "train, val, test: given by the release's indexes" in card
    assert "  clark nevus" in card and "patients: not known" in card
    assert "the paper's counts" not in card
    assert not (derm7pt / "splits").exists(), "a given split needs no record"


def test_derm7pt_is_found_one_folder_up(derm7pt):
    """DATASET.PATH may name the folder that the archive was unpacked in."""
    inside, above = load("Derm7pt", derm7pt), load("Derm7pt", derm7pt.parent)

    assert above.dataset_dir == inside.dataset_dir
    assert above.split_fingerprint == inside.split_fingerprint


def test_derm7pt_in_folder_form(tmp_path, capsys):
    """{train,val,test}/{melanoma,nevus} as others made it; the card says what differs."""
    for side, count in (("Train", 6), ("valid", 3), ("TEST", 4)):
        for name in ("Melanoma", "nevus"):
            put(tmp_path / side / name, *(f"{n}.jpg" for n in range(count)))

    assert totals(load("Derm7pt", tmp_path)) == (12, 6, 8)
    assert "the paper's counts are 346/161/320, these 12/6/8" in capsys.readouterr().out


def broken_releases():
    def rewrite(name, change):
        def apply(root):
            path = root / "meta" / name
            path.write_text(change(path.read_text(encoding="latin-1")))

        return apply

    def remove(name):
        return lambda root: (root / name).unlink()

    first = "test_indexes.csv"
    return [
        (remove("meta/valid_indexes.csv"), "valid_indexes.csv: is missing"),
        (rewrite(first, lambda t: t + "22\n"), "line 9: '22' is not a row of meta.csv"),
        (rewrite(first, lambda t: t + "x\n"), "'x' is not a row"),
        (rewrite("meta.csv", lambda t: t.replace("diagnosis,", "d,", 1)), "no column 'diagnosis'"),
        (
            lambda root: rewrite(
                first, lambda t: t + (root / "meta/train_indexes.csv").read_text().split()[1]
            )(root),
            "is in train_indexes.csv too",
        ),
        (
            lambda root: [path.unlink() for path in (root / "images/Nel").glob("*00*")],
            r"meta.csv: names NEL/Derm00.*\(and \d+ more missing images\)",
        ),
    ]


@pytest.mark.parametrize(("damage", "message"), broken_releases())
def test_a_damaged_derm7pt_is_one_line(tmp_path, damage, message):
    """It names the file that is wrong."""
    root = derm7pt_release(tmp_path / "release_v0", FEW)
    damage(root)

    with pytest.raises(InputError, match=message) as error:
        load("Derm7pt", root)
    assert "\n" not in str(error.value)


# Pneumonia


def pneumonia_names(normal, sick, start=0):
    """File names as released: several pictures of a patient, some normal ones with two prefixes."""
    names = []
    for n in range(normal):
        prefix = "NORMAL2-" if n % 2 else ""
        names.append(f"NORMAL/{prefix}IM-{start + n * 3 // 4:04}-{n:04}.jpeg")
    for n in range(sick):
        kind = "bacteria" if n % 3 else "virus"
        names.append(f"PNEUMONIA/person{start + n // 2}_{kind}_{n}.jpeg")
    return names


@pytest.fixture(scope="module")
def chest_xray(tmp_path_factory):
    root = tmp_path_factory.mktemp("pneumonia") / "chest_xray"
    put(root / "train", *pneumonia_names(1349, 3883))
    put(root / "test", *pneumonia_names(234, 390))
    return root


def kaggle_copy(release, root):
    """The same pictures with 8 + 8 of the training ones in ``val``, and the archive's litter."""
    for path in release.rglob("*.jpeg"):
        target = root / path.relative_to(release)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(path)
    for name in ("NORMAL", "PNEUMONIA"):
        (root / "val" / name).mkdir(parents=True)
        for path in sorted((root / "train" / name).iterdir())[100:108]:
            path.rename(root / "val" / name / path.name)
    put(root / "__MACOSX/train/NORMAL", "._IM-0001-0001.jpeg", content=b"")
    put(root / "train/NORMAL", ".DS_Store", "._IM-0001-0001.jpeg", content=b"")
    return root


def test_pneumonia_has_the_papers_counts(chest_xray, capsys):
    """4,710, 522 and 624: a tenth of each class, rounded down, is validation."""
    dataset = load("Pneumonia", chest_xray)

    assert dataset.classnames == ["normal lung", "pneumonia"]
    assert [dict(dataset.class_counts[side]) for side in SPLITS] == [
        {"normal lung": 1215, "pneumonia": 3495},
        {"normal lung": 134, "pneumonia": 388},
        {"normal lung": 234, "pneumonia": 390},
    ]
    card = capsys.readouterr().out
    both = shared_patients(dataset.split)
    assert list(both) == [("train", "val")], "numbers start again in test"
    line = next(line for line in card.splitlines() if line.startswith("in both train and val"))
    assert f": {len(both['train', 'val']):,} patients" in line and "normal" in line
    kinds = Counter((p.classname, p.subtype) for p in dataset.val)
    assert kinds["pneumonia", "bacterial"] > kinds["pneumonia", "viral"] > 0
    viral = next(line.split() for line in card.splitlines() if line.startswith("  viral"))
    assert viral[2] == str(kinds["pneumonia", "viral"])


def test_pneumonia_of_kaggle_is_the_same_split(chest_xray, tmp_path, capsys):
    """Its val of 16 goes back to train, and the draw goes by file name: the same pictures."""
    release, kaggle = (
        load("Pneumonia", chest_xray),
        load("Pneumonia", kaggle_copy(chest_xray, tmp_path)),
    )

    for side in ("train_x", "val", "test"):
        one, other = ({Path(i).name for i in ids(d)[side]} for d in (release, kaggle))
        assert one == other
    assert "the folder val, of 16 images, added to train" in capsys.readouterr().out


def test_pneumonia_with_patients_apart(chest_xray):
    """The same counts, and nobody on both sides."""
    dataset = load("Pneumonia", chest_xray, PATIENTS_APART=True)

    assert totals(dataset) == (4710, 522, 624)
    assert shared_patients(dataset.split) == {}


@pytest.mark.parametrize(
    ("name", "folder", "patient", "subtype"),
    [
        ("person1000_bacteria_2931.jpeg", "PNEUMONIA", "person1000", "bacterial"),
        ("person1000_virus_1681.jpeg", "PNEUMONIA", "person1000", "viral"),
        ("BACTERIA-7422-0001.jpeg", "PNEUMONIA", "person7422", "bacterial"),
        ("VIRUS-7422-0001.jpeg", "PNEUMONIA", "person7422", "viral"),
        ("NORMAL2-IM-1427-0001.jpeg", "NORMAL", "normal1427", ""),
        ("IM-1427-0001-0002.jpeg", "normal lung", "normal1427", ""),
        ("NORMAL-28501-0001.jpeg", "NORMAL", "normal28501", ""),
        ("scan7.jpeg", "NORMAL", "", ""),
    ],
)
def test_who_a_pneumonia_picture_is_of(tmp_path, name, folder, patient, subtype):
    """The number alone says who; it means another person in the test folder."""
    for side in ("train", "test"):
        for classname in (folder, "PNEUMONIA" if folder != "PNEUMONIA" else "NORMAL"):
            put(tmp_path / side / classname, "filler-a.jpg", "filler-b.jpg", "filler-c.jpg")
        put(tmp_path / side / folder, name)
    dataset = load("Pneumonia", tmp_path)

    found = {p.id: p for pictures in dataset.split.values() for p in pictures}
    one, other = found[f"train/{folder}/{name}"], found[f"test/{folder}/{name}"]
    assert (one.patient, one.subtype) == (patient, subtype)
    assert other.patient == (f"test-{patient}" if patient else "")


def test_a_val_folder_larger_than_kaggles_is_taken(tmp_path):
    """Somebody has split already."""
    for side, counts in {"train": (20, 20), "val": (9, 8), "test": (3, 3)}.items():
        put(
            tmp_path / side,
            *pneumonia_names(*counts, start={"train": 0, "val": 90, "test": 0}[side]),
        )

    assert totals(load("Pneumonia", tmp_path)) == (40, 17, 6)


# Drawn splits


class Drawn:
    def __init__(self, label, name, patient=""):
        self.label, self.classname, self.id, self.patient = label, f"class {label}", name, patient


def test_a_drawn_split_follows_from_seed_and_names_alone():
    """Neither the order of the files nor any random state changes it; another seed does."""
    pool = [Drawn(n % 3, f"{n}.png") for n in range(300)]

    def draw(pool, seed="1"):
        rest, drawn = draw_split(pool, 0.29, seed, lambda p: p.id, lambda p: "")
        assert len(rest) + len(drawn) == 300 and not {p.id for p in rest} & {p.id for p in drawn}
        assert Counter(p.label for p in drawn) == dict.fromkeys(range(3), 29)
        return {p.id for p in drawn}

    first = draw(pool)
    random.seed(7)
    assert draw(pool[::-1]) == first != draw(pool, "2")
    # One picture less moves hardly any other.
    _, drawn = draw_split(pool[1:], 0.29, "1", lambda p: p.id, lambda p: "")
    assert len(first & {p.id for p in drawn}) >= 86


@pytest.mark.parametrize("seed", range(20))
def test_patients_stay_on_one_side(seed):
    """Each class's share is met as nearly as whole patients allow."""
    rng = random.Random(seed)
    pool = [Drawn(rng.randrange(4), f"{n}.png", f"p{rng.randrange(60)}") for n in range(300)]
    pool += [Drawn(rng.randrange(4), f"own{n}.png") for n in range(50)]

    rest, drawn = draw_split(pool, 0.2, str(seed), lambda p: p.id, lambda p: p.patient)

    assert not {p.patient for p in rest} & {p.patient for p in drawn} - {""}
    total = Counter(p.label for p in pool)
    for label, count in Counter(p.label for p in drawn).items():
        assert total[label] // 5 - 6 <= count <= total[label] // 5


def test_a_class_that_cannot_be_split_is_named(tmp_path):
    """One picture can't be on three sides, nor can one patient be on two."""
    put(tmp_path, *(f"a/{n}.png" for n in range(9)), "b/1_1.png", "b/1_2.png")
    with pytest.raises(InputError, match=r"no val split can be drawn: class 'b' has too few"):
        own(tmp_path)
    with pytest.raises(InputError, match=r"class 'b' has too few images \(2\) or too few patients"):
        own(tmp_path, PATIENT_PATTERN=r"^(\d+)")
    with pytest.raises(InputError, match="TEST_FRACTION is 1.5; give more than 0 and less than 1"):
        own(tmp_path, TEST_FRACTION=1.5)


@pytest.fixture
def fifty(tmp_path):
    """Fifty classes of ten pictures, in folders whose names need no configuration."""
    put(tmp_path, *(f"class{c:02}/{n}.png" for c in range(50) for n in range(10)))
    return tmp_path


def test_fifty_classes_are_split_and_recorded(fifty, capsys):
    """Two classes or fifty; what was drawn is left as readable JSON with its fingerprint."""
    dataset = own(fifty)

    assert dataset.num_classes == 50 and totals(dataset) == (350, 50, 100)
    (record,) = (fifty / "splits").iterdir()
    assert record.name == f"imagefolder-{dataset.split_fingerprint}.json"
    data = json.loads(record.read_text())
    assert data["fingerprint"] == dataset.split_fingerprint
    assert data["val"][0] == [dataset.val[0].id, dataset.val[0].label, dataset.val[0].classname]
    assert "test, val: drawn with seed 1, images at random" in capsys.readouterr().out

    again = own(fifty, SPLIT_FILE=f"splits/{record.name}", SPLIT_SEED=5)
    assert ids(again) == ids(dataset) and again.split_fingerprint == dataset.split_fingerprint
    assert own(fifty, SPLIT_SEED=5).split_fingerprint != dataset.split_fingerprint


def test_a_read_only_folder_is_left_alone(fifty):
    """Also by root, whom its permissions would not stop."""
    fifty.chmod(0o555)
    try:
        dataset = own(fifty)
    finally:
        fifty.chmod(0o755)

    assert not (fifty / "splits").exists()
    dataset.write_split(fifty / "mine.json")
    assert own(fifty, SPLIT_FILE="mine.json").split_fingerprint == dataset.split_fingerprint


def test_another_process_draws_the_same(fifty):
    """Nothing depends on Python's hash seed."""
    code = (
        "import sys, dassl_compat; from tests.test_datasets import ids, json, own; "
        "print(json.dumps(ids(own(sys.argv[1], NUM_SHOTS=1))))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    result = subprocess.run(
        [sys.executable, "-c", code, str(fifty)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(result.stdout.splitlines()[-1]) == ids(own(fifty, NUM_SHOTS=1))


# Shots and halves


@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
def test_few_shot_is_coops(fifty, shots):
    """So many of each class to train on, at most four to validate on, all to test on."""
    dataset = own(fifty, NUM_SHOTS=shots)

    assert set(dataset.class_counts["train"].values()) == {min(shots, 7)}
    assert set(dataset.class_counts["val"].values()) == {1}
    assert totals(dataset)[2] == 100
    assert dataset.split_fingerprint == own(fifty).split_fingerprint


def test_few_shot_validation_takes_at_most_four():
    """min(shots, 4), as CoOp; and fewer shots are among more."""
    pool = [Drawn(n % 2, f"{n}.png") for n in range(100)]

    few, more = ({p.id for p in draw_shots(pool, shots, "1/val")} for shots in (2, 4))
    assert len(few) == 4 and few < more


def test_few_shot_follows_from_the_seed_alone(fifty):
    """Not from the state of any random generator; every seed has its own."""
    random.seed(1)
    np.random.seed(1)
    first = ids(own(fifty, NUM_SHOTS=2))
    random.random()

    assert ids(own(fifty, NUM_SHOTS=2)) == first != ids(own(fifty, NUM_SHOTS=2, seed=2))


def test_base_and_new_classes_are_coops_halves(tmp_path):
    """The first half, rounded up, and the rest, each numbered from zero."""
    put(tmp_path, *(f"{name}/{n}.png" for name in "edcba" for n in range(4)))
    base, new = (own(tmp_path, SUBSAMPLE_CLASSES=part) for part in ("base", "new"))

    assert (base.classnames, new.classnames) == (["a", "b", "c"], ["d", "e"])
    assert base.all_classnames == new.all_classnames == list("abcde")
    assert {p.label for p in new.test} == {0, 1}
    assert base.split_fingerprint == new.split_fingerprint
    with pytest.raises(InputError, match="SUBSAMPLE_CLASSES is 'old'; choose all, base or new"):
        own(tmp_path, SUBSAMPLE_CLASSES="old")


# A user's own pictures


def test_names_and_folders_come_from_the_settings(tmp_path, capsys):
    """The class names of prompts are not the folders'; the order is the user's."""
    put(tmp_path / "train", *(f"{name}/{n}.PNG" for name in ("Mal", "ben") for n in range(10)))
    put(tmp_path / "test", "mal/x.png", "ben/deeper/y.png", "ben/notes.txt")
    dataset = own(tmp_path, CLASSNAMES=["malignant", "benign"], CLASS_FOLDERS=["mal", "ben"])

    assert dataset.classnames == ["malignant", "benign"]
    assert totals(dataset) == (18, 2, 2), "the missing validation split is drawn"
    assert {p.id: p.label for p in dataset.test} == {
        "test/mal/x.png": 0,
        "test/ben/deeper/y.png": 1,
    }
    card = capsys.readouterr().out
    assert "train, test: given by the folders" in card


def table(folder, *lines, name="table.csv"):
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return name


def test_a_table_with_patients_keeps_them_apart(tmp_path):
    """Nothing has to be asked for: where patients are known they are on one side."""
    put(tmp_path, *(f"pictures/{n}.jpg" for n in range(60)))
    lines = [f"pictures\\{n}.JPG, {n // 3 % 2}, P{n // 3}" for n in range(60)]
    name = table(tmp_path, "Path,Label,Patient", *lines)
    dataset = own(tmp_path, CSV=name, CLASSNAMES=["no", "yes"], CLASS_FOLDERS=["0", "1"])

    assert dataset.classnames == ["no", "yes"]
    # Thirty of each, three to a patient: 6 for test are two patients, 2 of the other 24 are one.
    assert totals(dataset) == (42, 6, 12)
    assert shared_patients(dataset.split) == {} and dataset.train_x[0].patient.startswith("P")


def test_a_table_with_splits_is_taken_as_it_is(tmp_path, capsys):
    """Also where it puts a patient on two sides, which the card says, by name."""
    put(tmp_path, *(f"{n}.jpg" for n in range(6)))
    rows = [
        f"{n}.jpg,{'ab'[n % 2]},{('train', 'valid', 'test')[n // 2]},p{n % 4}" for n in range(6)
    ]
    name = table(tmp_path, "path,label,split,patient", *rows)
    dataset = own(tmp_path, CSV=name)

    assert ids(dataset) == {
        "train_x": ["0.jpg", "1.jpg"],
        "val": ["2.jpg", "3.jpg"],
        "test": ["4.jpg", "5.jpg"],
    }
    card = capsys.readouterr().out
    assert "in both train and test: 2 patients, with 2 of the 2 test images: p0, p1" in card
    with pytest.raises(InputError, match="has p0, p1 in both train and test; correct the split"):
        own(tmp_path, CSV=name, PATIENTS_APART=True)


def test_patients_by_file_name(tmp_path):
    """A pattern with one group does what a column would."""
    put(tmp_path, *(f"{'ab'[n % 2]}/{n // 4}_{n}.jpg" for n in range(80)))

    dataset = own(tmp_path, PATIENT_PATTERN=r"^(\d+)_")
    assert shared_patients(dataset.split) == {} and dataset.test[0].patient
    with pytest.raises(InputError, match="PATIENTS_APART is on, but no patient is known"):
        own(tmp_path, PATIENTS_APART=True)
    with pytest.raises(
        InputError, match=r"PATIENT_PATTERN is '\^.*; give a regular expression with one group"
    ):
        own(tmp_path, PATIENT_PATTERN=r"^\d")
    with pytest.raises(InputError, match=r"PATIENT_PATTERN is '\('; give a regular expression"):
        own(tmp_path, PATIENT_PATTERN="(")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,label", "a.jpg,x"], "no column 'path', only file, label"),
        (["path,label"], "has no images"),
        (["path,label", "a.jpg,x", "b.jpg,"], "line 3: its label is empty"),
        (["path,label", "a.jpg,x", "nope.jpg,y"], "line 3: 'nope.jpg' is not below"),
        (["path,label", "a.jpg,x", "A.JPG,y"], "line 3: A.JPG is in line 2 already"),
        (
            ["path,label,split", "a.jpg,x,train", "b.jpg,y,dev"],
            "'dev' is not one of train, val, test",
        ),
        (["path,label,split", "a.jpg,x,train", "b.jpg,y,"], "line 3: the split '' is not one"),
        (["path,label,split", "a.jpg,x,train", "b.jpg,y,test"], "class 'x' has too few images"),
    ],
)
def test_a_wrong_table_is_one_line(tmp_path, lines, message):
    """It names the table and the line."""
    put(tmp_path, "a.jpg", "b.jpg")
    name = table(tmp_path, *lines)

    with pytest.raises(InputError, match=message) as error:
        own(tmp_path, CSV=name, VAL_FRACTION=0.5)
    assert "\n" not in str(error.value)


def test_a_label_that_is_no_class_is_named(tmp_path):
    """In a table with its line, in folders with the folder."""
    put(tmp_path, "a/1.jpg", "b/1.jpg", "c/1.jpg")
    name = table(tmp_path, "path,label", "a/1.jpg,a", "c/1.jpg,c")

    with pytest.raises(InputError, match="table.csv, line 3: the label 'c' is not one of a, b"):
        own(tmp_path, CSV=name, CLASSNAMES=["a", "b"])
    with pytest.raises(
        InputError, match="/c: holds images, but 'c' is not one of the classes a, b"
    ):
        own(tmp_path, CLASSNAMES=["a", "b"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"PATH": ""}, "DATASET.PATH is empty"),
        ({"PATH": "/nowhere/at/all"}, "/nowhere/at/all: there is no such folder"),
        ({"CLASSNAMES": ["a"]}, "the number of classes is 1; at least 2 are needed"),
        ({"CLASSNAMES": ["a", "A"]}, "two classes are named '[aA]'"),
        ({"CLASSNAMES": ["a", " "]}, "has an empty name"),
        (
            {"CLASSNAMES": ["a", "b", "d"]},
            "class 'd' has no images; put them in a folder named 'd'",
        ),
        ({"CLASSNAMES": ["a", "b"], "CLASS_FOLDERS": ["a"]}, "1 names for 2 classes"),
        ({"CSV": "none.csv"}, "none.csv: there is no such file.*set DATASET.CSV"),
        ({"SPLIT_FILE": "none.json"}, "none.json: there is no such file.*set DATASET.SPLIT_FILE"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, settings, message):
    """Each says which setting."""
    put(tmp_path, *(f"{name}/{n}.jpg" for name in "ab" for n in range(4)))

    with pytest.raises(InputError, match=message) as error:
        own(**{"path": tmp_path, **settings})
    assert "\n" not in str(error.value)


def test_an_empty_class_is_named(tmp_path):
    """With the split's folder it should have been in."""
    put(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg")
    (tmp_path / "test/b").mkdir()

    with pytest.raises(InputError, match="/test: class 'b' has no images"):
        own(tmp_path)
    with pytest.raises(InputError, match="there is no folder 'train' in it; get ChestXRay2017"):
        load("Pneumonia", tmp_path / "test")


# Split files


def coop_split(folder, **changes):
    rows = {
        side: [[f"{n}.jpg", "ba".index(name), name] for n, name in enumerate("ab", start)]
        for side, start in (("train", 0), ("val", 2), ("test", 4))
    }
    rows.update(changes)
    (folder / "split.json").write_text(json.dumps(rows))
    return "split.json"


def test_coop_family_split_files_are_read(tmp_path):
    """Their paths start below the folder of the pictures, and their labels give the order."""
    put(tmp_path, *(f"images/{n}.jpg" for n in range(6)))
    dataset = own(tmp_path, SPLIT_FILE=coop_split(tmp_path))

    assert dataset.classnames == ["b", "a"]
    assert [(p.id, p.label) for p in dataset.test] == [("images/4.jpg", 1), ("images/5.jpg", 0)]
    # By name: other labels in the file mean nothing.
    assert own(tmp_path, SPLIT_FILE="split.json", CLASSNAMES=["a", "b"]).test[0].label == 0


def test_a_release_takes_a_split_file_too(derm7pt, tmp_path):
    """Its pictures are then those of the file."""
    first = load("Derm7pt", derm7pt)
    first.write_split(tmp_path / "mine.json")
    again = load("Derm7pt", derm7pt, SPLIT_FILE=str(tmp_path / "mine.json"))

    assert ids(again) == ids(first) and again.split_fingerprint == first.split_fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": [["9.jpg", 0, "a"], ["8.jpg", 1, "b"]]}, r"names '9.jpg'.*\(and 1 more missing"),
        (
            {"test": [["4.jpg", 0, "c"], ["5.jpg", 1, "b"]]},
            "'4.jpg' has the class 'c', which is not one of a, b",
        ),
        ({"test": [["0.jpg", 0, "a"], ["5.jpg", 1, "b"]]}, "is in train and again in test"),
        (
            {"test": [["4.jpg", "a"]]},
            r"entry 1 of 'test' is .* should be \[path, label, class name\]",
        ),
        ({"test": [["4.jpg", 0, "a"]]}, "the test split has no image of the class 'b'"),
        ({"train": []}, "no training images"),
        ({"fingerprint": "0" * 12}, "was changed after it was written"),
    ],
)
def test_a_wrong_split_file_is_one_line(tmp_path, changes, message):
    """It names the file or the picture."""
    put(tmp_path, *(f"{n}.jpg" for n in range(6)))

    with pytest.raises(InputError, match=message) as error:
        own(tmp_path, SPLIT_FILE=coop_split(tmp_path, **changes), CLASSNAMES=["a", "b"])
    assert "\n" not in str(error.value)


def test_what_is_no_split_file_is_said(tmp_path):
    """Neither another JSON nor a text."""
    put(tmp_path, "a/1.jpg", "b/1.jpg")
    for content, message in (("[]", "a split file is an object"), ("{", "cannot be read")):
        (tmp_path / "s.json").write_text(content)
        with pytest.raises(InputError, match=message):
            own(tmp_path, SPLIT_FILE="s.json")


# Pictures

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
COLOUR = np.stack([GREY, GREY[::-1], GREY.T], -1)


def saved(tmp_path, picture, name="x.png", **options):
    picture.save(tmp_path / name, **options)
    return np.asarray(read_picture(tmp_path / name))


def grey_of(values):
    return np.repeat(np.asarray(values, dtype=np.uint8)[..., None], 3, axis=-1)


def test_every_mode_becomes_the_right_rgb(tmp_path):
    """8-bit values stay as they are, 16-bit grey is scaled from its whole range."""
    assert (saved(tmp_path, Image.fromarray(GREY)) == grey_of(GREY)).all()
    assert (saved(tmp_path, Image.fromarray(COLOUR)) == COLOUR).all()
    assert (saved(tmp_path, Image.fromarray(GREY > 100)) == grey_of((GREY > 100) * 255)).all()

    wide = Image.fromarray(GREY.astype(np.uint16) * 257)
    for name in ("x.png", "x.tif"):
        assert (saved(tmp_path, wide, name) == grey_of(GREY)).all()
    big_endian = Image.frombytes("I;16B", (8, 8), (GREY.astype(">u2") * 257).tobytes())
    assert (saved(tmp_path, big_endian, "x.tif") == grey_of(GREY)).all()
    assert (
        saved(tmp_path, Image.fromarray(GREY.astype(np.int32) * 257), "i.tif") == grey_of(GREY)
    ).all()

    palette = Image.fromarray(COLOUR).quantize(64)
    assert (saved(tmp_path, palette) == np.asarray(palette.convert("RGB"))).all()
    cmyk = saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "x.tif")
    assert (cmyk == (255, 0, 0)).all()


def test_what_is_transparent_becomes_black(tmp_path):
    """Whatever colour it hides; half of it, half as bright."""
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[0], alpha[1] = 0, 128
    for layers in ([GREY | 2], [GREY, GREY[::-1], GREY.T]):
        stack = np.stack([*layers, alpha], -1)
        found = saved(tmp_path, Image.fromarray(stack))
        colour = np.broadcast_to(np.stack(layers, -1), (8, 8, 3)).astype(int)
        assert (found[0] == 0).all() and (found[2:] == colour[2:]).all()
        assert (abs(found[1] - colour[1] * 128 / 255) <= 1).all()

    palette = Image.fromarray(COLOUR).quantize(64)
    index = np.asarray(palette)
    found = saved(tmp_path, palette, transparency=int(index[3, 3]))
    expected = np.where((index == index[3, 3])[..., None], 0, np.asarray(palette.convert("RGB")))
    assert (found == expected).all()


def test_a_picture_is_upright(tmp_path):
    """A camera's note of how it was held is followed."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise

    found = saved(tmp_path, Image.fromarray(COLOUR), exif=exif)
    assert (found == np.rot90(COLOUR, -1)).all()


def test_values_of_unknown_range_are_refused(tmp_path):
    """32-bit grey can't be scaled rightly."""
    for values in (GREY.astype(np.float32), GREY.astype(np.int32) * 100_000):
        with pytest.raises(
            InputError, match="x.tif: holds .* of unknown range; save it with 8 or 16"
        ):
            saved(tmp_path, Image.fromarray(values), "x.tif")


@pytest.fixture
def two(tmp_path):
    for number in range(10):
        put(tmp_path, f"{'ab'[number % 2]}/{number // 2}.jpg", content=jpeg(64) + b"%d" % number)
    return tmp_path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an image, or a broken one"),
        (b"no picture at all", "not an image, or a broken one"),
        (jpeg(64)[:-300], "a broken image .*truncated"),
        (jpeg(64)[:300], "a broken image"),
    ],
)
def test_a_broken_picture_is_named_before_training(two, content, message):
    """Empty, another file, or cut short."""
    put(two, "b/3.jpg", content=content)

    with pytest.raises(InputError, match=f"/b/3.jpg: {message}") as error:
        own(two)
    assert "\n" not in str(error.value)
    put(two, "a/0.jpg", content=content)
    with pytest.raises(InputError, match=r"/[ab]/[03].jpg: .*\(and 1 more bad images\)"):
        own(two)


def test_the_quick_check_refuses_what_reading_refuses(tmp_path):
    """Wherever a JPEG or PNG is cut."""
    for name in ("x.jpg", "x.png"):
        path = tmp_path / name
        Image.open(io.BytesIO(jpeg(64))).save(path)
        whole = path.read_bytes()
        for end in range(0, len(whole), 37):
            path.write_bytes(whole[:end])
            assert refused(read_picture, path) == refused(checks.check_picture, path), end


def refused(function, path):
    try:
        function(path)
    except InputError:
        return True
    return False


def test_a_picture_is_checked_once(two, cache, monkeypatch):
    """What passed is remembered until the file changes; a damaged memory is no memory."""
    checked = []
    check = checks.check_picture
    monkeypatch.setattr(
        checks, "check_picture", lambda path, *of: (checked.append(path), check(path, *of))
    )

    own(two)
    assert len(checked) == 10
    own(two)
    assert len(checked) == 10
    put(two, "a/1.jpg", content=jpeg(32))
    own(two)
    assert checked[10:] == [str(two / "a/1.jpg")]
    for path in cache.rglob("*.json"):
        path.write_text('{"checked": ')
    own(two)
    assert len(checked) == 21


def test_a_home_that_cannot_be_written_to_is_no_trouble(two, tmp_path, monkeypatch):
    """The check then happens every time."""
    put(tmp_path, "file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    assert totals(own(two)) == (6, 2, 2)


# Others' code and our configurations


def test_other_peoples_configurations_need_none_of_our_keys(two):
    """Code of the CoOp family declares only its own."""
    cfg = get_cfg_default()
    cfg.DATASET.NAME = "ImageFolder"
    cfg.DATASET.ROOT = str(two.parent)
    cfg.DATASET.PATH = two.name

    assert build_dataset(cfg).num_classes == 2


@pytest.mark.parametrize("name", ["Derm7pt", "Pneumonia", "ImageFolder"])
def test_a_missing_dataset_says_how_to_get_it(name, tmp_path):
    """Before anything else happens."""
    with pytest.raises(
        InputError, match="there is no such folder; (ask|get|put).*or set DATASET.PATH"
    ):
        load(name, tmp_path / "none")
    assert DATASET_REGISTRY.get(name).source
