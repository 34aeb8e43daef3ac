"""SS-Text: class weights in closed form, from text features and training features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.backbone import Backbone
from engine.method import (
    ClassFeatureModel,
    FitData,
    LabelledFeatures,
    Method,
    PromptedModel,
    register,
)
from engine.prompts import class_text_features
from symptoms import Symptoms

LARGEST_INVERSE = 1000.0  # the released code keeps every lambda at 1e-3 or above


@register
class SSText(Method):
    """Add the training images' features to the text features; nothing is trained or validated.

    Silva-Rodriguez et al., MICCAI 2025, https://arxiv.org/abs/2506.17500

    w_c = t_c + s / (N lambda_c) * (the sum of class c's image features), with lambda_c = 1/N. For
    SS-Text+ (``PLUS``) lambda_c is 1/n_c, and the unit vector along 2 w_c - mean(w) is subtracted
    from w_c. The released code calls that to repel, but it turns w_c towards the mean; its length
    of 1 matters for classes with few images. The code's image features may have any norm; here they
    are unit. The code averages over many templates; here the text is ``a photo of a {classname}.``.
    """

    DEFAULTS = {
        "PLUS": False,  # SS-Text+: weigh each class by its number of images, and repel
    }
    place = 22
    sets = ("strong",)
    rows = ({}, {"PLUS": True})
    fitted_at_once = True

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        return PrototypeCLIP(backbone, class_text_features(backbone, classnames))

    def per_class(self) -> tuple[str, ...]:
        return ("prototypes",)

    @torch.no_grad()
    def fit(self, model: PromptedModel, data: FitData) -> None:
        assert isinstance(model, PrototypeCLIP)
        scale = model.backbone.logit_scale.exp()
        prototypes = blended(model.known, data.train, scale, by_class=self.options.PLUS)
        if self.options.PLUS:
            repelled = F.normalize(2 * prototypes - prototypes.mean(dim=0), dim=-1)
            prototypes = prototypes - repelled
        model.learned.prototypes.copy_(prototypes)


def blended(known: Tensor, train: LabelledFeatures, scale: Tensor, by_class: bool) -> Tensor:
    """[n_cls, d] class weights: text features ``known`` plus the weighted sum of image features.

    Args:
        by_class: lambda_c = 1/n_c in place of 1/N. A class without images keeps its text feature.
    """
    features = F.normalize(train.features, dim=-1)
    members = F.one_hot(train.label, len(known)).to(features).t()  # [n_cls, n]
    n = len(features)
    inverse = members.sum(dim=1, keepdim=True) if by_class else torch.full_like(known[:, :1], n)
    return known + inverse.clamp(max=LARGEST_INVERSE) / n * scale * (members @ features)


class PrototypeCLIP(ClassFeatureModel):
    """Logits s cos(f, w_c) of class weights w that are learned directly.

    Args:
        backbone: a frozen backbone.
        known: [n_cls, d], what w starts from: text features.
    """

    known: Tensor

    def __init__(self, backbone: Backbone, known: Tensor) -> None:
        learned = nn.Module()
        learned.prototypes = nn.Parameter(known.clone())
        super().__init__(backbone, learned)
        self.register_buffer("known", known, persistent=False)

    def class_features(self) -> Tensor:
        return self.learned.get_parameter("prototypes")
