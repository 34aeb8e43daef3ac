"""Anchored ViP against its equation, written out naively, in float64; off, it changes nothing."""

import pytest
import torch
from test_vip import PHRASES, naive_logits, naive_prompt_feature
from torch.testing import assert_close

from core.errors import InputError
from engine.method import METHODS
from symptoms import Symptoms
from trainers.vip import SymptomCLIP, anchor_loss


def naive_anchor(model, ctx, image_features):
    """The mean over symptoms of 1 - Pearson's correlation, a symptom at a time."""
    terms = []
    for phrase in (phrase for phrases in PHRASES.values() for phrase in phrases):
        untrained = naive_prompt_feature(model, phrase, ctx[:0])
        trained = naive_prompt_feature(model, phrase, ctx)
        pair = [
            torch.stack([(f / f.norm()) @ (t / t.norm()) for f in image_features])
            for t in (untrained, trained)
        ]
        terms.append(1 - torch.corrcoef(torch.stack(pair))[0, 1])
    return torch.stack(terms).mean()


@pytest.mark.parametrize("merge", ["prompt", "mean", "max"])
def test_loss_and_gradients_follow_the_equation(frozen64, merge):
    """To 1e-10, beside the cross-entropy, in the weight that is given."""
    model = SymptomCLIP(frozen64, PHRASES, merge=merge, anchor=3.0).double()
    image_features = torch.randn(6, frozen64.embed_dim, dtype=torch.float64)
    label = torch.tensor([0, 1, 1, 0, 1, 0])
    learned = list(model.learned.parameters())
    with torch.no_grad():
        model.learned.prompt_learner.ctx.mul_(20)  # away from where nothing has changed

    logits, losses = model.from_features(image_features, label)
    expected = naive_logits(frozen64.model, model.learned, image_features, merge)
    anchor = naive_anchor(frozen64.model, model.learned.prompt_learner.ctx, image_features)

    assert list(losses) == ["cross_entropy", "anchor"]
    assert anchor > 0.01
    assert_close(logits, expected, rtol=0, atol=1e-10)
    assert_close(losses["anchor"], 3 * anchor, rtol=0, atol=1e-10)
    naive = torch.nn.functional.cross_entropy(expected, label) + 3 * anchor
    for own, other in zip(
        torch.autograd.grad(sum(losses.values()), learned),
        torch.autograd.grad(naive, learned),
        strict=True,
    ):
        assert_close(own, other, rtol=0, atol=1e-10)


def test_the_loss_at_its_limits():
    """0 where only the length or the offset of a similarity changed, 2 where it is reversed."""
    image, symptoms = torch.randn(20, 8), torch.randn(5, 8)

    assert_close(anchor_loss(image, 3 * symptoms, symptoms), torch.tensor(0.0), rtol=0, atol=1e-6)
    assert_close(anchor_loss(image, -symptoms, symptoms), torch.tensor(2.0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_batch_without_an_order_has_no_gradient(batch):
    """One image has no order, and two have one of two orders: finite, and nothing to learn."""
    trained = torch.randn(5, 8, requires_grad=True)

    loss = anchor_loss(torch.randn(batch, 8), trained, torch.randn(5, 8))
    loss.backward()

    assert loss.isfinite()
    assert_close(trained.grad, torch.zeros(5, 8), rtol=0, atol=1e-5)


def test_off_it_changes_nothing(frozen64):
    """The same draws, state and losses as without; a checkpoint of either fits the other."""
    image_features, label = torch.randn(4, frozen64.embed_dim), torch.tensor([0, 1, 1, 0])
    built = []
    for anchor in (0.0, 5.0):
        torch.manual_seed(3)
        model = SymptomCLIP(frozen64, PHRASES, anchor=anchor).double()
        built.append((model, torch.get_rng_state()))
    (plain, state), (anchored, other_state) = built

    assert torch.equal(state, other_state)
    anchored.learned.load_state_dict(plain.learned.state_dict())
    for key, value in plain.learned.state_dict().items():
        assert torch.equal(value, anchored.learned.state_dict()[key])
    plain_logits, plain_losses = plain.from_features(image_features.double(), label)
    logits, losses = anchored.from_features(image_features.double(), label)
    assert torch.equal(plain_logits, logits)
    assert list(plain_losses) == ["cross_entropy"]
    assert torch.equal(plain_losses["cross_entropy"], losses["cross_entropy"])
    assert anchored.from_features(image_features.double()).losses == {}


@pytest.mark.parametrize("weight", [-1.0, float("nan"), "high"])
def test_a_weight_is_a_number_from_zero(weight):
    with pytest.raises(InputError, match="ANCHOR is"):
        METHODS["ViP"](ANCHOR=weight)


def test_without_a_context_there_is_nothing_to_anchor(frozen64):
    with pytest.raises(InputError, match="no effect with CONTEXT False"):
        METHODS["ViP"](ANCHOR=1.0, CONTEXT=False).build(frozen64, list(PHRASES), Symptoms(PHRASES))
