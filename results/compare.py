"""Two methods on the same test images: is the difference larger than the noise?"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from core.errors import InputError
from results import statistics
from results.intervals import independence_note, patients_note
from results.metrics import METRICS, default_metrics, heading, positive_label
from results.pairs import Pair, pairs_of, sides
from results.rendering import Estimate, PValue, Table
from results.rows import Method, methods_of, tasks_of
from results.runs import TRAINING_OPTIONS, Run

# Settings that cannot change a result, or that hold what is compared.
SAME_ANYWAY = ("OUTPUT_DIR", "RESUME", "VERBOSE")
# What a method with a model of its own has otherwise, whatever it is compared with.
OF_BACKBONES = {"RUN.BACKBONE", "RUN.SYMPTOMS", "SEED", "device", "precision"}


def compare_tables(
    runs: Sequence[Run],
    name_a: str,
    name_b: str,
    times: int = statistics.RESAMPLES,
    seed: int = 0,
) -> list[Table]:
    """Tables that compare method A with B on each task that has both.

    Args:
        name_a, name_b: a trainer, or trainer:KEY=VALUE,... for one with options (``Method.spec``).

    Raises:
        InputError: no task has runs of both.
    """
    tables: list[Table] = []
    known: set[str] = set()
    everywhere = [method for method in methods_of(runs) if not method.learns]
    for task, task_runs in tasks_of(runs).items():
        # What learns nothing is the same for every number of shots.
        whole = task._replace(shots=-1)
        untrained = [m for m in everywhere if task.shots > 0 and whole in tasks_of(m.runs)]
        methods = {method.spec: method for method in [*untrained, *methods_of(task_runs)]}
        known |= set(methods)
        a, b = (_find(methods, name) for name in (name_a, name_b))
        if a and b:
            tables += _task_tables(task.title, a, b, times, seed)
    if not tables:
        listed = ", ".join(sorted(known)) or "no runs"
        raise InputError(f"no dataset has runs of both {name_a} and {name_b}; there are: {listed}")
    return tables


def _find(methods: dict[str, Method], name: str) -> Method | None:
    wanted = _normal(name)
    return next((method for spec, method in methods.items() if _normal(spec) == wanted), None)


def _normal(spec: str) -> tuple[str, tuple[str, ...]]:
    trainer, _, settings = spec.partition(":")
    return trainer.lower(), tuple(sorted(part.strip() for part in settings.split(",") if part))


def _task_tables(title: str, a: Method, b: Method, times: int, seed: int) -> list[Table]:
    notes: list[str] = []
    pairs = pairs_of(a, b, notes)
    heading = f"{title}: {a.label} against {b.label}"
    if not pairs:
        return [Table(heading, ["backbone", "seed"], [], [*notes, "no pair of runs to compare"])]
    notes += config_differences(pairs)
    tables = [_difference_table(heading, a, b, pairs, notes, times, seed)]
    tables.append(_mcnemar_table(heading, a, b, pairs))
    if len(pairs[0].a.classnames) == 2 or pairs[0].a.positive:
        tables.append(_auroc_table(heading, a, b, pairs))
    else:
        tables[0].notes.append(
            "AUROC: DeLong's interval and test need a positive class; name it by DATASET.POSITIVE"
        )
    if subgroups := _subgroup_table(heading, a, b, pairs, times, seed):
        tables.append(subgroups)
    return tables


def config_differences(pairs: Sequence[Pair]) -> list[str]:
    """What else than the method differs between the runs of a pair: one note a setting."""
    found: dict[tuple[str, str, str], list[str]] = {}
    unchecked = []
    for pair in pairs:
        where = f"{pair.backbone} seed {pair.seed}"
        if pair.run_a.config is None or pair.run_b.config is None:
            unchecked.append(where)
            continue
        a, b = _settings(pair.run_a), _settings(pair.run_b)
        unread: tuple[str, ...] = (
            () if pair.run_a.learns and pair.run_b.learns else TRAINING_OPTIONS
        )
        unread += () if pair.run_a.seeded and pair.run_b.seeded else ("SEED",)
        own = pair.run_a.own_model or pair.run_b.own_model
        # A model of its own has settings of its own; what both have must still be the same.
        for key in sorted(a.keys() & b.keys() - OF_BACKBONES if own else a.keys() | b.keys()):
            if own and None in (a[key], b[key]):
                continue
            if a.get(key) != b.get(key) and not key.startswith(unread):
                found.setdefault((key, str(a.get(key)), str(b.get(key))), []).append(where)
    notes = [
        f"besides the method, {key} differs: {x} against {y} ({_listed(where, pairs)})"
        for (key, x, y), where in found.items()
    ]
    if unchecked:
        notes.append(
            f"settings not compared, because there is no config.yaml: {_listed(unchecked, pairs)}"
        )
    if not notes:
        notes.append("settings: identical except for the method")
    return notes


def _listed(where: Sequence[str], pairs: Sequence[Pair]) -> str:
    return "all pairs" if len(where) == len(pairs) else ", ".join(where)


def _settings(run: Run) -> dict[str, Any]:
    """Everything that both runs of a fair pair share: settings, precision, machine, split."""
    config = run.config or {}
    settings = {
        key: value
        for key, value in config.items()
        if not key.startswith("TRAINER.") and key not in SAME_ANYWAY
    }
    settings["PREC"] = config.get(f"TRAINER.{run.trainer.upper()}.PREC")
    settings |= {f"version of {name}": value for name, value in run.record.versions.items()}
    for key in ("device", "precision", "split_fingerprint"):
        settings[key.replace("_", " ")] = getattr(run.record, key)
    return settings


def _by_backbone(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.backbone, []).append(pair)
    return groups


def _difference_table(
    title: str, a: Method, b: Method, pairs: list[Pair], notes: list[str], times: int, seed: int
) -> Table:
    groups, metrics = _by_backbone(pairs), default_metrics()
    names = [a.label, b.label, "difference, points"]
    table = Table(
        f"{title}, differences",
        ["runs of", "seeds", "images"]
        + [f"{heading(metric)} {name}" for metric in metrics for name in names]
        + ["beyond noise"],
        [],
        notes,
    )
    parts = dict(groups) if len(groups) == 1 else {**groups, "all backbones": pairs}
    for name, chosen in parts.items():
        try:
            both = sides(chosen)
        except ValueError as error:
            table.notes.append(f"{name}: no interval ({error})")
            continue
        cells: list[Any] = []
        beyond = []
        n = len(chosen[0].a)
        for metric, (gap, low, high) in statistics.bootstrap_difference(
            *both, metrics, times, seed
        ).items():
            estimate = Estimate(gap, None, low, high, signed=True)
            cells += [Estimate(statistics.group_mean(side, metric)) for side in both] + [estimate]
            if not statistics.within_noise(low, high):
                beyond.append(heading(metric))
            if name == list(parts)[-1]:
                table.notes.append(_verdict(name, metric, estimate, (low, high), (a, b), n))
        seeds = " ".join(str(s) for s in sorted({pair.seed for pair in chosen}))
        table.rows.append([name, seeds, n, *cells, ", ".join(beyond) or "none"])
    table.notes.append(
        f"[low, high]: 95 % paired bootstrap, {times} resamples of the test images, each image "
        "drawn for all runs of both methods together; beyond noise: the interval does not contain 0"
    )
    table.notes += patients_note([[pair.a, pair.b] for pair in pairs])
    return table


def _verdict(
    name: str,
    metric: str,
    gap: Estimate,
    bounds: tuple[float, float],
    methods: tuple[Method, Method],
    n: int,
) -> str:
    if statistics.within_noise(*bounds):
        meaning = f"is within the noise of {n} test images"
    else:
        better = methods[0] if gap.value > 0 else methods[1]
        meaning = f"is beyond the noise of {n} test images, for {better.label}"
    title = METRICS[metric].title
    return f"{name}: the difference in {title} ({heading(metric)}), {gap} points, {meaning}"


def _mcnemar_table(title: str, a: Method, b: Method, pairs: list[Pair]) -> Table:
    tests = [statistics.mcnemar(pair.a.correct, pair.b.correct) for pair in pairs]
    corrected = statistics.holm([p for _, _, p in tests])
    only = [f"only {method.label} correct" for method in (a, b)]
    rows = [
        [*pair.name, only_a, only_b, PValue(p), PValue(q)]
        for pair, (only_a, only_b, p), q in zip(pairs, tests, corrected, strict=True)
    ]
    significant = int((corrected < 0.05).sum())
    notes = [
        "exact test for each pair of runs; pairs are not pooled, because they share their images",
        f"after Holm's correction over these {len(pairs)} tests, {significant} of {len(pairs)} "
        "differ at the 5 % level",
        *independence_note(pairs[0].a),
    ]
    headers = ["backbone", "seed", *only, "p", "Holm's p"]
    return Table(f"{title}, McNemar's exact test", headers, rows, notes)


def _auroc_table(title: str, a: Method, b: Method, pairs: list[Pair]) -> Table:
    label = positive_label(pairs[0].a)
    notes = [f"[low, high]: DeLong's 95 % interval; {positive_note(pairs[0].a.positive)}"]
    notes += independence_note(pairs[0].a)
    headers = ["backbone", "seed", a.label, b.label, "difference, points", "p", "Holm's p"]
    rows = []
    for pair in pairs:
        positive = pair.a.labels == label
        if positive.all() or not positive.any():
            notes.append(f"{pair.name[0]} seed {pair.seed}: only one class has test images")
            continue
        scores = [run.probabilities[:, label] for run in (pair.a, pair.b)]
        areas = [_area(positive, score) for score in scores]
        difference, p = statistics.delong_test(positive, scores[0], scores[1])
        rows.append([*pair.name, *areas, Estimate(difference, signed=True), p])
    corrected = statistics.holm([row[-1] for row in rows])
    for row, q in zip(rows, corrected, strict=True):
        row[-1:] = [PValue(row[-1]), PValue(q)]
    return Table(f"{title}, AUROC by DeLong's paired test", headers, rows, notes)


def positive_note(positive: str | None) -> str:
    """Which class is the positive one, for a table or plot."""
    if positive:
        return f"positive class: {positive}"
    return "no positive class is named (DATASET.POSITIVE); both classes have the same area"


def _area(positive: np.ndarray, scores: np.ndarray) -> Estimate:
    area, low, high = statistics.delong_interval(positive, scores)
    return Estimate(area, None, low, high)


def _subgroup_table(
    title: str, a: Method, b: Method, pairs: list[Pair], times: int, seed: int
) -> Table | None:
    """Accuracy by subtype, where predictions.csv names any and the pairs share their images."""
    subtypes = sorted(set(pairs[0].a.subtypes) - {""})
    if not subtypes:
        return None
    headers = ["subgroup", "images", a.label, b.label, "difference in ACC, points"]
    table = Table(f"{title}, subgroups", headers, [])
    try:
        both = sides(pairs)
    except ValueError as error:
        table.notes.append(f"none: {error}")
        return table
    subtype_of = both[0][0][0].subtypes
    for subtype in subtypes:
        index = np.flatnonzero(subtype_of == subtype)
        part = [[[run.take(index) for run in group] for group in side] for side in both]
        difference, low, high = statistics.bootstrap_difference(
            part[0], part[1], ("accuracy",), times, seed
        )["accuracy"]
        means = [Estimate(statistics.group_mean(side, "accuracy")) for side in part]
        gap = Estimate(difference, None, low, high, signed=True)
        table.rows.append([subtype, len(index), *means, gap])
    table.notes.append(
        "accuracy, mean over the compared runs; intervals as above, not corrected for their number"
    )
    return table
