"""The checked content of ``open_clip_config.json``, with open_clip's defaults.

A setting that changes what a model computes and that is not supported here is an error.
"""

from typing import Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from backbones.backbone import CLIP_MEAN, CLIP_STD
from backbones.weights import WeightsFile
from core.errors import InputError, short

FILE = "open_clip_config.json"
# Keys of changed copies of open_clip, and what they mean.
FOREIGN = {
    "pretrain_path": "PanDerm's image encoder is defined in a changed copy of open_clip alone",
    "multimodal_cfg": "CoCa with a text decoder; CONCH's folder is supported",
}


class _Settings(BaseModel):
    """Unknown keys are errors: they could change what is computed."""

    model_config = ConfigDict(extra="forbid")


class Norm(_Settings):
    eps: PositiveFloat = 1e-5


class Act(_Settings):
    approximate: Literal["none", "tanh"] = "none"


class _TransformerSettings(_Settings):
    """What both encoders' settings have."""

    width: int | None = None
    mlp_ratio: float | None = None
    act_kwargs: Act | None = None
    norm_kwargs: Norm | None = None
    output_tokens: bool = False  # has an effect in training alone
    # What no released model of use here has; other values are errors.
    ls_init_value: None = None
    final_ln_after_pool: Literal[False] = False
    block_type: None = None
    qk_norm: Literal[False] = False
    scaled_cosine_attn: Literal[False] = False
    scale_heads: Literal[False] = False
    scale_attn_inner: Literal[False] = False
    scale_attn: Literal[False] = False
    scale_fc: Literal[False] = False


class VisionSettings(_TransformerSettings):
    """``vision_cfg``. Sizes are read from the tensors; they are accepted and not used."""

    image_size: int | tuple[int, int] | None = None
    layers: int | tuple[int, int, int, int] | None = None
    patch_size: int | None = None
    head_width: PositiveInt = 64
    timm_model_name: str | None = None
    timm_pool: Literal["", "token", "map", "avg"] = "avg"
    timm_proj: Literal["linear", "none"] = "linear"
    timm_proj_bias: bool = False
    pool_type: Literal["tok"] = "tok"
    # What has an effect in training alone.
    timm_model_pretrained: bool = False
    timm_drop: float = 0.0
    timm_drop_path: float | None = None
    patch_dropout: float = 0.0
    # What no released model of use here has; other values are errors.
    attentional_pool: Literal[False] = False
    attn_pooler_queries: int = 256
    attn_pooler_heads: int = 8
    no_ln_pre: Literal[False] = False
    global_average_pool: Literal[False] = False
    input_patchnorm: Literal[False] = False
    pos_embed_type: Literal["learnable"] = "learnable"


class TokenizerSettings(_Settings):
    clean: Literal["canonicalize", "whitespace", "lower", ""] = ""
    strip_sep_token: Literal[False] = False


class TextSettings(_TransformerSettings):
    """``text_cfg``, in the spelling of today and of open_clip's first models with BERT."""

    context_length: PositiveInt = 77
    vocab_size: int | None = None
    heads: PositiveInt = 8
    layers: int | None = None
    hf_model_name: str | None = None
    hf_tokenizer_name: str | None = None
    tokenizer_kwargs: TokenizerSettings | None = None
    tokenizer_mode: None = None
    # The tensors tell it.
    hf_proj_type: Literal["linear", "mlp"] | None = Field(
        None, validation_alias=AliasChoices("hf_proj_type", "proj")
    )
    # Null is BERT's own, cls_pooler.
    hf_pooler_type: Literal["mean_pooler", "cls_pooler", "cls_last_hidden_state_pooler"] | None = (
        Field("mean_pooler", validation_alias=AliasChoices("hf_pooler_type", "pooler_type"))
    )
    no_causal_mask: bool = False
    pool_type: Literal["argmax", "last"] = "argmax"
    proj_bias: bool = False
    proj_type: Literal["linear"] = "linear"
    pad_id: int = 0  # read where embed_cls is set alone
    eos_id: int | None = None  # read where pool_type is eos alone
    # What has an effect in training alone.
    hf_model_pretrained: bool = True
    # What no released model of use here has; other values are errors.
    embed_cls: Literal[False] = False
    use_pad_mask: Literal[False] = False


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
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = CLIP_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "squash"] = "shortest"
    fill_color: int = 0  # read where resize_mode is longest alone


class FolderSettings(BaseModel):
    """What else a folder says (its name, its tags) is not read."""

    model_cfg: ModelSettings
    preprocess_cfg: PreprocessSettings = PreprocessSettings()


def read_settings(weights: WeightsFile) -> FolderSettings:
    """The checked content of ``open_clip_config.json``.

    Raises:
        InputError: a setting is unknown, or has a value that is not supported.
    """
    where = weights.path / FILE
    try:
        return FolderSettings.model_validate(weights.settings[FILE])
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise InputError(f"{where}: {key} is missing") from None
        reason = FOREIGN.get(str(first["loc"][-1]), "")
        if not reason and first["type"] != "extra_forbidden":
            reason = first["msg"].lower()
        raise InputError(
            f"{where}: {key} {short(first['input'])} is not supported"
            + (f" ({reason})" if reason else "")
        ) from None
