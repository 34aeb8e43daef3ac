"""What symptoms mean after training: the file that explain.py leaves in a run's folder, as a table.

``explanations/drift.py`` measures it. The file holds a row for each symptom and attribute.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.errors import InputError
from core.tables import read_table
from results.choices import Choices, over_what
from results.experiments import KNOWLEDGE_KINDS, knowledge_row
from results.rendering import Estimate, Table
from results.rows import (
    Gaps,
    Method,
    expected_backbones,
    expected_seeds,
    is_symptom_key,
    methods_of,
    tasks_of,
)
from results.runs import Run

FILE = Path("explanations") / "drift.csv"  # below a run's folder
COLUMNS = (
    "class",
    "symptom",
    "images",
    "correlation",
    "low",
    "high",
    "verdict",
    "attribute",
    "shown",
    "auc_untrained",
    "auc_untrained_low",
    "auc_untrained_high",
    "auc",
    "auc_low",
    "auc_high",
)
KEPT = "kept"  # the verdict on a symptom whose meaning training left as it was


class Meaning(NamedTuple):
    """What a run's symptoms mean, on average.

    Attributes:
        correlation: mean over symptoms. kept: share of symptoms with that verdict.
        untrained, trained: mean AUC of a symptom for its attribute; None without attributes.
    """

    correlation: float
    kept: float
    untrained: float | None
    trained: float | None


class SymptomRow(NamedTuple):
    """A row of the file: a symptom, and the AUC for one attribute before and after training."""

    symptom: tuple[str, str]  # class and phrase
    correlation: float
    verdict: str
    untrained: float | None
    trained: float | None


def read_rows(path: Path) -> list[SymptomRow]:
    """Read a file of ``COLUMNS``.

    Raises:
        InputError: it is missing, damaged or holds no symptom.
    """
    table = read_table(path)
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise InputError(f"{path}: has no column {missing[0]!r}; run explain.py again")
    try:
        found = [
            SymptomRow(
                (row["class"], row["symptom"]),
                float(row["correlation"] or "nan"),
                row["verdict"],
                float(row["auc_untrained"]) if row["auc_untrained"] else None,
                float(row["auc"]) if row["auc"] else None,
            )
            for _, row in table.rows
        ]
    except ValueError as error:
        raise InputError(f"{path}: holds something else than numbers ({error})") from None
    if not found:
        raise InputError(f"{path}: holds no symptom; run explain.py again")
    return found


def read_meaning(path: Path) -> Meaning:
    """The mean over the symptoms of a file; errors as in ``read_rows``."""
    found = read_rows(path)
    # A symptom with several attributes has several rows.
    symptoms = {row.symptom: (row.correlation, row.verdict) for row in found}
    correlations, verdicts = zip(*symptoms.values(), strict=True)
    areas = [
        (row.untrained, row.trained)
        for row in found
        if row.untrained is not None and row.trained is not None
    ]
    untrained, trained = np.mean(areas, axis=0).tolist() if areas else (None, None)
    kept = verdicts.count(KEPT) / len(verdicts)
    return Meaning(float(np.mean(correlations)), kept, untrained, trained)


MEASURES: dict[str, Callable[[Meaning], float | None]] = {
    "rank correlation": lambda meaning: meaning.correlation,
    "symptoms kept": lambda meaning: meaning.kept,
    "attribute AUC untrained": lambda meaning: meaning.untrained,
    "attribute AUC": lambda meaning: meaning.trained,
}


def meaning_tables(runs: list[Run], choices: Choices) -> list[Table]:
    """Accuracy beside what the symptoms still mean, by the symptoms that ViP read.

    A table for each task with runs whose drift is measured; the runs of one table differ in their
    symptoms and in any other option.
    """
    measured, problems = measured_runs(runs)
    tables = []
    for task, own in tasks_of(measured).items():
        gaps = Gaps(expected_backbones(own), expected_seeds(own, choices.seeds))
        headers = ["symptoms", "method", "validation ACC", *choices.headings, *MEASURES]
        table = Table(f"{task.title}, what symptoms mean", headers, [], text_columns=2)
        notes: list[str] = []
        for method in sorted(methods_of(own), key=order):
            kind, label = kind_of(method), _label(method)
            gaps.count(method, f"{label}, {kind}")
            bounds = choices.bounds(method, notes)
            values = [method.estimate(m, bounds.get(m), gaps.single) for m in choices.metrics]
            validation = mean_of(method, lambda run: run.record.validation.accuracy, gaps.single)
            meanings = [
                mean_of(method, partial(_measure, measured, of), gaps.single)
                for of in MEASURES.values()
            ]
            table.rows.append([kind, label, validation, *values, *meanings])
        what, *explained = choices.explain(over_what(gaps.backbones))
        table.notes = [what, *_explained(), *gaps.notes(), *notes, *problems, *explained]
        tables.append(table)
    return tables


def measured_runs(runs: Sequence[Run]) -> tuple[dict[Run, Meaning], list[str]]:
    """Runs of ViP whose drift is measured -> what it is; and why a file cannot be read."""
    found, problems = {}, []
    for run in runs:
        path = run.folder / FILE
        if run.trainer == "ViP" and run.metrics is not None and path.is_file():
            try:
                found[run] = read_meaning(path)
            except InputError as error:
                problems.append(str(error))
    return found, problems


def _measure(
    measured: Mapping[Run, Meaning], of: Callable[[Meaning], float | None], run: Run
) -> float | None:
    return of(measured[run])


def kind_of(method: Method) -> str:
    """Which symptoms a row's runs read, as Fig. 5 names them."""
    return knowledge_row(method.runs[0]) or "-"


def order(method: Method) -> tuple[int, str, float, str]:
    """Sorts kinds as Fig. 5 does, then plain before anchored, then by weight."""
    kind, known = kind_of(method), list(KNOWLEDGE_KINDS.values())
    place = known.index(kind) if kind in known else len(known)
    return place, kind, float(method.runs[0].option("ANCHOR", 0)), _label(method)


def _label(method: Method) -> str:
    """The method's label without its symptoms, which have a column of their own."""
    keys = {f"symptoms={Path(str(v)).stem}" for k, v in method.options.items() if is_symptom_key(k)}
    texts = [text for text in method.settings if text not in keys]
    return f"{method.trainer} ({', '.join(texts)})" if texts else method.trainer


def mean_of(
    method: Method, value_of: Callable[[Run], float | None], over_seeds: bool
) -> Estimate | None:
    """Mean over backbones of the mean over seeds, and the deviation, as ``Method.estimate``."""
    values: dict[str, list[float]] = defaultdict(list)
    for run in method.runs:
        if (value := value_of(run)) is not None:
            values[run.backbone].append(value)
    if not values:
        return None
    means = [float(np.mean(seeds)) for seeds in values.values()]
    spread = next(iter(values.values())) if over_seeds and len(means) == 1 else means
    return Estimate(float(np.mean(means)), float(np.std(spread)) if len(spread) > 1 else None)


def _explained() -> list[str]:
    return [
        "rank correlation: Spearman's, over the training images, of the similarities to the "
        "untrained and to the trained symptom, mean over symptoms; symptoms kept: share of the "
        "symptoms whose 95 % interval of it lies above .8",
        "attribute AUC: of a symptom's similarity for the attribute that it describes, over the "
        "training images, mean over the symptoms that have one",
    ]
