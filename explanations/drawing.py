"""Explanations as figures, after the paper's Fig. 3 II."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from core.colours import CORRECT, INCORRECT, QUIET, series_colour

from .explanation import OWN, Explanation

DARK = "#333333"
MOST_CLASSES = 4  # more bars would not be read
# Inches.
LINE = 0.17  # one line of a label
IMAGE, LABELS, BARS = 2.9, 2.75, 2.1  # widths of the image, the labels and a panel of bars
MARGIN = 0.15


def shown_classes(explanation: Explanation, i: int, truth: int | None = None) -> list[int]:
    """The labels to draw: the true class and the most probable ones, in the classes' order."""
    ranked = np.argsort(-explanation.probabilities[i], kind="stable").tolist()
    if truth is not None:
        ranked = [truth, *(c for c in ranked if c != truth)]
    return sorted(ranked[:MOST_CLASSES])


def verdict(explanation: Explanation, i: int, truth: int | None = None) -> str:
    """One line: the prediction with its probability, and whether it is correct."""
    label = int(explanation.prediction[i])
    text = f"{explanation.classnames[label]}, {100 * explanation.probabilities[i, label]:.1f} %"
    if truth is None:
        return f"predicted {text}"
    wrong = f"incorrect (true class: {explanation.classnames[truth]})"
    return f"predicted {text}: {'correct' if label == truth else wrong}"


@dataclass(frozen=True)
class _Row:
    """A bar in each panel: a symptom of class ``c``, or the class's own token."""

    c: int
    symptom: str
    score: float | None = None
    contribution: float | None = None
    changed: float | None = None  # its contribution with the changed symptoms

    @cached_property
    def label(self) -> str:
        return textwrap.fill(self.symptom, 42)


@dataclass(frozen=True)
class _Panel:
    """A column of bars: which value of a row it shows, its title and its number format."""

    key: str
    title: str
    form: str


class _Layout:
    """The positions of the parts of a figure, in inches from its top left corner."""

    def __init__(self, rows: Sequence[_Row], n_panels: int, n_lines: int) -> None:
        self.heights = [max(0.3, LINE * (1 + row.label.count("\n")) + 0.1) for row in rows]
        gaps = [0.3 if k and rows[k].c != rows[k - 1].c else 0.0 for k in range(len(rows))]
        self.centres = np.cumsum(np.add(self.heights, gaps)) - np.divide(self.heights, 2)
        self.bars_height = float(self.centres[-1] + self.heights[-1] / 2)
        self.head = 0.55 + 0.2 * (n_lines - 1)
        self.height = max(self.bars_height + self.head + 0.75, IMAGE + self.head + 0.55)
        self.width = IMAGE + LABELS + n_panels * BARS + 0.5

    def axes(self, figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
        bottom = self.height - top - height
        place = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return figure.add_axes(place)

    def panel(self, figure: Figure, column: int) -> Axes:
        left = MARGIN + IMAGE + LABELS + column * BARS + 0.12
        axis = self.axes(figure, left, self.head + 0.12, BARS - 0.22, self.bars_height)
        axis.set_ylim(self.bars_height, 0)
        return axis


def draw_explanation(
    image: Image.Image,
    explanation: Explanation,
    i: int,
    truth: int | None = None,
    name: str = "",
    changed: Explanation | None = None,
    other: str = "",
) -> Figure:
    """The image, a bar for each symptom coloured by its class, the prediction and the truth.

    Args:
        i: the image's place in ``explanation``.
        truth: the true label, if it is known.
        changed: the explanation with other symptoms, drawn beside.
        other: a line on what another run predicts.
    """
    rows = _rows(explanation, i, shown_classes(explanation, i, truth), changed)
    panels = _panels(explanation, changed)
    headline = _headline(explanation, i, truth, changed, other)
    layout = _Layout(rows, len(panels), len(headline))
    figure = Figure(figsize=(layout.width, layout.height), facecolor="white")
    _draw_image(layout.axes(figure, MARGIN, layout.head, IMAGE, IMAGE), image, name)
    for number, (text, colour) in enumerate(headline):
        figure.text(
            MARGIN / layout.width, 1 - (0.26 + 0.21 * number) / layout.height, text, color=colour,
            fontsize=11 if number == 0 else 10, fontweight="bold" if number == 0 else "normal",
            parse_math=False,
        )  # fmt: skip
    parts = [v for row in rows for v in (row.contribution, row.changed) if v is not None]
    for column, panel in enumerate(panels):
        axis = layout.panel(figure, column)
        values = [getattr(row, panel.key) for row in rows]
        limits = _limits(_numbers(values) if panel.key == "score" else parts)
        _draw_bars(axis, layout, rows, values, panel, limits)
        if column == 0:
            _label_rows(axis, layout, rows)
            _label_classes(axis, layout, rows, explanation, i, changed)
    return figure


def _panels(explanation: Explanation, changed: Explanation | None) -> list[_Panel]:
    if explanation.standardised is None:
        panels = [_Panel("score", "cosine similarity", "{:.3f}")]
    else:
        panels = [_Panel("score", "similarity, standardised", "{:+.1f}")]
    panels.append(_Panel("contribution", "contribution to the logit", "{:+.1f}"))
    if changed is not None:
        panels.append(_Panel("changed", "contribution, what if", "{:+.1f}"))
    return panels


def _rows(
    explanation: Explanation, i: int, classes: Sequence[int], changed: Explanation | None
) -> list[_Row]:
    """The bars class by class; with ``changed`` also what was added."""
    rows = []
    for c in classes:
        own = list(explanation.phrases[explanation.classnames[c]])
        new = list(changed.phrases[explanation.classnames[c]]) if changed is not None else []
        for j, symptom in enumerate(own):
            score, part = explanation.scores[i, c, j], explanation.parts.symptom[i, c, j]
            rows.append(_Row(c, symptom, score, part, _part(changed, i, c, symptom, new)))
        for j, symptom in enumerate(new):
            if changed is not None and symptom not in own:
                part = changed.parts.symptom[i, c, j]
                rows.append(_Row(c, symptom, changed.scores[i, c, j], None, part))
        if explanation.parts.own.any():
            other = changed.parts.own[i, c] if changed is not None else None
            rows.append(_Row(c, OWN, None, explanation.parts.own[i, c], other))
    return rows


def _part(
    changed: Explanation | None, i: int, c: int, symptom: str, symptoms: Sequence[str]
) -> float | None:
    """The contribution of a symptom with the changed symptoms; None if it is not one of them."""
    if changed is None or symptom not in symptoms:
        return None
    return changed.parts.symptom[i, c, symptoms.index(symptom)]


def _headline(
    explanation: Explanation,
    i: int,
    truth: int | None,
    changed: Explanation | None,
    other: str,
) -> list[tuple[str, str]]:
    """(text, colour) of the lines at the top."""

    def line(version: Explanation, before: str = "") -> tuple[str, str]:
        colour = "#111111"
        if truth is not None:
            colour = CORRECT if version.prediction[i] == truth else INCORRECT
        return before + verdict(version, i, truth), colour

    if changed is None:
        lines = [line(explanation)]
    else:
        lines = [line(explanation, "as trained: "), line(changed, "what if: ")]
    return lines + ([(other, QUIET)] if other else [])


def _draw_image(axis: Axes, image: Image.Image, name: str) -> None:
    axis.imshow(image)
    axis.axis("off")
    if name:
        shown = name if len(name) <= 46 else f"...{name[-43:]}"
        # A dollar sign would start a formula.
        axis.set_title(shown, fontsize=7.5, color=QUIET, y=-0.09, parse_math=False)


def _numbers(values: Sequence[float | None]) -> list[float]:
    """The values with 0 in place of those that are missing."""
    return [0.0 if value is None or np.isnan(value) else float(value) for value in values]


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Limits of an axis of bars that leave room for the numbers beside them."""
    low, high = min(0, *values), max(0, *values)
    span = (high - low) or 1.0
    return low - (0.3 if low < 0 else 0.02) * span, high + 0.3 * span


def _draw_bars(
    axis: Axes,
    layout: _Layout,
    rows: Sequence[_Row],
    values: Sequence[float | None],
    panel: _Panel,
    limits: tuple[float, float],
) -> None:
    axis.barh(
        layout.centres,
        _numbers(values),
        height=[0.62 * min(height, 0.34) for height in layout.heights],
        color=[series_colour(row.c) for row in rows],
        alpha=0.9,
    )
    axis.axvline(0, color="#444444", linewidth=0.8)
    axis.set_xlim(*limits)
    axis.set_title(panel.title, fontsize=8.5, color=DARK, pad=14)
    for centre, value in zip(layout.centres, values, strict=True):
        if value is None or np.isnan(value):
            continue
        side = 1 if value >= 0 else -1
        axis.annotate(
            panel.form.format(value), (value, centre), xytext=(3 * side, 0),
            textcoords="offset points", ha="left" if side > 0 else "right", va="center",
            fontsize=7.5, color=DARK,
        )  # fmt: skip
    axis.set_yticks([])
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.tick_params(axis="x", labelsize=7, colors=QUIET, length=2)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.spines["bottom"].set_color("#bbbbbb")


def _label_rows(axis: Axes, layout: _Layout, rows: Sequence[_Row]) -> None:
    axis.set_yticks(layout.centres, [row.label for row in rows], fontsize=8)
    axis.tick_params(axis="y", length=0)
    for tick, row in zip(axis.get_yticklabels(), rows, strict=True):
        tick.set_parse_math(False)
        tick.set_color(QUIET if row.symptom == OWN else "#111111")


def _label_classes(
    axis: Axes,
    layout: _Layout,
    rows: Sequence[_Row],
    explanation: Explanation,
    i: int,
    changed: Explanation | None,
) -> None:
    """The class and its probability, above its first bar."""
    for k, row in enumerate(rows):
        if k and rows[k - 1].c == row.c:
            continue
        text = f"{explanation.classnames[row.c]}, {100 * explanation.probabilities[i, row.c]:.1f} %"
        if changed is not None:
            text += f" → {100 * changed.probabilities[i, row.c]:.1f} %"
        axis.annotate(
            text, (0, layout.centres[k] - layout.heights[k] / 2),
            xycoords=axis.get_yaxis_transform(), xytext=(-5, 3), textcoords="offset points",
            ha="right", va="bottom", fontsize=9, fontweight="bold", color=series_colour(row.c),
            parse_math=False,
        )  # fmt: skip
