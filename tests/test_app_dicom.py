"""DICOM files that are dropped into the browser app, where the extra is installed."""

import io

import numpy as np
import pytest
from app_runs import opened, predicted, probabilities
from dicom_files import pydicom, real, write_dicom
from PIL import Image

from core.errors import InputError
from engine.loading import load_run


@pytest.fixture
def film():
    return np.random.default_rng(3).integers(0, 4000, (50, 70), dtype=np.uint16)


def test_a_dicom_upload_is_answered_as_its_file(toy_run, tmp_path, film):
    """With and without a name that says so; the header is nowhere in what the page gets."""
    folder = toy_run("ViP")
    bench = opened(folder)
    path = write_dicom(tmp_path / "a.dcm", film, PatientName="Roe^Jane", PatientID="JR-1")
    for name in ("a.dcm", "IM0001", "x.png"):
        upload = bench.upload(name, path.read_bytes())
        answer = bench.answer("0", upload["id"])

        assert probabilities(answer) == predicted([folder], path)[0]
        assert "Roe" not in str(answer) and b"JR-1" not in bench.thumbnail(upload["id"], 40)
    with Image.open(io.BytesIO(bench.thumbnail("upload/1", 70))) as image:
        assert image.size == (70, 50) and not image.info


def test_each_run_sees_its_own_window(toy_run, tmp_path):
    """DATASET.WINDOW of a run decides what it sees, as in predict.py."""
    narrow = toy_run("ViP", "DATASET.WINDOW", "40, 80")
    path = real("CT_small")
    bench = opened(toy_run("ViP"), narrow)
    upload = bench.upload(path.name, path.read_bytes())["id"]

    answers = [probabilities(bench.answer(run, upload)) for run in ("0", "1")]

    assert answers[0] == predicted([toy_run("ViP")], path)[0]
    assert answers[1] == predicted([narrow], path)[0]
    assert load_run(narrow).rendering.window == "40, 80"


def test_a_file_without_the_mark_is_known_by_its_name(toy_run, tmp_path, film):
    """As read_picture knows it."""
    data = write_dicom(tmp_path / "a.dcm", film).read_bytes()
    bench = opened(toy_run("ViP"))

    bare = bench.upload("a.dcm", data[132:])

    assert bench.thumbnail(bare["id"], 70) == bench.thumbnail(bench.upload("a", data)["id"], 70)
    with pytest.raises(InputError, match="not an image"):
        bench.upload("a.png", data[132:])


def test_damaged_and_deflated_files(toy_run, tmp_path, film):
    """One line, without a word of the header; without the mark too."""
    bench = opened(toy_run("ViP"))
    path = write_dicom(tmp_path / "a.dcm", film, PatientName="Roe^Jane")
    file = pydicom.dcmread(path)
    file.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    file.save_as(tmp_path / "deflated.dcm")

    deflated = (tmp_path / "deflated.dcm").read_bytes()

    for data, message in (
        (path.read_bytes()[:900], "a.dcm: "),
        (deflated, "deflated DICOM file"),
        (deflated[132:], "deflated DICOM file"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            bench.upload("a.dcm", data)
        assert "Roe" not in str(caught.value) and "\n" not in str(caught.value)
