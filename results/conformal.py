"""Prediction sets that hold the true class with a stated probability: split conformal prediction.

Written here because the libraries ask for more than it is: MAPIE wants an estimator with
``predict_proba`` around probabilities that are known already, and has no sets by class; crepes has,
and reads everything through scores and bins of its own.
"""

import numpy as np

from results.choices import Choices
from results.decisions import INTERVAL, Judged, JudgedMethod, decision_tables
from results.rendering import Estimate, Table
from results.runs import Run
from results.statistics import LEVEL, Share

BY_CLASS = ("method", "bounds", "class", "test cases", "coverage")
HOW = {"all classes together": False, "each class apart": True}


def conformal_bound(scores: np.ndarray, level: float) -> float:
    """The score that a new one does not exceed with probability ``level``, if exchangeable.

    It is the k-th smallest of the n scores with k = ceil((n + 1) level); infinite where k > n.

    Args:
        scores: ``[n]``, of calibration images; higher for a worse fit.

    Source: Angelopoulos and Bates 2021, https://arxiv.org/abs/2107.07511, section 1.
    """
    rank = _rank(len(scores), level)
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else float("inf")


def _rank(n: int, level: float) -> int:
    # A product such as 10 * .7 may be a little more than 7.
    return int(np.ceil((n + 1) * level - 1e-9))


def prediction_sets(judged: Judged, level: float, by_class: bool) -> np.ndarray:
    """``[n, n_cls]`` bool: the classes in the set of each test image.

    The score of a class is 1 - its probability; a class is in the set if its score is within the
    bound. The bound comes from the scores of the true classes of the validation images: of all, or
    with ``by_class`` of those of the same class (Mondrian).

    Source: Sadinle et al., JASA 2019, https://arxiv.org/abs/1609.00451; by class: Vovk, ACML 2012.
    """
    val = judged.val
    scores = 1 - val.probabilities[np.arange(len(val)), val.labels]
    classes = range(len(val.classnames))
    if by_class:
        bounds = np.array([conformal_bound(scores[val.labels == c], level) for c in classes])
    else:
        bounds = np.full(len(classes), conformal_bound(scores, level))
    return 1 - judged.test.probabilities <= bounds


def conformal_tables(runs: list[Run], choices: Choices) -> list[Table]:
    """Coverage and size of conformal prediction sets: two tables for each task."""
    level = choices.level
    by_class: dict[str, Table] = {}  # title of the first table of a task -> its second

    def fill(table: Table, methods: list[JudgedMethod]) -> None:
        table.text_columns = 2
        parts = Table(f"{table.title}, coverage of each class", [*BY_CLASS], [], [INTERVAL])
        parts.text_columns = 3
        for one in methods:
            for how, apart in HOW.items():
                of_classes = _class_rows(one, level, apart)
                parts.rows += [[one.method.label, how, *row] for row in of_classes]
                lowest = min((row[-1].value for row in of_classes), default=None)
                cells = _cells(one, level, apart)
                worst = None if lowest is None else Estimate(lowest)
                table.rows.append([one.method.label, how, cells[0], worst, *cells[1:]])
        table.notes += _notes(methods[0].first, level)
        by_class[table.title] = parts

    headers = ["method", "bounds", "coverage", "lowest of a class", "classes in a set"]
    headers += ["one class", "none"]
    tables = decision_tables(runs, choices, fill, f"sets for a coverage of {level:g}", headers)
    pairs = [[table, *filter(None, [by_class.get(table.title)])] for table in tables]
    return [table for pair in pairs for table in pair]


def _cells(one: JudgedMethod, level: float, by_class: bool) -> list[Estimate | None]:
    return [
        one.share(coverage, level, by_class),
        one.ratio(set_size, level, by_class),
        *(one.share(share_of_size, level, by_class, n) for n in (1, 0)),
    ]


def _class_rows(one: JudgedMethod, level: float, by_class: bool) -> list[list]:
    """(class, test cases, coverage) of each class that has test cases."""
    test = one.first.test
    counts = np.bincount(test.labels, minlength=len(test.classnames))
    return [
        [name, int(counts[label]), one.share(coverage, level, by_class, label)]
        for label, name in enumerate(test.classnames)
        if counts[label]
    ]


def coverage(judged: Judged, level: float, by_class: bool, label: int | None = None) -> Share:
    """Which test images, of a class or of all, have their true class in the set."""
    test, rows = judged.test, np.arange(len(judged.test))
    of_class = np.ones(len(test)) if label is None else (test.labels == label).astype(float)
    return of_class * prediction_sets(judged, level, by_class)[rows, test.labels], of_class


def set_size(judged: Judged, level: float, by_class: bool) -> Share:
    """The number of classes in the set of each test image."""
    sizes = prediction_sets(judged, level, by_class).sum(axis=1)
    return sizes.astype(float), np.ones(len(sizes))


def share_of_size(judged: Judged, level: float, by_class: bool, size: int) -> Share:
    """Which test images have a set of ``size`` classes."""
    sizes, ones = set_size(judged, level, by_class)
    return (sizes == size).astype(float), ones


def _notes(judged: Judged, level: float) -> list[str]:
    from scipy.stats import beta

    val, n = judged.val, len(judged.val)
    notes = [
        "split conformal prediction, calibrated on the validation images; a class is in the set if "
        "1 - its probability is within the bound. One class, none: share of test images with such "
        "a set; one that is empty says that no class fits",
        f"each class apart: a bound for each class, for a coverage of {level:g} in each class",
        f"{INTERVAL}. The bounds are taken as they are",
    ]
    rank = _rank(n, level)
    if rank <= n:
        tail = (1 - LEVEL) / 2
        low, high = beta.ppf([tail, 1 - tail], rank, n + 1 - rank)
        notes.append(
            f"the bound rests on {n} validation cases: over all possible draws of them, the "
            f"coverage lies between {low:.2f} and {high:.2f} in 95 % of draws"
        )
    counts = np.bincount(val.labels, minlength=len(val.classnames))
    few = [
        f"{name} ({count})"
        for name, count in zip(val.classnames, counts, strict=True)
        if _rank(count, level) > count
    ]
    if few:
        notes.append(
            f"too few validation cases for a bound of their own: {', '.join(few)}; each class "
            "apart, every set holds these classes"
        )
    return notes
