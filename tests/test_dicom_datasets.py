"""Datasets, runs and pages of DICOM files: patients are apart and never named, one window."""

import csv
import io
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from dicom_files import pydicom, real, write_dicom
from PIL import Image
from small_runs import SHORT, TOY_SYMPTOMS, make_toy, words_of
from test_datasets import ids, own, put, table

import explain
import predict
import train
from core.errors import InputError
from datasets import dicom_patients, salt
from datasets.dicom import Rendering
from datasets.pictures import read_picture
from symptom_generator.montage import image_fingerprint, sheet
from symptom_generator.sources import File
from trainers import load_run

SECRETS = ("SECRETPATIENT", "1.2.826.99.4711", "SECRET^NAME", "SECRETCOMMENT")


def drawn(folder, count=12, images=3, **tags):
    """Write ``count`` patients, each with ``images`` images in one of two class folders.

    Grey values are Hounsfield units around -600 ("red") and 50 ("blue").
    """
    rng = np.random.default_rng(0)
    for patient in range(count):
        name, level = (("red", -600), ("blue", 50))[patient % 2]
        for i in range(images):
            stored = (1024 + level + rng.normal(0, 60, (40, 40))).astype(np.uint16)
            known = {
                "PatientID": f"{SECRETS[0]}{patient}",
                "StudyInstanceUID": f"{SECRETS[1]}.{patient}.{i}",
                "PatientName": SECRETS[2],
                "ImageComments": SECRETS[3],
                "RescaleSlope": 1,
                "RescaleIntercept": -1024,
                "WindowCenter": 0,
                "WindowWidth": 2000,
                **tags,
            }
            # The number of the patient says nothing of the name of the file.
            file = folder / name / f"{(7 * (3 * patient + i)) % 97:03}.dcm"
            write_dicom(file, stored, "CT", bits=12, **known)
    return folder


def patient_of(picture):
    return str(pydicom.dcmread(picture.impath).PatientID)


def sides(dataset):
    """Side -> the true patients that it has."""
    return {side: {patient_of(p) for p in dataset.split[side]} for side in dataset.split}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Function (name): go to a machine with a cache folder, and so a salt, of its own."""

    def go(name):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache-{name}"))
        salt.machine_salt.cache_clear()
        return tmp_path / f"cache-{name}"

    yield go
    salt.machine_salt.cache_clear()


# Patients


def test_patients_of_the_headers_are_kept_apart(tmp_path, capsys):
    """Nothing has to be asked for; the card says where they come from, and names none."""
    dataset = own(drawn(tmp_path / "data"))
    found = sides(dataset)
    assert not (found["train"] & found["test"] or found["train"] & found["val"])
    assert sum(map(len, found.values())) == 12 == len({p.patient for p in every(dataset)})

    said = capsys.readouterr()
    assert "patients: PatientID of the DICOM headers, as hashes" in said.out
    assert "patients in more than one split: none" in said.out
    assert not any(secret in said.out + said.err for secret in SECRETS)


def every(dataset):
    return [picture for pictures in dataset.split.values() for picture in pictures]


def test_a_split_is_the_same_on_every_machine_and_the_hashes_are_not(tmp_path, machine):
    """Groups are drawn by the name of their first image, so the salt moves no image."""
    data = drawn(tmp_path / "data")
    machine("a")
    one = own(data)
    machine("b")
    other = own(data)
    assert ids(one) == ids(other) and one.split_fingerprint == other.split_fingerprint
    hashes = [{p.id: p.patient for p in every(dataset)} for dataset in (one, other)]
    assert not set(hashes[0].values()) & set(hashes[1].values())
    machine("a")
    assert {p.id: p.patient for p in every(own(data))} == hashes[0]


def test_the_salt_is_private_and_hashes_need_it(tmp_path, machine):
    cache = machine("a")
    first = salt.hashed("17")
    kept = cache / "vip-for-dassl/salt/patients"
    assert stat.S_IMODE(os.stat(kept).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(kept.parent).st_mode) == 0o700
    assert salt.hashed("17") == first != salt.hashed("18") and salt.hashed("") == ""
    salt.machine_salt.cache_clear()
    assert salt.hashed("17") == first  # another process
    kept.write_text("damaged")
    salt.machine_salt.cache_clear()
    assert salt.hashed("17") != first  # a new salt
    assert salt.is_hashed(first) and not salt.is_hashed("17")


def test_a_header_is_read_once_and_again_with_another_salt(tmp_path, machine, monkeypatch):
    data = drawn(tmp_path / "data", count=6, images=2)
    read = []
    reading = dicom_patients._read
    monkeypatch.setattr(dicom_patients, "_read", lambda path: (read.append(path), reading(path))[1])
    cache = machine("a")
    own(data)
    assert len(read) == 12
    own(data)
    assert len(read) == 12
    for file in cache.rglob("checked/*.json"):
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    (cache / "vip-for-dassl/salt/patients").unlink()
    salt.machine_salt.cache_clear()
    own(data)
    assert len(read) == 24


def test_one_id_for_all_files_makes_studies_the_patients(tmp_path, capsys):
    """What an anonymisation leaves; so does an empty one."""
    for patient, why in (("ANONYMOUS", "the same in all files"), ("", "empty")):
        data = drawn(tmp_path / f"data{patient}", PatientID=patient)
        dataset = own(data)
        assert len({p.patient for p in every(dataset)}) == 36
        assert f"PatientID is {why}; a study (StudyInstanceUID) counts" in capsys.readouterr().out


def test_a_file_without_an_id_is_of_its_study(tmp_path):
    data = drawn(tmp_path / "data", StudyInstanceUID="1.2.3")
    for path in list(data.rglob("*.dcm"))[:6]:
        file = pydicom.dcmread(path)
        del file.PatientID
        file.save_as(path)
    dataset = own(data)
    groups = {}
    for picture in every(dataset):
        known = pydicom.dcmread(picture.impath).get("PatientID", "none")
        groups.setdefault(known, set()).add(picture.patient)
    assert all(len(group) == 1 for group in groups.values()) and "none" in groups


def test_patients_named_otherwise_need_no_headers(tmp_path, monkeypatch):
    """A table or a pattern; and a setting that forbids it. Headers are then not read."""
    data = drawn(tmp_path / "data")
    monkeypatch.setattr(dicom_patients, "_read", lambda path: pytest.fail("a header was read"))
    lines = [
        f"{p.relative_to(data)},{p.parent.name},P{i // 3}"
        for i, p in enumerate(sorted(data.rglob("*.dcm")))
    ]
    csv_file = table(data, "path,label,patient", *lines)
    assert {p.patient for p in every(own(data, CSV=csv_file))} == {f"P{i}" for i in range(12)}
    by_name = own(data, PATIENT_PATTERN=r"^(\d\d)")
    assert {len(p.patient) for p in every(by_name)} == {2}
    assert {p.patient for p in every(own(data, DICOM_PATIENTS=False))} == {""}


def test_a_dataset_may_mix_dicom_with_other_files(tmp_path):
    data = drawn(tmp_path / "data", count=6)
    put(data, *(f"{name}/x{n}.jpg" for name in TOY_SYMPTOMS for n in range(5)))
    dataset = own(data)
    known = {Path(p.impath).suffix: bool(p.patient) for p in every(dataset)}
    assert known == {".dcm": True, ".jpg": False}


def test_a_patient_on_two_given_sides_is_known_by_images(tmp_path, capsys):
    """The hash alone would not say what to correct."""
    data = drawn(tmp_path / "data", count=6)
    for side, last in (("train", "0"), ("test", "1")):
        for path in sorted(data.glob("[rb]*/*.dcm")):
            if last == "1" or int(path.stem) % 2:
                target = data / side / path.parent.name / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
    for folder in ("red", "blue"):
        (data / folder).rmdir()
    with pytest.raises(InputError) as error:
        own(data, PATIENTS_APART=True)
    line = str(error.value)
    assert "has hash-" in line and " in both train and test (the first: train/" in line
    assert " and test/" in line and not any(secret in line for secret in SECRETS)

    own(data)
    said = capsys.readouterr().out
    assert "in both train and test: " in said and " test images (the first: train/" in said
    assert "hash-" not in said


def test_a_damaged_header_is_one_line(tmp_path):
    """Found where patients are read, or where the image is checked."""
    data = drawn(tmp_path / "data", count=6)
    bad = sorted(data.rglob("*.dcm"))[0]
    bad.write_bytes(real("MR_truncated").read_bytes())
    for settings in ({}, {"DICOM_PATIENTS": False}):
        with pytest.raises(InputError, match=f"{bad}: a broken DICOM image"):
            own(data, **settings)


def test_a_table_finds_dicom_files_without_their_ending(tmp_path):
    """As the RSNA Pneumonia set names them: by patientId alone."""
    data = drawn(tmp_path / "data")
    lines = [f"{p.stem},{p.parent.name}" for p in sorted(data.rglob("*.dcm"))]
    assert len(every(own(data, CSV=table(data, "path,label", *lines)))) == 36


# What is checked, kept and shown


def test_another_frame_or_window_is_checked_again(tmp_path):
    """What was whole in one frame need not have another."""
    data = drawn(tmp_path / "data", count=6)
    own(data)
    with pytest.raises(InputError, match="has 1 frame, and DATASET.FRAME is 2 .and 17 more bad"):
        own(data, FRAME=2)
    own(data, WINDOW="lung")
    for path in data.rglob("*.dcm"):
        file = pydicom.dcmread(path)
        file.Modality = "MR"
        file.save_as(path)
    own(data)
    with pytest.raises(InputError, match="DATASET.WINDOW is 'lung', which is of CT values"):
        own(data, WINDOW="lung")


def test_a_sheet_for_a_model_shows_the_window_and_no_header(tmp_path):
    """And what was answered about another window is not taken for this one."""
    files = sorted(drawn(tmp_path / "data", count=2).rglob("*.dcm"))
    shown = [File(str(path), path.name) for path in files]
    plain, lung = sheet(shown), sheet(shown, Rendering("lung"))
    means = [np.asarray(Image.open(io.BytesIO(data))).mean() for data in (plain, lung)]
    assert abs(means[0] - means[1]) > 5
    assert not any(secret.encode() in plain + lung for secret in SECRETS)
    assert image_fingerprint(shown[0]) != image_fingerprint(shown[0], Rendering("lung"))


@pytest.fixture(scope="module")
def dicom_toy(tmp_path_factory, _vit):
    """A small run's input of DICOM files, in the window of the lung."""
    toy = make_toy(tmp_path_factory.mktemp("dicom"), _vit)
    drawn(toy / "data/ct", count=20, images=2)
    text = (toy / "toy.yaml").read_text().replace("PATH: toy", "PATH: ct")
    (toy / "toy.yaml").write_text(f"{text}  WINDOW: lung\n")
    return toy


def all_bytes(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_whole_run_names_no_patient_and_shows_its_window(
    dicom_toy, tmp_path_factory, monkeypatch, capfd
):
    """Training, predictions and explanations: their files, the cache and all that is printed."""
    toy, cache = dicom_toy, tmp_path_factory.mktemp("whole-run-cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    salt.machine_salt.cache_clear()
    run = toy / "output/run"
    train.main(["--trainer", "ViP", *words_of(toy, run), *SHORT])
    explain.main([str(run), "--only", "correct", "--figures"])
    picture = sorted((toy / "data/ct/red").iterdir())[0]
    capfd.readouterr()
    predict.main([str(run), "--images", str(picture)])
    rows = list(csv.reader(io.StringIO(capfd.readouterr().out)))
    train.main(["--trainer", "CoOp", *words_of(toy, toy / "output/coop"), *SHORT])
    predict.main([str(run), "--images", str(toy / "data/ct/blue")])
    said = capfd.readouterr()
    salt.machine_salt.cache_clear()

    # The pictures of the page are in the run's window.
    pages = [path.parent for path in run.rglob("index.html")]
    shown = sorted((pages[0] / "pictures").glob("*.png"))
    assert shown
    by_name = {path.stem: path for path in (toy / "data/ct").rglob("*.dcm")}
    source = next(by_name[name] for name in by_name if name in shown[0].stem)
    lung = read_picture(source, rendering=Rendering("lung"))
    with Image.open(shown[0]) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(lung))
        assert not image.info.keys() - {"dpi", "gamma", "srgb"}
    assert not np.array_equal(np.asarray(lung), np.asarray(read_picture(source)))

    # predict.py sees what the run saw.
    loaded = load_run(run)
    assert loaded.rendering == Rendering("lung")
    own = read_picture(picture, rendering=Rendering("lung"))
    probability = loaded.predict([own])[0]
    assert [float(value) for value in rows[1][2:4]] == pytest.approx(probability.tolist(), abs=1e-6)

    written = all_bytes(toy / "output") + all_bytes(cache) + said.out.encode() + said.err.encode()
    written += b"".join(p.read_bytes() for p in (toy / "data").rglob("*.json"))
    assert b"hash-" not in said.out.encode()
    for secret in SECRETS:
        assert secret.encode() not in written
    assert json.loads((run / "results.json").read_text())


def test_kept_features_depend_on_the_window_and_the_frame(dicom_toy, monkeypatch, tmp_path):
    """Two spellings of one window share them; another window encodes again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    toy, kept = dicom_toy, tmp_path / "vip-for-dassl/features"

    def folders(*options):
        output = tmp_path / "-".join(["zero", *options]).replace(" ", "")
        train.main(["--trainer", "ZeroshotCLIP", *words_of(toy, output), *SHORT, *options])
        return {path.name for path in kept.iterdir() if path.is_dir()}

    lung = folders()
    assert folders("DATASET.WINDOW", "Lung") == lung
    numbers = folders("DATASET.WINDOW", "40, 400")
    assert len(numbers - lung) == len(lung)
    assert folders("DATASET.WINDOW", "(40,400)") == numbers
    key = json.loads((kept / sorted(numbers - lung)[0] / "key.json").read_text())
    assert key["dicom"][:4] == [1, [40.0, 400.0], False, 1] and "pydicom" in key["dicom"][4]


def test_other_images_keep_the_key_of_their_features(toy_run):
    """What was encoded before DICOM was read is read again."""
    run = load_run(toy_run("CoOp"))
    views = run._dm.test_views(run.pictures("test"))
    assert "dicom" not in run._frozen_features._key(views)


def test_a_window_of_a_yaml_file_may_be_a_list(dicom_toy, tmp_path):
    """It is kept as text, and a loaded run has it."""
    from engine.config import load_cfg

    path = tmp_path / "toy.yaml"
    text = (dicom_toy / "toy.yaml").read_text()
    path.write_text(text.replace("WINDOW: lung", "WINDOW: [40, 400]"))
    cfg, _ = load_cfg("CoOp", str(path), str(dicom_toy / "random.yaml"))
    assert Rendering(str(cfg.DATASET.WINDOW)).key == Rendering("40,400").key
    path.write_text(text.replace("WINDOW: lung", "WINDOW: [40, 0]"))
    with pytest.raises(InputError, match=r"DATASET.WINDOW is \(40, 0\); give ''"):
        load_cfg("CoOp", str(path), str(dicom_toy / "random.yaml"))
