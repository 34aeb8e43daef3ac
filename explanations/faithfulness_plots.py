"""Figures of deletion and insertion, and of attribute AUCs."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from core.colours import QUIET, SERIES, series_colour

from .faithfulness import Curves

LINES = (
    ("by_evidence", SERIES[6], "in the explanation's own order"),
    ("by_words", SERIES[0], "in the order of the words"),
    ("random", SERIES[1], "in random order"),
)
EXPECTED = {
    "deletion": "Deletion: faithful if the margin falls sooner than in random order",
    "insertion": "Insertion: faithful if the margin rises sooner than in random order",
}


def draw_faithfulness(
    curves: Mapping[str, Curves], summaries: Sequence[Mapping[str, Any]]
) -> Figure:
    """The margin as symptoms are deleted or inserted: by the words, by evidence, at random."""
    figure = Figure(figsize=(4.6 * len(curves), 3.7), layout="constrained", facecolor="white")
    axes = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
    for axis, curve, row in zip(axes, curves.values(), summaries, strict=True):
        _draw_curves(axis, curve)
        share = f"{row['share']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        result = "passed" if row["passed"] else "failed"
        title = f"{EXPECTED[curve.measure]}. Share of the own order's area: {share}, {result}"
        axis.set_title(textwrap.fill(title, 50), fontsize=9)
    axes[0].set_ylabel("log-odds of the predicted class\nover the runner-up", fontsize=8.5)
    axes[0].legend(fontsize=8, frameon=False)
    return figure


def _draw_curves(axis: Axes, curve: Curves) -> None:
    """Means over images with 95 % intervals."""
    shares = np.linspace(0, 1, curve.random.shape[1])
    for order, colour, label in LINES:
        values = getattr(curve, order)
        mean = values.mean(axis=0)
        margin = 1.96 * values.std(axis=0) / np.sqrt(len(values))
        axis.plot(shares, mean, color=colour, marker="o", markersize=3.5, label=label)
        axis.fill_between(shares, mean - margin, mean + margin, color=colour, alpha=0.18, lw=0)
    done = "replaced by their average" if curve.measure == "deletion" else "restored"
    axis.set_xlabel(f"symptoms {done}", fontsize=8.5)
    axis.xaxis.set_major_formatter(PercentFormatter(1))
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def draw_areas(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """AUC of each symptom's similarity against its attribute, with intervals."""
    rows = [row for row in rows if row["auc"] is not None]
    figure = Figure(figsize=(7.6, 0.42 * len(rows) + 1.1), layout="constrained", facecolor="white")
    axis = figure.subplots()
    classes = list(dict.fromkeys(row["class"] for row in rows))
    for place, row in enumerate(rows):
        colour = series_colour(classes.index(row["class"]))
        axis.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2)
        axis.plot(row["auc"], place, "o", color=colour, markersize=5)
    labels = [textwrap.fill(f"{row['symptom']} ({row['class']})", 60, max_lines=2) for row in rows]
    axis.set_yticks(range(len(rows)), labels, fontsize=7.5, parse_math=False)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.axvline(0.5, color=QUIET, linewidth=0.8, linestyle="--")
    axis.set_xlim(0, 1.02)
    axis.set_xlabel("AUC of similarity against the true attribute (0.5: chance)", fontsize=8.5)
    axis.tick_params(axis="x", labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    return figure
