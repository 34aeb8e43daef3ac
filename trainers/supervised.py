"""The image encoder alone, trained as a classifier."""

from clip.model import CLIP
from dassl.engine import TRAINER_REGISTRY
from torch import nn

from backbones.clip_model import PromptedModel, at_least_fp32
from core.errors import InputError
from engine.trainer import PromptTrainer

STARTS = ("scratch", "clip")


@TRAINER_REGISTRY.register()
class Supervised(PromptTrainer):
    """All of the backbone's image encoder and a linear head on its feature learn.

    ``scratch`` is the paper's row of that name (Fang et al., MICCAI 2024, Table 1); ``clip`` starts
    from CLIP's weights.
    """

    DEFAULTS = {"START": "scratch"}  # scratch: random weights; clip: CLIP's
    image_encoder_frozen = False

    def build_prompted_clip(self, clip_model, classnames):
        return FineTunedEncoder(clip_model, len(classnames), self.method_cfg.START)

    def per_class(self):
        return ("head.weight", "head.bias")


class FineTunedEncoder(PromptedModel):
    """CLIP's image encoder in fp32, no longer frozen, and a linear head.

    Args:
        clip_model: ``FrozenCLIP``; its image encoder becomes the one that learns.
        start: one of ``STARTS``.
    """

    def __init__(self, clip_model, n_cls, start="scratch"):
        if start not in STARTS:
            raise InputError(f"START is {start!r}; choose one of {', '.join(STARTS)}")
        if start == "scratch":
            clip_model.model.visual = random_encoder(clip_model)
        learned = nn.Module()
        # fp32 whatever the precision: steps of 1e-3 vanish in less.
        learned.image_encoder = clip_model.model.visual.float().requires_grad_(True)
        learned.head = nn.Linear(clip_model.embed_dim, n_cls)
        super().__init__(clip_model, learned.to(clip_model.device))

    def forward(self, x):
        with self.clip.autocast():
            features = self.learned.image_encoder(x.to(self.learned.head.weight.device))
        return self.learned.head(at_least_fp32(features))


def random_encoder(clip_model):
    """An image encoder of the same shape, with random weights as CLIP draws them."""
    visual = clip_model.model.visual
    if clip_model.is_vit:
        shape = {
            "vision_layers": len(visual.transformer.resblocks),
            "vision_width": clip_model.vision_width,
            "vision_patch_size": visual.conv1.kernel_size[0],
        }
    else:
        stages = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
        shape = {
            "vision_layers": tuple(map(len, stages)),
            "vision_width": visual.conv3.out_channels,
            "vision_patch_size": None,
        }
    # A whole CLIP, because its constructor draws the encoder's weights; the text side is a stub.
    return CLIP(
        embed_dim=clip_model.embed_dim,
        image_resolution=clip_model.resolution,
        **shape,
        context_length=1,
        vocab_size=1,
        transformer_width=64,
        transformer_heads=1,
        transformer_layers=1,
    ).visual
