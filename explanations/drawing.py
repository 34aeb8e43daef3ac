"""Explanations as pictures, after the paper's Fig. 3 II."""

import textwrap

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from .explanation import OWN

# Okabe and Ito's colours: told apart by colour-blind readers too.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#666666"
MOST_CLASSES = 4  # bars of more would not be read
LINE = 0.17  # inches of one line of a label


def class_colour(label):
    return COLOURS[label % len(COLOURS)]


def shown_classes(explanation, i, truth=None):
    """The labels to draw: the true class and the most probable ones, in the classes' order."""
    ranked = np.argsort(-explanation.probabilities[i], kind="stable").tolist()
    if truth is not None:
        ranked = [truth, *(c for c in ranked if c != truth)]
    return sorted(ranked[:MOST_CLASSES])


def verdict(explanation, i, truth=None):
    """One line: the prediction with its probability, and whether it is right."""
    label = int(explanation.prediction[i])
    text = f"{explanation.classnames[label]}, {100 * explanation.probabilities[i, label]:.1f} %"
    if truth is None:
        return f"predicted {text}"
    mark = "right" if label == truth else f"wrong, it is {explanation.classnames[truth]}"
    return f"predicted {text}: {mark}"


def draw_explanation(image, explanation, i, truth=None, name="", changed=None, other=""):
    """The picture, a bar for each symptom coloured by its class, the verdict and the truth.

    Args:
        image: PIL picture. explanation: ``Explanation``; ``i`` is the picture's place in it.
        truth: the true label, if it is known.
        changed: ``Explanation`` with other symptoms, drawn beside.
        other: a line on what another run answered.

    Returns:
        a matplotlib ``Figure``.
    """
    classes = shown_classes(explanation, i, truth)
    rows = _rows(explanation, changed, i, classes)
    labels = [textwrap.fill(row["symptom"], 42) for row in rows]
    heights = [max(0.3, LINE * (1 + label.count("\n")) + 0.1) for label in labels]
    gaps = [0.3 if k and rows[k]["c"] != rows[k - 1]["c"] else 0.0 for k in range(len(rows))]
    centres = np.cumsum(np.add(heights, gaps)) - np.divide(heights, 2)
    total = float(centres[-1] + heights[-1] / 2)
    columns = 2 if changed is None else 3
    head = 0.55 + 0.2 * ((changed is not None) + bool(other))
    picture, words, bars = 2.9, 2.75, 2.1
    height = max(total + head + 0.75, picture + head + 0.55)
    width = picture + words + columns * bars + 0.5
    figure = Figure(figsize=(width, height), facecolor="white")

    axis = figure.add_axes(
        (0.15 / width, (height - head - picture) / height, picture / width, picture / height)
    )
    axis.imshow(image)
    axis.axis("off")
    if name:
        shown = name if len(name) <= 46 else f"...{name[-43:]}"
        axis.set_title(shown, fontsize=7.5, color=GREY, y=-0.09)
    lines = [(verdict(explanation, i, truth), _verdict_colour(explanation, i, truth))]
    if changed is not None:
        lines[0] = (f"as trained: {lines[0][0]}", lines[0][1])
        lines.append((f"what if: {verdict(changed, i, truth)}", _verdict_colour(changed, i, truth)))
    if other:
        lines.append((other, GREY))
    for number, (text, colour) in enumerate(lines):
        figure.text(
            0.15 / width, 1 - (0.26 + 0.21 * number) / height, text, color=colour,
            fontsize=11 if number == 0 else 10, fontweight="bold" if number == 0 else "normal",
        )  # fmt: skip

    left = 0.15 + picture + words
    bottom = height - head - 0.12 - total
    panels = [_similarity_panel(explanation)]
    panels.append(("contribution", "contribution to the logit", "{:+.1f}"))
    if changed is not None:
        panels.append(("changed", "contribution, what if", "{:+.1f}"))
    shared = [r[k] for r in rows for k in ("contribution", "changed") if r.get(k) is not None]
    for column, (key, title, form) in enumerate(panels):
        place = (
            (left + column * bars + 0.12) / width,
            bottom / height,
            (bars - 0.22) / width,
            total / height,
        )
        axis = figure.add_axes(place)
        values = [row.get(key) for row in rows]
        _bars(axis, centres, heights, values, rows, form, None if key == "score" else shared)
        axis.set_ylim(total, 0)
        axis.set_title(title, fontsize=8.5, color="#333333", pad=14)
        if column == 0:
            axis.set_yticks(centres, labels, fontsize=8)
            for tick, row in zip(axis.get_yticklabels(), rows, strict=True):
                tick.set_color(GREY if row["symptom"] == OWN else "#111111")
            _class_names(axis, rows, centres, heights, explanation, changed, i)
        else:
            axis.set_yticks([])
    return figure


def _similarity_panel(explanation):
    if explanation.standardised is None:
        return ("score", "cosine similarity", "{:.3f}")
    return ("score", "similarity, standardised", "{:+.1f}")


def _rows(explanation, changed, i, classes):
    """One dict a bar, class by class; with ``changed`` also what was added or dropped."""
    plain = explanation.standardised is None
    scores = explanation.parts.similarity if plain else explanation.standardised
    rows = []
    for c in classes:
        name = explanation.classnames[c]
        own = explanation.phrases[name]
        new = changed.phrases[name] if changed is not None else own
        for phrase in [*own, *(p for p in new if p not in own)]:
            source = explanation if phrase in own else changed
            j = source.phrases[name].index(phrase)
            if source is not explanation:
                plain_other = changed.standardised is None or plain
                other = changed.parts.similarity if plain_other else changed.standardised
                score = other[i, c, j]
            else:
                score = scores[i, c, j]
            row = {"c": c, "symptom": phrase, "score": score}
            if phrase in own:
                row["contribution"] = explanation.parts.symptom[i, c, j]
            if changed is not None and phrase in new:
                row["changed"] = changed.parts.symptom[i, c, new.index(phrase)]
            rows.append(row)
        if explanation.parts.own.any():
            row = {"c": c, "symptom": OWN, "contribution": explanation.parts.own[i, c]}
            if changed is not None:
                row["changed"] = changed.parts.own[i, c]
            rows.append(row)
    return rows


def _bars(axis, centres, heights, values, rows, form, shared):
    known = [0.0 if value is None or np.isnan(value) else value for value in values]
    axis.barh(
        centres,
        known,
        height=[0.62 * min(h, 0.34) for h in heights],
        color=[class_colour(row["c"]) for row in rows],
        alpha=0.9,
    )
    axis.axvline(0, color="#444444", linewidth=0.8)
    among = known if shared is None else shared
    low, high = min(0, *among), max(0, *among)
    span = (high - low) or 1.0
    axis.set_xlim(low - (0.3 if low < 0 else 0.02) * span, high + 0.3 * span)
    for centre, value in zip(centres, values, strict=True):
        if value is None or np.isnan(value):
            continue
        side = 1 if value >= 0 else -1
        axis.annotate(
            form.format(value),
            (value, centre),
            xytext=(3 * side, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            fontsize=7.5,
            color="#333333",
        )
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.tick_params(axis="x", labelsize=7, colors=GREY, length=2)
    axis.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color("#bbbbbb")


def _class_names(axis, rows, centres, heights, explanation, changed, i):
    """The class and its probability, above its first bar."""
    seen = set()
    for row, centre, height in zip(rows, centres, heights, strict=True):
        c = row["c"]
        if c in seen:
            continue
        seen.add(c)
        text = f"{explanation.classnames[c]}, {100 * explanation.probabilities[i, c]:.1f} %"
        if changed is not None:
            text += f" → {100 * changed.probabilities[i, c]:.1f} %"
        axis.annotate(
            text,
            (0, centre - height / 2),
            xycoords=axis.get_yaxis_transform(),
            xytext=(-5, 3),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=9,
            fontweight="bold",
            color=class_colour(c),
        )


def _verdict_colour(explanation, i, truth):
    if truth is None:
        return "#111111"
    return "#1a6b3c" if explanation.prediction[i] == truth else "#a11d1d"


def draw_faithfulness(curves, summaries):
    """Deletion and insertion by contribution against the random order. Returns a ``Figure``."""
    figure = Figure(figsize=(4.2 * len(curves), 3.3), layout="constrained", facecolor="white")
    axes = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
    for axis, (measure, curve) in zip(axes, curves.items(), strict=True):
        shares = np.linspace(0, 1, curve.random.shape[1])
        for values, colour, label in (
            (curve.by_contribution, COLOURS[0], "by contribution"),
            (curve.random, GREY, "in random order"),
        ):
            mean = values.mean(axis=0)
            margin = 1.96 * values.std(axis=0) / np.sqrt(len(values))
            axis.plot(shares, mean, color=colour, marker="o", markersize=3.5, label=label)
            axis.fill_between(shares, mean - margin, mean + margin, color=colour, alpha=0.18, lw=0)
        row = next(row for row in summaries if row["measure"] == measure)
        axis.set_title(
            f"{measure}: {row['gain']:+.2f} logits sooner [{row['low']:+.2f}, {row['high']:+.2f}]",
            fontsize=9,
        )
        done = "taken away" if measure == "deletion" else "brought in"
        axis.set_xlabel(f"symptoms {done} (one always stays)", fontsize=8.5)
        axis.xaxis.set_major_formatter(PercentFormatter(1))
        axis.tick_params(labelsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    axes[0].set_ylabel(
        "logit of the predicted class,\nless its value with all symptoms", fontsize=8.5
    )
    axes[0].legend(fontsize=8, frameon=False)
    return figure


def draw_areas(rows):
    """AUC of each symptom's similarity against its attribute, with intervals. A ``Figure``."""
    known = [row for row in rows if row["auc"] is not None]
    figure = Figure(figsize=(7.6, 0.42 * len(known) + 1.1), layout="constrained", facecolor="white")
    axis = figure.subplots()
    classes = list(dict.fromkeys(row["class"] for row in known))
    for place, row in enumerate(known):
        colour = class_colour(classes.index(row["class"]))
        axis.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2)
        axis.plot(row["auc"], place, "o", color=colour, markersize=5)
    labels = [textwrap.fill(f"{row['symptom']} ({row['class']})", 60, max_lines=2) for row in known]
    axis.set_yticks(range(len(known)), labels, fontsize=7.5)
    axis.set_ylim(len(known) - 0.5, -0.5)
    axis.axvline(0.5, color=GREY, linewidth=0.8, linestyle="--")
    axis.set_xlim(0, 1.02)
    axis.set_xlabel("AUC of similarity against the true attribute (0.5: chance)", fontsize=8.5)
    axis.tick_params(axis="x", labelsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    return figure
