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
        """Aligned predictions by backbone, or None (and a note) where they cannot be had."""
        try:
            return aligned_groups(method.prediction_groups())
        except (InputError, ValueError) as error:
            notes.append(f"{method.label}: no interval ({error})")
            return None

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
    """Whether two rows' aligned predictions are on the same test images."""
    return np.array_equal(first_of(groups_a).images, first_of(groups_b).images)


def first_of(groups: Mapping[str, Sequence[Predictions]]) -> Predictions:
    return next(iter(groups.values()))[0]
