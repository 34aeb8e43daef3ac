"""Remove the paths of a machine from texts: a page is shown to others."""

import re
import shlex
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

# An absolute path or one below a home folder, up to what ends a path within a sentence.
PATH = re.compile(r"(?<![\w.~/\\:])(?:~[\w.-]*[/\\]|/|[A-Za-z]:[/\\]|\\\\)[\w.][^\s,;\"'()<>]*")


def without_paths(text: str, folder: str | Path) -> str:
    """``text`` with paths below ``folder`` relative to it, and of other paths the last part."""
    for form in sorted({str(folder), str(Path(folder).absolute()), str(Path(folder).resolve())}):
        if form != ".":
            text = re.sub(rf"(?<![\w./\\-]){re.escape(form)}[/\\]", "", text)
    return PATH.sub(lambda match: last_part(match[0]), text)


def last_part(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def value_without_paths(value: Any, folder: str | Path) -> Any:
    """A setting (text, number or list) in the same way; a path in it may contain spaces."""
    if isinstance(value, list | tuple):
        return [value_without_paths(part, folder) for part in value]
    if not isinstance(value, str):
        return value
    whole = PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()
    if whole or value.startswith("~"):
        return last_part(value)
    return without_paths(value, folder)


def app_command(run: str | Path, folder: str | Path) -> str:
    """The command that opens a run below ``folder`` in a browser, without the machine's paths.

    The options in a run's folder, which may hold a path, are left out: where that name fits several
    runs, app.py lists them.
    """
    place = Path(run).absolute().relative_to(Path(folder).absolute())
    parts = [part for part in place.parts if "=" not in part]
    name = Path(folder).resolve().name
    if not parts:
        return shlex.join(["python", "app.py", name])
    where = [] if name == "output" else ["--runs", name]
    return shlex.join(["python", "app.py", "/".join(parts), *where])
