"""A reader study: what the model says of an image is hidden until the reader has labelled it."""

import random
from typing import Any

from core.errors import InputError

from .workbench import Workbench

PART = 500  # images of one answer of the workbench


class Blinding:
    """Hides what would tell the model's answer, or the truth, before the reader's label is kept.

    The images of a split come in an order of their own and without their names: a folder's name
    may be that of a class. What was labelled stays labelled as it is, because the reader has seen
    the answer since.

    Args:
        on: whether anything is hidden.

    Labels are kept by what identifies an image in any session (``Shown.key``): an image may have
    several ids.
    """

    def __init__(self, workbench: Workbench, on: bool) -> None:
        self.workbench, self.on = workbench, on
        self._labels: dict[str, str] = {}
        self._orders: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def hides(self, key: str) -> bool:
        """Whether the reader has not labelled the image with this ``Shown.key`` yet."""
        return self.on and key not in self._labels

    def check(self, image: str) -> None:
        """Raise InputError for an image that is not labelled yet."""
        if self.hides(self.workbench.key(image)):
            raise InputError("label this image first: the model's answer is hidden until then")

    def check_label(self, image: str, label: str) -> None:
        """Raise InputError for a label that was changed after the answer was shown."""
        known = self._labels.get(self.workbench.key(image))
        if self.on and known is None and not label:
            raise InputError("choose a label; the remark alone does not show the answer")
        if self.on and known is not None and label != known:
            raise InputError("you have seen the answer since, so the label stays as it is")

    def keep(self, image: str, label: str) -> None:
        """From now on the answer on ``image`` is shown."""
        if label:
            self._labels[self.workbench.key(image)] = label

    def neighbours(self, run: str, image: str, k: int) -> list[dict[str, Any]]:
        """As ``Workbench.neighbours``; while blinded without those that are not labelled yet."""
        self.check(image)
        found = self.workbench.neighbours(run, image, k)
        return [one for one in found if not self.hides(self.workbench.key(one["id"]))]

    def images(self, run: str, split: str, offset: int, limit: int, **filters: Any) -> Any:
        """As ``Workbench.images``; while blinded without names, and filters would tell."""
        if not self.on:
            return self.workbench.images(run, split, offset=offset, limit=limit, **filters)
        if filters.get("outcome") != "all" or filters.get("class_name") or filters.get("patient"):
            raise InputError("filters would tell the answer; they are off in a blinded reading")
        ordered = self._order(run, split)
        shown = [
            self._hidden(image, offset + i)
            if self.hides(self.workbench.key(image["id"]))
            else image
            for i, image in enumerate(ordered[offset : offset + limit])
        ]
        return {"total": len(ordered), "images": shown, "patients": []}

    def _order(self, run: str, split: str) -> list[dict[str, Any]]:
        """All images of a split, in an order that does not depend on their classes."""
        key = run, split
        if key not in self._orders:
            found: list[dict[str, Any]] = []
            total = 1
            while len(found) < total:
                part = self.workbench.images(run, split, offset=len(found), limit=PART)
                total = part["total"]
                if not part["images"]:
                    break
                found += part["images"]
            random.Random(0).shuffle(found)
            self._orders[key] = found
        return self._orders[key]

    @staticmethod
    def _hidden(image: dict[str, Any], place: int) -> dict[str, Any]:
        hidden = dict.fromkeys(image)
        return hidden | {"id": image["id"], "name": f"image {place + 1}"}
