"""Which runs of two methods belong together, and which class is the positive one."""

import numpy as np
import pytest
from results_runs import write_run
from sklearn import metrics as sk
from statsmodels.stats.contingency_tables import mcnemar

from reporting import charts, measures
from results.choices import Choices
from results.compare import compare_tables
from results.experiments import zeroshot_tables
from results.pairs import matched_runs
from results.rows import methods_of
from results.runs import find_runs


def methods_in(root):
    return {method.trainer: method for method in methods_of(find_runs(root))}


def test_runs_are_paired_by_seed_and_not_by_place(tmp_path):
    """Seeds 1 2 3 against 2 3 4: 2 with 2, 3 with 3, and the others are named."""
    for seed in (1, 2, 3):
        write_run(tmp_path, "ViP", seed=seed)
        write_run(tmp_path, "CoOp", seed=seed + 1)
    found, notes = methods_in(tmp_path), []
    pairs = matched_runs(found["ViP"], found["CoOp"], notes)
    assert [(seed, a.seed, b.seed) for seed, a, b in pairs] == [(2, 2, 2), (3, 3, 3)]
    assert notes == [
        "only ViP has vit_b16 seed 1: left out",
        "only CoOp has vit_b16 seed 4: left out",
    ]


@pytest.mark.parametrize("make", ["report", "command"])
def test_tests_of_significance_are_of_pairs_by_seed(tmp_path, make):
    """McNemar's p values are those of the runs with one seed, and what has no partner is said."""
    for seed in (1, 2, 3):
        write_run(tmp_path, "ViP", seed=seed, skill=2.0)
    for seed in (2, 3):
        write_run(tmp_path, "CoOp", seed=seed, skill=0.5)
    found = methods_in(tmp_path)
    runs = {(run.trainer, run.seed): run.predictions().correct for run in find_runs(tmp_path)}
    expected = []
    for seed in (2, 3):
        a, b = runs["ViP", seed], runs["CoOp", seed]
        table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
        expected.append(mcnemar(table, exact=True).pvalue)
    if make == "report":
        table = measures.significance_table("t", found["ViP"], [found["CoOp"]], times=50)
        assert table.rows[0][3].endswith("of 2")
        assert table.rows[0][4] == pytest.approx(min(2 * min(expected), 1))
        assert "against CoOp: only ViP has vit_b16 seed 1: left out" in table.notes
        assert table.rows[0][1].value == pytest.approx(
            np.mean([runs["ViP", s].mean() - runs["CoOp", s].mean() for s in (2, 3)])
        )
    else:
        differences, tests, *_ = compare_tables(find_runs(tmp_path), "ViP", "CoOp", times=50)
        assert [row[4] for row in tests.rows] == pytest.approx(expected)
        assert "only ViP has vit_b16 seed 1: left out" in differences.notes


def test_a_method_without_seeds_is_the_partner_of_every_seed(tmp_path):
    for seed in (2, 3):
        write_run(tmp_path, "ViP", seed=seed)
    write_run(tmp_path, "ZeroshotCLIP", seed=1)
    write_run(tmp_path, "LinearProbe", seed=1)
    found = methods_in(tmp_path)
    for a, b in (("ViP", "ZeroshotCLIP"), ("ZeroshotCLIP", "ViP")):
        notes = []
        assert [seed for seed, *_ in matched_runs(found[a], found[b], notes)] == [2, 3]
        assert not notes
    # One run alone stands for no other seed where seeds matter.
    assert not matched_runs(found["ViP"], found["LinearProbe"], [])


def test_two_methods_without_seeds_are_one_pair(tmp_path):
    """The gain of symptoms over names, run with different seeds."""
    write_run(tmp_path, "ZeroshotCLIP", seed=1)
    options = {"TRAINER.ZEROSHOTCLIP.PROMPTS": "symptoms"}
    write_run(tmp_path, "ZeroshotCLIP", seed=2, options=options)
    names, symptoms = (
        run.metrics["accuracy"] for run in sorted(find_runs(tmp_path), key=lambda run: run.seed)
    )
    (table,) = zeroshot_tables(find_runs(tmp_path), Choices())
    gain = {row[0]: row[1] for row in table.rows}["symptoms - names, points"]
    assert gain.value == pytest.approx(symptoms - names)


def test_a_gain_is_of_the_seeds_that_both_have(tmp_path):
    options = {"TRAINER.ZEROSHOTCLIP.PROMPTS": "symptoms"}
    for seed in (1, 2):
        write_run(tmp_path, "ZeroshotCLIP", seed=seed, seeded=True)
    write_run(tmp_path, "ZeroshotCLIP", seed=2, options=options, seeded=True)
    runs = {(len(run.options), run.seed): run.metrics["accuracy"] for run in find_runs(tmp_path)}
    (table,) = zeroshot_tables(find_runs(tmp_path), Choices())
    gain = {row[0]: row[1] for row in table.rows}["symptoms - names, points"]
    assert gain.value == pytest.approx(runs[1, 2] - runs[0, 2])


# The positive class


@pytest.mark.parametrize(("positive", "label"), [("melanoma", 0), ("nevus", 1), (None, 1)])
def test_delong_is_of_the_positive_class(tmp_path, positive, label):
    for trainer in ("ViP", "CoOp"):
        write_run(tmp_path, trainer, positive=positive)
    tables = compare_tables(find_runs(tmp_path), "ViP", "CoOp", times=20)
    (table,) = [table for table in tables if "AUROC" in table.title]
    run = methods_in(tmp_path)["ViP"].runs[0].predictions()
    expected = sk.roc_auc_score(run.labels == label, run.probabilities[:, label])
    assert table.rows[0][2].value == pytest.approx(expected, abs=1e-12)
    told = f"positive class: {positive}" if positive else "no positive class is named"
    assert told in table.notes[0]


def test_delong_of_many_classes_is_of_the_positive_one(tmp_path):
    names = ("a", "b", "c")
    for trainer in ("ViP", "CoOp"):
        write_run(tmp_path, trainer, classnames=names, positive="c")
    tables = compare_tables(find_runs(tmp_path), "ViP", "CoOp", times=20)
    (table,) = [table for table in tables if "AUROC" in table.title]
    run = methods_in(tmp_path)["ViP"].runs[0].predictions()
    expected = sk.roc_auc_score(run.labels == 2, run.probabilities[:, 2])
    assert table.rows[0][2].value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("classnames", "positive", "titles"),
    [
        (("melanoma", "nevus"), "melanoma", ["ROC, positive class: melanoma"]),
        (
            ("melanoma", "nevus"),
            None,
            ["ROC, melanoma against the rest", "ROC, nevus against the rest"],
        ),
        (("a", "b", "c"), None, [f"ROC, {name} against the rest" for name in "abc"]),
        (("a", "b", "c"), "b", ["ROC, positive class: b"]),
        (tuple("abcdefghijklm"), None, ["ROC, mean over 13 classes"]),
    ],
)
def test_roc_is_of_the_positive_class_or_of_each(tmp_path, classnames, positive, titles):
    """The panels say which class; the curve is scikit-learn's of that class."""
    write_run(tmp_path, classnames=classnames, positive=positive, n=120)
    (run,) = find_runs(tmp_path)
    predictions = run.predictions()
    panels = charts.roc_panels(predictions)
    assert list(panels) == titles
    text = charts.roc({"ViP": [predictions]})
    assert all(title in text for title in titles)
    for title, labels in panels.items():
        if len(labels) == 1:
            (c,) = labels
            assert classnames[c] in title
            false, true, _ = sk.roc_curve(predictions.labels == c, predictions.probabilities[:, c])
            curve = charts.mean_roc([predictions], labels)
            assert curve == pytest.approx(np.interp(charts.GRID, false, true))


def test_rates_are_of_the_positive_class(tmp_path):
    write_run(tmp_path, positive="melanoma")
    (run,) = find_runs(tmp_path)
    predictions = run.predictions()
    table = measures.rate_table("t", {"ViP": [predictions]})
    assert table.headers == ["method", "melanoma sensitivity", "melanoma specificity"]
    assert "positive class: melanoma" in table.notes
    matrix = sk.confusion_matrix(predictions.labels, predictions.predicted)
    assert table.rows[0][1].value == pytest.approx(matrix[0, 0] / matrix[0].sum())
    assert table.rows[0][2].value == pytest.approx(matrix[1, 1] / matrix[1].sum())
