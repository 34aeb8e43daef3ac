"""Two methods on the same test pictures: is the difference more than noise?"""

from dataclasses import dataclass

import numpy as np

from core.errors import InputError
from results import statistics
from results.runs import Run
from results.tables import (
    BOTH,
    METRIC_NAMES,
    Figure,
    PValue,
    Table,
    backbone_order,
    methods_of,
    tasks_of,
)

# Settings that cannot change a result, or that hold what is compared.
SAME_ANYWAY = ("OUTPUT_DIR", "RESUME", "VERBOSE")


@dataclass(frozen=True)
class Pair:
    """Two methods' runs with one backbone and seed, their pictures in one order."""

    run_a: Run
    run_b: Run
    a: statistics.Predictions
    b: statistics.Predictions

    @property
    def name(self):
        return [self.run_a.backbone, self.run_a.seed]


def compare_tables(runs, name_a, name_b, times=statistics.RESAMPLES, seed=0):
    """Tables that compare method A with B on each task that has both.

    Args:
        name_a, name_b: a trainer, or trainer:KEY=VALUE,... for one with options (``Method.spec``).

    Raises:
        InputError: if no task has runs of both.
    """
    tables, known = [], set()
    for task, task_runs in tasks_of(runs).items():
        methods = {method.spec: method for method in methods_of(task_runs)}
        known |= set(methods)
        a, b = (_find(methods, name) for name in (name_a, name_b))
        if a and b:
            tables += _task_tables(task.title, a, b, times, seed)
    if not tables:
        listed = ", ".join(sorted(known)) or "no runs"
        raise InputError(f"no dataset has runs of both {name_a} and {name_b}; there are: {listed}")
    return tables


def _find(methods, name):
    wanted = _normal(name)
    return next((method for spec, method in methods.items() if _normal(spec) == wanted), None)


def _normal(spec):
    trainer, _, settings = spec.partition(":")
    return trainer.lower(), tuple(sorted(part.strip() for part in settings.split(",") if part))


def _task_tables(title, a, b, times, seed):
    notes = []
    pairs = _pairs(a, b, notes)
    heading = f"{title}: {a.label} against {b.label}"
    if not pairs:
        return [Table(heading, ["backbone", "seed"], [], [*notes, "no pair of runs to compare"])]
    notes += config_differences(pairs)
    tables = [_difference_table(heading, a, b, pairs, notes, times, seed)]
    tables.append(_mcnemar_table(heading, a, b, pairs))
    if len(pairs[0].a.classnames) == 2:
        tables.append(_auroc_table(heading, a, b, pairs))
    else:
        tables[0].notes.append("AUROC: DeLong's interval and test are for two classes")
    if subgroups := _subgroup_table(heading, a, b, pairs, times, seed):
        tables.append(subgroups)
    return tables


def _pairs(a, b, notes):
    """The pairs of runs that answered the same pictures; why others are left out into the notes."""
    runs_a, runs_b = (
        {(r.backbone, r.seed): r for runs in m.by_backbone.values() for r in runs} for m in (a, b)
    )
    for method, alone in ((a, runs_a.keys() - runs_b), (b, runs_b.keys() - runs_a)):
        if alone:
            listed = ", ".join(f"{backbone} seed {seed}" for backbone, seed in sorted(alone))
            notes.append(f"only {method.label} has {listed}: left out")
    pairs = []
    for key in sorted(runs_a.keys() & runs_b, key=lambda key: (backbone_order(key[0]), key[1])):
        run_a, run_b = runs_a[key], runs_b[key]
        try:
            aligned = statistics.align([run_a.predictions(), run_b.predictions()])
        except (InputError, ValueError) as error:
            notes.append(f"{key[0]} seed {key[1]}: left out ({error})")
            continue
        pairs.append(Pair(run_a, run_b, *aligned))
    return pairs


def config_differences(pairs):
    """What else than the method differs between the runs of a pair: one note a setting."""
    found, unchecked = {}, []
    for pair in pairs:
        where = f"{pair.run_a.backbone} seed {pair.run_a.seed}"
        if pair.run_a.config is None or pair.run_b.config is None:
            unchecked.append(where)
            continue
        a, b = _settings(pair.run_a), _settings(pair.run_b)
        for key in sorted(a.keys() | b.keys()):
            if a.get(key) != b.get(key):
                found.setdefault((key, str(a.get(key)), str(b.get(key))), []).append(where)
    notes = [
        f"besides the method, {key} differs: {x} against {y} ({_listed(where, pairs)})"
        for (key, x, y), where in found.items()
    ]
    if unchecked:
        notes.append(f"no config.yaml to compare settings by: {_listed(unchecked, pairs)}")
    if not notes:
        notes.append("settings: alike but for the method")
    return notes


def _listed(where, pairs):
    return "all pairs" if len(where) == len(pairs) else ", ".join(where)


def _settings(run):
    """Everything that both runs of a fair pair share: settings, precision, machine, split."""
    own = f"TRAINER.{run.trainer.upper()}."
    settings = {
        key: value
        for key, value in run.config.items()
        if not key.startswith("TRAINER.") and key not in SAME_ANYWAY
    }
    settings["PREC"] = run.config.get(f"{own}PREC")
    versions = run.record.get("versions") or {}
    settings |= {f"version of {name}": value for name, value in versions.items()}
    for key in ("device", "precision", "split_fingerprint"):
        settings[key.replace("_", " ")] = run.record.get(key)
    return settings


def _by_backbone(pairs):
    groups = {}
    for pair in pairs:
        groups.setdefault(pair.run_a.backbone, []).append(pair)
    return groups


def _difference_table(heading, a, b, pairs, notes, times, seed):
    groups = _by_backbone(pairs)
    names = [a.label, b.label, "difference, points"]
    table = Table(
        f"{heading}, differences",
        ["runs of", "seeds", "pictures"]
        + [f"{METRIC_NAMES[metric]} {name}" for metric in BOTH for name in names]
        + ["beyond noise"],
        [],
        notes,
    )
    parts = dict(groups) if len(groups) == 1 else {**groups, "all backbones": pairs}
    for name, chosen in parts.items():
        try:
            sides = _sides(chosen)
        except ValueError as error:
            table.notes.append(f"{name}: no interval ({error})")
            continue
        cells, beyond, n = [], [], len(chosen[0].a)
        for metric, bounds in statistics.bootstrap_difference(*sides, BOTH, times, seed).items():
            gap = Figure(bounds[0], None, *bounds[1:], signed=True)
            cells += [Figure(statistics.group_mean(side, metric)) for side in sides] + [gap]
            if not statistics.within_noise(gap.low, gap.high):
                beyond.append(METRIC_NAMES[metric])
            if name == list(parts)[-1]:
                table.notes.append(_verdict(name, metric, gap, a, b, n))
        seeds = " ".join(str(s) for s in sorted({pair.run_a.seed for pair in chosen}))
        table.rows.append([name, seeds, n, *cells, ", ".join(beyond) or "none"])
    table.notes.append(
        f"[low, high]: 95 % paired bootstrap, {times} resamples of the test pictures, each picture "
        "drawn for all runs of both methods together; beyond noise: the interval leaves out 0"
    )
    return table


def _sides(pairs):
    """(groups of A, groups of B), all in one order of pictures."""
    flat = statistics.align([run for pair in pairs for run in (pair.a, pair.b)])
    groups_a, groups_b = {}, {}
    for pair, run_a, run_b in zip(pairs, flat[::2], flat[1::2], strict=True):
        groups_a.setdefault(pair.run_a.backbone, []).append(run_a)
        groups_b.setdefault(pair.run_a.backbone, []).append(run_b)
    return list(groups_a.values()), list(groups_b.values())


def _verdict(name, metric, figure, a, b, n):
    if statistics.within_noise(figure.low, figure.high):
        meaning = f"lies within the noise of {n} test pictures"
    else:
        better = a if figure.value > 0 else b
        meaning = f"is beyond the noise of {n} test pictures, for {better.label}"
    return f"{name}: the difference in {METRIC_NAMES[metric]}, {figure} points, {meaning}"


def _mcnemar_table(heading, a, b, pairs):
    tests = [statistics.mcnemar(pair.a.right, pair.b.right) for pair in pairs]
    corrected = statistics.holm([p for _, _, p in tests])
    headers = [
        "backbone",
        "seed",
        f"only {a.label} right",
        f"only {b.label} right",
        "p",
        "Holm's p",
    ]
    rows = [
        [*pair.name, only_a, only_b, PValue(p), PValue(q)]
        for pair, (only_a, only_b, p), q in zip(pairs, tests, corrected, strict=True)
    ]
    significant = int((corrected < 0.05).sum())
    notes = [
        "exact test for each pair of runs; pairs are not pooled, for they share their pictures",
        f"after Holm's correction over these {len(pairs)} tests, {significant} of {len(pairs)} "
        "differ at the 5 % level",
    ]
    return Table(f"{heading}, McNemar's exact test", headers, rows, notes)


def _auroc_table(heading, a, b, pairs):
    positive_class = pairs[0].a.classnames[1]
    headers = ["backbone", "seed", a.label, b.label, "difference, points", "p", "Holm's p"]
    rows, notes = [], [f"[low, high]: DeLong's 95 % interval; positive: {positive_class}"]
    for pair in pairs:
        positive = pair.a.labels == 1
        if positive.all() or not positive.any():
            notes.append(f"{pair.name[0]} seed {pair.name[1]}: only one class has test pictures")
            continue
        scores = [pair.a.probabilities[:, 1], pair.b.probabilities[:, 1]]
        areas = [Figure(*_area(positive, score)) for score in scores]
        difference, p = statistics.delong_test(positive, *scores)
        rows.append([*pair.name, *areas, Figure(difference, signed=True), p])
    corrected = statistics.holm([row[-1] for row in rows])
    for row, q in zip(rows, corrected, strict=True):
        row[-1:] = [PValue(row[-1]), PValue(q)]
    return Table(f"{heading}, AUROC by DeLong's paired test", headers, rows, notes)


def _area(positive, scores):
    area, low, high = statistics.delong_interval(positive, scores)
    return (area, None, low, high)


def _subgroup_table(heading, a, b, pairs, times, seed):
    """Accuracy by subtype, where predictions.csv names any and the pairs share their pictures."""
    subtypes = sorted(set(pairs[0].a.subtypes) - {""})
    if not subtypes:
        return None
    headers = ["subgroup", "pictures", a.label, b.label, "difference in ACC, points"]
    table = Table(f"{heading}, subgroups", headers, [])
    try:
        sides = _sides(pairs)
    except ValueError as error:
        table.notes.append(f"none: {error}")
        return table
    pictures_of = sides[0][0][0].subtypes
    for subtype in subtypes:
        index = np.flatnonzero(pictures_of == subtype)
        part = [[[run.take(index) for run in group] for group in side] for side in sides]
        difference, low, high = statistics.bootstrap_difference(*part, ("accuracy",), times, seed)[
            "accuracy"
        ]
        means = [Figure(statistics.group_mean(side, "accuracy")) for side in part]
        gap = Figure(difference, None, low, high, signed=True)
        table.rows.append([subtype, len(index), *means, gap])
    table.notes.append(
        "accuracy, mean over the compared runs; intervals as above, not corrected for their number"
    )
    return table
