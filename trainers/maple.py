"""MaPLe: learned tokens in both encoders, the picture's following from the text's."""

import copy

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import nn

from backbones.clip_model import ClassFeatureModel, at_least_fp32
from engine.prompts import START_WORDS, ContextPrompts, at_least_one
from engine.trainer import DoesNotApply, PromptTrainer


@TRAINER_REGISTRY.register()
class MaPLe(PromptTrainer):
    """Multi-modal Prompt Learning: deep tokens on the text side, projected to the picture's side.

    Khattak et al., CVPR 2023, https://arxiv.org/abs/2210.03117
    """

    DEFAULTS = {
        "N_CTX": 2,  # learned tokens in each layer
        "CTX_INIT": START_WORDS,  # the first N_CTX words start the tokens, the others stay
        "PROMPT_DEPTH": 9,  # layers with tokens of their own, at most all of the shorter tower
    }
    model_name = "MultiModalPromptLearner"
    image_encoder_frozen = False

    def build_prompted_clip(self, clip_model, classnames):
        if not clip_model.is_vit:
            raise DoesNotApply(
                "MaPLe puts tokens between the layers of a vision transformer; "
                f"the backbone {self.cfg.RUN.BACKBONE} is a ResNet: choose a ViT"
            )
        options = self.method_cfg
        learned = nn.Module()
        learned.prompt_learner = MultiModalPrompts(
            clip_model, classnames, options.N_CTX, options.CTX_INIT, options.PROMPT_DEPTH
        )
        return MultiModalCLIP(clip_model, learned)

    def adapt_state_dict(self, state_dict):
        # The original's files hold the whole frozen CLIP as well.
        state_dict = super().adapt_state_dict(state_dict)
        return {k: v for k, v in state_dict.items() if k.startswith("prompt_learner.")}


class MultiModalPrompts(ContextPrompts):
    """The learned tokens of both sides.

    The state's names are those of published checkpoints: ``ctx`` and ``proj`` for the first layer,
    ``compound_prompts_text.N`` and ``compound_prompt_projections.N`` for layer N + 2.

    Source: Khattak et al., CVPR 2023, sections 3.2 and 3.3.
    """

    def __init__(self, clip_model, classnames, n_ctx, start_words, depth):
        layers = [len(blocks) for blocks in _towers(clip_model)]
        at_least_one(N_CTX=n_ctx, PROMPT_DEPTH=depth)
        if depth > min(layers):
            print(f"PROMPT_DEPTH is {depth}: all {min(layers)} layers of the shorter tower")
            depth = min(layers)
        words = start_words.split()
        kept = " ".join(words[n_ctx:])
        texts = [f"{kept} {name}".strip() for name in classnames]
        super().__init__(clip_model, texts, n_ctx, start_words=" ".join(words[:n_ctx]))
        d_txt, d_vis, device = clip_model.text_width, clip_model.vision_width, clip_model.device
        self.proj = nn.Linear(d_txt, d_vis, device=device)
        self.compound_prompts_text = nn.ParameterList(
            nn.Parameter((0.02 * torch.randn(n_ctx, d_txt)).to(device)) for _ in range(depth - 1)
        )
        layer = nn.Linear(d_txt, d_vis, device=device)
        self.compound_prompt_projections = nn.ModuleList(
            copy.deepcopy(layer) for _ in range(depth - 1)
        )

    def vision_tokens(self):
        """The picture's tokens of each layer: ``depth`` times [n_ctx, d_vis]."""
        deeper = zip(self.compound_prompt_projections, self.compound_prompts_text, strict=True)
        return [self.proj(self.ctx), *(project(tokens) for project, tokens in deeper)]


class MultiModalCLIP(ClassFeatureModel):
    """CLIP with learned tokens in both encoders."""

    def forward(self, x):
        return self.logits(self.encode_image(x))

    def class_features(self):
        prompts = self.learned.prompt_learner
        deeper = prompts.compound_prompts_text

        def between(i, x):
            """Replace the outputs at positions 1..n_ctx, which all texts share."""
            if i > len(deeper):
                return x
            return x.index_copy(0, prompts.inputs.tree.slots, deeper[i - 1].to(x.dtype))

        return self.clip.encode_prompts(prompts.inputs, prompts(), between)

    def encode_image(self, x):
        """[batch, 3, H, W] -> [batch, d], with gradients to the learned tokens."""
        visual = self.clip.model.visual
        first, *deeper = self.learned.prompt_learner.vision_tokens()

        with self.clip.autocast():
            x = visual.conv1(x.to(self.clip.device, self.clip.dtype))
            x = x.flatten(2).permute(2, 0, 1)  # [patches, batch, d_vis]
            start = visual.class_embedding.to(x.dtype).expand(1, x.shape[1], -1)
            x = torch.cat([start, x]) + visual.positional_embedding.to(x.dtype).unsqueeze(1)
            x = visual.ln_pre(torch.cat([x, _for_each(first, x)]))
            for i, block in enumerate(visual.transformer.resblocks):
                if 0 < i <= len(deeper):  # in place of what the last n_ctx positions became
                    tokens = _for_each(deeper[i - 1], x)
                    x = torch.cat([x[: -len(tokens)], tokens])
                x = block(x)
            return at_least_fp32(visual.ln_post(x[0]) @ visual.proj)


def _for_each(tokens, x):
    """[n_ctx, width] tokens for every element of x [L, n, width]: [n_ctx, n, width]."""
    return tokens.to(x.dtype).unsqueeze(1).expand(-1, x.shape[1], -1)


def _towers(clip_model):
    model = clip_model.model
    return model.transformer.resblocks, model.visual.transformer.resblocks
