"""XCoOp: contexts that are tied to prompts of clinical concepts."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.backbone import Backbone
from backbones.numerics import at_least_fp32
from backbones.texts import TextTooLong, strip_stop
from core.errors import InputError
from engine.method import ClassFeatureModel, DoesNotApply, Method, PromptedModel, register
from engine.prompts import START_WORDS, ContextPrompts, check_names, encode_texts
from engine.rules import AtLeastOne, NotNegative
from symptoms import Symptoms

NOISE = 0.05  # standard deviation of the noise on each copy of a hard prompt's unit feature
NORM_RATE = 0.1  # the learning rate of the layer norms, as a share of the contexts'


@register
class XCoOp(Method):
    """Learn contexts for each class, aligned with a prompt of its concepts and with patches.

    Bie et al., MICCAI 2024, https://arxiv.org/abs/2403.09410. Where Tommy-Bie/XCoOp says more than
    the paper, its code is followed:

    - It encodes two identical copies of an image. Ours encodes one, which gives the same logits.
    - It reads a tensor [batch, patches, n_cls] as [patches, batch * n_cls], so that each image is
      scored by patches of the whole batch. Here, as in the paper, an image has its own patches;
      for a batch of one image the two agree.
    - The alignment losses ask, for each hard prompt, which class's contexts it belongs to.
    - Noise is added to a hard prompt's feature as often as there are contexts, then averaged.
    - The contexts of a class start from the same words, so that their gradients are equal and they
      stay equal. That is kept; contexts that start at random (CTX_INIT "") do differ.
    - The image encoder's layer norms learn there (``LEARN_NORMS``); here they are frozen unless
      asked for, so that image features can be kept.
    - Concepts are the symptoms of the run's symptom file. Those released are for Pneumonia alone;
      configs/trainers/own/XCoOp_pneumonia.json has them.
    """

    DEFAULTS = {
        "SYMPTOMS": "",  # a symptom file, the concepts; empty: the dataset's own
        "N_CTX": 4,  # learned tokens in a context
        "CTX_INIT": START_WORDS,  # words the contexts start from; empty: random
        "N_PROMPTS": 4,  # contexts for each class
        "PROMPT_WEIGHT": 5.0,  # weight of the loss between text features
        "TOKEN_WEIGHT": 5.0,  # weight of the loss between token embeddings
        "LOCAL_WEIGHT": 0.01,  # weight of the patches in a logit
        "LEARN_NORMS": False,  # learn the image encoder's layer norms, as the paper does
    }
    RULES = {
        "N_CTX": AtLeastOne,
        "N_PROMPTS": AtLeastOne,
        "PROMPT_WEIGHT": NotNegative,
        "TOKEN_WEIGHT": NotNegative,
        "LOCAL_WEIGHT": NotNegative,
    }
    place = 84
    sets = ("strong",)
    reads_symptoms = True

    @property
    def learns_image_encoder(self) -> bool:
        return self.options.LEARN_NORMS

    def per_class(self) -> tuple[str, ...]:
        return ("prompt_learner.ctx",)

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        if symptoms is None:
            raise InputError("XCoOp needs the symptoms of every class; give them to build()")
        options = self.options
        if options.LEARN_NORMS and not backbone.image.layer_norms():
            raise DoesNotApply(
                "XCoOp with LEARN_NORMS learns the layer norms of a vision transformer; the "
                "backbone's image encoder has none: choose a ViT, or leave LEARN_NORMS out"
            )
        check_names(classnames, backbone)
        learned = nn.Module()
        learned.prompt_learner = ClassPrompts(
            backbone, classnames, options.N_CTX, options.N_PROMPTS, options.CTX_INIT
        )
        if options.LEARN_NORMS:
            norms = backbone.image.layer_norms()
            # A module's name may not hold a dot.
            learned.norms = nn.ModuleDict({n.replace(".", "_"): norms[n] for n in norms})
            learned.norms.requires_grad_(True)
        return ConceptGuidedCLIP(
            backbone,
            learned,
            hard_prompts(backbone, classnames, symptoms),
            weights=(options.PROMPT_WEIGHT, options.TOKEN_WEIGHT),
            local=options.LOCAL_WEIGHT,
        )

    def adapt_state_dict(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The original's files hold the whole CLIP, and contexts first, then classes."""
        adapted = super().adapt_state_dict(state_dict)
        key, layer = "prompt_learner.ctx", "image_encoder.transformer.resblocks."
        theirs = {k: v for k, v in adapted.items() if k.startswith(layer)}
        if not theirs:
            return adapted
        if not self.options.LEARN_NORMS:
            raise InputError(
                "this checkpoint of XCoOp holds learned layer norms; set TRAINER.XCOOP.LEARN_NORMS "
                "True"
            )
        ours = {key: adapted[key].unflatten(0, (self.options.N_PROMPTS, -1)).transpose(0, 1)}
        for name, tensor in theirs.items():
            place, *_, norm, parameter = name.removeprefix(layer).split(".")
            if norm in ("ln_1", "ln_2"):
                ours[f"norms.{place}_{norm}.{parameter}"] = tensor
        return ours


def hard_prompts(
    backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms
) -> dict[str, str]:
    """Class name -> ``a photo of a {name}, {concept}, {concept}``.

    The first concepts that the text encoder can read; where that is not all, a line says so.
    """
    found = {}
    for name in classnames:
        concepts = [strip_stop(phrase) for phrase in symptoms.phrases[name]]
        fit = list(concepts)
        while fit:
            text = ", ".join([f"{START_WORDS} {name}", *fit])
            try:
                backbone.prepare([text])
                break
            except TextTooLong:
                if len(fit) == 1:
                    raise
                fit.pop()
        found[name] = text
        if len(fit) < len(concepts):
            print(
                f"note: {name}: its prompt holds the first {len(fit)} of {len(concepts)} concepts; "
                f"the text encoder reads {backbone.context_length} tokens"
            )
    return found


class ClassPrompts(ContextPrompts):
    """Several contexts for each class; the state is ``ctx`` [n_cls, n_prompts, n_ctx, d_txt].

    The texts are the class names, each once for each of its contexts.

    Source: Bie et al., MICCAI 2024, section 2.2.
    """

    def __init__(
        self,
        backbone: Backbone,
        classnames: Sequence[str],
        n_ctx: int,
        n_prompts: int,
        start_words: str,
    ) -> None:
        self.texts = [name for name in classnames for _ in range(n_prompts)]
        groups = range(len(self.texts))
        super().__init__(backbone, self.texts, n_ctx, start_words=start_words, groups=groups)
        self.ctx = nn.Parameter(self.ctx.detach().unflatten(0, (len(classnames), n_prompts)))


class PatchedEncoder:
    """A backbone's image encoder that also gives the mean of the patches' unit features.

    Its features are [batch, 2 d]: the image's, then the patches'. A kept feature has all that
    XCoOp's logits need of an image.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.fingerprint = f"{backbone.fingerprint} and the mean of the unit patches"
        self.precision, self.device = backbone.precision, backbone.device
        self.embed_dim = 2 * backbone.embed_dim

    def encode_image(self, x: Tensor) -> Tensor:
        """[batch, 3, H, W] views -> [batch, 2 d] features, not normalised."""
        features, patches = self.backbone.encode_with_patches(x)
        both = torch.cat([features, F.normalize(patches, dim=-1).mean(dim=1)], dim=-1)
        # What fp16 features are kept in, so that kept and fresh ones are the same.
        return both.half().float() if self.precision == "fp16" else both


class ConceptGuidedCLIP(ClassFeatureModel):
    """Logits s mean_n f . t_cn + w s mean_n mean_p P_p . t_cn, all features unit, w ``local``.

    t_cn is class c's text with its context n, P_p a patch of the image.

    Args:
        learned: ``prompt_learner``, the ``ClassPrompts``, and perhaps ``norms``.
        hard: class name -> the prompt of its concepts.
        weights: of the losses between text features and between token embeddings.

    Source: Bie et al., MICCAI 2024, sections 2.2 and 2.3, and the released code.
    """

    known: Tensor
    hard_tokens: Tensor
    fixed_similarity: Tensor
    max_gradient_norm = 1.0

    def __init__(
        self,
        backbone: Backbone,
        learned: nn.Module,
        hard: Mapping[str, str],
        weights: tuple[float, float] = (5.0, 5.0),
        local: float = 0.01,
    ) -> None:
        super().__init__(backbone, learned)
        self.weights, self.local = weights, local
        self._encoder = PatchedEncoder(backbone)
        known = F.normalize(encode_texts(backbone, list(hard.values())), dim=-1)  # [n_cls, d], h
        self.register_buffer("known", known, persistent=False)
        at_context, fixed = self._token_similarities(list(hard.values()))
        self.register_buffer("hard_tokens", at_context, persistent=False)
        self.register_buffer("fixed_similarity", fixed, persistent=False)

    @property
    def image_encoder(self) -> PatchedEncoder:
        return self._encoder

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        groups = [{"params": list(self.learned.prompt_learner.parameters()), "lr": lr}]
        if hasattr(self.learned, "norms"):
            norms = list(self.learned.norms.parameters())
            groups.append({"params": norms, "lr": NORM_RATE * lr})
        return groups

    @torch.no_grad()
    def _token_similarities(self, hard: Sequence[str]) -> tuple[Tensor, Tensor]:
        """What of the token-level similarities no learned number changes.

        Returns:
            [n_cls, n_ctx, d_txt] the unit tokens of the hard prompts where the soft ones have their
            context, and [n_cls, n_cls] the sum of the cosines at all other places, of each class's
            soft prompt (rows) and each class's hard prompt.
        """
        backbone = self.backbone
        prompts: Any = self.learned.prompt_learner
        n_cls, n_prompts, n_ctx, _ = prompts.ctx.shape
        # The words are the same with each context of a class.
        soft = backbone.layout(prompts.texts, n_ctx, groups=range(n_cls * n_prompts))[::n_prompts]
        is_context = soft < 0
        tokens = [
            F.normalize(at_least_fp32(backbone.embed_tokens(ids.clamp(min=0))), dim=-1)
            for ids in (soft, backbone.layout(hard))
        ]
        (places,) = torch.where(is_context[0])  # the same in every text: before its words
        fixed = tokens[0].masked_fill(is_context.unsqueeze(-1).to(tokens[0].device), 0)
        return tokens[1][:, places], torch.einsum("cld,kld->ck", fixed, tokens[1])

    def class_features(self) -> Tensor:
        """[n_cls, n_prompts, d]"""
        prompts = self.learned.prompt_learner
        features = self.backbone.encode_text(prompts.inputs, prompts())
        return features.unflatten(0, prompts.ctx.shape[:2])

    def score(self, image_features: Tensor, class_features: Tensor) -> Tensor:
        image, patches = at_least_fp32(image_features).chunk(2, dim=-1)
        image = F.normalize(image, dim=-1) + self.local * patches
        texts = F.normalize(class_features, dim=-1).mean(dim=1)
        return self.backbone.logit_scale.exp() * image @ texts.T

    def losses(self, logits: Tensor, label: Tensor, class_features: Tensor) -> dict[str, Tensor]:
        prompt_weight, token_weight = self.weights
        return {
            **super().losses(logits, label, class_features),
            "prompts": prompt_weight * self._alignment(self.prompt_similarity(class_features)),
            "tokens": token_weight * self._alignment(self.token_similarity()),
        }

    def _alignment(self, similarity: Tensor) -> Tensor:
        """Cross-entropy of each hard prompt (columns) over the classes' soft prompts (rows)."""
        logits = self.backbone.logit_scale.exp() * similarity.T
        return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))

    def prompt_similarity(self, class_features: Tensor) -> Tensor:
        """[n_cls, n_cls] u_c . h_k, u_c the unit mean of class c's features [n_prompts, d].

        In training, with probability 1/2, h has noise: of each of n_prompts copies, of which the
        released code takes the mean.
        """
        soft, hard = F.normalize(class_features.mean(dim=1), dim=-1), self.known
        if self.learned.training and torch.rand(1).item() < 0.5:
            # Drawn on the CPU, so that every device draws alike.
            noise = NOISE * torch.randn(class_features.shape[1], *hard.shape, dtype=hard.dtype)
            hard = hard + noise.mean(dim=0).to(hard.device)
        return soft @ hard.T

    def token_similarity(self) -> Tensor:
        """[n_cls, n_cls] of the unit token embeddings of whole texts, place by place, summed."""
        prompts: Any = self.learned.prompt_learner
        context = F.normalize(prompts.ctx, dim=-1).mean(dim=1)  # [n_cls, n_ctx, d_txt]
        return self.fixed_similarity + torch.einsum("cld,kld->ck", context, self.hard_tokens)
