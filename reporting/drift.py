"""What training left of the symptoms' meaning: printed, as a file, and as a table of the report."""

from collections.abc import Iterator
from pathlib import Path

from explanations.drift import COLUMNS, lines, rows
from results.rendering import Estimate, Table

from .explanation_items import Places, drifts, warning_of
from .explanation_page import write_rows

MEANING = (
    "rank correlation: Spearman's, over the training images, of the similarities to the untrained "
    "and to the trained symptom [95 % interval]; kept: the interval lies above .8; weakened: above "
    ".5; reversed: below -.5; lost: anywhere else"
)
HEADERS = (
    "class",
    "symptom",
    "meaning",
    "rank correlation",
    "attribute AUC untrained",
    "trained",
)


def report_drift(reliability: Places | None, folder: Path) -> Iterator[str]:
    """Lines on every symptom, and the warning where there is one; writes drift.csv."""
    records = drifts(reliability)
    if not reliability or not records:
        return
    seeds = max(own.seeds[1] for own in reliability.values())
    worst = f", of each symptom the worst of {seeds} seeds" if seeds > 1 else ""
    yield (
        "Meaning of the symptoms after training: rank correlation of the similarities to the "
        f"untrained and to the trained symptom, {records[0].images} training images"
        f"{worst} [95 % interval]"
    )
    yield from (f"  {line}" for line in lines(records))
    if text := warning_of(reliability):
        yield text
    write_rows(folder / "drift.csv", COLUMNS, rows(records))


def drift_table(name: str, reliability: Places) -> Table | None:
    """What each symptom of a run still means; None if the training images are missing."""
    records = drifts(reliability)
    if not records:
        return None
    table = Table(f"{name}: what symptoms mean after training", list(HEADERS), [], text_columns=3)
    for record in records:
        interval = Estimate(record.correlation, None, record.low, record.high)
        area = next(iter(record.attributes), None)
        before, after = (area.before, area.after) if area else (None, None)
        areas = [Estimate(own[0], None, *own[1:]) if own else None for own in (before, after)]
        table.rows.append([record.classname, record.symptom, record.verdict, interval, *areas])
    table.notes.append(MEANING)
    return table
