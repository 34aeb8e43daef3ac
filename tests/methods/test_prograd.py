"""ProGrad against its equations, in float64."""

from itertools import product

import pytest
import torch
from naive import NAMES, cosine, cross_entropy, prompt_rows, rows_to_feature, text_feature
from torch.testing import assert_close

from trainers.prograd import aligned


def naive_logits(frozen, images, features):
    scale = frozen.logit_scale.exp()
    return torch.stack([torch.stack([scale * cosine(f, t) for t in features]) for f in images])


def naive_losses(frozen, model, images, label, temperature):
    """Logits, cross-entropy and T^2 times that of the softened zero-shot probabilities."""
    clip64, ctx = frozen.model, model.learned.ctx
    rows = [prompt_rows(clip64, ctx if ctx.dim() == 2 else ctx[c], n) for c, n in enumerate(NAMES)]
    logits = naive_logits(frozen, images, [rows_to_feature(clip64, r) for r in rows])
    texts = [text_feature(clip64, f"a photo of a {name} .") for name in NAMES]
    total = torch.zeros((), dtype=torch.float64)
    for z, z0 in zip(logits, naive_logits(frozen, images, texts), strict=True):
        p = (z / temperature).exp() / (z / temperature).exp().sum()
        p0 = (z0 / temperature).exp() / (z0 / temperature).exp().sum()
        total = total - temperature**2 * (p0 * p.log()).sum()
    return logits, cross_entropy(logits, label), total / len(images)


def naive_step(g, h, strength):
    """Equation 6, for one parameter tensor: zero to four dimensions alike."""
    dot = sum(a * b for a, b in zip(g.flatten(), h.flatten(), strict=True))
    square = sum(b * b for b in h.flatten())
    return g - strength * dot / square * h if dot < 0 else g


@pytest.mark.parametrize("csc", [False, True])
@pytest.mark.parametrize("temperature, strength", [(1.0, 1.0), (2.0, 0.8)])
def test_losses_and_gradient_of_the_step(
    frozen64, image_features, build, close, shapes, temperature, strength, csc
):
    """Where the two gradients agree, and where they do not: then the projection is seen."""
    built = build("ProGrad", frozen64, T=temperature, LAMBDA=strength, CSC=csc)
    model = built.model.double()
    ctx = model.learned.ctx
    start = ctx.detach().clone()
    conflicts = []
    for label in map(torch.tensor, product(range(3), range(3), [0])):
        with torch.no_grad():
            ctx.copy_(start + 0.01 * torch.randn_like(start))
        logits, specific, general = naive_losses(
            frozen64, model, image_features, label, temperature
        )
        (g,) = torch.autograd.grad(specific, ctx, retain_graph=True)
        (h,) = torch.autograd.grad(general, ctx)
        ours = model.from_features(image_features, label)
        close(ours.logits, logits)
        close(ours.losses["cross_entropy"], specific)
        close(ours.losses["zero_shot"], general)
        model.backward(ours.losses, lambda loss: loss)

        assert_close(ctx.grad, naive_step(g, h, strength), rtol=0, atol=1e-10)
        conflicts.append(bool((g * h).sum() < 0))
        if conflicts[-1]:
            assert not torch.allclose(ctx.grad, g)
    assert set(conflicts) == {False, True}
    assert shapes(model) == {"ctx": (3, 4, 64) if csc else (4, 64)}


def test_no_general_gradient_changes_nothing():
    g = torch.randn(4, 3)

    assert torch.equal(aligned(g, torch.zeros_like(g)), g)


def test_each_tensor_by_itself_and_of_any_scale():
    """A scaler's factor comes through; an infinite number reaches it, so that it skips the step."""
    g, h = torch.tensor([1.0, -2.0]), torch.tensor([0.0, 3.0])

    assert aligned(g, h).tolist() == [1.0, 0.0]
    assert aligned(65536 * g, 65536 * h).tolist() == [65536.0, 0.0]
    assert aligned(g, h, 0.5).tolist() == [1.0, -1.0]
    assert torch.equal(aligned(g, -h), g)
    for infinite in (torch.tensor([0.0, torch.inf]), torch.tensor([0.0, torch.nan])):
        assert not aligned(g, infinite).isfinite().all()
        assert not aligned(infinite, h).isfinite().all()


def test_the_scale_of_half_precision_comes_through(frozen64, image_features, label, build):
    model = build("ProGrad", frozen64).model.double()
    with torch.no_grad():
        model.learned.ctx += 0.1
    gradients = []
    for scale in (1.0, 1024.0):
        losses = model.from_features(image_features, label).losses
        model.backward(losses, lambda loss, scale=scale: scale * loss)
        gradients.append(model.learned.ctx.grad / scale)

    assert_close(gradients[0], gradients[1], rtol=1e-12, atol=0)


def test_strength_zero_is_coop(frozen64, image_features, label, build):
    model = build("ProGrad", frozen64, LAMBDA=0.0).model.double()
    coop = build("CoOp", frozen64, CTX_INIT="a photo of a").model.double()
    for either in (model, coop):
        either.backward(either.from_features(image_features, label).losses, lambda loss: loss)

    assert_close(model.learned.ctx.grad, coop.learned.ctx.grad, rtol=0, atol=1e-14)


def test_published_checkpoint(frozen64, build):
    built = build("ProGrad", frozen64, N_CTX=16, CTX_INIT="")
    ctx = torch.randn(16, 64)
    fixed = {"token_prefix": torch.zeros(3, 1, 64), "token_suffix": torch.zeros(3, 60, 64)}

    built.load({"ctx": ctx, **fixed})

    assert torch.equal(built.model.learned.ctx, ctx)
