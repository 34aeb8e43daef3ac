"""ViP against its equations, written out naively, in float64."""

import json
import math

import clip
import pytest
import torch
from small_clip import frozen_clip
from torch.testing import assert_close

from core.errors import InputError
from engine.method import METHODS
from trainers.vip import SymptomCLIP

PHRASES = {
    "melanoma": ["The spot is asymmetric", "ragged (notched)", "a blue-white veil in the spot."],
    "nevus": ["The spot has clear, well-defined edges", "one even color"],
}


def naive_prompt_feature(model, phrase, ctx):
    """One phrase through CLIP at full length: [SOS] ctx words "." [EOS] 0 ..."""
    words = clip.tokenize(phrase.rstrip("."))[0]
    words = words[1 : words.argmax()]
    sos, stop, eos = clip.tokenize(".")[0, :3]
    ids = torch.zeros(77, dtype=torch.long)
    n_ctx = len(ctx)
    row = [sos, *[0] * n_ctx, *words, stop, eos]
    ids[: len(row)] = torch.tensor(row)
    x = model.token_embedding(ids)
    x = torch.cat([x[:1], ctx, x[1 + n_ctx :]]) + model.positional_embedding
    x = model.transformer(x.unsqueeze(1)).squeeze(1)
    return model.ln_final(x)[len(row) - 1] @ model.text_projection


def naive_logits(model, learned, image_features, merge, phrases=PHRASES):
    """Equations 1 to 3 of the paper, a class and a picture at a time."""
    ctx = getattr(learned.prompt_learner, "ctx", torch.zeros(0, model.ln_final.weight.shape[0]))
    scale = model.logit_scale.exp()
    rows = []
    for f in image_features:
        f = f / f.norm()
        row = []
        for c, symptoms in enumerate(phrases.values()):
            features = torch.stack([naive_prompt_feature(model, p, ctx) for p in symptoms])
            units = torch.stack([t / t.norm() for t in features])
            if merge == "max":
                row.append(scale * max(f @ t for t in units))
                continue
            if merge == "mean":
                s = units.mean(0)
            else:
                g = learned.token[0][c]
                q = learned.attn.q_proj.weight @ g
                scores = torch.stack([q @ (learned.attn.k_proj.weight @ t) for t in features])
                weights = torch.exp(scores / math.sqrt(len(g)))
                s = g + sum(w / weights.sum() * t for w, t in zip(weights, features, strict=True))
            row.append(scale * (f @ s) / s.norm())
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("merge", ["prompt", "mean", "max"])
@pytest.mark.parametrize("n_ctx", [0, 4])
def test_logits_loss_and_gradients_follow_the_equations(frozen64, merge, n_ctx):
    """To 1e-10, with d_txt different from d."""
    frozen = frozen64
    model = SymptomCLIP(frozen, PHRASES, n_ctx=n_ctx, merge=merge).double()
    image_features = torch.randn(3, frozen.embed_dim, dtype=torch.float64)
    label = torch.tensor([0, 1, 1])
    learned = list(model.learned.parameters())

    logits, losses = model.from_features(image_features, label)
    expected = naive_logits(frozen.model, model.learned, image_features, merge)

    assert_close(logits, expected, rtol=0, atol=1e-10)
    if not learned:
        return
    loss = sum(losses.values())
    naive_loss = (
        -(expected.exp() / expected.exp().sum(1, keepdim=True))[range(3), label].log().mean()
    )
    assert_close(loss, naive_loss, rtol=0, atol=1e-10)
    for ours, naive in zip(
        torch.autograd.grad(loss, learned),
        torch.autograd.grad(naive_loss, learned),
        strict=True,
    ):
        assert_close(ours, naive, rtol=0, atol=1e-10)


def test_exactly_the_named_parameters_learn(tiny_clip):
    """CoP, g, Wq and Wk, and nothing of CLIP."""
    frozen = frozen_clip(tiny_clip)
    model = SymptomCLIP(frozen, PHRASES)
    d_txt, d = frozen.text_width, frozen.embed_dim

    shapes = {n: tuple(p.shape) for n, p in model.learned.named_parameters()}

    assert d_txt != d
    assert shapes == {
        "prompt_learner.ctx": (4, d_txt),
        "attn.q_proj.weight": (d, d),
        "attn.k_proj.weight": (d, d),
        "token.0": (2, d),
    }
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        f"learned.{name}" for name in shapes
    }
    assert list(model.learned.state_dict()) == list(shapes)  # a checkpoint holds just these


def test_nothing_learns_without_context_and_with_mean(tiny_clip):
    """That row of the ablation is zero-shot by symptoms."""
    model = SymptomCLIP(frozen_clip(tiny_clip), PHRASES, n_ctx=0, merge="mean")

    assert list(model.learned.parameters()) == []


def test_class_specific_contexts_start_apart(tiny_clip):
    """CSC: one context a class, used by that class's symptoms alone."""
    frozen = frozen_clip(tiny_clip)
    model = SymptomCLIP(frozen, PHRASES, class_specific=True)
    ctx = model.learned.prompt_learner.ctx
    before = model.symptom_features()

    with torch.no_grad():
        ctx[1] += 1
    after = model.symptom_features()

    assert ctx.shape == (2, 4, frozen.text_width)
    assert_close(before[0], after[0])
    assert not torch.allclose(before[1, :2], after[1, :2])


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_position_of_the_symptom(tiny_clip, position):
    """The context's slots surround the words as the option says."""
    prompts = SymptomCLIP(frozen_clip(tiny_clip), PHRASES, position=position).learned.prompt_learner
    tree = prompts.inputs.tree
    path = tree.paths[0].tolist()
    eos = path.index(int(tree.ends[0]))
    slots = [p for p, row in enumerate(path[:eos]) if row in tree.slots]
    n_words = eos - 2 - 4  # SOS, four tokens of context, words, stop, EOS

    expected = {
        "end": [1, 2, 3, 4],
        "middle": [1, 2, 3 + n_words, 4 + n_words],
        "front": [1 + n_words + i for i in range(4)],
    }
    assert slots == expected[position]


def test_evaluation_sees_every_change_of_what_was_learned(tiny_clip):
    """Class features are kept between batches, never beyond an update or a load."""
    model = SymptomCLIP(frozen_clip(tiny_clip), PHRASES)
    x = torch.randn(2, model.backbone.embed_dim)
    with torch.no_grad():
        first = model.from_features(x).logits
        assert model.current_features() is model.current_features()
        model.learned.token[0].add_(1)
        second = model.from_features(x).logits
        model.learned.load_state_dict(SymptomCLIP(model.backbone, PHRASES).learned.state_dict())
        third = model.from_features(x).logits

    assert not torch.allclose(first, second)
    assert not torch.allclose(second, third)


def test_wrong_merge_names_the_choices():
    with pytest.raises(InputError, match="MERGE is 'sum'; it should be 'prompt', 'mean' or 'max'"):
        METHODS["ViP"](MERGE="sum")


def test_symptom_too_long_is_named(tiny_clip):
    """Never cut in silence."""
    phrases = json.loads(json.dumps(PHRASES)) | {"nevus": ["very " * 75 + "long"]}
    with pytest.raises(InputError, match="very very.* takes 83 tokens .* at most 77"):
        SymptomCLIP(frozen_clip(tiny_clip), phrases)
