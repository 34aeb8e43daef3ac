"""Notes on images in the browser app, and their agreement with a run."""

import csv
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from app_runs import opened
from filelock import FileLock
from sklearn.metrics import cohen_kappa_score

from core.errors import InputError


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def bench(toy_run, tmp_path):
    return opened(toy_run("ViP"), notes=tmp_path / "notes.csv")


def test_notes_are_kept_in_a_csv(bench, toy_run, tmp_path):
    """Text is kept as it is, in any script; a formula cannot run in a spreadsheet."""
    file = tmp_path / "notes.csv"
    assert bench.notes() == [] and not file.exists()
    assert bench.about()["notes_file"] == str(file)

    bench.note("test/3", "red", '  נגע\nחשוד <i>, "raised" ', "Dr. A")
    bench.note("test/4", "", "=HYPERLINK(1)", "Dr. A")
    bench.note("test/4", "blue", "'-5 °C", "")

    remarks = ['נגע חשוד <i>, "raised"', "=HYPERLINK(1)", "'-5 °C"]
    assert [note["remark"] for note in bench.notes()] == remarks
    assert [note["id"] for note in bench.notes()] == ["test/3", "test/4", "test/4"]
    assert [row["remark"] for row in rows_of(file)] == [remarks[0], "'=HYPERLINK(1)", "''-5 °C"]
    assert rows_of(file)[0]["image"] == bench.images("0", "test")["images"][3]["name"]
    again = opened(toy_run("ViP"), notes=file)
    assert again.notes() == bench.notes()


def test_notes_are_beside_the_run_unless_named(toy_run):
    folder = toy_run("ViP")
    assert opened(folder).about()["notes_file"] == str(folder / "notes.csv")


def test_an_upload_is_known_again_by_its_bytes(bench, toy_run, tmp_path):
    """In a later session too, under any name."""
    data = bench.thumbnail("test/0", 40)
    bench.note(bench.upload("a.png", data)["id"], "red", "", "A")
    later = opened(toy_run("ViP"), notes=tmp_path / "notes.csv")
    assert [note["id"] for note in later.notes()] == [None]
    assert later.agreement("0")["images"] == 0
    assert "1 of 1 notes are on images that are not open" in later.agreement("0")["text"]

    upload = later.upload("b.png", data)

    assert [note["id"] for note in later.notes()] == [upload["id"]]
    assert later.agreement("0")["images"] == 1


def test_agreement_is_kappa_of_the_last_notes(bench):
    """By scikit-learn, over all readers and for each; a corrected note counts once."""
    listed = bench.images("0", "test")["images"][:8]
    predicted = {image["id"]: image["prediction"] for image in listed}
    other = {"red": "blue", "blue": "red"}
    said = {}
    for number, (image, label) in enumerate(predicted.items()):
        bench.note(image, other[label], "", "A")
        said["A", image] = label if number % 4 else other[label]
        bench.note(image, said["A", image], "corrected", "A")
        if number < 3:
            said["B", image] = "red"
            bench.note(image, "red", "", "B")
    bench.note("test/9", "", "a remark alone", "A")

    found = bench.agreement("0")

    pairs = [(label, predicted[image]) for (_, image), label in said.items()]
    assert found["images"] == 11
    assert found["kappa"] == pytest.approx(cohen_kappa_score(*zip(*pairs, strict=True)))
    low, high = found["interval"]
    assert low < found["kappa"] < high <= 1
    assert f"kappa {found['kappa']:.2f} [{low:.2f}, {high:.2f}]" in found["text"]
    own = [(said["A", image], label) for image, label in predicted.items()]
    assert [reader["reader"] for reader in found["readers"]] == ["A", "B"]
    assert found["readers"][0]["kappa"] == pytest.approx(cohen_kappa_score(*zip(*own, strict=True)))


def test_kappa_that_is_not_defined(bench):
    image = bench.images("0", "test")["images"][0]
    assert bench.agreement("0")["text"].startswith("There are no labelled notes")
    bench.note(image["id"], image["prediction"])

    found = bench.agreement("0")

    assert found["kappa"] is None and found["agreed"] == 1
    assert "kappa is not defined" in found["text"]


@pytest.mark.parametrize(
    ("note", "message"),
    [
        (("test/99", "red"), "no image test/99"),
        (("../etc/passwd", "red"), "there is no image"),
        (("test/0", "green"), "there is no class 'green'; blue, red"),
        (("test/0", ["red"]), "there is no class"),
        (("test/0", "", ""), "needs a label or a remark"),
        (("test/0", "red", "x" * 2001), "at most 2,000"),
        (("test/0", "red", "", "y" * 61), "at most 60"),
        (("test/0", "red", "\ud800"), "not valid text"),
        (("test/0", "red", None), "is a text, and not None"),
    ],
)
def test_notes_that_cannot_be_kept(bench, tmp_path, note, message):
    """One line, and nothing is written."""
    with pytest.raises(InputError, match=message) as caught:
        bench.note(*note)

    assert "\n" not in str(caught.value)
    assert not (tmp_path / "notes.csv").exists()


def test_columns_that_a_user_added_are_kept(bench, tmp_path):
    """With their cells as they are, and the order of the columns."""
    bench.note("test/3", "red", "=1", "A")
    file = tmp_path / "notes.csv"
    head, row = file.read_text().splitlines()
    file.write_text(f"seen,{head}\n=TODAY(),{row}\n")

    bench.note("test/4", "blue", "", "A")

    assert file.read_text().splitlines()[:2] == [f"seen,{head}", f"=TODAY(),{row}"]
    assert [row["seen"] for row in rows_of(file)] == ["=TODAY()", ""]
    assert [(note["label"], note["remark"]) for note in bench.notes()] == [
        ("red", "=1"),
        ("blue", ""),
    ]


def test_a_note_waits_while_another_app_writes_the_file(bench, tmp_path):
    """Else one of the two notes would be lost."""
    with ThreadPoolExecutor(1) as pool:
        with FileLock(tmp_path / ".notes.csv.lock"):
            saved = pool.submit(bench.note, "test/3", "red")
            assert wait([saved], timeout=0.3).not_done
        saved.result(30)
    assert len(bench.notes()) == 1


def test_a_file_that_cannot_be_written(toy_run, tmp_path):
    """One line that says what is not saved; nothing is there."""
    (tmp_path / "file").write_text("")
    bench = opened(toy_run("ViP"), notes=tmp_path / "file" / "n.csv", symptoms=tmp_path / "file")

    with pytest.raises(
        InputError, match=r"n\.csv: cannot be written \(.*\); the note is not saved"
    ):
        bench.note("test/0", "red")
    with pytest.raises(InputError, match=r"x\.json: cannot be written \(.*the symptoms are not"):
        bench.save("0", None, "x")

    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_another_file_is_not_overwritten(toy_run, tmp_path):
    (tmp_path / "a.csv").write_text("time,reader\n1,2\n")

    with pytest.raises(InputError, match="holds no notes of this app .*'image'"):
        opened(toy_run("ViP"), notes=tmp_path / "a.csv")

    assert (tmp_path / "a.csv").read_text() == "time,reader\n1,2\n"
