"""Reading runs: this project's results.json, and the logs of other CoOp-family code.

A run's folder holds results.json (written last, so a run without it has not ended), predictions.csv
and config.yaml. Other code of the family leaves a log.txt only, with figures rounded to a tenth of
a point.
"""

import csv
import json
import math
import os
import re
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import yaml

from core.errors import InputError
from results import statistics

FORMAT = 1
# Options that change the task for every method; a table of its own rather than a row.
TASK_OPTIONS = ("DATASET.NUM_SHOTS", "DATASET.SUBSAMPLE_CLASSES")


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run. Metrics are fractions; None where the method does not apply."""

    dataset: str
    trainer: str
    backbone: str
    seed: int
    folder: Path
    metrics: dict | None
    variant: str = "default"
    options: dict = field(default_factory=dict)  # non-default KEY -> value, without TASK_OPTIONS
    symptom_file: str | None = None
    symptom_fingerprint: str | None = None
    trained_on: str | None = None  # another dataset than ``dataset``: an external test
    shots: int = -1
    subsample_classes: str = "all"
    origin: str = "results.json"  # or the name of a log
    record: dict = field(default_factory=dict)  # results.json as read

    @property
    def key(self):
        """What must be alike for two runs to be seeds or backbones of one row."""
        foreign = self.variant if self.origin != "results.json" else None
        options = tuple(sorted((key, str(value)) for key, value in self.options.items()))
        return (
            self.dataset,
            self.trained_on,
            self.shots,
            self.subsample_classes,
            self.trainer,
            options,
            self.symptom_fingerprint,
            foreign,
        )

    def option(self, name, default=None):
        """The run's own value of TRAINER.<trainer>.<name>, as text, or ``default``."""
        return str(self.options.get(f"TRAINER.{self.trainer.upper()}.{name}", default))

    @property
    def classnames(self):
        return tuple(self.record.get("classnames", ()))

    @property
    def class_counts(self):
        return self.record.get("class_counts", {})

    def predictions(self):
        """The run's answers on its test pictures.

        Raises:
            InputError: if predictions.csv is missing, broken or not of this results.json.
        """
        return self._predictions

    @cached_property
    def _predictions(self):
        path = self.folder / "predictions.csv"
        if self.origin != "results.json":
            raise InputError(
                f"{self.folder}: {self.origin} holds no predictions of single pictures"
            )
        try:
            with open(path, newline="", encoding="utf-8") as file:
                predictions = _read_predictions(csv.DictReader(file), self.classnames)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{path}: broken or of another format ({error})") from None
        accuracy = predictions.right.mean()
        if not math.isclose(accuracy, self.metrics["accuracy"], abs_tol=1e-6):
            raise InputError(
                f"{path}: its accuracy {accuracy:.4f} is not the {self.metrics['accuracy']:.4f} of "
                "results.json; one of the two is of another run"
            )
        return predictions

    @cached_property
    def config(self):
        """config.yaml as dotted KEY -> value, or None where there is none to read."""
        try:
            text = (self.folder / "config.yaml").read_text(encoding="utf-8")
            return flatten(yaml.safe_load(text))
        except (OSError, yaml.YAMLError, AttributeError):
            return None


def flatten(node, prefix=""):
    """Nested dict -> dotted KEY -> value."""
    flat = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _read_predictions(rows, classnames):
    index = {name: i for i, name in enumerate(classnames)}
    pictures, labels, predicted, probabilities, subtypes = [], [], [], [], []
    for row in rows:
        pictures.append(row["picture"])
        labels.append(index[row["label"]])
        predicted.append(index[row["prediction"]])
        probabilities.append([float(row[f"p({name})"]) for name in classnames])
        subtypes.append(row.get("subtype") or "")
    if not pictures:
        raise ValueError("no pictures")
    if len(set(pictures)) != len(pictures):
        raise ValueError("a picture appears twice")
    return statistics.Predictions(
        np.array(pictures),
        np.array(labels),
        np.array(predicted),
        np.array(probabilities),
        tuple(classnames),
        np.array(subtypes),
    )


def _to_stderr(line):
    print(line, file=sys.stderr)


def find_runs(folder, say=_to_stderr):
    """All finished runs below a folder, sorted; whatever is left out is said in one line each.

    Args:
        folder: where to look.
        say: called with each line about a run that is skipped or a log that is stale.

    Raises:
        InputError: if there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name the one that holds the runs")
    runs = []
    for place, subfolders, files in os.walk(folder):
        subfolders.sort()
        place = Path(place)
        try:
            if "results.json" in files:
                runs.append(read_results(place))
            elif "config.yaml" in files:
                say(f"{place}: unfinished (no results.json), skipped")
            elif any(_is_log(name) for name in files):
                runs.append(read_logs(place, folder, say))
        except InputError as error:
            say(f"{error}, skipped")
    return _without_copies(
        sorted(runs, key=lambda run: (str(run.key), run.backbone, run.seed, str(run.folder))), say
    )


def _without_copies(runs, say):
    kept = {}
    for run in runs:
        first = kept.setdefault((run.key, run.backbone, run.seed), run)
        if first is not run:
            say(f"{run.folder}: a second run of what {first.folder} holds, skipped")
    return list(kept.values())


def read_results(folder):
    """The run of a folder with a results.json.

    Raises:
        InputError: if the file is half-written, of another format or without its figures.
    """
    path = folder / "results.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise InputError(f"{path}: half-written or not JSON") from None
    if not isinstance(record, dict) or "format" not in record:
        raise InputError(f"{path}: not a results file of this project (no format)")
    if record["format"] != FORMAT:
        raise InputError(f"{path}: format {record['format']!r}, this version reads {FORMAT}")
    missing = [k for k in ("dataset", "trainer", "backbone", "seed", "metrics") if k not in record]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}")
    metrics = record["metrics"]
    if metrics is None and not record.get("does_not_apply"):
        raise InputError(f"{path}: no metrics and no reason why")
    if metrics is not None and not _has_figures(metrics):
        raise InputError(f"{path}: accuracy and macro_f1 are not two fractions")
    options = record.get("options") or {}
    return Run(
        dataset=record["dataset"],
        trainer=record["trainer"],
        backbone=record["backbone"],
        seed=record["seed"],
        folder=folder,
        metrics=metrics,
        variant=record.get("variant", "default"),
        options={key: value for key, value in options.items() if key not in TASK_OPTIONS},
        symptom_file=record.get("symptom_file"),
        symptom_fingerprint=record.get("symptom_fingerprint"),
        trained_on=_other_dataset(record),
        shots=record.get("shots", options.get("DATASET.NUM_SHOTS", -1)),
        subsample_classes=record.get("subsample_classes", "all"),
        record=record,
    )


def _has_figures(metrics):
    values = (
        [metrics.get(k) for k in ("accuracy", "macro_f1")] if isinstance(metrics, dict) else [None]
    )
    return all(isinstance(v, int | float) and 0 <= v <= 1 for v in values)


def _other_dataset(record):
    origin = record.get("trained_on")
    if isinstance(origin, dict):
        origin = origin.get("dataset")
    return origin if origin != record["dataset"] else None


# Logs of other CoOp-family code

RESULT = re.compile(r"^\* (accuracy|macro_f1): *([\d.]+)%", re.MULTILINE)
EPOCH = re.compile(r"^epoch *\[\d+/\d+\]", re.MULTILINE)
BACKBONE = re.compile(r"(vit_[bl]\d+(?:_\d+)?|rn\d+(?:x\d+)?)", re.IGNORECASE)
FAMILY = ("ZeroshotCLIP2", "ZeroshotCLIP", "CoOp", "CoCoOp", "KgCoOp", "MaPLe", "ProGrad", "ViP")


def _is_log(name):
    return name == "log.txt" or name.startswith("log.txt-")


def read_logs(folder, root, say=_to_stderr):
    """The run of a folder with only logs: the newest log that reached the final test.

    Dassl writes the first log to log.txt and each later one to log.txt-<date>, so log.txt is the
    oldest and the dates sort as text.

    Raises:
        InputError: if no log holds a final result or nothing says what was run.
    """
    logs = sorted(path for path in folder.iterdir() if _is_log(path.name))
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in logs}
    figures = {path: figures for path in logs if (figures := final_figures(texts[path]))}
    if not figures:
        raise InputError(f"{folder}: no final result in {', '.join(path.name for path in logs)}")
    newest = list(figures)[-1]
    others = [path.name for path in logs if path != newest]
    if others:
        say(f"{folder}: read {newest.name}; left aside {', '.join(others)} (older or unfinished)")
    config = dumped_config(texts[newest])
    return Run(
        folder=folder,
        metrics=figures[newest],
        origin=newest.name,
        record={"classnames": [], "log": newest.name},
        **_identity(folder, root, config),
    )


def final_figures(text):
    """Fractions of the last test in a log, or None where training did not end or gave no result."""
    finished = text.rfind("Finish training")
    if finished < 0 and EPOCH.search(text):
        return None
    result = text.rfind("=> result", max(finished, 0))
    if result < 0:
        return None
    values = {name: float(value) / 100 for name, value in RESULT.findall(text, result)}
    return values if "accuracy" in values else None  # early Dassl prints no macro F1


def dumped_config(text):
    """The configuration printed at a log's head, as dotted KEY -> text; empty where there is none.

    It is printed as indented ``KEY: value`` lines, which are not always YAML.
    """
    head = re.search(r"^\*+\n\*\* Config \*\*\n\*+\n", text, re.MULTILINE)
    config, parents = {}, []
    for line in text[head.end() :].splitlines() if head else []:
        match = re.fullmatch(r"( *)([A-Z][A-Z0-9_]*):(?: (.*))?", line)
        if not match:
            break
        depth = len(match[1]) // 2
        parents = parents[:depth] + [match[2]]
        if match[3] is not None:
            config[".".join(parents)] = match[3].strip()
    return config


def backbone_slug(name):
    """ViT-B/16 -> vit_b16, RN50x64 -> rn50x64: the names of the files in configs/backbones."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower().replace("/", "").removesuffix("px")).strip("_")


def _identity(folder, root, config):
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
    seed = config.get("SEED") or (seed_part and re.sub(r"\D", "", seed_part))
    before = [part for part in lower[:at] if not part.startswith("shots")] if at else []
    dataset = config.get("DATASET.NAME", "").lower() or _first(reversed(before))
    backbone = config.get("MODEL.BACKBONE.NAME") or _first(
        match[1] for part in lower[::-1] if (match := BACKBONE.search(part))
    )
    unknown = [
        name
        for name, value in (
            ("dataset", dataset),
            ("trainer", trainer),
            ("backbone", backbone),
            ("seed", seed),
        )
        if not value
    ]
    if unknown:
        raise InputError(f"{folder}: neither log nor folders tell the {', '.join(unknown)}")
    # What tells two settings of one method apart; the backbone is a column of its own.
    between = [p for p in parts[at + 1 :] if p.lower() != seed_part] if at is not None else []
    variant = re.sub(r"^_+|_+$", "", BACKBONE.sub("", "/".join(between)).replace("__", "_"))
    shots = config.get("DATASET.NUM_SHOTS")
    if shots is None:
        match = re.search(r"(\d+)shots|shots_(\d+)", "/".join(lower))
        shots = (match[1] or match[2]) if match else -1
    return {
        "dataset": dataset,
        "trainer": trainer,
        "backbone": backbone_slug(backbone),
        "seed": int(seed),
        "variant": variant.strip("/") or "default",
        "shots": int(shots),
        "subsample_classes": config.get("DATASET.SUBSAMPLE_CLASSES", "all"),
    }


def _first(values):
    return next(iter(values), None)
