"""Every method takes a step at its true size: ViT-B/16 with random weights."""

import pytest
import torch
from dassl.engine import build_trainer
from test_runs import OPTIONS
from test_true_sizes import true_size_clip

from engine.config import load_cfg

# Learned numbers with two classes, d = d_txt = 512, d_vis = 768.
ENCODER = 86_192_640
COUNTS = {
    "CoOp": 4 * 512,
    "CoOp-csc": 2 * 4 * 512,
    "CoCoOp": 4 * 512 + (512 + 1) * 32 + (32 + 1) * 512,
    "KgCoOp": 4 * 512,
    "MaPLe": 9 * (2 * 512 + (512 + 1) * 768),
    "PromptSRC": 9 * 4 * (512 + 768),
    "CLIPLoRA": 12 * 3 * 2 * (2 * 512 + 2 * 768),
    "CLIPSVD": 12 * 6 * (512 + 768),
    "BayesianPrompt": 4 * 512 + 2 * ((512 + 1) * 256 + (256 + 1) * 256 + (256 + 1) * 512),
    "Supervised": ENCODER + 2 * 513,
    "Supervised-clip": ENCODER + 2 * 513,
    "LinearProbe": 2 * 513,
    "ZeroshotCLIP": 0,
    "ZeroshotCLIP-symptoms": 0,
}


@pytest.fixture(scope="module")
def vit_b16(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vit_b16") / "clip.pt"
    torch.save(true_size_clip("vit_b16").state_dict(), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_one_step(toy, vit_b16, name):
    """It learns exactly what it should, and its loss is finite."""
    method = name.split("-")[0]
    opts = ["MODEL.BACKBONE.PATH", str(vit_b16), "DATALOADER.NUM_WORKERS", 0]
    opts += ["DATALOADER.TRAIN_X.BATCH_SIZE", 4, *OPTIONS[name]]
    cfg, _ = load_cfg(
        method,
        str(toy / "toy.yaml"),
        "vit_b16",
        opts=opts,
        root=str(toy / "data"),
        output_dir=str(toy / "run"),
    )
    trainer = build_trainer(cfg)

    assert trainer.trainable_parameters == COUNTS[name]
    if method in ("ZeroshotCLIP", "LinearProbe"):
        trainer.train()
        assert trainer.predict("test").probabilities.shape == (12, 2)
        return
    learned = dict(trainer.model.learned.named_parameters())
    before = {key: p.detach().clone() for key, p in learned.items()}
    trainer.set_model_mode("train")
    summary = trainer.forward_backward(next(iter(trainer.train_loader_x)))

    assert summary["loss"] == pytest.approx(summary["loss"]) and summary["loss"] < 100
    # A's gradient is zero in the first step, as B starts at zero.
    still = [key for key, p in learned.items() if torch.equal(before[key], p)]
    assert all(key.endswith(".A") and learned[key].grad is not None for key in still)
