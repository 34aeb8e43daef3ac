"""Symptom files that a user edited: written under a new name, and read back."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import InputError, shortened
from core.files import parse_json, write_json
from core.names import prompt_name
from engine.loading import LoadedRun
from symptoms import SymptomFile, symptom_content

from .edits import Edited, edited_state

BY_HAND = "edited by hand"
LARGEST = 2_000_000  # characters of a file to read
THE_FILE = "the symptom file"
# Method -> the folder of scripts/ that trains it.
SCRIPTS = {"ViP": "vip", "ConceptBottleneck": "concept_bottleneck", "ZeroshotCLIP": "zeroshot"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}", re.ASCII)


def content_of(run: LoadedRun, edited: Edited) -> dict[str, Any]:
    """What the symptom file of a state holds.

    A class whose phrases differ from the run's has the provenance "edited by hand". A run reads the
    phrases that are switched on; what is off, and weights, are kept beside them for the page.
    """
    assert run.symptoms is not None
    provenance, details = {}, {}
    for name, phrases in edited.phrases.items():
        before = run.symptoms.provenance.get(name, "")
        provenance[name] = before
        if list(phrases) != run.symptoms.phrases.get(name):
            provenance[name] = f"{BY_HAND}; before: {before}" if before else BY_HAND
        weights = dict(zip(phrases, edited.weights[name], strict=True))
        extra = {
            "off": list(edited.off[name]),
            "weights": {text: weight for text, weight in weights.items() if weight != 1},
        }
        details[name] = {key: value for key, value in extra.items() if value}
    meta = {"provenance": BY_HAND, "edited from": str(run.symptoms.source)}
    phrases_of = {name: list(phrases) for name, phrases in edited.phrases.items()}
    return symptom_content(THE_FILE, phrases_of, provenance, meta, details)


def text_of(content: Mapping[str, Any]) -> str:
    """The file's text."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def save(folder: Path, name: Any, content: Mapping[str, Any]) -> Path:
    """Write ``folder``/``name``.json; the file must be new.

    Raises:
        InputError: the name is not one of letters, digits, - and _, there is such a file, or it
            cannot be written.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"the name {shortened(ascii(name), 40)} cannot be used; give 1 to 60 letters a-z, "
            "digits, - or _, without a folder and without .json"
        )
    path = folder / f"{name}.json"
    if path.exists() or path.is_symlink():
        raise InputError(f"{path} is there already; choose another name")
    try:
        write_json(path, content)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); the symptoms are not saved"
        ) from None
    return path


def training_command(run: LoadedRun, path: Path, edited: Edited) -> tuple[str, str]:
    """The command that trains the run's method on a file, and a sentence on what it leaves out.

    The command is empty where the file has classes that the dataset does not have.
    """
    if edited.new:
        names = ", ".join(edited.new)
        return "", f"not trainable as it is: the dataset has no images of {names}"
    cfg, method = run.cfg, run.cfg.TRAINER.NAME
    own = f"TRAINER.{method.upper()}.SYMPTOMS"
    words = ["bash", f"scripts/{SCRIPTS[method]}/main.sh", cfg.RUN.DATASET, cfg.RUN.BACKBONE]
    for key, value in (run.record.options if run.record else {}).items():
        if key not in (own, "TRAINER.ZEROSHOTCLIP.PROMPTS"):
            words += [key, value]
    words += [own, str(path)]
    command = " ".join(map(shlex.quote, words))
    if cfg.DATASET.ROOT != "data":
        command = f"DATA={shlex.quote(cfg.DATASET.ROOT)} {command}"
    note = ""
    if any(weight != 1 for weights in edited.weights.values() for weight in weights):
        note = "training reads the phrases and learns their weights itself; yours are not used"
    return command, note


def read(text: Any, trained: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The state in a symptom file's text.

    Args:
        trained: class name -> the run's symptoms; other classes of the file are new ones.

    Raises:
        InputError: it is not a symptom file, or lacks a class of the run.
    """
    if not isinstance(text, str) or len(text) > LARGEST:
        raise InputError(f"{THE_FILE} is a text of at most {LARGEST:,} characters")
    file = SymptomFile.of(parse_json(text.removeprefix("\ufeff"), THE_FILE), THE_FILE)
    names = {prompt_name(name): name for name in trained}
    state = []
    for name, entry in file.classes.items():
        extra = entry.model_extra or {}
        off, weights = extra.get("off", []), extra.get("weights", {})
        if not isinstance(off, list) or not isinstance(weights, dict):
            raise InputError(
                f"{THE_FILE}: class {shortened(repr(name))}: 'off' is a list of phrases and "
                "'weights' an object of numbers"
            )
        phrases = [
            {"text": text, "on": True, "weight": weights.get(text, 1.0)} for text in entry.phrases
        ]
        phrases += [{"text": text, "on": False, "weight": 1.0} for text in off]
        state.append({"class": names.get(name, name), "new": name not in names, "phrases": phrases})
    return edited_state(state, trained).state()
