"""Data set, transforms and loaders of a run."""

import torch
from dassl.utils import read_image
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset

from .datasets import build_dataset
from .samplers import build_sampler
from .transforms import INTERPOLATION_MODES, build_transform, plain_transform

__all__ = ["INTERPOLATION_MODES", "DataManager", "DatasetWrapper", "build_data_loader"]


class DatasetWrapper(Dataset):
    """Turns a Datum into ``img, label, domain, impath, index``.

    With a list of transforms the second one's view is ``img2`` and so on. With
    DATALOADER.K_TRANSFORMS above one a training view is a list of that many. With
    DATALOADER.RETURN_IMG0 the picture without augmentation is ``img0``.
    """

    def __init__(self, cfg, data_source, transform=None, is_train=False):
        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform  # callable, or several in a list or tuple
        self.is_train = is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        if self.k_tfm > 1 and transform is None:
            raise ValueError(f"no transform to apply {self.k_tfm} times (DATALOADER.K_TRANSFORMS)")
        self.to_tensor = plain_transform(cfg)

    def __len__(self):
        return len(self.data_source)

    def __getitem__(self, idx):
        item = self.data_source[idx]
        output = {
            "label": item.label,
            "domain": item.domain,
            "impath": item.impath,
            "index": idx,
        }
        picture = read_image(item.impath)
        if self.transform is None:
            output["img"] = self.to_tensor(picture)
        elif isinstance(self.transform, (list, tuple)):
            for place, transform in enumerate(self.transform, start=1):
                output["img" if place == 1 else f"img{place}"] = self._view(transform, picture)
        else:
            output["img"] = self._view(self.transform, picture)
        if self.return_img0:
            output["img0"] = self.to_tensor(picture)
        return output

    def _view(self, transform, picture):
        views = [transform(picture) for _ in range(self.k_tfm)]
        return views[0] if self.k_tfm == 1 else views


def build_data_loader(
    cfg,
    sampler_type="SequentialSampler",
    data_source=None,
    batch_size=64,
    n_domain=0,
    n_ins=2,
    tfm=None,
    is_train=True,
    dataset_wrapper=None,
):
    """A loader over ``data_source``; in training without the last partial batch.

    Fewer pictures than a batch make one partial batch in training too.
    """
    sampler = build_sampler(
        sampler_type,
        cfg=cfg,
        data_source=data_source,
        batch_size=batch_size,
        n_domain=n_domain,
        n_ins=n_ins,
    )
    wrapper = dataset_wrapper or DatasetWrapper
    loader = DataLoader(
        wrapper(cfg, data_source, transform=tfm, is_train=is_train),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        drop_last=is_train and len(data_source) >= batch_size,
        pin_memory=cfg.USE_CUDA and torch.cuda.is_available(),
    )
    if len(loader) == 0:
        raise ValueError("a data loader would have no batch: the data set has an empty split")
    return loader


class DataManager:
    """The data set of a run and its loaders.

    Attributes are ``dataset``, ``train_loader_x``, ``train_loader_u``, ``val_loader``,
    ``test_loader``, ``num_classes``, ``num_source_domains`` and ``lab2cname``. A data set without
    unlabelled or validation pictures has None for their loader.
    """

    def __init__(self, cfg, custom_tfm_train=None, custom_tfm_test=None, dataset_wrapper=None):
        dataset = build_dataset(cfg)
        if custom_tfm_train is None:
            custom_tfm_train = build_transform(cfg, is_train=True)
        else:
            print("* Using custom transform for training")
        if custom_tfm_test is None:
            custom_tfm_test = build_transform(cfg, is_train=False)
        else:
            print("* Using custom transform for testing")

        def loader(node, data_source, is_train):
            return build_data_loader(
                cfg,
                sampler_type=node.SAMPLER,
                data_source=data_source,
                batch_size=node.BATCH_SIZE,
                n_domain=node.get("N_DOMAIN", 0),
                n_ins=node.get("N_INS", 2),
                tfm=custom_tfm_train if is_train else custom_tfm_test,
                is_train=is_train,
                dataset_wrapper=dataset_wrapper,
            )

        loaders = cfg.DATALOADER
        unlabelled = loaders.TRAIN_X if loaders.TRAIN_U.SAME_AS_X else loaders.TRAIN_U
        self.dataset = dataset
        self.train_loader_x = loader(loaders.TRAIN_X, dataset.train_x, True)
        self.train_loader_u = loader(unlabelled, dataset.train_u, True) if dataset.train_u else None
        self.val_loader = loader(loaders.TEST, dataset.val, False) if dataset.val else None
        self.test_loader = loader(loaders.TEST, dataset.test, False)
        self._num_classes = dataset.num_classes
        self._num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self._lab2cname = dataset.lab2cname
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    @property
    def num_classes(self):
        return self._num_classes

    @property
    def num_source_domains(self):
        return self._num_source_domains

    @property
    def lab2cname(self):
        return self._lab2cname

    def show_dataset_summary(self, cfg):
        """Print the sizes of the splits."""
        rows = [["Dataset", cfg.DATASET.NAME]]
        if cfg.DATASET.SOURCE_DOMAINS:
            rows.append(["Source", cfg.DATASET.SOURCE_DOMAINS])
        if cfg.DATASET.TARGET_DOMAINS:
            rows.append(["Target", cfg.DATASET.TARGET_DOMAINS])
        rows.append(["# classes", f"{self.num_classes:,}"])
        for split in ("train_x", "train_u", "val", "test"):
            data_source = getattr(self.dataset, split)
            if data_source:
                rows.append([f"# {split}", f"{len(data_source):,}"])
        print(tabulate(rows))
