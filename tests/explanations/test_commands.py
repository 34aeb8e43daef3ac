"""predict.py and explain.py: files that agree among themselves, and one line for wrong input."""

import csv
import errno
import json
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from PIL import Image

import explain
import predict
import report
from core.errors import command_line
from explanations import with_symptoms
from explanations.selection import pictures_at
from trainers import load_run

SYMPTOMS = ("TRAINER.ZEROSHOTCLIP.PROMPTS", "symptoms")


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def data(toy_run):
    """The folder of the toy pictures."""
    return toy_run("ViP").parents[1] / "data" / "toy"


def test_predict_writes_the_runs_own_probabilities(toy_run, data, tmp_path, capsys):
    """To a file or to standard output, which holds nothing but the table."""
    folder = toy_run("CoOp")
    recorded = {row["picture"]: row for row in read_csv(folder / "predictions.csv")}

    predict.main([str(folder), "--images", str(data / "test"), "--output", str(tmp_path / "a.csv")])
    capsys.readouterr()
    predict.main([str(folder), "--images", str(data / "test" / "red"), str(data / "val" / "blue")])
    printed = capsys.readouterr().out

    rows = read_csv(tmp_path / "a.csv")
    assert len(rows) == 12
    for row in rows:
        own = recorded["test/" + row["picture"].split("/test/")[1]]
        assert row["prediction"] == own["prediction"]
        assert float(row["p(red)"]) == pytest.approx(float(own["p(red)"]), abs=5e-6)
    lines = printed.splitlines()
    assert lines[0] == "picture,prediction,p(red),p(blue),unlike training images"
    assert len(lines) == 1 + 6 + 4


def test_explain_a_split(toy_run, tmp_path, capsys):
    """A PNG for each picture, a table whose parts sum to the logits and margins, and a page."""
    folder = toy_run("ViP")
    recorded = {row["picture"]: row for row in read_csv(folder / "predictions.csv")}

    explain.main([str(folder), "--figures", "--output-dir", str(tmp_path)])

    rows = read_csv(tmp_path / "explanations.csv")
    by_class = {}
    for row in rows:
        by_class.setdefault((row["picture"], row["class"]), []).append(row)
    assert len(by_class) == 24 and len(rows) == 12 * (3 + 2 + 2)
    for (picture, name), parts in by_class.items():
        total = sum(float(part["contribution"]) for part in parts)
        assert total == pytest.approx(float(parts[0]["class_logit"]), rel=1e-5, abs=1e-5)
        weights = [float(part["weight"]) for part in parts if part["weight"]]
        assert sum(weights) == pytest.approx(1, abs=1e-6)
        probability = float(recorded[picture][f"p({name})"])
        assert float(parts[0]["class_probability"]) == pytest.approx(probability, abs=5e-6)
        assert parts[0]["prediction"] == recorded[picture]["prediction"]
        assert parts[0]["truth"] == recorded[picture]["label"]
    figures = sorted((tmp_path / "figures").iterdir())
    assert len(figures) == 12
    with Image.open(figures[0]) as image:
        assert image.width > 700 and image.height > 300
    drawn = sorted((tmp_path / "pictures").iterdir())
    assert [path.name for path in drawn] == [path.name for path in figures]
    with Image.open(drawn[0]) as image:
        assert image.size == (40, 40)
    page = (tmp_path / "index.html").read_text()
    assert all(f'src="pictures/{path.name}"' in page for path in drawn)
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert page.index("nearest to the learned context") > page.rindex("<section>")
    assert "12 of 12 test images." in capsys.readouterr().out


def test_only_and_versus_choose_by_outcome(toy_run, tmp_path, capsys):
    """Right, wrong, and where two runs differ, either way round."""
    folder, other = toy_run("ViP"), toy_run("Supervised", "TRAINER.SUPERVISED.START", "clip")
    right = [
        {
            row["picture"]
            for row in read_csv(f / "predictions.csv")
            if row["label"] == row["prediction"]
        }
        for f in (folder, other)
    ]
    everything = {row["picture"] for row in read_csv(folder / "predictions.csv")}
    expected = {
        ("--only", "correct"): right[0],
        ("--only", "right"): right[0],  # earlier names
        ("--only", "wrong"): everything - right[0],
        ("--versus", str(other)): right[0] - right[1],
        ("--versus", str(other), "--only", "incorrect"): right[1] - right[0],
    }

    capsys.readouterr()
    for number, (options, pictures) in enumerate(expected.items()):
        output = tmp_path / str(number)
        explain.main([str(folder), *options, "--output-dir", str(output)])
        printed = capsys.readouterr().out
        assert printed.startswith(f"{len(pictures)} of 12 test images are classified ")
        table = output / "explanations.csv"
        found = {row["picture"] for row in read_csv(table)} if pictures else set()
        assert found == pictures
        if not pictures:
            assert not output.exists()
    assert sum(map(bool, expected.values())) >= 2


def test_what_if_stands_beside_the_original(toy_run, tmp_path, capsys):
    """Both versions are in the table; the changed one is the model without and with."""
    folder = toy_run("ZeroshotCLIP", *SYMPTOMS)

    explain.main(
        [str(folder), "--drop", "No blue at all", "--add", "blue", "deep as a lake", "--limit", "2"]
        + ["--output-dir", str(tmp_path)]
    )

    rows = read_csv(tmp_path / "explanations.csv")
    phrases = {
        version: {row["symptom"] for row in rows if row["version"] == version}
        for version in ("as trained", "what if")
    }
    assert phrases["as trained"] - phrases["what if"] == {"no blue at all"}
    assert phrases["what if"] - phrases["as trained"] == {"deep as a lake"}
    run = load_run(folder)
    path = run.dataset.dataset_dir / rows[0]["picture"]
    changed = with_symptoms(run, ["no blue at all"], [("blue", "deep as a lake")])
    answer = changed.predict(path)[0]
    own = next(row for row in rows if row["version"] == "what if" and row["class"] == "red")
    assert float(own["class_probability"]) == pytest.approx(answer[0], abs=1e-6)
    assert "; what if: predicted " in capsys.readouterr().out
    page = (tmp_path / "index.html").read_text()
    assert "without “no blue at all”".casefold() in page.casefold()


def test_pictures_of_ones_own(toy_run, tmp_path, capsys):
    """Grey and transparent files, with and without a truth; two of one name are both drawn."""
    (tmp_path / "mine" / "Red").mkdir(parents=True)
    rng = np.random.default_rng(0)
    grey = Image.fromarray(rng.integers(0, 255, (90, 300), dtype=np.uint8))
    grey.save(tmp_path / "mine" / "Red" / "a.png")
    grey.convert("RGBA").save(tmp_path / "mine" / "a.png")

    output = tmp_path / "out"
    explain.main(
        [str(toy_run("ViP")), "--images", str(tmp_path / "mine"), "--output-dir", str(output)]
    )

    rows = read_csv(output / "explanations.csv")
    assert {(row["picture"], row["truth"]) for row in rows} == {("Red/a.png", "red"), ("a.png", "")}
    assert len(list((output / "pictures").iterdir())) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert [p.truth for p in pictures_at([tmp_path / "mine"], ["red", "blue"])] == [0, None]


def test_faithfulness_without_attributes(toy_run, tmp_path, capsys):
    """The order's test needs none; the other says that they are not known."""
    explain.main([str(toy_run("ViP")), "--faithfulness", "--output-dir", str(tmp_path)])
    printed = capsys.readouterr().out

    rows = read_csv(tmp_path / "faithfulness.csv")
    assert [row["measure"] for row in rows] == ["deletion", "insertion"]
    assert all(float(r["low"]) <= float(r["share"]) <= float(r["high"]) for r in rows)
    assert (tmp_path / "faithfulness.png").stat().st_size > 5000
    shuffled = read_csv(tmp_path / "randomisation.csv")
    assert [row["part"] for row in shuffled] == ["learned context", "merge prompt", "backbone"]
    assert "passes: the explanations change" in printed
    assert "true attributes of these images are not known" in printed


def test_faithfulness_with_attributes(toy_run, data, tmp_path, capsys):
    """AUC of a symptom against what a table beside the pictures says, by an edited pairing."""
    run = load_run(toy_run("ViP"))
    lines = [
        f"{p.id},{p.classname},{'warm' if p.label == 0 else 'cold'}" for p in run.pictures("test")
    ]
    table = data / "attributes.csv"
    table.write_text("\n".join(["picture,class,tone", *lines]) + "\n")
    pairs = {"pairs": [{"symptom": "no blue at all", "shown_by": {"tone": ["warm"]}}]}
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))

    explain.main(
        [str(run.folder), "--faithfulness", "--pairs", str(tmp_path / "pairs.json")]
        + ["--output-dir", str(tmp_path)]
    )
    table.unlink()
    printed = capsys.readouterr().out

    (row,) = read_csv(tmp_path / "attributes.csv")
    assert row["symptom"] == "no blue at all" and row["attribute"] == "tone: warm"
    assert 0 <= float(row["low"]) <= float(row["auc"]) <= float(row["high"]) <= 1
    assert row["pictures"] == "12" and row["shown"] == "6"
    assert "without an attribute in" in printed and "the color of the sky" in printed
    assert (tmp_path / "attributes.png").exists()


def test_words_are_printed(toy_run, capsys):
    explain.main([str(toy_run("ViP")), "--words"])

    printed = capsys.readouterr().out
    assert printed.count("distance") >= 20 and "A learned vector is not a word" in printed


def wrong(main, words, capsys):
    """The one line of wrong input; exit status 2, no traceback."""
    with pytest.raises(SystemExit) as exit_:
        command_line(lambda: main(words))()
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line]
    assert exit_.value.code == 2
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "0"], "argument --limit: it is 0, and should be at least 1"),
        (["--limit", "-3"], "argument --limit: it is -3, and should be at least 1"),
        (
            ["--faithfulness", "--only", "wrong", "--limit", "5"],
            "--only, --limit cannot be combined",
        ),
        (["--faithfulness", "--drop", "x", "--add", "a", "y"], "--drop, --add cannot be combined"),
        (["--words", "--versus", "x"], "--versus cannot be combined with --words"),
        (["--words", "--images", "x"], "--images cannot be combined with --words"),
        (["--words", "--faithfulness"], "give one of them"),
        (["--localise", "--faithfulness"], "give one of them"),
        (["--localise", "--images", "x"], "--images cannot be combined with --localise"),
        (["--pairs", "x.json"], "no effect without --faithfulness"),
    ],
)
def test_options_without_effect_are_rejected(tmp_path, capsys, options, message):
    """Before anything is loaded."""
    assert message in wrong(explain.main, [str(tmp_path), *options], capsys)


@pytest.mark.parametrize("main", [predict.main, explain.main])
def test_wrong_folder_and_pictures(toy_run, tmp_path, capsys, main):
    """A folder that is no run, a broken picture, nothing at a path, a folder without pictures."""
    run = str(toy_run("ViP"))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG and then nothing")
    (tmp_path / "empty").mkdir()
    some = ["--images", str(tmp_path / "broken.png")]

    Image.new("RGB", (9, 9)).save(tmp_path / "whole.png")
    no_run = wrong(main, [str(tmp_path), "--images", str(tmp_path / "whole.png")], capsys)
    assert f"{tmp_path} is not a run (it holds no config.yaml)" in no_run
    assert "broken.png" in wrong(main, [run, *some], capsys)
    assert "no such image" in wrong(main, [run, "--images", str(tmp_path / "no.png")], capsys)
    assert "holds no images" in wrong(main, [run, "--images", str(tmp_path / "empty")], capsys)


def test_wrong_questions_to_explain(toy_run, tmp_path, capsys):
    """A method without symptoms, unknown symptoms and classes, a truth that nobody knows."""
    run, names = str(toy_run("ViP")), str(toy_run("ZeroshotCLIP"))
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    own = ["--images", str(tmp_path / "a.png")]

    assert "CoOp does not read symptoms" in wrong(explain.main, [str(toy_run("CoOp"))], capsys)
    assert "ZeroshotCLIP does not read symptoms" in wrong(explain.main, [names], capsys)
    assert "no class has the symptom 'x'" in wrong(explain.main, [run, "--drop", "x"], capsys)
    assert "no class 'green'" in wrong(explain.main, [run, "--add", "green", "x"], capsys)
    assert "true class is not known" in wrong(explain.main, [run, *own, "--only", "wrong"], capsys)
    assert "not a run" in wrong(explain.main, [run, "--versus", str(tmp_path)], capsys)


LETTERS = "a" * 1_000_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--drop", LETTERS], "no class has the symptom 'aaa"),
        (["--drop", "\udcff"], "no class has the symptom '\\udcff'"),
        (["--add", LETTERS, "x"], "there is no class 'aaa"),
        (["--add", "red", LETTERS], "has 1,000,000 characters; the limit is 1,000"),
        (["--add", "red", "a word " * 90], "180 tokens"),
        (["--add", "red", "half a letter \udcff"], "is not valid UTF-8 text"),
        (["--add", "red", " . "], "is empty"),
    ],
    ids=["drop long", "drop bytes", "class", "add long", "tokens", "add bytes", "empty"],
)
def test_hostile_symptoms_are_named_in_short(toy_run, capsys, options, message):
    """One short line, whatever is given as a symptom or a class."""
    line = wrong(explain.main, [str(toy_run("ViP")), *options], capsys)

    assert message in line and len(line) < 1000


def test_hostile_image_names(toy_run, tmp_path, capsys):
    """HTML, formulas and bytes that are not text: shown as they are, and nothing else happens."""
    names = [b"<img src=x onerror=alert(1)>.png", b"$\\frac{a}$.png", b"no text \xff.png"]
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            Image.new("RGB", (20, 20), "red").save(file, format="png")

    explain.main(
        [str(toy_run("ViP")), "--images", str(tmp_path), "--output-dir", str(tmp_path / "out")]
    )

    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page and "&lt;img src=x onerror=alert(1)&gt;.png" in page
    found = {row["picture"] for row in read_csv(tmp_path / "out" / "explanations.csv")}
    shown = {name.decode("utf-8", "backslashreplace") for name in names}
    printed = capsys.readouterr().out
    mark = "(unlike the training images; )?predicted "
    assert found == shown
    assert all(re.search(f"{re.escape(name)}: {mark}", printed) for name in shown)
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 3


OUTPUTS = {
    "explain": lambda run, place: (explain.main, [run, "--limit", "1", "--output-dir", place]),
    "faithfulness": lambda run, place: (
        explain.main,
        [run, "--faithfulness", "--output-dir", place],
    ),
    "report": lambda run, place: (report.main, [run, "--output", f"{place}/report.html"]),
}


@pytest.mark.parametrize("command", OUTPUTS)
@pytest.mark.parametrize("place", ["file", "file/below", "read-only"])
def test_output_that_cannot_be_written(toy_run, tmp_path, capsys, monkeypatch, command, place):
    """A file in place of the folder, a folder below a file, a read-only mount: one line, exit 2."""
    (tmp_path / "file").write_text("kept")
    (tmp_path / "read-only").mkdir()
    if place == "read-only":  # root may write into any folder, so the mount is simulated

        def refuse(dir, prefix, **_):
            raise OSError(errno.EROFS, "Read-only file system", f"{dir}/{prefix}")

        monkeypatch.setattr(tempfile, "mkstemp", refuse)
    main, words = OUTPUTS[command](str(toy_run("ViP")), str(tmp_path / place))
    capsys.readouterr()

    with pytest.raises(SystemExit) as stopped:
        command_line(lambda: main(words))()

    lines = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert lines[-1].startswith("error: ") and str(tmp_path / place) in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert (tmp_path / "file").read_text() == "kept" and not any((tmp_path / "read-only").iterdir())


@pytest.mark.parametrize(
    "words", [["explain.py", "RUN", "--words"], ["report.py", "RUN", "--output", "OUT"]]
)
def test_a_closed_pipe_ends_quietly(toy_run, checkout, tmp_path, words):
    """As ``| head -0`` closes it: no traceback."""
    names = {"RUN": str(toy_run("ViP")), "OUT": str(tmp_path / "report.html")}
    process = subprocess.Popen(
        [sys.executable, *(names.get(word, word) for word in words)],
        cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.close()
    said = process.stderr.read()

    assert process.wait() != 1
    assert "Traceback" not in said and "BrokenPipe" not in said
