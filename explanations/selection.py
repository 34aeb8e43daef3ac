"""Which images to explain."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.errors import InputError
from core.names import name_key
from datasets import pictures
from engine.loading import LoadedRun

OUTCOMES = ("incorrect", "correct")


@dataclass(frozen=True)
class Chosen:
    """An image to explain: its file, its name, its true label if that is known."""

    path: Path
    name: str
    truth: int | None = None


def pictures_of_split(run: LoadedRun, split: str) -> list[Chosen]:
    """The images of a run's split."""
    return [Chosen(Path(p.impath), p.id, int(p.label)) for p in run.pictures(split)]


def pictures_at(paths: Iterable[str | Path], classnames: Sequence[str] = ()) -> list[Chosen]:
    """The images that paths name: files, and folders with all that is below them.

    An image in a folder named after a class is taken to be of that class.

    Raises:
        InputError: nothing there, or a folder without images.
    """
    labels = {name_key(name): label for label, name in enumerate(classnames)}
    return [
        Chosen(file, name, labels.get(name_key(file.absolute().parent.name)))
        for file, name in pictures.pictures_at(paths)
    ]


def with_outcome(
    chosen: Sequence[Chosen],
    prediction: np.ndarray,
    outcome: str | None = None,
    versus: np.ndarray | None = None,
) -> list[int]:
    """Indices of the images with the requested outcome.

    Args:
        chosen: n images. prediction: [n] labels that the run predicts.
        outcome: one of ``OUTCOMES``; None for both.
        versus: [n] labels that another run predicts; then the images that exactly one of the two
            runs classifies correctly: this run, or the other if ``outcome`` is "incorrect".

    Raises:
        InputError: the outcome of an image is not known.
    """
    if outcome is None and versus is None:
        return list(range(len(chosen)))
    unknown = [image.name for image in chosen if image.truth is None]
    if unknown:
        raise InputError(
            f"{unknown[0]}: its true class is not known; choose images of a split, or put the "
            "images into folders named after the classes"
        )
    truth = np.array([image.truth for image in chosen])
    keep = (prediction == truth) != (outcome == "incorrect")
    if versus is not None:
        keep &= (versus == truth) == (outcome == "incorrect")
    return np.flatnonzero(keep).tolist()


def balanced(order: Sequence[int], truth: np.ndarray, count: int) -> list[int]:
    """The first ``count`` of ``order``, taken from each class in turn.

    Args:
        order: indices of images, the first choice first. truth: [n] labels.

    Returns:
        at most ``count`` indices in the order of ``order``; no class has two images more than
        another that has images left.
    """
    by_class: dict[int, list[int]] = {}
    for i in order:
        by_class.setdefault(int(truth[i]), []).append(int(i))
    turns = [(turn, place) for own in by_class.values() for turn, place in enumerate(own)]
    # Within a turn the classes come in the order of their choices.
    rank = {int(i): position for position, i in enumerate(order)}
    taken = {i for _, i in sorted(turns, key=lambda pair: (pair[0], rank[pair[1]]))[:count]}
    return [int(i) for i in order if int(i) in taken]
