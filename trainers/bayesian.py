"""Bayesian prompt learning: a distribution of contexts for each picture."""

import math

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import nn
from torch.nn import functional as F

from backbones.clip_model import PromptedModel, cosine_logits
from engine.prompts import START_WORDS, ContextPrompts, at_least_one
from engine.trainer import PromptTrainer

from .cocoop import TEXT_BATCH, encode_with_contexts


@TRAINER_REGISTRY.register()
class BayesianPrompt(PromptTrainer):
    """Draw the bias of the context from a normal distribution that follows from the picture.

    Derakhshani et al., ICCV 2023, https://arxiv.org/abs/2210.02390
    """

    DEFAULTS = {
        "N_CTX": 4,  # learned tokens, M
        "CTX_INIT": START_WORDS,  # words the context starts from; empty: random
        "SAMPLES": 10,  # draws for each picture, L
        "KL_WEIGHT": 0.001,
        "TEXT_BATCH": TEXT_BATCH,  # prompts encoded at a time, at least all of one draw
    }

    def build_prompted_clip(self, clip_model, classnames):
        options = self.method_cfg
        prompts = BayesianPrompts(clip_model, classnames, options.N_CTX, options.CTX_INIT)
        return BayesianCLIP(clip_model, prompts, options.SAMPLES, options.TEXT_BATCH)

    def compute_loss(self, logits, label):
        # The model's scores are log-probabilities: cross-entropy is minus that of the label.
        return super().compute_loss(logits, label) + self.method_cfg.KL_WEIGHT * self.model.kl


class Inference(nn.Module):
    """Three layers from an image feature to one parameter of the distribution."""

    def __init__(self, d, d_txt):
        super().__init__()
        self.module = nn.Sequential(
            nn.Linear(d, d // 2),
            nn.ELU(),
            nn.Linear(d // 2, d // 2),
            nn.ELU(),
            nn.Linear(d // 2, d_txt),
        )

    def forward(self, image_features):
        return self.module(image_features)


class BayesianPrompts(ContextPrompts):
    """Class names behind a context whose bias has a mean and a variance for each picture."""

    def __init__(self, clip_model, classnames, n_ctx, start_words):
        at_least_one(N_CTX=n_ctx)
        super().__init__(clip_model, classnames, n_ctx, start_words=start_words)
        self.meta_net = nn.Module()
        for name in ("weight_mean", "weight_log_variance"):
            setattr(self.meta_net, name, Inference(clip_model.embed_dim, clip_model.text_width))
        self.meta_net.to(clip_model.device)

    def distribution(self, image_features):
        """[batch, d] of any norm -> mean and log-variance of the bias, each [batch, d_txt]."""
        x = F.normalize(image_features, dim=-1)
        return self.meta_net.weight_mean(x), self.meta_net.weight_log_variance(x)


class BayesianCLIP(PromptedModel):
    """Scores are log-probabilities, averaged over drawn contexts.

    While training every picture has draws of its own. Evaluation uses the same seeded draws for
    every picture, so that a result depends on the picture alone and can be repeated.

    Attributes:
        kl: KL(q || N(0, 1)) of the last pictures scored, averaged over dimensions and pictures.
    """

    def __init__(self, clip_model, learned, samples=10, text_batch=TEXT_BATCH):
        at_least_one(SAMPLES=samples)
        super().__init__(clip_model, learned)
        self.samples = samples
        self.text_batch = text_batch
        # Drawn on the CPU, so that every device evaluates with the same.
        noise = torch.randn(
            samples, 1, clip_model.text_width, generator=torch.Generator().manual_seed(0)
        )
        self.register_buffer("noise", noise.to(clip_model.device), persistent=False)

    def logits(self, image_features):
        mean, log_variance = self.learned.distribution(image_features)
        self.kl = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).mean()
        shape = (self.samples, *mean.shape)  # [L, batch, d_txt]
        if self.learned.training:
            noise = torch.randn(shape, dtype=mean.dtype, device=mean.device)
        else:
            noise = self.noise
        return self.score(image_features, mean + (0.5 * log_variance).exp() * noise)

    def score(self, image_features, bias):
        """[batch, d] image features and [L, batch, d_txt] biases -> [batch, n_cls]."""
        prompts = self.learned
        contexts = (prompts.ctx + bias.unsqueeze(2)).flatten(0, 1)  # [L * batch, n_ctx, d_txt]
        features = encode_with_contexts(self.clip, prompts, contexts, self.text_batch)
        repeated = image_features.repeat(len(bias), 1)  # [L * batch, d]
        logits = cosine_logits(repeated, features, self.clip.logit_scale)
        log_p = logits.log_softmax(dim=-1).reshape(len(bias), len(image_features), -1)
        return log_p.logsumexp(dim=0) - math.log(len(bias))
