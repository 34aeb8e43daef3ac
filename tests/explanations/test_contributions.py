"""Contributions against the definition of a logit: exact in every merge, at every width."""

import numpy as np
import pytest
import torch
from small_clip import frozen_clip, make_clip
from torch.testing import assert_close

from backbones.backbone import Backbone
from explanations.contributions import contributions
from trainers.vip import MERGES, SymptomCLIP

PHRASES = {
    "melanoma": ["The spot is asymmetric", "ragged edges", "a blue-white veil in the spot"],
    "nevus": ["The spot has clear, well-defined edges", "one even color"],
    "scar": ["a pale, shiny patch"],
}


def symptom_clip(frozen, merge, n_ctx=4, **options):
    """A model whose every learned number is drawn, so that no part is zero by its start."""
    if not isinstance(frozen, Backbone):
        frozen = frozen_clip(frozen)
    torch.manual_seed(0)
    built = SymptomCLIP(frozen, PHRASES, n_ctx=n_ctx, merge=merge, **options)
    with torch.no_grad():
        for parameter in built.learned.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built


@pytest.fixture(scope="module", params=[("vit", 48, 64), ("resnet", 96, 64), ("vit", 64, 128)])
def width(request):
    """CLIPs of several widths, d_txt != d, a ViT and a ResNet."""
    visual, embed_dim, text_width = request.param
    return make_clip(visual, embed_dim=embed_dim, text_width=text_width, layers=1)


@pytest.mark.parametrize("n_ctx", [0, 4])
@pytest.mark.parametrize("merge", MERGES)
def test_contributions_sum_to_the_logits(width, merge, n_ctx):
    """To 1e-5 of what the model answers in fp32, the precision of every run on a CPU."""
    model = symptom_clip(width, merge, n_ctx)
    features = torch.randn(7, model.backbone.embed_dim)

    with torch.no_grad():
        logits = model.from_features(features).logits
    parts = contributions(model, features)

    assert_close(parts.logits, logits.double().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("merge", MERGES)
def test_contributions_sum_exactly_in_double_precision(frozen64, merge):
    """Nothing is approximated: in float64 the sum is the logit to 1e-10."""
    model = symptom_clip(frozen64, merge).double()
    features = torch.randn(5, model.backbone.embed_dim, dtype=torch.float64)

    with torch.no_grad():
        logits = model.from_features(features).logits.numpy()

    np.testing.assert_allclose(contributions(model, features).logits, logits, rtol=0, atol=1e-10)


def test_each_part_is_the_term_of_the_sum(tiny_clip):
    """s * a_j * f.T_j / |s_c| and s * f.g / |s_c|, one at a time."""
    model = symptom_clip(tiny_clip, "prompt")
    features = torch.randn(2, model.backbone.embed_dim)

    parts = contributions(model, features)

    with torch.no_grad():
        texts, token = model.symptom_features().double(), model.learned.token[0].double()
        weights = model.attention(model.symptom_features()).double()
    for i, f in enumerate(features.double()):
        f = f / f.norm()
        for c, symptoms in enumerate(PHRASES.values()):
            merged = token[c] + sum(weights[c, j] * texts[c, j] for j in range(len(symptoms)))
            scale = 100 / merged.norm()
            assert parts.own[i, c] == pytest.approx(float(scale * f @ token[c]), rel=1e-4)
            for j in range(len(symptoms)):
                expected = float(scale * weights[c, j] * (f @ texts[c, j]))
                cosine = float(f @ texts[c, j] / texts[c, j].norm())
                assert parts.symptom[i, c, j] == pytest.approx(expected, rel=1e-4)
                assert parts.similarity[i, c, j] == pytest.approx(cosine, rel=1e-6)
                assert parts.weight[i, c, j] == pytest.approx(float(weights[c, j]))


def test_only_the_nearest_symptom_contributes_with_max(tiny_clip):
    """The others are exactly zero, and a padded place never wins."""
    model = symptom_clip(tiny_clip, "max")

    parts = contributions(model, -model.symptom_features()[0, :1])  # all cosines may be negative

    similarity = np.where(np.isnan(parts.similarity), -np.inf, parts.similarity)
    assert ((parts.symptom != 0).sum(axis=2) == 1).all()
    assert (np.abs(parts.symptom).argmax(axis=2) == similarity.argmax(axis=2)).all()
    assert (parts.own == 0).all()


@pytest.mark.parametrize("merge", MERGES)
def test_padding_says_nothing(tiny_clip, merge):
    """Where a class has fewer symptoms: no similarity, no weight, no contribution."""
    parts = contributions(symptom_clip(tiny_clip, merge), torch.randn(3, 48))

    assert np.isnan(parts.similarity[:, 2, 1:]).all()
    assert (parts.symptom[:, 2, 1:] == 0).all()
    assert (parts.weight[:, 2, 1:] == 0).all()
    np.testing.assert_allclose(parts.weight.sum(axis=2), 1, atol=1e-6)


def test_learned_temperature_and_own_contexts_are_followed(tiny_clip):
    """The options that change a logit change its parts alike."""
    model = symptom_clip(tiny_clip, "prompt", class_specific=True, learn_scale=True)
    with torch.no_grad():
        model.learned.logit_scale.fill_(2.0)
        logits = model.from_features(features := torch.randn(3, 48)).logits

    assert_close(
        contributions(model, features).logits, logits.double().numpy(), rtol=1e-5, atol=1e-5
    )
