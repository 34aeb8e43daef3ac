"""What methods cost: the seconds of training, and apart from them those of encoding images.

Image features of a frozen encoder are kept, so that the first run on some images encodes them and
later ones, of any method, read them. Which run comes first must not decide what a method costs:
every method is charged for the features that it uses at the speed at which all runs encoded.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from results.choices import Choices
from results.record import Record
from results.rendering import Table
from results.rows import methods_of, tasks_of
from results.runs import Run

HEADERS = [
    "method",
    "backbone",
    "train seconds",
    "encoding seconds",
    "images a second",
    "peak GPU memory, MB",
    "peak CPU memory, MB",
    "trainable parameters",
    "device",
]
NOTES = [
    "means over seeds",
    "train seconds: the time of a later run, which reads the image features that an earlier run "
    "kept; a first run also spends the encoding seconds, for the same features whatever the method",
]
Speeds = dict[tuple, float]  # (dataset, backbone, device, set of views) -> seconds an image


def cost_tables(runs: list[Run], choices: Choices) -> list[Table]:
    """What each method costs, by backbone and device; a table for each task."""
    tables = []
    timed = [run for run in runs if run.record.seconds]
    speeds = encoding_speeds(run.record for run in timed)
    for task, task_runs in tasks_of(timed).items():
        table = Table(f"{task.title}, cost", HEADERS, [], [*NOTES], text_columns=2)
        for method in methods_of(task_runs):
            for backbone, backbone_runs in method.by_backbone.items():
                # Seconds of two devices have no common mean.
                by_device = defaultdict(list)
                for run in backbone_runs:
                    by_device[run.record.device].append(run.record)
                for device, records in by_device.items():
                    cells = _cells(records, speeds)
                    table.rows.append([method.label, backbone, *cells, device])
        table.notes += _fitted(task_runs) + _unknown(task_runs, speeds) + _requests(task_runs)
        tables.append(table)
    return tables


def encoding_speeds(records: Iterable[Record]) -> Speeds:
    """Seconds an image, over all runs that encoded images of a set of views."""
    seconds: dict[tuple, float] = defaultdict(float)
    images: dict[tuple, int] = defaultdict(int)
    for record in records:
        for name, use in (record.features or {}).items():
            seconds[_place(record, name)] += use.seconds
            images[_place(record, name)] += use.encoded
    return {key: seconds[key] / number for key, number in images.items() if number}


def _place(record: Record, name: str) -> tuple:
    return record.dataset, record.backbone, record.device, name


def encoding_seconds(record: Record, speeds: Speeds) -> float | None:
    """What encoding the features that a run used takes; None if not known or none are used."""
    if not record.features:
        return None
    spent = [
        speeds.get(_place(record, name), np.nan) * use.images
        for name, use in record.features.items()
    ]
    return None if np.isnan(spent).any() else float(sum(spent))


def _cells(records: Sequence[Record], speeds: Speeds) -> list:
    return [
        _mean(record.seconds.get("train") for record in records),
        _mean(encoding_seconds(record, speeds) for record in records),
        _mean(record.pictures_per_second for record in records if not record.fitted_at_once),
        _megabytes(_mean(record.peak_memory_bytes.get("gpu") for record in records)),
        _megabytes(_mean(record.peak_memory_bytes.get("cpu") for record in records)),
        _whole(_mean(record.trainable_parameters for record in records)),
    ]


def _fitted(runs: Sequence[Run]) -> list[str]:
    """Which rows have no training steps, and what their seconds are."""
    fitted = {run.trainer: None for run in runs if run.record.fitted_at_once}
    if not fitted:
        return []
    return [
        f"{', '.join(fitted)}: fitted at once to the kept features, without steps, so they have no "
        "images a second; their train seconds are of the fit, with what it chooses on the "
        "validation images"
    ]


def _unknown(runs: Sequence[Run], speeds: Speeds) -> list[str]:
    """Which rows' encoding is not known, and why."""
    older = {run.trainer: None for run in runs if run.record.format == 1}
    unseen = {
        run.trainer: None
        for run in runs
        if run.record.features and encoding_seconds(run.record, speeds) is None
    }
    notes = []
    if older:
        notes.append(
            f"{', '.join(older)}: results files of an older version, which counted the encoding as "
            "training in the run that came first"
        )
    if unseen:
        notes.append(
            f"{', '.join(unseen)}: all features were read from runs that are not in this folder"
        )
    return notes


def _requests(runs: Sequence[Run]) -> list[str]:
    """What the models cost that are asked at an endpoint."""
    return [
        f"{method.label}: {run.record.requests:,} requests, "
        f"{run.record.seconds.get('test', 0):,.0f} seconds of waiting for the endpoint"
        for method in methods_of(run for run in runs if run.record.requests is not None)
        for run in method.runs
    ]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _megabytes(size: float | None) -> int | None:
    # A CPU run reports no GPU memory as nothing or as zero.
    return round(size / 2**20) if size else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
