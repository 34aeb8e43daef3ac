"""Explanations as figures, after the paper's Fig. 3 II: the image and its margin as a waterfall."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from core.colours import CORRECT, INCORRECT, QUIET, series_colour

from .explanation import Explanation
from .wording import owners, verdict

DARK = "#333333"
# Inches.
IMAGE, LABELS, BARS, ROW, HEAD = 2.6, 3.3, 3.6, 0.36, 0.75


def draw_explanation(
    image: Image.Image,
    explanation: Explanation,
    i: int,
    truth: int | None = None,
    name: str = "",
    changed: Explanation | None = None,
    other: str = "",
    warning: str | None = None,
) -> Figure:
    """The image, and its margin over the runner-up as a waterfall of signed evidence.

    A bar is coloured by the class that it speaks for. Beside it stands how much the symptom changes
    the probability of the predicted class, in percentage points.

    Args:
        i: the image's place in ``explanation``.
        truth: the true label, if it is known.
        changed: the explanation with other symptoms, drawn below.
        other: a line on what another run predicts.
        warning: a sentence on symptoms that lost their meaning.
    """
    versions = [explanation] if changed is None else [explanation, changed]
    heights = [HEAD + ROW * _n_rows(version, i) + 0.5 for version in versions]
    lines = _headline(explanation, i, truth, changed, other, warning)
    head = 0.25 + 0.22 * len(lines)
    height = max(head + sum(heights), head + IMAGE + 0.5)
    width = IMAGE + LABELS + BARS + 0.9
    figure = Figure(figsize=(width, height), facecolor="white")
    _write_headline(figure, lines)
    bottom = height - head - IMAGE
    _draw_image(figure.add_axes(_box(0.15, bottom, IMAGE, IMAGE, width, height)), image, name)
    top = head
    for version, own in zip(versions, heights, strict=True):
        bars = own - HEAD - 0.5
        place = _box(IMAGE + LABELS + 0.2, height - top - HEAD - bars, BARS, bars, width, height)
        _draw_waterfall(figure.add_axes(place), version, i)
        top += own
    return figure


def _box(
    left: float, bottom: float, width: float, height: float, whole: float, high: float
) -> tuple[float, float, float, float]:
    """A place in inches as fractions of a figure of ``whole`` by ``high``."""
    return left / whole, bottom / high, width / whole, height / high


def _n_rows(explanation: Explanation, i: int) -> int:
    found = explanation.waterfall(i)
    return 2 + len(found.steps) if found else 1


def _headline(
    explanation: Explanation,
    i: int,
    truth: int | None,
    changed: Explanation | None,
    other: str,
    warning: str | None,
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
    lines += [(other, QUIET)] if other else []
    # 110 characters are as wide as the figure.
    return lines + [(text, INCORRECT) for text in textwrap.wrap(warning or "", 110)]


def _write_headline(figure: Figure, lines: Sequence[tuple[str, str]]) -> None:
    width, height = figure.get_size_inches()
    for number, (text, colour) in enumerate(lines):
        figure.text(
            0.15 / width, 1 - (0.28 + 0.22 * number) / height, text, color=colour,
            fontsize=11 if number == 0 else 10, fontweight="bold" if number == 0 else "normal",
            parse_math=False,
        )  # fmt: skip


def _draw_image(axis: Axes, image: Image.Image, name: str) -> None:
    axis.imshow(image)
    axis.axis("off")
    if name:
        shown = name if len(name) <= 42 else f"...{name[-39:]}"
        # A dollar sign would start a formula.
        axis.set_title(shown, fontsize=7.5, color=QUIET, y=-0.1, parse_math=False)


def _draw_waterfall(axis: Axes, explanation: Explanation, i: int) -> None:
    """Baseline, one bar for each step from where the last one ended, and the margin."""
    found = explanation.waterfall(i)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="x", labelsize=7, colors=QUIET, length=2)
    if found is None:
        axis.axis("off")
        axis.text(0, 0.5, "no evidence: the training images are missing", fontsize=8, color=DARK)
        return
    one, rival = (explanation.classnames[c] for c in (found.one, found.rival))
    values = [found.baseline, *(step.value for step in found.steps), found.margin]
    starts = [0.0, *(found.baseline + np.cumsum([0.0, *values[1:-2]])), 0.0]
    colours = [series_colour(found.one if v > 0 else found.rival) for v in values]
    places = range(len(values))
    axis.barh(places, values, left=starts, height=0.62, color=colours, alpha=0.9)
    axis.axvline(0, color="#444444", linewidth=0.8)
    ends = np.add(starts, values)
    low, high = min(0.0, *starts, *ends), max(0.0, *starts, *ends)
    axis.set_xlim(low - 0.22 * (high - low or 1), high + 0.3 * (high - low or 1))
    texts = [f"{values[0]:+.2f}", *_step_texts(explanation, i), f"{values[-1]:+.2f}"]
    for place, start, end, text in zip(places, starts, ends, texts, strict=True):
        axis.annotate(
            text, (max(start, end), place), xytext=(3, 0), textcoords="offset points", va="center",
            fontsize=7.5, color=DARK,
        )  # fmt: skip
    labels = ["average training image", *_step_labels(explanation, i), "this image"]
    axis.set_yticks(places, labels, fontsize=8, parse_math=False)
    axis.set_ylim(len(values) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.spines["bottom"].set_color("#bbbbbb")
    title = f"log-odds of {one} over {rival}\n(in brackets: effect on p({one}), points)"
    axis.set_title(title, fontsize=8.5, color=DARK, parse_math=False)


def _step_texts(explanation: Explanation, i: int) -> Sequence[str]:
    found = explanation.waterfall(i)
    texts = []
    for step in found.steps if found else ():
        effect = explanation.effect(i, step)
        texts.append(f"{step.value:+.2f}" + ("" if effect is None else f" ({100 * effect:+.1f})"))
    return texts


def _step_labels(explanation: Explanation, i: int) -> Sequence[str]:
    found = explanation.waterfall(i)
    labels = []
    for step in found.steps if found else ():
        text = f"{step.phrase} ({owners(explanation, step)})" if step.places else step.phrase
        labels.append(textwrap.fill(text, 50, max_lines=2))
    return labels
