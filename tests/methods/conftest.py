"""What the tests of the methods share: a frozen CLIP in float64, features, labels, comparison."""

import json
import shutil

import pytest
import torch
from naive import NAMES
from torch.testing import assert_close

from engine.config import load_cfg, methods


@pytest.fixture
def image_features(frozen64):
    return torch.randn(3, frozen64.embed_dim, dtype=torch.float64)


@pytest.fixture
def label():
    return torch.tensor([0, 2, 1])


@pytest.fixture
def close():
    """Equal to 1e-10 each, or for two losses: their gradients by the same parameters, each."""

    def check(ours, naive, parameters=()):
        assert_close(ours, naive, rtol=0, atol=1e-10)
        if parameters:
            both = (torch.autograd.grad(x, parameters) for x in (ours, naive))
            for a, b in zip(*both, strict=True):
                assert a.abs().max() > 0
                assert_close(a, b, rtol=0, atol=1e-10)

    return check


@pytest.fixture
def trainer_of(toy):
    """A trainer with its options and model, without pictures: ``trainer_of("CoOp", clip, ...)``."""

    def build(name, clip_model, *opts, classnames=NAMES):
        trainer = object.__new__(methods()[name])
        trainer.cfg, _ = load_cfg(name, str(toy / "toy.yaml"), str(toy / "random.yaml"), opts=opts)
        trainer.classnames = list(classnames)
        trainer.num_classes = len(classnames)
        trainer.symptoms = None
        trainer.model = trainer.build_prompted_clip(clip_model, trainer.classnames)
        return trainer

    return build


@pytest.fixture
def shapes():
    """Name -> shape of everything that learns; nothing else has gradients."""

    def of(model):
        learned = dict(model.learned.named_parameters())
        with_gradients = {id(p) for p in model.parameters() if p.requires_grad}
        assert with_gradients == {id(p) for p in learned.values()}
        return {name: tuple(p.shape) for name, p in learned.items()}

    return of


@pytest.fixture
def four_classes(toy):
    """The toy dataset with two classes more: red and blue are its base half, these its new one."""
    for split in ("train", "val", "test"):
        for old, new in (("red", "green"), ("blue", "grey")):
            folder = toy / "data" / "toy" / split
            shutil.copytree(folder / old, folder / new)
    text = (toy / "toy.yaml").read_text()
    (toy / "toy.yaml").write_text(text.replace("[red, blue]", "[red, blue, green, grey]"))
    phrases = json.loads((toy / "symptoms.json").read_text())
    phrases |= {"green": ["leaf"], "grey": ["stone", "ash"]}
    (toy / "symptoms.json").write_text(json.dumps(phrases))
    return toy
