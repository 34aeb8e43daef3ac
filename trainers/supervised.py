"""The image encoder alone, trained as a classifier."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from backbones.backbone import Backbone
from engine.method import Method, Output, PromptedModel, register
from symptoms import Symptoms


@register
class Supervised(Method):
    """All of the backbone's image encoder and a linear head on its feature learn.

    ``scratch`` is the paper's row of that name (Fang et al., MICCAI 2024, Table 1); ``clip`` starts
    from CLIP's weights.
    """

    DEFAULTS = {"START": "scratch"}  # scratch: random weights; clip: CLIP's
    RULES = {"START": Literal["scratch", "clip"]}
    place = 80
    sets = ("paper",)
    rows = ({}, {"START": "clip"})
    learns_image_encoder = True

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        return FineTunedEncoder(backbone, len(classnames), self.options.START)

    def per_class(self) -> tuple[str, ...]:
        return ("head.weight", "head.bias")


class FineTunedEncoder(PromptedModel):
    """CLIP's image encoder in fp32, no longer frozen, and a linear head.

    Args:
        backbone: its image encoder becomes the one that learns.
        start: scratch or clip.
    """

    def __init__(self, backbone: Backbone, n_cls: int, start: str = "scratch") -> None:
        tower = backbone.new_image_tower() if start == "scratch" else backbone.image_tower
        learned = nn.Module()
        # fp32 whatever the precision: steps of 1e-3 vanish in less.
        learned.image_encoder = tower.float().requires_grad_(True)
        learned.head = nn.Linear(backbone.embed_dim, n_cls)
        super().__init__(backbone, learned.to(backbone.device))
        backbone.image.tower = learned.image_encoder  # so ``encode_image`` is of what learns

    def from_features(self, image_features: Tensor, label: Tensor | None = None) -> Output:
        logits = self.learned.head(image_features)
        return Output.with_cross_entropy(logits, label, self.class_weights)
