"""A large dataset's reading that is kept: it equals a new one, and any change is noticed."""

import json
import os
import shutil
import time

import pytest
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from drawn_findings import LABELS, NAMES, write_chexpert, write_nih
from made_sets import draw, table

import datasets.registered  # noqa: F401  (registers them)
from core.errors import InputError
from datasets import checks, kept_reading
from datasets.base import DEFAULTS, MedicalDataset
from datasets.splits import SPLITS


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    """Few images are many, and the cache is the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_reading, "MANY", 4)
    # One that is named as if the table were not in the dataset's folder.
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def read(monkeypatch):
    """What was read anew: the datasets, by order."""
    anew = []
    read_and_split = MedicalDataset._read_and_split

    def spy(dataset):
        anew.append(dataset)
        return read_and_split(dataset)

    monkeypatch.setattr(MedicalDataset, "_read_and_split", spy)
    return anew


def load(path, seed=1, name="ImageFolder", **settings):
    cfg = get_cfg_default()
    for key, value in {**DEFAULTS, "ROOT": "data", "NAME": name, "PATH": str(path)}.items():
        cfg.DATASET[key] = value
    for key, value in settings.items():
        place, _, inner = key.partition("__")
        if inner:
            cfg.DATASET[place] = cfg.DATASET[place].clone()
            cfg.DATASET[place][inner] = value
        else:
            cfg.DATASET[key] = value
    cfg.SEED = seed
    return DATASET_REGISTRY.get(name)(cfg)


def age(folder):
    """As if nothing had changed in the folder for a while."""
    then = time.time() - 100
    for here, _, _ in os.walk(folder):
        os.utime(here, (then, then))


def described(dataset):
    """All that a run knows of a dataset."""
    every = {side: [vars(p) for p in dataset.split[side]] for side in SPLITS}
    lists = [dataset.train_x, dataset.val, dataset.test]
    # As text: what is unknown of a finding is no number, and equals nothing.
    return repr(
        (
            every,
            [[vars(p) for p in pictures] for pictures in lists],
            [[p.id for p in group] for group in dataset.duplicates],
            (dataset.notes, dataset.skipped, dataset.split_fingerprint, dataset.class_counts),
            (dataset.classnames, dataset.all_classnames, dataset.classes.folders, dataset.positive),
        )
    )


# Layouts: a function that writes one, and its settings


def folders(root):
    """Classes, a mask, a file that is no image, two copies, and a link to an image elsewhere."""
    for n in range(12):
        draw(root / ("Benign_nevus", "melanoma")[n % 2] / f"{n}.png", n % 2, n)
    draw(root / "melanoma" / "1_mask.png", 1, 50)
    shutil.copy(root / "melanoma" / "1.png", root / "melanoma" / "copy.png")
    (root / "melanoma" / "notes.txt").write_text("seen")
    (root / "melanoma" / "linked.png").symlink_to(draw(root.parent / "other" / "x.png", 1, 60))
    return {"EXCLUDE": ["*_mask*"]}


def csv_of_patients(root):
    """Bare names in two folders, without endings; the split of training images is drawn."""
    rows = []
    for n in range(24):
        draw(root / f"part_{n % 2}" / f"IMG_{n}.jpg", n % 2, n)
        side = "test" if n // 3 % 4 == 0 else "train"
        rows.append(f"IMG_{n},{('benign', 'melanoma')[n % 2]},{side},P{n // 3},{'ab'[n % 2]}")
    table(root / "table.csv", "image,label,split,patient,subtype", rows)
    return {"CSV": "table.csv", "CSV_COLUMNS__path": "image", "POSITIVE": "melanoma"}


def split_file(root):
    rows = {side: [] for side in SPLITS}
    for n in range(18):
        side = SPLITS[n % 3]
        draw(root / "images" / f"{n}.png", n % 2, n)
        rows[side].append([f"{n}.png", n // 3 % 2, ("benign", "melanoma")[n // 3 % 2]])
    (root.parent / "split.json").write_text(json.dumps(rows))
    (root / "left_out.txt").write_text("images/17.png\n")
    return {"SPLIT_FILE": "../split.json", "EXCLUDE_FILE": "left_out.txt"}


def of_findings(root):
    write_nih(root, 24)
    names = sorted(path.name for path in root.rglob("*.png"))
    (root / "train.txt").write_text("\n".join(names[:16]))
    (root / "test.txt").write_text("\n".join(names[16:]))
    return {
        "CSV": "Data_Entry_2017.csv",
        "CSV_COLUMNS__path": "Image Index",
        "CSV_COLUMNS__label": "Finding Labels",
        "CSV_COLUMNS__patient": "Patient ID",
        "CSV_SPLITS__train": "train.txt",
        "CSV_SPLITS__test": "test.txt",
        **FINDINGS,
    }


def of_unknown_findings(root):
    write_chexpert(root, 24)
    return {
        "CSV": "CheXpert-v1.0-small/train.csv",
        "CSV_COLUMNS__path": "Path",
        "CSV_ONE_HOT": True,
        "PATIENT_PATTERN": r"(patient\d+)/study",
        **FINDINGS,
    }


FINDINGS = {
    "name": "MultiLabelFolder",
    "MULTI_LABEL": True,
    "CLASSNAMES": NAMES,
    "CLASS_FOLDERS": LABELS,
}
LAYOUTS = [folders, csv_of_patients, split_file, of_findings, of_unknown_findings]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_kept_reading_is_what_reading_gives(tmp_path, read, capsys, layout):
    settings = layout(tmp_path / "set")
    age(tmp_path)
    first = load(tmp_path / "set", **settings)
    card = capsys.readouterr()
    second = load(tmp_path / "set", **settings)
    assert len(read) == 1
    assert described(second) == described(first)
    assert capsys.readouterr() == card


def test_it_is_found_whatever_the_shots_and_the_half_of_the_classes(tmp_path, read):
    for n in range(40):
        draw(tmp_path / "set" / f"class {n % 4}" / f"{n}.png", n % 4, n)
    age(tmp_path)
    load(tmp_path / "set")
    drawn = {seed: load(tmp_path / "set", seed, NUM_SHOTS=2) for seed in (1, 2)}
    half = load(tmp_path / "set", SUBSAMPLE_CLASSES="new")
    assert len(read) == 1
    assert len(drawn[1].train_x) == 8 and half.classnames == ["class 2", "class 3"]
    assert {p.id for p in drawn[1].train_x} != {p.id for p in drawn[2].train_x}


def test_dicom_patients_are_kept_as_hashes_of_this_salt(tmp_path, read, monkeypatch):
    pytest.importorskip("pydicom")
    from test_dicom_datasets import SECRETS, drawn

    from datasets import salt

    data = drawn(tmp_path / "set")
    age(tmp_path)
    salt.machine_salt.cache_clear()
    first = load(data)
    assert described(load(data)) == described(first) and len(read) == 1
    (kept,) = (tmp_path / "cache" / "vip-for-dassl" / "readings").iterdir()
    assert "hash-" in kept.read_text() and not any(word in kept.read_text() for word in SECRETS)
    assert kept.stat().st_mode & 0o777 == 0o600

    shutil.rmtree(tmp_path / "cache" / "vip-for-dassl" / "salt")
    salt.machine_salt.cache_clear()
    assert described(load(data)) != described(first) and len(read) == 2
    salt.machine_salt.cache_clear()


# Changes: a function that makes one


def rewritten_table(root):
    """One split: the size and the time of the table stay."""
    path = root / "table.csv"
    stat = path.stat()
    path.write_text(path.read_text().replace("IMG_4,benign,train", "IMG_4,benign,valid"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size


def rewritten_image(root):
    path = root / "part_1" / "IMG_3.jpg"
    shutil.copy(root / "part_1" / "IMG_5.jpg", path)  # now a copy of the other


def image_of_the_same_name(root):
    """A bare name may mean two images now."""
    draw(root / "more" / "IMG_3.png", 1, 90)


def lost_image(root):
    (root / "part_1" / "IMG_3.jpg").unlink()


def lost_table(root):
    (root / "table.csv").unlink()


def moved_image(root):
    (root / "part_1" / "IMG_3.jpg").rename(root / "part_0" / "IMG_3.jpg")


def image_among_the_records(root):
    """The folder in which splits are recorded is searched like any other."""
    draw(root / "splits" / "IMG_3.png", 1, 90)


CHANGES = [
    rewritten_table,
    rewritten_image,
    image_of_the_same_name,
    lost_image,
    lost_table,
    moved_image,
    image_among_the_records,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(tmp_path, read, change):
    """What comes of it is what a first start gives, be it a dataset or an error."""
    settings = csv_of_patients(tmp_path / "set")
    age(tmp_path)
    first = outcome(tmp_path / "set", settings)
    assert outcome(tmp_path / "set", settings) == first and len(read) == 1

    change(tmp_path / "set")

    later = outcome(tmp_path / "set", settings)
    shutil.rmtree(tmp_path / "cache")
    assert later == outcome(tmp_path / "set", settings) != first


def outcome(path, settings):
    try:
        return described(load(path, **settings))
    except InputError as error:
        return str(error)


@pytest.mark.parametrize(
    ("key", "value"),
    [("SPLIT_SEED", 2), ("POSITIVE", "benign"), ("CSV_COLUMNS__subtype", ""), ("NOTE", "new")],
)
def test_another_setting_is_noticed(tmp_path, read, key, value):
    settings = csv_of_patients(tmp_path / "set")
    age(tmp_path)
    first = described(load(tmp_path / "set", **settings))
    later = described(load(tmp_path / "set", **settings | {key: value}))
    assert len(read) == 2 and later != first


def test_other_code_reads_again(tmp_path, read, monkeypatch):
    settings = csv_of_patients(tmp_path / "set")
    age(tmp_path)
    load(tmp_path / "set", **settings)
    monkeypatch.setattr(kept_reading, "_code", lambda: "another")
    load(tmp_path / "set", **settings)
    assert len(read) == 2


def test_a_table_that_now_lies_in_the_dataset_s_folder_is_noticed(tmp_path, read):
    """The dataset's folder comes before the one that the command runs in."""
    settings = csv_of_patients(tmp_path / "set")
    here = tmp_path / "here" / "table.csv"
    (tmp_path / "set" / "table.csv").rename(here)
    age(tmp_path)
    load(tmp_path / "set", **settings)
    load(tmp_path / "set", **settings)
    assert len(read) == 1
    lines = here.read_text().splitlines()[:-6]
    (tmp_path / "set" / "table.csv").write_text("\n".join(lines))
    assert sum(map(len, load(tmp_path / "set", **settings).split.values())) == 18


@pytest.mark.parametrize(
    ("name", "line"), [("test.txt", "00000001_000.png"), ("left_out.txt", "images/1.png")]
)
def test_a_changed_list_is_noticed(tmp_path, read, name, line):
    settings = (of_findings if name == "test.txt" else split_file)(tmp_path / "set")
    age(tmp_path)
    first = outcome(tmp_path / "set", settings)
    with open(tmp_path / "set" / name, "a") as file:
        file.write(f"\n{line}\n")
    assert outcome(tmp_path / "set", settings) != first and len(read) == 2


# What is kept


def test_few_images_are_not_kept(tmp_path, monkeypatch, read):
    monkeypatch.setattr(kept_reading, "MANY", 100)
    settings = csv_of_patients(tmp_path / "set")
    age(tmp_path)
    for _ in range(2):
        load(tmp_path / "set", **settings)
    assert len(read) == 2 and not (tmp_path / "cache" / "vip-for-dassl" / "readings").exists()


def test_nothing_is_kept_of_a_folder_that_just_changed(tmp_path, read):
    """It may have changed while it was read."""
    settings = csv_of_patients(tmp_path / "set")
    for _ in range(2):
        load(tmp_path / "set", **settings)
    assert len(read) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 1}'])
def test_a_damaged_file_is_read_over(tmp_path, read, content):
    settings = csv_of_patients(tmp_path / "set")
    age(tmp_path)
    first = described(load(tmp_path / "set", **settings))
    (kept,) = (tmp_path / "cache" / "vip-for-dassl" / "readings").iterdir()
    kept.write_text(content)
    age(tmp_path)
    assert described(load(tmp_path / "set", **settings)) == first
    assert described(load(tmp_path / "set", **settings)) == first and len(read) == 2


def test_an_image_is_decoded_when_it_is_first_used(tmp_path, read, monkeypatch):
    """Shots leave most training images unseen; a later start decodes those that it adds, once."""
    for n in range(40):
        draw(tmp_path / "set" / "ab"[n % 2] / f"{n}.png", n % 2, n)
    decoded = []
    monkeypatch.setattr(checks, "_error_of", lambda path, rendering: decoded.append(path))
    age(tmp_path)
    few = load(tmp_path / "set", NUM_SHOTS=2)
    assert len(decoded) == len(few.train_x + few.val + few.test) < 40
    every = load(tmp_path / "set")
    assert len(decoded) == len(set(decoded)) == 40 == len(every.train_x + every.val + every.test)
    monkeypatch.setattr(checks.FileMemory, "__init__", None)  # not even asked for
    load(tmp_path / "set")
    load(tmp_path / "set", NUM_SHOTS=3)
    assert len(decoded) == 40 and len(read) == 1


def test_a_damaged_image_is_named_when_it_is_first_used(tmp_path):
    for n in range(40):
        draw(tmp_path / "set" / "ab"[n % 2] / f"{n}.png", n % 2, n)
    age(tmp_path)
    used = load(tmp_path / "set", NUM_SHOTS=1).train_x
    unused = sorted((tmp_path / "set" / "a").glob("*.png"))
    broken = next(p for p in unused if str(p) not in {u.impath for u in used})
    broken.write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match=f"{broken.name}: not an image"):
        load(tmp_path / "set")


def test_copies_on_two_sides_are_an_error_however_it_was_read(tmp_path, read, monkeypatch):
    settings = csv_of_patients(tmp_path / "set")
    shutil.copy(
        tmp_path / "set" / "part_1" / "IMG_1.jpg", tmp_path / "set" / "part_1" / "IMG_3.jpg"
    )
    age(tmp_path)
    with monkeypatch.context() as patch:  # as a command that lists copies
        patch.setattr(MedicalDataset, "refuses_duplicates", False)
        load(tmp_path / "set", **settings)
    with pytest.raises(InputError, match="holds the same bytes as"):
        load(tmp_path / "set", **settings)
    assert len(read) == 1


def test_a_drawn_split_is_recorded_again(tmp_path, read):
    folders(tmp_path / "set")
    age(tmp_path)
    load(tmp_path / "set", EXCLUDE=["*_mask*"])
    shutil.rmtree(tmp_path / "set" / "splits")
    load(tmp_path / "set", EXCLUDE=["*_mask*"])
    assert len(read) == 1 and list((tmp_path / "set" / "splits").iterdir())
