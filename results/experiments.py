"""The paper's other experiments as tables: Table 2, Fig. 5 and Fig. 3 I, and the few-shot curve."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from results import statistics
from results.choices import Choices, over_what
from results.metrics import heading
from results.pairs import matched_runs, pairs_of, sides
from results.paper import estimate_of
from results.rendering import Estimate, Table
from results.rows import (
    Gaps,
    Method,
    Task,
    expected_backbones,
    expected_seeds,
    is_symptom_key,
    methods_of,
    tasks_of,
)
from results.runs import TRAINING_OPTIONS, Run

Row = Any  # what tells the rows of an experiment apart: a text, or a tuple of texts

ABLATED = (("none", "prompt"), ("context", "max"), ("context", "mean"))
ABLATION_ROWS = (
    ("none", "none", "names"),
    ("none", "none", "symptoms"),
    *((*row, "symptoms") for row in ABLATED),
    ("context", "prompt", "symptoms"),
)
EXPERIMENT_KEYS = ("TRAINER.VIP.CONTEXT", "TRAINER.VIP.MERGE", "TRAINER.ZEROSHOTCLIP.PROMPTS")
RIGHT_SYMPTOMS = "LLM-generated"
# What ends the name of a symptom file -> its row.
KNOWLEDGE_KINDS = {
    "": RIGHT_SYMPTOMS,
    "incorrect": "incorrect",
    "useless": "useless",
    "out_of_domain": "out-of-domain",
    "swapped": "classes swapped (ours)",
    "random_words": "random words (ours)",
}


def ablation_row(run: Run) -> tuple[str, str, str] | None:
    """(context, merge, what it reads) of a run as Table 2 names them, or None."""
    if run.trainer == "ZeroshotCLIP":
        return ("none", "none", run.option("PROMPTS", "names"))
    if run.trainer != "ViP":
        return None
    context = "context" if run.option("CONTEXT", True).lower() in ("true", "1") else "none"
    merge = run.option("MERGE", "prompt")
    if (context, merge) == ("none", "mean"):
        # Nothing is left to learn: this is zero-shot by symptoms.
        merge = "none"
    return (context, merge, "symptoms")


def zeroshot_row(run: Run) -> str | None:
    """What a zero-shot run reads, names or symptoms; None for another method."""
    return run.option("PROMPTS", "names") if run.trainer == "ZeroshotCLIP" else None


def knowledge_row(run: Run) -> str | None:
    """Which symptoms a ViP run read, as Fig. 5 names them; None for another method."""
    if run.trainer != "ViP":
        return None
    chosen = {key: str(value) for key, value in run.options.items() if is_symptom_key(key)}
    stem = Path(next(iter(chosen.values()), "")).stem
    # A dataset may read another's symptoms: synthderm reads derm7pt.json.
    own = (run.config or {}).get("DATASET.SYMPTOMS") if "DATASET.SYMPTOMS" not in chosen else None
    if stem in ("", run.dataset, Path(str(own or "")).stem):
        return RIGHT_SYMPTOMS
    for kind, name in KNOWLEDGE_KINDS.items():
        if kind and stem.replace("-", "_").endswith(f"_{kind}"):
            return name
    return stem


def _is_experiment_key(key: str) -> bool:
    return key in EXPERIMENT_KEYS


def experiment_groups(
    runs: Sequence[Run], row_of: Callable[[Run], Any], is_own_key: Callable[[str], bool]
) -> Iterator[tuple[Task, str, dict[Row, Method], list[str]]]:
    """Split runs into experiments: yields (task, title, {row: Method}, notes).

    One experiment is a task and a set of further options that all its runs share. A run that learns
    nothing belongs to those of every number of shots and every option of training.

    Args:
        row_of: Run -> which row it is, or None.
        is_own_key: option key -> whether the experiment itself varies it.
    """
    groups: dict[tuple, dict[Row, list[Run]]] = defaultdict(lambda: defaultdict(list))
    placed = []
    for task, task_runs in tasks_of(runs).items():
        for run in [] if task.trained_on else task_runs:
            row = row_of(run)
            if row is not None and not run.is_log and run.metrics is not None:
                rest = {k: v for k, v in run.options.items() if not is_own_key(k)}
                placed.append((task, rest, row, run))
    for task, rest, row, run in sorted(placed, key=lambda place: not place[3].learns):
        if run.learns:
            groups[task, _texts(rest)][row].append(run)
            continue
        belongs = [
            key
            for key in groups
            if key[0]._replace(shots=-1) == task
            and [text for text in key[1] if not text.startswith(TRAINING_OPTIONS)]
            == list(_texts(rest))
        ]
        for key in belongs or [(task, _texts(rest))]:
            groups[key][row].append(run)
    for (task, texts), rows in sorted(groups.items()):
        methods, notes = {}, []
        for row, chosen in rows.items():
            # ZeroshotCLIP sorts before ViP: the plain way to a row comes first.
            methods[row], *others = methods_of(chosen)
            notes += [f"{other.label} would give the same row; not used" for other in others]
        yield task, task.title + (f" ({', '.join(texts)})" if texts else ""), methods, notes


def _texts(options: dict[str, str]) -> tuple[str, ...]:
    return tuple(sorted(f"{key}={value}" for key, value in options.items()))


class _Rows:
    """Fills the table of one experiment row by row, its gaps into the notes."""

    def __init__(self, methods: dict[Row, Method], choices: Choices) -> None:
        chosen = [run for method in methods.values() for run in method.runs]
        self.gaps = Gaps(expected_backbones(chosen), expected_seeds(chosen, choices.seeds))
        self.methods, self.choices = methods, choices
        self.problems: list[str] = []

    def cells(self, row: Row, name: str) -> list[Estimate | None]:
        method = self.methods.get(row)
        if method is None:
            self.gaps.rows["no runs"].append(name)
            return [None] * len(self.choices.metrics)
        self.gaps.count(method, name)
        bounds = self.choices.bounds(method, self.problems)
        return [method.estimate(m, bounds.get(m), self.gaps.single) for m in self.choices.metrics]

    def notes(self) -> list[str]:
        what, *explained = self.choices.explain(over_what(self.gaps.backbones))
        return [what, *self.gaps.notes(), *self.problems, *explained]


def ablation_tables(runs: list[Run], choices: Choices) -> list[Table]:
    """Table 2: context on or off, merge by prompt, mean or max.

    The paper does not say whether its none/none row reads names or symptoms: both are shown, and
    its figure is shown beside names, marked as uncertain.
    """
    tables = []
    for task, title, methods, notes in experiment_groups(runs, ablation_row, _is_experiment_key):
        if not any(row[:2] in ABLATED for row in methods):
            continue
        # The title says what else was changed; the paper changed nothing else.
        vip = choices.vip if title == task.dataset else None
        columns = choices.printed_metrics if vip and vip.table_for(task.dataset, -1) else []
        rows = _Rows(methods, choices)
        headers = ["context", "merge", "reads", *choices.headings]
        headers += [f"paper {heading(m)}" for m in columns]
        table = Table(f"{title}, ablation (Table 2)", headers, [], text_columns=3)
        for row in [*ABLATION_ROWS, *sorted(set(methods) - set(ABLATION_ROWS))]:
            cells = rows.cells(row, "/".join(row[:2]) + f" ({row[2]})")
            printed = vip.ablation.get("/".join(row[:2]), {}) if vip else {}
            known = printed.get(task.dataset, {})
            beside = [_paper_cell(estimate_of(known.get(metric)), row) for metric in columns]
            table.rows.append([*row, *cells, *beside])
        table.notes = rows.notes() + notes
        if columns:
            table.notes.append(
                "(?): the paper does not say whether its none/none row reads names or symptoms"
            )
        tables.append(table)
    return tables


def _paper_cell(found: Estimate | None, row: tuple) -> str | Estimate | None:
    if found is None or row == ABLATION_ROWS[1]:
        return None
    return f"{found} (?)" if row == ABLATION_ROWS[0] else found


def knowledge_tables(runs: list[Run], choices: Choices) -> list[Table]:
    """Fig. 5: ViP with right, incorrect, useless and out-of-domain symptoms, and two controls."""
    tables = []
    for task, title, methods, notes in experiment_groups(runs, knowledge_row, is_symptom_key):
        if not set(methods) - {RIGHT_SYMPTOMS}:
            continue
        rows = _Rows(methods, choices)
        table = Table(f"{title}, knowledge (Fig. 5)", ["symptoms", *choices.headings], [])
        known = list(KNOWLEDGE_KINDS.values())
        for row in [*known, *sorted(set(methods) - set(known))]:
            table.rows.append([row, *rows.cells(row, row)])
        table.notes = rows.notes() + notes
        if choices.vip and task.dataset in choices.vip.knowledge:
            table.notes.append(choices.vip.knowledge[task.dataset])
        tables.append(table)
    return tables


def zeroshot_tables(runs: list[Run], choices: Choices) -> list[Table]:
    """Fig. 3 I: zero-shot by names and by symptoms, and what the symptoms gain in points."""
    tables = []
    for task, title, methods, notes in experiment_groups(runs, zeroshot_row, _is_experiment_key):
        rows = _Rows(methods, choices)
        table = Table(f"{title}, zero-shot (Fig. 3 I)", ["prompts", *choices.headings], [])
        for row in ("names", "symptoms"):
            table.rows.append([row, *rows.cells(row, row)])
        table.notes = rows.notes() + notes
        if {"names", "symptoms"} <= set(methods):
            gains = differences(methods["symptoms"], methods["names"], choices, table.notes)
            table.rows.append(["symptoms - names, points", *gains])
        printed = choices.vip.zero_shot_gain.get(task.dataset) if choices.vip else None
        if printed:
            gains = [estimate_of(printed.get(metric)) for metric in choices.metrics]
            cells = [Estimate(gain.value, signed=True) if gain else None for gain in gains]
            table.rows.append(["the same in the paper", *cells])
        tables.append(table)
    return tables


def differences(a: Method, b: Method, choices: Choices, notes: list[str]) -> list[Estimate | None]:
    """A minus B over the backbones and seeds that both have: mean, deviation, paired interval."""
    bounds = _paired_bounds(a, b, choices)
    matched = matched_runs(a, b, notes)
    cells: list[Estimate | None] = []
    for metric in choices.metrics:
        by_backbone = defaultdict(list)
        for _, run_a, run_b in matched:
            value_a, value_b = ((run.metrics or {}).get(metric) for run in (run_a, run_b))
            if value_a is not None and value_b is not None:
                by_backbone[run_a.backbone].append(value_a - value_b)
        if not by_backbone:
            cells.append(None)
            continue
        gaps = [float(np.mean(values)) for values in by_backbone.values()]
        deviation = float(np.std(gaps)) if len(gaps) > 1 else None
        low, high = bounds.get(metric, (None, None))
        cells.append(Estimate(float(np.mean(gaps)), deviation, low, high, signed=True))
    return cells


def _paired_bounds(a: Method, b: Method, choices: Choices) -> dict[str, tuple[float, float]]:
    """Metric -> (low, high); none where the rows above already say why they have no interval."""
    intervals = choices.intervals
    if not intervals:
        return {}
    try:
        paired = sides(pairs_of(a, b, []))
    except ValueError:
        return {}
    found = statistics.bootstrap_difference(
        *paired, intervals.metrics, intervals.times, intervals.seed
    )
    return {metric: (low, high) for metric, (_, low, high) in found.items()}


def shots_curves(
    runs: Sequence[Run], metric: str = "macro_f1"
) -> dict[str, dict[str, dict[int, Method]]]:
    """The few-shot curves: dataset -> {method label: {shots: Method}}; two points or more a line.

    A method's options other than the shots stay in its label. What learns nothing is the same for
    every number of shots.
    """
    curves: dict = defaultdict(lambda: defaultdict(dict))
    untrained = []
    for task, task_runs in tasks_of(runs).items():
        if task.subsample_classes == "all" and not task.trained_on:
            for method in methods_of(task_runs):
                if method.estimate(metric) is None:
                    continue
                if method.learns:
                    curves[task.dataset][method.label][task.shots] = method
                else:
                    untrained.append((task.dataset, method))
    for dataset, method in reversed(untrained):
        lines = curves[dataset]
        numbers = {shots for points in lines.values() for shots in points if shots > 0}
        curves[dataset] = {method.label: dict.fromkeys(sorted(numbers), method), **lines}
    return {
        dataset: dict(sorted(lines.items(), key=lambda line: next(iter(line[1].values())).order))
        for dataset, methods in curves.items()
        if (lines := {k: v for k, v in methods.items() if sum(s > 0 for s in v) > 1})
    }
