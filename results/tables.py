"""Tables of runs: structured first (``Table``), then rendered as text, CSV or HTML.

A row is a method: a trainer with its non-default options. Its figure is the paper's: the mean over
backbones of the mean over seeds, with the deviation (ddof 0, as CoOp's parser) over backbones. What
is missing is written under the table; it is never averaged over in silence.
"""

import csv
import io
import math
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tabulate

from core.errors import InputError
from results import paper, statistics

# tabulate would rather read ".8111" as a number and reformat it.
TABULATE = {"disable_numparse": True}
FORMATS = ("github", "latex", "csv")
BOTH = ("accuracy", "macro_f1")  # the two the paper prints
METRIC_NAMES = {"accuracy": "ACC", "macro_f1": "F1", "auroc": "AUROC", "balanced_accuracy": "BACC"}
TRAINER_ORDER = (
    "ZeroshotCLIP",
    "LinearProbe",
    "CoOp",
    "CoCoOp",
    "KgCoOp",
    "BayesianPrompt",
    "MaPLe",
    "Supervised",
    "ViP",
)
# Nothing in them is drawn, so one seed is all there is to run.
SEEDLESS = ("ZeroshotCLIP",)
HALVES = ("base", "new")  # of the classes
DOES_NOT_APPLY = "does not apply"


@dataclass(frozen=True)
class Figure:
    """A number of a table, with its deviation and interval where there are any."""

    value: float
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    signed: bool = False  # a difference, printed in points

    def __str__(self):
        if self.signed:
            text = f"{100 * self.value:+.2f}"
            bounds = f" [{_points(self.low)}, {_points(self.high)}]"
            deviation = f" ({100 * (self.deviation or 0):.2f})"
        else:
            text, bounds = short(self.value, 4), f" [{short(self.low, 3)}, {short(self.high, 3)}]"
            deviation = f" ({short(self.deviation, 3)})"
        if self.deviation is not None:
            text += deviation
        return text + (bounds if self.low is not None else "")


def short(value, digits):
    """.8111 as the paper prints it; "-" where there is no number."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.{digits}f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.{digits}f}"


def _points(value):
    return "-" if value is None or math.isnan(value) else f"{100 * value:+.2f}"


@dataclass
class Table:
    """Headers and rows of str, number, Figure or None; notes stand underneath."""

    title: str
    headers: list
    rows: list
    notes: list = field(default_factory=list)
    text_columns: int = 1  # at the left; the others hold numbers

    def text_rows(self):
        return [[_text(cell) for cell in row] for row in self.rows]


class PValue(float):
    """A p value: .0123, <.0001, or "-" where there is none."""

    def __str__(self):
        return "<.0001" if self < 1e-4 else short(self, 4)


def _text(cell):
    if cell is None:
        return "-"
    if isinstance(cell, PValue):
        return str(cell)
    if isinstance(cell, float):
        return f"{cell:.3g}" if abs(cell) < 100 else f"{cell:,.0f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def render(table, form="github"):
    """A table as text: ``github``, ``latex`` (booktabs), ``csv`` (full precision) or ``html``."""
    if form == "csv":
        return _csv(table)
    numbers = len(table.headers) - table.text_columns
    align = ["left"] * table.text_columns + ["right"] * numbers
    tablefmt = "latex_booktabs" if form == "latex" else form
    body = tabulate.tabulate(
        table.text_rows(), table.headers, tablefmt=tablefmt, colalign=align, **TABULATE
    )
    if form == "latex":
        head = f"% {table.title} (needs \\usepackage{{booktabs}})"
        return "\n".join([head, body, *(f"% {note}" for note in table.notes)])
    if form == "html":
        return body
    return "\n".join(
        [f"## {table.title}", "", body, *([""] if table.notes else []), *_bullets(table.notes)]
    )


def _bullets(notes):
    return [f"- {note}" for note in notes]


def _csv(table):
    """Figures take a column for each of their parts, so that a program can read them."""
    parts = ("deviation", "low", "high")
    used = [
        [p for p in parts if any(getattr(row[i], p, None) is not None for row in table.rows)]
        for i in range(len(table.headers))
    ]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    headers = ["table"]
    for header, extra in zip(table.headers, used, strict=True):
        headers += [header, *(f"{header} {part}" for part in extra)]
    writer.writerow(headers)
    for row in table.rows:
        line = [table.title]
        for cell, extra in zip(row, used, strict=True):
            line.append(cell.value if isinstance(cell, Figure) else cell)
            line += [getattr(cell, part, None) for part in extra]
        writer.writerow("" if cell is None else cell for cell in line)
    return out.getvalue().rstrip("\n")


# Rows: runs grouped into methods


class Method:
    """The runs that make one row: one trainer, one set of options, all backbones and seeds."""

    def __init__(self, runs):
        self.runs = sorted(runs, key=lambda run: (backbone_order(run.backbone), run.seed))
        first = self.runs[0]
        self.trainer, self.options = first.trainer, first.options
        self.symptom_fingerprint = first.symptom_fingerprint
        self.foreign = first.variant if first.origin != "results.json" else None
        self.tell_symptoms = False  # set where two rows differ in nothing else

    @property
    def is_default(self):
        return not self.options and self.foreign is None

    @cached_property
    def by_backbone(self):
        """backbone -> runs that have figures."""
        groups = defaultdict(list)
        for run in self.runs:
            if run.metrics is not None:
                groups[run.backbone].append(run)
        return dict(groups)

    @property
    def not_applying(self):
        """backbone -> why the method is not defined for it."""
        return {
            run.backbone: run.record["does_not_apply"] for run in self.runs if run.metrics is None
        }

    @property
    def settings(self):
        """KEY=VALUE of each option, the trainer's own without their prefix."""
        prefix = f"TRAINER.{self.trainer.upper()}."
        texts = []
        for key, value in sorted(self.options.items()):
            if is_symptom_key(key):
                texts.append(f"symptoms={Path(str(value)).stem}")
            else:
                texts.append(f"{key.removeprefix(prefix)}={value}")
        if self.tell_symptoms and self.symptom_fingerprint:
            texts.append(f"symptoms={self.symptom_fingerprint}")
        if self.foreign is not None:
            texts.append(f"log={self.foreign}")
        return texts

    @property
    def label(self):
        return f"{self.trainer} ({', '.join(self.settings)})" if self.settings else self.trainer

    @property
    def spec(self):
        """How ``--compare`` names this row."""
        return ":".join([self.trainer, ",".join(self.settings)]) if self.settings else self.trainer

    @property
    def order(self):
        known = self.trainer in TRAINER_ORDER
        place = TRAINER_ORDER.index(self.trainer) if known else len(TRAINER_ORDER)
        return (place, self.trainer, not self.is_default, self.label)

    def values(self, metric):
        """backbone -> the metric of each seed; backbones without it are left out."""
        found = {
            backbone: [run.metrics.get(metric) for run in runs]
            for backbone, runs in self.by_backbone.items()
        }
        return {b: v for b, v in found.items() if all(isinstance(x, int | float) for x in v)}

    def figure(self, metric, bounds=None, over_seeds=False):
        """Mean over backbones of the mean over seeds, and the deviation over backbones, or None.

        The deviation over a single backbone says nothing; ``over_seeds`` gives the one over its
        seeds instead.
        """
        values = self.values(metric)
        if not values:
            return None
        means = [float(np.mean(seeds)) for seeds in values.values()]
        spread = next(iter(values.values())) if over_seeds and len(means) == 1 else means
        deviation = float(np.std(spread)) if len(spread) > 1 else None
        return Figure(float(np.mean(means)), deviation, *(bounds or (None, None)))

    def missing(self, backbones, seeds):
        """What of backbones x seeds has no run, one text a backbone."""
        if self.trainer in SEEDLESS:
            seeds = sorted({run.seed for run in self.runs})[:1]
        texts = []
        for backbone in backbones:
            if backbone in self.not_applying:
                continue
            have = {run.seed for run in self.by_backbone.get(backbone, [])}
            lacking = [str(seed) for seed in seeds if seed not in have]
            if not have:
                texts.append(f"all of {backbone}")
            elif lacking:
                texts.append(f"{backbone} seed{'s' * (len(lacking) > 1)} {' '.join(lacking)}")
        return texts

    def prediction_groups(self):
        """Runs' predictions by backbone, for the bootstrap.

        Raises:
            InputError: if one of them cannot be read.
        """
        return {b: [run.predictions() for run in runs] for b, runs in self.by_backbone.items()}


def is_symptom_key(key):
    return key.split(".")[-1] == "SYMPTOMS"


def methods_of(runs):
    """Runs grouped into rows, in the paper's order; each row's options tell it from the others."""
    groups = defaultdict(list)
    for run in runs:
        groups[run.key].append(run)
    methods = sorted((Method(group) for group in groups.values()), key=lambda m: m.order)
    labels = [method.label for method in methods]
    for method, label in zip(methods, labels, strict=True):
        method.tell_symptoms = labels.count(label) > 1
    return methods


class Task(NamedTuple):
    """What a table's runs have in common: where they were tested, and on how much they learned."""

    dataset: str
    shots: int = -1
    subsample_classes: str = "all"
    trained_on: str = ""  # another dataset, for an external test

    @property
    def title(self):
        title = self.dataset
        if self.trained_on:
            title += f", trained on {self.trained_on}"
        if self.shots > 0:
            title += f", {self.shots} shot{'s' * (self.shots > 1)} a class"
        if self.subsample_classes != "all":
            title += f", {self.subsample_classes} classes"
        return title


def tasks_of(runs):
    """Task -> its runs, sorted; external tests are tasks of their own."""
    tasks = defaultdict(list)
    for run in runs:
        task = Task(run.dataset, run.shots, run.subsample_classes, run.trained_on or "")
        tasks[task].append(run)
    return dict(sorted(tasks.items()))


def backbone_order(backbone):
    """Sorts the paper's backbones first, in its order."""
    known = backbone in paper.BACKBONES
    return (paper.BACKBONES.index(backbone) if known else len(paper.BACKBONES), backbone)


def expected_backbones(runs):
    """The backbones that every row of a table should have: those that any of them has."""
    return sorted({run.backbone for run in runs}, key=backbone_order)


def expected_seeds(runs, seeds=paper.SEEDS):
    """The protocol's seeds and whatever else was run."""
    drawn = {run.seed for run in runs if run.trainer not in SEEDLESS}
    return sorted(set(seeds) | drawn)


class Gaps:
    """What rows lack, said once for all rows that lack the same."""

    def __init__(self, backbones, seeds):
        self.backbones, self.seeds = backbones, seeds
        self.rows = defaultdict(list)
        self.single = len(backbones) == 1

    def count(self, method, name=None):
        """Note what a row lacks; returns the "9 of 9" of its last column."""
        if missing := method.missing(self.backbones, self.seeds):
            self.rows[f"missing {', '.join(missing)}"].append(name or method.label)
        for backbone, reason in method.not_applying.items():
            self.rows[f"does not apply to {backbone} ({reason})"].append(name or method.label)
        applies = [b for b in self.backbones if b not in method.not_applying]
        wanted = len(applies) * (1 if method.trainer in SEEDLESS else len(self.seeds))
        have = sum(len(runs) for runs in method.by_backbone.values())
        return f"{have} of {wanted}"

    def notes(self):
        """One line for each gap, and what the paper averages over that no run here has."""
        lines = [f"{', '.join(names)}: {gap}" for gap, names in self.rows.items()]
        absent = [b for b in paper.BACKBONES if b not in self.backbones]
        if absent and len(absent) < len(paper.BACKBONES):
            lines.append(f"no runs of {', '.join(absent)}, over which the paper averages too")
        return lines


# Intervals


class Intervals:
    """95 % bootstrap intervals of rows; why a row has none goes into its table's notes."""

    def __init__(self, metrics, times=statistics.RESAMPLES, seed=0):
        self.metrics, self.times, self.seed = tuple(metrics), times, seed

    def groups(self, method, notes):
        """Aligned predictions by backbone, or None (and a note) where they cannot be had."""
        try:
            return aligned_groups(method.prediction_groups())
        except (InputError, ValueError) as error:
            notes.append(f"{method.label}: no interval ({error})")
            return None

    def bounds(self, method, notes):
        """metric -> (low, high) of a row's figure; empty where there are none."""
        groups = self.groups(method, notes) if method.by_backbone else None
        return self.of(groups) if groups else {}

    def of(self, groups):
        """metric -> (low, high) of a row's figure."""
        samples = self.samples(groups)
        return {name: statistics.interval(value) for name, value in samples.items()}

    def samples(self, groups):
        return statistics.bootstrap_means(
            list(groups.values()), self.metrics, self.times, self.seed
        )

    def explain(self):
        return (
            f"[low, high]: 95 % interval, {self.times} bootstrap resamples of the test pictures, "
            "each picture drawn for all of a row's runs together"
        )


def aligned_groups(groups):
    """The same runs by backbone, all in one order of pictures.

    Raises:
        ValueError: if they are not on the same test pictures.
    """
    flat = [(backbone, run) for backbone, runs in groups.items() for run in runs]
    if not flat:
        raise ValueError("no predictions")
    aligned = defaultdict(list)
    runs = statistics.align([run for _, run in flat])
    for (backbone, _), run in zip(flat, runs, strict=True):
        aligned[backbone].append(run)
    return dict(aligned)


# The paper's layout


def paper_tables(runs, metrics=BOTH, **options):
    """Table 1 for each task of the runs but external tests; options as ``method_table``."""
    return [
        method_table(task, task_runs, metrics, **options)
        for task, task_runs in tasks_of(runs).items()
        if not task.trained_on
    ]


def method_table(task, runs, metrics=BOTH, beside_paper=False, intervals=None, seeds=paper.SEEDS):
    """Rows are methods, columns metrics: mean (deviation) over backbones of the mean over seeds.

    Args:
        runs: the runs of ``task``.
        beside_paper: add the paper's figures where it prints them.
        intervals: an Intervals, for 95 % intervals.
        seeds: seeds that every row should have.
    """
    printed = paper.TABLE_1.get(task.dataset) if task == Task(task.dataset) else None
    printed = printed if beside_paper else None
    columns = [m for m in metrics if m in BOTH] if printed else []
    names = [METRIC_NAMES[m] for m in metrics] + [f"paper {METRIC_NAMES[m]}" for m in columns]
    table = Table(task.title, ["method", *names, "runs"], [])
    table.rows += _majority_row(runs, metrics, columns, intervals, table.notes)
    gaps = Gaps(expected_backbones(runs), expected_seeds(runs, seeds))
    drawn = {}
    for method in methods_of(runs):
        groups, bounds = None, {}
        if intervals and method.by_backbone:
            groups = intervals.groups(method, table.notes)
        if groups:
            samples = intervals.samples(groups)
            drawn[method.label] = (method, groups, samples)
            bounds = {m: statistics.interval(v) for m, v in samples.items()}
        figures = [method.figure(m, bounds.get(m), gaps.single) for m in metrics]
        if not method.by_backbone:
            figures = [DOES_NOT_APPLY] * len(metrics)
        known = printed.get(method.trainer, {}) if printed and is_paper_row(method) else {}
        beside = [Figure(*known[m]) if m in known else None for m in columns]
        table.rows.append([method.label, *figures, *beside, gaps.count(method)])
    table.notes += [explain_figures(gaps.backbones), *gaps.notes(), *_mixtures(runs)]
    if intervals:
        table.notes += [intervals.explain(), *_noise(drawn, metrics[0])]
    if printed:
        table.notes += _paper_notes(task.dataset)
    return table


def is_paper_row(method):
    """Whether the paper's figure belongs beside this row.

    Its "Supervised" starts from random weights; a row that starts from CLIP's is not it.
    """
    starts = [str(value).lower() for value in method.options.values()]
    if method.trainer == "Supervised":
        return starts == ["scratch"] or not starts
    return method.is_default


def explain_figures(backbones):
    if len(backbones) == 1:
        return f"mean (deviation, ddof 0) over seeds; one backbone ({backbones[0]})"
    return "mean (deviation, ddof 0) over backbones of the mean over seeds"


def _majority_row(runs, metrics, paper_columns, intervals, notes):
    """The row of always answering the most frequent training class, where counts are known."""
    counts = next((r.class_counts for r in runs if r.class_counts.get("test")), None)
    if not counts or not counts.get("train"):
        return []
    rule = statistics.majority_predictions(counts)
    values = statistics.metrics(rule, metrics)
    bounds = intervals.of({"": [rule]}) if intervals else {}
    cells = [Figure(values[m], None, *bounds.get(m, (None, None))) for m in metrics]
    most = max(counts["train"].values())
    tied = [name for name, number in counts["train"].items() if number == most]
    if len(tied) > 1:
        notes.append(f"majority class: {', '.join(tied)} are as frequent; answers {tied[0]}")
    return [["majority class", *cells, *[None] * len(paper_columns), ""]]


def _mixtures(runs):
    """Runs that should not stand in one table together, and figures of less precision."""
    notes = []
    for key, words in (("split_fingerprint", "splits"), ("precision", "precisions")):
        values = defaultdict(set)
        for run in runs:
            if run.record.get(key):
                # A few-shot choice is drawn anew with each seed.
                seed = f" of seed {run.seed}" if run.shots > 0 and key != "precision" else ""
                values[seed].add((run.record[key], run.trainer))
        for seed, pairs in values.items():
            if len({value for value, _ in pairs}) > 1:
                listed = ", ".join(f"{trainer} {value}" for value, trainer in sorted(pairs))
                notes.append(f"made with different {words}{seed}: {listed}")
    logs = sorted({run.trainer for run in runs if run.origin != "results.json"})
    if logs:
        notes.append(f"from logs, as precise as they print: {', '.join(logs)}")
    return notes


def _noise(samples, metric):
    """Which rows cannot be told from the best one, by the paired interval of the difference."""
    if len(samples) < 2:
        return []
    name = METRIC_NAMES[metric]
    best = max(samples, key=lambda label: samples[label][0].figure(metric).value)
    _, best_groups, best_samples = samples[best]
    notes, alike = [], []
    for label, (_, groups, drawn) in samples.items():
        if label == best or not same_pictures(groups, best_groups):
            continue
        if statistics.within_noise(*statistics.interval(best_samples[metric] - drawn[metric])):
            alike.append(label)
    if alike:
        notes.append(
            f"{best} has the highest {name}, but its lead lies within the noise of "
            f"{len(_first(best_groups))} test pictures over: {', '.join(alike)}"
        )
    return notes


def _first(groups):
    return next(iter(groups.values()))[0]


def same_pictures(groups_a, groups_b):
    """Whether two rows' aligned predictions are on the same test pictures."""
    return np.array_equal(_first(groups_a).pictures, _first(groups_b).pictures)


def _paper_notes(dataset):
    rival, lead = paper.margin(dataset)
    n = paper.PICTURES[dataset]
    share = paper.TABLE_1[dataset]["ViP"]["accuracy"][0]
    width = statistics.binomial_half_width(share, n)
    inside = "within" if lead < width else "outside"
    return [
        "paper: ViT-B/16, ViT-L/14 and RN50, three seeds each",
        f"the paper's ViP leads {rival} by {100 * lead:.2f} points of accuracy, which is {inside} "
        f"the 95 % half-width of {100 * width:.1f} points that {n} test pictures give one accuracy",
    ]


# Other layouts of the same runs


def backbone_tables(runs, metrics=BOTH, intervals=None, seeds=paper.SEEDS):
    """A row for each method and backbone: mean (deviation) over seeds."""
    tables = []
    for task, task_runs in tasks_of(runs).items():
        headers = ["method", "backbone", *(METRIC_NAMES[m] for m in metrics), "seeds"]
        table = Table(f"{task.title}, by backbone", headers, [], text_columns=2)
        gaps = Gaps(expected_backbones(task_runs), expected_seeds(task_runs, seeds))
        for method in methods_of(task_runs):
            gaps.count(method)
            for backbone in gaps.backbones:
                if backbone in method.not_applying:
                    cells = [DOES_NOT_APPLY] * len(metrics) + [""]
                elif backbone not in method.by_backbone:
                    cells = [None] * len(metrics) + [""]
                else:
                    cells = _seed_cells(method, backbone, metrics, intervals, table.notes)
                    cells.append(" ".join(str(r.seed) for r in method.by_backbone[backbone]))
                table.rows.append([method.label, backbone, *cells])
        table.notes += ["mean (deviation, ddof 0) over seeds", *gaps.notes()]
        table.notes += _mixtures(task_runs)
        if intervals:
            table.notes.append(intervals.explain())
        tables.append(table)
    return tables


def _seed_cells(method, backbone, metrics, intervals, notes):
    own = Method(method.by_backbone[backbone])
    bounds = intervals.bounds(own, notes) if intervals else {}
    return [own.figure(metric, bounds.get(metric), over_seeds=True) for metric in metrics]


def seed_tables(runs, metrics=BOTH, intervals=None):
    """A row for each run."""
    tables = []
    for task, task_runs in tasks_of(runs).items():
        headers = ["method", "backbone", "seed", *(METRIC_NAMES[m] for m in metrics), "read from"]
        table = Table(f"{task.title}, by seed", headers, [], text_columns=2)
        for method in methods_of(task_runs):
            for run in method.runs:
                if run.metrics is None:
                    cells = [DOES_NOT_APPLY] * len(metrics)
                else:
                    bounds = intervals.bounds(Method([run]), table.notes) if intervals else {}
                    cells = [
                        Figure(run.metrics[m], None, *bounds.get(m, (None, None)))
                        if run.metrics.get(m) is not None
                        else None
                        for m in metrics
                    ]
                table.rows.append([method.label, run.backbone, run.seed, *cells, run.origin])
        if intervals:
            table.notes.append(intervals.explain())
        tables.append(table)
    return tables


def external_table(runs, metrics=BOTH, intervals=None, seeds=paper.SEEDS):
    """Runs tested on another dataset than they were trained on, or None."""
    external = {task: some for task, some in tasks_of(runs).items() if task.trained_on}
    if not external:
        return None
    headers = ["method", "tested on", *(METRIC_NAMES[m] for m in metrics), "runs"]
    table = Table("external tests", headers, [], text_columns=2)
    for task, task_runs in external.items():
        gaps = Gaps(expected_backbones(task_runs), expected_seeds(task_runs, seeds))
        for method in methods_of(task_runs):
            bounds = intervals.bounds(method, table.notes) if intervals else {}
            figures = [method.figure(m, bounds.get(m), gaps.single) for m in metrics]
            table.rows.append([method.label, task.title, *figures, gaps.count(method)])
        explained = [explain_figures(gaps.backbones), *gaps.notes()]
        table.notes += [f"{task.title}: {note}" for note in explained]
    if intervals:
        table.notes.append(intervals.explain())
    return table


def base_to_new_tables(runs, metrics=BOTH, intervals=None, seeds=paper.SEEDS):
    """Figures on base and new classes and their harmonic mean, for tasks that have both."""
    halves = defaultdict(dict)
    for task, task_runs in tasks_of(runs).items():
        if task.subsample_classes in HALVES and not task.trained_on:
            halves[task._replace(subsample_classes="all")][task.subsample_classes] = task_runs
    return [
        _base_to_new_table(f"{task.title}, base to new", both, metrics, intervals, seeds)
        for task, both in halves.items()
        if len(both) == len(HALVES)
    ]


def _base_to_new_table(title, both, metrics, intervals, seeds):
    """The table of one task; ``both`` is half -> its runs."""
    columns = [f"{part} {METRIC_NAMES[m]}" for m in metrics for part in (*HALVES, "harmonic mean")]
    table = Table(title, ["method", *columns], [])
    runs = [run for half in HALVES for run in both[half]]
    gaps = Gaps(expected_backbones(runs), expected_seeds(runs, seeds))
    rows, problems = defaultdict(dict), []
    for half in HALVES:
        for method in methods_of(both[half]):
            said = []
            bounds = intervals.bounds(method, said) if intervals else {}
            problems += [f"{half} classes: {problem}" for problem in said]
            gaps.count(method, f"{method.label} on {half} classes")
            rows[method.label][half] = {
                m: method.figure(m, bounds.get(m), gaps.single) for m in metrics
            }
    for label, figures in rows.items():
        for half in HALVES:
            if half not in figures:
                gaps.rows["no runs"].append(f"{label} on {half} classes")
        cells = []
        for metric in metrics:
            pair = [figures.get(half, {}).get(metric) for half in HALVES]
            mean = Figure(harmonic_mean(*(f.value for f in pair))) if all(pair) else None
            cells += [*pair, mean]
        table.rows.append([label, *cells])
    table.notes = [explain_figures(gaps.backbones), *gaps.notes(), *problems]
    if intervals:
        table.notes.append(intervals.explain())
    return table


def harmonic_mean(a, b):
    return 2 * a * b / (a + b) if a + b else 0.0


def cost_tables(runs):
    """What each method costs, by backbone; means over seeds."""
    headers = [
        "method",
        "backbone",
        "train seconds",
        "pictures a second",
        "peak GPU memory, MB",
        "peak CPU memory, MB",
        "trainable parameters",
        "device",
    ]
    tables = []
    for task, task_runs in tasks_of(runs).items():
        timed = [run for run in task_runs if run.record.get("seconds")]
        table = Table(f"{task.title}, cost", headers, [], ["means over seeds"], text_columns=2)
        for method in methods_of(timed):
            for backbone, backbone_runs in method.by_backbone.items():
                # Seconds of two devices have no common mean.
                by_device = defaultdict(list)
                for run in backbone_runs:
                    by_device[run.record.get("device")].append(run.record)
                for device, records in by_device.items():
                    cells = [
                        _mean_of(records, "seconds", "train"),
                        _mean_of(records, "pictures_per_second"),
                        _megabytes(_mean_of(records, "peak_memory_bytes", "gpu")),
                        _megabytes(_mean_of(records, "peak_memory_bytes", "cpu")),
                        _whole(_mean_of(records, "trainable_parameters")),
                        device,
                    ]
                    table.rows.append([method.label, backbone, *cells])
        if table.rows:
            tables.append(table)
    return tables


def _mean_of(records, *keys):
    values = []
    for record in records:
        for key in keys:
            record = record.get(key) if isinstance(record, dict) else None
        if record is not None:
            values.append(record)
    return float(np.mean(values)) if values else None


def _megabytes(size):
    # A CPU run reports no GPU memory as nothing or as zero.
    return round(size / 2**20) if size else None


def _whole(value):
    return None if value is None else round(value)
