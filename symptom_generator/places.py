"""Where a generation's files go: the symptom file, the one before it, the sheets of its page."""

import difflib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from core.errors import InputError
from core.files import atomic_write, fingerprint
from symptom_generator.pipeline import Generation
from symptom_generator.provenance import Content
from symptom_generator.transcript import Record
from symptoms import EDITED, SymptomFile, save_symptoms

Sheets = dict[tuple[str, int], bytes]  # (class, number) -> JPEG


def check_place(path: Path) -> None:
    """Raise InputError where no file can be written at ``path``; nothing is made."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the path of a file")
    above = path.parent
    while not os.path.lexists(above):
        above = above.parent
    if not above.is_dir():
        raise InputError(f"{path}: cannot be written, since {above} is not a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{path}: cannot be written; {above} is read-only")


def replace(path: Path, content: Content, yes: bool = False) -> bool:
    """Put the new symptom file in the place of ``path`` and keep the one before it.

    The differences are shown first. At a terminal the user is asked, unless ``yes``; elsewhere the
    answer is yes, since nothing is lost.

    Returns:
        False if the user said no.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        save_symptoms(new, *content)
        if path.exists():
            if path.read_bytes() == new.read_bytes():
                print(f"{path}: unchanged")
                return True
            _show_differences(path, content.phrases)
            if not yes and sys.stdin.isatty() and not _agreed(f"replace {path}? [y/N] "):
                print(f"{path} stays as it was; the same command offers the new one again")
                return False
            print(f"the previous file is kept as {kept_aside(path)}")
        os.replace(new, path)
        return True
    finally:
        new.unlink(missing_ok=True)


def _agreed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _show_differences(path: Path, phrases: dict[str, list[str]]) -> None:
    try:
        before = SymptomFile.read(path).classes
    except InputError as error:
        print(f"the previous file cannot be read: {error}")
        return
    for name in [*before, *(name for name in phrases if name not in before)]:
        if name in before and before[name].provenance.endswith(EDITED):
            print(f"{name}: the previous phrases were edited by hand")
        old, new = before[name].phrases if name in before else [], phrases.get(name, [])
        lines = difflib.unified_diff(old, new, n=99, lineterm="")
        body = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
        print("\n".join([f"{name}:", *(f"  {line}" for line in body or ["the same phrases"])]))


def kept_aside(path: Path) -> Path:
    """Copy ``path`` beside itself under a name that its content determines."""
    data = path.read_bytes()
    copy = path.with_name(f"{path.name}.{fingerprint(data)}.bak")
    with atomic_write(copy, "wb") as file:
        file.write(data)
    return copy


def slug(text: str) -> str:
    """``text`` as part of a file's name."""
    return re.sub(r"[^\w-]+", "_", text).strip("_")[:60] or "class"


def _sheet_file(folder: Path, settings: Record, classname: str, number: int) -> Path:
    place = settings["classes"].index(classname) + 1
    return folder / f"{place}-{slug(classname)}-{number + 1}.jpg"


def save_sheets(
    generation: Generation, sheets: Callable[[str, int], bytes], folder: Path
) -> Sheets:
    """Write every sheet as it is sent."""
    shown = {}
    for classname in generation.settings["classes"]:
        for question in generation.image_questions(classname):
            number = question.number
            data = shown[classname, number] = sheets(classname, number)
            with atomic_write(
                _sheet_file(folder, generation.settings, classname, number), "wb"
            ) as file:
                file.write(data)
    return shown


def saved_sheets(generation: Generation, folder: Path) -> Sheets:
    """The sheets of an earlier run that are in ``folder`` and are the ones that were sent."""
    shown = {}
    for classname in generation.settings["classes"]:
        for question in generation.image_questions(classname):
            line = generation.interview.answered(question)
            file = _sheet_file(folder, generation.settings, classname, question.number)
            if line and file.exists():
                data = file.read_bytes()
                if fingerprint(data) == line["messages"][0].get("sheet"):
                    shown[classname, question.number] = data
    return shown
