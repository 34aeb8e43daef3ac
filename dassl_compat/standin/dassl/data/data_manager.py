"""Dataset, transforms and loaders of a run."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from dassl.utils import read_image
from PIL import Image
from tabulate import tabulate
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, SequentialSampler

from core.errors import InputError
from core.processes import worker_options

from .datasets import Datum, build_dataset
from .transforms import build_transform, plain_transform

SAMPLERS = {"RandomSampler": RandomSampler, "SequentialSampler": SequentialSampler}


class DatasetWrapper(Dataset):
    """Turns a Datum into ``img, label, domain, impath, index``.

    With DATALOADER.K_TRANSFORMS above one a training view is a list of that many. With
    DATALOADER.RETURN_IMG0 the image without augmentation is ``img0``.
    """

    def __init__(
        self,
        cfg: Any,
        data_source: Sequence[Datum],
        transform: Callable[[Image.Image], Any] | None = None,
        is_train: bool = False,
    ) -> None:
        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform
        self.is_train = is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        if self.k_tfm > 1 and transform is None:
            raise ValueError(f"no transform to apply {self.k_tfm} times (DATALOADER.K_TRANSFORMS)")
        self.to_tensor: Callable[[Image.Image], Tensor] = plain_transform(cfg)

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        item = self.data_source[idx]
        image = read_image(item.impath)
        views = [(self.transform or self.to_tensor)(image) for _ in range(self.k_tfm)]
        output = {
            "img": views[0] if self.k_tfm == 1 else views,
            "label": item.label,
            "domain": item.domain,
            "impath": item.impath,
            "index": idx,
        }
        if self.return_img0:
            output["img0"] = self.to_tensor(image)
        return output


class DataManager:
    """The dataset of a run and its loaders.

    Training loaders drop the last partial batch, unless it is the only one. A dataset without
    unlabelled or validation images has None for ``train_loader_u`` or ``val_loader``.

    Args:
        custom_tfm_train: a transform to use instead of INPUT.TRANSFORMS.
        custom_tfm_test: the same for validation and test.
        dataset_wrapper: a class to use instead of ``DatasetWrapper``.
    """

    def __init__(
        self,
        cfg: Any,
        custom_tfm_train: Callable | None = None,
        custom_tfm_test: Callable | None = None,
        dataset_wrapper: Callable | None = None,
    ) -> None:
        self.dataset = dataset = build_dataset(cfg)
        if custom_tfm_train is None:
            custom_tfm_train = build_transform(cfg, is_train=True)
        else:
            print("* Using custom transform for training")
        if custom_tfm_test is None:
            custom_tfm_test = build_transform(cfg, is_train=False)
        else:
            print("* Using custom transform for testing")

        def loader(node: str, data_source: Sequence[Datum], is_train: bool = False) -> DataLoader:
            transform = custom_tfm_train if is_train else custom_tfm_test
            views = (dataset_wrapper or DatasetWrapper)(
                cfg, data_source, transform=transform, is_train=is_train
            )
            return _loader(cfg, node, data_source, views, is_train)

        unlabelled = "TRAIN_X" if cfg.DATALOADER.TRAIN_U.SAME_AS_X else "TRAIN_U"
        self.train_loader_x = loader("TRAIN_X", dataset.train_x, is_train=True)
        self.train_loader_u = (
            loader(unlabelled, dataset.train_u, is_train=True) if dataset.train_u else None
        )
        self.val_loader = loader("TEST", dataset.val) if dataset.val else None
        self.test_loader = loader("TEST", dataset.test)
        self.num_classes: int = dataset.num_classes
        self.num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self.lab2cname: dict[int, str] = dataset.lab2cname
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    def show_dataset_summary(self, cfg: Any) -> None:
        """Print the sizes of the splits."""
        rows = [["Dataset", cfg.DATASET.NAME], ["# classes", f"{self.num_classes:,}"]]
        for split in ("train_x", "train_u", "val", "test"):
            if data_source := getattr(self.dataset, split):
                rows.append([f"# {split}", f"{len(data_source):,}"])
        print(tabulate(rows))


def _loader(
    cfg: Any, node: str, data_source: Sequence[Datum], views: Dataset, is_train: bool
) -> DataLoader:
    settings = cfg.DATALOADER[node]
    if settings.SAMPLER not in SAMPLERS:
        raise InputError(
            f"DATALOADER.{node}.SAMPLER is {settings.SAMPLER!r}; the stand-in for Dassl has "
            f"{', '.join(SAMPLERS)}"
        )
    if not data_source:
        raise InputError(f"{cfg.DATASET.NAME}: a split has no images")
    cuda = cfg.USE_CUDA and torch.cuda.is_available()
    return DataLoader(
        views,
        batch_size=settings.BATCH_SIZE,
        sampler=SAMPLERS[settings.SAMPLER](data_source),
        drop_last=is_train and len(data_source) >= settings.BATCH_SIZE,
        pin_memory=cuda,
        **worker_options(cfg.DATALOADER.NUM_WORKERS, cuda),
    )
