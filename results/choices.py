"""What a user chooses of tables: metrics, intervals, seeds, papers whose figures are shown."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from results.intervals import Intervals
from results.metrics import METRICS, default_metrics, heading
from results.paper import VIP, Paper
from results.rows import Bounds, Method, wanted_seeds


@dataclass(frozen=True)
class Choices:
    """What all tables of one call have in common.

    Attributes:
        metrics: names of metrics, a column each.
        intervals: for 95 % intervals.
        seeds: seeds that no row should lack.
        papers: those whose figures are shown beside ours.
    """

    metrics: Sequence[str] = field(default_factory=default_metrics)
    intervals: Intervals | None = None
    seeds: Sequence[int] = field(default_factory=wanted_seeds)
    papers: Sequence[Paper] = ()

    @property
    def headings(self) -> list[str]:
        return [heading(metric) for metric in self.metrics]

    @property
    def vip(self) -> Paper | None:
        """The paper of ViP, if its figures are to be shown."""
        return next((paper for paper in self.papers if paper.name == VIP), None)

    @property
    def printed_metrics(self) -> list[str]:
        """Those of the metrics that the paper of ViP prints."""
        return [metric for metric in self.metrics if metric in default_metrics()]

    def bounds(self, method: Method, notes: list[str]) -> dict[str, Bounds]:
        """Metric -> (low, high) of a row; why there are none goes into the notes."""
        return self.intervals.bounds(method, notes) if self.intervals else {}

    def explain(self, over: str) -> list[str]:
        """Notes on what the numbers are: ``over`` what they are means, and the intervals."""
        if "macro_f1" in self.metrics:
            over += f"; {METRICS['macro_f1'].heading} is {METRICS['macro_f1'].title}"
        return [over, *([self.intervals.explain()] if self.intervals else [])]


def over_what(backbones: Sequence[str]) -> str:
    """What a row's estimates are means over."""
    if not backbones:  # every row asks a model of its own
        return "the figures of one run each"
    if len(backbones) == 1:
        return f"mean (deviation, ddof 0) over seeds; one backbone ({backbones[0]})"
    return "mean (deviation, ddof 0) over backbones of the mean over seeds"
