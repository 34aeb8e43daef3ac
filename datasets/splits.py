"""Which image is in which split: drawn by seed, reduced to shots or classes, fingerprinted."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from core.errors import InputError, and_more, some
from core.files import fingerprint

from .pictures import Picture
from .salt import is_hashed

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
Split = dict[str, list[Picture]]


# Drawing


def draw_split(
    pictures: Sequence[Picture],
    fraction: float,
    seed: str,
    key: Callable[[Picture], str],
    patient: Callable[[Picture], str],
) -> tuple[list[Picture], list[Picture]]:
    """Take a share of every class out of ``pictures``, by seed.

    Args:
        pictures: all to draw from.
        fraction: the share; of each class's images its floor is taken, at least one.
        seed: any text; with the keys it alone decides.
        key: function giving what an image is drawn by.
        patient: function giving which patient an image is of, "" to draw the image by itself. One
            patient's images stay together; a class's share is then met as nearly as they allow.

    Returns:
        rest, drawn.

    Raises:
        InputError: a class can't be on both sides.
    """
    total = Counter(picture.label for picture in pictures)
    # A hair above, so that 0.29 * 100 is 29.
    wanted = {label: max(1, int(n * fraction + 1e-9)) for label, n in total.items()}
    groups = _grouped(pictures, key, patient)
    ranked = sorted(groups, key=lambda group: (_rank(seed, group[1]), group))
    taken = _taken([groups[group] for group in ranked], wanted)
    drawn = [p for group, is_in in zip(ranked, taken, strict=True) if is_in for p in groups[group]]
    rest = [p for g, is_in in zip(ranked, taken, strict=True) if not is_in for p in groups[g]]
    lost = set(total) - {picture.label for picture in rest}
    if lost:
        name = next(picture.classname for picture in pictures if picture.label == min(lost))
        raise InputError(
            f"class {name!r} has too few images ({total[min(lost)]}) or too few patients "
            "(copies of one file count once)"
        )
    return rest, drawn


_Group = tuple[bool, str, str]  # owned, by whom or what it is drawn by, identity of a lone image


def _grouped(
    pictures: Iterable[Picture], key: Callable[[Picture], str], patient: Callable[[Picture], str]
) -> dict[_Group, list[Picture]]:
    """The pictures that are drawn together: a patient's, or one that is nobody's."""
    groups: dict[_Group, list[Picture]] = {}
    for picture in pictures:
        owner = patient(picture)
        group = (bool(owner), owner or key(picture), "" if owner else picture.id)
        groups.setdefault(group, []).append(picture)
    return groups


def _taken(groups: Sequence[Sequence[Picture]], wanted: Mapping[int, int]) -> list[bool]:
    """Which groups to take, the first ones first, so that every class has what is wanted."""
    taken = [False] * len(groups)
    missing = Counter(wanted)
    holders: dict[int, list[int]] = {label: [] for label in wanted}
    for place, group in enumerate(groups):
        sizes: dict[int, int] = {}  # for a lone image, a Counter would take most of the time
        for picture in group:
            sizes[picture.label] = sizes.get(picture.label, 0) + 1
        if all(size <= missing[label] for label, size in sizes.items()):
            taken[place] = True
            missing.subtract(sizes)
        for label in sizes:
            holders[label].append(place)
    for places in holders.values():
        # Where every patient has more images than the share, the smallest overshoots least.
        if not any(taken[place] for place in places):
            taken[min(places, key=lambda place: len(groups[place]))] = True
    return taken


def draw_shots(pictures: Sequence[Picture], shots: int, seed: str) -> list[Picture]:
    """At most ``shots`` images of every class, by seed; fewer shots are part of more."""
    ranked = sorted(pictures, key=lambda picture: (_rank(seed, picture.id), picture.id))
    taken: set[str] = set()
    count: Counter[int] = Counter()
    for picture in ranked:
        if count[picture.label] < shots:
            count[picture.label] += 1
            taken.add(picture.id)
    return [picture for picture in pictures if picture.id in taken]


def _rank(seed: str, key: str) -> bytes:
    # A hash rather than a shuffle: no global random state, and an image more or less does not move
    # the others.
    return hashlib.sha256(f"{seed}/{key}".encode()).digest()


# From what is given to what a run uses


@dataclass(frozen=True)
class Completed:
    """Three splits; ``drawn`` names those that were not given, ``notes`` are for the card."""

    split: Split
    drawn: list[str]
    notes: list[str]


def complete(
    given: Split,
    settings: SimpleNamespace,
    patients_apart: bool,
    key: Callable[[Picture], str],
    duplicates: Sequence[Sequence[Picture]] = (),
) -> Completed:
    """The three splits; those not given are drawn from the training images.

    Args:
        patients_apart: keep the patients apart, where any is known.
        key: as for ``draw_split``.
        duplicates: groups of images to keep on one side.

    Raises:
        InputError: a split cannot be drawn.
    """
    split = {side: pictures for side, pictures in given.items() if pictures}
    if "train" not in split:
        raise InputError("there are no training images in it")
    apart = patients_apart and _patients_known(split, settings.PATIENTS_APART)
    fractions = {"test": settings.TEST_FRACTION, "val": settings.VAL_FRACTION}
    drawn = [side for side in fractions if side not in split]
    owners = kept_together(split["train"], apart, key, duplicates)
    for side in drawn:
        seed = f"{settings.SPLIT_SEED}/{side}"
        try:
            split["train"], split[side] = draw_split(
                split["train"], fractions[side], seed, key, lambda p: owners.get(p.id, "")
            )
        except InputError as error:
            raise InputError(f"no {side} split can be drawn: {error}") from None
    notes = []
    if drawn:
        how = "patients kept apart" if apart else "images at random"
        notes.append(f"{', '.join(drawn)}: drawn with seed {settings.SPLIT_SEED}, {how}")
    ordered = {side: sorted(split[side], key=lambda picture: picture.id) for side in SPLITS}
    return Completed(ordered, drawn, notes)


def pooled(given: Split, settings: SimpleNamespace) -> tuple[Split, SimpleNamespace, list[str]]:
    """All images that are given as one split, to be drawn again with patients apart.

    Returns:
        the images as training images; the settings that draw the given proportions (those of the
        settings where no split is given); notes for the card.

    Raises:
        InputError: no patient is known.
    """
    pictures = [picture for side in SPLITS for picture in given.get(side, [])]
    unknown = sum(not picture.patient for picture in pictures)
    if unknown == len(pictures):
        raise InputError(
            "DATASET.SPLIT is patients, but no patient is known; set DATASET.PATIENT_PATTERN, give "
            "a CSV with a column 'patient', or set DATASET.SPLIT to released"
        )
    train, val, test = (len(given.get(side, [])) for side in SPLITS)
    fractions = {}
    if test:
        fractions["TEST_FRACTION"] = test / len(pictures)
    if val:
        fractions["VAL_FRACTION"] = val / (train + val)
    notes = []
    if test or val:
        notes.append(f"the released split of {train:,}/{val:,}/{test:,} images is not used")
    if unknown:
        notes.append(f"drawn one by one, with no known patient: {unknown:,} images")
    return {"train": pictures}, SimpleNamespace(**vars(settings) | fractions), notes


def _patients_known(split: Split, needed: bool) -> bool:
    known = any(picture.patient for pictures in split.values() for picture in pictures)
    if needed and not known:
        raise InputError(
            "DATASET.PATIENTS_APART is on, but no patient is known; set DATASET.PATIENT_PATTERN or "
            "give a CSV with a column 'patient'"
        )
    return known


def kept_together(
    pictures: Iterable[Picture],
    apart: bool,
    key: Callable[[Picture], str],
    duplicates: Sequence[Sequence[Picture]],
) -> dict[str, str]:
    """{identity: the group that stays on one side}: a patient's images, and copies of one file."""
    owners = {}
    first_of: dict[str, str] = {}  # hashed patient -> its first image
    for p in sorted(pictures, key=lambda p: p.id) if apart else ():
        if is_hashed(p.patient):
            # The hash differs between machines, and the split must not.
            owners[p.id] = first_of.setdefault(p.patient, p.id)
        elif p.patient:
            owners[p.id] = p.patient
    merged: dict[str, str] = {}  # patients who share a file are one group

    def root(owner: str) -> str:
        while owner in merged:
            owner = merged[owner]
        return owner

    for group in duplicates:
        roots = sorted({root(owners[p.id]) for p in group if p.id in owners})
        first = roots[0] if roots else key(group[0])
        merged.update(dict.fromkeys(roots[1:], first))
        owners.update(dict.fromkeys((p.id for p in group), first))
    return {identity: root(owner) for identity, owner in owners.items()}


def check_sides(split: Split, classnames: Sequence[str], patients_apart: bool) -> list[str]:
    """Check that every class is on every side, and every image on one; returns notes for the card.

    Raises:
        InputError: a class is not in train or test, an image is listed twice, or, with
            ``patients_apart``, a patient is on two sides.
    """
    notes = []
    side_of: dict[str, str] = {}
    for side in SPLITS:
        counts = Counter(picture.label for picture in split[side])
        for label, name in enumerate(classnames):
            if not counts[label] and side == "val":
                notes.append(f"val has no image of {name!r}")
            elif not counts[label]:
                raise InputError(
                    f"the {side} split has no image of the class {name!r}; add some, or remove the "
                    "class"
                )
        for picture in split[side]:
            if picture.id in side_of:
                first = side_of[picture.id]
                raise InputError(f"{picture.id} is in {first} and again in {side}; keep it in one")
            side_of[picture.id] = side
    shared = shared_patients(split) if patients_apart else {}
    for (one, other), patients in shared.items():
        raise InputError(
            f"DATASET.PATIENTS_APART is on, but the given split has {some(patients)} in both {one} "
            f"and {other}{by_images(split, one, other, patients[0])}; correct the split or turn "
            "this setting off"
        )
    return notes


def by_images(split: Split, one: str, other: str, patient: str) -> str:
    """Two images of a patient whom a hash names, which tells a user nothing; else ""."""
    if not is_hashed(patient):
        return ""
    first, second = (next(p.id for p in split[s] if p.patient == patient) for s in (one, other))
    return f" (the first: {first} and {second})"


def check_duplicates(duplicates: Sequence[Sequence[Picture]], split: Split) -> None:
    """Raise InputError where two files of the same bytes are on two sides of ``split``."""
    side_of = {picture.id: side for side in SPLITS for picture in split[side]}
    apart = [
        (group[0], other)
        for group in duplicates
        for other in group[1:]
        if side_of[other.id] != side_of[group[0].id]
    ]
    if apart:
        one, other = apart[0]
        raise InputError(
            f"{other.impath} ({side_of[other.id]}) holds the same bytes as {one.impath} "
            f"({side_of[one.id]}){and_more(apart, 'such images')}; remove one, leave it out with "
            "DATASET.EXCLUDE, or set DATASET.ALLOW_DUPLICATES True"
        )


def few_shot(split: Split, shots: int, seed: int) -> tuple[Split, list[str]]:
    """``shots`` training images a class by seed (-1: all), and a note for the card."""
    if shots < 1:
        return split, []
    least = min(Counter(picture.label for picture in split["train"]).values())
    fewer = (
        f" (fewer for a class that has fewer; the smallest has {least})" if least < shots else ""
    )
    note = f"{shots} shots a class: drawn with seed {seed} from {len(split['train']):,}{fewer}"
    return {
        "train": draw_shots(split["train"], shots, f"{seed}/train"),
        # CoOp's rule: validation may not know more than a few-shot user would have.
        "val": draw_shots(split["val"], min(shots, 4), f"{seed}/val"),
        "test": split["test"],
    }, [note]


def class_half(split: Split, part: str, n_cls: int) -> tuple[Split, list[str]]:
    """The images of the base or the new classes, numbered from zero, and a note for the card.

    Raises:
        InputError: one of the halves has fewer than two classes.
    """
    if part == "all":
        return split, []
    half = (n_cls + 1) // 2
    if n_cls - half < 2:
        raise InputError(
            f"DATASET.SUBSAMPLE_CLASSES {part}: {n_cls} classes are {half} base and "
            f"{n_cls - half} new; each side needs at least 2, so base-to-new takes 4 classes"
        )
    labels = range(half) if part == "base" else range(half, n_cls)
    return {
        side: [
            picture.relabelled(picture.label - labels.start)
            for picture in pictures
            if picture.label in labels
        ]
        for side, pictures in split.items()
    }, [f"the {part} classes, {len(labels)} of {n_cls}"]


# What a split is known by


def split_fingerprint(split: Split) -> str:
    """Short fingerprint of which image, as what, is on which side."""
    return rows_fingerprint(
        {side: [(p.id, p.classname) for p in pictures] for side, pictures in split.items()}
    )


def rows_fingerprint(rows: Mapping[str, Iterable[tuple[str, str]]]) -> str:
    return fingerprint({side: sorted(rows[side]) for side in rows})


def shared_patients(split: Split) -> dict[tuple[str, str], list[str]]:
    """{(side, side): patients known to be on both}, for the pairs that share any."""
    patients = {side: {p.patient for p in pictures} - {""} for side, pictures in split.items()}
    pairs = {}
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        both = patients[one] & patients[other]
        if both:
            pairs[one, other] = sorted(both, key=_by_number)
    return pairs


def _by_number(text: str) -> list[tuple[bool, int, str]]:
    """A key that sorts p2 before p10."""
    parts = [(part.isdecimal(), part.lstrip("0")) for part in re.split(r"(\d+)", text)]
    return [(not number, len(part) if number else 0, part) for number, part in parts]
