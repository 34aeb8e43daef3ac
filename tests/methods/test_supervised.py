"""The supervised rival: what learns, from where, and what it computes."""

import copy

import pytest
import torch
from naive import NAMES, cross_entropy
from small_clip import frozen_clip
from torch.testing import assert_close

from core.errors import InputError


def test_logits_and_gradients(frozen64, tiny_clip64, label, build, close, shapes):
    """A linear head on CLIP's image feature; all of the encoder learns, and nothing of the text."""
    reference = copy.deepcopy(tiny_clip64).visual.requires_grad_(True)
    built = build("Supervised", frozen64, START="clip")
    model = built.model.double()
    pictures = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    head = model.learned.head

    naive = torch.stack([head.weight @ f + head.bias for f in reference(pictures)])
    logits, losses = model(pictures, label)
    ours = [*model.learned.image_encoder.parameters(), *head.parameters()]
    theirs = [*reference.parameters(), *head.parameters()]

    close(logits, naive)
    gradients = torch.autograd.grad(sum(losses.values()), ours)
    naive_gradients = torch.autograd.grad(cross_entropy(naive, label), theirs)
    for a, b in zip(gradients, naive_gradients, strict=True):
        assert_close(a, b, rtol=0, atol=1e-10)
    encoder = {f"image_encoder.{n}": tuple(p.shape) for n, p in reference.named_parameters()}
    assert shapes(model) == encoder | {"head.weight": (3, 48), "head.bias": (3,)}


@pytest.mark.parametrize("backbone", ["tiny_clip", "tiny_resnet"])
def test_scratch_is_random_and_of_the_same_shape(backbone, request, build):
    """The same state as CLIP's encoder, none of its numbers."""
    pretrained = request.getfixturevalue(backbone)
    before = {k: v.clone() for k, v in pretrained.visual.state_dict().items()}
    torch.manual_seed(1)
    model = build("Supervised", frozen_clip(pretrained)).model
    after = model.learned.image_encoder.state_dict()

    assert {k: v.shape for k, v in after.items()} == {k: v.shape for k, v in before.items()}
    assert not torch.allclose(after["conv1.weight"], before["conv1.weight"])
    assert model(torch.randn(2, 3, 32, 32)).logits.shape == (2, 3)


def test_batch_norms_follow_the_mode(tiny_resnet, build):
    """This encoder is trained, so its batch norms are: in training only."""
    model = build("Supervised", frozen_clip(tiny_resnet)).model
    norm = model.learned.image_encoder.bn1
    pictures = torch.randn(4, 3, 32, 32)
    model.learned.train()
    model(pictures)
    after = norm.running_mean.clone()
    model.learned.eval()
    model(pictures)

    assert after.abs().sum() > 0
    assert torch.equal(norm.running_mean, after)


def test_half_precision_clip_is_trained_in_fp32(tiny_clip, build):
    """Whatever CLIP is kept in."""
    model = build("Supervised", frozen_clip(tiny_clip, "bf16"), START="clip").model

    assert {p.dtype for p in model.learned.parameters()} == {torch.float32}


def test_head_is_read_by_class_name(tiny_clip, build):
    built = build("Supervised", frozen_clip(tiny_clip))
    state = {k: v.clone() for k, v in built.model.learned.state_dict().items()}

    built.load(state, trained=NAMES[::-1])

    assert torch.equal(built.model.learned.head.bias, state["head.bias"].flip(0))
    with pytest.raises(InputError, match="has none for melanoma"):
        built.load(state, trained=["x", *NAMES[1:]])


def test_unknown_start(tiny_clip, build):
    with pytest.raises(InputError, match="START is 'imagenet'; it should be 'scratch' or 'clip'"):
        build("Supervised", frozen_clip(tiny_clip), START="imagenet")
