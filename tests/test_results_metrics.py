"""The metrics against scikit-learn, classes without images included; and a metric added."""

import csv
import io

import numpy as np
import pytest
from results_runs import write_run
from sklearn import metrics as sk

import parse_results
import report
from core.errors import InputError
from results import metrics
from results import statistics as st
from results.predictions import Predictions, read_predictions


def predictions(n_cls, present, n=90, seed=0, positive=None):
    """Random predictions of ``n_cls`` classes on images of the classes ``present``."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(present, n)
    probabilities = generator.dirichlet(np.ones(n_cls), n)
    probabilities[np.arange(n), labels] += 0.4
    probabilities /= probabilities.sum(1, keepdims=True)
    return Predictions(
        np.array([str(i) for i in range(n)]),
        labels,
        probabilities.argmax(1),
        probabilities,
        tuple(f"class {c}" for c in range(n_cls)),
        positive=positive,
    )


def by_scikit_learn(label, predicted, scores):
    """Every metric, over the classes that have an image."""
    present = np.unique(label)
    options = {"labels": present, "average": "macro", "zero_division": 0}
    if scores.shape[1] == 2:
        area = sk.roc_auc_score(label == 1, scores[:, 1]) if len(present) == 2 else np.nan
    elif len(present) == 1:
        area = np.nan
    else:
        area = np.mean([sk.roc_auc_score(label == c, scores[:, c]) for c in present])
    return {
        "accuracy": sk.accuracy_score(label, predicted),
        "macro_f1": sk.f1_score(label, predicted, **options),
        "balanced_accuracy": sk.recall_score(label, predicted, **options),
        "auroc": area,
    }


CASES = [(2, [0, 1]), (2, [1]), (3, [0, 1, 2]), (3, [0, 2]), (5, [1, 2, 4]), (5, [3])]


@pytest.mark.parametrize(("n_cls", "present"), CASES, ids=str)
def test_a_class_without_images_does_not_enter_a_mean(n_cls, present):
    """Plain, in results.json, and with the bootstrap's weights: one definition."""
    run = predictions(n_cls, present)
    expected = by_scikit_learn(run.labels, run.predicted, run.probabilities)
    assert metrics.metrics_of(run) == pytest.approx(expected, abs=1e-12, nan_ok=True)
    written = {k: v for k, v in metrics.figures(run).items() if k != "per_class"}
    assert {k: np.nan if v is None else v for k, v in written.items()} == pytest.approx(
        expected, abs=1e-12, nan_ok=True
    )
    for weights in np.concatenate(list(st.resamples(len(run), 5, seed=1))):
        again = np.repeat(np.arange(len(run)), weights.astype(int))
        parts = run.labels[again], run.predicted[again], run.probabilities[again]
        values = metrics.weighted_metrics(run, weights[None])
        assert {k: v[0] for k, v in values.items()} == pytest.approx(
            by_scikit_learn(*parts), abs=1e-12, nan_ok=True
        )


def test_the_bootstrap_drops_a_class_that_a_resample_lacks():
    """One image of a class: resamples without it have the mean over the others."""
    run = predictions(3, [0, 1])
    run.labels[0] = 2
    weights = np.ones((1, len(run)))
    weights[0, 0] = 0
    rest = run.take(np.arange(1, len(run)))
    expected = by_scikit_learn(rest.labels, rest.predicted, rest.probabilities)
    found = {k: v[0] for k, v in metrics.weighted_metrics(run, weights).items()}
    assert found == pytest.approx(expected, abs=1e-12)


def test_rates_of_each_class_are_counted():
    run = predictions(3, [0, 1])
    rates = metrics.figures(run)["per_class"]
    matrix = sk.confusion_matrix(run.labels, run.predicted, labels=range(3))
    assert rates["class 0"]["sensitivity"] == matrix[0, 0] / matrix[0].sum()
    assert rates["class 0"]["specificity"] == matrix[1:, 1:].sum() / matrix[1:].sum()
    assert rates["class 2"]["sensitivity"] is None


@pytest.mark.parametrize("positive", [None, "class 0", "class 1"])
def test_auroc_of_two_classes_is_the_positive_ones(positive):
    run = predictions(2, [0, 1], positive=positive)
    label = 0 if positive == "class 0" else 1
    expected = sk.roc_auc_score(run.labels == label, run.probabilities[:, label])
    assert metrics.metrics_of(run)["auroc"] == pytest.approx(expected, abs=1e-12)


def test_log_lines_are_dassls_with_the_positive_class_named():
    run = predictions(2, [0, 1], positive="class 0")
    found = metrics.figures(run)
    lines = metrics.log_lines(run, found)
    assert lines[:4] == [
        "=> result",
        "* total: 90",
        f"* correct: {(run.labels == run.predicted).sum()}",
        f"* accuracy: {100 * found['accuracy']:.4f}%",
    ]
    assert lines[4] == f"* error: {100 - 100 * found['accuracy']:.4f}%"
    assert any(line.startswith("* class 0 (positive class): sensitivity") for line in lines)


def test_a_metric_is_added_in_one_place(tmp_path, monkeypatch, capsys):
    """Its entry in METRICS alone: the log, tables, intervals, report and command know it."""

    def error_rate(scored):
        return 1 - metrics.accuracy(scored)

    added = metrics.Metric("error_rate", "err", "ERR", "error rate", error_rate)
    monkeypatch.setitem(metrics.METRICS, "error_rate", added)
    run = predictions(3, [0, 1, 2])
    found = metrics.figures(run)
    assert found["error_rate"] == pytest.approx(1 - found["accuracy"])
    assert f"* error_rate: {100 * found['error_rate']:.4f}%" in metrics.log_lines(run, found)

    values = {"accuracy": 0.75, "macro_f1": 0.5, "error_rate": 0.25}
    for seed in (1, 2):
        write_run(tmp_path, seed=seed, metrics=values, predictions=False)
    monkeypatch.setattr("sys.argv", ["x", str(tmp_path), "--metrics", "err", "--format", "csv"])
    parse_results.main()
    (*_, row) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert float(row["ERR"]) == 0.25
    report.main([str(tmp_path)])
    assert "<th>ERR</th>" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.5, -0.2])
def test_impossible_probabilities_are_refused_where_they_enter(tmp_path, value):
    """From a model or from a file; the message names the first image."""
    run = predictions(2, [0, 1])
    run.write(tmp_path / "predictions.csv")
    broken = run.probabilities.copy()
    broken[7, 0] = value
    with pytest.raises(InputError, match="1 of 90 images .* the first is 7"):
        Predictions(run.images, run.labels, run.predicted, broken, run.classnames)
    text = (tmp_path / "predictions.csv").read_text()
    (tmp_path / "predictions.csv").write_text(
        text.replace(repr(float(run.probabilities[7, 0])), str(value))
    )
    with pytest.raises(InputError, match="predictions.csv: .* the first is 7"):
        read_predictions(tmp_path / "predictions.csv", run.classnames)


def test_predictions_are_read_back_as_written(tmp_path):
    run = predictions(3, [0, 1, 2])
    run.write(tmp_path / "predictions.csv")
    again = read_predictions(tmp_path / "predictions.csv", run.classnames)
    assert (again.images == run.images).all() and (again.labels == run.labels).all()
    assert (again.predicted == run.predicted).all()
    assert (again.probabilities == run.probabilities).all()
