"""Which picture is on which side: drawn by seed, read from files, known by a fingerprint."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

from core.errors import InputError
from core.files import fingerprint

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


def draw_split(pictures, fraction, seed, key, patient):
    """Take a share of every class out of ``pictures``, by seed.

    Args:
        pictures: all to draw from.
        fraction: the share; of each class's pictures its floor is taken, at least one.
        seed: any text; with the keys it alone decides.
        key: function giving what a picture is drawn by.
        patient: function giving whose picture it is, "" to draw the picture by itself. One
            patient's pictures stay together; a class's share is then met as nearly as they allow.

    Returns:
        rest, drawn.

    Raises:
        InputError: a class can't be on both sides.
    """
    if not 0 < fraction < 1:
        raise InputError(f"a fraction of {fraction} is not between 0 and 1")
    names = {picture.label: picture.classname for picture in pictures}
    total = Counter(picture.label for picture in pictures)
    # A hair above, so that 0.29 * 100 is 29.
    wanted = {label: max(1, int(n * fraction + 1e-9)) for label, n in total.items()}
    groups = {}
    for picture in pictures:
        owner = patient(picture)
        groups.setdefault(
            (bool(owner), owner or key(picture), "" if owner else picture.id), []
        ).append(picture)
    ranked = sorted(groups, key=lambda group: (_rank(seed, group[1]), group))
    taken, missing = set(), Counter(wanted)
    for group in ranked:
        sizes = Counter(picture.label for picture in groups[group])
        if all(size <= missing[label] for label, size in sizes.items()):
            taken.add(group)
            missing -= sizes
    for label in wanted:
        # Where every patient has more pictures than the share, the smallest overshoots least.
        holders = [group for group in ranked if any(p.label == label for p in groups[group])]
        if not taken.intersection(holders):
            taken.add(min(holders, key=lambda group: len(groups[group])))
    drawn = [picture for group in ranked if group in taken for picture in groups[group]]
    rest = [picture for group in ranked if group not in taken for picture in groups[group]]
    lost = set(total) - {picture.label for picture in rest}
    if lost:
        name = names[min(lost)]
        raise InputError(
            f"class {name!r} has too few pictures ({total[min(lost)]}) or too few patients"
        )
    return rest, drawn


def draw_shots(pictures, shots, seed):
    """At most ``shots`` pictures of every class, by seed; fewer shots are part of more."""
    ranked = sorted(pictures, key=lambda picture: (_rank(seed, picture.id), picture.id))
    taken, count = set(), Counter()
    for picture in ranked:
        if count[picture.label] < shots:
            count[picture.label] += 1
            taken.add(picture.id)
    return [picture for picture in pictures if picture.id in taken]


def _rank(seed, key):
    # A hash rather than a shuffle: no global random state, and a picture more or less does not move
    # the others.
    return hashlib.sha256(f"{seed}/{key}".encode()).digest()


def split_fingerprint(split):
    """Short fingerprint of which picture, as what, is on which side."""
    return rows_fingerprint(
        {side: [(p.id, p.classname) for p in pictures] for side, pictures in split.items()}
    )


def rows_fingerprint(rows):
    return fingerprint({side: sorted(rows[side]) for side in rows})


def shared_patients(split):
    """{(side, side): patients known to be on both}, for the pairs that share any."""
    patients = {side: {p.patient for p in pictures} - {""} for side, pictures in split.items()}
    pairs = {}
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        both = patients[one] & patients[other]
        if both:
            pairs[one, other] = sorted(both, key=_by_number)
    return pairs


def read_split_rows(path):
    """{"train": [[path, label, classname], ...], ...} of a split file, its form checked."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a split file ({error})") from None
    if not isinstance(data, dict) or "train" not in data or "test" not in data:
        raise InputError(f'{path}: a split file is an object with "train", "val" and "test"')
    rows = {side: data.get(side) or [] for side in SPLITS}
    for side in SPLITS:
        for number, row in enumerate(rows[side], start=1):
            form = [type(value) for value in row] if isinstance(row, list) else []
            if form != [str, int, str]:
                raise InputError(
                    f"{path}: entry {number} of {side!r} should be [path, label, class name]"
                )
    if "fingerprint" in data:
        found = rows_fingerprint(
            {side: [(name, classname) for name, _, classname in rows[side]] for side in SPLITS}
        )
        if found != data["fingerprint"]:
            raise InputError(
                f"{path}: was changed after it was written; take its line 'fingerprint' out if it "
                "is meant to be so"
            )
    return rows


def _by_number(text):
    return [
        (not part.isdigit(), int(part) if part.isdigit() else 0, part)
        for part in re.split(r"(\d+)", text)
    ]
