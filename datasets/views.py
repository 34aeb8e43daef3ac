"""The same views, in the same order, for every method.

An image's augmented view depends on (seed, epoch, image) alone, and the order of the images on
(seed, epoch) alone: not on the method, the number of workers, or what was drawn before.
"""

import hashlib
import multiprocessing
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from dassl.data.datasets import DATASET_REGISTRY, build_dataset
from dassl.data.transforms import build_transform
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from core.errors import InputError
from core.processes import start_method, usable_cores, worker_options
from datasets import registered  # noqa: F401  (registers the datasets)
from datasets.dicom import DEFAULT, Rendering, rendering_of
from datasets.pictures import read_picture

Epoch = int | tuple[int, ...]
Transform = Callable[[Image.Image], Tensor]

# Names of torchvision's steps; to compare classes, torchvision had to be imported here, which takes
# seconds. These do the same to one grey channel as to three equal ones, at a third of the cost.
GEOMETRIC = ("RandomResizedCrop", "RandomHorizontalFlip", "Resize", "CenterCrop")
# Steps that draw from PyTorch's generator alone, or nothing; others may draw from any.
DRAWN_BY_TORCH = (*GEOMETRIC, "RandomCrop", "ColorJitter", "ToTensor", "Normalize")
# Of decoded training images that a loader's workers keep together; and of a split's test views.
KEPT_BYTES = 512 * 1024**2


def view_seed(seed: int, epoch: Epoch, name: str) -> int:
    """A 63-bit seed that (seed, epoch, name) determine."""
    digest = hashlib.sha256(f"{seed}|{epoch}|{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def seeded_torch(seed: int) -> Iterator[None]:
    """Run a block whose draws from PyTorch on the CPU depend on ``seed`` alone; disturb no others.

    ``torch.manual_seed`` would seed every device too, which takes 200 times as long.
    """
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)


@contextmanager
def seeded_draws(seed: int) -> Iterator[None]:
    """The same of draws from Python's and NumPy's generators too."""
    states = random.getstate(), np.random.get_state()
    with seeded_torch(seed):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


class Views(Dataset):
    """Views of images, addressed by (epoch, index).

    The epoch travels with the index because workers that stay alive keep the copy of this object
    that they were started with. Several epochs in a tuple share one decoding of the image.

    Args:
        transform: from a PIL image to a tensor.
        seed: of the transform's draws; None: it draws nothing.
        n_views: views of an image, used in turn by the epochs; 0: a new one in each epoch.
        as_bytes: leave scaling and normalisation to ``scale``, where the transform ends in no
            more than these: a quarter of the bytes travel, and the device does the rest.
        rendering: what of DICOM files is shown.
        keep_bytes: of decoded images that are kept for their next view, in each process that makes
            views; what does not fit is decoded for every view.
    """

    def __init__(
        self,
        images: Sequence[Any],
        transform: Transform,
        seed: int | None = None,
        as_bytes: bool = False,
        rendering: Rendering = DEFAULT,
        n_views: int = 0,
        keep_bytes: int = 0,
    ) -> None:
        self.images = images
        self.rendering = rendering
        self.transform = transform
        self.seed = seed
        self.n_views = n_views
        self._room = keep_bytes
        self._decoded: dict[int, Image.Image] = {}
        steps = getattr(transform, "transforms", [None])
        by_torch = all(_name(step) in DRAWN_BY_TORCH for step in steps)
        self._draws = seeded_torch if by_torch else seeded_draws
        self.steps: list[Any] = []
        self.scale: Scale | None = None
        if as_bytes:
            self.steps, self.scale = _split(transform)
        # Only bytes: a tensor from one channel would have one channel.
        self.keep_grey = bool(self.scale) and all(_name(step) in GEOMETRIC for step in self.steps)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[Epoch, int]) -> dict[str, Any]:
        """A batch's entry; ``img`` is [3, H, W], or [epochs, 3, H, W] for a tuple of epochs."""
        epochs, index = key
        entry = self.images[index]
        image = self._image(index)
        if isinstance(epochs, tuple):
            view = torch.stack([self._view(image, entry, epoch) for epoch in epochs])
        else:
            view = self._view(image, entry, epochs)
        return {
            "img": view,
            "label": entry.label,
            "domain": entry.domain,
            "impath": entry.impath,
            "index": index,
        }

    def _image(self, index: int) -> Image.Image:
        """An image, decoded: once in this process while there is room to keep it."""
        image = self._decoded.get(index)
        if image is None:
            image = read_picture(self.images[index].impath, self.keep_grey, self.rendering)
            # Pillow stores a colour pixel in four bytes.
            size = image.width * image.height * (1 if image.mode == "L" else 4)
            if size <= self._room:
                self._room -= size
                self._decoded[index] = image
        return image

    def _view(self, image: Image.Image, entry: Any, epoch: int) -> Tensor:
        from torchvision.transforms.functional import pil_to_tensor

        draws: AbstractContextManager[None] = nullcontext()
        if self.seed is not None:
            epoch = epoch % self.n_views if self.n_views else epoch
            draws = self._draws(view_seed(self.seed, epoch, entry.id))
        with draws:
            if self.scale is None:
                return self.transform(image)
            for step in self.steps:
                image = step(image)
        return pil_to_tensor(image.convert("RGB"))


class Scale:
    """What ends a transform: bytes to [0, 1], then each channel's mean and deviation.

    The same operations in the same order as torchvision's, so the same bits on a CPU.
    """

    def __init__(
        self, mean: Sequence[float] = (0.0, 0.0, 0.0), std: Sequence[float] = (1.0, 1.0, 1.0)
    ) -> None:
        self.mean = mean
        self.std = std
        self._on: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """[batch, 3, H, W] bytes -> fp32, on their device; fp32 is finished and passes."""
        if x.dtype != torch.uint8:
            return x
        if x.device not in self._on:  # kept: a copy to a GPU waits until all its work is done
            # Tensors of the device: dividing by a number would multiply by its rounded inverse.
            whole = torch.tensor(255.0, device=x.device)
            mean, std = (
                torch.tensor(values, device=x.device).reshape(3, 1, 1)
                for values in (self.mean, self.std)
            )
            self._on[x.device] = whole, mean, std
        whole, mean, std = self._on[x.device]
        return x.float().div_(whole).sub_(mean).div_(std)


def _name(step: Any) -> str:
    """The name of a step of torchvision's own; "" for any other."""
    kind = type(step)
    return kind.__name__ if kind.__module__.startswith("torchvision.") else ""


def _split(transform: Transform) -> tuple[list[Any], Scale | None]:
    """A transform as (steps on the image, ``Scale``); ([], None) where it does not end so."""
    from torchvision import transforms as T

    steps = list(getattr(transform, "transforms", ()))
    names = [type(step) for step in steps]
    if T.ToTensor not in names:
        return [], None
    first = names.index(T.ToTensor)
    last = steps[first + 1 :]
    if not last:
        return steps[:first], Scale()
    if len(last) == 1 and isinstance(last[0], T.Normalize) and len(last[0].mean) == 3:
        return steps[:first], Scale(last[0].mean, last[0].std)
    return [], None


class EpochBatches(Sampler):
    """Batches of (epoch, index), shuffled by (seed, epoch), or in file order without a seed.

    The last batch is dropped when training if it is not full and another one is (as in Dassl).

    Args:
        labels: of the images, for epochs of as many images that show each class equally often; a
            class with few images repeats them, one with many shows a part. None: each image once.

    Attributes:
        epoch: the one to come; without a seed also a tuple of several, as ``Views`` reads them.
    """

    def __init__(
        self,
        n_images: int,
        batch_size: int,
        seed: int | None = None,
        labels: Sequence[int] | None = None,
    ) -> None:
        self.n_images = n_images
        self.batch_size = batch_size
        self.seed = seed
        self.epoch: Epoch = 0
        self.labels = None if labels is None else torch.tensor(labels)

    def order(self, epoch: Epoch) -> list[int]:
        """The indices of the images in the order in which ``epoch`` shows them."""
        if self.seed is None:
            return list(range(self.n_images))
        generator = torch.Generator().manual_seed(view_seed(self.seed, epoch, "order"))
        order = torch.randperm(self.n_images, generator=generator)
        return (order if self.labels is None else self._balanced(order, generator)).tolist()

    def _balanced(self, order: Tensor, generator: torch.Generator) -> Tensor:
        """As many places as ``order`` has, shared equally among the classes that have an image."""
        assert self.labels is not None
        classes = self.labels.unique()
        # Which classes get one image more than the others changes from epoch to epoch.
        classes = classes[torch.randperm(len(classes), generator=generator)]
        share, left = divmod(len(order), len(classes))
        chosen = []
        for i, label in enumerate(classes):
            own = order[self.labels[order] == label]
            places = share + (i < left)
            chosen.append(own.repeat(-(-places // len(own)))[:places])
        mixed = torch.cat(chosen)
        return mixed[torch.randperm(len(mixed), generator=generator)]

    def __len__(self) -> int:
        if self.seed is not None and self.n_images >= self.batch_size:
            return self.n_images // self.batch_size
        return -(-self.n_images // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[Epoch, int]]]:
        order = self.order(self.epoch)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield [(self.epoch, index) for index in order[start : start + self.batch_size]]


class KeptViews:
    """The views [batch, 3, H, W] of a loader of test views, batch by batch, as the loader has them.

    They are the same in every pass. They are read once and kept, if all fit into ``KEPT_BYTES``.
    """

    def __init__(self, loader: DataLoader | None) -> None:
        self._loader = loader or ()
        self._kept: list[Tensor] | None = None
        self._room = KEPT_BYTES

    def __iter__(self) -> Iterator[Tensor]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Tensor] = []
        room = self._room
        for batch in self._loader:
            views = batch["img"]
            room -= views.nbytes
            if room < 0:
                kept.clear()
            elif views.is_pinned():
                kept.append(views)
            else:
                kept.append(views.clone())  # out of the memory that the workers share
            yield views
        if room >= 0:
            self._kept = kept
        else:
            self._room = -1  # no later pass tries again


def read_dataset(cfg: Any) -> Any:
    """The dataset that ``cfg.DATASET`` names.

    Raises:
        InputError: there is no such dataset, or its data is wrong.
    """
    known = DATASET_REGISTRY.registered_names()
    if cfg.DATASET.NAME not in known:
        raise InputError(f"DATASET.NAME is {cfg.DATASET.NAME!r}; choose one of {', '.join(known)}")
    return build_dataset(cfg)


class ViewManager:
    """What Dassl's DataManager offers a trainer, with views and order that anyone can repeat.

    Attributes:
        scale: ends the views that came as bytes; fp32 views pass.

    Args:
        cfg: the run's configuration; ``INPUT`` says how images are prepared.
        dataset: what ``read_dataset`` gave; read here for None.

    Raises:
        InputError: as ``read_dataset``, or a setting below INPUT is wrong.
    """

    def __init__(self, cfg: Any, dataset: Any = None) -> None:
        self.cfg = cfg
        self.rendering = rendering_of(cfg.DATASET)
        self.tfm_train = checked_transform(cfg, is_train=True)
        self.tfm_test = checked_transform(cfg, is_train=False)
        self.dataset = dataset or read_dataset(cfg)
        self.num_classes = self.dataset.num_classes
        self.lab2cname = self.dataset.lab2cname
        self.num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self.scale = self.test_views([]).scale or Scale()
        labels = [image.label for image in self.dataset.train_x]
        self.train_loader_x = self.loader(
            self.train_views(),
            cfg.DATALOADER.TRAIN_X.BATCH_SIZE,
            cfg.SEED,
            labels=labels if cfg.DATALOADER.TRAIN_X.BALANCED else None,
        )
        self.train_loader_u = None
        self.val_loader = self.test_view_loader(self.dataset.val)
        self.test_loader = self.test_view_loader(self.dataset.test)

    def train_views(self) -> Views:
        """The augmented views of the training images, as bytes where they can be."""
        return Views(
            self.dataset.train_x,
            self.tfm_train,
            self.cfg.SEED,
            as_bytes=True,
            rendering=self.rendering,
            n_views=self.cfg.FEATURES.VIEWS,
            keep_bytes=KEPT_BYTES // max(1, self.workers),
        )

    def test_views(self, images: Sequence[Any]) -> Views:
        """The views of images that are not augmented, as bytes where they can be."""
        return Views(images, self.tfm_test, as_bytes=True, rendering=self.rendering)

    def test_view_loader(self, images: Sequence[Any]) -> DataLoader:
        """Batches of the images' test views, in their own order."""
        return self.loader(self.test_views(images), self.cfg.DATALOADER.TEST.BATCH_SIZE)

    @property
    def workers(self) -> int:
        return min(self.cfg.DATALOADER.NUM_WORKERS, usable_cores())

    def loader(
        self,
        views: Views,
        batch_size: int,
        seed: int | None = None,
        persistent: bool = False,
        labels: Sequence[int] | None = None,
    ) -> DataLoader:
        """Batches of views: shuffled by ``seed``, or in their own order.

        Args:
            persistent: keep the workers from one pass to the next; training always does.
            labels: of the images, for epochs that show each class equally often.
        """
        cuda = self.cfg.USE_CUDA and torch.cuda.is_available()
        # Where starting a worker takes seconds, those of the evaluation stay as well.
        slow = (start_method(cuda) or multiprocessing.get_start_method()) != "fork"
        return DataLoader(
            views,
            batch_sampler=EpochBatches(len(views), batch_size, seed, labels),
            persistent_workers=self.workers > 0 and (persistent or seed is not None or slow),
            pin_memory=cuda,
            # A generator of its own: starting an epoch draws nothing from the method's.
            generator=torch.Generator().manual_seed(0),
            **worker_options(self.workers, cuda),
        )


def checked_transform(cfg: Any, is_train: bool) -> Transform:
    """Dassl's transform, tried on a blank image: a wrong setting is then one line."""
    if cfg.INPUT.NO_TRANSFORM:
        raise InputError("INPUT.NO_TRANSFORM is True, but CLIP needs images of one size; set False")
    try:
        with seeded_draws(0), warnings.catch_warnings():
            warnings.filterwarnings("error", "Scale and ratio")  # torchvision's, of RRCROP_SCALE
            transform: Any = build_transform(cfg, is_train=is_train)
            if not is_train and cfg.INPUT.RESIZE_MODE == "squash":
                transform.transforms = _squashed(transform.transforms, cfg.INPUT.SIZE)
            view = transform(Image.new("RGB", (256, 256)))
    except InputError:
        raise
    except Exception as error:  # torchvision raises many types, RuntimeError and TypeError too
        raise InputError(f"INPUT: {' '.join(str(error).split())}") from error
    if view.dim() != 3 or len(view) != 3 or not torch.isfinite(view).all():
        raise InputError(
            "INPUT: PIXEL_MEAN and PIXEL_STD do not give three finite channels; "
            f"they are {cfg.INPUT.PIXEL_MEAN} and {cfg.INPUT.PIXEL_STD}"
        )
    return transform


def _squashed(steps: Sequence[Any], size: Sequence[int]) -> list[Any]:
    """``steps`` that resize both sides in place of the shorter one; crops then do nothing."""
    from torchvision import transforms as T

    return [
        T.Resize(tuple(size), interpolation=step.interpolation) if type(step) is T.Resize else step
        for step in steps
    ]
