"""CLAP: a linear probe that starts from the text features and is held near them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from backbones.backbone import Backbone
from engine.method import FitData, Method, PromptedModel, register
from engine.prompts import class_text_features
from engine.rules import AtLeastOne, Positive
from symptoms import Symptoms

from .ss_text import PrototypeCLIP

MOMENTUM = 0.9
WARMUP = 1e-4  # share of the rate in the first epoch


@register
class CLAP(Method):
    """Class-adaptive linear probe: a penalty on leaving the zero-shot class weights.

    Silva-Rodriguez et al., CVPR 2024, https://arxiv.org/abs/2312.12730

    As in the released code, the class weights start from text features of the norm that the encoder
    gives them, not from unit ones: the rate and the penalty belong to that norm, and the longer the
    text features are, the less the weights turn. An epoch draws as many batches as the images fill
    once, from the features of all passes, and the first epoch has the rate 1e-5. The last epoch is
    used; validation images are not read. For ImageNet the code averages over several templates;
    here the text is ``a photo of a {classname}.``.
    """

    DEFAULTS = {
        "PASSES": 20,  # random views of each training image
        "EPOCHS": 300,
        "BATCH_SIZE": 256,
        "LR": 0.1,
    }
    RULES = {"PASSES": AtLeastOne, "EPOCHS": AtLeastOne, "BATCH_SIZE": AtLeastOne, "LR": Positive}
    place = 23
    sets = ("strong",)
    fitted_at_once = True
    checkpoint_name = "adapter"

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        known = class_text_features(backbone, classnames, normalise=False)
        return ConstrainedCLIP(backbone, known)

    def per_class(self) -> tuple[str, ...]:
        return ("prototypes",)

    def adapt_state_dict(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # The original's files also hold the text features and CLIP's temperature.
        adapted = super().adapt_state_dict(state_dict)
        known = ("base_text_features", "logit_scale")
        return {k: v for k, v in adapted.items() if k not in known}

    def fit(self, model: PromptedModel, data: FitData) -> None:
        """Train on the features of ``PASSES`` random views of each image."""
        assert isinstance(model, ConstrainedCLIP)
        options = self.options
        features = data.augmented(options.PASSES).flatten(0, 1)
        label = data.train.label.repeat(options.PASSES)
        model.weigh(features, label)
        optimizer = torch.optim.SGD(model.learned.parameters(), options.LR, momentum=MOMENTUM)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.share_of_rate)
        drawn = options.BATCH_SIZE * max(1, len(data.train.label) // options.BATCH_SIZE)
        for _ in range(options.EPOCHS):
            order = torch.randperm(len(label))[:drawn].to(label.device)
            for batch in order.split(options.BATCH_SIZE):
                loss: Any = sum(model.from_features(features[batch], label[batch]).losses.values())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            schedule.step()

    def share_of_rate(self, epoch: int) -> float:
        """Cosine from the second epoch on; ``epoch`` counts from 0."""
        if epoch == 0:
            return WARMUP
        return (1 + math.cos(math.pi * (epoch - 1) / self.options.EPOCHS)) / 2


class ConstrainedCLIP(PrototypeCLIP):
    """Learned class weights w, held near the text features t.

    Its loss ``penalty`` is the mean over classes of lambda_c ||w_c - t_c||^2, where lambda_c is the
    mean zero-shot probability of class c over its own training images.

    Source: Silva-Rodriguez et al., CVPR 2024, section 4.
    """

    multipliers: Tensor

    def __init__(self, backbone: Backbone, known: Tensor) -> None:
        super().__init__(backbone, known)
        # Training needs them and computes them first: a checkpoint does not hold them.
        self.register_buffer("multipliers", torch.zeros_like(known[:, 0]), persistent=False)

    @torch.no_grad()
    def weigh(self, image_features: Tensor, label: Tensor) -> None:
        """Compute each class's lambda once, from CLIP's own class features."""
        probabilities = self.score(image_features, self.known).softmax(dim=1)
        members = F.one_hot(label, len(self.known)).to(probabilities)
        self.multipliers.copy_((members * probabilities).sum(dim=0) / members.sum(dim=0))

    def losses(self, logits: Tensor, label: Tensor, class_features: Tensor) -> dict[str, Tensor]:
        distance = (class_features - self.known).square().sum(dim=-1)  # [n_cls]
        return {
            **super().losses(logits, label, class_features),
            "penalty": (self.multipliers * distance).mean(),
        }
