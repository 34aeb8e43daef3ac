"""Predictions and evidence in words."""

from collections.abc import Sequence

import numpy as np

from .evidence import Step
from .explanation import Explanation


def verdict(explanation: Explanation, i: int, truth: int | None = None) -> str:
    """One line: the prediction with its probability, and whether it is correct."""
    return verdict_on(explanation.classnames, explanation.probabilities[i], truth)


def verdict_on(
    classnames: Sequence[str], probabilities: np.ndarray, truth: int | None = None
) -> str:
    """As ``verdict``, on ``[n_cls]`` probabilities."""
    label = int(probabilities.argmax())
    text = f"{classnames[label]}, {100 * probabilities[label]:.1f} %"
    if truth is None:
        return f"predicted {text}"
    wrong = f"incorrect (true class: {classnames[truth]})"
    return f"predicted {text}: {'correct' if label == truth else wrong}"


def owners(explanation: Explanation, step: Step) -> str:
    """The class or classes whose symptom a step is."""
    return " and ".join(explanation.classnames[c] for c, _ in step.places)


def reason(explanation: Explanation, i: int, step: Step) -> str:
    """A step as a sentence: how the image compares with the average training image."""
    one = int(explanation.prediction[i])
    if len(step.places) > 1:
        more = "its similarity speaks for" if step.value > 0 else "its similarity speaks against"
        return f"“{step.phrase}” (a symptom of {owners(explanation, step)}): {more} the prediction"
    of_prediction = step.places[0][0] == one
    more = "more" if (step.value > 0) == of_prediction else "less"
    learned = ""
    if explanation.owns is not None and explanation.standardised is not None:
        # Its learned weights may let it speak for another class than its own.
        above = bool(explanation.standardised[i][step.places[0]] > 0)
        more = "more" if above else "less"
        class_of = one if (step.value > 0) == above else int(explanation.rival[i])
        learned = f", and by its learned weights it speaks for {explanation.classnames[class_of]}"
    return (
        f"“{step.phrase}” (a symptom of {owners(explanation, step)}): the image is {more} similar "
        f"to it than the average training image{learned}"
    )


def disagrees(step: Step, effect: float | None, least: float = 0.005) -> bool:
    """Whether a bar speaks for a class while the symptom makes it less probable, or the reverse.

    Args:
        effect: of the symptom on the probability. least: a smaller effect has no sign.
    """
    return effect is not None and abs(effect) >= least and (effect > 0) != (step.value > 0)


def disagreement(step: Step, effect: float, classname: str) -> str:
    """What a bar and an effect of opposite signs mean."""
    direction = "for" if step.value > 0 else "against"
    change = "more" if effect > 0 else "less"
    return (
        f"“{step.phrase}” speaks {direction} {classname} in this image, compared with the average "
        f"image, but having it in the list makes {classname} {change} probable "
        f"({100 * effect:+.1f} points): it shifts the class for all images alike"
    ).replace("(-", "(\u2212")
