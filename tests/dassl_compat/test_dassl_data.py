"""Datasets, transforms and loaders."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from dassl.config import get_cfg_default
from dassl.data import DataManager, DatasetWrapper
from dassl.data.datasets import DatasetBase, Datum
from dassl.data.transforms import build_transform
from dassl.utils import set_random_seed
from PIL import Image
from torchvision import transforms as T
from toy_run import COLOURS, SIZES, toy_cfg

import dassl_compat

BICUBIC = T.InterpolationMode.BICUBIC
ours_only = pytest.mark.skipif(
    dassl_compat.USING_INSTALLED_DASSL, reason="the installed Dassl is used as it is"
)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.radial_gradient("L").resize((40, 30)).convert("RGB").save(path)
    return str(path)


def input_cfg(*transforms):
    cfg = get_cfg_default()
    cfg.INPUT.merge_from_list(["SIZE", (24, 20), "INTERPOLATION", "bicubic"])
    cfg.INPUT.TRANSFORMS = transforms
    return cfg


NORMALIZE = T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
REFERENCES = {
    ("random_resized_crop", "random_flip", "normalize"): [
        T.RandomResizedCrop((24, 20), scale=(0.08, 1.0), interpolation=BICUBIC),
        T.RandomHorizontalFlip(),
        T.ToTensor(),
        NORMALIZE,
    ],
    # The order is the transforms' own, whatever order they are named in.
    ("normalize", "random_flip", "random_crop"): [
        T.RandomCrop((24, 20), padding=4),
        T.RandomHorizontalFlip(),
        T.ToTensor(),
        NORMALIZE,
    ],
    ("colorjitter",): [
        T.Resize((24, 20), BICUBIC),
        T.ColorJitter(0.4, 0.4, 0.4, 0.1),
        T.ToTensor(),
    ],
}


@pytest.mark.parametrize("names", REFERENCES)
def test_training_views_are_torchvisions(names, picture):
    """With one seed, the same views as the composition written out."""
    reference = T.Compose(REFERENCES[names])
    transform = build_transform(input_cfg(*names), is_train=True)
    for seed in range(5):
        views = []
        for make in (transform, reference):
            set_random_seed(seed)
            views.append(make(Image.open(picture)))
        assert torch.equal(*views)


def test_test_view_is_the_centre_of_the_smaller_edge(picture):
    reference = T.Compose([T.Resize(24, BICUBIC), T.CenterCrop((24, 20)), T.ToTensor(), NORMALIZE])
    transform = build_transform(input_cfg("random_flip", "normalize"), is_train=False)

    assert torch.equal(transform(Image.open(picture)), reference(Image.open(picture)))


def test_transforms_may_be_absent_but_not_unknown(picture):
    cfg = input_cfg("no_such_transform")
    with pytest.raises((ValueError, AssertionError)):
        build_transform(cfg)
    cfg.INPUT.NO_TRANSFORM = True
    assert build_transform(cfg) is None


def test_a_sample_has_its_view_and_its_facts(picture):
    """``img`` without augmentation is ``img0``; several views come in a list."""
    cfg = input_cfg("normalize")
    cfg.DATALOADER.RETURN_IMG0 = True
    data = [Datum(picture, 2, 1, "blue")]
    transform = build_transform(cfg)

    sample = DatasetWrapper(cfg, data, transform=transform, is_train=True)[0]
    assert {key: sample[key] for key in ("label", "domain", "impath", "index")} == {
        "label": 2,
        "domain": 1,
        "impath": picture,
        "index": 0,
    }
    assert torch.equal(sample["img"], sample["img0"])

    cfg.DATALOADER.K_TRANSFORMS = 3
    assert len(DatasetWrapper(cfg, data, transform=transform, is_train=True)[0]["img"]) == 3
    assert DatasetWrapper(cfg, data, transform=transform)[0]["img"].shape == (3, 24, 20)


@pytest.mark.parametrize(("batch_size", "batches"), [(4, 5), (21, 1), (20, 1), (22, 1)])
def test_training_drops_the_last_partial_batch(tmp_path, batch_size, batches):
    """Unless it is the only one; tests see every image."""
    cfg = toy_cfg(tmp_path, "DATALOADER.TRAIN_X.BATCH_SIZE", batch_size)
    dm = DataManager(cfg)

    assert len(dm.train_loader_x) == batches
    assert sum(len(batch["label"]) for batch in dm.test_loader) == SIZES["test"]
    assert dm.train_loader_u is None
    assert (dm.num_classes, dm.lab2cname) == (3, dict(enumerate(COLOURS)))


def test_custom_transforms_and_wrapper_are_used(tmp_path):
    class Labels(DatasetWrapper):
        def __getitem__(self, idx):
            return {"label": self.data_source[idx].label, "told": self.transform}

    dm = DataManager(toy_cfg(tmp_path), "train", "test", dataset_wrapper=Labels)

    assert next(iter(dm.train_loader_x))["told"] == ["train"] * 4
    assert next(iter(dm.val_loader))["told"][0] == "test"


@pytest.fixture
def uneven(picture):
    """5 images of class 0, 2 of class 1, all of class 2 (1 of them) in another domain."""
    labels = [0] * 5 + [1] * 2 + [2]
    return [Datum(picture, label, int(label == 2), COLOURS[label]) for label in labels]


def shots(items):
    return Counter(item.label for item in items)


def test_few_shots_of_each_class(uneven):
    """A class with too few gives all it has, or repeats itself where asked."""
    base = DatasetBase(train_x=uneven, test=uneven)

    assert shots(base.generate_fewshot_dataset(uneven, num_shots=2)) == {0: 2, 1: 2, 2: 1}
    repeated = base.generate_fewshot_dataset(uneven, num_shots=4, repeat=True)
    assert shots(repeated) == {0: 4, 1: 4, 2: 4}
    assert base.generate_fewshot_dataset(uneven, num_shots=-1) is uneven
    train, val = base.generate_fewshot_dataset(uneven, uneven, num_shots=1)
    assert shots(train) == shots(val) == {0: 1, 1: 1, 2: 1}


def test_few_shots_follow_the_seed(uneven):
    base = DatasetBase(train_x=uneven, test=uneven)
    drawn = []
    for seed in (1, 1, 2, 3, 4):
        set_random_seed(seed)
        items = base.generate_fewshot_dataset(uneven, num_shots=2)
        drawn.append([uneven.index(item) for item in items])

    assert drawn[0] == drawn[1]
    assert len({tuple(places) for places in drawn}) > 1


@ours_only
def test_an_archive_is_downloaded_and_unpacked_beside_itself(tmp_path, uneven):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    base = DatasetBase(train_x=uneven, test=uneven)
    for kind, ending in (("zip", "zip"), ("gztar", "tar.gz")):
        archive = shutil.make_archive(str(tmp_path / kind), kind, tmp_path / "in")
        target = tmp_path / f"out_{kind}" / f"data.{ending}"
        base.download_data(Path(archive).as_uri(), str(target), from_gdrive=False)
        assert (target.parent / "a.txt").read_text() == "a"


def test_the_pickles_of_coop_name_the_same_class():
    """CoOp pickles its few-shot splits, under either Dassl."""
    assert Datum.__module__ == "dassl.data.datasets.base_dataset"


def test_splits_by_label_and_domain(uneven):
    base = DatasetBase(train_x=uneven, test=uneven)

    assert {k: len(v) for k, v in base.split_dataset_by_label(uneven).items()} == {0: 5, 1: 2, 2: 1}
    assert {k: len(v) for k, v in base.split_dataset_by_domain(uneven).items()} == {0: 7, 1: 1}
    assert base.classnames == list(COLOURS)
    assert base.num_classes == 3


def test_a_missing_image_is_named(tmp_path):
    with pytest.warns(UserWarning), pytest.raises((ValueError, AssertionError)) as error:
        Datum(str(tmp_path / "none.png"), 0)
    if not dassl_compat.USING_INSTALLED_DASSL:
        assert "none.png" in str(error.value)


def test_an_empty_split_and_an_unknown_sampler_are_named(tmp_path):
    with pytest.raises((ValueError, AssertionError)) as error:
        DataManager(toy_cfg(tmp_path, "DATALOADER.TRAIN_X.SAMPLER", "RandomWalk"))
    assert "RandomWalk" in str(error.value)
