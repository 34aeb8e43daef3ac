"""ProGrad: CoOp whose steps do not oppose what CLIP already knows of the classes."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from backbones.backbone import Backbone
from backbones.numerics import cosine_logits
from engine.method import Output, PromptedModel, register
from engine.prompts import START_WORDS, ContextPrompts, encode_texts
from engine.rules import NotNegative, Positive
from symptoms import Symptoms

from .coop import CoOp, PromptedCLIP


@register
class ProGrad(CoOp):
    """Prompt-aligned gradient: the component that opposes zero-shot CLIP is removed from each step.

    Zhu et al., ICCV 2023, https://arxiv.org/abs/2205.14865. The released code starts from words of
    each dataset and learns 16 tokens, those before the words from zero; here the context is the
    protocol's. With two classes the two gradients are almost parallel (on synthderm, tiny, their
    cosine is about -.98), so with LAMBDA 1 the predictions hardly change from the zero-shot ones.
    """

    DEFAULTS = CoOp.DEFAULTS | {
        "CTX_INIT": START_WORDS,
        # The released code's defaults. For some datasets its authors set LAMBDA to 0.8, and
        # BiomedCoOp's comparison sets T to 0.25, 2 or 4.
        "T": 1.0,  # temperature of the zero-shot loss
        "LAMBDA": 1.0,  # share of the opposing component that is removed; 0: CoOp
    }
    RULES = CoOp.RULES | {"T": Positive, "LAMBDA": NotNegative}
    GRID = {"T": (0.25, 1.0, 2.0, 4.0), "LAMBDA": (0.8, 1.0)}
    place = 35
    multi_label = False
    sets = ("strong",)

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        prompts = self.prompts(backbone, classnames)
        return AlignedCLIP(backbone, prompts, classnames, self.options.T, self.options.LAMBDA)


class AlignedCLIP(PromptedCLIP):
    """Prompts with a context, whose gradient is aligned with that of the zero-shot loss.

    The loss ``zero_shot`` is T^2 times the cross-entropy of softmax(z / T) with softmax(z0 / T),
    z0 the zero-shot logits. It is not minimised: its gradient only corrects that of the
    cross-entropy, see ``aligned``.

    Source: Zhu et al., ICCV 2023, equations 4 to 6.
    """

    known: Tensor

    def __init__(
        self,
        backbone: Backbone,
        learned: ContextPrompts,
        classnames: Sequence[str],
        temperature: float = 1.0,
        strength: float = 1.0,
    ) -> None:
        super().__init__(backbone, learned)
        self.temperature, self.strength = temperature, strength
        known = encode_texts(backbone, [f"{START_WORDS} {name}" for name in classnames])
        self.register_buffer("known", known, persistent=False)  # [n_cls, d], t0

    def from_features(self, image_features: Tensor, label: Tensor | None = None) -> Output:
        logits, losses = super().from_features(image_features, label)
        if label is None:
            return Output(logits, losses)
        t = self.temperature
        zero_shot = cosine_logits(image_features, self.known, self.backbone.logit_scale)
        agreement = (zero_shot / t).softmax(dim=1) * (logits / t).log_softmax(dim=1)
        return Output(logits, {**losses, "zero_shot": -(t**2) * agreement.sum(dim=1).mean()})

    def backward(self, losses: Mapping[str, Tensor], scaled: Callable[[Tensor], Tensor]) -> None:
        parameters = [p for p in self.learned.parameters() if p.requires_grad]
        general = torch.autograd.grad(scaled(losses["zero_shot"]), parameters, retain_graph=True)
        specific = torch.autograd.grad(scaled(losses["cross_entropy"]), parameters)
        for parameter, g, h in zip(parameters, specific, general, strict=True):
            parameter.grad = aligned(g, h, self.strength)


def aligned(gradient: Tensor, general: Tensor, strength: float = 1.0) -> Tensor:
    """``gradient`` without its component against ``general``.

    If both are multiplied by a factor, so is the result. If an entry of either is not finite, the
    result is not finite, so that the scaler of half precision skips the step.

    Args:
        gradient, general: of the same shape; ``general`` may be 0.
        strength: share of the component that is removed.

    Source: Zhu et al., ICCV 2023, equation 6.
    """
    norm = general.norm()
    direction = general / torch.where(norm == 0, 1, norm)
    against = (gradient * direction).sum().clamp(max=0)
    return gradient - strength * against * direction
