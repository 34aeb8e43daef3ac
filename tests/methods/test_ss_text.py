"""SS-Text and SS-Text+ against their equations, in float64."""

import pytest
import torch
from naive import NAMES, cosine, cross_entropy, text_feature, unit

from engine.method import FitData, LabelledFeatures


def naive_weights(backbone, features, label, plus):
    """w_c of every class, one image at a time."""
    n, scale = len(label), backbone.logit_scale.exp()
    weights = []
    for c, name in enumerate(NAMES):
        text = unit(text_feature(backbone.model, f"a photo of a {name} ."))
        images = [unit(f) for f, y in zip(features, label, strict=True) if y == c]
        lambda_c = max(1 / (len(images) or 1) if plus else 1 / n, 1e-3)
        weights.append(text + scale / (n * lambda_c) * sum(images, torch.zeros_like(text)))
    if plus:
        mean = sum(weights) / len(weights)
        weights = [w - unit(2 * w - mean) for w in weights]
    return weights


@pytest.mark.parametrize("plus", [False, True])
def test_weights_and_logits(frozen64, support, image_features, label, build, close, shapes, plus):
    """Cosines with t_c + s / (N lambda_c) * sum of the class's features."""
    built = build("SSText", frozen64, PLUS=plus)
    model = built.model.double()
    built.method.fit(model, FitData(support, None, None))
    weights = naive_weights(frozen64, *support, plus)
    prototypes = model.learned.prototypes

    close(prototypes.detach(), torch.stack(weights))
    scale = frozen64.logit_scale.exp()
    naive = torch.stack(
        [torch.stack([scale * cosine(f, w) for w in prototypes]) for f in image_features]
    )
    logits, losses = model.from_features(image_features, label)
    close(logits, naive)
    close(losses["cross_entropy"], cross_entropy(naive, label), [prototypes])
    assert shapes(model) == {"prototypes": (3, 48)}


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("counts", [(1100, 30, 2), (5, 2, 0)])
def test_counts(frozen64, build, close, plus, counts):
    """lambda never falls below 1e-3; a class without images keeps its text feature."""
    label = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    train = LabelledFeatures(torch.randn(len(label), 48, dtype=torch.float64), label)
    built = build("SSText", frozen64, PLUS=plus)
    model = built.model.double()
    built.method.fit(model, FitData(train, None, None))

    naive = torch.stack(naive_weights(frozen64, *train, plus))
    close(model.learned.prototypes.detach(), naive)
    if not (plus or counts[2]):
        close(model.learned.prototypes[2].detach(), model.known[2])


def test_starts_as_zero_shot(frozen64, image_features, build, close):
    probe, zero_shot = build("SSText", frozen64), build("ZeroshotCLIP", frozen64)
    ours, known = (
        built.model.double().from_features(image_features).logits for built in (probe, zero_shot)
    )

    close(ours.detach(), known.detach())
