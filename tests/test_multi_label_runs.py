"""Runs with several findings an image: what they find, write and refuse."""

import csv
import json

import numpy as np
import pytest
from drawn_findings import NAMES, PLANTED, SYMPTOMS, write_chexpert, write_nih
from test_multi_label import dataset_file

import explain
import parse_results
import predict
import train
from core.errors import InputError
from engine.loading import load_run
from engine.method import METHODS, DoesNotApply
from engine.trainer import _check_findings
from results.findings import read_finding_predictions
from results.record import read_record
from results.runs import Run, find_runs
from scripts.average import average
from webapp.workbench import Workbench

METHODS_OF_FINDINGS = ("ZeroshotCLIP", "LinearProbe", "CoOp", "ViP")
SHORT = ["OPTIM.MAX_EPOCH", "4", "OPTIM.LR", "0.002", "DATALOADER.NUM_WORKERS", "0"]
OPTIONS = {
    "ZeroshotCLIP": ["PROMPTS", "symptoms"],
    "LinearProbe": ["TRAINER.LINEARPROBE.C", "0.1"],
    "ViP-anchor": ["ANCHOR", "16"],
}


def train_on(folder, trainer, layout="nih", output=None, *options):
    """The folder of a run on the made table ``layout`` below ``folder``."""
    (folder / "symptoms.json").write_text(json.dumps(SYMPTOMS))
    dataset = dataset_file(folder, layout, f"SYMPTOMS: {folder / 'symptoms.json'}")
    output = output or folder / "output" / layout / trainer / "tiny" / "seed1"
    args = ["--trainer", trainer.split("-")[0], "--dataset", str(dataset), "--backbone", "tiny"]
    args += ["--root", str(folder), "--output-dir", str(output)]
    train.main([*args, *SHORT, *OPTIONS.get(trainer, []), *options])
    return output


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with NIH's and CheXpert's layouts."""
    folder = tmp_path_factory.mktemp("findings")
    write_nih(folder / "nih", 150)
    write_chexpert(folder / "chexpert", 60)
    return folder


@pytest.fixture(scope="module")
def quick(made):
    """{method: folder of its run} on CheXpert's layout, with unknown labels."""
    return {name: train_on(made, name, "chexpert") for name in ("ZeroshotCLIP", "ViP")}


@pytest.mark.slow
def test_planted_findings_are_found(made):
    """Every method ranks each planted finding well above chance; nobody finds what is not there."""
    for name in (*METHODS_OF_FINDINGS, "ViP-anchor"):
        found = read_record(train_on(made, name)).finding_metrics.findings
        for finding in NAMES[: len(PLANTED)]:
            assert found[finding].auroc > 0.85, (name, finding)
        assert found["hernia"].auroc < 0.85, name


def test_what_a_run_writes(quick):
    """results.json, predictions.csv and history.csv of a run; none of them is of one class."""
    record = read_record(quick["ViP"])
    found = record.finding_metrics
    run = read_finding_predictions(quick["ViP"] / "predictions.csv", NAMES)
    with open(quick["ViP"] / "history.csv", newline="") as file:
        history = list(csv.DictReader(file))

    assert record.multi_label and record.metrics is None
    assert record.classnames == (*NAMES, *(f"no {name}" for name in NAMES))
    assert list(found.findings) == NAMES and found.thresholds_from == "validation"
    assert np.isnan(run.labels).any()
    known = {name: of.known for name, of in found.findings.items()}
    assert known == dict(zip(NAMES, (~np.isnan(run.labels)).sum(axis=0), strict=True))
    best = max(history, key=lambda row: float(row["val_auroc"]))
    assert record.validation.auroc == float(best["val_auroc"])
    assert record.validation.epoch == int(best["epoch"])


def test_loaded_run_predicts_the_same(quick, made):
    loaded = load_run(quick["ViP"], root=made)
    run = read_finding_predictions(quick["ViP"] / "predictions.csv", NAMES)
    paths = [picture.impath for picture in loaded.pictures("test")]

    assert loaded.findings == NAMES
    np.testing.assert_allclose(loaded.predict(paths), run.probabilities, atol=1e-5)


def test_a_masked_label_changes_nothing(made, quick):
    """Uncertain in one table, not mentioned in the other: the same predictions, bit for bit."""
    before = (quick["ViP"] / "predictions.csv").read_bytes()
    table = made / "chexpert" / "CheXpert-v1.0-small" / "train.csv"
    text = table.read_text()
    try:
        table.write_text(text.replace("-1.0", ""))
        after = train_on(made, "ViP", "chexpert", made / "masked")
        table.write_text(text.replace("-1.0", "1.0"))
        other = train_on(made, "ViP", "chexpert", made / "not_masked")
    finally:
        table.write_text(text)

    assert (after / "predictions.csv").read_bytes() == before
    assert (other / "predictions.csv").read_bytes() != before


@pytest.mark.parametrize("name", METHODS)
def test_who_learns_from_several_findings(name):
    """Four methods; every other one says that it is defined for one class an image."""
    if name in METHODS_OF_FINDINGS:
        return _check_findings(name, ["a"])
    _check_findings(name, [])
    with pytest.raises(DoesNotApply, match=f"{name} is defined for one class an image"):
        _check_findings(name, ["a"])


def test_tables(made, quick, capsys):
    """Macro figures by method, figures by finding, with intervals; methods that do not apply."""
    with pytest.raises(DoesNotApply):
        train_on(made, "KgCoOp", "chexpert")
    folder = made / "output" / "chexpert"
    args = parse_results.arguments([str(folder), "--ci"])
    macro, auroc, f1 = parse_results.chosen_tables(args, find_runs(folder))
    record = read_record(quick["ViP"])

    assert macro.headers == ["method", "macro AUROC", "macro F1", "runs"]
    rows = {row[0].split(" ")[0]: row for row in macro.rows}
    assert set(rows) == {"ZeroshotCLIP", "KgCoOp", "ViP"}
    assert rows["KgCoOp"][1] == "does not apply"
    assert rows["ViP"][1].value == record.finding_metrics.macro_auroc
    assert rows["ViP"][1].low < rows["ViP"][1].value <= rows["ViP"][1].high + 1e-9
    assert [row[0] for row in auroc.rows] == [row[0] for row in f1.rows] == NAMES
    hernia = record.finding_metrics.findings["hernia"]
    assert auroc.rows[3][1:3] == [hernia.positive, hernia.known]
    assert auroc.rows[3][-1].value == hernia.auroc and auroc.rows[3][-1].low is not None


def test_tables_do_not_mix_with_one_class(made, quick, toy_run, tmp_path):
    """A run on one class an image is in its own table, and the others see no findings."""
    (tmp_path / "one").symlink_to(toy_run("ZeroshotCLIP").parent)
    (tmp_path / "several").symlink_to(made / "output" / "chexpert")
    runs = [r for name in ("one", "several") for r in find_runs(tmp_path / name)]
    tables = parse_results.chosen_tables(parse_results.arguments([str(tmp_path)]), runs)
    titles = [table.title for table in tables]

    assert titles[0] == "toy" and "chexpert, several findings an image" in titles[1:]
    with pytest.raises(InputError, match="these have several findings"):
        parse_results.chosen_tables(
            parse_results.arguments([str(tmp_path), "--compare", "ViP", "ZeroshotCLIP"]), runs[-2:]
        )


def test_predict_has_a_column_for_each_finding(made, quick, tmp_path):
    """The prediction is what reaches its threshold; the labels of the test give its F1."""
    run = quick["ViP"]
    images = [str(p.impath) for p in load_run(run, root=made).pictures("test")][:5]
    out = tmp_path / "p.csv"
    predict.main([str(run), "--images", *images, "--root", str(made), "--output", str(out)])
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    thresholds = {n: f.threshold for n, f in read_record(run).finding_metrics.findings.items()}

    assert list(rows[0])[2:-1] == [f"p({name})" for name in NAMES]
    for row in rows:
        said = [name for name in NAMES if float(row[f"p({name})"]) >= thresholds[name]]
        assert row["prediction"] == "|".join(said)


def test_what_does_not_fit_says_so(made, quick):
    """One line each."""
    with pytest.raises(InputError, match="explanations need one class an image"):
        explain.main([str(quick["ViP"]), "--root", str(made)])
    with pytest.raises(InputError, match="this page shows runs on one class an image"):
        Workbench.open([[quick["ViP"]]], root=made)
    with pytest.raises(InputError, match="this needs one class an image"):
        average([Run(read_record(folder), folder) for folder in quick.values()], Run.predictions)


def test_damaged_predictions_are_noticed(made, quick, tmp_path):
    for name in ("results.json", "predictions.csv"):
        (tmp_path / name).write_bytes((quick["ViP"] / name).read_bytes())
    (run,) = find_runs(tmp_path)
    text = (tmp_path / "predictions.csv").read_text()
    (tmp_path / "predictions.csv").write_text("\n".join(text.splitlines()[:4]) + "\n")
    with pytest.raises(InputError, match="not that of results.json"):
        _ = run.finding_predictions
