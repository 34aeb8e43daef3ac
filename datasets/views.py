"""The same views, in the same order, for every method.

A picture's augmented view depends on (seed, epoch, picture) alone, and the order of the pictures on
(seed, epoch) alone: not on the method, the number of workers, or what was drawn before.
"""

import ctypes
import hashlib
import os
import random
import signal
import sys
from contextlib import contextmanager

import numpy as np
import torch
from dassl.data.datasets import DATASET_REGISTRY, build_dataset
from dassl.data.transforms import build_transform
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import transforms as T

from core.errors import InputError, as_input_error
from datasets.pictures import read_picture

# Steps that do the same to one grey channel as to three equal ones, at a third of the cost.
GEOMETRIC = (T.RandomResizedCrop, T.RandomHorizontalFlip, T.Resize, T.CenterCrop)


def view_seed(seed, epoch, name):
    """A 63-bit seed that (seed, epoch, name) determine."""
    digest = hashlib.sha256(f"{seed}|{epoch}|{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def seeded_draws(seed):
    """Run a block whose random draws depend on ``seed`` alone and disturb nobody else's."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


class Views(Dataset):
    """Views of pictures, addressed by (epoch, index).

    The epoch travels with the index because workers that stay alive keep the copy of this object
    that they were started with.

    Args:
        transform: from a PIL picture to a tensor.
        seed: of the transform's draws; None: it draws nothing.
        as_bytes: leave scaling and normalisation to ``scale``, where the transform ends in no
            more than these: a quarter of the bytes travel, and the device does the rest.
    """

    def __init__(self, pictures, transform, seed=None, as_bytes=False):
        self.pictures = pictures
        self.transform = transform
        self.seed = seed
        self.steps, self.scale = _split(transform)
        self.as_bytes = as_bytes and self.scale is not None
        # Only bytes: a tensor from one channel would have one channel.
        self.keep_grey = self.as_bytes and all(isinstance(step, GEOMETRIC) for step in self.steps)

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, key):
        epoch, index = key
        picture = self.pictures[index]
        return {
            "img": self.views(index, [epoch])[0],
            "label": picture.label,
            "domain": picture.domain,
            "impath": picture.impath,
            "index": index,
        }

    def views(self, index, epochs):
        """The views of one picture in several epochs; it is decoded once."""
        picture = self.pictures[index]
        image = read_picture(picture.impath, keep_grey=self.keep_grey)
        if self.seed is None:
            return [self._view(image) for _ in epochs]
        views = []
        for epoch in epochs:
            with seeded_draws(view_seed(self.seed, epoch, picture.id)):
                views.append(self._view(image))
        return views

    def _view(self, image):
        if not self.as_bytes:
            return self.transform(image)
        for step in self.steps:
            image = step(image)
        pixels = np.array(image.convert("RGB"))  # [H, W, 3]
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


class Scale:
    """What ends a transform: bytes to [0, 1], then each channel's mean and deviation.

    The same operations in the same order as torchvision's, so the same bits on a CPU.
    """

    def __init__(self, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)):
        self.mean = mean
        self.std = std

    def __call__(self, x):
        """[batch, 3, H, W] bytes -> fp32, on their device; fp32 is finished and passes."""
        if x.dtype != torch.uint8:
            return x
        # Tensors of the device: dividing by a number would multiply by its rounded inverse.
        whole = torch.tensor(255.0, device=x.device)
        mean, std = (
            torch.tensor(values, device=x.device).reshape(3, 1, 1)
            for values in (self.mean, self.std)
        )
        return x.float().div_(whole).sub_(mean).div_(std)


def _split(transform):
    """A transform as (steps on the picture, ``Scale``); (None, None) where it does not end so."""
    steps = list(getattr(transform, "transforms", ()))
    names = [type(step) for step in steps]
    if T.ToTensor not in names:
        return None, None
    first = names.index(T.ToTensor)
    last = steps[first + 1 :]
    if not last:
        return steps[:first], Scale()
    if len(last) == 1 and isinstance(last[0], T.Normalize) and len(last[0].mean) == 3:
        return steps[:first], Scale(last[0].mean, last[0].std)
    return None, None


class EpochBatches(Sampler):
    """Batches of (epoch, index), shuffled by (seed, epoch), or in file order without a seed.

    The last batch is dropped when training if it is not full and another one is (as in Dassl).
    """

    def __init__(self, n_pictures, batch_size, seed=None):
        self.n_pictures = n_pictures
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def order(self, epoch):
        """The indices of the pictures in the order in which ``epoch`` shows them."""
        if self.seed is None:
            return list(range(self.n_pictures))
        generator = torch.Generator().manual_seed(view_seed(self.seed, epoch, "order"))
        return torch.randperm(self.n_pictures, generator=generator).tolist()

    def __len__(self):
        if self.seed is not None and self.n_pictures >= self.batch_size:
            return self.n_pictures // self.batch_size
        return -(-self.n_pictures // self.batch_size)

    def __iter__(self):
        order = self.order(self.epoch)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield [(self.epoch, index) for index in order[start : start + self.batch_size]]


class ViewManager:
    """What Dassl's DataManager offers a trainer, with views and order that anyone can repeat."""

    def __init__(self, cfg):
        self.cfg = cfg
        known = DATASET_REGISTRY.registered_names()
        if cfg.DATASET.NAME not in known:
            raise InputError(
                f"DATASET.NAME is {cfg.DATASET.NAME!r}; choose one of {', '.join(known)}"
            )
        self.dataset = build_dataset(cfg)
        self.num_classes = self.dataset.num_classes
        self.lab2cname = self.dataset.lab2cname
        self.num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        with as_input_error("INPUT"):
            self.tfm_train = build_transform(cfg, is_train=True)
            self.tfm_test = build_transform(cfg, is_train=False)
        self.scale = self.test_views([]).scale or Scale()  # what ends a view that came as bytes
        self.train_loader_x = self.loader(
            self.train_views(), cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg.SEED
        )
        self.train_loader_u = None
        self.val_loader = self.test_view_loader(self.dataset.val)
        self.test_loader = self.test_view_loader(self.dataset.test)

    def train_views(self):
        """The augmented views of the training pictures, as bytes where they can be."""
        return Views(self.dataset.train_x, self.tfm_train, self.cfg.SEED, as_bytes=True)

    def test_views(self, pictures):
        return Views(pictures, self.tfm_test, as_bytes=True)

    def test_view_loader(self, pictures):
        """Batches of the pictures' test views, in their own order."""
        return self.loader(self.test_views(pictures), self.cfg.DATALOADER.TEST.BATCH_SIZE)

    def loader(self, views, batch_size, seed=None):
        return DataLoader(
            views,
            batch_sampler=EpochBatches(len(views), batch_size, seed),
            persistent_workers=self.workers > 0 and seed is not None,
            **self.loading(),
        )

    @property
    def workers(self):
        return min(self.cfg.DATALOADER.NUM_WORKERS, os.cpu_count() or 1)

    def loading(self):
        """What all loaders share."""
        return {
            "num_workers": self.workers,
            "worker_init_fn": _end_with_parent,
            "pin_memory": torch.cuda.is_available() and self.cfg.USE_CUDA,
            # A generator of its own: starting an epoch draws nothing from the method's.
            "generator": torch.Generator().manual_seed(0),
        }


def _end_with_parent(worker):
    # The workers of a killed run would else hold its folder's lock for seconds.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
