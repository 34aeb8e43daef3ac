"""Imports of libraries inside a run, so that a start does not wait for them."""

import importlib
import random
from typing import Any


def imported(name: str) -> Any:
    """The module ``name``; importing it draws nothing from Python's generator.

    SciPy and scikit-learn draw from it when they are imported. A run's draws must not depend on
    whether another one imported them before.
    """
    state = random.getstate()
    try:
        return importlib.import_module(name)
    finally:
        random.setstate(state)
