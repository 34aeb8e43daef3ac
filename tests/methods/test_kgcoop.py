"""KgCoOp against its equations, in float64."""

import torch
from naive import NAMES, cosine, cross_entropy, prompt_rows, rows_to_feature, text_feature


def test_loss_and_gradients(frozen64, image_features, label, build, close, shapes):
    """Cross-entropy plus W (1 - mean_c cos(t_c, t0_c))."""
    built = build("KgCoOp", frozen64)
    model = built.model.double()
    ctx = model.learned.ctx
    with torch.no_grad():
        ctx += 0.1 * torch.randn_like(ctx)

    features = [rows_to_feature(frozen64.model, prompt_rows(frozen64.model, ctx, n)) for n in NAMES]
    known = [text_feature(frozen64.model, f"a photo of a {name} .") for name in NAMES]
    scale = frozen64.logit_scale.exp()
    naive = torch.stack(
        [torch.stack([scale * cosine(f, t) for t in features]) for f in image_features]
    )
    mean = sum(cosine(t, t0) for t, t0 in zip(features, known, strict=True)) / len(NAMES)
    logits, losses = model.from_features(image_features, label)

    close(logits, naive)
    close(sum(losses.values()), cross_entropy(naive, label) + 8 * (1 - mean), [ctx])
    assert shapes(model) == {"ctx": (4, 64)}


def test_penalty_starts_at_zero(frozen64, build):
    """The context starts from the words that the known features are made of."""
    model = build("KgCoOp", frozen64).model.double()
    features = torch.randn(3, frozen64.embed_dim, dtype=torch.float64)
    _, losses = model.from_features(features, torch.tensor([0, 1, 2]))

    assert abs(losses["distance"].item()) < 1e-12


def test_published_checkpoint(frozen64, build):
    """The original's unused network is left aside."""
    built = build("KgCoOp", frozen64)
    ctx = torch.randn(4, 64)
    unused = {
        "bias_vectors": torch.zeros(1, 64),
        "meta_net.linear1.weight": torch.zeros(3, 48),
        "meta_net.linear1.bias": torch.zeros(3),
        "token_prefix": torch.zeros(3, 1, 64),
        "token_suffix": torch.zeros(3, 72, 64),
    }

    built.load({"ctx": ctx, **unused})

    assert torch.equal(built.model.learned.ctx, ctx)
