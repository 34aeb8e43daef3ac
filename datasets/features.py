"""Features of views, encoded once by the frozen image encoder and kept for every later run.

Bits of a feature depend on what is encoded beside it. So pictures are encoded in blocks that the
data alone fix: ``BLOCK`` pictures in the order of the split. A run on kept features, a run that
keeps nothing and a run that is resumed read the same bits.

On the disk, below ``DIR``: a folder for each set of pictures and everything that their features
follow from (its name is a fingerprint of ``key.json``), in it a file for each epoch. A file holds a
mark for each block, then the features. A mark is a checksum, written after its block, so a block
counts whole or not at all, whoever was killed when.
"""

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import time
import zlib
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import dassl_compat
from backbones.clip_model import weights_fingerprint
from core.errors import InputError
from core.files import write_json
from datasets.views import Scale

try:
    import fcntl
except ImportError:  # Windows does not let a file be deleted that is in use
    fcntl = None

# Joins Dassl's cfg. None of these changes a result by more than rounding.
DEFAULTS = {
    "KEEP": True,  # keep features on the disk; False: encode them again in every run
    "DIR": "",  # where; empty: $XDG_CACHE_HOME/vip-for-dassl/features, or below ~/.cache
    "MAX_GB": 20.0,  # beyond it the features that were unused longest are dropped
    "BLOCK": 0,  # pictures encoded together; 0: 64 on a GPU; on a CPU 32, a batch of the protocol
    "AHEAD": 0,  # epochs whose views come from one decoding; 0: 5 on a GPU, 1 on a CPU
}

FORMAT = 1  # to be raised whenever the same key would no longer give the same features
CHUNK = 8  # pictures that a worker prepares at a time: small, so that all have work
TRAINING_VIEWS = "training views"  # as a run's record names them, beside the splits
_KEY = "key.json"
_NAME = re.compile("[0-9a-f]{32}")
_MARKED = 1 << 32  # above any checksum of 32 bits


class FrozenFeatures:
    """The features of a run's pictures.

    Args:
        cfg: the run's. dm: its ``ViewManager``. clip_model: its ``FrozenCLIP``.

    Attributes:
        block: pictures encoded together. ahead: epochs whose views come from one decoding.
    """

    def __init__(self, cfg, dm, clip_model):
        for name, least in {"BLOCK": 0, "AHEAD": 0, "MAX_GB": 0}.items():
            if cfg.FEATURES[name] < least:
                raise InputError(f"FEATURES.{name} is {cfg.FEATURES[name]}; give at least {least}")
        self.cfg = cfg
        self.dm = dm
        self.clip = clip_model
        cuda = clip_model.device.type == "cuda"
        self.block = cfg.FEATURES.BLOCK or (64 if cuda else 32)
        self.ahead = cfg.FEATURES.AHEAD or (5 if cuda else 1)
        self.store = FeatureStore(cfg.FEATURES) if cfg.FEATURES.KEEP else None
        self._weights = None
        self._shelves = {}
        self._loaded = {}
        self.use = {}  # set of views -> what this run used of it: images, encoded and seconds

    def of_split(self, split):
        """[n, d] features of the test views of ``train``, ``val`` or ``test``."""
        if split not in self._loaded:
            dataset = self.dm.dataset
            pictures = dataset.train_x if split == "train" else getattr(dataset, split)
            shelf = self.shelf(split, self.dm.test_views(pictures))
            self._loaded[split] = self._counted(split, shelf, 0, range(1))
            shelf.filler.close()
        return self._loaded[split]

    def of_epoch(self, epoch, last_epoch):
        """[n, d] features of the training views of an epoch.

        Where they have to be encoded, those of the ``ahead`` epochs from this one on are too, below
        ``last_epoch``.
        """
        shelf = self.shelf("epochs", self.dm.train_views())
        ahead = range(epoch, min(epoch + self.ahead, last_epoch))
        features = self._counted(TRAINING_VIEWS, shelf, epoch, ahead)
        if epoch + 1 == last_epoch:
            shelf.filler.close()
        return features

    def _counted(self, name, shelf, epoch, ahead):
        """``shelf.read``, counting how many images' features were used, and encoded here."""
        encoded, seconds = shelf.encoded, shelf.seconds
        features = shelf.read(epoch, ahead)
        use = self.use.setdefault(name, {"images": 0, "encoded": 0, "seconds": 0.0})
        # A run that was cut and goes on reads a split again, and an epoch once.
        before = use["images"] if name == TRAINING_VIEWS else 0
        use["images"] = before + len(features)
        use["encoded"] += shelf.encoded - encoded
        use["seconds"] += shelf.seconds - seconds
        return features

    def batches(self, epoch, last_epoch):
        """The batches of an epoch of training, with ``features`` in place of pictures."""
        features = self.of_epoch(epoch, last_epoch)
        sampler = self.dm.train_loader_x.batch_sampler
        labels = torch.tensor([picture.label for picture in self.dm.dataset.train_x])
        return EpochOfFeatures(features, labels, sampler, epoch)

    def shelf(self, name, views):
        if name not in self._shelves:
            clip_model, block = self.clip, self.block
            # An encoder in half precision gives halves: nothing is lost.
            half = clip_model.precision == "fp16"
            shape = len(views), clip_model.embed_dim, np.float16 if half else np.float32
            folder = None
            if self.store:
                folder = self.store.folder(self._key(views))
            filler = Filler(views, clip_model, self.dm, block)
            self._shelves[name] = Shelf(self.store, folder, shape, block, filler)
        return self._shelves[name]

    def _key(self, views):
        """Everything that the features follow from."""
        if self._weights is None:
            self._weights = weights_fingerprint(self.clip.model.visual)
        device = self.clip.device
        cuda = device.type == "cuda"
        return {
            "format": FORMAT,
            "weights": self._weights,
            "precision": self.clip.precision,
            "device": torch.cuda.get_device_name(device) if cuda else device.type,
            "tf32": torch.backends.cuda.matmul.allow_tf32 if cuda else None,
            "transform": _plain(self.cfg.INPUT),
            "dassl": "installed" if dassl_compat.USING_INSTALLED_DASSL else "built in",
            "augmented by seed": views.seed,
            "block": self.block,
            "versions": _versions(),
            "pictures": _identity(views.pictures),
        }


class EpochOfFeatures:
    """Batches of an epoch, in the order in which pictures would have come."""

    def __init__(self, features, labels, sampler, epoch):
        self.features = features
        self.labels = labels
        self.sampler = sampler
        self.epoch = epoch

    def __len__(self):
        return len(self.sampler)

    def __iter__(self):
        self.sampler.epoch = self.epoch
        for batch in self.sampler:
            index = torch.tensor([i for _, i in batch])
            yield {"features": self.features[index], "label": self.labels[index], "index": index}


def _identity(pictures):
    """A fingerprint of which pictures these are: id, path, size and time of change of each."""
    digest = hashlib.sha256()
    for picture in pictures:
        stat = os.stat(picture.impath)
        state = [picture.id, str(picture.impath), stat.st_size, stat.st_mtime_ns]
        digest.update(json.dumps(state).encode())
    return digest.hexdigest()


def _versions():
    """What decodes, resizes and multiplies."""
    names = ("torch", "torchvision", "pillow")
    return {name: metadata.version(name) for name in names} | {"machine": platform.machine()}


def _plain(node):
    return {key: list(v) if isinstance(v, tuple | list) else v for key, v in node.items()}


class Filler:
    """Reads pictures in workers and encodes them, block by block."""

    def __init__(self, views, clip_model, dm, block):
        self.views = views
        self.clip = clip_model
        self.dm = dm
        self.block = block
        self._loader = None

    def blocks(self, plan):
        """Yield (block, epoch, [block, d] features) for each (block, epochs) of ``plan``."""
        jobs = []
        for b, epochs in plan:
            indices = range(b * self.block, min((b + 1) * self.block, len(self.views)))
            jobs += [
                [(tuple(epochs), i) for i in indices[at : at + CHUNK]]
                for at in range(0, len(indices), CHUNK)
            ]
        chunks = iter(self.loaded(jobs))
        for b, epochs in plan:
            size = min(self.block, len(self.views) - b * self.block)
            views = []
            while sum(map(len, views)) < size:
                views.append(next(chunks))
            views = torch.cat(views)  # [block, epochs, 3, H, W]
            for i, epoch in enumerate(epochs):
                yield b, epoch, self.encode(views[:, i])

    def encode(self, views):
        x = views.to(self.clip.device, non_blocking=True)
        scale = self.views.scale or Scale()
        return self.clip.encode_image(scale(x)).cpu().numpy()

    def loaded(self, jobs):
        """The views of each job, a list of (epochs, index): [len(job), len(epochs), 3, H, W]."""
        # One loader for all fillings: its workers stay, and take other jobs each time.
        if self._loader is None:
            options = self.dm.loading()
            self._loader = DataLoader(
                _ManyEpochs(self.views),
                batch_sampler=_Jobs(),
                persistent_workers=options["num_workers"] > 0,
                **options,
            )
        self._loader.batch_sampler.jobs = jobs
        return self._loader

    def close(self):
        """Let the workers go."""
        self._loader = None


class _ManyEpochs(Dataset):
    def __init__(self, views):
        self.views = views

    def __getitem__(self, key):
        epochs, index = key
        return torch.stack(self.views.views(index, epochs))


class _Jobs:
    jobs = ()

    def __iter__(self):
        return iter(self.jobs)

    def __len__(self):
        return len(self.jobs)


class Shelf:
    """The features of one set of pictures, epoch by epoch.

    Args:
        store: the ``FeatureStore``, None to keep nothing.
        folder: the set's own folder, None where nothing can be kept.
        shape: (n, d, dtype). block: pictures encoded together.
        filler: gives the features that are missing.
    """

    def __init__(self, store, folder, shape, block, filler):
        self.store = store
        self.folder = folder
        self.shape = shape
        self.block = block
        self.filler = filler
        self.encoded, self.seconds = 0, 0.0  # images that were encoded here, and the time it took
        self._memory = {}
        self._told = False

    def read(self, epoch, ahead):
        """[n, d] features of ``epoch``; if any is missing, all of ``ahead`` are made."""
        rows = self._rows(epoch)
        while rows.missing():  # once, unless somebody deletes the folder meanwhile
            self._fill({e: self._rows(e) for e in ahead})
            rows = self._rows(epoch)
        self._memory = {e: r for e, r in self._memory.items() if e > epoch}
        return rows.tensor()

    def _rows(self, epoch):
        if epoch not in self._memory and self.folder is not None:
            rows = self.store.rows(self.folder, epoch, self.shape, self.block)
            if rows is not None:
                return rows
            self.folder = None  # from here on in memory
        return self._memory.setdefault(epoch, Rows(self.shape, self.block))

    def _fill(self, wanted):
        with self._only_filler():
            # Another run may have filled some while this one waited for its turn.
            missing = {epoch: set(rows.missing()) for epoch, rows in wanted.items()}
            blocks = sorted(set().union(*missing.values()))
            plan = [(b, [e for e in wanted if b in missing[e]]) for b in blocks]
            if not plan:
                return
            if not self._told:
                where = self.folder or "memory, for this run alone"
                print(
                    f"Encoding {self.shape[0]:,} pictures; features are kept in {where}", flush=True
                )
                self._told = True
            total = sum(map(len, missing.values()))
            start = time.time()
            bar = tqdm(total=total, desc="encoding", unit="block", leave=False, disable=None)
            with bar:
                for b, epoch, features in self.filler.blocks(plan):
                    self._put(wanted, epoch, b, features)
                    self.encoded += len(features)
                    bar.update()
            self.seconds += time.time() - start

    def _put(self, wanted, epoch, b, features):
        try:
            wanted[epoch].put(b, features)
        except OSError as error:  # a full disk most of all: the run goes on without
            print(f"image features are not kept any more: {self.folder} ({error.strerror})")
            for e, rows in wanted.items():
                wanted[e] = self._memory[e] = rows.in_memory()
            self.folder = None
            wanted[epoch].put(b, features)

    @contextlib.contextmanager
    def _only_filler(self):
        """Several runs that start together encode each block once: the others wait and read."""
        if self.folder is None:
            yield
            return
        lock = FileLock(self.folder / "filling.lock", mode=0o600)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print("another run is encoding the same pictures: waiting for its features")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


class Rows:
    """[n, d] features, known block by block; these are in memory only."""

    def __init__(self, shape, block):
        n, dim, dtype = self.shape = shape
        self.block = block
        self.array = np.empty((n, dim), dtype)
        self.known = np.zeros(-(-n // block), bool)

    def missing(self):
        """The blocks that are not there."""
        return np.flatnonzero(~self.known).tolist()

    def put(self, b, features):
        self.array[self._of(b)] = features
        self.known[b] = True

    def tensor(self):
        return torch.from_numpy(self.array)

    def _of(self, b):
        return slice(b * self.block, min((b + 1) * self.block, self.shape[0]))


class KeptRows(Rows):
    """The same in a file that other runs read and write as well."""

    def __init__(self, path, shape, block):
        n, dim, dtype = self.shape = shape
        self.block = block
        self.path = path
        self.row_bytes = dim * np.dtype(dtype).itemsize
        self.n_blocks = -(-n // block)
        self.start = -(-8 * self.n_blocks // 4096) * 4096  # of the features, for the mapping
        self.bytes = self.start + n * self.row_bytes
        self._whole = False

    def exists(self):
        """Whether the file is there in its size; another is a leftover."""
        with contextlib.suppress(OSError):
            return os.stat(self.path).st_size == self.bytes
        return False

    def create(self):
        self.path.unlink(missing_ok=True)
        with os.fdopen(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600), "r+b") as file:
            file.truncate(self.bytes)  # a hole: it takes room as blocks come

    def missing(self):
        if self._whole:
            return []
        marks, array = self._mapped()
        missing = []
        for b in range(self.n_blocks):
            mark = int(marks[b])
            # The checksum also tells a block that a power cut left half written.
            if not mark or mark != _mark(array[self._of(b)]):
                missing.append(b)
        self._whole = not missing
        return missing

    def put(self, b, features):
        features = np.ascontiguousarray(features.astype(self.shape[2]))
        file = os.open(self.path, os.O_RDWR)
        try:
            # By writing and not through the mapping: a full disk is then an error, not a crash.
            _write(file, features.tobytes(), self.start + b * self.block * self.row_bytes)
            _write(file, np.uint64(_mark(features)).tobytes(), 8 * b)
        finally:
            os.close(file)

    def tensor(self):
        # Copy on write, because PyTorch has no tensors that are only read.
        return torch.from_numpy(self._mapped()[1])

    def in_memory(self):
        """What is known so far, as ``Rows``."""
        rows = Rows(self.shape, self.block)
        with contextlib.suppress(OSError):
            missing = self.missing()
            _, array = self._mapped()
            for b in range(self.n_blocks):
                if b not in missing:
                    rows.put(b, array[self._of(b)])
        return rows

    def _mapped(self):
        n, dim, dtype = self.shape
        marks = np.fromfile(self.path, np.uint64, self.n_blocks)
        if not n:
            return marks, np.empty((0, dim), dtype)
        return marks, np.memmap(self.path, dtype, "c", self.start, (n, dim))


def _mark(features):
    return _MARKED | zlib.crc32(np.ascontiguousarray(features).view(np.uint8))


def _write(file, data, offset):
    data = memoryview(data)
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


class FeatureStore:
    """The folder of all kept features: bounded, private to the user, shared by the user's runs."""

    def __init__(self, settings):
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = settings.DIR or Path(home) / "vip-for-dassl" / "features"
        self.root = Path(folder).expanduser().absolute()
        self.max_bytes = settings.MAX_GB * 1e9
        self._in_use = {}  # folder -> open file that holds the mark of its use

    def folder(self, key):
        """The folder of a key, made if need be and in use from now on; None if that fails."""
        text = json.dumps(key, sort_keys=True)
        folder = self.root / hashlib.sha256(text.encode()).hexdigest()[:32]
        try:
            # Features of patients' pictures: for nobody else's eyes.
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._locked():
                folder.mkdir(exist_ok=True, mode=0o700)
                self._mark_use(folder)
                if not (folder / _KEY).exists():
                    write_json(folder / _KEY, key)
        except (OSError, NotImplementedError) as error:
            print(f"image features are not kept: {self.root} cannot be used ({error})")
            return None
        return folder

    def rows(self, folder, epoch, shape, block):
        """The rows of an epoch; None where there is no room for them."""
        rows = KeptRows(folder / f"{epoch:04d}.features", shape, block)
        try:
            with self._locked():
                os.utime(folder)
                if not rows.exists():
                    if not self._make_room(rows.bytes):
                        print(
                            "image features are not kept any more: those in use fill the "
                            f"{self.max_bytes / 1e9:g} GB of FEATURES.MAX_GB"
                        )
                        return None
                    rows.create()
        except OSError as error:
            print(f"image features are not kept: {folder} cannot be written ({error.strerror})")
            return None
        return rows

    def _make_room(self, needed):
        """Drop what was unused longest until ``needed`` bytes fit; whether they do."""
        # The user may have named a folder that holds other things.
        folders = [path for path in self.root.iterdir() if _NAME.fullmatch(path.name)]
        sizes = {folder: sum(f.stat().st_size for f in folder.iterdir()) for folder in folders}
        used = sum(sizes.values())
        for folder in sorted(folders, key=lambda folder: folder.stat().st_mtime):
            if used + needed <= self.max_bytes:
                break
            if not self._is_in_use(folder):
                shutil.rmtree(folder)
                used -= sizes[folder]
        return used + needed <= self.max_bytes

    def _locked(self):
        return FileLock(self.root / ".lock", mode=0o600)

    def _mark_use(self, folder):
        if fcntl and folder not in self._in_use:
            self._in_use[folder] = open(folder / "in-use", "a")
            fcntl.flock(self._in_use[folder], fcntl.LOCK_SH)

    def _is_in_use(self, folder):
        if not fcntl:
            return time.time() - folder.stat().st_mtime < 86400
        with open(folder / "in-use", "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
        return False
