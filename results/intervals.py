"""Bootstrap intervals of rows, and rows' predictions in one order of images."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from core.errors import InputError
from results import statistics
from results.predictions import Predictions, align
from results.rows import Bounds, Method

Group = TypeVar("Group", bound=Hashable)


class Intervals:
    """95 % bootstrap intervals of rows; why a row has none goes into its table's notes."""

    def __init__(
        self, metrics: Sequence[str], times: int = statistics.RESAMPLES, seed: int = 0
    ) -> None:
        self.metrics, self.times, self.seed = tuple(metrics), times, seed

    def groups(self, method: Method, notes: list[str]) -> dict[str, list[Predictions]] | None:
        """Aligned predictions by backbone, or None (and a note) where they cannot be had.

        Another note says where patients are drawn in place of images.
        """
        try:
            groups = aligned_groups(method.prediction_groups())
        except (InputError, ValueError) as error:
            notes.append(f"{method.label}: no interval ({error})")
            return None
        said = patients_note(list(groups.values()))
        notes += [note for note in said if note not in notes]
        return groups

    def bounds(self, method: Method, notes: list[str]) -> dict[str, Bounds]:
        """Metric -> (low, high) of a row's estimate; empty where there are none."""
        groups = self.groups(method, notes) if method.by_backbone else None
        return self.of(groups) if groups else {}

    def of(self, groups: Mapping[str, list[Predictions]]) -> dict[str, Bounds]:
        """Metric -> (low, high) of a row's estimate."""
        samples = self.samples(groups)
        return {name: statistics.interval(value) for name, value in samples.items()}

    def samples(self, groups: Mapping[str, list[Predictions]]) -> dict[str, np.ndarray]:
        return statistics.bootstrap_means(
            list(groups.values()), self.metrics, self.times, self.seed
        )

    def explain(self) -> str:
        return (
            f"[low, high]: 95 % interval, {self.times} bootstrap resamples of the test images, "
            "each image drawn for all of a row's runs together"
        )


def aligned_groups(groups: Mapping[Group, Sequence[Predictions]]) -> dict[Group, list[Predictions]]:
    """The same runs by group, all in one order of images.

    Raises:
        ValueError: they are not on the same test images.
    """
    flat = [(group, run) for group, runs in groups.items() for run in runs]
    if not flat:
        raise ValueError("no predictions")
    aligned = defaultdict(list)
    runs = align([run for _, run in flat])
    for (group, _), run in zip(flat, runs, strict=True):
        aligned[group].append(run)
    return dict(aligned)


def same_images(
    groups_a: Mapping[str, Sequence[Predictions]], groups_b: Mapping[str, Sequence[Predictions]]
) -> bool:
    """Whether two rows' aligned predictions are on the same test images, of the same patients."""
    a, b = (statistics.clusters_of(list(groups.values())) for groups in (groups_a, groups_b))
    alike = np.array_equal(first_of(groups_a).images, first_of(groups_b).images)
    if a is None or b is None:
        return alike and a is b
    return alike and np.array_equal(a, b)


def first_of(groups: Mapping[str, Sequence[Predictions]]) -> Predictions:
    return next(iter(groups.values()))[0]


def patients_note(groups: Sequence[Sequence[statistics.WithPatients]]) -> list[str]:
    """How a bootstrap draws patients, for a table's notes; nothing where it draws images."""
    clusters = statistics.clusters_of(groups)
    if clusters is None:
        return []
    return [
        f"several images are of one patient: the intervals draw the {clusters.max() + 1} patients "
        f"in place of the {len(clusters)} images, each with all of its images"
    ]


def independence_note(run: Predictions) -> list[str]:
    """That a test counts images of one patient as independent; nothing where there are none."""
    if statistics.clusters_of([[run]]) is None:
        return []
    return ["it counts several images of one patient as independent, so it is too sure"]
