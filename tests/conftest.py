"""Small random CLIPs, so that the tests need no download and no GPU."""

import copy
import functools
import os
from pathlib import Path

# Before torch: the tests run in a process a core, and threads would only be in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import dassl_compat  # noqa: F401, I001  (mends what importing clip needs)
import trainers  # noqa: F401  (registers the methods)
import clip.model
import pytest
import torch
from small_clip import frozen_clip, make_clip
from small_runs import SHORT, make_toy, words_of
from torch import nn


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """What runs keep for later ones (checked pictures, features) stays out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def _vit():
    return make_clip("vit")


@pytest.fixture(scope="session")
def _resnet():
    return make_clip("resnet")


@pytest.fixture
def tiny_clip(_vit):
    """A vision transformer of two layers: 32x32 pictures, d = 48, d_txt = 64."""
    return copy.deepcopy(_vit)


@pytest.fixture
def tiny_resnet(_resnet):
    """A ModifiedResNet with the same text side."""
    return copy.deepcopy(_resnet)


@pytest.fixture
def tiny_clip64(_vit):
    """The same in float64, for comparisons with equations."""
    model = copy.deepcopy(_vit).double()
    for module in model.modules():
        # CLIP's own norm computes in fp32 whatever it is given.
        if isinstance(module, clip.model.LayerNorm):
            module.__class__ = nn.LayerNorm
    return model


@pytest.fixture
def frozen64(tiny_clip64):
    """A frozen CLIP in float64, with what it makes of its weights; d_txt 64 and d 48."""
    frozen = frozen_clip(tiny_clip64)
    frozen.double()
    frozen.model = tiny_clip64.double().requires_grad_(False)  # for the naive equations
    torch.manual_seed(0)
    return frozen


@pytest.fixture
def toy(tmp_path, _vit):
    """A small run's input below a folder: data/toy/{train,val,test}/{red,blue}/*.png and more.

    It is what ``toy_cfg`` and a command line need: toy.yaml, random.yaml and symptoms.json.
    """
    return make_toy(tmp_path, _vit)


@pytest.fixture
def toy_args(toy):
    """The words of a command line for a short run on ``toy``, but for the trainer's."""
    return words_of(toy, toy / "run")


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory, _vit):
    """Function (trainer, *options) -> folder of such a short run, made once; not to be changed."""
    import train

    toy = make_toy(tmp_path_factory.mktemp("toy"), _vit)

    @functools.cache
    def make(trainer, *options):
        folder = toy / "output" / "-".join([trainer, *options])
        train.main(["--trainer", trainer, *words_of(toy, folder), *SHORT, *options])
        return folder

    return make


@pytest.fixture
def short():
    """Options for a run of seconds."""
    return list(SHORT)


@pytest.fixture
def checkout():
    """The repository's top folder."""
    return Path(__file__).resolve().parent.parent
