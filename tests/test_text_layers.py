"""The text encoder's layers against CLIP's own modules."""

import copy

import pytest
import torch
from naive import prompt_rows, rows_to_feature
from small_clip import make_clip
from torch.testing import assert_close

import trainers.prompts
from trainers.clip_model import FrozenCLIP
from trainers.prompts import ContextPrompts
from trainers.text_layers import fuse_activations

TEXTS = ["a dark spot", "a dark spot with a round (pale) border", "x", "a dark spot"]


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("small", [trainers.prompts.SMALL, 0])
def test_texts_and_gradients_are_those_of_clip(small, layers, monkeypatch):
    """Of several heads and contexts, for a tree whose rows look at all rows and for one too large.

    CLIP's own modules read the texts one by one, at full length.
    """
    monkeypatch.setattr(trainers.prompts, "SMALL", small)
    model = make_clip(text_width=128, layers=layers)
    plain = copy.deepcopy(model).requires_grad_(False)
    frozen = FrozenCLIP(model)
    prompts = ContextPrompts(frozen, TEXTS, 2)
    contexts = torch.randn(3, 2, 128, requires_grad=True)
    weights = torch.randn(3 * len(TEXTS), frozen.embed_dim)

    ours = frozen.encode_prompts(prompts.texts, prompts.with_contexts(contexts))
    theirs = [rows_to_feature(plain, prompt_rows(plain, c, t)) for c in contexts for t in TEXTS]

    assert (prompts.texts.mask is None) == (small == 0)
    assert_close(ours, torch.stack(theirs), rtol=1e-4, atol=1e-5)
    gradients = [
        torch.autograd.grad((features * weights).sum(), contexts)[0]
        for features in (ours, torch.stack(theirs))
    ]
    assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-4)


def test_activations_are_fused_once(tiny_clip):
    """A model that is wrapped twice is not scaled twice."""
    x = torch.randn(5, tiny_clip.transformer.width)
    mlp = tiny_clip.transformer.resblocks[0].mlp
    expected = mlp(x)

    for _ in range(2):
        fuse_activations(tiny_clip.transformer)
        assert isinstance(mlp.gelu, torch.nn.SiLU)
        assert_close(mlp(x), expected, rtol=1e-4, atol=1e-6)
