"""The few-shot curves of all methods in one figure, as PNG and PDF.

There may be thirty lines. A line has the colour of its family, and its name at its right end.
Markers tell the methods of a family apart; a dashed line is a method with other options.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from core.colours import BLACK, BLUE, GREEN, GREY, PURPLE, RED
from results.experiments import shots_curves
from results.metrics import default_metrics, heading
from results.plots import STYLE, error_text, percent, save, spread
from results.rows import Method
from results.runs import Run

# Family -> its colour and methods, in the order of the legend. Other methods have one of their own.
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "nothing trained": (GREY, ("ZeroshotCLIP", "VisionLLM")),
    "on image features": (
        BLUE,
        (
            *("LinearProbe", "LPPlusPlus", "SSText", "CLAP", "TipAdapter", "TipAdapterF"),
            *("CLIPAdapter", "TaskResidual", "GDA"),
        ),
    ),
    "learned prompts": (
        GREEN,
        ("CoOp", "CoCoOp", "KgCoOp", "ProGrad", "BayesianPrompt", "TCP", "BiomedCoOp", "XCoOp"),
    ),
    "image encoder adapted": (
        PURPLE,
        ("MaPLe", "PromptSRC", "CLIPLoRA", "CLIPSVD", "Supervised"),
    ),
    "symptoms": (RED, ("ViP", "ConceptBottleneck")),
}
OTHER = ("other", BLACK)
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "p", "h", "8", "d", "*")
MOST_BARS = 10  # lines whose error bars can still be told apart
LABEL = 6.5  # size of a name, in points
Lines = Mapping[str, Mapping[int, Method]]  # label -> {shots: row}


def plot_shots(
    runs: list[Run], folder: Path | str, metrics: Sequence[str] | None = None
) -> list[Path]:
    """Metrics against shots per class: a line a method, a plot a dataset. Returns the paths."""
    metrics = metrics or default_metrics()
    paths = []
    for dataset, lines in shots_curves(runs, metrics[0]).items():
        with plt.rc_context(STYLE):
            room = 0.055 * max(map(len, lines)) + 0.6  # inches for the names
            height = max(2.2, (LABEL + 1.5) / 72 * len(lines))
            size = (2.8 + room) * len(metrics), height + 0.5
            figure, axes = plt.subplots(1, len(metrics), figsize=size, squeeze=False)
            figure.subplots_adjust(0.05, 0.4 / size[1], 1 - room / size[0], 1, wspace=room / 2.4)
            over = set()
            for axis, metric in zip(axes[0], metrics, strict=True):
                over |= _draw(axis, lines, metric, height)
                axis.set_title(f"{dataset}, {heading(metric)}")
                axis.set_xlabel("training images per class")
            axes[0][0].set_ylabel("%")
            handles = [
                Line2D([], [], color=colour, label=family, linewidth=1.6)
                for family, colour in dict.fromkeys(map(_family, lines.values()))
            ]
            below = 0.04 / size[1]
            figure.legend(
                handles=handles,
                loc="upper center",
                ncols=len(handles),
                frameon=False,
                bbox_to_anchor=(0.5, below),
            )
            text = "deviations over seeds or backbones: parse_results.py --shots"
            text = text if len(lines) > MOST_BARS else error_text(over)
            figure.text(0.5, below - 0.36 / size[1], text, ha="center", fontsize=7, color="#555")
            paths += save(figure, folder, f"shots_{dataset}")
    return paths


def _family(points: Mapping[int, Method]) -> tuple[str, str]:
    """The family of a line, and its colour."""
    trainer = next(iter(points.values())).trainer
    for family, (colour, members) in FAMILIES.items():
        if trainer in members:
            return family, colour
    return OTHER


def _draw(axis: Any, lines: Lines, metric: str, height: float) -> set[str]:
    """One panel's lines and names; returns what the error bars are over."""
    ticks = sorted({shots for points in lines.values() for shots in points if shots > 0})
    used: dict[str, int] = defaultdict(int)  # family -> how many of its markers are taken
    over: set[str | None] = set()
    ends = []
    for i, (label, points) in enumerate(lines.items()):
        family, colour = _family(points)
        method = next(iter(points.values()))
        shots = sorted(number for number in points if number > 0)
        means, deviations, kinds = zip(*(spread(points[n], metric) for n in shots), strict=True)
        bars = len(lines) <= MOST_BARS
        over |= set(kinds)
        # Slightly apart, so that error bars don't hide each other.
        marker = MARKERS[used[family] % len(MARKERS)] if method.learns else ""
        shift = 2 ** (0.05 * (i - (len(lines) - 1) / 2)) if bars else 1.0
        axis.errorbar(
            [number * shift for number in shots],
            means,
            yerr=deviations if bars else None,
            color=colour,
            marker=marker,
            markersize=3.6,
            markeredgecolor="white",
            markeredgewidth=0.4,
            linewidth=2.0 if label == "ViP" else 1.0,
            linestyle="-" if method.is_default else "--",
            elinewidth=0.7,
            capsize=1.5,
            zorder=3 if label == "ViP" else 2,
        )
        used[family] += 1
        ends.append(End(means[-1], shots[-1] * shift, label, colour, marker))
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    percent(axis)
    _name(axis, sorted(end for end in ends if np.isfinite(end.value)), height)
    return {kind for kind in over if kind is not None}


class End(NamedTuple):
    """The right end of a line, and how the line looks."""

    value: float
    x: float
    label: str
    colour: str
    marker: str


def _name(axis: Any, ends: Sequence[End], height: float) -> None:
    """Write each line's name at the right, as near to its end as the others allow."""
    low, high = axis.get_ylim()
    axis.set_ylim(low, high)
    gap = (high - low) * (LABEL + 1.2) / 72 / height
    places = spaced([end.value for end in ends], gap, low, high)
    beside = axis.get_yaxis_transform()  # x as a fraction of the panel, y in the data's units
    look = {"clip_on": False, "markersize": 3.4, "linestyle": "", "transform": beside}
    for (value, x, label, colour, marker), place in zip(ends, places, strict=True):
        axis.plot([1.085], [place], marker=marker, color=colour, **look)
        axis.annotate(
            label,
            (x, value),
            xytext=(1.11, place),
            textcoords=beside,
            va="center",
            fontsize=LABEL,
            fontweight="bold" if label == "ViP" else "normal",
            color=colour,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.4,
                "shrinkA": 8,  # room for the marker
                "shrinkB": 3,
                "relpos": (0, 0.5),
            },
        )


def spaced(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Ascending places near ascending ``values``, at least ``gap`` apart, from low to high.

    Where they do not fit, they are evenly spread.
    """
    if len(values) > 1 and gap * (len(values) - 1) > high - low:
        return [float(place) for place in np.linspace(low, high, len(values))]
    places: list[float] = []
    for value in values:
        least = places[-1] + gap if places else low
        places.append(max(value, least))
    most = high
    for i in reversed(range(len(places))):
        places[i] = min(places[i], most)
        most = places[i] - gap
    return places
