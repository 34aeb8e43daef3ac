"""What a stranger may send to the workbench: one line of error, nothing half-written."""

import io
import json
import struct
import zlib

import pytest
from app_runs import opened, phrase, state_of
from PIL import Image

from core.errors import InputError
from webapp import pictures


@pytest.fixture
def bench(toy_run, tmp_path):
    return opened(toy_run("ViP"), notes=tmp_path / "n" / "notes.csv", symptoms=tmp_path / "s")


def refused(function, *args, match, **options):
    """The call fails with one line."""
    with pytest.raises(InputError, match=match) as caught:
        function(*args, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1000
    message.encode()


def png_of(image, **options):
    with io.BytesIO() as file:
        image.save(file, "PNG", **options)
        return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(side):
    """A PNG of ``side`` x ``side`` pixels in few bytes."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000))


def ico_bomb(side):
    """An icon of 16 x 16 pixels, as it says, that holds a PNG of ``side`` x ``side``."""
    png = png_bomb(side)
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(png), 22) + png


def icns_bomb(side):
    """An icon of 128 x 128 pixels, as it says, that holds a PNG of ``side`` x ``side``."""
    png = png_bomb(side)
    part = b"ic07" + struct.pack(">I", len(png) + 8) + png
    return b"icns" + struct.pack(">I", len(part) + 8) + part


PICTURE = png_of(Image.new("RGB", (20, 20), (200, 0, 0)))
UPLOADS = {
    "empty": (b"", "the file is empty"),
    "text": (b"hello" * 100, "not an image"),
    "html": (b"<html><script>alert(1)</script></html>", "not an image"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not an image"),
    "cut": (PICTURE[:60], "broken image"),
    "bomb": (png_bomb(30_000), "has 30,000 x 30,000 pixels; at most 50,000,000"),
    "ico bomb": (ico_bomb(8_000), "not an image"),
    "icns bomb": (icns_bomb(8_000), "not an image"),
    "pdf": (b"%PDF-1.4\n" + b"0" * 500, "not an image"),
    "zip": (b"PK\x03\x04" + b"\0" * 500, "not an image"),
    "large": (b"\0" * (pictures.UPLOAD_BYTES + 1), "at most 32 MB"),
    "dicom": (b"\0" * 128 + b"DICM" + b"\xff" * 64, "DICOM|pydicom"),
    "deflated": (b"\0" * 128 + b"DICM" + pictures.DEFLATED + b"\0" * 99, "deflated DICOM"),
}


@pytest.mark.parametrize("kind", UPLOADS)
def test_uploads_that_are_no_images(bench, kind):
    """Refused before anything is kept; the count of uploads does not move."""
    data, message = UPLOADS[kind]

    refused(bench.upload, f"{kind}.png", data, match=message)

    assert bench._pictures.uploaded() == []
    assert bench.upload("a.png", PICTURE)["id"] == "upload/1"


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\x\\a.png", "a.png"),
        ("<img src=x onerror=alert(1)>.png", "<img src=x onerror=alert(1)>.png"),
        ("a\u202egnp.exe", "a\ufffdgnp.exe"),
        ("a\0\n.png", "a\ufffd\ufffd.png"),
        ("\ud800.png", "\\ud800.png"),
        ("تصوير.png", "تصوير.png"),
        ("", "image"),
        (None, "image"),
    ],
)
def test_names_of_uploads_are_only_shown(bench, name, kept):
    assert bench.upload(name, PICTURE)["name"] == kept


def test_no_file_is_opened_by_an_uploads_name(bench, tmp_path):
    """Not even an address in an array, which names of real images may be."""
    for name in ("data.npz#train/0", "/etc/hostname", str(tmp_path)):
        upload = bench.upload(name, PICTURE)
        assert bench.thumbnail(upload["id"], 20) == bench.thumbnail("upload/1", 20)
    with pytest.raises(InputError, match="not an image"):
        bench.upload("/etc/hostname", b"x" * 20)


def test_uploads_are_bounded(bench, monkeypatch):
    """The oldest go; their ids say so."""
    monkeypatch.setattr(pictures, "UPLOADS", 3)
    ids = [bench.upload(f"{i}.png", PICTURE)["id"] for i in range(5)]

    assert [shown.id for shown in bench._pictures.uploaded()] == ids[2:]
    refused(bench.answer, "0", ids[0], match="no longer in memory")
    monkeypatch.setattr(pictures, "ALL_BYTES", 2 * len(PICTURE))
    bench.upload("last.png", PICTURE)
    assert len(bench._pictures.uploaded()) == 2


@pytest.mark.parametrize(
    "image",
    ["test/12", "test/-1", "test/1e1", "test/٣", "nope/0", "test/../0", "/etc/passwd", "", None, 7,
     "upload/1", "test/0\n", "x" * 10_000, ["test/0"]],
)  # fmt: skip
def test_images_that_do_not_exist(bench, image):
    for function in (
        bench.thumbnail,
        lambda i: bench.answer("0", i),
        lambda i: bench.note(i, "red"),
    ):
        refused(function, image, match="no image|no longer in memory")


def test_other_values_out_of_range(bench):
    for run in ("1", "-1", "0 ", None, 0, "x" * 5000):
        refused(bench.answer, run, "test/0", match="there is no run")
    for size in (0, 15, 10**9, "40", 40.5, True):
        refused(bench.thumbnail, "test/0", size, match="size of an image")
    for k in (0, -1, 10**9, "3", None):
        refused(bench.neighbours, "0", "test/0", k, match="number of similar images")
    refused(bench.images, "0", "secret", match="no split")
    refused(bench.images, "0", "test", "wrong", match="there is no choice 'wrong'")
    refused(bench.images, "0", "test", class_name="<b>", match="there is no class '<b>'")
    for offset, limit in ((-1, 5), (0, 0), ("0", 5), (0, None)):
        refused(bench.images, "0", "test", offset=offset, limit=limit, match="whole numbers")
    for name, text in (("green", "no blue at all"), ("red", "nothing"), (None, None), ([], {})):
        refused(bench.heatmap, "0", "test/0", name, text, match="no such symptom")


def one(**changes):
    """A class entry with one phrase."""
    return {"class": "red", "new": False, "phrases": [phrase("a")]} | changes


BLUE = one(**{"class": "blue"})
STATES = {
    "no list": ("red", "cannot be read"),
    "empty": ([], "cannot be read"),
    "nothing": ([{}], "cannot be read"),
    "extra key": ([one(path="/etc"), BLUE], "cannot be read"),
    "phrases no list": ([one(phrases="abc"), BLUE], "cannot be read"),
    "phrase no text": ([one(phrases=[phrase(5)]), BLUE], "cannot be read"),
    "weight text": ([one(phrases=[phrase("a", weight="2")]), BLUE], "cannot be read"),
    "weight nan": ([one(phrases=[phrase("a", weight=float("nan"))]), BLUE], "cannot be read"),
    "weight negative": ([one(phrases=[phrase("a", weight=-1.0)]), BLUE], "cannot be read"),
    "weight huge": ([one(phrases=[phrase("a", weight=1e300)]), BLUE], "cannot be read"),
    "too many": ([one(phrases=[phrase(f"p{i}") for i in range(301)]), BLUE], "cannot be read"),
    "many classes": ([one(**{"class": str(i)}) for i in range(201)], "cannot be read"),
    "class missing": ([one()], "trained class 'blue' is missing"),
    "class unknown": ([one(), BLUE, one(**{"class": "green"})], "there is no class 'green'"),
    "class twice": ([one(), BLUE, one()], "'red' is there twice"),
    "new is trained": ([one(), BLUE, one(new=True)], "has a class 'red' already"),
    "new is trained, spelled": (
        [one(), BLUE, one(**{"class": "RED", "new": True})],
        "has a class 'RED' already",
    ),
    "new without name": ([one(), BLUE, one(**{"class": " ", "new": True})], "needs a name"),
    "new with a long name": ([one(), BLUE, one(**{"class": "x" * 101, "new": True})], "a name"),
    "new with a line": ([one(), BLUE, one(**{"class": "a\x1bb", "new": True})], "needs a name"),
    "all off": ([one(phrases=[phrase("a", on=False)]), BLUE], "without symptoms"),
    "no phrases": ([one(phrases=[]), BLUE], "without symptoms"),
    "empty phrase": ([one(phrases=[phrase("  ")]), BLUE], "is empty"),
    "dots": ([one(phrases=[phrase(" . .")]), BLUE], "is empty"),
    "long phrase": ([one(phrases=[phrase("x" * 1001)]), BLUE], "the limit is 1,000"),
    "many tokens": ([one(phrases=[phrase("very " * 150 + "long")]), BLUE], "tokens"),
    "not text": ([one(phrases=[phrase("\ud800")]), BLUE], "not valid UTF-8|cannot be read"),
    "twice": ([one(phrases=[phrase("a b"), phrase("A  b.")]), BLUE], "already has"),
    "trained twice": (
        [one(phrases=[phrase("no blue at all"), phrase("no blue at all", on=False)]), BLUE],
        "twice",
    ),
}


@pytest.mark.parametrize("kind", STATES)
def test_symptoms_that_cannot_be_read(bench, tmp_path, kind):
    """By every call that takes symptoms; nothing is saved."""
    state, message = STATES[kind]

    for function, args in (
        (bench.answer, ("0", "test/0", state)),
        (bench.check, ("0", state)),
        (bench.heatmap, ("0", "test/0", "red", "a", state)),
    ):
        refused(function, *args, match=message)
    if kind != "many tokens":  # which text encoder will read a file is not known
        refused(bench.save, "0", state, "name", match=message)
        refused(bench.symptom_file, "0", state, match=message)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../up", "a/b", "a\\b", "/abs", "a.json", "-x", "x" * 61, "nul\0", "é", "a b",
     "~", "a\n", None, 5, "$(touch x)", "x;y"],
)  # fmt: skip
def test_names_of_saved_files(bench, tmp_path, name):
    """Only plain names: no other folder can be named."""
    refused(bench.save, "0", state_of(bench), name, match="cannot be used")

    assert not (tmp_path / "s").exists()


def test_saving_never_overwrites(bench, tmp_path):
    bench.save("0", None, "mine")
    before = (tmp_path / "s" / "mine.json").read_bytes()
    (tmp_path / "s" / "link.json").symlink_to(tmp_path / "elsewhere")

    refused(bench.save, "0", None, "mine", match="is there already")
    refused(bench.save, "0", None, "link", match="is there already")

    assert (tmp_path / "s" / "mine.json").read_bytes() == before
    assert not (tmp_path / "elsewhere").exists()


def test_html_and_other_scripts_stay_text(bench, tmp_path):
    """In phrases and names of classes, to be shown as they are."""
    texts = ["<script>alert('x')</script>", "بقعة داكنة غير متماثلة", "{{ 7*7 }} ${x} %s"]
    state = state_of(bench)
    state[0]["phrases"] += [phrase(text) for text in texts]
    state.append({"class": "<b>آفة</b>", "new": True, "phrases": [phrase("<i>x</i>")]})

    answer = bench.answer("0", "test/0", state)
    bench.save("0", state, "html")

    assert {row["symptom"] for row in answer["rows"]} >= {*texts, "<i>x</i>"}
    assert answer["probabilities"][2]["class"] == "<b>آفة</b>"
    again = bench.read_symptom_file("0", (tmp_path / "s" / "html.json").read_text("utf-8"))
    assert again == state


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as JSON"),
        ("[]", "is not an object of classes"),
        ("[" * 100_000, "nested too deeply"),
        ('{"red": ["a"], "red": ["b"]}', "is there twice"),
        ('{"red": [1], "blue": ["b"]}', "is not a phrase"),
        ('{"red": ["\\ud800"], "blue": ["b"]}', "surrogate"),
        ('{"red": ["a"], "blue": NaN}', "finite|NaN"),
        ('{"classes": {"red": {"phrases": ["a"], "off": 5}, "blue": ["b"]}}', "'off' is a list"),
        (
            '{"classes": {"red": {"phrases": ["a"], "weights": {"a": "x"}}, "blue": ["b"]}}',
            "cannot",
        ),
        (
            '{"classes": {"red": {"phrases": ["a"], "weights": {"a": 1e400}}, "blue": ["b"]}}',
            "finite",
        ),
        (json.dumps({"red": [f"p{i}" for i in range(301)], "blue": ["b"]}), "cannot be read"),
        ("x" * 2_000_001, "at most 2,000,000"),
        (None, "is a text"),
        (b"{}", "is a text"),
    ],
)
def test_files_that_are_no_symptom_files(bench, text, message):
    refused(bench.read_symptom_file, "0", text, match=message)


def test_runs_that_cannot_be_opened(toy_run, tmp_path):
    """Not a run; nothing named; other seeds."""
    refused(opened, match="name at least one run")
    refused(opened, tmp_path, match="is not a run")
    refused(opened, [toy_run("ViP"), toy_run("CoOp")], match="is not another seed")
