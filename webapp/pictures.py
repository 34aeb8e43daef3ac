"""Images by their ids: those of the run's splits, and uploads, which stay in memory."""

import hashlib
import io
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from core.errors import InputError, shortened
from datasets.pictures import read_uploaded
from engine.loading import SPLITS, LoadedRun
from results.predictions import anonymous_groups

UPLOAD_BYTES = 32 * 2**20  # of one file
UPLOADS, ALL_BYTES = 200, 512 * 2**20  # kept at a time; beyond these the oldest go
UPLOAD_PIXELS = 50_000_000  # an RGB image takes 150 MB
DEFLATED = b"1.2.840.10008.1.2.1.99"  # DICOM as a whole compressed: its size is not known before
LONGEST_NAME = 200
THUMBNAILS = (16, 2048)  # pixels of the longer side, at least and at most
DECODED = 2  # decoded uploads kept at a time
_ID = re.compile(r"(train|val|test|upload)/(\d{1,9})", re.ASCII)


@dataclass(frozen=True)
class Upload:
    """A file that a user dropped into the page.

    Attributes:
        digest: of its bytes; by it notes know the image again.
    """

    name: str
    data: bytes
    digest: str


@dataclass(frozen=True)
class Shown:
    """An image by its id.

    Attributes:
        place: where it is in its split; None for an upload.
        key: what tells it from other images in any session: its path below the dataset's folder, or
            the digest of an upload.
        truth: the true class where it is known.
    """

    id: str
    split: str
    place: int | None
    name: str
    key: str
    truth: str | None
    path: Path | None = None
    upload: Upload | None = None


class Pictures:
    """The images of a run's splits, and uploads.

    Args:
        run: its dataset gives the splits; the dataset need not be there.
    """

    def __init__(self, run: LoadedRun) -> None:
        self.run = run
        self._uploads: OrderedDict[str, Upload] = OrderedDict()
        self._decoded = Recent(DECODED)
        self._count = 0

    # -- splits ---------------------------------------------------------------------------------

    @cached_property
    def counts(self) -> dict[str, int]:
        """Split -> images; empty where the dataset is not here."""
        try:
            return {split: len(self.run.pictures(split)) for split in SPLITS}
        except InputError:
            return {}

    def of_split(self, split: str) -> list[Shown]:
        """The images of a split.

        Raises:
            InputError: there is no such split, or the dataset is not here.
        """
        return [self._of_split(split, i, p) for i, p in enumerate(self.run.pictures(split))]

    def patients(self, split: str) -> list[str]:
        """A number for the patient of each image, as in predictions.csv; "" where not known."""
        found = anonymous_groups([picture.patient for picture in self.run.pictures(split)])
        return [str(group) for group in found] or [""] * len(self.run.pictures(split))

    def _of_split(self, split: str, place: int, picture: Any) -> Shown:
        return Shown(
            f"{split}/{place}",
            split,
            place,
            readable_name(str(picture.id)),
            str(picture.id),
            self.run.classnames[int(picture.label)],
            path=Path(picture.impath),
        )

    def find(self, image: Any) -> Shown:
        """The image with this id.

        Raises:
            InputError: there is none.
        """
        match = _ID.fullmatch(image) if isinstance(image, str) else None
        if not match:
            raise InputError(f"there is no image {shortened(ascii(image))}")
        split, place = match[1], int(match[2])
        if split == "upload":
            upload = self._uploads.get(image)
            if upload is None:
                raise InputError(f"{image}: this upload is no longer in memory; drop it in again")
            return Shown(
                image, split, None, upload.name, f"sha256:{upload.digest}", None, upload=upload
            )
        pictures = self.run.pictures(split)
        if place >= len(pictures):
            raise InputError(f"there is no image {image}; {split} has {len(pictures)} images")
        return self._of_split(split, place, pictures[place])

    # -- uploads --------------------------------------------------------------------------------

    def add(self, name: Any, data: bytes) -> Shown:
        """Keep an uploaded file in memory, if it is an image that the run can read.

        Raises:
            InputError: it is empty, too large, broken, or not an image.
        """
        name = upload_name(name)
        if not data:
            raise InputError(f"{name}: the file is empty")
        if len(data) > UPLOAD_BYTES:
            raise InputError(
                f"{name}: has {len(data) / 2**20:,.0f} MB; at most {UPLOAD_BYTES // 2**20} MB are "
                "read: save it smaller"
            )
        if DEFLATED in data:
            raise InputError(
                f"{name}: a deflated DICOM file, whose size is not known before it is unpacked; "
                "save it with another transfer syntax"
            )
        upload = Upload(name, bytes(data), hashlib.sha256(data).hexdigest()[:16])
        self._decode(self.run, upload)  # or an error, before anything is kept
        self._count += 1
        key = f"upload/{self._count}"
        self._uploads[key] = upload
        while len(self._uploads) > UPLOADS or self._bytes() > ALL_BYTES:
            self._uploads.popitem(last=False)
        return self.find(key)

    def uploaded(self) -> list[Shown]:
        """The uploads in memory, the oldest first."""
        return [self.find(key) for key in self._uploads]

    def _bytes(self) -> int:
        return sum(len(upload.data) for upload in self._uploads.values())

    def _decode(self, run: LoadedRun, upload: Upload) -> Image.Image:
        key = upload.digest, PurePosixPath(upload.name).suffix, run.rendering

        def decode() -> Image.Image:
            return read_uploaded(upload.name, upload.data, UPLOAD_PIXELS, run.rendering)

        return self._decoded.get_or(key, decode)

    # -- pixels ---------------------------------------------------------------------------------

    def source(self, run: LoadedRun, shown: Shown) -> Path | Image.Image:
        """What ``run`` predicts: the file, or the decoded upload as ``run`` shows it."""
        if shown.upload is not None:
            return self._decode(run, shown.upload)
        assert shown.path is not None
        return shown.path

    def thumbnail(self, shown: Shown, size: Any) -> bytes:
        """The image as PNG, its longer side at most ``size`` pixels."""
        least, most = THUMBNAILS
        if type(size) is not int or not least <= size <= most:
            raise InputError(
                f"the size of an image is {shortened(ascii(size))}; give {least} to {most}"
            )
        image = self.run.opened(self.source(self.run, shown)).copy()
        image.thumbnail((size, size))
        return png(image)


class Recent(OrderedDict):
    """The last results of a function by key."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def get_or(self, key: Any, make: Callable[[], Any]) -> Any:
        """The result for ``key``, made where it is not known."""
        if key not in self:
            self[key] = make()
            while len(self) > self.most:
                self.popitem(last=False)
        self.move_to_end(key)
        return self[key]


def png(image: Image.Image) -> bytes:
    """An image as the bytes of a PNG file, without anything but the pixels."""
    with io.BytesIO() as file:
        image.save(file, format="PNG", exif=b"", icc_profile=None)
        return file.getvalue()


def upload_name(name: Any) -> str:
    """The last part of a file's name, fit to be shown; nothing is ever opened by it."""
    text = name if isinstance(name, str) else ""
    text = readable_name(re.split(r"[/\\]", text)[-1]).strip()
    return shortened(text, LONGEST_NAME) or "image"


def readable_name(name: str) -> str:
    """``name`` as text that can be encoded, in one line."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
