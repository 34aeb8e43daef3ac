"""The image encoder alone, trained as a classifier."""

from collections.abc import Sequence

from clip.model import CLIP
from torch import Tensor, nn

from backbones.clip_model import FrozenCLIP, at_least_fp32
from core.errors import InputError
from engine.method import Method, Output, PromptedModel, register
from symptoms import Symptoms

STARTS = ("scratch", "clip")


@register
class Supervised(Method):
    """All of the backbone's image encoder and a linear head on its feature learn.

    ``scratch`` is the paper's row of that name (Fang et al., MICCAI 2024, Table 1); ``clip`` starts
    from CLIP's weights.
    """

    DEFAULTS = {"START": "scratch"}  # scratch: random weights; clip: CLIP's
    place = 80
    learns_image_encoder = True

    def check_options(self) -> None:
        if self.options.START not in STARTS:
            raise InputError(f"START is {self.options.START!r}; choose one of {', '.join(STARTS)}")

    def build(
        self, backbone: FrozenCLIP, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        return FineTunedEncoder(backbone, len(classnames), self.options.START)

    def per_class(self) -> tuple[str, ...]:
        return ("head.weight", "head.bias")


class FineTunedEncoder(PromptedModel):
    """CLIP's image encoder in fp32, no longer frozen, and a linear head.

    Args:
        backbone: its image encoder becomes the one that learns.
        start: one of ``STARTS``.
    """

    def __init__(self, backbone: FrozenCLIP, n_cls: int, start: str = "scratch") -> None:
        if start == "scratch":
            backbone.model.visual = random_encoder(backbone)
        learned = nn.Module()
        # fp32 whatever the precision: steps of 1e-3 vanish in less.
        learned.image_encoder = backbone.model.visual.float().requires_grad_(True)
        learned.head = nn.Linear(backbone.embed_dim, n_cls)
        super().__init__(backbone, learned.to(backbone.device))

    def forward(self, images: Tensor, label: Tensor | None = None) -> Output:
        with self.backbone.autocast():
            features = self.learned.image_encoder(images.to(self.learned.head.weight.device))
        return self.from_features(at_least_fp32(features), label)

    def from_features(self, image_features: Tensor, label: Tensor | None = None) -> Output:
        logits = self.learned.head(image_features)
        return Output.with_cross_entropy(logits, label)


def random_encoder(backbone: FrozenCLIP) -> nn.Module:
    """An image encoder of the same shape, with random weights as CLIP draws them."""
    visual = backbone.model.visual
    if backbone.is_vit:
        shape = {
            "vision_layers": len(visual.transformer.resblocks),
            "vision_width": backbone.vision_width,
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
        embed_dim=backbone.embed_dim,
        image_resolution=backbone.resolution,
        **shape,
        context_length=1,
        vocab_size=1,
        transformer_width=64,
        transformer_heads=1,
        transformer_layers=1,
    ).visual
