"""The paper's three backbones at their true size, with random weights."""

import clip.model
import pytest
import torch

import train
from results.record import read_record

SIZES = {
    "vit_b16": {"embed_dim": 512, "vision_layers": 12, "vision_width": 768, "text_width": 512},
    "vit_l14": {"embed_dim": 768, "vision_layers": 24, "vision_width": 1024, "text_width": 768},
    "rn50": {
        "embed_dim": 1024,
        "vision_layers": (3, 4, 6, 3),
        "vision_width": 64,
        "text_width": 512,
    },
}


def true_size_clip(name):
    """CLIP with the sizes of the backbone ``name``, random, as its checkpoint stores it."""
    size = SIZES[name]
    return clip.model.CLIP(
        embed_dim=size["embed_dim"],
        image_resolution=224,
        vision_layers=size["vision_layers"],
        vision_width=size["vision_width"],
        vision_patch_size=14 if name == "vit_l14" else 16,
        context_length=77,
        vocab_size=49408,
        transformer_width=size["text_width"],
        transformer_heads=size["text_width"] // 64,
        transformer_layers=12,
    ).half()


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_builds_steps_and_reloads(toy, short, capsys, name):
    """The main job on each, and the saved model's figures again."""
    torch.manual_seed(0)
    path = toy / f"{name}.pt"
    torch.save(true_size_clip(name).state_dict(), path)
    args = ["--root", str(toy / "data"), "--dataset", str(toy / "toy.yaml"), "--backbone", name]
    args += ["--output-dir", str(toy / "run")]
    short = [*short, "MODEL.BACKBONE.PATH", str(path), "OPTIM.MAX_EPOCH", "1"]
    d, d_txt = SIZES[name]["embed_dim"], SIZES[name]["text_width"]

    train.main([*args, *short])
    ended = [line for line in capsys.readouterr().out.splitlines() if line.startswith("* ")]
    train.main([*args, "--eval-only", *short])
    again = [line for line in capsys.readouterr().out.splitlines() if line.startswith("* ")]

    assert read_record(toy / "run").trainable_parameters == 4 * d_txt + 2 * d * d + 2 * d
    assert ended and ended == again
