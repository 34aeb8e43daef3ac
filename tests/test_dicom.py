"""DICOM files as images: real ones, and drawn ones against the equations of the standard."""

import ast
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_files import SMALL, pydicom, real, write_dicom
from PIL import Image

from core.errors import InputError
from datasets import dicom, pictures
from datasets.checks import check_picture
from datasets.dicom import WINDOWS, Rendering, is_dicom, window_of
from datasets.pictures import read_picture
from datasets.settings import check_settings

ROOT = Path(__file__).resolve().parent.parent
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


def pixels(path, **rendering):
    """[H, W] of a grey image, [H, W, 3] of one in colour."""
    return np.asarray(read_picture(path, keep_grey=True, rendering=Rendering(**rendering)))


def refused(path, **rendering):
    """The line that reading gives, which is also the one of the check before training."""
    with pytest.raises(InputError) as reading:
        read_picture(path, rendering=Rendering(**rendering))
    with pytest.raises(InputError) as checking:
        check_picture(path, Rendering(**rendering))
    assert str(reading.value) == str(checking.value) and "\n" not in str(reading.value)
    return str(reading.value)


# Real files


@pytest.mark.parametrize(
    ("stored", "compressed"),
    [
        ("RG1_UNCR", "RG1_J2KR"),  # a chest film, MONOCHROME1, 15 bits
        ("RG3_UNCR", "RG3_J2KR"),  # MONOCHROME1, 10 bits
        ("MR2_UNCR", "MR2_J2KR"),  # 12 bits, rescaled
        ("US1_UNCR", "US1_J2KR"),  # RGB and YBR_RCT
        ("693_UNCR", "693_J2KR"),  # CT, signed
        ("OBXXXX1A", "OBXXXX1A_rle"),  # a palette of 16 bits
        ("MR_small", "MR_small_RLE"),
        ("MR_small", "MR_small_jpeg_ls_lossless"),
        ("MR_small", "MR_small_jp2klossless"),
        ("MR_small", "MR_small_implicit"),
        ("MR_small", "MR_small_bigendian"),
        ("emri_small", "emri_small_jpeg_ls_lossless"),  # ten frames
        ("SC_rgb", "SC_rgb_rle"),
        ("SC_rgb_16bit", "SC_rgb_rle_16bit"),
        ("gdcm-US-ALOKA-16", "gdcm-US-ALOKA-16_big"),  # a palette of 16 bits and indices
        ("color-pl", "color-px"),  # by plane, by pixel
    ],
)
def test_a_lossless_syntax_gives_the_pixels_of_the_uncompressed_file(stored, compressed):
    assert np.array_equal(pixels(real(stored)), pixels(real(compressed)))


@pytest.mark.parametrize(
    ("stored", "other", "most"),
    [
        ("RG1_UNCI", "RG1_J2KI", 0),  # stored from the lossy one
        ("US1_UNCI", "US1_J2KI", 2),  # YBR_ICT
        ("SC_rgb", "SC_ybr_full_uncompressed", 6),  # made from rounded YBR
        ("SC_rgb", "SC_ybr_full_422_uncompressed", 6),
        ("SC_rgb", "SC_rgb_jpeg_gdcm", 6),
    ],
)
def test_a_lossy_syntax_or_another_colour_space_is_close(stored, other, most):
    one, other = pixels(real(stored)).astype(int), pixels(real(other)).astype(int)
    assert np.abs(one - other).max() <= most


def test_a_chest_film_is_bright_where_bones_are():
    """MONOCHROME1 is inverted: the spine is brighter than both lungs, the air outside is dark."""
    film = pixels(real("RG1_UNCR"))
    height, width = film.shape
    rows = slice(height // 4, height // 3)
    spine, left, right = (
        film[rows, int(width * at) : int(width * (at + 0.04))].mean() for at in (0.48, 0.25, 0.72)
    )
    assert spine > left + 30 and spine > right + 30


def test_a_grey_film_is_read_as_grey_and_its_channels_are_equal():
    """One channel for the views, three for everything else."""
    path = real("RG3_UNCR")
    assert read_picture(path, keep_grey=True).mode == "L"
    whole = read_picture(path)
    assert whole.mode == "RGB"
    assert all(np.array_equal(np.asarray(whole)[..., c], pixels(path)) for c in range(3))


def test_a_palette_gives_its_colours():
    """Each pixel is the entry of its index in the file's own tables."""
    path = real("OBXXXX1A")
    header = pydicom.dcmread(path)
    index = header.pixel_array
    for channel, colour in enumerate(("Red", "Green", "Blue")):
        table = header[f"{colour}PaletteColorLookupTableData"].value
        expected = np.frombuffer(table, "<u2")[index] / 65535 * 255
        assert np.abs(pixels(path)[..., channel] - expected).max() <= 0.5


def test_a_modality_table_and_a_voi_table_are_applied():
    """Two files of one test pattern, whose stored values only their tables make sense of."""
    header = pydicom.dcmread(real("vlut_04"))
    (table,) = header.VOILUTSequence
    expected = np.array(table.LUTData)[header.pixel_array] / 65535 * 255
    assert np.abs(pixels(real("vlut_04")) - expected).max() <= 0.5 + 1e-6

    header = pydicom.dcmread(real("mlut_18"))
    (table,) = header.ModalityLUTSequence
    values = np.array(table.LUTData)[header.pixel_array.astype(int) + 2048]
    expected = (values - values.min()) / float(values.max() - values.min()) * 255
    assert np.abs(pixels(real("mlut_18")) - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("name", ["JPEG-LL", "JPGLosslessP14SV1_1s_1f_8b", "bad_sequence"])
def test_jpeg_lossless_is_read_by_its_plugin(name):
    """Equal to what another decoder of pydicom's makes of the stored values, shown by hand."""
    header = pydicom.dcmread(real(name))
    stored = header.pixel_array.astype(float)
    if "WindowWidth" in header:
        real_values = stored * float(header.get("RescaleSlope", 1))
        real_values += float(header.get("RescaleIntercept", 0))
        centre, width = header.WindowCenter, header.WindowWidth
        if header["WindowCenter"].VM > 1:
            centre, width = centre[0], width[0]
        shown = np.vectorize(lambda x: float(linear(x, float(centre), float(width))))
        expected = shown(real_values)
    else:
        expected = (stored - stored.min()) / (stored.max() - stored.min()) * 255
    assert np.abs(pixels(real(name)) - expected).max() <= 0.5 + 1e-6


def test_a_frame_is_the_one_asked_for():
    """The first without a setting; each frame is its own."""
    path = real("emri_small")
    frames = pydicom.dcmread(path).pixel_array
    assert np.array_equal(pixels(path), pixels(path, frame=1))
    shown = [pixels(path, frame=n) for n in (1, 5, 10)]
    for n, image in zip((1, 5, 10), shown, strict=True):
        order = np.argsort(frames[n - 1], axis=None, kind="stable")
        assert (np.diff(image.ravel()[order].astype(int)) >= 0).all()
    assert not np.array_equal(shown[0], shown[1])
    assert refused(path, frame=11) == f"{path}: has 10 frames, and DATASET.FRAME is 11"


@pytest.mark.parametrize("name", ["image_dfl", "explicit_VR-UN", "ExplVR_BigEnd", "JPGExtended"])
def test_an_unusual_file_is_read(name):
    """Deflated, of unknown representations, big endian in colour, JPEG of process 2."""
    assert pixels(real(name)).std() > 5


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("MR_truncated", "a broken DICOM image (Explicit VR Little Endian: "),
        ("test-SR", "a DICOM file without an image (Comprehensive SR Storage)"),
        ("rtplan", "a DICOM file without an image (RT Plan Storage)"),
        ("badVR", "a DICOM file with a damaged header (ValueError)"),
        ("UN_sequence", "a DICOM file without an image (CT Image Storage)"),
        ("no_meta", "not a DICOM file, or a broken one"),
    ],
)
def test_a_file_without_a_whole_image_is_one_line(name, line):
    assert refused(real(name)).startswith(f"{real(name)}: {line}")


def test_a_file_cut_short_anywhere_is_one_line(tmp_path):
    """In the header, in the pixels and in a compressed stream; no text of the header is quoted."""
    for name in ("MR_small", "MR_small_RLE", "MR_small_jp2klossless"):
        whole = real(name).read_bytes()
        for part in (0.05, 0.4, 0.7):
            cut = tmp_path / f"{name}{part}.dcm"
            cut.write_bytes(whole[: int(len(whole) * part)])
            line = refused(cut)
            assert "remove it" in line and "CompressedSamples" not in line


def test_a_file_without_the_mark_is_read_by_its_name(tmp_path):
    """Implicit or explicit, the encoding is found; a PNG named so stays a PNG."""
    for name in ("MR_small", "MR_small_implicit"):
        whole = pydicom.dcmread(real(name))
        bare = tmp_path / f"{name}.dcm"
        syntax = whole.file_meta.TransferSyntaxUID
        whole.save_as(
            bare,
            implicit_vr=syntax == IMPLICIT,
            little_endian=True,
            overwrite=True,
        )
        data = bare.read_bytes()
        start = data.find(b"DICM")
        if start == 128:  # leave out the preamble and the group of the file's own
            length = int.from_bytes(data[140:144], "little")
            data = data[144 + length :]
        bare.write_bytes(data)
        assert data[128:132] != b"DICM"
        assert np.array_equal(pixels(bare), pixels(real(name)))
    Image.new("L", (4, 4), 9).save(tmp_path / "x.png")
    shutil.move(tmp_path / "x.png", tmp_path / "x.dcm")
    assert pixels(tmp_path / "x.dcm")[0, 0] == 9


def test_a_file_without_an_ending_is_found_by_its_mark(tmp_path):
    """IM000001, or named by a UID; not a DICOMDIR, and not a text."""
    for name in ("IM000001", "1.2.840.113619.2.5", "scan.DCM", "DICOMDIR", "a.txt"):
        shutil.copy(real("MR_small"), tmp_path / name)
    (tmp_path / "README").write_text("DICM")
    found, others = pictures.find_pictures(tmp_path)
    assert sorted(p.name for p in found) == ["1.2.840.113619.2.5", "IM000001", "scan.DCM"]
    assert sorted(p.name for p in others) == ["DICOMDIR", "README", "a.txt"]
    assert not is_dicom(tmp_path / "missing")


# Equations


def linear(x, centre, width):
    """PS3.3, C.11.2.1.2.1, onto 0 to 255."""
    if x <= centre - 0.5 - (width - 1) / 2:
        return 0
    if x > centre - 0.5 + (width - 1) / 2:
        return 255
    return ((x - (centre - 0.5)) / (width - 1) + 0.5) * 255


def linear_exact(x, centre, width):
    """PS3.3, C.11.2.1.3.2."""
    return min(max((x - centre) / width + 0.5, 0), 1) * 255


def sigmoid(x, centre, width):
    """PS3.3, C.11.2.1.3.1."""
    return 255 / (1 + math.exp(-4 * (x - centre) / width))


def ct(tmp_path, **tags):
    """A drawn CT of every value from -1024 to 3071, and its values in Hounsfield units."""
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    rescale = {"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"}
    path = write_dicom(tmp_path / "ct.dcm", stored, "CT", bits=12, **{**rescale, **tags})
    return path, stored.astype(int) - 1024


@pytest.mark.parametrize("function", [linear, linear_exact, sigmoid])
def test_the_files_own_window_is_the_standards_equation(tmp_path, function):
    """Of several windows the first."""
    path, values = ct(
        tmp_path,
        WindowCenter=[40, -600],
        WindowWidth=[400, 1500],
        VOILUTFunction=function.__name__.upper(),
    )
    expected = np.vectorize(lambda x: float(function(int(x), 40, 400)))(values)
    assert np.abs(pixels(path) - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("window", ["lung", "bone", "Brain", "40, 400", "(-600 1500)", "0.5,33.3"])
def test_a_window_by_name_or_numbers(tmp_path, window):
    """It replaces the file's own: black up to centre - width / 2, white from centre + width / 2."""
    path, values = ct(tmp_path, WindowCenter=300, WindowWidth=7)
    centre, width = window_of(window)
    expected = np.vectorize(lambda x: float(linear_exact(int(x), centre, width)))(values)
    assert np.abs(pixels(path, window=window) - expected).max() <= 0.5 + 1e-9


def test_the_windows_by_name_are_as_the_documentation_says():
    text = (ROOT / "docs/your_own_data.md").read_text(encoding="utf-8")
    for name, (centre, width) in WINDOWS.items():
        assert f"`{name}` ({centre}, {width})" in text


def test_without_a_window_black_and_white_are_the_files_extremes(tmp_path):
    """More than 8 bits: padding does not count, and is black; 8 bits are shown as they are."""
    path, values = ct(tmp_path, PixelPaddingValue=0, PixelPaddingRangeLimit=999)
    inside = values >= 999 + 1 - 1024
    expected = (values - values[inside].min()) / (3071 - values[inside].min()) * 255
    assert np.abs(pixels(path) - np.where(inside, expected, 0)).max() <= 0.5 + 1e-9

    eight = np.arange(50, 114, dtype=np.uint8).reshape(8, 8)
    assert np.array_equal(pixels(write_dicom(tmp_path / "8.dcm", eight)), eight)
    one = write_dicom(tmp_path / "1.dcm", eight, photometric="MONOCHROME1")
    assert np.array_equal(pixels(one), 255 - eight)
    flat = write_dicom(tmp_path / "flat.dcm", np.full((4, 4), 700, np.uint16))
    assert pixels(flat).max() == 0


def test_a_window_of_no_width_in_the_file_is_no_window(tmp_path):
    path, _ = ct(tmp_path, WindowCenter=40, WindowWidth=0)
    plain, _ = ct(tmp_path / "plain")
    assert np.array_equal(pixels(path), pixels(plain))


def test_values_far_apart_are_shown_as_others():
    """32 bits, where no table of grey values is made."""
    stored = pydicom.dcmread(real("rtdose_1frame")).pixel_array.astype(float)
    expected = (stored - stored.min()) / (stored.max() - stored.min()) * 255
    assert np.ptp(stored) > 2**18
    assert np.abs(pixels(real("rtdose_1frame")) - expected).max() <= 0.5 + 1e-6


def test_a_frame_has_its_own_window(tmp_path):
    """An enhanced multi-frame file says it frame by frame, or once for all."""
    stored = np.stack([np.arange(64, dtype=np.uint16).reshape(8, 8)] * 2)

    def group(**parts):
        return pydicom.Dataset.from_json({}) if not parts else _dataset(**parts)

    shared = group(
        PixelValueTransformationSequence=[_dataset(RescaleSlope=2, RescaleIntercept=-10)]
    )
    own = [group(FrameVOILUTSequence=[_dataset(WindowCenter=c, WindowWidth=40)]) for c in (20, 60)]
    path = write_dicom(
        tmp_path / "x.dcm",
        stored,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=own,
    )
    for frame, centre in ((1, 20), (2, 60)):
        expected = [linear(2 * x - 10, centre, 40) for x in range(64)]
        assert np.abs(pixels(path, frame=frame).ravel() - expected).max() <= 0.5 + 1e-9


def _dataset(**tags):
    made = pydicom.Dataset()
    for name, value in tags.items():
        setattr(made, name, value)
    return made


# Settings and trouble


@pytest.mark.parametrize("window", ["lungs", "40", "40, 0", "40, -3", "1e99, 2", [1, 2, 3]])
def test_a_wrong_window_is_named(window):
    with pytest.raises(InputError, match=r"DATASET.WINDOW is .*; give '' for .* '40, 400'"):
        check_settings({"WINDOW": window})


def test_every_spelling_of_a_window_is_the_same():
    spelled = [(40, 400), [40, 400], "40,400", "(40, 400)", "[40 400]", " +40.0  4e2 "]
    assert {window_of(text) for text in spelled} == {(40.0, 400.0)}
    assert Rendering("40,400").key == Rendering("(40, 400)").key != Rendering("40, 401").key


def test_a_window_that_does_not_apply_is_an_error(tmp_path):
    """One by name to other values than those of CT, any to colours."""
    line = "DATASET.WINDOW is 'lung', which is of CT values, and this file is not CT; give the"
    assert line in refused(real("RG3_UNCR"), window="lung")
    assert pixels(real("RG3_UNCR"), window="500, 900").std() > 5
    assert "a colour image, to which DATASET.WINDOW does not" in refused(
        real("US1_UNCR"), window="5 9"
    )


def test_without_pydicom_one_line_names_the_extra():
    """For a DICOM file alone: a PNG is read without it."""
    script = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from datasets.pictures import read_picture\n"
        "from core.errors import command_line\n"
        "command_line(lambda: read_picture(sys.argv[1]))()\n"
    )
    path = str(SMALL / "CT_small.dcm")
    done = subprocess.run(
        [sys.executable, "-c", script, path], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {path}: a DICOM file, and reading it needs pydicom 3 or later; install it: "
        "pip install '.[dicom]'\n"
    )


def test_without_a_decoder_one_line_names_syntax_and_extra(monkeypatch):
    import pydicom.pixels.decoders.base as base

    monkeypatch.setattr(base.Decoder, "is_available", property(lambda self: False))
    path = real("JPEG-LL")
    assert refused(path) == (
        f"{path}: its pixels are compressed as JPEG Lossless, Non-Hierarchical, First-Order "
        "Prediction (Process 14 [Selection Value 1]), and no decoder for it is installed: "
        "pip install '.[dicom]'"
    )
    assert pixels(real("MR_small")).std() > 5


def test_a_film_in_mpeg_is_one_line(tmp_path):
    path = tmp_path / "x.dcm"
    file = pydicom.dcmread(real("MR_small"))
    file.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    file.PixelData = pydicom.encaps.encapsulate([b"1234"])
    file["PixelData"].is_undefined_length = True
    file.save_as(path)
    assert "compressed as MPEG-4 AVC/H.264" in refused(path)


def test_an_image_beyond_the_limit_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 4000)
    assert "has 64 x 64 pixels; at most 4,000 are read" in refused(real("MR_small"))


def test_nothing_of_the_header_is_printed(tmp_path, capfd):
    """Not even by pydicom, which warns of values against the rules and quotes them."""
    script = (
        "import sys\nfrom datasets.pictures import read_picture\n"
        "from datasets.dicom import reader\n"
        "print(read_picture(sys.argv[1]).info)\n"
        "reader().patient_and_study(sys.argv[1])\n"
    )
    path = write_dicom(tmp_path / "x.dcm", np.zeros((4, 4), np.uint8))
    raw = path.read_bytes()
    file = pydicom.dcmread(path)
    with pydicom.config.disable_value_validation():
        file.PatientID, file.PatientBirthDate = "SECRET" * 20, "SECRET!"
        file.StudyInstanceUID, file.PatientName = "1.SECRET", "SECRET^NAME"
        file.SpecificCharacterSet = "SECRET"
        file.save_as(path)
    assert b"SECRET" in path.read_bytes() != raw
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", script, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "{}\n", "")


def test_every_reader_of_images_says_what_of_dicom_is_shown():
    """A page, a sheet or an upload in another window than the model's would mislead."""
    missing = []
    for path in ROOT.glob("[a-z]*/**/*.py"):
        if path.parts[len(ROOT.parts)] in ("tests", "benchmarks"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "read_picture":
                given = len(node.args) == 3 or any(k.arg == "rendering" for k in node.keywords)
                if not given:
                    missing.append(f"{path.relative_to(ROOT)}, line {node.lineno}")
    assert missing == []


def test_pydicom_is_imported_for_dicom_alone():
    """It takes a while, and most runs do not need it."""
    script = "import sys, datasets.views; print('pydicom' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
    assert dicom.reader().render
