"""The task residual against its equation, in float64."""

import pytest
import torch
from naive import NAMES, cosine, cross_entropy, text_feature

from engine.config import load_cfg


@pytest.mark.parametrize("alpha", [0.5, 1.3])
def test_logits_and_gradients(frozen64, image_features, label, build, close, shapes, alpha):
    """The cosine with t_c + alpha x_c, of t_c as the text encoder gives it."""
    options = {} if alpha == 0.5 else {"ALPHA": alpha}  # 0.5 is the default
    model = build("TaskResidual", frozen64, **options).model.double()
    assert not model.learned.residual.any()
    with torch.no_grad():
        model.learned.residual.normal_()

    texts = [text_feature(frozen64.model, f"a photo of a {name} .") for name in NAMES]
    features = [t + alpha * x for t, x in zip(texts, model.learned.residual, strict=True)]
    scale = frozen64.logit_scale.exp()
    naive = torch.stack(
        [torch.stack([scale * cosine(f, t) for t in features]) for f in image_features]
    )
    logits, losses = model.from_features(image_features, label)

    close(logits, naive)
    loss = sum(losses.values())
    close(loss, cross_entropy(naive, label), [model.learned.residual])
    assert shapes(model) == {"residual": (3, 48)}


def test_published_checkpoint(frozen64, build):
    """The original's file: its name of the residual, and the base that we make ourselves."""
    built = build("TaskResidual", frozen64)
    residual = torch.randn(3, 48)

    built.load({"base_text_features": torch.zeros(3, 48), "text_feature_residuals": residual})

    assert torch.equal(built.model.learned.residual, residual)
    assert built.model.known.any()


def test_own_protocol():
    """The released code's schedule: what the shared protocol does not already say."""
    cfg, _ = load_cfg("TaskResidual", "derm7pt", "vit_b16", opts=["PROTOCOL", "own"])

    assert (cfg.OPTIM.NAME, cfg.OPTIM.LR, cfg.OPTIM.MAX_EPOCH) == ("adam", 0.002, 200)
    assert (cfg.OPTIM.WEIGHT_DECAY, cfg.DATALOADER.TRAIN_X.BATCH_SIZE) == (0.0005, 256)
    assert cfg.TEST.FINAL_MODEL == "last_step"
