"""What the tests of the methods share: a frozen CLIP in float64, features, labels, comparison."""

import json
import shutil

import pytest
import torch
import yaml
from naive import NAMES
from torch.testing import assert_close

from engine.learned import load_learned
from engine.method import METHODS, LabelledFeatures


@pytest.fixture
def image_features(frozen64):
    return torch.randn(3, frozen64.embed_dim, dtype=torch.float64)


@pytest.fixture
def label():
    return torch.tensor([0, 2, 1])


@pytest.fixture
def support():
    """Features of any norm and labels of eight training images: three classes, unequal counts."""
    label = torch.tensor([0, 2, 1, 0, 0, 2, 0, 1])
    return LabelledFeatures(3 * torch.randn(8, 48, dtype=torch.float64) + 1, label)


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


class Built:
    """A method and the model it builds, without trainer or data."""

    def __init__(self, name, backbone, *words, symptoms=None, classnames=NAMES, **options):
        """``words`` are options as on a command line: ``TRAINER.COOP.CSC True``."""
        for key, value in zip(words[::2], words[1::2], strict=True):
            options[key.split(".")[-1]] = yaml.safe_load(value)
        self.method = METHODS[name](**options)
        self.classnames = list(classnames)
        self.model = self.method.build(backbone, self.classnames, symptoms)

    def load(self, state_dict, trained=None):
        """Load a checkpoint's learned state, of the classes ``trained``."""
        load_learned(state_dict, "file", self.method, self.model, self.classnames, trained)


@pytest.fixture
def build():
    """``build("CoOp", backbone, N_CTX=5)``: a ``Built``."""
    return Built


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
