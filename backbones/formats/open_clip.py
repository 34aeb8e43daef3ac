"""open_clip's folder: ``open_clip_config.json`` beside the weights, in open_clip's names.

Its configuration decides the activation, the pooling and the preprocessing. A setting that changes
what a model computes and that is not supported here is an error.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from backbones.backbone import (
    CLIP_MEAN,
    CLIP_STD,
    ImageEncoder,
    Parts,
    Preprocessing,
    TextEncoder,
    weights_fingerprint,
)
from backbones.encoders.clip_images import image_encoder_of
from backbones.encoders.text_transformer import TextShape, TransformerText
from backbones.encoders.vit import ViT
from backbones.formats import Format, Stated, decided
from backbones.formats.openai import clip_of, parts_of
from backbones.names import BERT, RESBLOCKS, below, renamed
from backbones.tokenizers import read_tokenizer
from backbones.weights import WeightsFile
from core.errors import InputError

FILE = "open_clip_config.json"
POOLING = {
    "cls_last_hidden_state_pooler": "first",
    "cls_pooler": "pooler",
    "mean_pooler": "mean",
}


class _Settings(BaseModel):
    """Unknown keys are errors: they could change what is computed."""

    model_config = ConfigDict(extra="forbid")


class Norm(_Settings):
    eps: float = 1e-5


class Act(_Settings):
    approximate: Literal["none", "tanh"] = "none"


class VisionSettings(_Settings):
    """``vision_cfg``. Sizes are read from the tensors; they are accepted and not used."""

    image_size: int | tuple[int, int] | None = None
    layers: int | tuple[int, int, int, int] | None = None
    width: int | None = None
    patch_size: int | None = None
    head_width: int | None = None
    mlp_ratio: float | None = None
    timm_model_name: str | None = None
    timm_pool: Literal["", "token", "map", "avg"] = "avg"
    timm_proj: Literal["linear", "none", ""] | None = "linear"
    timm_proj_bias: bool = False
    act_kwargs: Act | None = None
    norm_kwargs: Norm | None = None
    pool_type: Literal["tok"] = "tok"
    # What has an effect in training alone.
    timm_model_pretrained: bool = False
    timm_drop: float = 0.0
    timm_drop_path: float | None = None
    patch_dropout: float = 0.0
    output_tokens: bool = False
    # What no released model of use here has; other values are errors.
    ls_init_value: None = None
    attentional_pool: Literal[False] = False
    attn_pooler_queries: int = 256
    attn_pooler_heads: int = 8
    no_ln_pre: Literal[False] = False
    final_ln_after_pool: Literal[False] = False
    global_average_pool: Literal[False] = False
    input_patchnorm: Literal[False] = False
    pos_embed_type: Literal["learnable"] = "learnable"
    block_type: None = None
    qk_norm: Literal[False] = False
    scaled_cosine_attn: Literal[False] = False
    scale_heads: Literal[False] = False
    scale_attn_inner: Literal[False] = False
    scale_attn: Literal[False] = False
    scale_fc: Literal[False] = False


class TokenizerSettings(_Settings):
    clean: Literal["canonicalize", "whitespace", "lower"] | None = None
    strip_sep_token: Literal[False] = False


class TextSettings(_Settings):
    """``text_cfg``, in the spelling of today and of open_clip before 2.0."""

    context_length: int | None = None
    vocab_size: int | None = None
    width: int | None = None
    heads: int | None = None
    layers: int | None = None
    mlp_ratio: float | None = None
    hf_model_name: str | None = None
    hf_tokenizer_name: str | None = None
    tokenizer_kwargs: TokenizerSettings | None = None
    tokenizer_mode: None = None
    hf_proj_type: Literal["linear", "mlp"] | None = Field(
        None, validation_alias=AliasChoices("hf_proj_type", "proj")
    )
    hf_pooler_type: Literal["mean_pooler", "cls_pooler", "cls_last_hidden_state_pooler"] = Field(
        "mean_pooler", validation_alias=AliasChoices("hf_pooler_type", "pooler_type")
    )
    no_causal_mask: bool = False
    pool_type: Literal["argmax", "last"] = "argmax"
    proj_bias: bool = False
    proj_type: Literal["linear"] = "linear"
    act_kwargs: Act | None = None
    norm_kwargs: Norm | None = None
    pad_id: int = 0
    eos_id: int | None = None  # read where pool_type is eos alone
    # What has an effect in training alone.
    hf_model_pretrained: bool = True
    output_tokens: bool = False
    # What no released model of use here has; other values are errors.
    ls_init_value: None = None
    embed_cls: Literal[False] = False
    final_ln_after_pool: Literal[False] = False
    use_pad_mask: Literal[False] = False
    block_type: None = None
    qk_norm: Literal[False] = False
    scaled_cosine_attn: Literal[False] = False
    scale_heads: Literal[False] = False
    scale_attn_inner: Literal[False] = False
    scale_attn: Literal[False] = False
    scale_fc: Literal[False] = False


class ModelSettings(_Settings):
    embed_dim: int
    vision_cfg: VisionSettings
    text_cfg: TextSettings
    quick_gelu: bool = False
    custom_text: bool = False
    nonscalar_logit_scale: bool = False
    init_logit_scale: float | None = None
    init_logit_bias: float | None = None
    cast_dtype: None = None


class PreprocessSettings(_Settings):
    size: int | tuple[int, int] | None = None
    mode: Literal["RGB"] = "RGB"
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "squash"] = "shortest"
    fill_color: int = 0  # read where resize_mode is longest alone


class FolderSettings(_Settings):
    model_cfg: ModelSettings
    preprocess_cfg: PreprocessSettings = PreprocessSettings()


class OpenClipFormat(Format):
    name = "open_clip"

    def recognises(self, weights: WeightsFile) -> bool:
        return FILE in weights.settings

    def parts(self, weights: WeightsFile, stated: Stated) -> Parts:
        """Raises InputError for what is not supported, naming the setting."""
        settings = read_settings(weights)
        model, where = settings.model_cfg, weights.path / FILE
        activation = "quick_gelu" if model.quick_gelu else "gelu"
        decided("MODEL.BACKBONE.ACTIVATION", stated.activation, activation, where)
        text_heads = stated.text_heads or model.text_cfg.heads
        head_width = model.vision_cfg.head_width
        tensors = weights.tensors
        if not (model.vision_cfg.timm_model_name or model.text_cfg.hf_model_name) and (
            not model.text_cfg.no_causal_mask
        ):
            plain = {k.removeprefix("text."): v for k, v in tensors.items()}
            plain = {k: v for k, v in plain.items() if k not in ("attn_mask", "logit_bias")}
            clip = clip_of(plain)
            width = model.vision_cfg.width or 768
            heads = stated.vision_heads or (width // head_width if head_width else None)
            given = Stated(text_heads=text_heads, vision_heads=heads)
            size = clip.visual.input_resolution
            return parts_of(clip, activation, given, (), preprocessing_of(settings, size))
        image = image_of(tensors, model, activation, stated)
        text = text_of(weights, model, activation, text_heads)
        described = model.model_dump(exclude_defaults=True)
        return Parts(
            image,
            text,
            tensors["logit_scale"].reshape(()),
            preprocessing_of(settings, image.size),
            weights_fingerprint(tensors, described, stated)[:12],
        )


FORMAT = OpenClipFormat()


def read_settings(weights: WeightsFile) -> FolderSettings:
    """The checked content of ``open_clip_config.json``.

    Raises:
        InputError: a setting is unknown, or has a value that is not supported.
    """
    try:
        return FolderSettings.model_validate(weights.settings[FILE])
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        value = "" if isinstance(first["input"], dict) else f" (it is {first['input']!r})"
        raise InputError(
            f"{weights.path / FILE}: {key} is not supported{value}: {first['msg'].lower()}"
        ) from None


def preprocessing_of(settings: FolderSettings, size: int) -> Preprocessing:
    given = settings.preprocess_cfg
    return Preprocessing(size, given.mean, given.std, given.interpolation, given.resize_mode)


def image_of(
    tensors: Mapping[str, Tensor], model: ModelSettings, activation: str, stated: Stated
) -> ImageEncoder:
    """The image encoder: timm's vision transformer, or open_clip's own, which is OpenAI's."""
    vision, visual = model.vision_cfg, below(tensors, "visual.")
    heads = stated.vision_heads
    eps = vision.norm_kwargs.eps if vision.norm_kwargs else None
    if vision.timm_model_name is None:
        if vision.head_width and vision.width:
            heads = heads or vision.width // vision.head_width
        return image_encoder_of(visual, activation, heads, eps or 1e-5)
    name = vision.timm_model_name
    if not re.fullmatch(r"vit_\w+_patch\d+_(siglip_)?\d+(\.\w+)?", name):
        raise InputError(
            f"the image encoder {name} is not supported; of timm's, the vision transformers "
            "vit_*_patch*_* and vit_*_patch*_siglip_* are"
        )
    if vision.timm_pool == "avg":
        raise InputError(
            "vision_cfg.timm_pool is avg, which is not supported; the class token ('' or token) "
            "and map are"
        )
    if heads is None and "so400m" in name:
        heads = 16
    return ViT(visual, "gelu", eps or 1e-6, heads)


def text_of(
    weights: WeightsFile, model: ModelSettings, activation: str, heads: int | None
) -> TextEncoder:
    """The text encoder: BERT, or open_clip's own without a causal mask (SigLIP's)."""
    text = model.text_cfg
    tensors = below(weights.tensors, "text.")
    if text.hf_model_name is not None:
        return bert_of(weights, tensors, POOLING[text.hf_pooler_type], text.context_length, heads)
    if text.pool_type != "last" or not text.no_causal_mask:
        raise InputError(
            f"{weights.path / FILE}: a text encoder with no_causal_mask {text.no_causal_mask} and "
            f"pool_type {text.pool_type} is not supported beside this image encoder"
        )
    act = "gelu_tanh" if text.act_kwargs and text.act_kwargs.approximate == "tanh" else activation
    eps = text.norm_kwargs.eps if text.norm_kwargs else 1e-5
    clean = text.tokenizer_kwargs.clean if text.tokenizer_kwargs else None
    tokenizer = read_tokenizer(weights.path, text.pad_id, canonical=clean == "canonicalize")
    return TransformerText(
        renamed(tensors, RESBLOCKS),
        TextShape("siglip", "last", act, eps, heads),
        tokenizer,
        tensors["positional_embedding"].shape[0],
    )


def bert_of(
    weights: WeightsFile,
    tensors: Mapping[str, Tensor],
    pooling: str,
    context_length: int | None,
    heads: int | None = None,
) -> TransformerText:
    """A BERT text encoder of tensors ``transformer.*`` (transformers' names) and ``proj.*``.

    A ``config.json`` of BERT in the folder says its heads and its norms' epsilon.

    Raises:
        InputError: the tensors are of another architecture, such as RoBERTa.
    """
    types = tensors["transformer.embeddings.token_type_embeddings.weight"]
    known = weights.settings.get("config.json", {})
    if len(types) != 2 or known.get("model_type", "bert") != "bert":
        kind = known.get("model_type", "RoBERTa, or like it")
        raise InputError(
            f"{weights.path}: the text encoder is {kind}; of transformers', BERT is supported"
        )
    named = renamed(tensors, BERT)
    named["types"] = types[0]  # every token is of the first type
    if pooling != "pooler":
        named = {k: v for k, v in named.items() if not k.startswith("pooler.")}
    shape = TextShape(
        "bert",
        pooling,
        known.get("hidden_act", "gelu"),
        known.get("layer_norm_eps", 1e-12),
        heads or known.get("num_attention_heads"),
    )
    tokenizer = read_tokenizer(Path(weights.path), "[PAD]")
    length = min(context_length or 512, len(named["positions"]))
    return TransformerText(named, shape, tokenizer, length)
