"""Small random CLIPs, so that the tests need no download and no GPU."""

import copy
import os

# Before torch: several test processes on few cores only slow each other down.
os.environ.setdefault("OMP_NUM_THREADS", "2")

import foundation  # noqa: F401, I001  (mends what importing clip needs)
import clip.model
import pytest
import torch
from torch import nn

VOCABULARY = 49408


def make_clip(visual="vit", embed_dim=48, text_width=64, resolution=32, layers=2, seed=0):
    """A random CLIP in fp32; d_txt differs from d, as in RN50."""
    torch.manual_seed(seed)
    model = clip.model.CLIP(
        embed_dim=embed_dim,
        image_resolution=resolution,
        vision_layers=layers if visual == "vit" else (1, 1, 1, 1),
        vision_width=64 if visual == "vit" else 8,
        vision_patch_size=16,
        context_length=77,
        vocab_size=VOCABULARY,
        transformer_width=text_width,
        transformer_heads=text_width // 64,
        transformer_layers=layers,
    )
    with torch.no_grad():
        model.logit_scale.fill_(4.6052)
    return model.float().eval()


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
