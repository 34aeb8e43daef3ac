"""Runs of two methods, paired by backbone and seed."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import InputError
from results.predictions import Predictions, align
from results.rows import Method, backbone_order
from results.runs import Run


@dataclass(frozen=True)
class Pair:
    """Runs of two methods with one backbone and seed, their images in one order."""

    run_a: Run
    run_b: Run
    seed: int
    a: Predictions
    b: Predictions

    @property
    def backbone(self) -> str:
        """The one that both runs are of; a method with a model of its own goes with any."""
        return self.run_b.backbone if self.run_a.own_model else self.run_a.backbone

    @property
    def name(self) -> list:
        return [self.backbone, self.seed]


def matched_runs(a: Method, b: Method, notes: list[str]) -> list[tuple[int, Run, Run]]:
    """(seed, run of A, run of B) for each backbone and seed that both have.

    The run of a method whose seeds do not matter is the partner of every seed, and that of a method
    with a model of its own the partner on every backbone. What has no partner goes into the notes.
    """
    named = {name for method in (a, b) if not method.own_model for name in method.by_backbone}
    backbones = sorted(named or [*b.by_backbone][:1], key=backbone_order)
    alone: dict[str, list[str]] = {}
    matched = []
    for backbone in backbones:
        runs_a, runs_b = _by_seed(a, b, backbone), _by_seed(b, a, backbone)
        for method, own, other in ((a, runs_a, runs_b), (b, runs_b, runs_a)):
            for seed in sorted(own.keys() - other.keys()):
                alone.setdefault(method.label, []).append(f"{backbone} seed {seed}")
        shared = sorted(runs_a.keys() & runs_b.keys())
        matched += [(seed, runs_a[seed], runs_b[seed]) for seed in shared]
    for label, names in alone.items():
        notes.append(f"only {label} has {', '.join(names)}: left out")
    return matched


def _by_seed(method: Method, other: Method, backbone: str) -> dict[int, Run]:
    """Seed -> run on a backbone; a run that stands for every seed has all of the other's."""
    runs, partners = _runs_on(method, backbone), _runs_on(other, backbone)
    if method.seeded or not runs or not partners:
        return {run.seed: run for run in runs}
    if other.seeded:
        return {partner.seed: runs[0] for partner in partners}
    return {min(run.seed for run in [*runs, *partners]): runs[0]}


def _runs_on(method: Method, backbone: str) -> list[Run]:
    if method.own_model:
        return [run for runs in method.by_backbone.values() for run in runs]
    return method.by_backbone.get(backbone, [])


def pairs_of(a: Method, b: Method, notes: list[str]) -> list[Pair]:
    """The pairs of runs on the same test images; why others are left out goes into the notes."""
    pairs = []
    for seed, run_a, run_b in matched_runs(a, b, notes):
        try:
            aligned = align([run_a.predictions(), run_b.predictions()])
        except (InputError, ValueError) as error:
            name = run_b.backbone if run_a.own_model else run_a.backbone
            notes.append(f"{name} seed {seed}: left out ({error})")
            continue
        pairs.append(Pair(run_a, run_b, seed, *aligned))
    return pairs


def sides(pairs: Sequence[Pair]) -> tuple[list[list[Predictions]], list[list[Predictions]]]:
    """(groups of A, groups of B) by backbone, all in one order of images.

    Raises:
        ValueError: the pairs are not on the same test images.
    """
    flat = align([run for pair in pairs for run in (pair.a, pair.b)])
    groups_a: dict[str, list[Predictions]] = {}
    groups_b: dict[str, list[Predictions]] = {}
    for pair, run_a, run_b in zip(pairs, flat[::2], flat[1::2], strict=True):
        groups_a.setdefault(pair.backbone, []).append(run_a)
        groups_b.setdefault(pair.backbone, []).append(run_b)
    return list(groups_a.values()), list(groups_b.values())
