"""CLIPs that are small enough for a test."""

import clip.model
import torch

from backbones.backbone import Backbone
from backbones.formats.openai import parts_of


def make_clip(visual="vit", embed_dim=48, text_width=64, resolution=32, layers=2, seed=0):
    """A random CLIP in fp32; d_txt differs from d, as in RN50."""
    torch.manual_seed(seed)
    model = clip.model.CLIP(
        embed_dim=embed_dim,
        image_resolution=resolution,
        vision_layers=layers if visual == "vit" else (1, 1, 1, 1),
        vision_width=64 if visual == "vit" else 8,
        vision_patch_size=16,
        context_length=77,
        vocab_size=49408,
        transformer_width=text_width,
        transformer_heads=text_width // 64,
        transformer_layers=layers,
    )
    with torch.no_grad():
        model.logit_scale.fill_(4.6052)
    return model.float().eval()


def frozen_clip(model, precision="fp32", device="cpu"):
    """The backbone of a ``clip.model.CLIP``, whose parts become its own."""
    return Backbone(parts_of(model), precision, device)
