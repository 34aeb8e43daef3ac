"""The card printed at load: what a dataset holds, how it was split, and what looks wrong."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from core.errors import some

from .checks import masks_among
from .classes import ClassNames
from .pictures import Picture, skipped_note
from .splits import SPLITS, Split, by_images, shared_patients


class Described(Protocol):
    """What a card reads of a dataset, a ``MedicalDataset``."""

    dataset_dir: str
    classes: ClassNames
    class_counts: dict[str, Counter[str]]
    duplicates: list[list[Picture]]
    findings: Sequence[str]
    notes: list[str]
    paper_counts: tuple[int, int, int] | None
    skipped: list[Path]
    split: Split
    split_fingerprint: str
    used: Split

    @property
    def classnames(self) -> list[str]: ...


def card(dataset: Described) -> str:
    """Counts by class, split, subtype and patient; patients in two splits; how it was split."""
    used = dataset.used
    total = sum(map(len, used.values()))
    rows = _count_rows(dataset, used)
    width = max(len(name) for name, _ in rows)
    lines = [
        f"{type(dataset).__name__}: {total:,} images in {dataset.dataset_dir}",
        f"{'':{width}}" + "".join(f"{side:>8}" for side in SPLITS),
    ]
    lines += [f"{name:{width}}" + "".join(f"{n:>8,}" for n in counts) for name, counts in rows]
    lines += _patient_lines(used)
    lines += _duplicate_lines(dataset)
    lines += dataset.notes
    lines += _count_lines(dataset)
    lines += _mask_lines(dataset)
    if dataset.skipped:
        lines.append(skipped_note(dataset.skipped))
    lines.append(f"split fingerprint: {dataset.split_fingerprint}")
    return "\n".join(lines)


def _count_rows(dataset: Described, used: Split) -> list[tuple[str, list[int]]]:
    rows = []
    counts = {side: Counter((p.classname, p.subtype) for p in used[side]) for side in SPLITS}
    for name in dataset.findings or dataset.classnames:
        rows.append((name, [dataset.class_counts[side][name] for side in SPLITS]))
        subtypes = sorted({of for side in SPLITS for label, of in counts[side] if label == name})
        for subtype in subtypes if subtypes not in ([""], [name]) else []:
            of_subtype = [counts[side][name, subtype] for side in SPLITS]
            rows.append((f"  {subtype or '(subtype not known)'}", of_subtype))
    rows.append(("images", [len(used[side]) for side in SPLITS]))
    patients = [{p.patient for p in used[side]} - {""} for side in SPLITS]
    if any(patients):
        rows.append(("patients", [len(found) for found in patients]))
    return rows


def _patient_lines(used: Split) -> list[str]:
    if not any(picture.patient for pictures in used.values() for picture in pictures):
        return ["patients: not known, so a patient may be in more than one split"]
    lines = []
    for (one, other), patients in shared_patients(used).items():
        both = set(patients)
        pictures = sum(picture.patient in both for picture in used[other])
        who = by_images(used, one, other, patients[0]) or f": {some(patients)}"
        lines.append(
            f"in both {one} and {other}: {len(patients):,} patients, with {pictures:,} of the "
            f"{len(used[other]):,} {other} images{who}"
        )
    return lines or ["patients in more than one split: none"]


def _duplicate_lines(dataset: Described) -> list[str]:
    if not dataset.duplicates:
        return []
    side_of = {p.id: side for side in SPLITS for p in dataset.split[side]}
    lines = []
    for what, groups in (
        ("identical files", dataset.duplicates),
        ("identical files in two splits", _differing(dataset.duplicates, lambda p: side_of[p.id])),
        ("identical files in two classes", _differing(dataset.duplicates, lambda p: p.label)),
    ):
        if groups:
            pairs = [f"{group[0].id} = {group[1].id}" for group in groups]
            lines.append(f"{what}: {len(groups):,} images: {some(pairs, 2)}")
    return lines


def _differing(
    groups: Sequence[Sequence[Picture]], what: Callable[[Picture], object]
) -> list[Sequence[Picture]]:
    return [group for group in groups if len({what(picture) for picture in group}) > 1]


def _count_lines(dataset: Described) -> list[str]:
    counts = tuple(len(dataset.split[side]) for side in SPLITS)
    if not dataset.paper_counts or counts == dataset.paper_counts:
        return []
    return [
        f"the paper's counts are {'/'.join(f'{n:,}' for n in dataset.paper_counts)}, these "
        f"{'/'.join(f'{n:,}' for n in counts)}: not the whole release, or another split"
    ]


def _mask_lines(dataset: Described) -> list[str]:
    identities = [p.id for side in SPLITS for p in dataset.split[side]]
    names = {name.casefold() for names in dataset.classes.folders for name in names}
    masks = masks_among(identities, names)
    if not masks:
        return []
    return [
        f"warning: {len(masks):,} images look like masks of others, not like images of a class: "
        f"{some(masks, 2)}; leave them out with a pattern in DATASET.EXCLUDE, as in ['*_mask*']"
    ]
