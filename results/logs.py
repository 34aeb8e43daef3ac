"""Logs of other CoOp-family code: their final figures, rounded to a tenth of a point."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from core.errors import InputError
from results.record import Record, shortened, to_stderr

RESULT = re.compile(r"^\* (accuracy|macro_f1): *([\d.]+)%", re.MULTILINE)
EPOCH = re.compile(r"^epoch *\[\d+/\d+\]", re.MULTILINE)
BACKBONE = re.compile(r"(vit_[bl]\d+(?:_\d+)?|rn\d+(?:x\d+)?)", re.IGNORECASE)
FAMILY = ("ZeroshotCLIP2", "ZeroshotCLIP", "CoOp", "CoCoOp", "KgCoOp", "MaPLe", "ProGrad", "ViP")


def is_log(name: str) -> bool:
    return name == "log.txt" or name.startswith("log.txt-")


def read_logs(
    folder: Path, root: Path, say: Callable[[str], Any] = to_stderr
) -> tuple[Record, Path, str]:
    """The record of a folder with only logs, the folder, and the log that it was read from.

    It is the newest log that reached the final test. Dassl writes the first log to log.txt and each
    later one to log.txt-<date>, so log.txt is the oldest and the dates sort as text.

    Raises:
        InputError: no log has a final result, or one that cannot be; or nothing says what was run.
    """
    try:
        logs = sorted(path for path in folder.iterdir() if is_log(path.name))
        texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in logs}
        figures = {path: found for path in logs if (found := final_figures(texts[path]))}
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from None
    if not figures:
        raise InputError(f"{folder}: no final result in {', '.join(path.name for path in logs)}")
    newest = list(figures)[-1]
    others = [path.name for path in logs if path != newest]
    if others:
        say(f"{folder}: read {newest.name}; not used: {', '.join(others)} (older or unfinished)")
    found = figures[newest]
    for name, value in found.items():
        if not 0 <= value <= 1:
            raise InputError(f"{newest}: {name} is {100 * value:.1f} %, not between 0 and 100 %")
    entries = {"format": 1, "metrics": {"macro_f1": None, **found}}
    entries |= _identity(folder, root, dumped_config(texts[newest]))
    try:
        return Record.model_validate(entries, strict=False), folder, newest.name
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{newest}: {where} is {shortened(first['input'])}") from None


def final_figures(text: str) -> dict[str, float] | None:
    """Fractions of the last test in a log, or None where training did not end or gave no result."""
    finished = text.rfind("Finish training")
    if finished < 0 and EPOCH.search(text):
        return None
    result = text.rfind("=> result", max(finished, 0))
    if result < 0:
        return None
    try:
        values = {name: float(value) / 100 for name, value in RESULT.findall(text, result)}
    except ValueError:  # 81.1.1
        return None
    return values if "accuracy" in values else None  # early Dassl prints no macro F1


def dumped_config(text: str) -> dict[str, str]:
    """The configuration printed at a log's head, as dotted KEY -> text; empty where there is none.

    It is printed as indented ``KEY: value`` lines, which are not always YAML.
    """
    head = re.search(r"^\*+\n\*\* Config \*\*\n\*+\n", text, re.MULTILINE)
    config: dict[str, str] = {}
    parents: list[str] = []
    for line in text[head.end() :].splitlines() if head else []:
        match = re.fullmatch(r"( *)([A-Z][A-Z0-9_]*):(?: (.*))?", line)
        if not match:
            break
        depth = len(match[1]) // 2
        parents = parents[:depth] + [match[2]]
        if match[3] is not None:
            config[".".join(parents)] = match[3].strip()
    return config


def backbone_slug(name: str) -> str:
    """ViT-B/16 -> vit_b16, RN50x64 -> rn50x64: the names of the files in configs/backbones."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower().replace("/", "").removesuffix("px")).strip("_")


def _identity(folder: Path, root: Path, config: dict[str, str]) -> dict[str, Any]:
    """Dataset, trainer, backbone, seed and more, from the log's configuration or the folders."""
    parts = folder.absolute().relative_to(root.absolute()).parts
    # The folder the user named may itself be a dataset's or a trainer's.
    parts = root.absolute().parts[-3:] + parts
    lower = [part.lower() for part in parts]
    trainer = config.get("TRAINER.NAME") or _first(
        name for part in lower[::-1] for name in FAMILY if name.lower() == part
    )
    at = lower.index(trainer.lower()) if trainer and trainer.lower() in lower else None
    seed_part = _first(part for part in lower[::-1] if re.fullmatch(r"seed_?\d+", part))
    before = [part for part in lower[:at] if not part.startswith("shots")] if at else []
    # What tells two settings of one method apart.
    between = [p for p in parts[at + 1 :] if p.lower() != seed_part] if at is not None else []
    match = re.search(r"(\d+)shots|shots_(\d+)", "/".join(lower))
    found = {
        "dataset": config.get("DATASET.NAME", "").lower() or _first(reversed(before)),
        "trainer": trainer,
        "backbone": config.get("MODEL.BACKBONE.NAME")
        or _first(name[1] for part in lower[::-1] if (name := BACKBONE.search(part))),
        "seed": config.get("SEED") or (seed_part and re.sub(r"\D", "", seed_part)),
    }
    if unknown := [name for name, value in found.items() if not value]:
        raise InputError(
            f"{folder}: neither the log nor the names of folders state the {', '.join(unknown)}"
        )
    return {
        **found,
        "backbone": backbone_slug(found["backbone"]),
        "variant": _variant(between),
        "shots": config.get("DATASET.NUM_SHOTS") or (match and (match[1] or match[2])) or -1,
        "subsample_classes": config.get("DATASET.SUBSAMPLE_CLASSES", "all"),
    }


def _variant(parts: Sequence[str]) -> str:
    """The folders between trainer and seed, less the backbone, which is a column of its own."""
    kept = BACKBONE.sub("", "/".join(parts)).replace("__", "_")
    return re.sub(r"^_+|_+$", "", kept).strip("/") or "default"


def _first(values: Iterable[Any]) -> Any:
    return next(iter(values), None)
