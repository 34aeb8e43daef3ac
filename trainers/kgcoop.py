"""KgCoOp: CoOp that stays near what CLIP already knows of the classes."""

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn import functional as F

from backbones.backbone import Backbone
from engine.method import PromptedModel, register
from engine.prompts import START_WORDS, ContextPrompts, encode_texts
from engine.rules import NotNegative
from symptoms import Symptoms

from .coop import CoOp, PromptedCLIP


@register
class KgCoOp(CoOp):
    """Knowledge-guided CoOp: a penalty on leaving the zero-shot class features.

    Yao et al., CVPR 2023, https://arxiv.org/abs/2303.13283
    """

    DEFAULTS = CoOp.DEFAULTS | {
        "CTX_INIT": START_WORDS,
        "W": 8.0,  # weight of the penalty
    }
    RULES = CoOp.RULES | {"W": NotNegative}
    GRID = {"W": (1.0, 2.0, 4.0, 8.0)}
    place = 50
    multi_label = False
    sets = ("paper",)

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        return GuidedCLIP(backbone, self.prompts(backbone, classnames), classnames, self.options.W)

    def adapt_state_dict(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # The original's files also hold a network that it never used.
        unused = ("bias_vectors", "meta_net.")
        adapted = super().adapt_state_dict(state_dict)
        return {k: v for k, v in adapted.items() if not k.startswith(unused)}


class GuidedCLIP(PromptedCLIP):
    """Prompts with a context, kept near CLIP's own class features.

    Its loss ``distance`` is weight * (1 - mean over classes of cos(t_c, t0_c)).

    Source: Yao et al., CVPR 2023, equation 4.
    """

    known: Tensor

    def __init__(
        self,
        backbone: Backbone,
        learned: ContextPrompts,
        classnames: Sequence[str],
        weight: float = 8.0,
    ) -> None:
        super().__init__(backbone, learned)
        self.weight = weight
        texts = [f"{START_WORDS} {name}" for name in classnames]
        known = encode_texts(backbone, texts)  # [n_cls, d], t0
        self.register_buffer("known", known, persistent=False)

    def losses(self, logits: Tensor, label: Tensor, class_features: Tensor) -> dict[str, Tensor]:
        distance = 1 - F.cosine_similarity(class_features, self.known, dim=-1).mean()
        return {
            **super().losses(logits, label, class_features),
            "distance": self.weight * distance,
        }
