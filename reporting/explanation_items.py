"""What a page shows of one explained image: numbers and sentences, ready for the template."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.colours import GREY, series_colour
from engine.out_of_distribution import TrainingDistance
from explanations.drift import SymptomDrift, warning
from explanations.evidence import Step, Waterfall
from explanations.explanation import Explanation, softmax
from explanations.reliability import Reliability
from explanations.wording import disagreement, disagrees, owners, reason
from results.calibration import Calibration

NAMED = 3  # symptoms that a warning names
Places = Mapping[tuple[int, int], Reliability]


@dataclass(frozen=True)
class Trust:
    """What is known of a run beside its predictions.

    Attributes:
        calibration: None if the validation images are missing.
        reliability: of each symptom; empty if the training images are missing.
        distance: tells images that are unlike the training images; None where it is not known.
    """

    calibration: Calibration | None = None
    reliability: Places | None = None
    distance: TrainingDistance | None = None

    def confidence(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities; as they are where there is no calibration."""
        return self.calibration.apply(probabilities) if self.calibration else probabilities


def prediction(explanation: Explanation, i: int, trust: Trust) -> dict[str, Any]:
    """The predicted class of image ``i``, and how confident the run and its seeds are."""
    label = int(explanation.prediction[i])
    calibrated = trust.confidence(explanation.probabilities[i])
    found = {
        "class": explanation.classnames[label],
        "confidence": percent(calibrated[label]),
        "classes": dict(zip(explanation.classnames, 100 * calibrated, strict=True)),
        "uncalibrated": dict(
            zip(explanation.classnames, 100 * explanation.probabilities[i], strict=True)
        ),
    }
    if explanation.seed_logits is not None and len(explanation.seed_logits) > 1:
        seeds = trust.confidence(softmax(explanation.seed_logits[:, i]))[:, label]
        low, high = percent(seeds.min()), percent(seeds.max())
        found["seeds"] = f"{low} in all {len(seeds)} seeds"
        if low != high:
            found["seeds"] = f"{low} to {high} over {len(seeds)} seeds"
    return found


def percent(probability: float) -> str:
    """A probability as a doctor would say it; never certain."""
    if probability > 0.99:
        return "over 99\u00a0%"
    return "under 1\u00a0%" if probability < 0.01 else f"{100 * probability:.0f}\u00a0%"


def warned(explanation: Explanation, i: int, reliability: Places | None) -> str | None:
    """A sentence on the symptoms of the two classes that lost their meaning; None if none did."""
    found = explanation.waterfall(i)
    if found is None or not reliability:
        return None
    used = [step for step in found.steps if step.places]
    lost = [step for step in used if _lost(step, reliability)]
    if not lost:
        return None
    names = ": " + "; ".join(f"“{step.phrase}”" for step in lost) if len(lost) <= NAMED else ""
    return (
        f"{len(lost)} of the {len(used)} symptoms of this explanation lost their meaning in "
        f"training{names}. Do not interpret it by their words"
    )


def _lost(step: Step, reliability: Places | None) -> bool:
    """Whether a symptom lost its meaning, in any class that has it."""
    records = ((reliability or {}).get(place) for place in step.places)
    return any(own and own.is_lost for own in records)


def drifts(reliability: Places | None) -> list[SymptomDrift]:
    """The known drifts of all symptoms; of several seeds, each symptom's worst."""
    return [own.drift for own in (reliability or {}).values() if own.drift]


def warning_of(reliability: Places | None) -> str | None:
    """``warning`` about all symptoms, and of how many seeds it speaks."""
    text = warning(drifts(reliability))
    seeds = max((own.seeds[1] for own in (reliability or {}).values()), default=1)
    if text and seeds > 1:
        text += f" Each of them lost its meaning in at least one of the {seeds} seeds."
    return text


def evidence(explanation: Explanation, i: int, reliability: Places | None) -> dict[str, Any] | None:
    """The waterfall of image ``i``, its strongest reasons in words, and where signs disagree."""
    found = explanation.waterfall(i)
    if found is None:
        return None
    name = explanation.classnames[found.one]
    effects = [explanation.effect(i, step) for step in found.steps]
    return {
        "one": name,
        "rival": explanation.classnames[found.rival],
        "colours": (series_colour(found.one), series_colour(found.rival)),
        "bars": bars(found, explanation, effects, reliability),
        "reasons": [
            (sign, [_reason(explanation, i, step, reliability) for step in found.strongest(sign)])
            for sign in (1, -1)
        ],
        "disagreements": [
            disagreement(step, effect, name)
            for step, effect in zip(found.steps, effects, strict=True)
            if effect is not None and disagrees(step, effect)
        ],
    }


def _reason(
    explanation: Explanation, i: int, step: Step, reliability: Places | None
) -> dict[str, Any]:
    text = reason(explanation, i, step)
    return {"text": text, "value": step.value, "lost": _lost(step, reliability)}


def bars(
    found: Waterfall,
    explanation: Explanation,
    effects: list[float | None],
    reliability: Places | None,
) -> list[dict[str, Any]]:
    """The bars of a waterfall; left and width in per cent of the widest extent."""
    values = [found.baseline, *(step.value for step in found.steps), found.margin]
    starts = [0.0, *(found.baseline + np.cumsum([0.0, *values[1:-2]])), 0.0]
    ends = np.add(starts, values)
    low, high = min(0.0, *starts, *ends), max(0.0, *starts, *ends)
    span = (high - low) or 1.0
    labels = [
        {"phrase": "The average training image", "kind": "total"},
        *(_label(step, explanation, reliability) for step in found.steps),
        {"phrase": "This image", "kind": "total"},
    ]
    return [
        {"owner": "", "trust": [], "lost": False}
        | label
        | {
            "value": float(value),
            "effect": None if effect is None else 100 * effect,
            "left": 100 * (min(start, end) - low) / span,
            "width": 100 * abs(value) / span,
            "zero": -100 * low / span,
            "colour": _colour(label, value, found),
        }
        for label, value, start, end, effect in zip(
            labels, values, starts, ends, [None, *effects, None], strict=True
        )
    ]


def _colour(label: Mapping[str, Any], value: float, found: Waterfall) -> str:
    if label["kind"] == "own":
        return GREY
    return series_colour(found.one if value > 0 else found.rival)


def _label(step: Step, explanation: Explanation, reliability: Places | None) -> dict[str, Any]:
    if not step.places:
        return {"phrase": "No symptom: the learned tokens of the classes", "kind": "own"}
    records = [own for place in step.places if (own := (reliability or {}).get(place))]
    return {
        "phrase": step.phrase,
        "kind": "symptom",
        "owner": owners(explanation, step),
        "trust": [text for own in records for text in trusted(own)],
        "lost": _lost(step, reliability),
    }


def trusted(own: Reliability) -> list[str]:
    """A symptom's reliability in a few words."""
    parts = []
    if own.drift:
        parts.append(own.meaning)
        for area in own.drift.attributes:
            if area.after:
                parts.append(f"shows “{area.attribute}”: {_auc(area.after[0])}")
    if own.area:
        way = ", the wrong way round" if own.area[2] < 0.5 else ""
        parts.append(f"tells {own.classname} apart: {_auc(own.area[0])}{way}")
    return parts


def _auc(value: float) -> str:
    return f"AUC\u00a0{value:.2f}".replace("0.", ".")
