"""Bayesian prompt learning: a distribution of contexts for each image."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.backbone import Backbone
from backbones.numerics import cosine_logits
from engine.labels import label_loss
from engine.method import Method, Output, PromptedModel, register
from engine.prompts import START_WORDS, ContextPrompts, check_names
from engine.rules import AtLeastOne, NotNegative
from symptoms import Symptoms

from .cocoop import TEXT_BATCH, encode_with_contexts


@register
class BayesianPrompt(Method):
    """Draw the bias of the context from a normal distribution that follows from the image.

    Derakhshani et al., ICCV 2023, https://arxiv.org/abs/2210.02390
    """

    DEFAULTS = {
        "N_CTX": 4,  # learned tokens, M
        "CTX_INIT": START_WORDS,  # words the context starts from; empty: random
        "SAMPLES": 10,  # draws for each image, L
        "KL_WEIGHT": 0.001,
        "TEXT_BATCH": TEXT_BATCH,  # prompts encoded at a time, at least all of one draw
    }

    RULES = {
        "N_CTX": AtLeastOne,
        "SAMPLES": AtLeastOne,
        "KL_WEIGHT": NotNegative,
        "TEXT_BATCH": AtLeastOne,
    }
    place = 60
    texts_per_image = True
    sets = ("paper",)

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        options = self.options
        check_names(classnames, backbone)
        prompts = BayesianPrompts(backbone, classnames, options.N_CTX, options.CTX_INIT)
        return BayesianCLIP(
            backbone, prompts, options.SAMPLES, options.TEXT_BATCH, options.KL_WEIGHT
        )


class Inference(nn.Module):
    """Three layers from an image feature to one parameter of the distribution."""

    def __init__(self, d: int, d_txt: int) -> None:
        super().__init__()
        self.module = nn.Sequential(
            nn.Linear(d, d // 2),
            nn.ELU(),
            nn.Linear(d // 2, d // 2),
            nn.ELU(),
            nn.Linear(d // 2, d_txt),
        )

    def forward(self, image_features: Tensor) -> Tensor:
        return self.module(image_features)


class BayesianPrompts(ContextPrompts):
    """Class names after a context whose bias has a mean and a variance for each image."""

    def __init__(
        self, backbone: Backbone, classnames: Sequence[str], n_ctx: int, start_words: str
    ) -> None:
        super().__init__(backbone, classnames, n_ctx, start_words=start_words)
        self.meta_net = nn.Module()
        for name in ("weight_mean", "weight_log_variance"):
            setattr(self.meta_net, name, Inference(backbone.embed_dim, backbone.text_width))
        self.meta_net.to(backbone.device)

    def distribution(self, image_features: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, d] of any norm -> mean and log-variance of the bias, each [batch, d_txt]."""
        x = F.normalize(image_features, dim=-1)
        return self.meta_net.weight_mean(x), self.meta_net.weight_log_variance(x)


class BayesianCLIP(PromptedModel):
    """Scores are log-probabilities, averaged over drawn contexts.

    While training every image has draws of its own. Evaluation uses the same seeded draws for
    every image, so that a result depends on the image alone and can be repeated.

    Its loss ``kl`` is weight * KL(q || N(0, 1)), averaged over dimensions and images.
    """

    learned: BayesianPrompts
    noise: Tensor

    def __init__(
        self,
        backbone: Backbone,
        learned: BayesianPrompts,
        samples: int = 10,
        text_batch: int = TEXT_BATCH,
        kl_weight: float = 0.001,
    ) -> None:
        super().__init__(backbone, learned)
        self.samples = samples
        self.text_batch = text_batch
        self.kl_weight = kl_weight
        # Drawn on the CPU, so that every device evaluates with the same.
        noise = torch.randn(
            samples, 1, backbone.text_width, generator=torch.Generator().manual_seed(0)
        )
        self.register_buffer("noise", noise.to(backbone.device), persistent=False)

    def from_features(self, image_features: Tensor, label: Tensor | None = None) -> Output:
        mean, log_variance = self.learned.distribution(image_features)
        shape = (self.samples, *mean.shape)  # [L, batch, d_txt]
        if self.learned.training:
            noise = torch.randn(shape, dtype=mean.dtype, device=mean.device)
        else:
            noise = self.noise
        logits = self.score(image_features, mean + (0.5 * log_variance).exp() * noise)
        if label is None:
            return Output(logits, {})
        kl = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).mean()
        # The scores are log-probabilities: cross-entropy is minus that of the label.
        loss = label_loss(logits, label, self.class_weights)
        return Output(logits, {"cross_entropy": loss, "kl": self.kl_weight * kl})

    def score(self, image_features: Tensor, bias: Tensor) -> Tensor:
        """[batch, d] image features and [L, batch, d_txt] biases -> [batch, n_cls]."""
        prompts = self.learned
        contexts = (prompts.ctx + bias.unsqueeze(2)).flatten(0, 1)  # [L * batch, n_ctx, d_txt]
        features = encode_with_contexts(self.backbone, prompts, contexts, self.text_batch)
        repeated = image_features.repeat(len(bias), 1)  # [L * batch, d]
        logits = cosine_logits(repeated, features, self.backbone.logit_scale)
        log_p = logits.log_softmax(dim=-1).reshape(len(bias), len(image_features), -1)
        return log_p.logsumexp(dim=0) - math.log(len(bias))
