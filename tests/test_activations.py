"""QuickGELU part by part against the clip package's."""

import clip.model
import pytest
import torch

from backbones.encoders import blocks
from backbones.encoders.blocks import QuickGELU


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5, 64), (4, 70, 512)])
def test_value_and_gradient_are_those_of_clip_to_the_bit(dtype, shape, monkeypatch):
    """In one part or in several."""
    monkeypatch.setattr(blocks, "CACHED", 512)
    torch.manual_seed(0)
    x = 3 * torch.randn(shape, dtype=dtype)
    weights = torch.randn(shape, dtype=dtype)
    found = []
    for gelu in (clip.model.QuickGELU(), QuickGELU()):
        learned = x.clone().requires_grad_()
        y = gelu(learned)
        y.backward(weights)
        found.append((y.detach(), learned.grad, gelu(x.clone())))

    for theirs, ours in zip(*found, strict=True):
        assert torch.equal(theirs, ours)


def test_only_what_needs_no_gradient_is_overwritten(monkeypatch):
    monkeypatch.setattr(blocks, "CACHED", 64)
    x = torch.randn(2, 64)
    learned = x.clone().requires_grad_()

    QuickGELU()(learned)
    assert torch.equal(learned, x)
    plain = x.clone()
    assert QuickGELU()(plain) is plain and not torch.equal(plain, x)
    before = x.clone()
    QuickGELU()(x.t())
    assert torch.equal(x, before)
