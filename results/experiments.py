"""The paper's other experiments as tables: Table 2, Fig. 5 and Fig. 3 I, and the few-shot curve."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from results import paper, statistics
from results.tables import (
    BOTH,
    METRIC_NAMES,
    Figure,
    Gaps,
    Table,
    expected_backbones,
    expected_seeds,
    explain_figures,
    is_symptom_key,
    methods_of,
    same_pictures,
    short,
    tasks_of,
)

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


def ablation_row(run):
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


def zeroshot_row(run):
    """What a zero-shot run reads, names or symptoms; None for another method."""
    return run.option("PROMPTS", "names") if run.trainer == "ZeroshotCLIP" else None


def knowledge_row(run):
    """Which symptoms a ViP run read, as Fig. 5 names them; None for another method."""
    if run.trainer != "ViP":
        return None
    chosen = {key: str(value) for key, value in run.options.items() if is_symptom_key(key)}
    stem = Path(next(iter(chosen.values()), "")).stem
    # A dataset may read another's symptoms: synthderm reads derm7pt.json.
    own = (run.config or {}).get("DATASET.SYMPTOMS") if "DATASET.SYMPTOMS" not in chosen else None
    if stem in ("", run.dataset, Path(own or "").stem):
        return RIGHT_SYMPTOMS
    for kind, name in KNOWLEDGE_KINDS.items():
        if kind and stem.replace("-", "_").endswith(f"_{kind}"):
            return name
    return stem


def _is_experiment_key(key):
    return key in EXPERIMENT_KEYS


def experiment_groups(runs, row_of, is_own_key):
    """Split runs into experiments: yields (task, title, {row: Method}, notes).

    One experiment is a task and a set of further options that all its runs share.

    Args:
        row_of: Run -> which row it is, or None.
        is_own_key: option key -> whether the experiment itself varies it.
    """
    groups = defaultdict(lambda: defaultdict(list))
    for task, task_runs in tasks_of(runs).items():
        for run in [] if task.trained_on else task_runs:
            row = row_of(run)
            if row is not None and run.origin == "results.json" and run.metrics is not None:
                rest = sorted(f"{k}={v}" for k, v in run.options.items() if not is_own_key(k))
                groups[task, tuple(rest)][row].append(run)
    for (task, rest), rows in groups.items():
        methods, notes = {}, []
        for row, chosen in rows.items():
            # ZeroshotCLIP sorts before ViP: the plain way to a row comes first.
            methods[row], *others = methods_of(chosen)
            notes += [f"{other.label} would give the same row; left aside" for other in others]
        yield task, task.title + (f" ({', '.join(rest)})" if rest else ""), methods, notes


class _Rows:
    """Fills one experiment's table row by row, its gaps into the notes."""

    def __init__(self, methods, metrics, intervals, seeds):
        chosen = [run for method in methods.values() for run in method.runs]
        self.gaps = Gaps(expected_backbones(chosen), expected_seeds(chosen, seeds))
        self.methods, self.metrics, self.intervals = methods, metrics, intervals
        self.problems = []

    def figures(self, row, name):
        method = self.methods.get(row)
        if method is None:
            self.gaps.rows["no runs"].append(name)
            return [None] * len(self.metrics)
        self.gaps.count(method, name)
        bounds = self.intervals.bounds(method, self.problems) if self.intervals else {}
        return [method.figure(m, bounds.get(m), self.gaps.single) for m in self.metrics]

    def notes(self):
        return [explain_figures(self.gaps.backbones), *self.gaps.notes(), *self.problems]


def ablation_tables(runs, metrics=BOTH, beside_paper=False, intervals=None, seeds=paper.SEEDS):
    """Table 2: context on or off, merge by prompt, mean or max.

    The paper does not say whether its none/none row reads names or symptoms: both are shown, and
    its figure stands beside names, marked uncertain.
    """
    tables = []
    groups = experiment_groups(runs, ablation_row, _is_experiment_key)
    for task, title, methods, notes in groups:
        if not any(row[:2] in ABLATED for row in methods):
            continue
        # The title says what else was changed; the paper changed nothing else.
        is_papers = title == task.dataset and task.dataset in paper.TABLE_1
        columns = [m for m in metrics if m in BOTH] if beside_paper and is_papers else []
        rows = _Rows(methods, metrics, intervals, seeds)
        headers = ["context", "merge", "reads", *(METRIC_NAMES[m] for m in metrics)]
        headers += [f"paper {METRIC_NAMES[m]}" for m in columns]
        table = Table(f"{title}, ablation (Table 2)", headers, [], text_columns=3)
        for row in [*ABLATION_ROWS, *sorted(set(methods) - set(ABLATION_ROWS))]:
            figures = rows.figures(row, "/".join(row[:2]) + f" ({row[2]})")
            printed = paper.TABLE_2.get(row[:2], {}).get(task.dataset, {})
            cells = [_paper_cell(printed.get(metric), row) for metric in columns]
            table.rows.append([*row, *figures, *cells])
        table.notes = rows.notes() + notes
        if columns:
            table.notes.append(
                "(?): the paper does not say whether its none/none row reads names or symptoms"
            )
        tables.append(_explained(table, intervals))
    return tables


def _paper_cell(value, row):
    if value is None or row == ABLATION_ROWS[1]:
        return None
    return f"{short(value, 4)} (?)" if row == ABLATION_ROWS[0] else Figure(value)


def _explained(table, intervals):
    if intervals:
        table.notes.append(intervals.explain())
    return table


def knowledge_tables(runs, metrics=BOTH, beside_paper=False, intervals=None, seeds=paper.SEEDS):
    """Fig. 5: ViP with right, incorrect, useless and out-of-domain symptoms, and two controls."""
    tables = []
    for task, title, methods, notes in experiment_groups(runs, knowledge_row, is_symptom_key):
        if not set(methods) - {RIGHT_SYMPTOMS}:
            continue
        rows = _Rows(methods, metrics, intervals, seeds)
        headers = ["symptoms", *(METRIC_NAMES[m] for m in metrics)]
        table = Table(f"{title}, knowledge (Fig. 5)", headers, [])
        known = list(KNOWLEDGE_KINDS.values())
        for row in [*known, *sorted(set(methods) - set(known))]:
            table.rows.append([row, *rows.figures(row, row)])
        table.notes = rows.notes() + notes
        if beside_paper and task.dataset in paper.KNOWLEDGE:
            table.notes.append(paper.KNOWLEDGE[task.dataset])
        tables.append(_explained(table, intervals))
    return tables


def zeroshot_tables(runs, metrics=BOTH, beside_paper=False, intervals=None, seeds=paper.SEEDS):
    """Fig. 3 I: zero-shot by names and by symptoms, and what the symptoms gain in points."""
    tables = []
    for task, title, methods, notes in experiment_groups(runs, zeroshot_row, _is_experiment_key):
        rows = _Rows(methods, metrics, intervals, seeds)
        headers = ["prompts", *(METRIC_NAMES[m] for m in metrics)]
        table = Table(f"{title}, zero-shot (Fig. 3 I)", headers, [])
        for row in ("names", "symptoms"):
            table.rows.append([row, *rows.figures(row, row)])
        table.notes = rows.notes() + notes
        if {"names", "symptoms"} <= set(methods):
            gains = difference_figures(
                methods["symptoms"], methods["names"], metrics, intervals, table.notes
            )
            table.rows.append(["symptoms - names, points", *gains])
        printed = paper.ZERO_SHOT_GAIN.get(task.dataset) if beside_paper else None
        if printed:
            cells = [Figure(printed[m], signed=True) if m in printed else None for m in metrics]
            table.rows.append(["the same in the paper", *cells])
        tables.append(_explained(table, intervals))
    return tables


def difference_figures(method_a, method_b, metrics, intervals, notes):
    """A minus B over the backbones both have: mean and deviation, and the paired interval."""
    bounds = {}
    if intervals:
        groups_a, groups_b = (intervals.groups(method, notes) for method in (method_a, method_b))
        shared = [b for b in groups_a or {} if b in (groups_b or {})]
        if shared and same_pictures(groups_a, groups_b):
            bounds = statistics.bootstrap_difference(
                [groups_a[b] for b in shared],
                [groups_b[b] for b in shared],
                intervals.metrics,
                intervals.times,
                intervals.seed,
            )
    figures = []
    for metric in metrics:
        a, b = method_a.values(metric), method_b.values(metric)
        gaps = [np.mean(a[name]) - np.mean(b[name]) for name in a if name in b]
        if not gaps:
            figures.append(None)
            continue
        deviation = float(np.std(gaps)) if len(gaps) > 1 else None
        low, high = bounds[metric][1:] if metric in bounds else (None, None)
        figures.append(Figure(float(np.mean(gaps)), deviation, low, high, signed=True))
    return figures


def shots_curves(runs, metric="macro_f1"):
    """The few-shot curve: dataset -> {method label: {shots: Method}}, lines of two points or more.

    A method's options other than the shots stay in its label.
    """
    curves = defaultdict(lambda: defaultdict(dict))
    for task, task_runs in tasks_of(runs).items():
        if task.subsample_classes == "all" and not task.trained_on:
            for method in methods_of(task_runs):
                if method.figure(metric) is not None:
                    curves[task.dataset][method.label][task.shots] = method
    return {
        dataset: lines
        for dataset, methods in curves.items()
        if (lines := {k: v for k, v in methods.items() if sum(s > 0 for s in v) > 1})
    }
