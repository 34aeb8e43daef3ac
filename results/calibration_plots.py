"""Reliability diagrams before and after temperature scaling, as PNG and PDF."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from core.colours import GREY, RED
from results.calibration import reliability_bins
from results.calibration_tables import calibrated
from results.choices import Choices
from results.decisions import JudgedMethod, judged_methods
from results.plots import STYLE, file_name, save
from results.rows import expected_backbones, tasks_of
from results.runs import Run

COLUMNS = 4  # panels in a row
WIDTH = 28  # characters of a line above a panel


def plot_calibration(runs: list[Run], folder: Path | str) -> list[Path]:
    """A figure for each task, a panel for each method; returns the paths.

    The bins of all seeds and backbones of a method are pooled.
    """
    paths = []
    for task, task_runs in tasks_of(runs).items():
        single = len(expected_backbones(task_runs)) == 1
        methods = judged_methods(task_runs, Choices(), single, [])
        if methods:
            with plt.rc_context(STYLE):
                paths += save(_figure(methods), folder, f"calibration_{file_name(task.title)}")
    return paths


def _figure(methods: Sequence[JudgedMethod]) -> Any:
    columns = min(COLUMNS, len(methods))
    rows = -(-len(methods) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.0 * columns + 0.6, 2.1 * rows + 0.5), sharex=True, sharey=True,
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for axis, one in zip(axes.ravel(), methods, strict=False):
        _panel(axis, one)
    for axis in axes.ravel()[len(methods) :]:
        axis.set_axis_off()
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    figure.supxlabel("confidence", fontsize=8)
    figure.supylabel("accuracy", fontsize=8)
    return figure


def _panel(axis: Any, one: JudgedMethod) -> None:
    judged = [each for own in one.groups.values() for each in own]
    correct = np.concatenate([each.test.correct for each in judged]).astype(float)
    both = {
        "before": (GREY, np.concatenate([each.test.probabilities for each in judged])),
        "after the temperature": (RED, np.concatenate([calibrated(each) for each in judged])),
    }
    axis.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle="--", label="ideal")
    for name, (color, probabilities) in both.items():
        bins = reliability_bins(probabilities.max(axis=1), correct)
        filled = bins["count"] > 0
        # The larger a point, the more images: sparse bins are mostly noise.
        sizes = 4 + 60 * bins["count"][filled] / len(correct)
        x, y = bins["confidence"][filled], bins["accuracy"][filled]
        axis.plot(x, y, color=color, linewidth=1.1, label=name)
        axis.scatter(x, y, s=sizes, color=color, zorder=3, clip_on=False)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1.02)
    axis.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    axis.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
    axis.set_title(textwrap.fill(one.method.label, WIDTH, break_long_words=False), fontsize=8)
