"""Folders of a cache that several runs share: which are in use, and room for a new one."""

import errno
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_IN_USE = "in-use"


def hold(folder: Path) -> IO[str]:
    """Mark ``folder`` as in use and used now, for as long as the returned file stays open."""
    os.utime(folder)
    file = open(folder / _IN_USE, "a")
    if fcntl:
        fcntl.flock(file, fcntl.LOCK_SH)
    return file


def is_in_use(folder: Path) -> bool:
    """Whether a process holds ``folder``; without file locks, whether it was used in 24 hours."""
    if not fcntl:
        return time.time() - folder.stat().st_mtime < 86400
    with open(folder / _IN_USE, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def make_room(folders: Iterable[Path], needed: int, max_bytes: float, setting: str) -> None:
    """Delete those of ``folders`` that were unused longest until ``needed`` more bytes fit.

    Args:
        setting: the name of the setting that ``max_bytes`` comes from.

    Raises:
        OSError: they do not fit beside the folders in use.
    """
    sizes = {folder: sum(f.stat().st_size for f in folder.iterdir()) for folder in folders}
    for folder in sorted(sizes, key=lambda folder: folder.stat().st_mtime):
        if sum(sizes.values()) + needed <= max_bytes:
            return
        if not is_in_use(folder):
            shutil.rmtree(folder)
            del sizes[folder]
    if sum(sizes.values()) + needed > max_bytes:
        limit = f"the {max_bytes / 1e9:g} GB of {setting}"
        raise OSError(errno.EDQUOT, f"those in use fill {limit}")
