"""The same pixels in the same order for everyone."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from torchvision import transforms as T

import trainers  # noqa: F401
from core.errors import InputError
from datasets import views as views_module
from datasets.base import Picture
from datasets.pictures import read_picture
from datasets.views import EpochBatches, KeptViews, ViewManager, Views, seeded_draws, view_seed
from engine.config import load_cfg


@pytest.fixture
def cfg(toy):
    def build(*opts, seed=1):
        return load_cfg(
            "ViP",
            str(toy / "toy.yaml"),
            str(toy / "random.yaml"),
            opts=["DATALOADER.TRAIN_X.BATCH_SIZE", "8", *opts],
            root=str(toy / "data"),
            seed=seed,
        )[0]

    return build


def epoch_of(cfg, epoch):
    """{path: view} and the order of an epoch of training."""
    loader = ViewManager(cfg).train_loader_x
    loader.batch_sampler.epoch = epoch
    batches = list(loader)
    paths = [path for batch in batches for path in batch["impath"]]
    return dict(zip(paths, torch.cat([b["img"] for b in batches]), strict=True)), paths


def test_views_and_order_do_not_depend_on_workers_or_past_draws(cfg):
    """Workers, batch size and whatever was drawn before change no pixel."""
    views, order = epoch_of(cfg("DATALOADER.NUM_WORKERS", "0"), epoch=3)
    torch.manual_seed(123)
    torch.rand(10)
    again, same_order = epoch_of(cfg("DATALOADER.NUM_WORKERS", "2"), epoch=3)

    assert order == same_order
    for path in views.keys() & again.keys():
        assert torch.equal(views[path], again[path])


def test_views_and_order_change_with_epoch_and_seed(cfg):
    views, order = epoch_of(cfg(), 0)
    later, later_order = epoch_of(cfg(), 1)
    other, other_order = epoch_of(cfg(seed=2), 0)

    assert order != later_order and order != other_order
    path = next(iter(views.keys() & later.keys() & other.keys()))
    assert not torch.equal(views[path], later[path])
    assert not torch.equal(views[path], other[path])


def test_last_part_of_an_epoch_is_dropped_as_in_dassl(cfg):
    """20 images in batches of 8: two batches, but never none at all."""
    assert len(ViewManager(cfg()).train_loader_x) == 2
    assert len(EpochBatches(5, 8, seed=1)) == 1
    assert [len(batch) for batch in EpochBatches(5, 8, seed=1)] == [5]


def test_evaluation_reads_every_image_in_order(cfg):
    loader = ViewManager(cfg("DATALOADER.TEST.BATCH_SIZE", "5")).test_loader

    assert [i for batch in loader for i in batch["index"].tolist()] == list(range(12))


@pytest.mark.parametrize("room", [10**9, 12 * 3 * 32 * 32 - 1])
def test_test_views_are_read_once_if_all_fit(cfg, monkeypatch, room):
    """And are the loader's own in every pass."""
    monkeypatch.setattr(views_module, "KEPT_BYTES", room)
    loader = ViewManager(cfg("DATALOADER.TEST.BATCH_SIZE", "5")).test_loader
    expected = [batch["img"] for batch in loader]
    passes = []
    kept = KeptViews(CountedLoader(loader, passes))

    for _ in range(3):
        for ours, theirs in zip(kept, expected, strict=True):
            assert torch.equal(ours, theirs)
    assert len(passes) == (1 if room > 12 * 3 * 32 * 32 else 3)


class CountedLoader:
    def __init__(self, loader, passes):
        self.loader, self.passes = loader, passes

    def __iter__(self):
        self.passes.append(1)
        return iter(self.loader)


def test_training_view_is_a_random_resized_crop(tmp_path):
    """The transform's own draw under the image's seed, by torchvision's functions alone."""
    path = tmp_path / "x.png"
    Image.fromarray(np.arange(48 * 48 * 3, dtype=np.uint8).reshape(48, 48, 3)).save(path)
    picture = Picture(path, 0, "a", id="a/x.png")
    crop = T.Compose([T.RandomResizedCrop(32), T.RandomHorizontalFlip(), T.ToTensor()])
    views = Views([picture], crop, seed=7)

    torch.manual_seed(view_seed(7, 5, "a/x.png"))
    expected = crop(Image.open(path).convert("RGB"))

    assert_close(views[5, 0]["img"], expected)


def test_seeded_draws_leave_other_draws_alone():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with seeded_draws(9):
        torch.rand(5)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("room", [0, 60 * 80 * 4, 2 * 60 * 80 * 4])
def test_an_image_that_fits_is_decoded_once_for_the_same_views(cfg, tmp_path, monkeypatch, room):
    """What a process keeps changes how often it decodes, and no pixel."""
    rng = np.random.default_rng(0)
    pictures = []
    for name in ("x.png", "y.png"):
        pixels = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        pictures.append(Picture(tmp_path / name, 0, "a", id=name))
    transform = ViewManager(cfg()).tfm_train
    keys = [(epoch, index) for epoch in range(3) for index in range(2)]
    expected = [Views(pictures, transform, 7, as_bytes=True)[key]["img"] for key in keys]
    decoded = []
    monkeypatch.setattr(
        views_module,
        "read_picture",
        lambda path, *a: decoded.append(path) or read_picture(path, *a),
    )
    views = Views(pictures, transform, 7, as_bytes=True, keep_bytes=room)

    for key, view in zip(keys, expected, strict=True):
        assert torch.equal(views[key]["img"], view)
    fit = room // (60 * 80 * 4)
    assert len(decoded) == fit + 3 * (2 - fit)


@pytest.mark.parametrize("drawn_by", [random.random, np.random.random_sample])
def test_a_transform_that_draws_elsewhere_is_seeded_too(tmp_path, drawn_by):
    """Of transforms that are not known, the draws of every generator follow from the seed."""
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    picture = Picture(tmp_path / "x.png", 0, "a", id="x.png")
    transform = T.Compose([T.Lambda(lambda image: torch.tensor(drawn_by()))])

    views = [Views([picture], transform, seed=7)[epoch, 0]["img"] for epoch in (0, 0, 1)]

    assert views[0] == views[1] != views[2]


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "steps",
    [
        ["random_resized_crop", "random_flip", "normalize"],
        ["random_resized_crop", "colorjitter"],
        ["random_resized_crop", "normalize", "erasing"],
    ],
    ids="+".join,
)
def test_bytes_and_grey_give_the_bits_of_the_whole_transform(cfg, tmp_path, mode, steps):
    """Scaling on the device and geometry on one channel are only faster ways to the same."""
    known = [step for step in steps if step != "erasing"]
    manager = ViewManager(cfg("INPUT.TRANSFORMS", str(known)))
    if "erasing" in steps:  # a step after scaling, as an installed Dassl has some
        manager.tfm_train.transforms.append(T.RandomErasing(p=1))
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(tmp_path / "x.png")
    picture = Picture(tmp_path / "x.png", 0, "a", id="a/x.png")
    for transform, seed in ((manager.tfm_train, 7), (manager.tfm_test, None)):
        quick = Views([picture], transform, seed, as_bytes=True)
        whole = Views([picture], transform, seed)[5, 0]["img"]

        assert torch.equal(manager.scale(quick[5, 0]["img"][None])[0], whole)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("PIXEL_MEAN", [0.1, 0.2]),
        ("PIXEL_STD", [0.0, 1.0, 1.0]),
        ("PIXEL_STD", [float("nan"), 1.0, 1.0]),
        ("RRCROP_SCALE", (2.0, -1.0)),
        ("INTERPOLATION", "nope"),
        ("TRANSFORMS", ["nope"]),
        ("NO_TRANSFORM", True),
        ("SIZE", (0, 0)),
    ],
)
def test_wrong_input_settings_are_one_line_before_any_image_is_read(cfg, key, value, monkeypatch):
    monkeypatch.setattr("datasets.views.build_dataset", lambda cfg: pytest.fail("data was read"))
    settings = cfg().clone()
    settings.defrost()
    settings.INPUT[key] = value
    with pytest.raises(InputError, match="INPUT") as error:
        ViewManager(settings)
    assert "\n" not in str(error.value)
