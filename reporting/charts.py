"""Charts as inline SVG that takes its colours for text and lines from the page, light or dark."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from sklearn.metrics import roc_curve

from core.colours import BLUE, GREY, SERIES, series_colour
from results.predictions import Predictions

from .measures import BINS, reliability

# Stand-ins that nothing else has; the SVG gets the page's colours in their place.
TEXT, LINE = "#010203", "#040506"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # letters stay letters: sharp, selectable, in the page's font
    "svg.hashsalt": "report",  # the same runs give the same file
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.edgecolor": TEXT,
    "axes.labelcolor": TEXT,
    "axes.titlecolor": TEXT,
    "text.color": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
LINES = ("-", "--", "-.", ":")
GRID = np.linspace(0, 1, 101)  # false positive rates at which ROC curves are averaged
MOST_PANELS = 12  # classes with a ROC panel each


def svg(figure: Figure, description: str) -> Markup:
    """A figure as Markup for a page."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(stream, format="svg", metadata=nothing, transparent=True)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = text.replace(TEXT, "currentColor").replace(LINE, "var(--line)")
    used = set(re.findall(r"#([\w-]+)[)\"]", text))
    # Several charts share a page; ids that nothing refers to would only be there twice.
    text = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", text)
    label = Markup(' role="img" aria-label="{}"').format(description)
    return Markup(text.replace("<svg", f"<svg{label}", 1))


def styled(draw: Callable[..., tuple[Figure, str]]) -> Callable[..., Markup]:
    """Run a chart function with the style, and turn its (figure, description) into SVG."""

    def chart(*args: Any, **options: Any) -> Markup:
        with matplotlib.rc_context(STYLE):
            return svg(*draw(*args, **options))

    return chart


def _line(i: int) -> dict[str, Any]:
    return {"color": series_colour(i), "linestyle": LINES[i // len(SERIES) % len(LINES)]}


@styled
def training_curve(
    key: str, title: str, histories: Mapping[str, Sequence[Mapping[str, np.ndarray]]]
) -> tuple[Figure, str]:
    """One measure by epoch, a line a method.

    Args:
        key: column of the histories. title: what it is.
        histories: method -> list of runs' histories, each a dict of arrays, NaN where nothing was
            measured.
    """
    figure = Figure(figsize=(5.2, 3.9), layout="constrained")
    axis = figure.subplots()
    for i, (name, runs) in enumerate(histories.items()):
        longest = max(len(run[key]) for run in runs)
        values = np.full((len(runs), longest), np.nan)
        for row, run in zip(values, runs, strict=True):
            row[: len(run[key])] = run[key]
        known = ~np.isnan(values).all(axis=0)
        epochs = np.arange(1, longest + 1)[known]
        axis.plot(
            epochs, np.nanmean(values[:, known], axis=0), label=name, linewidth=1.6, **_line(i)
        )
    axis.set_title(title)
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if key == "val_accuracy":
        axis.yaxis.set_major_formatter(PercentFormatter(1))
    _legend_below(figure, axis)
    return figure, f"{title} by epoch of {', '.join(histories)}"


def _legend_below(figure: Figure, axis: Any) -> None:
    handles, labels = axis.get_legend_handles_labels()
    columns = 2 if max(map(len, labels), default=0) < 34 else 1
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def mean_roc(runs: Sequence[Predictions], labels: Sequence[int]) -> np.ndarray | None:
    """True positive rates at ``GRID``: the mean over runs and over the classes ``labels``."""
    curves = []
    for run in runs:
        for c in labels:
            positive = run.labels == c
            if positive.any() and not positive.all():
                false, true, _ = roc_curve(positive, run.probabilities[:, c])
                curves.append(np.interp(GRID, false, true))
    return np.mean(curves, axis=0) if curves else None


def roc_panels(run: Predictions) -> dict[str, list[int]]:
    """Title -> labels of the classes that are the positive ones in a panel of ``roc``.

    One panel for the positive class where the dataset names one, else one for each class; of more
    than ``MOST_PANELS`` classes, one for their mean.
    """
    if run.positive:
        return {f"ROC, positive class: {run.positive}": [run.classnames.index(run.positive)]}
    if len(run.classnames) > MOST_PANELS:
        return {f"ROC, mean over {len(run.classnames)} classes": [*range(len(run.classnames))]}
    return {f"ROC, {name} against the rest": [c] for c, name in enumerate(run.classnames)}


@styled
def roc(methods: Mapping[str, Sequence[Predictions]]) -> tuple[Figure, str]:
    """ROC curves, a line a method. ``methods``: name -> its runs."""
    panels = roc_panels(next(iter(methods.values()))[0])
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(1 + 4.2 * columns, 1 + 3.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (title, labels) in zip(axes, panels.items(), strict=False):
        axis.plot([0, 1], [0, 1], color=LINE, linewidth=1)
        for i, (name, runs) in enumerate(methods.items()):
            rates = mean_roc(runs, labels)
            if rates is not None:
                axis.plot(np.r_[0, GRID], np.r_[0, rates], label=name, linewidth=1.6, **_line(i))
        axis.set_xlabel("1 - specificity")
        axis.set_ylabel("sensitivity")
        axis.set_title(title)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    _legend_below(figure, axes[0])
    return figure, f"{'; '.join(panels)}: curves of {', '.join(methods)}"


@styled
def calibration(name: str, runs: Sequence[Predictions]) -> tuple[Figure, str]:
    """Accuracy by confidence for one method; a perfectly calibrated one is on the line."""
    figure = Figure(figsize=(2.7, 2.5), layout="constrained")
    axis = figure.subplots()
    bins = reliability(runs)
    left = np.arange(BINS) / BINS
    share = bins["count"] / bins["count"].sum()
    axis.bar(left, bins["accuracy"], 1 / BINS, align="edge", color=BLUE, edgecolor="none",
             alpha=0.85)  # fmt: skip
    axis.plot([0, 1], [0, 1], color=TEXT, linewidth=0.9)
    axis.bar(left, -0.18 * share, 1 / BINS, align="edge", color=GREY)
    axis.set_xlim(0, 1)
    axis.set_ylim(-0.2, 1)
    axis.set_yticks([0, 0.5, 1])
    axis.set_xlabel("confidence")
    axis.set_ylabel("accuracy")
    return figure, f"{name}: accuracy by confidence"
