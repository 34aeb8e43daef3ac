"""CLIP-SVD: only the singular values of both encoders' weights learn."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from backbones.adaptation import Adapter
from backbones.backbone import Backbone
from engine.method import Method, PromptedModel, register
from symptoms import Symptoms

from .clip_lora import AdaptedCLIP


@register
class CLIPSVD(Method):
    """Learn the singular values of attention and feed-forward weights, in every layer of both
    encoders.

    Koleilat et al. 2025, https://arxiv.org/abs/2509.03740

    Defined for transformers in both encoders, as in the released code; not for ResNets. An
    encoder's attention pooling stays frozen. The classes are read as ``a photo of a {name}``.

    The released code trains BiomedCLIP with the dropout of BERT's own training, which its
    ``train()`` switches on; here the frozen parts stay in eval mode. Its files hold whole models,
    are not Dassl's checkpoints, and are not read. The paper tunes the learning rate for each
    dataset (5e-4 to 1e-2 by AdamW).
    """

    place = 76
    sets = ("strong",)
    learns_image_encoder = True
    checkpoint_name = "singular_values"

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        maps = ("q", "k", "v", "out", "up", "down")
        return AdaptedCLIP(self.name, backbone, classnames, maps, SingularValues)


class SingularValues(Adapter):
    """U diag(sigma) V' in place of W, where sigma learns.

    The weight is computed as W + U diag(sigma - sigma_0) V', so that it starts as W to the bit.

    Source: Koleilat et al. 2025, section 3.
    """

    left: Tensor
    right: Tensor
    start: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        left, start, right = torch.linalg.svd(weight, full_matrices=False)
        self.sigma = nn.Parameter(start.clone())
        # They follow from the backbone: a checkpoint holds what was learned.
        self.register_buffer("left", left, persistent=False)  # [d_out, r]
        self.register_buffer("right", right, persistent=False)  # [r, d_in]
        self.register_buffer("start", start, persistent=False)

    def change(self) -> Tensor:
        return (self.left * (self.sigma - self.start)) @ self.right
