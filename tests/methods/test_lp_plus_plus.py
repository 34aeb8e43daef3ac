"""LP++ against its equations, in float64."""

import pytest
import torch
from naive import NAMES, cross_entropy, text_feature, unit

from engine.method import FitData, LabelledFeatures


def texts_of(backbone):
    return [unit(text_feature(backbone.model, f"a photo of a {name} .")) for name in NAMES]


def naive_logits(features, texts, weight, bias, alpha):
    """w_c . f + b_c + alpha_c (f . t_c), an image and a class at a time."""
    return torch.stack(
        [
            torch.stack(
                [
                    (weight[c] * unit(f)).sum() + bias[c] + alpha[c] * (unit(f) * t).sum()
                    for c, t in enumerate(texts)
                ]
            )
            for f in features
        ]
    )


def test_logits_and_gradients(frozen64, image_features, label, build, close, shapes):
    model = build("LPPlusPlus", frozen64).model.double()
    head = model.learned
    with torch.no_grad():
        head.alpha.normal_()
    naive = naive_logits(image_features, texts_of(frozen64), head.weight, head.bias, head.alpha)
    logits, losses = model.from_features(image_features, label)

    close(logits, naive)
    close(losses["cross_entropy"], cross_entropy(naive, label), list(head.parameters()))
    assert shapes(model) == {"weight": (3, 48), "bias": (3,), "alpha": (3,)}


def naive_descent(features, label, texts, bias, epochs, accumulate):
    """w, b and alpha after each epoch."""
    n = len(label)
    units = torch.stack([unit(f) for f in features])
    cosines = torch.stack([torch.stack([(f * t).sum() for t in texts]) for f in units])
    members = [[i for i in range(n) if label[i] == c] for c in range(len(texts))]
    weight = torch.stack([sum(units[i] for i in images) for images in members])
    means = [sum(cosines[i, c] for i in images) / len(images) for c, images in enumerate(members)]
    alpha = 250 * sum(means) / len(means) * torch.ones(len(texts), dtype=torch.float64)
    rate = 4 * n / torch.linalg.eigvalsh(units.T @ units).max()
    alpha_rate = n / (4 * max((cosines[:, c] ** 2).sum() for c in range(len(texts))))

    def gradients(*learned):
        learned = [x.detach().clone().requires_grad_() for x in learned]
        loss = cross_entropy(naive_logits(features, texts, *learned), label)
        return torch.autograd.grad(loss, learned)

    speeds, total, states = [0, 0], 0, []
    for epoch in range(1, epochs + 1):
        *steps, slope = gradients(weight, bias, alpha)
        total = total + slope
        speeds = [0.9 * v + g for v, g in zip(speeds, steps, strict=True)]
        weight, bias = weight - rate * speeds[0], bias - rate * speeds[1]
        if epoch % 10 == 0:
            slope = total if accumulate else gradients(weight, bias, alpha)[2]
            alpha = alpha - alpha_rate * slope
        states.append((weight, bias, alpha))
    return states


@pytest.mark.parametrize("accumulate", [False, True])
def test_every_epoch_of_the_descent(frozen64, support, build, close, accumulate):
    """The paper's block descent, and with ACCUMULATE the released code's."""
    built = build("LPPlusPlus", frozen64, EPOCHS=25, ACCUMULATE=accumulate)
    head = built.model.double().learned
    bias = head.bias.detach().clone()
    states = naive_descent(*support, texts_of(frozen64), bias, 25, accumulate)

    for epoch in built.method.descend(built.model, support):
        for ours, naive in zip(
            (head.weight, head.bias, head.alpha), states[epoch - 1], strict=True
        ):
            close(ours.detach(), naive)
    assert epoch == 25


def test_alpha_follows_its_current_gradient(frozen64, support, build):
    """The two ways of the option differ from the first step of alpha on, and not before."""
    after = {}
    for accumulate in (False, True):
        torch.manual_seed(3)  # the bias starts at random
        built = build("LPPlusPlus", frozen64, EPOCHS=10, ACCUMULATE=accumulate)
        head = built.model.double().learned
        epochs = built.method.descend(built.model, support)
        after[accumulate] = [head.alpha.detach().clone() for _ in epochs]

    equal = [torch.equal(a, b) for a, b in zip(after[False], after[True], strict=True)]
    assert equal == 9 * [True] + [False]


def test_keeps_the_last_of_the_best_epochs(frozen64, support, build, close, capsys):
    """Chosen by the accuracy on validation images after each epoch's steps."""
    val = LabelledFeatures(
        support.features + 8 * torch.randn(8, 48, dtype=torch.float64), support.label
    )
    built = build("LPPlusPlus", frozen64, EPOCHS=40)
    model = built.model.double()
    bias = model.learned.bias.detach().clone()
    texts = texts_of(frozen64)
    best = (-1, None)
    for epoch, state in enumerate(naive_descent(*support, texts, bias, 40, False), 1):
        logits = naive_logits(val.features, texts, *state)
        correct = sum(int(row.argmax() == y) for row, y in zip(logits, val.label, strict=True))
        if correct >= best[0]:
            best = correct, epoch, state
    built.method.fit(model, FitData(support, val, None))

    assert 0 < best[0] < 8 and 1 < best[1] < 40, "the choice has to matter"
    for ours, naive in zip(model.learned.parameters(), best[2], strict=True):
        close(ours.detach(), naive)
    said = f"epoch {best[1]} of 40 is used: validation accuracy {100 * best[0] / 8:.4f}%"
    assert said in capsys.readouterr().out


def test_without_validation_images(frozen64, support, build, close, capsys):
    built = build("LPPlusPlus", frozen64, EPOCHS=12)
    model = built.model.double()
    bias = model.learned.bias.detach().clone()
    last = naive_descent(*support, texts_of(frozen64), bias, 12, False)[-1]
    built.method.fit(model, FitData(support, None, None))

    for ours, naive in zip(model.learned.parameters(), last, strict=True):
        close(ours.detach(), naive)
    assert "so it is the last" in capsys.readouterr().out
