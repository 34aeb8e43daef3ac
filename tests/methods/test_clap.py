"""CLAP against its equations, in float64."""

import math

import torch
from naive import NAMES, cosine, cross_entropy, text_feature

from engine.method import FitData, LabelledFeatures


def texts_of(backbone):
    """Of the norm that the encoder gives them."""
    return [text_feature(backbone.model, f"a photo of a {name} .") for name in NAMES]


def naive_logits(features, weights, scale):
    return torch.stack([torch.stack([scale * cosine(f, w) for w in weights]) for f in features])


def naive_multipliers(features, label, texts, scale):
    """A class's mean zero-shot probability over its own images."""
    found = []
    for c in range(len(texts)):
        own = [f for f, y in zip(features, label, strict=True) if y == c]
        scores = [naive_logits([f], texts, scale)[0].exp() for f in own]
        found.append(sum(s[c] / s.sum() for s in scores) / len(own))
    return found


def naive_loss(features, label, weights, texts, multipliers, scale):
    penalty = sum(
        m * ((w - t) ** 2).sum() for m, w, t in zip(multipliers, weights, texts, strict=True)
    )
    return cross_entropy(naive_logits(features, weights, scale), label) + penalty / len(texts)


def test_loss_and_gradients(frozen64, support, image_features, label, build, close, shapes):
    """Cross-entropy plus mean_c lambda_c ||w_c - t_c||^2, lambda_c from other images than these."""
    model = build("CLAP", frozen64).model.double()
    prototypes = model.learned.prototypes
    model.weigh(*support)
    with torch.no_grad():
        prototypes += torch.randn_like(prototypes)
    scale, texts = frozen64.logit_scale.exp(), texts_of(frozen64)
    multipliers = naive_multipliers(*support, texts, scale)
    logits, losses = model.from_features(image_features, label)

    close(model.multipliers, torch.stack(multipliers))
    close(logits, naive_logits(image_features, prototypes, scale))
    naive = naive_loss(image_features, label, prototypes, texts, multipliers, scale)
    close(sum(losses.values()), naive, [prototypes])
    assert shapes(model) == {"prototypes": (3, 48)}


def test_whole_fit(frozen64, support, build, close):
    """SGD with momentum on all random views at once, by the warm-up and the cosine."""
    views = torch.stack([support.features + k for k in range(3)])
    built = build("CLAP", frozen64, PASSES=3, EPOCHS=6)
    model = built.model.double()
    built.method.fit(model, FitData(support, None, lambda passes: views[:passes]))

    features = [f for view in views for f in view]
    label = torch.cat(3 * [support.label])
    scale, texts = frozen64.logit_scale.exp(), texts_of(frozen64)
    multipliers = naive_multipliers(features, label, texts, scale)
    weights, speed = torch.stack(texts), 0
    for rate in [1e-5] + [0.05 * (1 + math.cos(math.pi * k / 6)) for k in range(5)]:
        w = weights.clone().requires_grad_()
        loss = naive_loss(features, label, w, texts, multipliers, scale)
        speed = 0.9 * speed + torch.autograd.grad(loss, w)[0]
        weights = weights - rate * speed

    close(model.learned.prototypes.detach(), weights)


def test_an_epoch_reads_as_many_features_as_there_are_images(frozen64, support, build, monkeypatch):
    """Of eight images in three passes, batches of 3: two batches an epoch, drawn anew each time."""
    built = build("CLAP", frozen64, PASSES=3, EPOCHS=2, BATCH_SIZE=3)
    model = built.model.double()
    views = torch.stack([support.features + k for k in range(3)])
    read, from_features = [], model.from_features

    def noted(features, label):
        read.append((features, label))
        return from_features(features, label)

    monkeypatch.setattr(model, "from_features", noted)
    built.method.fit(model, FitData(support, None, lambda passes: views))

    assert [len(label) for _, label in read] == [3, 3, 3, 3]
    images = {
        tuple(f.tolist()): int(y) for v in views for f, y in zip(v, support.label, strict=True)
    }
    for features, label in read:
        assert [images[tuple(f.tolist())] for f in features] == label.tolist()
    epochs = [torch.cat([f for f, _ in read[i : i + 2]]) for i in (0, 2)]
    assert len(epochs[0].unique(dim=0)) == 6 and not torch.equal(*epochs)


def test_reads_random_views_alone(frozen64, support, build):
    """It reads neither the validation images nor the images as they are at test time."""
    broken = LabelledFeatures(torch.full_like(support.features, float("nan")), support.label)
    built = build("CLAP", frozen64, PASSES=2, EPOCHS=2)
    model = built.model.double()
    views = support.features.expand(2, -1, -1)
    built.method.fit(model, FitData(broken, broken, lambda passes: views))

    assert model.learned.prototypes.isfinite().all()


def test_published_checkpoint(frozen64, build):
    """The original keeps the text features and the temperature in it; they follow from CLIP."""
    built = build("CLAP", frozen64)
    prototypes = torch.randn(3, 48)
    built.load(
        {
            "prototypes": prototypes,
            "base_text_features": torch.randn(3, 48),
            "logit_scale": torch.tensor(4.6),
        }
    )

    assert torch.equal(built.model.learned.prototypes, prototypes)
    assert built.method.checkpoint_name == "adapter"
