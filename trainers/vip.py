"""ViP: visual symptom-guided prompt learning."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.backbone import Backbone
from backbones.numerics import at_least_fp32, cosine_logits, take
from backbones.texts import POSITIONS
from core.errors import InputError
from engine.method import Method, Output, PromptedModel, register
from engine.prompts import ContextPrompts, check_phrases, encode_texts
from engine.rules import AtLeastOne, NotNegative
from engine.symptom_model import ClassSums, SymptomModel
from symptoms import Symptoms

MERGES = ("prompt", "mean", "max")
ANCHOR = 16.0  # the weight of the anchored row; docs/knowledge.md says how it was chosen


@register
class ViP(Method):
    """Learn a context for symptoms (CoP) and how to merge a class's symptoms (MeP).

    Fang et al., MICCAI 2024, section 2.3; the two switches are the ablation of Table 2.
    """

    DEFAULTS = {
        "SYMPTOMS": "",  # a symptom file; empty: the dataset's own
        "CONTEXT": True,  # CoP on or off
        "N_CTX": 4,  # learned tokens before every symptom
        "CTX_INIT": "",  # words the context starts from; empty: random
        "CSC": False,  # a context of its own for each class
        "CLASS_TOKEN_POSITION": "end",  # position of the symptom: end, middle or front
        "MERGE": "prompt",  # prompt (MeP), mean or max
        "LEARN_SCALE": False,  # learn the temperature (eq. 3 calls it learned; the paper froze it)
        "ANCHOR": 0.0,  # ours: weight of the loss that keeps the symptoms' meaning; 0: none
    }
    RULES = {
        "ANCHOR": NotNegative,
        "N_CTX": AtLeastOne,
        "CLASS_TOKEN_POSITION": Literal[POSITIONS],
        "MERGE": Literal[MERGES],
    }
    place = 90
    multi_label = True
    sets = ("paper",)
    rows = ({}, {"ANCHOR": ANCHOR})
    checkpoint_name = "vip"
    reads_symptoms = True
    explainable = True

    def per_class(self) -> tuple[str, ...]:
        return ("token.0", "prompt_learner.ctx") if self.options.CSC else ("token.0",)

    def new_class_row(self, key: str, rows: Tensor) -> Tensor | None:
        # With g = 0 the attention is even and nothing is added: the mean of the symptom features.
        return torch.zeros_like(rows[0]) if key == "token.0" else None

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        if symptoms is None:
            raise InputError("ViP needs the symptoms of every class; give them to build()")
        options = self.options
        if options.ANCHOR and not options.CONTEXT:
            raise InputError(
                "TRAINER.VIP.ANCHOR has no effect with CONTEXT False, where symptoms do not "
                "change; remove one of the two"
            )
        n_ctx = options.N_CTX if options.CONTEXT else 0
        check_phrases(symptoms, backbone, n_ctx)
        return SymptomCLIP(
            backbone,
            symptoms.phrases,
            n_ctx=n_ctx,
            merge=options.MERGE,
            position=options.CLASS_TOKEN_POSITION,
            start_words=options.CTX_INIT,
            class_specific=options.CSC,
            learn_scale=options.LEARN_SCALE,
            anchor=options.ANCHOR,
        )


class MergePrompt(nn.Module):
    """MeP's projections: one Wq and one Wk for all classes, without bias.

    Source: Fang et al., MICCAI 2024, equation 2.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        nn.init.xavier_normal_(self.q_proj.weight)
        nn.init.xavier_normal_(self.k_proj.weight)

    def forward(self, token: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """Attention weights of each class over its symptoms.

        Args:
            token: [n_cls, d], g. features: [n_cls, k, d], T, padded to the longest list.
            mask: [n_cls, k], True for a symptom, False for padding.

        Returns:
            [n_cls, k], each row summing to one, zero at the padding.
        """
        # (Wq g) . (Wk T) = (Wk' Wq g) . T, which has one product a class, not one a symptom.
        query = self.q_proj(token) @ self.k_proj.weight / token.shape[-1] ** 0.5
        scores = torch.bmm(features, query.unsqueeze(-1)).squeeze(-1)
        return scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)


def anchor_loss(image_features: Tensor, trained: Tensor, untrained: Tensor) -> Tensor:
    """How much the order of a batch's images by their symptoms' similarity has changed; ours.

    The mean over symptoms of 1 - r_j, where r_j is the correlation over the batch of the cosines
    with the trained symptom and with the untrained one. 0 where nothing changed, 2 where every
    symptom is reversed.

    Args:
        image_features: [batch, d], of any norm. trained, untrained: [n, d] symptoms, of any norm.

    Source: docs/knowledge.md.
    """
    with torch.autocast(image_features.device.type, enabled=False):
        image, trained, untrained = (
            F.normalize(at_least_fp32(x), dim=-1) for x in (image_features, trained, untrained)
        )
        after, before = image @ trained.T, image @ untrained.T  # [batch, n]
        after, before = after - after.mean(dim=0), before - before.mean(dim=0)
        return 1 - F.cosine_similarity(after, before, dim=0).mean()


def places_of(counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Where the symptoms of each class stand among all symptoms, class by class.

    Args:
        counts: symptoms of each class.

    Returns:
        mask: [n_cls, k], True for a symptom, False for padding. places: [n_cls, k], 0 for padding.
    """
    columns, lengths = torch.arange(max(counts)), torch.tensor(counts)
    mask = columns < lengths[:, None]
    places = (lengths.cumsum(0) - lengths)[:, None] + columns
    return mask, places.masked_fill(~mask, 0)


class SymptomCLIP(SymptomModel):
    """Class features merged from symptom features.

    Args:
        backbone: a frozen backbone.
        phrases: class name -> symptoms, in the order of the classes.
        n_ctx: context tokens M; 0 switches the context off.
        merge: ``prompt`` (MeP), ``mean`` or ``max``.
        anchor: weight of ``anchor_loss`` in training; 0 leaves it out.

    Raises:
        InputError: for a symptom that is too long.

    Source: Fang et al., MICCAI 2024, section 2.3 and Table 2.
    """

    places: Tensor
    every: Tensor
    constant: Tensor | None
    untrained: Tensor | None

    def __init__(
        self,
        backbone: Backbone,
        phrases: Mapping[str, Sequence[str]],
        n_ctx: int = 4,
        merge: str = "prompt",
        position: str = "end",
        start_words: str = "",
        class_specific: bool = False,
        learn_scale: bool = False,
        anchor: float = 0.0,
    ) -> None:
        counts = [len(symptoms) for symptoms in phrases.values()]
        texts = [symptom for symptoms in phrases.values() for symptom in symptoms]
        owners = [c for c, count in enumerate(counts) for _ in range(count)]
        learned = nn.Module()
        learned.prompt_learner = ContextPrompts(
            backbone, texts, n_ctx, position, start_words, owners if class_specific else None
        )
        dim = backbone.embed_dim
        if merge == "prompt":
            learned.attn = MergePrompt(dim)
            # A list, because published checkpoints call the grouping tokens `token.0`.
            learned.token = nn.ParameterList([nn.Parameter(0.02 * torch.randn(len(counts), dim))])
        if learn_scale:
            learned.logit_scale = nn.Parameter(backbone.logit_scale.detach().float().clone())
        super().__init__(backbone, learned.to(backbone.device))
        self.merge = merge
        self.takes_nearest = merge == "max"
        self.phrases = {name: list(symptoms) for name, symptoms in phrases.items()}
        self.texts = texts
        mask, places = places_of(counts)
        self.register_buffer("mask", mask.to(backbone.device), persistent=False)
        self.register_buffer("places", places.to(backbone.device), persistent=False)
        every = mask.flatten().nonzero().flatten()  # as numbers: a mask lets a GPU wait
        self.register_buffer("every", every.to(backbone.device), persistent=False)
        self.owners = owners if class_specific else [0] * len(texts)
        self.n_ctx = n_ctx
        self.register_buffer("constant", None, persistent=False)
        self.anchor = anchor
        self.register_buffer("untrained", None, persistent=False)

    @property
    def logit_scale(self) -> Tensor:
        return getattr(self.learned, "logit_scale", self.backbone.logit_scale)

    @property
    def known(self) -> Tensor | None:
        """The features of the symptoms where no context changes them, encoded once; else None."""
        if self.constant is None and not self.n_ctx:
            with torch.no_grad(), torch.autocast(self.mask.device.type, enabled=False):
                self.constant = self._encode_symptoms()
        return self.constant

    @known.setter
    def known(self, features: Tensor) -> None:
        self.constant = features

    def _encode_symptoms(self) -> Tensor:
        prompts = self.learned.prompt_learner
        if (kept := self.kept_features()) is None:
            return take(self.backbone.encode_text(prompts.inputs, prompts()), self.places)
        keys = [("trained", text, c) for text, c in zip(self.texts, self.owners, strict=True)]
        features = kept.of(keys, lambda key: prompts.encode_alone(self.backbone, *key[1:]))
        return take(features, self.places)

    def symptom_features(self) -> Tensor:
        """[n_cls, k, d] features of every class's symptoms, not normalised; any where padded."""
        return self._encode_symptoms() if (known := self.known) is None else known

    def untrained_features(self) -> Tensor:
        """The same of the phrases alone, without a context: what their words mean to CLIP."""
        if (kept := self.kept_features()) is None:
            return take(encode_texts(self.backbone, self.texts), self.places)
        keys = [("untrained", text) for text in self.texts]
        features = kept.of(keys, lambda key: encode_texts(self.backbone, key[1:]))
        return take(features, self.places)

    def attention(self, features: Tensor) -> Tensor:
        """MeP's weights [n_cls, k] over symptom features [n_cls, k, d]."""
        weight = self.learned.attn(self.learned.token[0], features, self.mask)
        return self.reweighed(weight, self.shares)

    def _mean_shares(self) -> Tensor:
        """[n_cls, k] float64 shares in a mean: 1 / k_c of each symptom, unless reweighed."""
        weight = self.mask.double() / self.mask.sum(dim=1, keepdim=True)
        return self.reweighed(weight, self.shares)

    def class_features(self) -> Tensor:
        """[n_cls, d]; for ``max``, which has no such feature, the [n_cls, k, d] of the symptoms."""
        return self._merged(self.symptom_features())

    def _merged(self, features: Tensor) -> Tensor:
        if self.merge == "prompt":
            token, weights = self.learned.token[0], self.attention(features)
            return torch.baddbmm(token.unsqueeze(1), weights.unsqueeze(1), features).squeeze(1)
        if self.merge == "mean":
            units = F.normalize(features, dim=-1) * self.mask.unsqueeze(-1)
            if self.shares is not None:
                return (units * self._mean_shares().to(units.dtype).unsqueeze(-1)).sum(dim=1)
            return units.sum(dim=1) / self.mask.sum(dim=1, keepdim=True)
        return features

    def sums(self, features: Tensor) -> ClassSums:
        """s * a_cj * T_cj / |s_c| and s * g_c / |s_c|; ``mean`` has unit T, a = 1/k_c and no g."""
        if self.merge == "prompt":
            weight = self.attention(features).double()
            terms = weight.unsqueeze(-1) * features.double()  # [n_cls, k, d]
            token = self.learned.token[0].double()
        else:
            weight = self._mean_shares()
            terms = weight.unsqueeze(-1) * F.normalize(features.double(), dim=-1)
            token = torch.zeros_like(terms[:, 0])
        norm = (token + terms.sum(dim=1)).norm(dim=-1, keepdim=True)  # [n_cls, 1]
        factor = self.logit_scale.double().exp() / norm
        return ClassSums(weight, factor.unsqueeze(-1) * terms, factor * token)

    def subset_features(self, label: int, subsets: Tensor) -> Tensor:
        symptoms = self.symptom_features()[label]  # [k, d]
        if self.merge == "prompt":
            token = self.learned.token[0][label]
            repeated = symptoms.expand(len(subsets), -1, -1)
            weight = self.learned.attn(token.expand(len(subsets), -1), repeated, subsets)
            weight = self.reweighed(weight, self.shares_of(label))
            merged = token.double() + weight.double() @ symptoms.double()
        else:
            weight = self.reweighed(subsets.double(), self.shares_of(label))
            merged = weight @ F.normalize(symptoms.double(), dim=-1)
        return self.logit_scale.double().exp() * F.normalize(merged, dim=-1)

    def from_features(self, image_features: Tensor, label: Tensor | None = None) -> Output:
        if not self.anchor or label is None:
            return super().from_features(image_features, label)
        if self.untrained is None:  # first needed here: a model that learns no more needs it not
            with torch.autocast(self.mask.device.type, enabled=False):
                self.untrained = self.untrained_features()
        features = self.symptom_features()  # encoded once for both losses
        class_features = self._merged(features)
        logits = self.score(image_features, class_features)
        now, before = (take(x.flatten(0, 1), self.every) for x in (features, self.untrained))
        drift = anchor_loss(image_features, now, before)
        losses = self.losses(logits, label, class_features)
        return Output(logits, {**losses, "anchor": self.anchor * drift})

    def score(self, image_features: Tensor, class_features: Tensor) -> Tensor:
        if self.merge != "max":
            return cosine_logits(image_features, class_features, self.logit_scale)
        n_cls, k, dim = class_features.shape
        logits = cosine_logits(image_features, class_features.reshape(-1, dim), self.logit_scale)
        logits = logits.reshape(-1, n_cls, k).masked_fill(~self.mask, float("-inf"))
        return logits.amax(dim=-1)
