"""MaPLe: learned tokens in both encoders, the image's following from the text's."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from backbones.backbone import Backbone
from engine.method import (
    ClassFeatureModel,
    DoesNotApply,
    Method,
    Output,
    PromptedModel,
    register,
)
from engine.prompts import START_WORDS, ContextPrompts, check_names
from engine.rules import AtLeastOne
from symptoms import Symptoms


@register
class MaPLe(Method):
    """Multi-modal Prompt Learning: deep tokens on the text side, projected to the image's side.

    Khattak et al., CVPR 2023, https://arxiv.org/abs/2210.03117
    """

    DEFAULTS = {
        "N_CTX": 2,  # learned tokens in each layer
        "CTX_INIT": START_WORDS,  # the first N_CTX words start the tokens, the others stay
        "PROMPT_DEPTH": 9,  # layers with tokens of their own, at most all of the shorter tower
    }
    RULES = {"N_CTX": AtLeastOne, "PROMPT_DEPTH": AtLeastOne}
    place = 70
    sets = ("paper",)
    learns_image_encoder = True
    checkpoint_name = "MultiModalPromptLearner"

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        if backbone.vision_depth is None:
            raise DoesNotApply(
                "MaPLe puts tokens between the layers of a vision transformer; "
                "the backbone is a ResNet: choose a ViT"
            )
        options = self.options
        check_names(classnames, backbone)
        learned = nn.Module()
        learned.prompt_learner = MultiModalPrompts(
            backbone, classnames, options.N_CTX, options.CTX_INIT, options.PROMPT_DEPTH
        )
        return MultiModalCLIP(backbone, learned)

    def adapt_state_dict(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # The original's files hold the whole frozen CLIP as well.
        adapted = super().adapt_state_dict(state_dict)
        return {k: v for k, v in adapted.items() if k.startswith("prompt_learner.")}


class MultiModalPrompts(ContextPrompts):
    """The learned tokens of both sides.

    The state's names are those of published checkpoints: ``ctx`` and ``proj`` for the first layer,
    ``compound_prompts_text.N`` and ``compound_prompt_projections.N`` for layer N + 2.

    Source: Khattak et al., CVPR 2023, sections 3.2 and 3.3.
    """

    def __init__(
        self,
        backbone: Backbone,
        classnames: Sequence[str],
        n_ctx: int,
        start_words: str,
        depth: int,
    ) -> None:
        d_txt, d_vis, device = backbone.text_width, backbone.vision_width, backbone.device
        assert d_vis is not None and backbone.vision_depth is not None  # build() refuses others
        layers = min(backbone.text_depth, backbone.vision_depth)
        if depth > layers:
            print(f"PROMPT_DEPTH is {depth}: all {layers} layers of the shorter tower")
            depth = layers
        words = start_words.split()
        kept = " ".join(words[n_ctx:])
        texts = [f"{kept} {name}".strip() for name in classnames]
        super().__init__(backbone, texts, n_ctx, start_words=" ".join(words[:n_ctx]))
        self.proj = nn.Linear(d_txt, d_vis, device=device)
        self.compound_prompts_text = nn.ParameterList(
            nn.Parameter((0.02 * torch.randn(n_ctx, d_txt)).to(device)) for _ in range(depth - 1)
        )
        layer = nn.Linear(d_txt, d_vis, device=device)
        self.compound_prompt_projections = nn.ModuleList(
            copy.deepcopy(layer) for _ in range(depth - 1)
        )

    def vision_tokens(self) -> list[Tensor]:
        """The image's tokens of each layer: ``depth`` times [n_ctx, d_vis]."""
        deeper = zip(self.compound_prompt_projections, self.compound_prompts_text, strict=True)
        return [self.proj(self.ctx), *(project(tokens) for project, tokens in deeper)]


class MultiModalCLIP(ClassFeatureModel):
    """CLIP with learned tokens in both encoders."""

    def forward(self, images: Tensor, label: Tensor | None = None) -> Output:
        tokens = self.learned.prompt_learner.vision_tokens()
        return self.from_features(self.backbone.encode_image(images, tokens), label)

    def class_features(self) -> Tensor:
        prompts = self.learned.prompt_learner
        deeper = prompts.compound_prompts_text
        deep = [prompts.with_contexts(tokens.unsqueeze(0)) for tokens in deeper]
        return self.backbone.encode_text(prompts.inputs, prompts(), deep)
