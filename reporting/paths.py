"""Texts without what they tell of a machine: a page is shown to others."""

import re
from pathlib import Path, PurePosixPath, PureWindowsPath

# An absolute path or one of a home, up to what ends a path within a sentence.
PATH = re.compile(r"(?<![\w.~/\\:])(?:~[\w.-]*[/\\]|/|[A-Za-z]:[/\\]|\\\\)[\w.][^\s,;\"'()<>]*")


def without_paths(text, folder):
    """``text`` with paths below ``folder`` relative to it, and of others the last name."""
    for known in sorted({str(folder), str(Path(folder).absolute()), str(Path(folder).resolve())}):
        if known != ".":
            text = re.sub(rf"(?<![\w./\\-]){re.escape(known)}[/\\]", "", text)
    return PATH.sub(lambda match: last_name(match[0]), text)


def last_name(path):
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def value_without_paths(value, folder):
    """A setting (text, number or list) in the same way; a path in it may hold spaces."""
    if isinstance(value, list | tuple):
        return [value_without_paths(part, folder) for part in value]
    if not isinstance(value, str):
        return value
    whole = PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()
    if whole or value.startswith("~"):
        return last_name(value)
    return without_paths(value, folder)
