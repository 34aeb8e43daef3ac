"""Do the model's answers agree with what the dataset records of its images?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.pictures import Picture
from explanations.attributes import PAIRS, read_pairs, shown_attributes, true_attributes
from vision_llm.asking import ImageAnswers
from vision_llm.questions import ABSENT, PRESENT


@dataclass(frozen=True)
class Agreement:
    """The answers for one sign against the attribute that it describes.

    Attributes:
        attribute: in words. images: whose attribute is known. shown: that have it.
        judged: answered with present or absent. agree: of these, those that are correct.
    """

    sign: str
    attribute: str
    images: int
    shown: int
    judged: int
    agree: int

    @property
    def share(self) -> float | None:
        return self.agree / self.judged if self.judged else None


def agreements(
    dataset: Any,
    name: str,
    images: Sequence[Picture],
    answers: Sequence[ImageAnswers],
    folder: Path = PAIRS,
) -> list[Agreement]:
    """One for each sign that ``symptoms/attribute_pairs/<dataset>.json`` pairs with an attribute.

    Empty where there is no such file or the dataset records no attributes.
    """
    path, truth = folder / f"{name}.json", true_attributes(dataset)
    if not path.exists() or not truth:
        return []
    signs = {answer.sign.casefold(): answer.sign for each in answers for answer in each.signs}
    pairs = [pair for pair in read_pairs(path) if pair[0].casefold() in signs]
    found = []
    for pair in shown_attributes([image.id for image in images], truth, pairs, path):
        sign = signs[pair.symptom.casefold()]
        said = np.array([_answer(answers[place], sign) for place in pair.places], dtype=str)
        judged = (said == PRESENT) | (said == ABSENT)
        agree = judged & ((said == PRESENT) == pair.shown)
        counts = (len(said), int(pair.shown.sum()), int(judged.sum()), int(agree.sum()))
        found.append(Agreement(sign, pair.attribute, *counts))
    return found


def _answer(answers: ImageAnswers, sign: str) -> str:
    return next((answer.answer for answer in answers.signs if answer.sign == sign), "")
