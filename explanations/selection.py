"""Which pictures to explain."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.errors import InputError
from datasets.pictures import find_pictures

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

    A picture in a folder named as a class is taken to be of that class.

    Raises:
        InputError: nothing there, or a folder without pictures.
    """
    labels = {name.casefold(): label for label, name in enumerate(classnames)}
    chosen = []
    for path in map(Path, paths):
        if path.is_dir():
            files, _ = find_pictures(path)
            if not files:
                raise InputError(f"{path}: holds no pictures")
        elif path.exists():
            files = [path]
        else:
            raise InputError(f"{path}: there is no such picture or folder")
        for file in files:
            name = file.relative_to(path).as_posix() if path.is_dir() else file.name
            truth = labels.get(file.absolute().parent.name.casefold())
            chosen.append(Chosen(file, name, truth))
    return chosen


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
