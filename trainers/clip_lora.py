"""CLIP-LoRA: low-rank changes of the attention's weights in both encoders."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.adaptation import Adapter, adapt
from backbones.backbone import Backbone
from backbones.numerics import at_least_fp32
from engine.method import ClassFeatureModel, DoesNotApply, Method, PromptedModel, register
from engine.prompts import START_WORDS, check_names
from engine.rules import AtLeastOne, BelowOne, Positive
from symptoms import Symptoms


@register
class CLIPLoRA(Method):
    """Low-rank adaptation of queries, keys and values in every layer of both encoders.

    Zanella and Ben Ayed, CVPR Workshops 2024, https://arxiv.org/abs/2405.18541

    Defined for transformers in both encoders, as paper and released code have it; not for ResNets.
    An encoder's attention pooling stays frozen. The classes are read as ``a photo of a {name}``;
    the released code has another template for some datasets.

    The released code scales by ALPHA / sqrt(RANK), 0.71 at its defaults, where LoRA's paper has
    ALPHA / RANK: the code's is used. Without dropout its gradients skip the change of the weights
    that they pass through; here they do not. Its files are not Dassl's checkpoints and are not
    read.
    """

    DEFAULTS = {
        "RANK": 2,
        "ALPHA": 1.0,  # the change is ALPHA / sqrt(RANK) * B A
        "DROPOUT": 0.25,  # of the entries of a map's input, in training
    }
    RULES = {"RANK": AtLeastOne, "ALPHA": Positive, "DROPOUT": BelowOne}
    place = 74
    sets = ("strong",)
    learns_image_encoder = True
    checkpoint_name = "low_rank"

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        options = self.options
        scale = options.ALPHA / math.sqrt(options.RANK)

        def make(weight: Tensor) -> LowRank:
            return LowRank(weight, options.RANK, scale, options.DROPOUT)

        return AdaptedCLIP(self.name, backbone, classnames, ("q", "k", "v"), make)


class LowRank(Adapter):
    """W x + scale * B A dropout(x), where A and B learn and B starts at zero.

    In training the second term is added to the map's output, because each entry of each input has
    a dropout of its own: a changed weight could only drop a channel of all inputs at once. Texts
    with a common beginning share its draws, as they share its encoding. Otherwise the weight is
    W + scale * B A.

    Source: Hu et al., ICLR 2022, https://arxiv.org/abs/2106.09685, section 4.1.
    """

    def __init__(self, weight: Tensor, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.scale, self.dropout = scale, dropout
        d_out, d_in = weight.shape
        bound = 1 / math.sqrt(d_in)  # as nn.Linear starts; drawn on the CPU
        start = torch.empty(rank, d_in, dtype=weight.dtype).uniform_(-bound, bound)
        self.A = nn.Parameter(start.to(weight.device))
        self.B = nn.Parameter(weight.new_zeros(d_out, rank))

    def change(self) -> Tensor | None:
        return None if self.training else self.scale * (self.B @ self.A)

    def beside(self, x: Tensor) -> Tensor | None:
        if not self.training:
            return None
        dropped = F.dropout(at_least_fp32(x), self.dropout)
        return self.scale * F.linear(F.linear(dropped, self.A), self.B)


class AdaptedCLIP(ClassFeatureModel):
    """CLIP whose linear maps are adapted in both encoders; it reads the class names as they are.

    Args:
        method: its name, for a message.
        names: the maps that are adapted: of q, k, v, out, up, down.
        make: the adapter of a frozen weight.

    Raises:
        DoesNotApply: an encoder has no transformer layers to adapt.
    """

    def __init__(
        self,
        method: str,
        backbone: Backbone,
        classnames: Sequence[str],
        names: Sequence[str],
        make: Callable[[Tensor], Adapter],
    ) -> None:
        if not backbone.image.linear_maps():
            raise DoesNotApply(
                f"{method} changes weights of a vision transformer's layers; the backbone's image "
                "encoder is a ResNet, or does not name its layers' weights: choose a ViT"
            )
        if not backbone.text.linear_maps():
            raise DoesNotApply(
                f"{method} changes weights of a text encoder's transformer layers; the backbone's "
                "does not name them"
            )
        check_names(classnames, backbone)
        learned = nn.Module()
        learned.image = adapt(backbone.image, names, make)
        learned.text = adapt(backbone.text, names, make)
        super().__init__(backbone, learned)
        self.inputs = backbone.prepare([f"{START_WORDS} {name}" for name in classnames])

    def class_features(self) -> Tensor:
        return self.backbone.encode_text(self.inputs)
