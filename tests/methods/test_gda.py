"""GDA against its equations, in float64."""

import math

import pytest
import torch
from naive import NAMES, cosine, cross_entropy, text_feature, unit

from engine.method import FitData, LabelledFeatures

ALPHAS = [0.0001, 0.001, 0.01, 0.1, 1, 10, 100]


def naive_gaussians(features, label):
    """w and b of each class, by sums over images."""
    units = [unit(f) for f in features]
    n, d = len(units), len(units[0])
    means = []
    for c in range(len(NAMES)):
        own = [f for f, y in zip(units, label, strict=True) if y == c]
        means.append(sum(own) / len(own))
    residuals = [f - means[y] for f, y in zip(units, label, strict=True)]
    covariance = sum(torch.outer(r, r) for r in residuals) / (n - 1)
    ridge = covariance.diagonal().sum() * torch.eye(d, dtype=torch.float64)
    precision = d * torch.linalg.inv((n - 1) * covariance + ridge)
    weights = [precision @ m for m in means]
    biases = [math.log(1 / len(NAMES)) - m @ precision @ m / 2 for m in means]
    return torch.stack(weights), torch.stack(biases)


def naive_logits(backbone, features, weight, bias, alpha=1.0):
    scale = backbone.logit_scale.exp()
    texts = [text_feature(backbone.model, f"a photo of a {name} .") for name in NAMES]
    return torch.stack(
        [
            torch.stack(
                [
                    scale * cosine(f, t) + alpha * ((weight[c] * unit(f)).sum() + bias[c])
                    for c, t in enumerate(texts)
                ]
            )
            for f in features
        ]
    )


def views_of(support):
    return torch.stack([support.features + k for k in range(2)])


def fitted(build, backbone, support, val, **options):
    built = build("GDA", backbone, PASSES=2, **options)
    built.model.double()
    views = views_of(support)
    built.method.fit(built.model, FitData(support, val, lambda passes: views[:passes]))
    return built.model


@pytest.fixture
def gaussians(support):
    return naive_gaussians(
        [f for view in views_of(support) for f in view], 2 * support.label.tolist()
    )


def test_logits_and_gradients(
    frozen64, support, gaussians, image_features, label, build, close, shapes
):
    """s f . t_c + alpha (f . w_c + b_c)."""
    model = fitted(build, frozen64, support, None, ALPHA=0.25)
    weight, bias = gaussians
    head = model.learned

    close(head.weight.detach(), 0.25 * weight)
    close(head.bias.detach(), 0.25 * bias)
    naive = naive_logits(frozen64, image_features, head.weight, head.bias)
    logits, losses = model.from_features(image_features, label)
    close(logits, naive)
    close(losses["cross_entropy"], cross_entropy(naive, label), [head.weight, head.bias])
    assert shapes(model) == {"weight": (3, 48), "bias": (3,)}


def test_alpha_is_the_smallest_of_the_best_on_validation(
    frozen64, support, gaussians, build, close, capsys
):
    noise = torch.randn(8, 48, dtype=torch.float64)
    val = LabelledFeatures(support.features + 2 * noise, support.label)
    correct = []
    for alpha in ALPHAS:
        logits = naive_logits(frozen64, val.features, *gaussians, alpha)
        correct.append(sum(int(r.argmax() == y) for r, y in zip(logits, val.label, strict=True)))
    chosen = ALPHAS[correct.index(max(correct))]
    model = fitted(build, frozen64, support, val)

    assert chosen not in (ALPHAS[0], 0.1) and correct.count(max(correct)) > 1, "it has to matter"
    close(model.learned.weight.detach(), chosen * gaussians[0])
    assert f"ALPHA {chosen:g} is used" in capsys.readouterr().out


def test_without_validation_images(frozen64, support, gaussians, build, close, capsys):
    """The value that the released code's search starts from."""
    model = fitted(build, frozen64, support, None)

    close(model.learned.weight.detach(), 0.1 * gaussians[0])
    assert "so ALPHA is 0.1" in capsys.readouterr().out


def test_one_view_of_each_class(frozen64, build):
    """There is no spread to estimate: what is left is zero-shot CLIP, and finite."""
    one = LabelledFeatures(torch.randn(3, 48, dtype=torch.float64), torch.arange(3))
    built = build("GDA", frozen64, PASSES=1)
    built.model.double()
    built.method.fit(built.model, FitData(one, one, lambda passes: one.features.unsqueeze(0)))

    assert built.model.learned.weight.abs().max() == 0
    assert built.model.learned.bias.isfinite().all()
