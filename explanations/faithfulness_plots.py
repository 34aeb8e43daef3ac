"""Plots of how true explanations are: deletion, insertion, and AUC of single symptoms."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from core.colours import QUIET, SERIES, series_colour

from .faithfulness import Curves


def draw_faithfulness(
    curves: Mapping[str, Curves], summaries: Sequence[Mapping[str, Any]]
) -> Figure:
    """Deletion and insertion by contribution against the random order."""
    figure = Figure(figsize=(4.2 * len(curves), 3.3), layout="constrained", facecolor="white")
    axes = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
    for axis, curve, row in zip(axes, curves.values(), summaries, strict=True):
        _draw_curves(axis, curve)
        gain, low, high = row["gain"], row["low"], row["high"]
        axis.set_title(
            f"{curve.measure}: mean area {gain:+.2f} logits [{low:+.2f}, {high:+.2f}]", fontsize=9
        )
    axes[0].set_ylabel(
        "logit of the predicted class,\nminus its value with all symptoms", fontsize=8.5
    )
    axes[0].legend(fontsize=8, frameon=False)
    return figure


def _draw_curves(axis: Axes, curve: Curves) -> None:
    """Means over images with 95 % intervals."""
    shares = np.linspace(0, 1, curve.random.shape[1])
    for values, colour, label in (
        (curve.by_contribution, SERIES[0], "by contribution"),
        (curve.random, QUIET, "in random order"),
    ):
        mean = values.mean(axis=0)
        margin = 1.96 * values.std(axis=0) / np.sqrt(len(values))
        axis.plot(shares, mean, color=colour, marker="o", markersize=3.5, label=label)
        axis.fill_between(shares, mean - margin, mean + margin, color=colour, alpha=0.18, lw=0)
    done = "removed" if curve.measure == "deletion" else "added"
    axis.set_xlabel(f"symptoms {done} (one always remains)", fontsize=8.5)
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
