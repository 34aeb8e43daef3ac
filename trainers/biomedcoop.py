"""BiomedCoOp: CoOp distilled from sentences about the classes, of which outliers are pruned."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from backbones.backbone import Backbone
from backbones.numerics import at_least_fp32, cosine_logits, mean_divergence, take
from core.errors import InputError
from engine.method import Method, Output, PromptedModel, register
from engine.prompts import START_WORDS, ContextPrompts, check_names, check_phrases, encode_texts
from engine.rules import AtLeastOne, NotNegative, Positive
from symptoms import Symptoms

from .coop import PromptedCLIP
from .vip import places_of


@register
class BiomedCoOp(Method):
    """CoOp with two losses that keep it near frozen CLIP's reading of sentences on each class.

    Koleilat et al., CVPR 2025, https://arxiv.org/abs/2411.15232. The sentences are those of a
    symptom file, whose classes may have different numbers of them; the paper's have 50 each.
    """

    DEFAULTS = {
        "SYMPTOMS": "",  # the file of the sentences; empty: the dataset's own symptoms
        "N_CTX": 4,  # learned tokens before the class name
        "CTX_INIT": START_WORDS,  # words the context starts from; empty: random
        # The released code's defaults; its two weights differ for each of the paper's datasets.
        "SCCM_LAMBDA": 1.0,  # weight of the distance to the mean of a class's sentences
        "KDSP_LAMBDA": 1.0,  # weight of the distillation from the sentences that are kept
        "TAU": 1.5,  # sentences further than this many deviations from the mean are left out
    }
    RULES = {
        "N_CTX": AtLeastOne,
        "SCCM_LAMBDA": NotNegative,
        "KDSP_LAMBDA": NotNegative,
        "TAU": Positive,
    }
    # From the values of the paper's datasets: weights of .25 to 20, mostly below 1; tau 1.25 to 2.
    GRID = {
        "SCCM_LAMBDA": (0.25, 1.0, 5.0),
        "KDSP_LAMBDA": (0.25, 1.0, 20.0),
        "TAU": (1.25, 1.5, 2.0),
    }
    place = 85
    sets = ("strong",)
    reads_symptoms = True

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        if symptoms is None:
            raise InputError("BiomedCoOp needs the symptoms of every class; give them to build()")
        options = self.options
        check_names(classnames, backbone)
        check_phrases(symptoms, backbone, n_ctx=0)
        return TaughtCLIP(
            backbone,
            ContextPrompts(backbone, classnames, options.N_CTX, start_words=options.CTX_INIT),
            [symptoms.phrases[name] for name in classnames],
            options.SCCM_LAMBDA,
            options.KDSP_LAMBDA,
            options.TAU,
        )

    def adapt_state_dict(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # The original's files hold the whole model, with two frozen copies of the image encoder.
        adapted = super().adapt_state_dict(state_dict)
        published = {k: v for k, v in adapted.items() if k == "prompt_learner.ctx"}
        return {"ctx": published["prompt_learner.ctx"]} if published else adapted


def kept_sentences(scores: Tensor, mask: Tensor, tau: float) -> Tensor:
    """Which sentences of each class are not outliers.

    The paper takes (a - median) / MAD of the scores a, standardises that and keeps what is within
    tau. Standardising undoes any shift and scale: the median and the MAD, which may be 0, cancel.
    Of k scores none is further than (k - 1) / sqrt(k) deviations from the mean: with tau 1.5, a
    class needs five sentences to lose one.

    Args:
        scores: [n_cls, k]. mask: [n_cls, k], True for a sentence, False for padding.
        tau: standard deviations (n - 1) from the mean that a score may be away.

    Returns:
        [n_cls, k], True for what is kept: all where there is one sentence or tau keeps none.
    """
    count = mask.sum(dim=1, keepdim=True)
    mean = scores.masked_fill(~mask, 0).sum(dim=1, keepdim=True) / count
    away = (scores - mean).masked_fill(~mask, 0)
    deviation = (away.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    kept = mask & (away.abs() <= tau * deviation)
    return torch.where(kept.any(dim=1, keepdim=True), kept, mask)


class TaughtCLIP(PromptedCLIP):
    """Prompts with a context, taught by sentences about the classes.

    Its losses beside the cross-entropy are ``consistency`` (SCCM), sccm times the mean over all
    entries of (t_c - m_c)^2, m_c the unit mean of a class's sentences; and ``distillation`` (KDSP),
    kdsp * KL(teacher || student) / (batch * n_cls), the teacher's class features being the unit
    means of the sentences that are kept. A sentence is judged by its mean logit over the batch.

    The released code judges sentence i of all classes at once, by the batch's mean of the largest
    logit over the classes, which needs equal numbers of sentences; here each class judges its own.
    It also leaves dropout on in a frozen BERT; here frozen encoders have none.

    Args:
        backbone: a frozen backbone.
        learned: ``ContextPrompts``, one text a class.
        sentences: those of each class.
        sccm, kdsp: weights of the two losses. tau: as for ``kept_sentences``.

    Source: Koleilat et al., CVPR 2025, sections on SCCM and KDSP, and the released code.
    """

    sentences: Tensor
    mask: Tensor
    mean: Tensor

    def __init__(
        self,
        backbone: Backbone,
        learned: ContextPrompts,
        sentences: Sequence[Sequence[str]],
        sccm: float = 1.0,
        kdsp: float = 1.0,
        tau: float = 1.5,
    ) -> None:
        super().__init__(backbone, learned)
        self.sccm, self.kdsp, self.tau = sccm, kdsp, tau
        mask, places = (x.to(backbone.device) for x in places_of(list(map(len, sentences))))
        features = encode_texts(backbone, [text for texts in sentences for text in texts])
        units = take(F.normalize(features, dim=-1), places)  # [n_cls, k, d]
        self.register_buffer("sentences", units, persistent=False)
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("mean", unit_means(units, mask), persistent=False)

    def teacher_features(self, image_features: Tensor) -> Tensor:
        """[n_cls, d] unit means of the sentences that a batch [batch, d] of images keeps.

        Without a gradient: it depends on nothing that learns, and on the images by a choice.
        """
        # The mean logit of a sentence is its product with the mean image.
        image = F.normalize(at_least_fp32(image_features), dim=-1).mean(dim=0)
        scores = self.backbone.logit_scale.exp() * (self.sentences @ image)
        return unit_means(self.sentences, kept_sentences(scores, self.mask, self.tau))

    def from_features(self, image_features: Tensor, label: Tensor | None = None) -> Output:
        class_features = self.current_features()
        logits = self.score(image_features, class_features)
        if label is None:
            return Output(logits, {})
        taught = self.teacher_features(image_features)
        teacher = cosine_logits(image_features, taught, self.backbone.logit_scale)
        consistency = F.mse_loss(F.normalize(class_features, dim=-1), self.mean)
        losses = {
            **self.losses(logits, label, class_features),
            "consistency": self.sccm * consistency,
            "distillation": self.kdsp * mean_divergence(logits, teacher),
        }
        return Output(logits, losses)


def unit_means(features: Tensor, mask: Tensor) -> Tensor:
    """[n_cls, d] normalised means of the [n_cls, k, d] features where ``mask`` [n_cls, k]."""
    return F.normalize((features * mask.unsqueeze(-1)).sum(dim=1), dim=-1)
