"""What the runs of one process share: the dataset and the backbone of the run before.

Off unless a process makes several runs (scripts/workers.py). A run that reuses prints the same
lines, and its generators stand where making the thing anew would have left them. Of each kind the
last one is kept, so memory is bounded.
"""

import contextlib
import copy
import io
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from dassl_compat.checkpoints import random_state, set_random_state

T = TypeVar("T")


class _Kept(NamedTuple):
    key: Any
    value: Any
    printed: str
    random: dict[str, Any]  # the generators' state behind making it


class Reuse:
    """The last thing of each kind; ``on`` says whether anything is kept."""

    def __init__(self) -> None:
        self.on = False
        self._kept: dict[str, _Kept] = {}

    def __call__(self, kind: str, key: Any, make: Callable[[], T], copied: bool = False) -> T:
        """What ``make`` gives, or gave for the same key.

        Args:
            key: everything that the thing follows from, the seed of the draws included. A dataset's
                has no times of its files: they must not change while a process makes its runs.
            copied: every run gets a copy, because runs change it.
        """
        if not self.on:
            return make()
        kept = self._kept.get(kind)
        if kept is None or kept.key != key:
            kept = None
            self._kept.pop(kind, None)  # first, so that two never need memory at once
            text = io.StringIO()
            try:
                with contextlib.redirect_stdout(text):
                    value = make()
            finally:
                print(text.getvalue(), end="", flush=True)
            kept = self._kept[kind] = _Kept(key, value, text.getvalue(), random_state())
        else:
            print(kept.printed, end="", flush=True)
            set_random_state(kept.random)
        return copy.deepcopy(kept.value) if copied else kept.value


reuse = Reuse()
