"""The paper's bar charts (Fig. 3 I, Fig. 5), as PNG and PDF."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display needed

import numpy as np  # noqa: E402  (the backend is chosen before pyplot is imported)
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter  # noqa: E402

from core.colours import GREY, RED, SKY  # noqa: E402
from results.experiments import (  # noqa: E402
    KNOWLEDGE_KINDS,
    experiment_groups,
    is_symptom_key,
    knowledge_row,
    zeroshot_row,
)
from results.metrics import default_metrics, heading  # noqa: E402
from results.rows import Method  # noqa: E402
from results.runs import Run  # noqa: E402

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "legend.fontsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "pdf.fonttype": 42,  # letters stay letters in the PDF
    "savefig.dpi": 300,
}


def spread(method: Method, metric: str) -> tuple[float, float, str | None]:
    """(mean, deviation, what the deviation is over) of a row; over seeds if it has one backbone."""
    found = method.estimate(metric, over_seeds=True)
    if found is None:
        return float("nan"), 0.0, None
    if found.deviation is None:
        return found.value, 0.0, None
    return found.value, found.deviation, "backbones" if len(method.by_backbone) > 1 else "seeds"


def save(figure: Any, folder: Path | str, name: str) -> list[Path]:
    """Write NAME.png and NAME.pdf; returns the two paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{ending}" for ending in ("png", "pdf")]
    for path in paths:
        figure.savefig(path, bbox_inches="tight", pad_inches=0.03)
    plt.close(figure)
    return paths


def percent(axis: Any) -> None:
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f}"))


def _bars(
    axis: Any,
    places: Any,
    methods: Sequence[Method],
    metric: str,
    width: float,
    color: Any,
    label: str | None = None,
) -> set[str]:
    """Bars with error bars and their values on top; returns what the error bars are over."""
    means, deviations, over = zip(*(spread(m, metric) for m in methods), strict=True)
    drawn = axis.bar(
        places,
        means,
        width,
        yerr=[deviation or np.nan for deviation in deviations],
        color=color,
        edgecolor="white",
        label=label,
        error_kw={"elinewidth": 0.9, "capsize": 2.5, "capthick": 0.9},
    )
    for bar, mean, deviation in zip(drawn, means, deviations, strict=True):
        axis.annotate(
            f"{100 * mean:.1f}",
            (bar.get_x() + bar.get_width() / 2, mean + deviation),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=7,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4},  # over the grid's lines
        )
    return set(over) - {None}


def _limits(
    axis: Any,
    methods: Sequence[Method],
    metrics: Sequence[str],
    floor: Callable[[float], float] | None = None,
) -> None:
    """Room for the labels above; the floor may rise above zero only where the text says so."""
    spreads = [spread(method, metric) for method in methods for metric in metrics]
    top = max(mean + deviation for mean, deviation, _ in spreads)
    bottom = (
        0.0 if floor is None else floor(min(mean - deviation for mean, deviation, _ in spreads))
    )
    axis.set_ylim(bottom, min(top + 0.09 * (top - bottom), 1.12))


def error_text(over: set[str]) -> str:
    return f"error bars: deviation over {' or '.join(sorted(over))}" if over else "one run each"


def plot_zeroshot(
    runs: list[Run], folder: Path | str, metrics: Sequence[str] | None = None
) -> list[Path]:
    """Fig. 3 I: zero-shot by names and by symptoms, a panel for each dataset. Returns the paths."""
    metrics = metrics or default_metrics()
    panels = [
        (title, rows)
        for _, title, rows, _ in experiment_groups(
            runs, zeroshot_row, lambda key: key.endswith(".PROMPTS")
        )
        if {"names", "symptoms"} <= set(rows)
    ]
    if not panels:
        return []
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(panels), figsize=(2.6 * len(panels) + 0.4, 2.5), sharey=True, squeeze=False
        )
        over = set()
        for axis, (title, rows) in zip(axes[0], panels, strict=True):
            places = np.arange(len(metrics))
            for offset, name, color in ((-0.2, "names", GREY), (0.2, "symptoms", RED)):
                for place, metric in zip(places, metrics, strict=True):
                    label = name if place == 0 else None
                    over |= _bars(axis, [place + offset], [rows[name]], metric, 0.37, color, label)
            axis.set_xticks(places, [heading(m) for m in metrics])
            axis.tick_params(axis="x", length=0)
            axis.set_title(title)
            axis.set_xlim(-0.55, len(metrics) - 0.45)
        everything = [method for _, rows in panels for method in rows.values()]
        _limits(axes[0][0], everything, metrics)
        percent(axes[0][0])
        axes[0][0].set_ylabel("zero-shot, %")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="upper center", ncols=2, frameon=False, bbox_to_anchor=(0.5, 1.07)
        )
        figure.text(0.5, -0.03, error_text(over), ha="center", fontsize=7, color="#555555")
        figure.tight_layout()
        return save(figure, folder, "zeroshot")


def plot_knowledge(runs: list[Run], folder: Path | str, metric: str = "macro_f1") -> list[Path]:
    """Fig. 5: ViP by the symptoms it read, a plot for each dataset. Returns the paths."""
    paths = []
    for _, title, rows, _ in experiment_groups(runs, knowledge_row, is_symptom_key):
        known = [name for name in KNOWLEDGE_KINDS.values() if name in rows]
        names = known + sorted(set(rows) - set(known))
        if len(names) < 2:
            continue
        with plt.rc_context(STYLE):
            figure, axis = plt.subplots(figsize=(0.75 * len(names) + 0.9, 2.5))
            colors = [RED if name == KNOWLEDGE_KINDS[""] else GREY for name in names]
            colors = [SKY if "ours" in n else c for n, c in zip(names, colors, strict=True)]
            methods = [rows[name] for name in names]
            over = _bars(axis, np.arange(len(names)), methods, metric, 0.7, colors)
            # The differences are small beside the figures themselves, so the axis is cut (and
            # says so); a twentieth below the lowest bar's error bar keeps every bar visible.
            _limits(axis, methods, [metric], lambda low: max(0.0, np.floor(low * 20 - 1) / 20))
            cut = axis.get_ylim()[0]
            percent(axis)
            axis.set_xticks(np.arange(len(names)), [two_lines(name) for name in names])
            axis.tick_params(axis="x", length=0, labelsize=7)
            axis.set_ylabel(f"{heading(metric)}, %")
            axis.set_title(f"ViP on {title}, by symptoms")
            text = error_text(over)
            if any("ours" in name for name in names):
                text += "; * control of this project"
            if cut > 0:
                text += f"; axis starts at {100 * cut:.0f}"
            figure.tight_layout()
            figure.text(0.5, -0.03, text, ha="center", fontsize=7, color="#555555")
            paths += save(figure, folder, f"knowledge_{file_name(title)}")
    return paths


def two_lines(name: str) -> str:
    """Break a bar's name at its last space or hyphen; an asterisk for our own controls."""
    name = name.replace(" (ours)", "*")
    return re.sub(r"^(.*)( |(?<=-))(\S+?)$", r"\1\n\3", name)


def file_name(title: str) -> str:
    """The dataset, and whatever else of the title tells two plots apart."""
    return re.sub(r"[^A-Za-z0-9]+", "_", title).strip("_")
