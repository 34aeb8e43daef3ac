"""The text encoder's layers against CLIP's own modules."""

import copy

import pytest
import torch
from naive import prompt_rows, rows_to_feature, text_feature
from small_clip import make_clip
from torch.testing import assert_close

import engine.prompts
from backbones.clip_model import FrozenCLIP
from backbones.text_layers import fuse_activations
from engine.prompts import ContextPrompts, encode_texts

TEXTS = ["a dark spot", "a dark spot with a round (pale) border", "x", "a dark spot"]


@pytest.fixture(params=["masked", "gathered"])
def trees(request, monkeypatch):
    """Both ways of attention, as for a tree of few rows on a CPU and for any other."""
    if request.param == "gathered":
        monkeypatch.setattr(engine.prompts, "MAX_MASKED_ROWS", 0)
    return request.param


def frozen_and_plain(layers=3):
    """A CLIP of two heads, wrapped and as it is."""
    model = make_clip(text_width=128, layers=layers).requires_grad_(False)
    return FrozenCLIP(copy.deepcopy(model)), model


@pytest.mark.parametrize("layers", [1, 3])
def test_texts_and_gradients_are_those_of_clip(layers, trees):
    """Of several contexts together; CLIP's modules read the texts one by one, at full length."""
    frozen, plain = frozen_and_plain(layers)
    prompts = ContextPrompts(frozen, TEXTS, 2)
    contexts = torch.randn(3, 2, 128, requires_grad=True)
    weights = torch.randn(3 * len(TEXTS), frozen.embed_dim)

    ours = frozen.encode_prompts(prompts.inputs, prompts.with_contexts(contexts))
    theirs = [rows_to_feature(plain, prompt_rows(plain, c, t)) for c in contexts for t in TEXTS]

    assert (prompts.inputs.mask is None) == (trees == "gathered")
    assert_close(ours, torch.stack(theirs), rtol=1e-4, atol=1e-5)
    gradients = [
        torch.autograd.grad((features * weights).sum(), contexts)[0]
        for features in (ours, torch.stack(theirs))
    ]
    assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-4)


def test_texts_without_a_context(trees):
    frozen, plain = frozen_and_plain()

    theirs = torch.stack([text_feature(plain, f"{text} .") for text in TEXTS])
    assert_close(encode_texts(frozen, TEXTS), theirs, rtol=1e-4, atol=1e-5)


def test_contexts_of_their_own(trees):
    """Each group of texts reads its own context and no other."""
    frozen, plain = frozen_and_plain()
    groups = [0, 1, 0, 1]
    prompts = ContextPrompts(frozen, TEXTS, 2, groups=groups)

    ours = frozen.encode_prompts(prompts.inputs, prompts())
    theirs = [
        rows_to_feature(plain, prompt_rows(plain, prompts.ctx[group], text))
        for group, text in zip(groups, TEXTS, strict=True)
    ]
    assert_close(ours, torch.stack(theirs), rtol=1e-4, atol=1e-5)


def test_tokens_between_the_layers(trees):
    """What MaPLe puts in place of the context's outputs."""
    frozen, plain = frozen_and_plain()
    prompts = ContextPrompts(frozen, TEXTS, 2)
    deeper = torch.randn(2, 2, 128)

    def between(i, x):
        return x.index_copy(0, prompts.inputs.tree.slots, deeper[i - 1])

    ours = frozen.encode_prompts(prompts.inputs, prompts(), between)
    rows = [prompt_rows(plain, prompts.ctx, text) for text in TEXTS]
    theirs = torch.stack([rows_to_feature(plain, each, deeper) for each in rows])
    assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "amp"])
def test_gradients_in_half_precision_stay_near(trees, precision):
    gradients = []
    for each in ("fp32", precision):
        frozen = FrozenCLIP(make_clip(text_width=128, layers=3), each)
        torch.manual_seed(0)
        prompts = ContextPrompts(frozen, TEXTS, 2)
        frozen.encode_prompts(prompts.inputs, prompts()).sum().backward()
        gradients.append(prompts.ctx.grad)

    assert (gradients[1] - gradients[0]).norm() < 0.05 * gradients[0].norm()


def test_attention_is_fused(trees):
    """Neither encoder keeps the scores of its attention, learning or not."""
    from torch.profiler import ProfilerActivity, profile

    frozen, _ = frozen_and_plain()
    prompts = ContextPrompts(frozen, TEXTS, 2)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        frozen.encode_prompts(prompts.inputs, prompts()).sum().backward()
        frozen.encode_image(torch.randn(2, 3, 32, 32))
    calls = {event.key: event.count for event in seen.key_averages()}

    assert calls["aten::_scaled_dot_product_flash_attention_for_cpu"] == 3 + 3
    assert "aten::_softmax" not in calls


def test_activations_are_fused_once(tiny_clip):
    """A model that is wrapped twice is not scaled twice."""
    x = torch.randn(5, tiny_clip.transformer.width)
    mlp = tiny_clip.transformer.resblocks[0].mlp
    expected = mlp(x)

    for _ in range(2):
        fuse_activations(tiny_clip.transformer)
        assert isinstance(mlp.gelu, torch.nn.SiLU)
        assert_close(mlp(x), expected, rtol=1e-4, atol=1e-6)
