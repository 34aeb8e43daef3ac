"""CLIP-Adapter: a small network on top of the image features."""

from collections.abc import Sequence

from torch import Tensor, nn

from backbones.backbone import Backbone
from backbones.numerics import at_least_fp32, cosine_logits
from engine.method import Method, Output, PromptedModel, register
from engine.prompts import class_text_features
from engine.rules import Share
from symptoms import Symptoms


@register
class CLIPAdapter(Method):
    """Mix an image's feature with what a bottleneck of two layers makes of it.

    Gao et al., IJCV 2024, https://arxiv.org/abs/2110.04544, with an adapter on the image side
    alone, as in the released code. The versions in BiomedCoOp's code and other medical ones
    normalise the feature before the adapter, some of them not after it; this follows the original.
    """

    DEFAULTS = {"RATIO": 0.2}  # the adapter's part in the mix; the paper's alpha
    RULES = {"RATIO": Share}
    GRID = {"RATIO": (0.2, 0.4, 0.6, 0.8)}
    place = 27
    sets = ("strong",)
    checkpoint_name = "clip_adapter"

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        return AdaptedCLIP(backbone, classnames, self.options.RATIO)


class Adapter(nn.Module):
    """Two linear layers without bias, d -> d / 4 -> d, a ReLU after each."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(d, d // 4, bias=False),
            nn.ReLU(),
            nn.Linear(d // 4, d, bias=False),
            nn.ReLU(),
        )

    def forward(self, image_features: Tensor) -> Tensor:
        return self.fc(image_features)


class AdaptedCLIP(PromptedModel):
    """Cosines of ratio * A(f) + (1 - ratio) * f with CLIP's class features, f not normalised.

    Source: Gao et al., section 3.2.
    """

    known: Tensor

    def __init__(self, backbone: Backbone, classnames: Sequence[str], ratio: float) -> None:
        super().__init__(backbone, Adapter(backbone.embed_dim).to(backbone.device))
        self.ratio = ratio
        known = class_text_features(backbone, classnames)
        self.register_buffer("known", known, persistent=False)

    def from_features(self, image_features: Tensor, label: Tensor | None = None) -> Output:
        features = at_least_fp32(image_features)
        features = self.ratio * self.learned(features) + (1 - self.ratio) * features
        logits = cosine_logits(features, self.known, self.backbone.logit_scale)
        return Output.with_cross_entropy(logits, label, self.class_weights)
