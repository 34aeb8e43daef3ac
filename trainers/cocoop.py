"""CoCoOp: a context that each picture shifts."""

from collections import OrderedDict

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from backbones.clip_model import PromptedModel, cosine_logits
from engine.prompts import START_WORDS, ContextPrompts, at_least_one
from engine.trainer import PromptTrainer

TEXT_BATCH = 1024  # prompts whose activations are kept at once: 3 GB for ViT-B/16 in fp32


@TRAINER_REGISTRY.register()
class CoCoOp(PromptTrainer):
    """Conditional Context Optimization: a small network adds a bias per picture to the context.

    Zhou et al., CVPR 2022, https://arxiv.org/abs/2203.05557
    """

    DEFAULTS = {
        "N_CTX": 4,  # learned tokens, M
        "CTX_INIT": START_WORDS,  # words the context starts from; empty: random
        "TEXT_BATCH": TEXT_BATCH,  # prompts encoded at a time, at least all of one picture
    }

    def build_prompted_clip(self, clip_model, classnames):
        options = self.method_cfg
        prompts = ConditionalPrompts(clip_model, classnames, options.N_CTX, options.CTX_INIT)
        return ConditionalCLIP(clip_model, prompts, options.TEXT_BATCH)


class ConditionalPrompts(ContextPrompts):
    """Class names behind a context that follows from the picture.

    Source: Zhou et al., CVPR 2022, section 3.2.
    """

    def __init__(self, clip_model, classnames, n_ctx, start_words):
        at_least_one(N_CTX=n_ctx)
        super().__init__(clip_model, classnames, n_ctx, start_words=start_words)
        d, d_txt = clip_model.embed_dim, clip_model.text_width
        hidden = d // 16
        layers = OrderedDict(
            linear1=nn.Linear(d, hidden), relu=nn.ReLU(), linear2=nn.Linear(hidden, d_txt)
        )
        self.meta_net = nn.Sequential(layers).to(clip_model.device)

    def contexts(self, image_features):
        """[batch, d] image features of any norm -> [batch, n_ctx, d_txt]."""
        bias = self.meta_net(F.normalize(image_features, dim=-1))  # [batch, d_txt]
        return self.ctx + bias.unsqueeze(1)


class ConditionalCLIP(PromptedModel):
    """Every picture is scored against class features of its own."""

    def __init__(self, clip_model, learned, text_batch=TEXT_BATCH):
        super().__init__(clip_model, learned)
        self.text_batch = text_batch

    def logits(self, image_features):
        contexts = self.learned.contexts(image_features)
        features = encode_with_contexts(self.clip, self.learned, contexts, self.text_batch)
        return cosine_logits(image_features, features, self.clip.logit_scale)


def encode_with_contexts(clip_model, prompts, contexts, text_batch):
    """Encode every text with every context.

    Args:
        prompts: ``ContextPrompts`` of n_cls texts. contexts: [n, n_ctx, d_txt].
        text_batch: texts encoded at a time, but at least those of one context. More than that are
            encoded again on the way back, so that activations of no more than these are ever kept.

    Returns:
        [n, n_cls, d], not normalised.
    """
    at_least_one(TEXT_BATCH=text_batch)

    def encode(contexts):
        return clip_model.encode_prompts(prompts.inputs, prompts.with_contexts(contexts))

    parts = contexts.split(max(1, text_batch // len(prompts.inputs.tree.ends)))
    if len(parts) == 1 or not torch.is_grad_enabled():
        features = [encode(part) for part in parts]
    else:
        again = {"use_reentrant": False, "preserve_rng_state": False}
        features = [checkpoint(encode, part, **again) for part in parts]
    return torch.cat(features).reshape(len(contexts), -1, clip_model.embed_dim)
