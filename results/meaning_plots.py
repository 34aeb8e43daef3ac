"""What symptoms mean after training, as PNG and PDF: by kind of symptoms, and by attribute."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from core.colours import BLUE, GREY, RED
from results.meaning import FILE, Meaning, kind_of, mean_of, measured_runs, order, read_rows
from results.plots import STYLE, file_name, save, two_lines
from results.rows import Method, is_symptom_key, methods_of, tasks_of
from results.runs import Run

BANDS = (-0.5, 0.5, 0.8)  # the thresholds of the verdicts, in explanations/drift.py


def plot_meaning(runs: list[Run], folder: Path | str) -> list[Path]:
    """A figure for each task, and one of all symptoms with a known attribute. Returns the paths."""
    measured, _ = measured_runs(runs)
    paths = []
    for task, own in tasks_of(measured).items():
        methods = sorted(filter(_is_plotted, methods_of(own)), key=order)
        if len({kind_of(method) for method in methods}) > 1:
            paths += _plot_kinds(task.title, methods, measured, folder)
    return paths + _plot_attributes(list(measured), folder)


def _plot_kinds(
    title: str, methods: Sequence[Method], measured: Mapping[Run, Meaning], folder: Path | str
) -> list[Path]:
    """Accuracy and mean rank correlation by kind of symptoms: plain, and the highest weight."""
    kinds = list(dict.fromkeys(map(kind_of, methods)))
    lines = {
        "ViP": ({kind_of(m): m for m in methods if not _weight(m)}, GREY),
        "ViP, anchored": ({kind_of(m): m for m in methods if _weight(m)}, RED),
    }
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(2 * (0.55 * len(kinds) + 1), 2.6))
        for axis, name in zip(axes, ("ACC", "mean rank correlation"), strict=True):
            for offset, (label, (found, color)) in zip((-0.2, 0.2), lines.items(), strict=True):
                places = [kinds.index(kind) + offset for kind in found]
                if name == "ACC":
                    values = [m.estimate("accuracy", over_seeds=True) for m in found.values()]
                else:
                    values = [
                        mean_of(m, lambda run: measured[run].correlation, True)
                        for m in found.values()
                    ]
                heights = [value.value if value else np.nan for value in values]
                errors = [value.deviation or 0 if value else 0 for value in values]
                axis.bar(places, heights, 0.38, yerr=errors, color=color, label=label, capsize=2)
            axis.set_xticks(range(len(kinds)), [two_lines(kind) for kind in kinds], fontsize=6.5)
            axis.set_title(f"{title}, {name}")
            axis.axhline(0, color="black", linewidth=0.6)
        figure.tight_layout()
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="upper center", ncols=2, frameon=False, bbox_to_anchor=(0.5, 1.09)
        )
        return save(figure, folder, f"meaning_{file_name(title)}")


def _is_plotted(method: Method) -> bool:
    """Whether only its symptoms and the anchor tell it from plain ViP."""
    return all(is_symptom_key(key) or key == "TRAINER.VIP.ANCHOR" for key in method.options)


def _weight(method: Method) -> float:
    return float(method.runs[0].option("ANCHOR", 0))


def _plot_attributes(runs: Sequence[Run], folder: Path | str) -> list[Path]:
    """Each symptom of each run: what the AUC for its attribute lost against its correlation."""
    points: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for run in runs:
        anchored = "TRAINER.VIP.ANCHOR" in run.options
        for row in read_rows(run.folder / FILE):
            if row.untrained is not None and row.trained is not None:
                points[anchored].append((row.correlation, row.trained - row.untrained))
    if not any(points.values()):
        return []
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(4.2, 2.8))
        styles: Any = {False: ("ViP", BLUE, "o"), True: ("ViP, anchored", RED, "x")}
        for anchored, own in points.items():
            if own:
                label, color, marker = styles[anchored]
                x, y = zip(*own, strict=True)
                axis.scatter(x, y, s=9, c=color, marker=marker, label=label)
        for place in BANDS:
            axis.axvline(place, color=GREY, linewidth=0.8, linestyle=":")
        axis.set_xlabel("rank correlation of untrained and trained symptom")
        axis.set_ylabel("AUC for its attribute,\ntrained minus untrained")
        axis.legend(loc="lower right")
        figure.tight_layout()
        return save(figure, folder, "meaning_attributes")
