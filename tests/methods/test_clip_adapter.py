"""CLIP-Adapter against its equations, in float64."""

import pytest
import torch
from naive import NAMES, cosine, cross_entropy, text_feature

from engine.config import load_cfg


def naive_logits(backbone, features, first, second, ratio):
    """s cos(ratio A(f) + (1 - ratio) f, t_c), A two layers with a ReLU after each."""
    texts = [text_feature(backbone.model, f"a photo of a {name} .") for name in NAMES]
    rows = []
    for f in features:
        hidden = [max((row * f).sum(), torch.zeros((), dtype=f.dtype)) for row in first]
        hidden = torch.stack(hidden)
        adapted = torch.stack([(row * hidden).sum() for row in second])
        adapted = adapted * (adapted > 0)
        mixed = ratio * adapted + (1 - ratio) * f
        rows.append(torch.stack([backbone.logit_scale.exp() * cosine(mixed, t) for t in texts]))
    return torch.stack(rows)


@pytest.mark.parametrize("ratio", [0.2, 0.7])
def test_logits_and_gradients(frozen64, image_features, label, build, close, shapes, ratio):
    """The feature is mixed as it is, not normalised."""
    options = {} if ratio == 0.2 else {"RATIO": ratio}  # 0.2 is the default
    model = build("CLIPAdapter", frozen64, **options).model.double()
    weights = [model.learned.fc[0].weight, model.learned.fc[2].weight]

    naive = naive_logits(frozen64, 5 * image_features, *weights, ratio)
    logits, losses = model.from_features(5 * image_features, label)

    close(logits, naive)
    close(sum(losses.values()), cross_entropy(naive, label), weights)
    assert shapes(model) == {"fc.0.weight": (12, 48), "fc.2.weight": (48, 12)}


def test_published_checkpoint(frozen64, build):
    """The original's names are ours, and so is its folder."""
    built = build("CLIPAdapter", frozen64)
    state = {"fc.0.weight": torch.randn(12, 48), "fc.2.weight": torch.randn(48, 12)}

    built.load(state)

    assert built.method.checkpoint_name == "clip_adapter"
    assert torch.equal(built.model.learned.fc[2].weight, state["fc.2.weight"])


def test_own_protocol():
    """BiomedCoOp's schedule: what the shared protocol does not already say."""
    cfg, options = load_cfg("CLIPAdapter", "derm7pt", "vit_b16", opts=["PROTOCOL", "own"])

    assert (cfg.OPTIM.NAME, cfg.OPTIM.LR, cfg.OPTIM.MAX_EPOCH) == ("sgd", 0.01, 20)
    assert (cfg.OPTIM.MOMENTUM, cfg.OPTIM.WEIGHT_DECAY) == (0, 0)
    assert (cfg.OPTIM.WARMUP_EPOCH, cfg.OPTIM.WARMUP_CONS_LR) == (1, 1e-5)
    assert cfg.DATALOADER.TRAIN_X.BATCH_SIZE == 32
    assert cfg.TRAINER.CLIPADAPTER.RATIO == 0.5
    assert options == {"PROTOCOL": "own"}
