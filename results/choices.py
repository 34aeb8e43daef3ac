"""What a user chooses of tables: metrics, intervals, seeds, papers, patients, thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from core.errors import InputError
from results.intervals import Intervals
from results.metrics import METRICS, default_metrics, heading
from results.paper import VIP, Paper
from results.rows import Bounds, Method, wanted_seeds

RATES = ("sensitivity", "specificity")
LEVEL = 0.9  # coverage of prediction sets


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold has to reach on validation images: one of ``RATES``, and a number."""

    rate: str
    target: float

    def __str__(self) -> str:
        return f"a {self.rate} of {self.target:g}"

    @classmethod
    def read(cls, text: str) -> "OperatingPoint":
        """``sensitivity=0.9`` as a point.

        Raises:
            InputError: the text says something else.
        """
        rate, _, number = text.partition("=")
        if rate not in RATES:
            raise InputError(f"{text}: give {' or '.join(f'{name}=0.9' for name in RATES)}")
        return cls(rate, share(number))


def share(text: str) -> float:
    """A number above 0 and below 1.

    Raises:
        InputError: the text is something else.
    """
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1:
        raise InputError(f"{text or 'nothing'} is not a number above 0 and below 1, such as 0.9")
    return number


@dataclass(frozen=True)
class Choices:
    """What all tables of one call have in common.

    Attributes:
        metrics: names of metrics, a column each.
        intervals: for 95 % intervals.
        seeds: seeds that no row should lack.
        papers: those whose figures are shown beside ours.
        patients: how the images of a patient become one prediction, "mean" or "max"; None: images
            are judged.
        operating: what the thresholds of a table are to reach.
        level: the coverage of prediction sets.
    """

    metrics: Sequence[str] = field(default_factory=default_metrics)
    intervals: Intervals | None = None
    seeds: Sequence[int] = field(default_factory=wanted_seeds)
    papers: Sequence[Paper] = ()
    patients: str | None = None
    operating: OperatingPoint | None = None
    level: float = LEVEL

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
