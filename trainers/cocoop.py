"""CoCoOp: a context that each image shifts."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from backbones.backbone import Backbone
from backbones.numerics import cosine_logits
from engine.method import Method, Output, PromptedModel, register
from engine.prompts import START_WORDS, ContextPrompts, check_names
from engine.rules import AtLeastOne
from symptoms import Symptoms

TEXT_BATCH = 1024  # prompts whose activations are kept at once: 3 GB for ViT-B/16 in fp32


@register
class CoCoOp(Method):
    """Conditional Context Optimization: a small network adds a bias per image to the context.

    Zhou et al., CVPR 2022, https://arxiv.org/abs/2203.05557
    """

    DEFAULTS = {
        "N_CTX": 4,  # learned tokens, M
        "CTX_INIT": START_WORDS,  # words the context starts from; empty: random
        "TEXT_BATCH": TEXT_BATCH,  # prompts encoded at a time, at least all of one image
    }

    RULES = {"N_CTX": AtLeastOne, "TEXT_BATCH": AtLeastOne}
    place = 40
    texts_per_image = True
    sets = ("paper",)

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        options = self.options
        check_names(classnames, backbone)
        prompts = ConditionalPrompts(backbone, classnames, options.N_CTX, options.CTX_INIT)
        return ConditionalCLIP(backbone, prompts, options.TEXT_BATCH)


class ConditionalPrompts(ContextPrompts):
    """Class names after a context that depends on the image.

    Source: Zhou et al., CVPR 2022, section 3.2.
    """

    def __init__(
        self, backbone: Backbone, classnames: Sequence[str], n_ctx: int, start_words: str
    ) -> None:
        super().__init__(backbone, classnames, n_ctx, start_words=start_words)
        d, d_txt = backbone.embed_dim, backbone.text_width
        hidden = d // 16
        layers = OrderedDict(
            linear1=nn.Linear(d, hidden), relu=nn.ReLU(), linear2=nn.Linear(hidden, d_txt)
        )
        self.meta_net = nn.Sequential(layers).to(backbone.device)

    def contexts(self, image_features: Tensor) -> Tensor:
        """[batch, d] image features of any norm -> [batch, n_ctx, d_txt]."""
        bias = self.meta_net(F.normalize(image_features, dim=-1))  # [batch, d_txt]
        return self.ctx + bias.unsqueeze(1)


class ConditionalCLIP(PromptedModel):
    """Every image is scored against class features of its own."""

    learned: ConditionalPrompts

    def __init__(
        self, backbone: Backbone, learned: ConditionalPrompts, text_batch: int = TEXT_BATCH
    ) -> None:
        super().__init__(backbone, learned)
        self.text_batch = text_batch

    def from_features(self, image_features: Tensor, label: Tensor | None = None) -> Output:
        contexts = self.learned.contexts(image_features)
        features = encode_with_contexts(self.backbone, self.learned, contexts, self.text_batch)
        logits = cosine_logits(image_features, features, self.backbone.logit_scale)
        return Output.with_cross_entropy(logits, label, self.class_weights)


def encode_with_contexts(
    backbone: Backbone, prompts: ContextPrompts, contexts: Tensor, text_batch: int
) -> Tensor:
    """Encode every text with every context.

    Args:
        prompts: ``ContextPrompts`` of n_cls texts. contexts: [n, n_ctx, d_txt].
        text_batch: texts encoded at a time, but at least those of one context. More than that are
            encoded again on the way back, so that activations of no more than these are ever kept.

    Returns:
        [n, n_cls, d], not normalised.
    """

    def encode(contexts: Tensor) -> Tensor:
        return backbone.encode_text(prompts.inputs, prompts.with_contexts(contexts))

    parts = contexts.split(max(1, text_batch // prompts.inputs.n_texts))
    if len(parts) == 1 or not torch.is_grad_enabled():
        features = [encode(part) for part in parts]
    else:
        features = [
            checkpoint(encode, part, use_reentrant=False, preserve_rng_state=False)
            for part in parts
        ]
    return torch.cat(features).reshape(len(contexts), -1, backbone.embed_dim)
