"""The causal text encoder over a tree of tokens against CLIP's own modules."""

import copy

import pytest
import torch
from naive import prompt_rows, rows_to_feature, text_feature
from small_clip import frozen_clip, make_clip
from torch.testing import assert_close

from backbones.encoders.token_tree import TokenTree
from backbones.texts import lay_out
from engine.prompts import ContextPrompts, encode_texts

TEXTS = ["a dark spot", "a dark spot with a round (pale) border", "x", "a dark spot"]


def frozen_and_plain(layers=3):
    """A CLIP of two heads, wrapped and as it is."""
    model = make_clip(text_width=128, layers=layers).requires_grad_(False)
    return frozen_clip(copy.deepcopy(model)), model


@pytest.mark.parametrize("layers", [1, 3])
def test_texts_and_gradients_are_those_of_clip(layers):
    """Of several contexts together; CLIP's modules read the texts one by one, at full length."""
    frozen, plain = frozen_and_plain(layers)
    prompts = ContextPrompts(frozen, TEXTS, 2)
    contexts = torch.randn(3, 2, 128, requires_grad=True)
    weights = torch.randn(3 * len(TEXTS), frozen.embed_dim)

    ours = frozen.encode_text(prompts.inputs, prompts.with_contexts(contexts))
    theirs = [rows_to_feature(plain, prompt_rows(plain, c, t)) for c in contexts for t in TEXTS]

    assert_close(ours, torch.stack(theirs), rtol=1e-4, atol=1e-5)
    gradients = [
        torch.autograd.grad((features * weights).sum(), contexts)[0]
        for features in (ours, torch.stack(theirs))
    ]
    assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-4)


def test_texts_without_a_context():
    frozen, plain = frozen_and_plain()

    theirs = torch.stack([text_feature(plain, f"{text} .") for text in TEXTS])
    assert_close(encode_texts(frozen, TEXTS), theirs, rtol=1e-4, atol=1e-5)


def test_contexts_of_their_own():
    """Each group of texts reads its own context and no other."""
    frozen, plain = frozen_and_plain()
    groups = [0, 1, 0, 1]
    prompts = ContextPrompts(frozen, TEXTS, 2, groups=groups)

    ours = frozen.encode_text(prompts.inputs, prompts())
    theirs = [
        rows_to_feature(plain, prompt_rows(plain, prompts.ctx[group], text))
        for group, text in zip(groups, TEXTS, strict=True)
    ]
    assert_close(ours, torch.stack(theirs), rtol=1e-4, atol=1e-5)


def test_deep_tokens_of_one_and_of_several_contexts():
    """They replace the slots' outputs between the layers, as MaPLe's do."""
    frozen, plain = frozen_and_plain()
    prompts = ContextPrompts(frozen, TEXTS, 2)
    contexts, deeper = torch.randn(3, 2, 128), torch.randn(2, 3, 2, 128)

    ours = frozen.encode_text(
        prompts.inputs,
        prompts.with_contexts(contexts),
        [prompts.with_contexts(tokens) for tokens in deeper],
    )
    theirs = [
        rows_to_feature(plain, prompt_rows(plain, context, text), deeper[:, c])
        for c, context in enumerate(contexts)
        for text in TEXTS
    ]
    assert_close(ours, torch.stack(theirs), rtol=1e-4, atol=1e-5)

    shared = [prompts.with_contexts(tokens[:1]) for tokens in deeper]
    for_all = frozen.encode_text(prompts.inputs, prompts.with_contexts(contexts), shared)
    assert_close(for_all[: len(TEXTS)], ours[: len(TEXTS)])
    assert not torch.allclose(for_all[len(TEXTS) :], ours[len(TEXTS) :])


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_texts_share_their_beginnings_and_nothing_else(position):
    """A row for each distinct beginning; a path of rows gives each text back, end token last."""
    words = [[5, 6], [5, 7], [7], [5, 6]]
    texts = lay_out(["?"] * 4, words, [1], [8, 9], 77, 2, position)
    tree = TokenTree.of(texts)

    for text, path, end in zip(texts, tree.paths.tolist(), tree.ends.tolist(), strict=True):
        path = path[: len(text)]
        assert tree.tokens[path].tolist() == text
        assert tree.positions[path].tolist() == list(range(len(text)))
        assert path[-1] == end
    beginnings = {tuple(text[: n + 1]) for text in texts for n in range(len(text))}
    assert len(tree.tokens) == len(beginnings)
    assert tree.paths.flatten()[tree.at].tolist() == list(range(len(beginnings)))
    assert (tree.tokens[tree.slots] < 0).all() and (tree.tokens < 0).sum() == len(tree.slots)


@pytest.mark.parametrize("position", ["end", "front"])
def test_gradients_of_shared_rows_can_be_repeated(tiny_clip, position):
    """To the bit, with several threads; "front" puts the one context into every text's own rows."""
    texts = [f"{i} {i % 7} spots" for i in range(300)]
    prompts = ContextPrompts(frozen_clip(tiny_clip), texts, 4, position)
    weights = torch.randn(len(prompts.sources), 64)
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    gradients = []
    for _ in range(10):
        prompts.ctx.grad = None
        (prompts() * weights).sum().backward()
        gradients.append(prompts.ctx.grad)
    torch.set_num_threads(threads)

    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)


def test_half_precision_adds_up_shared_gradients_in_fp32(tiny_clip):
    """Hundreds of texts behind one context lose no more of its gradient than a few do."""
    texts = [f"{i} {i % 7} spots" for i in range(300)]
    gradients = []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        frozen = frozen_clip(copy.deepcopy(tiny_clip), precision)
        prompts = ContextPrompts(frozen, texts, 4)
        frozen.encode_text(prompts.inputs, prompts()).sum().backward()
        gradients.append(prompts.ctx.grad)

    assert (gradients[1] - gradients[0]).norm() < 0.03 * gradients[0].norm()


@pytest.mark.parametrize("precision", ["bf16", "amp"])
def test_gradients_in_half_precision_stay_near(precision):
    gradients = []
    for each in ("fp32", precision):
        frozen = frozen_clip(make_clip(text_width=128, layers=3), each)
        torch.manual_seed(0)
        prompts = ContextPrompts(frozen, TEXTS, 2)
        frozen.encode_text(prompts.inputs, prompts()).sum().backward()
        gradients.append(prompts.ctx.grad)

    assert (gradients[1] - gradients[0]).norm() < 0.05 * gradients[0].norm()


def test_attention_is_fused():
    """Neither encoder keeps the scores of its attention, learning or not."""
    from torch.profiler import ProfilerActivity, profile

    frozen, _ = frozen_and_plain()
    prompts = ContextPrompts(frozen, TEXTS, 2)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        frozen.encode_text(prompts.inputs, prompts()).sum().backward()
        frozen.encode_image(torch.randn(2, 3, 32, 32))
    calls = {event.key: event.count for event in seen.key_averages()}

    assert calls["aten::_scaled_dot_product_flash_attention_for_cpu"] == 3 + 3
    assert "aten::_softmax" not in calls
