"""TCP: class-aware tokens, made of what CLIP knows of each class, inside the text encoder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.backbone import Backbone
from backbones.numerics import take
from engine.method import DoesNotApply, Method, PromptedModel, register
from engine.prompts import ContextPrompts, check_names
from engine.rules import AtLeastOne, NotNegative
from symptoms import Symptoms

from .kgcoop import GuidedCLIP


@register
class TCP(Method):
    """Textual-based Class-aware Prompt tuning: tokens of each class replace CoOp's context.

    Yao et al., CVPR 2024, https://arxiv.org/abs/2311.18231. The released code reads each dataset's
    own words around the class names; here all methods read the same.
    """

    DEFAULTS = {
        "N_CTX": 4,  # learned tokens before the class name, and class-aware tokens
        "CTX_INIT": "",  # words the context starts from; empty: random, as released
        "LAYER": 8,  # layers that read the context before the class-aware tokens replace it
        "W": 8.0,  # weight of KgCoOp's penalty
    }
    RULES = {"N_CTX": AtLeastOne, "LAYER": AtLeastOne, "W": NotNegative}
    place = 55
    sets = ("strong",)

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        options, most = self.options, backbone.text_depth - 1
        if not most:
            raise DoesNotApply(
                "TCP puts tokens between the layers of the text encoder; the backbone's has one"
            )
        if options.LAYER > most:
            print(
                f"LAYER is {options.LAYER}: the class-aware tokens stand behind {most} of the text "
                f"encoder's {most + 1} layers"
            )
        check_names(classnames, backbone)
        learned = ClassAwarePrompts(
            backbone, classnames, options.N_CTX, options.CTX_INIT, min(options.LAYER, most)
        )
        return ClassAwareCLIP(backbone, learned, classnames, options.W)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), as in CLIP's own layers."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class ClassAwarePrompts(ContextPrompts):
    """The learned context, and the network that computes class tokens from zero-shot features.

    All classes share the context. Each class has its own slots for it, because after ``layer``
    layers they hold that class's tokens. The state's names are those of published checkpoints:
    ``ctx``, ``meta_net.linear1`` and ``meta_net.linear2``.

    Source: Yao et al., CVPR 2024, section 3.2 (textual knowledge embedding).
    """

    def __init__(
        self,
        backbone: Backbone,
        classnames: Sequence[str],
        n_ctx: int,
        start_words: str,
        layer: int,
    ) -> None:
        n_cls, d, d_txt = len(classnames), backbone.embed_dim, backbone.text_width
        super().__init__(backbone, classnames, n_ctx, start_words=start_words, groups=range(n_cls))
        self.ctx = nn.Parameter(self.ctx[0].detach().clone())
        self.layer = layer
        self.meta_net = nn.Sequential()
        self.meta_net.add_module("linear1", nn.Linear(d, d // 4))
        self.meta_net.add_module("gelu", QuickGELU())
        self.meta_net.add_module("linear2", nn.Linear(d // 4, n_ctx * d_txt))
        self.meta_net.to(backbone.device)

    def forward(self) -> Tensor:
        """The learned context's embeddings for the slots of every class, [1, s, d_txt]."""
        return take(self.ctx, self.sources % len(self.ctx)).unsqueeze(0)

    def deep(self, known: Tensor) -> list[Tensor | None]:
        """What takes the slots' place between the layers.

        Args:
            known: [n_cls, d] zero-shot class features, of any norm.
        """
        tokens = self.meta_net(F.normalize(known, dim=-1))  # [n_cls, n_ctx * d_txt]
        tokens = tokens.reshape(1, -1, self.ctx.shape[-1])  # [1, n_cls * n_ctx, d_txt]
        return [None] * (self.layer - 1) + [self.with_contexts(tokens)]


class ClassAwareCLIP(GuidedCLIP):
    """Prompts with class-aware tokens, kept near CLIP's own class features by KgCoOp's penalty.

    Source: Yao et al., CVPR 2024, section 3.2.
    """

    learned: ClassAwarePrompts

    def class_features(self) -> Tensor:
        prompts = self.learned
        return self.backbone.encode_text(prompts.inputs, prompts(), prompts.deep(self.known))
