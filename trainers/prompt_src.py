"""PromptSRC: learned tokens in both encoders, kept near the frozen ones and averaged."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.backbone import Backbone
from backbones.numerics import cosine_logits, mean_divergence
from engine.method import (
    ClassFeatureModel,
    DoesNotApply,
    Method,
    Output,
    PromptedModel,
    register,
)
from engine.prompts import START_WORDS, ContextPrompts, check_names, encode_texts
from engine.rules import AtLeastOne, NotNegative, Positive
from symptoms import Symptoms

# The first 60 of the 80 that OpenAI published with CLIP for ImageNet, which the paper's code uses:
# https://github.com/openai/CLIP/blob/main/notebooks/Prompt_Engineering_for_ImageNet.ipynb
TEMPLATES: list[str] = json.loads(
    Path(__file__).with_name("imagenet_templates.json").read_text(encoding="utf-8")
)
# Names in files of the released code -> ours; a layer there is counted from 0, as here.
PUBLISHED = (
    (r"prompt_learner\.ctx", "ctx"),
    (r"text_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow", "text_tokens.{}"),
    (r"image_encoder\.VPT", "vision_tokens.0"),
    (r"image_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow", "vision_tokens.{}"),
)


@register
class PromptSRC(Method):
    """Self-regulating prompts: deep tokens in both encoders that agree with frozen CLIP.

    Khattak et al., ICCV 2023, https://arxiv.org/abs/2307.06948

    Defined for transformers in both encoders. Evaluation uses the average of the tokens after each
    epoch so far, weighted by a Gaussian over the epochs. The defaults of the average are the
    released code's for 50 epochs (few-shot, its first group of datasets); for 20 epochs
    (base-to-new) it has GPA_MEAN 15 and GPA_STD 1.

    Two defects of the released code are not repeated: under amp it fails in its first step, and it
    stores frozen features in fp16 whatever the precision.
    """

    DEFAULTS = {
        "N_CTX_TEXT": 4,  # learned tokens in each layer of the text encoder
        "N_CTX_VISION": 4,  # and of the image encoder
        "CTX_INIT": START_WORDS,  # the first N_CTX_TEXT words start the tokens, the others stay
        "PROMPT_DEPTH_TEXT": 9,  # layers with tokens of their own, at most all of the tower
        "PROMPT_DEPTH_VISION": 9,
        "TEXT_LOSS_WEIGHT": 25.0,
        "IMAGE_LOSS_WEIGHT": 10.0,
        "GPA_MEAN": 30.0,  # the epoch that the average weighs most
        "GPA_STD": 30.0,
    }
    RULES = {
        "N_CTX_TEXT": AtLeastOne,
        "N_CTX_VISION": AtLeastOne,
        "PROMPT_DEPTH_TEXT": AtLeastOne,
        "PROMPT_DEPTH_VISION": AtLeastOne,
        "TEXT_LOSS_WEIGHT": NotNegative,
        "IMAGE_LOSS_WEIGHT": NotNegative,
        "GPA_MEAN": Positive,
        "GPA_STD": Positive,
    }
    GRID = {"GPA_MEAN": (30.0, 45.0), "GPA_STD": (5.0, 30.0)}
    place = 72
    sets = ("strong",)
    learns_image_encoder = True
    checkpoint_name = "VLPromptLearner"

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        if backbone.vision_depth is None:
            raise DoesNotApply(
                "PromptSRC puts tokens between the layers of a vision transformer; "
                "the backbone is a ResNet: choose a ViT"
            )
        options = self.options
        check_names(classnames, backbone)
        prompts = IndependentPrompts(
            backbone,
            classnames,
            options.CTX_INIT,
            (options.N_CTX_TEXT, options.N_CTX_VISION),
            (options.PROMPT_DEPTH_TEXT, options.PROMPT_DEPTH_VISION),
        )
        weights = {"text": options.TEXT_LOSS_WEIGHT, "image": options.IMAGE_LOSS_WEIGHT}
        return RegulatedCLIP(
            backbone, prompts, classnames, weights, options.GPA_MEAN, options.GPA_STD
        )

    def adapt_state_dict(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # The original's files hold the whole frozen CLIP as well, and the averaged tokens alone.
        if "prompt_learner.ctx" not in state_dict:
            return super().adapt_state_dict(state_dict)
        adapted = {}
        for name, tensor in state_dict.items():
            for published, ours in PUBLISHED:
                if match := re.fullmatch(published, name):
                    adapted[ours.format(*match.groups())] = tensor
        return adapted | {averaged(name): tensor for name, tensor in adapted.items()}


def averaged(name: str) -> str:
    """The name of the buffer that holds a parameter's average."""
    return f"mean_{name.replace('.', '_')}"


class IndependentPrompts(ContextPrompts):
    """The learned tokens of both encoders, which do not depend on each other.

    Its state: ``ctx`` before the first layer of the text encoder, ``text_tokens.N`` and
    ``vision_tokens.N`` before layer N (from 0), and the average of each so far.

    Args:
        n_ctx, depth: of the text encoder and of the image encoder.

    Source: Khattak et al., ICCV 2023, section 3.1.
    """

    def __init__(
        self,
        backbone: Backbone,
        classnames: Sequence[str],
        start_words: str,
        n_ctx: tuple[int, int],
        depth: tuple[int, int],
    ) -> None:
        n_text, n_vision = n_ctx
        words = start_words.split()
        kept = " ".join(words[n_text:])
        texts = [f"{kept} {name}".strip() for name in classnames]
        super().__init__(backbone, texts, n_text, start_words=" ".join(words[:n_text]))
        assert backbone.vision_depth is not None  # build() refuses others
        assert backbone.vision_width is not None
        text_depth = _cut(depth[0], backbone.text_depth, "PROMPT_DEPTH_TEXT")
        vision_depth = _cut(depth[1], backbone.vision_depth, "PROMPT_DEPTH_VISION")

        def drawn(n: int, width: int) -> nn.Parameter:  # on the CPU: every device starts alike
            return nn.Parameter((0.02 * torch.randn(n, width)).to(backbone.device))

        self.text_tokens = nn.ParameterDict(
            {str(i): drawn(n_text, backbone.text_width) for i in range(1, text_depth)}
        )
        self.vision_tokens = nn.ParameterDict(
            {str(i): drawn(n_vision, backbone.vision_width) for i in range(vision_depth)}
        )
        for name, tokens in list(self.named_parameters()):
            self.register_buffer(averaged(name), tokens.detach().clone())

    def tokens(self) -> tuple[list[Tensor], list[Tensor]]:
        """[n_ctx, width] for each layer, of texts and of images: averaged, unless in training."""
        of: dict[str, Tensor] = {
            name: tokens if self.training else self.get_buffer(averaged(name))
            for name, tokens in self.named_parameters()
        }
        text = [of["ctx"], *(of[f"text_tokens.{i}"] for i in self.text_tokens)]
        return text, [of[f"vision_tokens.{i}"] for i in self.vision_tokens]

    @torch.no_grad()
    def average(self, share: float) -> None:
        """Let ``share`` of each average be the present tokens."""
        for name, tokens in self.named_parameters():
            self.get_buffer(averaged(name)).lerp_(tokens, share)


def _cut(depth: int, layers: int, option: str) -> int:
    if depth > layers:
        print(f"{option} is {depth}: all {layers} layers of the tower")
    return min(depth, layers)


def share_of_epoch(epoch: int, mean: float, std: float) -> float:
    """The weight of an epoch (from 1) over the sum of those until it, for a Gaussian density."""
    logs = [-0.5 * ((i - mean) / std) ** 2 for i in range(1, epoch + 1)]
    largest = max(logs)  # the first epochs' densities alone may all be zero in floating point
    return math.exp(logs[-1] - largest) / sum(math.exp(log - largest) for log in logs)


class RegulatedCLIP(ClassFeatureModel):
    """CLIP with learned tokens in both encoders, kept near frozen CLIP.

    Its losses beside the cross-entropy: ``text`` and ``image``, the mean absolute difference of
    unit features to the frozen ones, weighted; ``logits``, KL(frozen || prompted) over classes and
    images.

    Source: Khattak et al., ICCV 2023, equations 3 to 5; the average: section 3.2.2.
    """

    known: Tensor
    learned: IndependentPrompts

    def __init__(
        self,
        backbone: Backbone,
        learned: IndependentPrompts,
        classnames: Sequence[str],
        weights: Mapping[str, float],
        mean: float,
        std: float,
    ) -> None:
        super().__init__(backbone, learned)
        self.weights, self.mean, self.std = weights, mean, std
        of_templates = [
            encode_texts(backbone, [template.replace("{}", name) for name in classnames])
            for template in TEMPLATES
        ]
        known = F.normalize(torch.stack(of_templates).mean(dim=0), dim=-1)  # [n_cls, d], t0
        self.register_buffer("known", known, persistent=False)

    def class_features(self) -> Tensor:
        prompts = self.learned
        contexts, _ = prompts.tokens()
        first, *deep = (prompts.with_contexts(tokens.unsqueeze(0)) for tokens in contexts)
        return self.backbone.encode_text(prompts.inputs, first, deep)

    def forward(self, images: Tensor, label: Tensor | None = None) -> Output:
        _, tokens = self.learned.tokens()
        features = self.backbone.encode_image(images, tokens)
        output = self.from_features(features, label)
        if label is not None:
            frozen = self.backbone.encode_image(images)  # a second pass, without gradients
            output.losses.update(self.regulation(output.logits, features, frozen))
        return output

    def losses(self, logits: Tensor, label: Tensor, class_features: Tensor) -> dict[str, Tensor]:
        text = F.l1_loss(F.normalize(class_features, dim=-1), self.known)
        return {
            **super().losses(logits, label, class_features),
            "text": self.weights["text"] * text,
        }

    def regulation(self, logits: Tensor, features: Tensor, frozen: Tensor) -> dict[str, Tensor]:
        """The losses that need the images' frozen features."""
        image = F.l1_loss(F.normalize(features, dim=-1), F.normalize(frozen, dim=-1))
        teacher = cosine_logits(frozen, self.known, self.backbone.logit_scale)
        return {
            "image": self.weights["image"] * image,
            "logits": mean_divergence(logits, teacher),
        }

    def end_epoch(self, epoch: int, max_epoch: int) -> None:
        self.learned.average(share_of_epoch(epoch, self.mean, self.std))
