"""Task residual: class features that learn directly, beside CLIP's own."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from backbones.backbone import Backbone
from engine.method import ClassFeatureModel, Method, PromptedModel, register
from engine.prompts import class_text_features
from engine.rules import NotNegative
from symptoms import Symptoms


@register
class TaskResidual(Method):
    """Learn what to add to each class's text feature.

    Yu et al., CVPR 2023, https://arxiv.org/abs/2211.10277, with CLIP's own text features as the
    base (the paper's TaskRes; TaskRes* first tunes the text encoder's projection).
    """

    DEFAULTS = {"ALPHA": 0.5}  # how much of what is learned is added
    RULES = {"ALPHA": NotNegative}
    GRID = {"ALPHA": (0.5, 1.0)}  # the paper's values; 1 on Flowers102
    place = 28
    sets = ("strong",)

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        return ResidualCLIP(backbone, classnames, self.options.ALPHA)

    def per_class(self) -> tuple[str, ...]:
        return ("residual",)

    def adapt_state_dict(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # The original's files also hold the base, which follows from the class names.
        names = {"text_feature_residuals": "residual"}
        return {names.get(k, k): v for k, v in state_dict.items() if k != "base_text_features"}


class ResidualCLIP(ClassFeatureModel):
    """Class features t_c + alpha * x_c, where t_c is CLIP's and x_c is learned from zero.

    t_c is not normalised, as in the released code: only their sum is, by the cosine. So the same
    rate moves a class feature less on a backbone whose text features are longer.
    """

    known: Tensor

    def __init__(self, backbone: Backbone, classnames: Sequence[str], alpha: float) -> None:
        known = class_text_features(backbone, classnames, normalise=False)
        learned = nn.Module()
        learned.residual = nn.Parameter(torch.zeros_like(known))
        super().__init__(backbone, learned)
        self.alpha = alpha
        self.register_buffer("known", known, persistent=False)

    def class_features(self) -> Tensor:
        return self.known + self.alpha * self.learned.residual
