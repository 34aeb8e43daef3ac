"""A user's own data as it comes: names, links, masks, copies, formats, tables and split files."""

import csv
import gc
import io
import json
import os
import signal
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from test_datasets import coop_split, ids, load, own, put, table, totals

import predict
from core.errors import InputError
from datasets import pictures
from datasets.checks import check_picture
from datasets.pictures import Finder, endings, files_below, pictures_at, read_picture
from datasets.settings import CHECKS, DEFAULTS, check_settings
from engine.config import default_cfg
from explanations import selection
from symptoms import load_symptoms


def fill(folder, *names, count=10, ending=".png"):
    put(folder, *(f"{name}/{n}{ending}" for name in names for n in range(count)))
    return folder


# Names


def test_an_underscore_is_a_space_in_prompts(tmp_path):
    """The folder is found by its own name, and the published order (the folders') stays."""
    fill(tmp_path, "benign_tumor", "a_b", "a b c", "malignant__tumor_")
    dataset = own(tmp_path)

    assert dataset.classnames == ["a b c", "a b", "benign tumor", "malignant tumor"]
    assert {p.id.split("/")[0]: p.classname for p in dataset.train_x}["a_b"] == "a b"
    again = own(tmp_path, CLASSNAMES=dataset.classnames)
    assert again.split_fingerprint == dataset.split_fingerprint


@pytest.mark.parametrize("spelling", ["benign_tumor", "Benign tumor", "benign tumor"])
def test_every_source_of_names_reads_an_underscore_as_a_space(tmp_path, spelling):
    """Settings, a table and a split file; the folder is matched whatever they write."""
    fill(tmp_path, "benign_tumor", "normal", count=5)
    names = [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*.png"))]
    spelled = {name: spelling if name.startswith("benign") else "normal" for name in names}
    lines = [f"{name},{spelled[name]}" for name in names]
    rows = [[name, int(of == "normal"), of] for name, of in spelled.items()]
    (tmp_path / "split.json").write_text(json.dumps({"train": rows, "test": []}))
    expected = [spelling.replace("_", " "), "normal"]

    for settings in (
        {"CLASSNAMES": [spelling, "normal"]},
        {"CSV": table(tmp_path, "path,label", *lines)},
        {"SPLIT_FILE": "split.json"},
    ):
        assert own(tmp_path, **settings).classnames == expected, settings


def test_two_names_that_differ_by_an_underscore_are_refused(tmp_path):
    fill(tmp_path, "a_b", "a b")
    with pytest.raises(InputError, match="two classes are named 'a_b'"):
        own(tmp_path)


@pytest.mark.parametrize("keys", [("benign_tumor", "normal"), ("benign tumor", "normal")])
@pytest.mark.parametrize("names", [("benign_tumor", "normal"), ("benign tumor", "normal")])
def test_symptom_files_are_matched_in_either_spelling(tmp_path, keys, names):
    (tmp_path / "s.json").write_text(json.dumps({key: ["round"] for key in keys}))

    assert list(load_symptoms(tmp_path / "s.json", names).phrases) == list(names)


def test_a_symptom_file_with_both_spellings_is_refused(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"a_b": ["round"], "a b": ["even"]}))
    with pytest.raises(InputError, match="'a b' is there twice"):
        load_symptoms(tmp_path / "s.json", ["a b"])


def test_the_truth_of_a_folder_is_known_in_either_spelling(tmp_path):
    put(tmp_path, "Benign_tumor/a.png")
    (chosen,) = selection.pictures_at([tmp_path], ["normal", "benign tumor"])
    assert chosen.truth == 1


# Settings


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("NUM_SHOTS", value) for value in (0, -7, True, 0.5, float("nan"))),
        *(("VAL_FRACTION", value) for value in (0.0, 1.0, -0.1, float("nan"), float("inf"))),
        *(("TEST_FRACTION", value) for value in (0, 2, "half")),
        ("SPLIT_SEED", -1),
        ("SUBSAMPLE_CLASSES", "Base"),
        ("CLASSNAMES", ["a", ["b"]]),
        ("CLASS_FOLDERS", "ab"),
        ("EXCLUDE", [None]),
        ("PATIENT_PATTERN", "("),
        ("PATIENT_PATTERN", r"\d"),
    ],
)
def test_a_setting_out_of_range_is_one_line(tmp_path, setting, value):
    """It names the setting, also where the run would not have needed it."""
    fill(tmp_path, "a", "b")
    with pytest.raises(InputError, match=rf"DATASET\.{setting} is .*; (give|choose) ") as error:
        own(tmp_path, **{setting: value})
    assert "\n" not in str(error.value)


def test_the_defaults_are_in_range():
    """Dassl's and ours; every checked setting exists."""
    cfg = default_cfg()
    check_settings(cfg.DATASET)
    assert set(CHECKS) <= set(cfg.DATASET)


def test_one_configuration_does_not_change_the_next():
    """The nested default is copied."""
    default_cfg().merge_from_list(["DATASET.CSV_COLUMNS.path", "Image Index"])
    assert default_cfg().DATASET.CSV_COLUMNS.path == DEFAULTS["CSV_COLUMNS"].path == "path"


@pytest.mark.parametrize("part", ["base", "new"])
@pytest.mark.parametrize("names", ["ab", "abc"])
def test_base_to_new_needs_two_classes_a_side(tmp_path, part, names):
    """One class a side is right every time; nothing is trained on it."""
    fill(tmp_path, *names)
    with pytest.raises(InputError, match=f"SUBSAMPLE_CLASSES {part}: {len(names)} classes are"):
        own(tmp_path, SUBSAMPLE_CLASSES=part)


def test_base_to_new_takes_four_classes(tmp_path):
    fill(tmp_path, *"abcd")
    for part, names in (("base", ["a", "b"]), ("new", ["c", "d"])):
        assert own(tmp_path, SUBSAMPLE_CLASSES=part).classnames == names


def test_the_positive_class_is_the_datasets_or_the_settings(tmp_path):
    """melanoma and pneumonia for the releases, whatever their labels; none for own data."""
    fill(tmp_path, "train/melanoma", "train/nevus", "test/melanoma", "test/nevus")
    assert load("Derm7pt", tmp_path).positive == "melanoma"
    names = ["malignant_melanoma", "nevus"]
    settings = {"CLASSNAMES": names, "CLASS_FOLDERS": ["melanoma", "nevus"]}
    assert load("Derm7pt", tmp_path, **settings).positive == "malignant melanoma"
    assert own(tmp_path).positive == ""
    assert own(tmp_path, POSITIVE="Nevus").positive == "nevus"
    with pytest.raises(
        InputError, match="POSITIVE is 'x'; choose one of the classes melanoma, nev"
    ):
        own(tmp_path, POSITIVE="x")


def test_the_positive_class_of_chest_x_rays(tmp_path):
    fill(tmp_path, *(f"{s}/{c}" for s in ("train", "test") for c in ("NORMAL", "PNEUMONIA")))
    assert load("Pneumonia", tmp_path).positive == "pneumonia"


# Links


@pytest.fixture
def in_time():
    """A hang is a failure."""

    def late(*_):
        raise TimeoutError("20 seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_folders_linked_into_themselves_count_once(tmp_path, in_time):
    """Two such links, and one to the folder above."""
    fill(tmp_path, "red", "blue")
    expected = ids(own(tmp_path))
    for name, target in (("self", "."), ("again", "."), ("up", "..")):
        (tmp_path / "red" / name).symlink_to(target)
        (tmp_path / "blue" / name).symlink_to(target)

    assert ids(own(tmp_path)) == expected


def test_each_real_file_counts_once_under_its_own_path(tmp_path, in_time):
    """Links to files and folders beside the real ones add nothing; links elsewhere do."""
    put(tmp_path, "in/b/1.png", "in/2.png", "out/3.png", "out/deep/4.png")
    (tmp_path / "in/a").symlink_to("b")
    (tmp_path / "in/0.png").symlink_to("2.png")
    (tmp_path / "in/more").symlink_to(tmp_path / "out")
    (tmp_path / "out/back").symlink_to(tmp_path / "in")
    os.mkfifo(tmp_path / "in/pipe.png")

    found = [str(p.relative_to(tmp_path / "in")) for p in files_below(tmp_path / "in").values()]
    assert found == ["2.png", "b/1.png", "more/3.png", "more/deep/4.png"]


def test_a_class_linked_under_a_second_name_counts_once(tmp_path):
    fill(tmp_path, "train/normal lung", "train/pneumonia", "test/normal", "test/pneumonia")
    expected = totals(load("Pneumonia", tmp_path))
    (tmp_path / "train/NORMAL").symlink_to("normal lung")

    assert totals(load("Pneumonia", tmp_path)) == expected


def test_a_file_linked_into_another_class_is_refused(tmp_path):
    fill(tmp_path, "red", "blue")
    (tmp_path / "red/x.png").symlink_to("../blue/3.png")
    with pytest.raises(InputError, match="red/x.png is the same file as .*blue/3.png"):
        own(tmp_path)


# Masks and copies


def busi(folder):
    """BUSI's own release: every image has its mask beside it, some two."""
    for kind in ("benign", "malignant"):
        for n in range(1, 11):
            put(folder / kind, f"{kind} ({n}).png", f"{kind} ({n})_mask.png")
        put(folder / kind, f"{kind} (1)_mask_1.png")
    return folder


def test_the_card_warns_of_masks_and_a_pattern_leaves_them_out(tmp_path, capsys):
    dataset = own(busi(tmp_path))
    assert sum(totals(dataset)) == 42
    card = capsys.readouterr().out
    assert "warning: 22 images look like masks" in card and "in DATASET.EXCLUDE" in card
    assert "benign/benign (1)_mask.png" in card

    dataset = own(tmp_path, EXCLUDE=["*_MASK*"])
    assert sum(totals(dataset)) == 20
    card = capsys.readouterr().out
    assert "look like masks" not in card and "left out by DATASET.EXCLUDE: 22 files" in card


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("x.png", "x_mask.png"),
        ("x.jpg", "X_Mask_1.png"),
        ("x.png", "x-segmentation.png"),
        ("x.png", "x_seg.tif"),
        ("x.png", "x_label.png"),
        ("images/x.png", "masks/x.png"),
        ("images/x.png", "Segmentations/deep/x.png"),
    ],
)
def test_what_looks_like_a_mask(tmp_path, capsys, image, mask):
    fill(tmp_path, "a", "b")
    put(tmp_path / "a", image, mask)
    own(tmp_path)
    card = capsys.readouterr().out
    assert "warning: 1 images look like masks" in card and f"of a class: a/{mask}; leave" in card


def test_what_does_not_look_like_a_mask(tmp_path, capsys):
    """A suffix without the image beside it, a word that only ends so, a class of that name."""
    fill(tmp_path, "masks", "b")
    put(tmp_path / "b", "y_mask.png", "un.png", "unmask.png")
    own(tmp_path)
    assert "look like masks" not in capsys.readouterr().out


@pytest.mark.parametrize("source", ["CSV", "SPLIT_FILE"])
def test_a_pattern_leaves_out_rows_too(tmp_path, source):
    fill(tmp_path, "a", "b")
    names = [f"{name}/{n}.png" for name in "ab" for n in range(10)]
    if source == "CSV":
        name = table(tmp_path, "path,label", *(f"{n},{n[0]}" for n in names))
    else:
        name = "split.json"
        rows = [[n, "ab".index(n[0]), n[0]] for n in names]
        (tmp_path / name).write_text(json.dumps({"train": rows, "test": []}))

    dataset = own(tmp_path, EXCLUDE=["a/1.png", "b/[23].png"], **{source: name})
    assert sum(totals(dataset)) == 17


def copies(folder, *names):
    put(folder, *names, content=(folder / "train/a/0.png").read_bytes())


@pytest.fixture
def given(tmp_path):
    """A given split: {train,val,test}/{a,b}/{0..3}.png."""
    return fill(tmp_path, *(f"{s}/{c}" for s in ("train", "val", "test") for c in "ab"), count=4)


def test_the_same_bytes_twice_are_named_on_the_card(given, capsys):
    copies(given, "train/a/copy.png", "train/b/copy.png")
    own(given)
    card = capsys.readouterr().out
    assert "identical files: 1 images: train/a/0.png = train/a/copy.png" in card
    assert "identical files in two classes: 1 images" in card


def test_the_same_bytes_on_two_sides_are_an_error_unless_allowed(given, capsys):
    copies(given, "test/a/copy.png", "val/b/copy.png")
    with pytest.raises(InputError, match="DATASET.ALLOW_DUPLICATES True") as error:
        own(given)
    message = str(error.value)
    assert "copy.png" in message and "(train)" in message and "\n" not in message

    assert totals(own(given, ALLOW_DUPLICATES=True)) == (8, 9, 9)
    assert "identical files in two splits: 1 images" in capsys.readouterr().out


def test_copies_stay_on_one_side_of_a_drawn_split(tmp_path):
    """Whatever the seed; a patient of one copy comes along."""
    for n in range(20):
        put(tmp_path, f"a/{n % 10}_{n}.png", f"b/{10 + n % 10}_{n}.png")
    for one, other in (("a/0_0.png", "a/5_5.png"), ("b/13_3.png", "b/18_8.png")):
        (tmp_path / other).write_bytes((tmp_path / one).read_bytes())
    groups = (["0", "5"], ["13", "18"])

    for pattern in ("", r"^(\d+)_"):
        for seed in range(1, 9):
            dataset = own(tmp_path, SPLIT_SEED=seed, PATIENT_PATTERN=pattern)
            side_of = {p.id: s for s, found in dataset.split.items() for p in found}
            assert side_of["a/0_0.png"] == side_of["a/5_5.png"]
            patients = {p.patient: s for s, found in dataset.split.items() for p in found}
            if pattern:
                assert all(len({patients[name] for name in group}) == 1 for group in groups)


def test_only_files_of_equal_size_are_read_for_copies_and_once(given, monkeypatch):
    copies(given, "train/a/copy.png")
    opened = []

    def spy(path, *args, **kwargs):
        opened.append(os.path.basename(path))
        return open(path, *args, **kwargs)

    monkeypatch.setattr("datasets.checks.open", spy, raising=False)
    sizes = [path.stat().st_size for path in given.rglob("*.png")]
    own(given)
    assert len(opened) == sum(sizes.count(size) > 1 for size in sizes)
    opened.clear()
    own(given)
    assert opened == []


@pytest.mark.parametrize("name", ["{0}", "{0}.png", "part/{0}.png"])
def test_a_later_load_asks_the_disk_once_for_each_image(tmp_path, monkeypatch, name):
    """Of 100,000 images, each further question is a second of every run's start."""
    lines = ["path,label"]
    for i in range(30):
        put(tmp_path, f"part/{i}.png")
        lines.append(f"{name.format(i)},{'ab'[i % 2]}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    first = own(tmp_path, CSV="table.csv")
    asked = []
    stat = os.stat

    def counted(path, *args, **kwargs):
        asked.append(str(path))
        return stat(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", counted)
    later = own(tmp_path, CSV="table.csv")

    images = [path for path in asked if path.endswith(".png")]
    assert sorted(images) == sorted(str(tmp_path / f"part/{i}.png") for i in range(30))
    assert later.split_fingerprint == first.split_fingerprint
    assert gc.isenabled()


# Formats

WRITTEN = {
    "AVIF": ".avif",
    "BMP": ".bmp",
    "GIF": ".gif",
    "JPEG": ".jfif",
    "JPEG2000": ".jp2",
    "PNG": ".apng",
    "PPM": ".pnm",
    "TGA": ".tga",
    "TIFF": ".tif",
    "WEBP": ".webp",
}


def saved_as(kind, ending, folder):
    if ending not in endings():
        pytest.skip(f"this Pillow has no {kind}")
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(5):
        pixels = np.random.default_rng([n, len(str(folder))]).integers(0, 255, (16, 16, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{n}{ending}", kind)


@pytest.mark.parametrize(("kind", "ending"), WRITTEN.items())
def test_all_that_pillow_reads_is_read_in_training_and_predict(tmp_path, kind, ending):
    saved_as(kind, ending, tmp_path / "a")
    saved_as(kind, ending, tmp_path / "bb")

    assert sum(totals(own(tmp_path))) == 10
    assert len(pictures_at([tmp_path])) == 10


def test_what_is_no_raster_image_is_not_among_the_endings():
    """Nor what needs another program: Pillow would start Ghostscript for EPS."""
    assert {".jpg", ".jpeg", ".jpe", ".png", ".tiff", ".mpo", ".pgm"} <= endings()
    assert not endings() & {".eps", ".ps", ".pdf", ".mpg", ".wmf", ".emf", ".h5", ".dcm", ".csv"}


def test_an_eps_under_another_name_does_not_start_ghostscript(tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", None)
    (tmp_path / "x.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
    )
    with pytest.raises(InputError, match="not an image, or a broken one"):
        read_picture(tmp_path / "x.png")


def litter(folder):
    put(folder, "results.xls", "notes.txt", ".DS_Store", "Thumbs.db", content=b"x")


def test_what_training_leaves_out_is_said_on_standard_error(tmp_path, capsys):
    fill(tmp_path, "a", "b")
    litter(tmp_path / "a")
    own(tmp_path)

    said = capsys.readouterr()
    wanted = "skipped 2 files that are not images, first notes.txt"
    assert wanted in said.err and wanted in said.out


@pytest.mark.parametrize("command", [pictures.pictures_at, selection.pictures_at])
def test_what_a_command_leaves_out_is_said_on_standard_error(tmp_path, capsys, command):
    """Shared by predict.py and explain.py."""
    fill(tmp_path, "a", count=2)
    litter(tmp_path / "a")

    assert len(command([tmp_path])) == 2
    said = capsys.readouterr()
    assert "skipped 2 files that are not images, first notes.txt" in said.err
    assert said.out == ""


def test_predict_says_what_it_leaves_out_and_reads_the_rest(toy_run, tmp_path, capsys):
    saved_as("JPEG2000", ".jp2", tmp_path / "new")
    litter(tmp_path / "new")
    run = str(toy_run("CoOp"))
    capsys.readouterr()
    predict.main([run, "--images", str(tmp_path / "new")])

    said = capsys.readouterr()
    assert "skipped 2 files that are not images, first notes.txt" in said.err
    assert len(list(csv.reader(io.StringIO(said.out)))) == 6


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    litter(tmp_path / "a")
    fill(tmp_path, "b")
    with pytest.raises(InputError, match="holds no images: skipped 2 files .*, first notes.txt"):
        pictures_at([tmp_path / "a"])
    with pytest.raises(InputError, match="class 'a' has no images.* first notes.txt"):
        own(tmp_path, CLASSNAMES=["a", "b"])


# Large images


def huge_png(path, width, height, bits=1):
    """A grey PNG of constant rows, written without holding its pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer = zlib.compressobj(1)
    row = b"\0" + b"\xff" * ((width * bits + 7) // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def test_a_jpeg_of_few_pixels_is_whole(tmp_path):
    """An eighth of 4 pixels is none, which is no damage."""
    Image.new("L", (4, 4)).save(tmp_path / "x.jpg")
    check_picture(tmp_path / "x.jpg")


def test_an_image_beyond_pillows_limit_is_read(tmp_path):
    """180 million pixels, at which Pillow speaks of an attack; 1 bit each, so 0.9 GB as RGB."""
    huge_png(tmp_path / "x.png", 15_000, 12_000)
    picture = read_picture(tmp_path / "x.png")

    assert picture.size == (15_000, 12_000) and picture.getpixel((9, 9)) == (255, 255, 255)


def test_an_image_beyond_our_limit_is_not_called_broken(tmp_path):
    """Its size is said, and what to do; found in training and reading alike."""
    fill(tmp_path, "a", "b")
    huge_png(tmp_path / "a/3.png", 100_000, 5_001)
    message = "3.png: has 100,000 x 5,001 pixels; at most 500,000,000 are read: save it at a lower"
    with pytest.raises(InputError, match=message):
        own(tmp_path)
    with pytest.raises(InputError, match=message):
        read_picture(tmp_path / "a/3.png")


def test_a_large_note_in_an_image_is_not_damage(tmp_path):
    """Pillow's own bound is 1 MB."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("report", "x" * 2**21, zip=True)
    Image.new("L", (8, 8)).save(tmp_path / "x.png", pnginfo=info)
    assert read_picture(tmp_path / "x.png").size == (8, 8)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(24, "Too many open files"), "cannot be read .Too many open files"),
        (MemoryError(), "there is too little memory for this image"),
        (OSError("image file is truncated"), "a broken image .image file is truncated"),
    ],
)
def test_the_systems_trouble_is_not_called_damage(tmp_path, monkeypatch, error, message):
    put(tmp_path, "x.jpg")

    def fail(self):
        raise error

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(InputError, match=message):
        read_picture(tmp_path / "x.jpg")


# Tables


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,label,path", "a.jpg,x,b.jpg"], "line 1: the column 'path' is there twice"),
        (["path,label", "a.jpg,x,y"], "line 2: has 3 cells, the header has 2 columns"),
        (["path,label,split", "a.jpg,x"], "line 2: has 2 cells, .* 'split' is missing"),
        (["path,label", "a.jpg,x", "b.jpg,x|y"], "line 3, column label: 'x.y' is several labels"),
        (["path,Label", "a.jpg,x;y"], "line 2, column Label: 'x;y' is several labels"),
        (["path,label", "a.jpg," + "x" * 10**5 + "|y"], r"line 2, column label: 'x+\.\.\. is sev"),
    ],
)
def test_a_table_that_is_not_one_class_a_row_is_refused(tmp_path, lines, message):
    put(tmp_path, "a.jpg", "b.jpg")
    with pytest.raises(InputError, match=message) as error:
        own(tmp_path, CSV=table(tmp_path, *lines))
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_a_bar_in_a_name_that_the_settings_give_is_a_name(tmp_path):
    put(tmp_path, *(f"{n}.jpg" for n in range(20)))
    lines = [f"{n}.jpg,{('x|y', 'z')[n % 2]}" for n in range(20)]
    dataset = own(tmp_path, CSV=table(tmp_path, "path,label", *lines), CLASSNAMES=["x|y", "z"])
    assert dataset.classnames == ["x|y", "z"]


def test_a_split_file_of_several_labels_is_refused(tmp_path):
    put(tmp_path, *(f"{n}.jpg" for n in range(6)))
    rows = {"test": [["4.jpg", 0, "b"], ["5.jpg", 2, "a|b"]]}
    with pytest.raises(InputError, match="'a.b' is several labels of one image"):
        own(tmp_path, SPLIT_FILE=coop_split(tmp_path, **rows))


NIH = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
NIH_COLUMNS = {"path": "Image Index", "label": "Finding Labels", "patient": "Patient ID"}


def columns(**named):
    return {**DEFAULTS["CSV_COLUMNS"], **named}


def nih(folder, *extra):
    """Data_Entry_2017.csv beside images_001/images, images_002/images."""
    lines = []
    for n in range(40):
        name = f"{n // 2 + 1:08}_{n % 2:03}.png"
        put(folder, f"images_{1 + n // 20:03}/images/{name}")
        kind = ("No Finding", "Effusion")[n // 2 % 2]
        lines.append(f"{name},{kind},{n % 2},{n // 2 + 1},058Y,M,PA,2682,2749,0.143,0.143,")
    return table(folder, NIH, *lines, *extra, name="Data_Entry_2017.csv")


def test_nih_s_table_is_read_with_its_own_columns(tmp_path):
    name = nih(tmp_path)
    dataset = own(tmp_path, CSV=name, CSV_COLUMNS=columns(**NIH_COLUMNS))

    assert dataset.classnames == ["Effusion", "No Finding"] and sum(totals(dataset)) == 40
    assert dataset.train_x[0].id.startswith("images_00") and dataset.train_x[0].patient.isdigit()
    sides = [{p.patient for p in pictures} for pictures in dataset.split.values()]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]


def test_nih_s_rows_of_several_findings_are_refused(tmp_path):
    row = "00000001_000.png,Cardiomegaly|Emphysema,1,1,058Y,M,PA,2894,2729,0.143,0.143,"
    name = nih(tmp_path, row)
    message = "Data_Entry_2017.csv, line 42, column Finding Labels: 'Cardiomegaly.Emphysema' is sev"
    with pytest.raises(InputError, match=message):
        own(tmp_path, CSV=name, CSV_COLUMNS=columns(**NIH_COLUMNS))


def ham(folder, name="HAM10000_metadata.csv", mark=","):
    """Bare ids; the images in the release's two folders."""
    lines = ["lesion_id,image_id,dx,dx_type,age,sex,localization".replace(",", mark)]
    for n in range(40):
        put(folder, f"HAM10000_images_part_{1 + n // 20}/ISIC_{24306 + n:07}.jpg")
        row = (
            f"HAM_{n // 2:07},ISIC_{24306 + n:07},{('bkl', 'nv')[n // 2 % 2]},histo,80.0,male,scalp"
        )
        lines.append(row.replace(",", mark))
    return table(folder, *lines, name=name)


HAM_COLUMNS = {"path": "image_id", "label": "dx", "patient": "lesion_id"}


@pytest.mark.parametrize(("name", "mark"), [("HAM10000_metadata.csv", ","), ("HAM.tab", "\t")])
def test_ham10000_s_metadata_is_read_with_bare_ids(tmp_path, name, mark):
    """As .csv and as the archive's .tab; lesions stay on one side."""
    cfg = {"CSV": ham(tmp_path, name, mark), "CSV_COLUMNS": columns(**HAM_COLUMNS)}
    dataset = own(tmp_path, CLASSNAMES=["keratosis", "nevus"], CLASS_FOLDERS=["bkl", "nv"], **cfg)

    assert sum(totals(dataset)) == 40 and dataset.train_x[0].patient.startswith("HAM_")
    assert dataset.train_x[0].id.startswith("HAM10000_images_part_")
    assert dataset.train_x[0].id.endswith(".jpg")


def test_columns_are_named_by_a_yaml_file_and_on_the_command_line(tmp_path):
    """yacs reads both; a field that is none is refused."""
    (tmp_path / "nih.yaml").write_text(
        'DATASET:\n  CSV_COLUMNS:\n    path: "Image Index"\n    split: ""\n'
    )
    cfg = default_cfg()
    cfg.merge_from_file(str(tmp_path / "nih.yaml"))
    cfg.merge_from_list(["DATASET.CSV_COLUMNS.label", "Finding Labels"])
    assert dict(cfg.DATASET.CSV_COLUMNS) == columns(
        path="Image Index", split="", label="Finding Labels"
    )
    with pytest.raises(AssertionError, match="Non-existent key"):
        cfg.merge_from_list(["DATASET.CSV_COLUMNS.labels", "x"])


def test_a_named_column_has_to_be_there(tmp_path):
    name = ham(tmp_path)
    for changed, message in (
        ({}, "has no column 'path', only lesion_id, .*; set DATASET.CSV_COLUMNS.path"),
        ({**HAM_COLUMNS, "subtype": "dx_typ"}, "has no column 'dx_typ'.*CSV_COLUMNS.subtype"),
        ({**HAM_COLUMNS, "label": ""}, "DATASET.CSV_COLUMNS.label is empty"),
    ):
        with pytest.raises(InputError, match=message):
            own(tmp_path, CSV=name, CSV_COLUMNS=columns(**changed))


def test_a_column_that_must_not_be_read_is_not(tmp_path):
    """A column "split" that means something else."""
    put(tmp_path, *(f"{n}.jpg" for n in range(20)))
    name = table(tmp_path, "path,label,split", *(f"{n}.jpg,{'ab'[n % 2]},x" for n in range(20)))
    with pytest.raises(InputError, match="the split 'x' is not one of"):
        own(tmp_path, CSV=name)
    assert sum(totals(own(tmp_path, CSV=name, CSV_COLUMNS=columns(split="")))) == 20


def test_a_bare_id_of_two_files_is_refused(tmp_path):
    """Whichever endings or folders; a path written out is found."""
    put(tmp_path, "1.jpg", "1.png", "p/2.png", "q/2.png", "3.x.png")
    finder = Finder()
    for name in ("1", "2", "2.png"):
        with pytest.raises(InputError, match=f"'{name}' may be .*; write the path out"):
            finder.find_picture(tmp_path, name)
    assert finder.find_picture(tmp_path, "Q/2") == tmp_path / "q/2.png"
    assert finder.find_picture(tmp_path, "3.x") == tmp_path / "3.x.png"
    assert finder.find_picture(tmp_path, "none") is None


# Split files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"train": 7}', 'with "train", "val" and "test"'),
        ('{"train": 7, "test": []}', "'train' is 7; it should be a list"),
        ('{"train": {"a": 1}, "test": []}', "'train' is .*; it should be a list"),
        ('{"train": [7], "test": []}', "entry 1 of 'train' is 7; it should be"),
        ('{"train": [["a", true, "b"]], "test": []}', "entry 1 of 'train' is .* should be"),
        ('{"train": [["a", 0.0, "b"]], "test": []}', "entry 1 of 'train' is .* should be"),
        ('{"train": [["a", -1, "b"]], "test": []}', "give a path, a label of 0 or more"),
        ('{"train": [["a", 0, " "]], "test": []}', "give a path, a label of 0 or more"),
        ('{"train": [["a", 0, "b"], ["c", 1, "b"]], "test": []}', "'b' has the labels 0 and 1"),
        ('{"train": [["a", 0, "b"], ["c", 0, "d"]], "test": []}', "label 0 names 'b' and 'd'"),
        ('{"train": NaN, "test": []}', "'NaN' is not finite"),
        ('{"train": [["\\ud800", 0, "a"]], "test": []}', "half of a surrogate pair"),
        ('{"train": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"train": [["' + "a" * 10**6 + '", 0, "a", 1]], "test": []}', r"is \['aaa.*\.\.\.; it"),
        ("7", "a split file is an object"),
        ("", "cannot be read as JSON"),
    ],
)
def test_a_split_file_of_another_form_is_one_short_line(tmp_path, content, message):
    fill(tmp_path, "a", "b")
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(InputError, match=message) as error:
        own(tmp_path, SPLIT_FILE="s.json")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize(
    "settings",
    [
        {"PATH": "~nobody-of-this-name/x"},
        {"PATH": "x" * 5000},
        {"SPLIT_FILE": "x" * 5000},
        {"CSV": "x\0y"},
    ],
)
def test_a_place_that_cannot_be_is_one_short_line(tmp_path, settings):
    fill(tmp_path, "a", "b")
    with pytest.raises(InputError) as error:
        own(**{"path": tmp_path, **settings})
    assert "\n" not in str(error.value) and len(str(error.value)) < 800
