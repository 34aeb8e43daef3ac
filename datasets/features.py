"""Features of views, encoded once by a frozen image encoder and kept for every later run.

The bits of a feature depend on what is encoded beside it. So images are encoded in blocks that the
data alone fix: ``BLOCK`` images in the order of the split. A run on kept features, a run that keeps
nothing and a resumed run read the same bits.

On the disk, below ``DIR``, each set of images and everything that its features follow from has a
folder, named by a fingerprint of its ``key.json``. It holds one NumPy file for each epoch, written
atomically: a file is whole or absent.
"""

import contextlib
import hashlib
import json
import math
import os
import platform
import re
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

import dassl_compat
from core.errors import InputError
from core.files import atomic_write, cache_folder, write_json
from core.kept_folders import hold, make_room
from core.processes import keep_freed_memory
from datasets.arrays import file_of
from datasets.dicom import FORMAT as DICOM_FORMAT
from datasets.dicom import is_dicom
from datasets.views import ViewManager, Views

# Joins Dassl's cfg. Only VIEWS changes a result by more than rounding.
DEFAULTS = {
    "KEEP": True,  # keep features on the disk; False: encode them again in every run
    "DIR": "",  # where; empty: $XDG_CACHE_HOME/vip-for-dassl/features, or below ~/.cache
    "MAX_GB": 20.0,  # beyond it the features that were unused longest are dropped
    "BLOCK": 0,  # images encoded together; 0: 64 on a GPU; on a CPU 32, a batch of the protocol
    "AHEAD": 0,  # epochs whose views come from one decoding; 0: 5 on a GPU, 1 on a CPU
    "VIEWS": 0,  # training views of an image, used in turn by the epochs; 0: a new one each epoch
}

FORMAT = 4  # to be raised whenever the same key would no longer give the same features
UNREAD = 32  # blocks whose features may wait on a GPU: reading them lets it run out of work
CHUNK = 8  # images that a worker prepares at a time: small, so that all have work
TRAINING_VIEWS = "training views"  # as a run's record names them, beside the splits
UNAUGMENTED = {"normalize", "instance_norm", "center_crop"}  # transforms that draw nothing
_KEY = "key.json"
_NAME = re.compile("[0-9a-f]{32}")


class Encoder(Protocol):
    """A frozen image encoder and what identifies its features."""

    fingerprint: str  # of the weights
    precision: str  # fp32, fp16, bf16 or amp
    device: torch.device
    embed_dim: int  # d

    def encode_image(self, x: Tensor) -> Tensor:
        """[batch, 3, H, W] views -> [batch, d] features."""


class FrozenFeatures:
    """The features of a run's images.

    Args:
        cfg: the run's configuration. dm: its views. encoder: its frozen image encoder.

    Attributes:
        block: images encoded together. ahead: epochs whose views come from one decoding.
        use: set of views -> the images that this run used of it, how many of them it encoded
            itself, and the seconds that took.

    Raises:
        InputError: a setting is out of range; when reading, a feature is not finite.
    """

    def __init__(self, cfg: Any, dm: ViewManager, encoder: Encoder) -> None:
        for name in ("BLOCK", "AHEAD", "VIEWS", "MAX_GB"):
            if not cfg.FEATURES[name] >= 0:
                raise InputError(f"FEATURES.{name} is {cfg.FEATURES[name]}; give at least 0")
        self.cfg = cfg
        self.dm = dm
        self.encoder = encoder
        cuda = encoder.device.type == "cuda"
        self.block = cfg.FEATURES.BLOCK or (64 if cuda else 32)
        self.ahead = cfg.FEATURES.AHEAD or (5 if cuda else 1)
        self._training: EncodedViews | None = None
        self._every_epoch: Tensor | None = None
        self._splits: dict[str, Tensor] = {}
        self.use: dict[str, dict[str, float]] = {}

    def of_split(self, split: str) -> Tensor:
        """[n, d] fp32 features of the test views of ``train``, ``val`` or ``test``."""
        if split not in self._splits:
            dataset = self.dm.dataset
            images = dataset.train_x if split == "train" else getattr(dataset, split)
            views = self._encoded(self.dm.test_views(images))
            self._splits[split] = self._counted(split, views, range(1))
        return self._splits[split]

    def of_epoch(self, epoch: int, last_epoch: int) -> Tensor:
        """[n, d] fp32 features of the training views of an epoch.

        Where they have to be encoded, those of the ``ahead`` epochs from this one on are too, below
        ``last_epoch``. Where no transform is random, all epochs have the views of the first; with
        FEATURES.VIEWS N, an epoch has those of the epoch N before it.
        """
        if self._every_epoch is not None:
            return self._every_epoch
        if self._training is None:
            self._training = self._encoded(self.dm.train_views())
        n_views = min(self.cfg.FEATURES.VIEWS or last_epoch, last_epoch)
        view = epoch % n_views
        epochs = range(view, min(view + self.ahead, n_views))
        fixed = UNAUGMENTED.issuperset(self.cfg.INPUT.TRANSFORMS)
        if fixed:
            epochs = range(1)
        features = self._counted(TRAINING_VIEWS, self._training, epochs)
        if fixed:
            self._every_epoch = features
        if fixed or epoch + 1 == last_epoch:
            self._training = None  # lets the workers go
        return features

    def _counted(self, name: str, views: "EncodedViews", epochs: range) -> Tensor:
        """``views.read``, counting how many images' features were used, and encoded here."""
        encoded, seconds = views.encoded, views.seconds
        features = views.read(epochs)
        use = self.use.setdefault(name, {"images": 0, "encoded": 0, "seconds": 0.0})
        # A run that was cut and goes on reads a split again, and an epoch once.
        use["images"] = len(features) + (use["images"] if name == TRAINING_VIEWS else 0)
        use["encoded"] += views.encoded - encoded
        use["seconds"] += views.seconds - seconds
        return features

    def batches(self, epoch: int, last_epoch: int) -> list[dict[str, Tensor]]:
        """The batches of an epoch of training, with ``features`` in place of images.

        They are parts of tensors on the encoder's device, so a step copies nothing to it.
        """
        features = self.of_epoch(epoch, last_epoch)
        labels = torch.tensor([image.label for image in self.dm.dataset.train_x])
        sampler: Any = self.dm.train_loader_x.batch_sampler
        sampler.epoch = epoch
        order = torch.tensor([i for batch in sampler for _, i in batch])
        ordered = {"features": features[order], "label": labels[order], "index": order}
        parts = [x.to(self.encoder.device).split(sampler.batch_size) for x in ordered.values()]
        return [dict(zip(ordered, batch, strict=True)) for batch in zip(*parts, strict=True)]

    def _encoded(self, views: Views) -> "EncodedViews":
        kept = KeptFeatures(self.cfg.FEATURES, self._key(views))
        return EncodedViews(views, self.encoder, self.dm, self.block, kept)

    def _key(self, views: Views) -> dict[str, Any]:
        """Everything that the features follow from."""
        device = self.encoder.device
        cuda = device.type == "cuda"
        versions = {name: metadata.version(name) for name in ("torch", "torchvision", "pillow")}
        return {
            "format": FORMAT,
            "weights": self.encoder.fingerprint,
            "precision": self.encoder.precision,
            "device": torch.cuda.get_device_name(device) if cuda else device.type,
            "tf32": torch.backends.cuda.matmul.allow_tf32 if cuda else None,
            "transform": dict(self.cfg.INPUT),
            "dassl": "installed" if dassl_compat.USING_INSTALLED_DASSL else "built in",
            "augmented by seed": views.seed,
            "block": self.block,
            "versions": versions | {"machine": platform.machine()},
            "images": _identity(views.images),
            **_dicom_key(views),
        }


def _dicom_key(views: Views) -> dict[str, Any]:
    """What features of DICOM files follow from besides; nothing where there are none."""
    if views.rendering.is_default and not any(is_dicom(image.impath) for image in views.images):
        return {}
    versions = {}
    for name in ("pydicom", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {"dicom": [DICOM_FORMAT, *views.rendering.key, versions]}


def _identity(images: Sequence[Any]) -> str:
    """A fingerprint of which images these are: id, path, size and modification time of each."""
    digest = hashlib.sha256()
    for image in images:
        stat = os.stat(file_of(image.impath))
        state = [image.id, str(image.impath), stat.st_size, stat.st_mtime_ns]
        digest.update(json.dumps(state).encode())
    return digest.hexdigest()


@dataclass
class EncodedViews:
    """The features of one set of views, epoch by epoch: read where they are kept, else encoded.

    Attributes:
        encoded, seconds: images encoded here so far, and what that took.
    """

    views: Views
    encoder: Encoder
    dm: ViewManager
    block: int
    kept: "KeptFeatures"
    memory: dict[int, np.ndarray] = field(default_factory=dict)  # what could not be kept
    loader: DataLoader | None = None
    encoded: int = 0
    seconds: float = 0.0

    def read(self, epochs: range) -> Tensor:
        """[n, d] fp32 features of the first of ``epochs``; if they are missing, all are encoded."""
        features = self._known(epochs[0])
        if features is None:
            with self.kept.encoding():
                # Another run may have encoded them while this one waited for its turn.
                missing = [epoch for epoch in epochs if self._known(epoch) is None]
                encoded = self._encode(missing) if epochs[0] in missing else {}
                for epoch, made in encoded.items():
                    if not self.kept.write(epoch, made):
                        self.memory[epoch] = made
                features = encoded.get(epochs[0])
                if features is None:
                    features = self._known(epochs[0])
        self.memory.pop(epochs[0], None)
        # Halves on the disk; a model gets what the encoder itself would have given it.
        return torch.from_numpy(features).float()

    def _known(self, epoch: int) -> np.ndarray | None:
        if epoch in self.memory:
            return self.memory[epoch]
        return self.kept.read(epoch, (len(self.views), self.encoder.embed_dim))

    def _encode(self, epochs: Sequence[int]) -> dict[int, np.ndarray]:
        """{epoch: [n, d] features}."""
        keep_freed_memory()
        start_time = time.perf_counter()
        n, encoder = len(self.views), self.encoder
        # An encoder in half precision gives halves: nothing is lost.
        dtype = np.float16 if encoder.precision == "fp16" else np.float32
        encoded = {epoch: np.empty((n, encoder.embed_dim), dtype) for epoch in epochs}
        if not self.encoded:
            where = self.kept.folder if self.kept.on else "memory, for this run alone"
            print(f"Encoding {n:,} images; features are kept in {where}", flush=True)
        with tqdm(total=n, desc="encoding", unit="image", leave=False, disable=None) as bar:
            made: list[tuple[int, int, Tensor]] = []
            for start, views in self._blocks(epochs):
                for i, epoch in enumerate(epochs):
                    x = self.dm.scale(views[:, i])
                    made.append((epoch, start, encoder.encode_image(x)))
                if len(made) >= UNREAD or start + len(views) == n:
                    for epoch, first, block in made:
                        features = block.cpu().numpy().astype(dtype)
                        self._check(features, first)
                        encoded[epoch][first : first + len(features)] = features
                    made.clear()
                bar.update(len(views))
        self.encoded += n * len(epochs)
        self.seconds += time.perf_counter() - start_time
        return encoded

    def _blocks(self, epochs: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """Yield (index of the first image, [block, epochs, 3, H, W] views), block by block.

        The views are on the encoder's device. Each chunk is copied as the loader gave it, in pinned
        memory where the device is a GPU: only from there a copy runs beside what is computed.
        """
        chunk = math.gcd(self.block, CHUNK)
        if self.loader is None:  # its workers stay for the epochs to come
            self.loader = self.dm.loader(self.views, chunk, persistent=True)
        sampler: Any = self.loader.batch_sampler
        sampler.epoch = tuple(epochs)
        device = self.encoder.device
        chunks = (batch["img"].to(device, non_blocking=True) for batch in self.loader)
        for start in range(0, len(self.views), self.block):
            yield start, torch.cat(list(islice(chunks, self.block // chunk)))

    def _check(self, features: np.ndarray, start: int) -> None:
        wrong = ~np.isfinite(features).all(axis=1)
        if wrong.any():
            first = self.views.images[start + int(wrong.argmax())].impath
            raise InputError(
                f"{first}: the image encoder gives features that are not finite, in "
                f"{self.encoder.precision}; check the backbone's weights, or set PREC to fp32"
            )


class KeptFeatures:
    """The kept features of one set of views, in a folder that the user's runs share.

    The folder of all sets is bounded in size and private to the user. A place that cannot be used
    is said in one line; from then on nothing is kept, and nothing is read.

    Args:
        settings: ``cfg.FEATURES``. key: everything that the features follow from.
    """

    def __init__(self, settings: Any, key: dict[str, Any]) -> None:
        self.root = Path(settings.DIR or cache_folder("features")).expanduser().absolute()
        text = json.dumps(key, sort_keys=True)
        self.folder = self.root / hashlib.sha256(text.encode()).hexdigest()[:32]
        self.max_bytes = settings.MAX_GB * 1e9
        self.on = settings.KEEP
        self.key = key
        if self.on:
            with self._or_off():
                self._open()

    def _open(self) -> None:
        # Features of patients' images: nobody else may read them.
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._locked():
            self.folder.mkdir(exist_ok=True, mode=0o700)
            self._in_use = hold(self.folder)
            if not (self.folder / _KEY).exists():
                write_json(self.folder / _KEY, self.key)

    def read(self, epoch: int, shape: tuple[int, int]) -> np.ndarray | None:
        """[n, d] features of an epoch; None where there are none, or their file is damaged."""
        # Reading compares the zip format's checksum.
        with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            if self.on:
                with np.load(self._file(epoch)) as file:
                    return file["features"].reshape(shape)
        return None

    def write(self, epoch: int, features: np.ndarray) -> bool:
        """Keep the features of an epoch; whether that was possible."""
        if self.on:
            with self._or_off(), self._locked():
                self._make_room(features.nbytes)
                with atomic_write(self._file(epoch), "wb", private=True) as file:
                    np.savez(file, features=features)
        return self.on

    @contextlib.contextmanager
    def encoding(self) -> Iterator[None]:
        """Let one run at a time encode: others that need the same features wait and read them."""
        lock = FileLock(self.folder / "encoding.lock", mode=0o600)
        if self.on:
            with self._or_off():
                self._open()  # again: the user may have deleted it
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    print("another run is encoding the same images: waiting for its features")
                    lock.acquire()
                for left in self.folder.glob(".*.tmp"):  # by a run that was killed
                    left.unlink(missing_ok=True)
        try:
            yield
        finally:
            lock.release()

    def _file(self, epoch: int) -> Path:
        return self.folder / f"{epoch:04d}.npz"

    def _locked(self) -> FileLock:
        return FileLock(self.root / ".lock", mode=0o600)

    @contextlib.contextmanager
    def _or_off(self) -> Iterator[None]:
        try:
            yield
        except (OSError, NotImplementedError) as error:  # the second where no file can be locked
            reason = getattr(error, "strerror", None) or error
            print(f"image features are not kept: {self.folder} cannot be used ({reason})")
            self.on = False

    def _make_room(self, needed: int) -> None:
        """Drop what was unused longest until ``needed`` bytes fit."""
        # The user may have named a folder that holds other things.
        folders = [path for path in self.root.iterdir() if _NAME.fullmatch(path.name)]
        make_room(folders, needed, self.max_bytes, "FEATURES.MAX_GB")
