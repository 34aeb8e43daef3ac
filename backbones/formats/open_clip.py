"""open_clip's folder: ``open_clip_config.json`` beside the weights, in open_clip's names.

Its configuration decides the activation, the pooling and the preprocessing.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from backbones.backbone import (
    ImageEncoder,
    Parts,
    Preprocessing,
    TextEncoder,
    fingerprint_of,
)
from backbones.encoders.clip_images import image_encoder_of
from backbones.encoders.clip_texts import clip_text_of
from backbones.encoders.text_transformer import TextShape, TransformerText
from backbones.encoders.vit import ViT
from backbones.formats import Format, Stated, decided_activation, decided_preprocessing
from backbones.formats.bert import bert_of
from backbones.formats.open_clip_settings import (
    FILE,
    Act,
    ModelSettings,
    Norm,
    TextSettings,
    VisionSettings,
    read_settings,
)
from backbones.names import RESBLOCKS, below, renamed
from backbones.tokenizers import read_siglip_tokenizer
from backbones.weights import WeightsFile
from core.errors import InputError

POOLING = {
    "cls_last_hidden_state_pooler": "first",
    "cls_pooler": "pooler",
    None: "pooler",
    "mean_pooler": "mean",
}
# timm's plain vision transformers, and what the name tells beside the tensors: the larger ones
# have other heads than one for 64 channels, some of SigLIP 2's have tanh GELU.
TIMM = re.compile(
    r"vit_(tiny|small|base|large|huge|giant|giantopt|gigantic|so400m)_patch\d+_(siglip_)?\d+(\.\w+)?"
)
TANH = re.compile(
    r"vit_(base_patch32_siglip_256|large_patch16_siglip_512|(giantopt|so400m)_patch16_siglip_\d+).*"
)
SIXTEEN_HEADS = ("huge", "giant", "giantopt", "gigantic", "so400m")


class OpenClipFormat(Format):
    name = "open_clip"

    def recognises(self, weights: WeightsFile) -> bool:
        """By its configuration; without one, by names that no other format has."""
        names = weights.tensors
        if any(k.startswith(("text_model.", "vision_model.")) for k in names):
            return False  # a folder with two models, of which transformers' was given
        theirs = any(k.startswith(("visual.trunk.", "text.transformer.")) for k in names)
        others = "visual.attn_pool_contrast.query" in names or "visual.conv1.weight" in names
        return FILE in weights.settings or (theirs and not others)

    def parts(self, weights: WeightsFile, stated: Stated) -> Parts:
        """Raises InputError for what is not supported, naming the setting."""
        if FILE not in weights.settings:
            raise InputError(
                f"{weights.path}: these tensors have open_clip's names; give the folder with "
                f"{FILE} as MODEL.BACKBONE.PATH"
            )
        settings = read_settings(weights)
        model, where = settings.model_cfg, weights.path / FILE
        activation = "quick_gelu" if model.quick_gelu else "gelu"
        decided_activation(stated.activation, activation, where)
        image = image_of(weights.tensors, model.vision_cfg, activation, stated)
        text = text_of(weights, model.text_cfg, activation, stated)
        given = settings.preprocess_cfg
        known = Preprocessing(
            image.size, given.mean, given.std, given.interpolation, given.resize_mode
        )
        return Parts(
            image,
            text,
            weights.tensors["logit_scale"].reshape(()),
            decided_preprocessing(image.size, stated, known, where),
            fingerprint_of(
                weights,
                what_decides(model),
                *(stated.text_heads, stated.vision_heads),
                *text.settings,
            ),
        )


FORMAT = OpenClipFormat()


def what_decides(model: ModelSettings) -> dict[str, object]:
    """The settings that differ from open_clip's defaults, but for names of other models."""
    names = {"hf_model_name", "hf_tokenizer_name"}
    return model.model_dump(exclude_defaults=True, exclude={"text_cfg": names})


def activation_of(act: Act | None, otherwise: str) -> str:
    return "gelu_tanh" if act and act.approximate == "tanh" else otherwise


def epsilon_of(norm: Norm | None, otherwise: float) -> float:
    return norm.eps if norm else otherwise


def image_of(
    tensors: Mapping[str, Tensor], vision: VisionSettings, activation: str, stated: Stated
) -> ImageEncoder:
    """The image encoder: timm's vision transformer, or open_clip's own, which is OpenAI's."""
    visual = below(tensors, "visual.")
    size, name = vision.image_size, vision.timm_model_name
    if isinstance(size, tuple):
        if size[0] != size[1]:
            raise InputError(f"vision_cfg.image_size {size} is not supported; square images are")
        size = size[0]
    if name is None:
        is_resnet = isinstance(vision.layers, tuple)
        if is_resnet and vision.head_width != 64:
            raise InputError(
                f"vision_cfg.head_width {vision.head_width} is not supported for a ResNet; 64 is"
            )
        heads = None if is_resnet else visual["conv1.weight"].shape[0] // vision.head_width
        image: ImageEncoder = image_encoder_of(
            visual,
            activation_of(vision.act_kwargs, activation),
            stated.vision_heads or heads,
            epsilon_of(vision.norm_kwargs, 1e-5),
        )
        if image.size != (size or image.size):
            raise InputError(
                f"vision_cfg.image_size is {size}, but the tensors are for images of {image.size} "
                "pixels"
            )
        return image
    heads, act = timm_settings(name)
    if vision.timm_pool == "avg":
        raise InputError(
            "vision_cfg.timm_pool avg (also where timm_pool is left out) is not supported; the "
            "class token ('' or token) and map are"
        )
    has_map = "trunk.attn_pool.latent" in visual
    if has_map != (vision.timm_pool == "map"):
        raise InputError(
            f"vision_cfg.timm_pool is {vision.timm_pool!r}, but the tensors "
            + ("pool by attention (map)" if has_map else "have no pooling by attention")
        )
    # Activation and epsilon are timm's, whatever the configuration says.
    return ViT(visual, act, 1e-6, stated.vision_heads or heads, size)


def timm_settings(name: str) -> tuple[int | None, str]:
    """Heads (None is one for each 64 channels) and activation of timm's vision transformer.

    Raises:
        InputError: another architecture.
    """
    match = TIMM.fullmatch(name)
    if match is None:
        raise InputError(
            f"the image encoder {name} (vision_cfg.timm_model_name) is not supported; of "
            "timm's, the plain vision transformers vit_*_patch* and vit_*_patch*_siglip are"
        )
    heads = 16 if match[1] in SIXTEEN_HEADS else None
    return heads, "gelu_tanh" if TANH.fullmatch(name) else "gelu"


def text_of(
    weights: WeightsFile, text: TextSettings, activation: str, stated: Stated
) -> TextEncoder:
    """The text encoder: BERT, OpenAI's causal one, or SigLIP's without a mask."""
    tensors = below(weights.tensors, "text.")
    if not tensors:  # the text encoder's names then stand at the top
        tensors = {k: v for k, v in weights.tensors.items() if not k.startswith("visual.")}
        tensors = {k: v for k, v in tensors.items() if not k.startswith("logit_")}
    clean = text.tokenizer_kwargs.clean if text.tokenizer_kwargs else ""
    if text.hf_model_name is not None:
        return bert_of(
            weights,
            tensors,
            POOLING[text.hf_pooler_type],
            text.context_length,
            clean or "whitespace",
            stated.text_heads,
        )
    heads = stated.text_heads or text.heads
    act = activation_of(text.act_kwargs, activation)
    eps = epsilon_of(text.norm_kwargs, 1e-5)
    if (text.no_causal_mask, text.pool_type) == (True, "last"):
        return TransformerText(
            renamed(tensors, RESBLOCKS),
            TextShape("siglip", "last", act, eps, heads),
            read_siglip_tokenizer(weights.folder, clean or "whitespace"),
            tensors["positional_embedding"].shape[0],
        )
    if text.no_causal_mask or text.pool_type != "argmax" or text.proj_bias:
        raise InputError(
            f"{weights.path / FILE}: a text encoder with no_causal_mask {text.no_causal_mask}, "
            f"pool_type {text.pool_type} and proj_bias {text.proj_bias} is not supported"
        )
    if text.hf_tokenizer_name or clean not in ("", "lower"):
        raise InputError(
            f"{weights.path / FILE}: a causal text encoder is supported with OpenAI's tokenizer "
            f"alone; hf_tokenizer_name is {text.hf_tokenizer_name} and tokenizer_kwargs.clean "
            f"{clean!r}"
        )
    return clip_text_of(tensors, act, heads, eps)
