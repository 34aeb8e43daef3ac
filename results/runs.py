"""Finished runs below a folder: finding them, and what the tables ask of one.

A run's folder holds results.json (written last, so a run without it has not ended), predictions.csv
and config.yaml. A folder of other CoOp-family code holds logs only (``results.logs``).
"""

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from core.errors import InputError
from results import predictions, settings
from results.findings import FindingPredictions, macro_auroc, read_finding_predictions
from results.logs import is_log, read_logs
from results.predictions import Predictions
from results.record import RESULTS, Record, read_record, to_stderr

Say = Callable[[str], Any]  # takes each line about what is skipped

# Options that change the task for every method; a table of its own rather than a row.
TASK_OPTIONS = ("DATASET.NUM_SHOTS", "DATASET.SUBSAMPLE_CLASSES")
TUNED = "RUN.TUNED"  # the options that scripts/tune.sh chose, as OPTION=value,OPTION=value
TUNING = "_tuning"  # folder of the runs that it chose from, which are no rows of tables
# Options of training, which a method that learns nothing does not read.
TRAINING_OPTIONS = (
    "OPTIM.",
    "TRAIN.",
    "DATALOADER.TRAIN_X.",
    "TEST.FINAL_MODEL",
    *TASK_OPTIONS[:1],
)
# For files that do not say these of their method: its place in a table, and whether seeds matter.
PLACES = {
    "ZeroshotCLIP": 10,
    "LinearProbe": 20,
    "CoOp": 30,
    "CoCoOp": 40,
    "KgCoOp": 50,
    "BayesianPrompt": 60,
    "MaPLe": 70,
    "Supervised": 80,
    "VisionLLM": 88,
    "ViP": 90,
}
LAST_PLACE = 1000
SEEDLESS = ("ZeroshotCLIP", "ZeroshotCLIP2")
LISTED = 5  # candidates in a message


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run: its record, and where and in what it was found."""

    record: Record
    folder: Path
    origin: str = RESULTS  # or the name of a log
    say: Say = to_stderr  # told of a damaged config.yaml

    @property
    def dataset(self) -> str:
        return self.record.dataset

    @property
    def trainer(self) -> str:
        return self.record.trainer

    @property
    def backbone(self) -> str:
        return self.record.backbone

    @property
    def seed(self) -> int:
        return self.record.seed

    @property
    def is_log(self) -> bool:
        return self.origin != RESULTS

    @cached_property
    def metrics(self) -> dict[str, float | None] | None:
        """Metric name -> fraction; None where the method does not apply."""
        found = self.record.metrics or self.record.finding_metrics
        return found.values() if found else None

    @property
    def multi_label(self) -> bool:
        """Whether it is on several findings an image, with metrics and tables of their own."""
        return self.record.multi_label

    @property
    def place(self) -> int:
        """The position of the method's row in a table, from the top."""
        if self.record.place is not None:
            return self.record.place
        return PLACES.get(self.trainer, LAST_PLACE)

    @property
    def seeded(self) -> bool:
        """False where every seed gives the same result."""
        if self.record.seeded is not None:
            return self.record.seeded
        return self.trainer not in SEEDLESS

    @property
    def learns(self) -> bool:
        """False where nothing is trained; shots and options of training then change nothing."""
        if self.record.trainable_parameters is None:
            return self.trainer not in SEEDLESS
        return self.record.trainable_parameters > 0

    @cached_property
    def options(self) -> dict[str, str]:
        """Non-default KEY -> value of what tells rows apart."""
        unread = () if self.learns else TRAINING_OPTIONS
        return {
            key: value
            for key, value in self.record.options.items()
            if key not in TASK_OPTIONS and not key.startswith(unread)
        }

    @property
    def own_model(self) -> bool:
        """Whether it reads no backbone; ``backbone`` is then the name of its own model."""
        return self.record.own_model

    @property
    def shots(self) -> int:
        """Training images per class; -1 for all, and where nothing is trained."""
        return self.record.shots if self.learns and self.record.shots > 0 else -1

    @property
    def trained_on(self) -> str | None:
        """Another dataset than the one of the test, for an external test."""
        origin = self.record.trained_on
        return origin if origin != self.dataset else None

    @cached_property
    def key(self) -> tuple:
        """What must be equal for two runs to be seeds or backbones of one row."""
        return (
            self.dataset,
            self.trained_on,
            self.shots,
            self.record.subsample_classes,
            self.trainer,
            tuple(sorted(self.options.items())),
            self.record.symptom_fingerprint,
            self.record.variant if self.is_log else None,
        )

    def option(self, name: str, default: object = None) -> str:
        """The run's own value of TRAINER.<trainer>.<name>, as text, or ``default``."""
        return str(self.options.get(f"TRAINER.{self.trainer.upper()}.{name}", default))

    def predictions(self) -> Predictions:
        """The run's predictions on its test images.

        Raises:
            InputError: predictions.csv is missing, damaged or not of this results.json.
        """
        return self._predictions

    @property
    def has_validation_predictions(self) -> bool:
        return (self.folder / predictions.VALIDATION_FILE).exists()

    def validation_predictions(self) -> Predictions:
        """The run's predictions on its validation images.

        Raises:
            InputError: there are none, or the file is damaged or not of this results.json.
        """
        return self._validation_predictions

    @cached_property
    def _predictions(self) -> Predictions:
        if self.multi_label:
            raise InputError(
                f"{self.folder}: has several findings an image, and this needs one class an image"
            )
        if self.is_log or self.metrics is None:
            raise InputError(f"{self.folder}: {self.origin} has no predictions of single images")
        return self._read(predictions.FILE, self.metrics["accuracy"] or 0.0)

    @cached_property
    def _validation_predictions(self) -> Predictions:
        if not self.has_validation_predictions:
            raise InputError(
                f"{self.folder}: there is no {predictions.VALIDATION_FILE}; the run has no "
                "validation images, or is of an older version"
            )
        return self._read(predictions.VALIDATION_FILE, self.record.validation.accuracy or 0.0)

    def _read(self, name: str, expected: float) -> Predictions:
        """The predictions in a file, whose accuracy has to be what results.json says."""
        path = self.folder / name
        found = predictions.read_predictions(path, self.record.classnames, self.record.positive)
        if not math.isclose(found.accuracy, expected, abs_tol=1e-6):
            raise InputError(
                f"{path}: its accuracy {found.accuracy:.4f} is not the {expected:.4f} of "
                f"{RESULTS}; one of the two belongs to another run"
            )
        return found

    @cached_property
    def finding_predictions(self) -> FindingPredictions:
        """The predictions of a run on several findings an image.

        Raises:
            InputError: predictions.csv is missing, damaged or not of this results.json.
        """
        found = self.record.finding_metrics
        if found is None:
            raise InputError(f"{self.folder}: has no predictions of several findings an image")
        path = self.folder / predictions.FILE
        read = read_finding_predictions(path, tuple(found.findings))
        of_file = macro_auroc(read)
        expected = found.macro_auroc
        if (of_file is None) != (expected is None) or not math.isclose(
            of_file or 0, expected or 0, abs_tol=1e-6
        ):
            raise InputError(
                f"{path}: its macro AUROC is not that of {RESULTS}; one of the two belongs to "
                "another run"
            )
        return read

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """config.yaml as dotted KEY -> value; None where there is none that can be read."""
        path = self.folder / settings.CONFIG
        if not path.exists():
            return None
        try:
            return settings.read_settings(path)
        except InputError as error:
            self.say(f"{error}, skipped")
            return None


def find_runs(folder: Path | str, say: Say = to_stderr) -> list[Run]:
    """All finished runs below a folder, sorted; one line is printed for each run that is skipped.

    Args:
        folder: where to look.
        say: called with each line about a run that is skipped or a log that is stale.

    Raises:
        InputError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name the one that holds the runs")
    runs = sorted(
        _all_runs(folder, say),
        key=lambda run: (str(run.key), run.backbone, run.seed, run.record.shots, str(run.folder)),
    )
    return _without_copies(runs, say)


def _all_runs(folder: Path, say: Say) -> Iterator[Run]:
    def unreadable(error: OSError) -> None:
        say(f"{error.filename}: cannot be read ({error.strerror}), skipped")

    for name, subfolders, files in os.walk(folder, onerror=unreadable):
        subfolders[:] = sorted(set(subfolders) - {TUNING})
        place = Path(name)
        try:
            if RESULTS in files:
                yield _with_classes(Run(read_record(place), place, say=say))
            elif settings.CONFIG in files:
                say(f"{place}: unfinished (no {RESULTS}), skipped")
            elif any(is_log(name) for name in files):
                yield Run(*read_logs(place, folder, say))
        except InputError as error:
            say(f"{error}, skipped")


def _with_classes(run: Run) -> Run:
    """The run, unless it has one class alone, which any method predicts correctly."""
    if len(run.record.classnames) == 1:
        raise InputError(
            f"{run.folder}: its only class is {run.record.classnames[0]!r}, "
            "so every prediction is correct"
        )
    return run


def of_one_class(runs: Iterable[Run], what: str) -> list[Run]:
    """The runs on one class an image, where ``what`` is not defined for several findings.

    Raises:
        InputError: there are none.
    """
    runs = list(runs)
    found = [run for run in runs if not run.multi_label]
    if runs and not found:
        raise InputError(f"{what} needs runs on one class an image; these have several findings")
    return found


def _without_copies(runs: Iterable[Run], say: Say) -> list[Run]:
    kept: dict[tuple, Run] = {}
    for run in runs:
        first = kept.setdefault((run.key, run.backbone, run.seed), run)
        # Where nothing is trained, every number of shots and epochs gives the same run again.
        if first is not run and (run.learns or run.metrics != first.metrics):
            say(f"{run.folder}: the same run as {first.folder}, skipped")
    return list(kept.values())


# One run by a short name


def find_run(name: str, root: Path | str = "output") -> Path:
    """The folder of the one run that a short name matches.

    Args:
        name: a run's folder, or parts of one below ``root`` in their order, in any case of letters:
            ``ViP/tiny/seed1``. A variant may be named without the fingerprint of its symptoms;
            ``default`` is the one without options.
        root: the folder that holds the runs.

    Raises:
        InputError: no run or several have this name; lists the candidates.
    """
    found = _named(name, root)
    if len(found) > 1:
        listed = ", ".join(map(str, found[:LISTED]))
        more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
        raise InputError(f"{name} matches {len(found)} runs; choose one of {listed}{more}")
    return found[0]


def latest_run(name: str, root: Path | str = "output") -> Path:
    """The folder of the run that ended last, of all that a short name matches.

    Raises:
        InputError: no run has this name.
    """
    return max(_named(name, root), key=lambda folder: (folder / RESULTS).stat().st_mtime)


def _named(name: str, root: Path | str) -> list[Path]:
    if (Path(name) / RESULTS).exists():
        return [Path(name)]
    runs = [run for run in find_runs(root, say=lambda line: None) if not run.is_log]
    wanted = [part.casefold() for part in name.split("/") if part]
    found = [run.folder for run in runs if _is_part(wanted, _name_parts(run))]
    if not found:
        known = sorted({f"{run.trainer}/{run.backbone}" for run in runs})
        listed = ", ".join(known[:LISTED]) + (", ..." if len(known) > LISTED else "")
        raise InputError(f"{root} has no finished run {name!r}; there are {listed or 'none'}")
    return found


def _name_parts(run: Run) -> list[set[str]]:
    """What each part of a run's name may be called."""
    record = run.record
    variant = re.sub(r"(^|_)symptoms-[0-9a-f]+$", "", record.variant) or "default"
    parts = [{record.dataset}, {record.trainer}, {record.backbone}, {record.variant, variant}]
    return [{name.casefold() for name in part} for part in [*parts, {f"seed{record.seed}"}]]


def _is_part(wanted: list[str], parts: list[set[str]]) -> bool:
    rest = iter(parts)
    return all(any(name in part for part in rest) for name in wanted)
