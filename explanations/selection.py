"""Which pictures to explain."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.errors import InputError
from core.names import name_key
from datasets import pictures

OUTCOMES = ("wrong", "right")


@dataclass(frozen=True)
class Chosen:
    """A picture to look at: its file, its name, its true label if that is known."""

    path: Path
    name: str
    truth: int | None = None


def pictures_of_split(run, split):
    """The pictures of a run's split as ``Chosen``."""
    return [Chosen(Path(p.impath), p.id, int(p.label)) for p in run.pictures(split)]


def pictures_at(paths, classnames=()):
    """The pictures that paths name: files, and folders with all that is below them.

    An image in a folder named as a class is taken to be of that class.

    Raises:
        InputError: nothing there, or a folder without images.
    """
    labels = {name_key(name): label for label, name in enumerate(classnames)}
    return [
        Chosen(file, name, labels.get(name_key(file.absolute().parent.name)))
        for file, name in pictures.pictures_at(paths)
    ]


def wanted(chosen, prediction, only=None, versus=None):
    """Indices of the pictures whose outcome is asked for.

    Args:
        chosen: ``Chosen`` pictures. prediction: [n] labels that the run gave.
        only: "right", "wrong" or None for both.
        versus: [n] labels that another run gave; then the pictures that one run gets right and the
            other wrong: this run right unless ``only`` is "wrong".

    Raises:
        InputError: the truth is asked for and not known.
    """
    if only is None and versus is None:
        return list(range(len(chosen)))
    unknown = [picture.name for picture in chosen if picture.truth is None]
    if unknown:
        raise InputError(
            f"{unknown[0]}: whether the answer is right is not known; choose from a split, or put "
            "the pictures into folders named as the classes"
        )
    truth = np.array([picture.truth for picture in chosen])
    right = prediction == truth
    keep = ~right if only == "wrong" else right
    if versus is not None:
        keep &= (versus == truth) == (only == "wrong")
    return np.flatnonzero(keep).tolist()
