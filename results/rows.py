"""Runs grouped into the rows of tables, tables' tasks, and what rows lack.

A row is a method: a trainer with its non-default options. Its estimate is the paper's: the mean
over backbones of the mean over seeds, with the deviation (ddof 0, as CoOp's parser) over backbones.
What is missing is written under the table; it is never averaged over in silence.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from results import paper
from results.predictions import Predictions
from results.rendering import Estimate
from results.runs import TUNED, Run

Bounds = tuple[float, float]  # of an interval


def wanted_seeds() -> tuple[int, ...]:
    """The seeds that no row should lack: those of the environment's SEEDS, else the protocol's."""
    words = os.environ.get("SEEDS", "").split()
    return tuple(int(word) for word in words if word.isdecimal()) or paper.SEEDS


class Method:
    """The runs that make one row: one trainer, one set of options, all backbones and seeds."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs = sorted(runs, key=lambda run: (backbone_order(run.backbone), run.seed))
        first = self.runs[0]
        self.trainer, self.options = first.trainer, first.options
        self.seeded, self.learns, self.place = first.seeded, first.learns, first.place
        self.own_model = first.own_model
        self.fitted_at_once = bool(first.record.fitted_at_once)
        self.symptom_fingerprint = first.record.symptom_fingerprint
        self.foreign = first.record.variant if first.is_log else None
        self.tell_symptoms = False  # set where two rows differ in nothing else

    @property
    def is_default(self) -> bool:
        return not self.options and self.foreign is None

    @cached_property
    def by_backbone(self) -> dict[str, list[Run]]:
        """Backbone -> runs that have metrics."""
        groups = defaultdict(list)
        for run in self.runs:
            if run.metrics is not None:
                groups[run.backbone].append(run)
        return dict(groups)

    def backbones_of(self, backbones: Sequence[str]) -> list[str]:
        """Those of a table that concern this row; of a method with a model of its own, that."""
        return list(self.by_backbone) if self.own_model else list(backbones)

    @property
    def not_applying(self) -> dict[str, str]:
        """Backbone -> why the method is not defined for it."""
        return {
            run.backbone: run.record.does_not_apply or ""
            for run in self.runs
            if run.metrics is None
        }

    @property
    def settings(self) -> list[str]:
        """KEY=VALUE of each option, the trainer's own without their prefix."""
        texts = option_texts(self.trainer, self.options)
        if self.tell_symptoms and self.symptom_fingerprint:
            texts.append(f"symptoms={self.symptom_fingerprint}")
        if self.foreign is not None:
            texts.append(f"log={self.foreign}")
        return texts

    @property
    def label(self) -> str:
        return label_of(self.trainer, self.settings)

    @property
    def spec(self) -> str:
        """How ``--compare`` names this row."""
        return ":".join([self.trainer, ",".join(self.settings)]) if self.settings else self.trainer

    @property
    def order(self) -> tuple[int, str, bool, str]:
        return (self.place, self.trainer, not self.is_default, self.label)

    def values(self, metric: str) -> dict[str, list[float]]:
        """Backbone -> the metric of each seed; backbones without it are left out."""
        found: dict[str, list[float]] = {}
        for backbone, runs in self.by_backbone.items():
            values = [run.metrics.get(metric) if run.metrics else None for run in runs]
            known = [value for value in values if value is not None]
            if len(known) == len(values):
                found[backbone] = known
        return found

    def estimate(
        self, metric: str, bounds: Bounds | None = None, over_seeds: bool = False
    ) -> Estimate | None:
        """Mean over backbones of the mean over seeds, and the deviation over backbones, or None.

        The deviation over a single backbone says nothing; ``over_seeds`` gives the one over its
        seeds instead.
        """
        return estimate_of(self.values(metric), bounds, over_seeds)

    def mean(self, metric: str) -> float:
        """The value of ``estimate``; minus infinity where there is none."""
        found = self.estimate(metric)
        return found.value if found else -np.inf

    def missing(self, backbones: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """What of backbones x seeds has no run, one text a backbone."""
        texts = []
        for backbone in self.backbones_of(backbones):
            if backbone in self.not_applying:
                continue
            have = {run.seed for run in self.by_backbone.get(backbone, [])}
            lacking = [str(seed) for seed in seeds if seed not in have] if self.seeded else []
            if not have:
                texts.append(f"all of {backbone}")
            elif lacking:
                texts.append(f"{backbone} seed{'s' * (len(lacking) > 1)} {' '.join(lacking)}")
        return texts

    def prediction_groups(self) -> dict[str, list[Predictions]]:
        """Runs' predictions by backbone, for the bootstrap.

        Raises:
            InputError: one of them cannot be read.
        """
        return {b: [run.predictions() for run in runs] for b, runs in self.by_backbone.items()}


def estimate_of(
    values: Mapping[str, Sequence[float]], bounds: Bounds | None = None, over_seeds: bool = False
) -> Estimate | None:
    """``Method.estimate`` of backbone -> the value of each seed."""
    if not values:
        return None
    means = [float(np.mean(seeds)) for seeds in values.values()]
    spread = next(iter(values.values())) if over_seeds and len(means) == 1 else means
    deviation = float(np.std(spread)) if len(spread) > 1 else None
    return Estimate(float(np.mean(means)), deviation, *(bounds or (None, None)))


def label_of(trainer: str, settings: Sequence[str]) -> str:
    """The name of a row."""
    return f"{trainer} ({', '.join(settings)})" if settings else trainer


def option_texts(trainer: str, options: Mapping[str, str]) -> list[str]:
    """What a row's name says of its options; those that were tuned come last."""
    prefix = f"TRAINER.{trainer.upper()}."
    tuned = options.get(TUNED, "")
    texts = []
    for key, value in sorted(options.items()):
        text = f"{key.removeprefix(prefix)}={value}"
        if is_symptom_key(key):
            texts.append(f"symptoms={Path(str(value)).stem}")
        elif key != TUNED and text not in tuned.split(","):
            texts.append(text)
    return [*texts, f"tuned on validation: {tuned.replace(',', ', ')}"] if tuned else texts


def is_symptom_key(key: str) -> bool:
    return key.split(".")[-1] == "SYMPTOMS"


def methods_of(runs: Iterable[Run]) -> list[Method]:
    """Runs grouped into rows, in the order of their places; options tell the rows apart."""
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
    def title(self) -> str:
        title = self.dataset
        if self.trained_on:
            title += f", trained on {self.trained_on}"
        if self.shots > 0:
            title += f", {self.shots} shot{'s' * (self.shots > 1)} a class"
        if self.subsample_classes != "all":
            title += f", {self.subsample_classes} classes"
        return title


def tasks_of(runs: Iterable[Run]) -> dict[Task, list[Run]]:
    """Task -> its runs, sorted; external tests are tasks of their own."""
    tasks = defaultdict(list)
    for run in runs:
        task = Task(run.dataset, run.shots, run.record.subsample_classes, run.trained_on or "")
        tasks[task].append(run)
    return dict(sorted(tasks.items()))


def backbone_order(backbone: str) -> tuple[int, str]:
    """Sorts the paper's backbones first, in its order."""
    known = backbone in paper.BACKBONES
    return (paper.BACKBONES.index(backbone) if known else len(paper.BACKBONES), backbone)


def expected_backbones(runs: Iterable[Run]) -> list[str]:
    """The backbones that every row of a table should have: those that any of them has.

    A method with a model of its own has none of them, and the others lack nothing without it.
    """
    return sorted({run.backbone for run in runs if not run.own_model}, key=backbone_order)


def expected_seeds(runs: Iterable[Run], seeds: Iterable[int]) -> list[int]:
    """The wanted seeds and whatever else was run."""
    return sorted({*seeds, *(run.seed for run in runs if run.seeded)})


class Gaps:
    """What rows lack, said once for all rows that lack the same."""

    def __init__(self, backbones: Sequence[str], seeds: Sequence[int]) -> None:
        self.backbones, self.seeds = backbones, seeds
        self.rows: dict[str, list[str]] = defaultdict(list)
        self.single = len(backbones) == 1

    def count(self, method: Method, name: str | None = None) -> str:
        """Note what a row lacks; returns the "9 of 9" of its last column."""
        if missing := method.missing(self.backbones, self.seeds):
            self.rows[f"missing {', '.join(missing)}"].append(name or method.label)
        for backbone, reason in method.not_applying.items():
            self.rows[f"does not apply to {backbone} ({reason})"].append(name or method.label)
        backbones = method.backbones_of(self.backbones)
        applies = [b for b in backbones if b not in method.not_applying]
        if not method.seeded:
            return f"{len(method.by_backbone)} of {len(applies)}"
        have = sum(len(runs) for runs in method.by_backbone.values())
        return f"{have} of {len(applies) * len(self.seeds)}"

    def notes(self) -> list[str]:
        """One line for each gap, and what the paper averages over that no run here has."""
        lines = [f"{', '.join(names)}: {gap}" for gap, names in self.rows.items()]
        absent = [b for b in paper.BACKBONES if b not in self.backbones]
        if absent and len(absent) < len(paper.BACKBONES):
            lines.append(f"no runs of {', '.join(absent)}, which the paper's mean includes")
        return lines


def precision_notes(runs: Sequence[Run]) -> list[str]:
    """Notes on runs that should not share a table, and on metrics of less precision."""
    notes = []
    for key, words in (("split_fingerprint", "splits"), ("precision", "precisions")):
        values: dict[str, set[tuple[Any, str]]] = defaultdict(set)
        for run in runs:
            if value := getattr(run.record, key):
                # A few-shot choice is drawn anew with each seed.
                seed = f" of seed {run.seed}" if run.shots > 0 and key != "precision" else ""
                values[seed].add((value, run.trainer))
        for seed, pairs in values.items():
            if len({value for value, _ in pairs}) > 1:
                listed = ", ".join(f"{trainer} {value}" for value, trainer in sorted(pairs))
                notes.append(f"made with different {words}{seed}: {listed}")
    logs = sorted({run.trainer for run in runs if run.is_log})
    if logs:
        notes.append(f"read from logs, with the digits that they print: {', '.join(logs)}")
    return notes + _own_model_notes(runs)


def _own_model_notes(runs: Sequence[Run]) -> list[str]:
    """What sets the rows apart that ask a model of their own, and what it did not answer."""
    own = [run for run in runs if run.own_model]
    tested = {sum(r.record.class_counts.get(r.record.split, {}).values()) for r in runs} - {0}
    notes, labels = [], []
    for method in methods_of(own):
        labels.append(method.label)
        for run in method.runs:
            counts = run.record.class_counts.get(run.record.split, {})
            images = sum(counts.values())
            if images and images < max(tested):
                notes.append(
                    f"{method.label}: tested on {images} of {max(tested)} images, so it cannot be "
                    "compared with the other rows"
                )
            if run.record.unanswered:
                notes.append(
                    f"{method.label}: no answer for {run.record.unanswered} of {images} images; "
                    "their probabilities are even, which counts as a prediction of "
                    f"{run.record.classnames[0]}"
                )
    if labels:
        notes.insert(
            0,
            f"{', '.join(labels)}: asks a model at an endpoint; it has no backbone and no training",
        )
    return notes
