"""The same views, in the same order, for every method.

A picture's augmented view depends on (seed, epoch, picture) alone, and the order of the pictures on
(seed, epoch) alone: not on the method, the number of workers, or what was drawn before.
"""

import hashlib
import os
import random
from contextlib import contextmanager

import numpy as np
import torch
from dassl.data.datasets import build_dataset
from dassl.data.transforms import build_transform
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.pictures import read_picture


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
    """

    def __init__(self, pictures, transform, seed=None):
        self.pictures = pictures
        self.transform = transform
        self.seed = seed  # None: the transform draws nothing

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, key):
        epoch, index = key
        picture = self.pictures[index]
        image = read_picture(picture.impath)
        if self.seed is None:
            view = self.transform(image)
        else:
            with seeded_draws(view_seed(self.seed, epoch, picture.id)):
                view = self.transform(image)
        return {
            "img": view,
            "label": picture.label,
            "domain": picture.domain,
            "impath": picture.impath,
            "index": index,
        }


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
        self.dataset = build_dataset(cfg)
        self.num_classes = self.dataset.num_classes
        self.lab2cname = self.dataset.lab2cname
        self.num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self.tfm_train = build_transform(cfg, is_train=True)
        self.tfm_test = build_transform(cfg, is_train=False)
        self.train_loader_x = self.loader(
            Views(self.dataset.train_x, self.tfm_train, cfg.SEED),
            cfg.DATALOADER.TRAIN_X.BATCH_SIZE,
            cfg.SEED,
        )
        self.train_loader_u = None
        self.val_loader = self.test_view_loader(self.dataset.val)
        self.test_loader = self.test_view_loader(self.dataset.test)

    def test_view_loader(self, pictures):
        """Batches of the pictures' test views, in their own order."""
        return self.loader(Views(pictures, self.tfm_test), self.cfg.DATALOADER.TEST.BATCH_SIZE)

    def loader(self, views, batch_size, seed=None):
        workers = min(self.cfg.DATALOADER.NUM_WORKERS, os.cpu_count() or 1)
        return DataLoader(
            views,
            batch_sampler=EpochBatches(len(views), batch_size, seed),
            num_workers=workers,
            persistent_workers=workers > 0 and seed is not None,
            pin_memory=torch.cuda.is_available() and self.cfg.USE_CUDA,
            # A generator of its own: starting an epoch draws nothing from the method's.
            generator=torch.Generator().manual_seed(0),
        )
