"""External tests and base-to-new: a finished run on other pictures."""

import csv
import json
import shutil

import pytest

import train
from core.errors import InputError
from results.choices import Choices
from results.layouts import base_to_new_tables, external_tables
from results.record import read_record
from results.runs import find_runs
from scripts import evaluate


def test_external(toy, toy_args, short, monkeypatch):
    """Another dataset, its classes in another order: the run's own symptoms, the same scores."""
    monkeypatch.chdir(toy)
    train.main(["--trainer", "ViP", *toy_args, *short])
    lines = [line for line in (toy / "toy.yaml").read_text().splitlines() if "SYMPTOMS" not in line]
    text = "\n".join(lines).replace("[red, blue]", "[blue, red]")
    (toy / "elsewhere.yaml").write_text(text)

    evaluate.main([str(toy / "run"), str(toy / "elsewhere.yaml"), "--root", str(toy / "data")])

    (folder,) = (toy / "output" / "elsewhere").rglob("results.json")
    tested, trained = read_record(folder.parent), read_record(toy / "run")
    assert (tested.dataset, tested.trained_on) == ("elsewhere", "toy")
    assert tested.symptom_fingerprint == trained.symptom_fingerprint
    assert tested.metrics.accuracy == trained.metrics.accuracy
    here, there = (list(csv.DictReader(open(f))) for f in _predictions(toy, folder))
    expected = {row["picture"]: float(row["p(red)"]) for row in here}
    for row in there:
        assert float(row["p(red)"]) == pytest.approx(expected[row["picture"]], abs=1e-5)
    (table,) = external_tables(find_runs(toy), Choices())
    (row,) = table.rows
    assert "elsewhere, trained on toy" in row


def _predictions(toy, folder):
    return toy / "run" / "predictions.csv", folder.parent / "predictions.csv"


@pytest.mark.parametrize("name", ["ViP", "CoOp", "BayesianPrompt", "MaPLe"])
def test_base_to_new(four_classes, toy_args, short, name, monkeypatch):
    """Trained on the first half of the classes, tested on the other; both in one table."""
    toy = four_classes
    monkeypatch.chdir(toy)
    base = ["DATASET.SUBSAMPLE_CLASSES", "base", "DATASET.NUM_SHOTS", "4"]
    train.main(["--trainer", name, *toy_args, *short, *base])

    evaluate.main(
        [str(toy / "run"), str(toy / "toy.yaml"), "--root", str(toy / "data")]
        + ["DATASET.SUBSAMPLE_CLASSES", "new"]
    )

    (table,) = base_to_new_tables(find_runs(toy), Choices())
    assert len(table.rows) == 1
    assert None not in table.rows[0]


def test_a_trained_run_is_not_written_over(toy, toy_args, short):
    """Its folder is where the other dataset's own run would be."""
    train.main(["--trainer", "CoOp", *toy_args, *short])
    before = (toy / "run" / "results.json").read_bytes()
    args = ["--trainer", "CoOp", *toy_args[:-1]]
    train.main([*args, str(toy / "other"), *short])

    with pytest.raises(InputError, match="holds a trained run; give another --output-dir"):
        train.main(
            [*args, str(toy / "run"), "--eval-only", "--model-dir", str(toy / "other"), *short]
        )
    assert (toy / "run" / "results.json").read_bytes() == before


def test_wrong_runs(toy, toy_args, short):
    """Each in one line."""
    with pytest.raises(InputError, match="is not a run"):
        evaluate.main([str(toy / "none"), str(toy / "toy.yaml")])
    train.main(["--trainer", "ZeroshotCLIP", *toy_args, *short])
    with pytest.raises(InputError, match="is a run of ZeroshotCLIP, not of CoOp"):
        evaluate.main([str(toy / "run"), str(toy / "toy.yaml"), "--trainer", "CoOp"])
    results = json.loads((toy / "run" / "results.json").read_text())
    del results["format"]
    (toy / "run" / "results.json").write_text(json.dumps(results))
    with pytest.raises(InputError, match="the run is not complete; train it first"):
        evaluate.main([str(toy / "run"), str(toy / "toy.yaml")])


@pytest.fixture
def other_names(toy):
    """The toy dataset with its classes called crimson and azure, in folders of those names."""
    for split in ("train", "val", "test"):
        for old, new in (("red", "crimson"), ("blue", "azure")):
            folder = toy / "data" / "toy" / split
            (toy / "data" / "other" / split).mkdir(parents=True, exist_ok=True)
            shutil.copytree(folder / old, toy / "data" / "other" / split / new)
    (toy / "other.yaml").write_text("DATASET:\n  NAME: ImageFolder\n  PATH: other\n")
    return toy / "other.yaml"


@pytest.mark.parametrize("name", ["ViP", "CoOp", "LinearProbe"])
def test_classes_under_other_names(toy, toy_args, short, other_names, monkeypatch, name):
    """--classes maps names: the scores are those of the run's own names."""
    monkeypatch.chdir(toy)
    train.main(["--trainer", name, *toy_args, *short])
    words = [str(toy / "run"), str(other_names), "--root", str(toy / "data")]
    evaluate.main([*words, "--classes", "red=crimson", "Blue=azure"])

    (folder,) = (toy / "output" / "other").rglob("results.json")
    here, there = read_record(folder.parent), read_record(toy / "run")
    assert sorted(here.classnames) == ["blue", "red"]
    assert here.metrics.accuracy == there.metrics.accuracy


@pytest.mark.parametrize("name", ["ViP", "LinearProbe"])
def test_other_class_names_get_a_mapping_offered(toy, toy_args, short, other_names, name):
    """No advice to edit a symptom file."""
    train.main(["--trainer", name, *toy_args, *short])
    words = [str(toy / "run"), str(other_names), "--root", str(toy / "data")]
    with pytest.raises(InputError) as raised:
        evaluate.main(words)
    message = str(raised.value)
    assert "has the classes azure, crimson" in message and "was trained on red, blue" in message
    assert '--classes "red=' in message
    for classes, complaint in (
        (["green=azure"], "the run was trained on red, blue"),
        (["red=violet"], "other has the classes azure, crimson"),
        (["red"], "other has the classes"),
        (["red=azure", "red=crimson"], "would have the same name"),
    ):
        with pytest.raises(InputError, match=complaint):
            evaluate.main([*words, "--classes", *classes])
