"""The statistics against scikit-learn, SciPy, statsmodels and brute force."""

import numpy as np
import pytest
import scipy.stats
from results_runs import draw, metrics_of
from sklearn import metrics as sk

from results import metrics
from results import statistics as st
from results.method_tables import majority_predictions
from results.predictions import Predictions, align


def predictions(skill=1.0, n=80, n_cls=2, seed=0):
    label, probability = draw(skill, n, n_cls, seed)
    names = tuple(f"class {c}" for c in range(n_cls))
    images = np.array([f"{i:03d}.png" for i in range(n)])
    return Predictions(images, label, probability.argmax(1), probability, names)


@pytest.mark.parametrize("n_cls", [2, 3, 7])
def test_metrics_are_scikit_learns(n_cls):
    run = predictions(n_cls=n_cls)
    expected = metrics_of(run.labels, run.probabilities)
    assert metrics.metrics_of(run) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n_cls", [2, 4])
def test_a_weight_counts_a_picture_as_often(n_cls):
    """Weighted metrics are scikit-learn's on the pictures repeated, ties in the scores included."""
    run = predictions(n_cls=n_cls)
    run = Predictions(
        run.images, run.labels, run.predicted, run.probabilities.round(1), run.classnames
    )
    weights = np.concatenate(list(st.resamples(len(run), 5, seed=3)))
    assert (weights.sum(1) == len(run)).all()
    values = metrics.weighted_metrics(run, weights)
    for i, row in enumerate(weights):
        again = np.repeat(np.arange(len(run)), row.astype(int))
        label, predicted = run.labels[again], run.predicted[again]
        scores = run.probabilities[again]
        areas = [sk.roc_auc_score(label == c, scores[:, c]) for c in range(n_cls)]
        expected = {
            "accuracy": sk.accuracy_score(label, predicted),
            "macro_f1": sk.f1_score(
                label, predicted, labels=np.unique(label), average="macro", zero_division=0
            ),
            "balanced_accuracy": sk.recall_score(
                label, predicted, labels=np.unique(label), average="macro", zero_division=0
            ),
            "auroc": areas[1] if n_cls == 2 else np.mean(areas),
        }
        assert {k: v[i] for k, v in values.items()} == pytest.approx(expected, abs=1e-12)


def test_auroc_without_both_classes_is_nan():
    run = predictions().take(np.flatnonzero(predictions().labels == 1))
    assert np.isnan(metrics.metrics_of(run)["auroc"])


def test_majority_rule_is_exact():
    """Answering the most frequent training class: accuracy its share, F1 by the definition."""
    counts = {"train": {"a": 90, "b": 256}, "test": {"a": 101, "b": 219}}
    rule = majority_predictions(("a", "b"), "b", counts["test"])
    label = np.repeat([0, 1], [101, 219])
    values = metrics.metrics_of(rule)
    assert values["accuracy"] == pytest.approx(219 / 320)
    assert values["macro_f1"] == pytest.approx(
        sk.f1_score(label, np.ones(320, int), average="macro", zero_division=0)
    )
    assert values["balanced_accuracy"] == values["auroc"] == 0.5


def test_bootstrap_interval_is_scipys():
    """The interval of one run's accuracy agrees with SciPy's percentile bootstrap."""
    run = predictions(n=200)
    low, high = st.interval(st.bootstrap_means([[run]], ("accuracy",), 4000)["accuracy"])
    reference = scipy.stats.bootstrap(
        (run.correct.astype(float),), np.mean, n_resamples=4000, method="percentile", random_state=0
    ).confidence_interval
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=0.01)


def test_paired_difference_is_brute_force():
    """The interval of a difference of means over runs, resampled picture by picture."""
    sides = [
        [[predictions(1.5, seed=i), predictions(1.5, seed=i + 1)], [predictions(1.5, seed=i + 2)]]
        for i in (0, 10)
    ]
    times, seed = 50, 7
    found = st.bootstrap_difference(*sides, ("macro_f1",), times, seed)["macro_f1"]

    gaps = []
    for weights in np.concatenate(list(st.resamples(80, times, seed))):
        again = np.repeat(np.arange(80), weights.astype(int))
        means = [
            np.mean(
                [
                    np.mean(
                        [
                            sk.f1_score(run.labels[again], run.predicted[again], average="macro")
                            for run in group
                        ]
                    )
                    for group in side
                ]
            )
            for side in sides
        ]
        gaps.append(means[0] - means[1])
    assert found[1:] == pytest.approx(tuple(np.percentile(gaps, [2.5, 97.5])), abs=1e-12)
    assert found[0] == pytest.approx(
        st.group_mean(sides[0], "macro_f1") - st.group_mean(sides[1], "macro_f1")
    )


def test_more_seeds_do_not_make_more_pictures():
    """A run repeated as three seeds has the interval of one: seeds are no new pictures."""
    run = predictions()
    one = st.bootstrap_means([[run]], ("accuracy",))["accuracy"]
    three = st.bootstrap_means([[run, run, run]], ("accuracy",))["accuracy"]
    assert st.interval(three) == pytest.approx(st.interval(one), abs=1e-12)


def test_bootstrap_covers():
    """About 95 % of intervals hold the true accuracy (0.8, 150 pictures, 300 experiments)."""
    generator = np.random.default_rng(1)
    held = 0
    for i in range(300):
        right = (generator.random(150) < 0.8).astype(int)
        run = Predictions(
            np.arange(150), np.ones(150, int), right, np.full((150, 2), 0.5), ("a", "b")
        )
        low, high = st.interval(st.bootstrap_means([[run]], ("accuracy",), 400, i)["accuracy"])
        held += low <= 0.8 <= high
    assert 0.90 <= held / 300 <= 0.98


def test_resamples_in_chunks_are_the_same_number(monkeypatch):
    monkeypatch.setattr(st, "CHUNK_ENTRIES", 30)
    assert sum(len(chunk) for chunk in st.resamples(10, 10)) == 10


@pytest.mark.parametrize("only_a, only_b", [(0, 0), (1, 0), (3, 9), (10, 2), (7, 7)])
def test_mcnemar_is_the_binomial_test(only_a, only_b):
    correct_a = np.array([1] * only_a + [0] * only_b + [1] * 20 + [0] * 5)
    correct_b = np.array([0] * only_a + [1] * only_b + [1] * 20 + [0] * 5)
    p = 1.0
    if only_a + only_b:
        p = scipy.stats.binomtest(only_a, only_a + only_b, 0.5).pvalue
    assert st.mcnemar(correct_a, correct_b) == (only_a, only_b, pytest.approx(p))


def test_holm_by_hand():
    """Smallest p times the number of tests, and so on, never decreasing; no test is not counted."""
    assert st.holm([0.04, 0.01, np.nan, 0.03]) == pytest.approx(
        [0.06, 0.03, np.nan, 0.06], nan_ok=True
    )
    assert len(st.holm([])) == 0


def brute_delong(positive, scores):
    """Areas and covariance from all pairs of a positive and a negative picture, O(mn)."""
    placements = []
    for row in scores:
        wins = (row[positive][:, None] > row[~positive]).astype(float)
        wins += (row[positive][:, None] == row[~positive]) / 2
        placements.append(wins)
    v10 = np.array([wins.mean(1) for wins in placements])
    v01 = np.array([wins.mean(0) for wins in placements])
    covariance = np.atleast_2d(np.cov(v10)) / positive.sum()
    covariance = covariance + np.atleast_2d(np.cov(v01)) / (~positive).sum()
    return v10.mean(1), covariance


@pytest.mark.parametrize("decimals", [1, 12])
def test_delong_is_brute_force(decimals):
    """Areas, covariance and the paired test, with many ties (one decimal) and with none."""
    a, b = predictions(1.0, seed=1), predictions(0.5, seed=2)
    positive = a.labels == 1
    scores = np.stack([a.probabilities[:, 1], b.probabilities[:, 1]]).round(decimals)
    areas, covariance = st.delong(positive, scores)
    expected_areas, expected_covariance = brute_delong(positive, scores)
    assert areas == pytest.approx(expected_areas, abs=1e-12)
    assert areas == pytest.approx([sk.roc_auc_score(positive, row) for row in scores])
    assert covariance == pytest.approx(expected_covariance, abs=1e-12)

    difference, p = st.delong_test(positive, *scores)
    deviation = np.sqrt(np.array([1, -1]) @ expected_covariance @ np.array([1, -1]))
    z = (expected_areas[0] - expected_areas[1]) / deviation
    assert difference == pytest.approx(expected_areas[0] - expected_areas[1])
    assert p == pytest.approx(2 * scipy.stats.norm.sf(abs(z)))

    area, low, high = st.delong_interval(positive, scores[0])
    margin = 1.959964 * np.sqrt(expected_covariance[0, 0])
    assert (low, high) == pytest.approx((area - margin, min(1, area + margin)), abs=1e-6)


def test_delong_at_its_limits():
    """Perfect curves stay within one; without any variance there is no p, and no interval."""
    positive = np.array([False] * 5 + [True] * 5)
    perfect = np.linspace(0, 1, 10)
    assert st.delong_interval(positive, perfect) == (1.0, 1.0, 1.0)
    assert st.delong_test(positive, perfect, perfect) == (0.0, 1.0)
    assert st.delong_test(positive, perfect, perfect**2) == (0.0, 1.0)
    difference, p = st.delong_test(positive, perfect, np.zeros(10))
    assert difference == 0.5 and np.isnan(p)
    lone = np.array([False] * 9 + [True])
    area, low, high = st.delong_interval(lone, perfect)
    assert area == 1.0 and np.isnan(low) and np.isnan(high)
    with pytest.raises(ValueError, match="both classes"):
        st.delong(np.ones(3, bool), np.ones(3))


def test_align_refuses_other_images_and_labels():
    a, b = predictions(seed=1), predictions(seed=2)
    mixed = b.take(np.random.default_rng(0).permutation(len(b)))
    aligned = align([a, mixed])
    assert (aligned[1].predicted == b.predicted).all()
    with pytest.raises(ValueError, match="1 test images"):
        align([a, b.take(np.arange(1, len(b)))])
    flipped = Predictions(b.images, 1 - b.labels, b.predicted, b.probabilities, b.classnames)
    with pytest.raises(ValueError, match="other labels"):
        align([a, flipped])
