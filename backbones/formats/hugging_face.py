"""Folders of the transformers library: CLIP and SigLIP (also SigLIP 2 and MedSigLIP).

``config.json`` decides heads, activation and epsilon, ``preprocessor_config.json`` how images are
prepared. Code that a folder brings (``auto_map``) is never run.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, PositiveFloat, PositiveInt, ValidationError
from torch import Tensor

from backbones.backbone import ImageEncoder, Parts, TextEncoder, fingerprint_of
from backbones.encoders.clip_images import image_encoder_of
from backbones.encoders.clip_texts import clip_text_of
from backbones.encoders.text_transformer import TextShape, TransformerText
from backbones.encoders.vit import ViT
from backbones.formats import Format, Stated, decided_activation, decided_preprocessing
from backbones.formats.hugging_face_images import preprocessing_of
from backbones.names import HUGGING_FACE_CLIP, HUGGING_FACE_SIGLIP, below, renamed
from backbones.tokenizers import read_siglip_tokenizer
from backbones.weights import WeightsFile
from core.errors import InputError

FILE = "config.json"
# transformers' names of activations, and ours.
ACTIVATIONS = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
KINDS = ("clip", "siglip")
END_ID = 49407  # of a text, in the tokenizer of OpenAI's CLIP


class TowerSettings(BaseModel):
    """What the tensors do not tell of one encoder; other settings are not read."""

    hidden_act: str
    layer_norm_eps: PositiveFloat
    num_attention_heads: PositiveInt
    image_size: PositiveInt = 224
    eos_token_id: int | None = None

    @property
    def activation(self) -> str:
        return ACTIVATIONS[self.hidden_act]


# What transformers takes for a setting that a configuration leaves out.
DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "clip": {
        "text": {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_attention_heads": 8},
        "vision": {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_attention_heads": 12},
    },
    "siglip": dict.fromkeys(
        ("text", "vision"),
        {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "num_attention_heads": 12},
    ),
}


class HuggingFaceFormat(Format):
    name = "Hugging Face CLIP or SigLIP"

    def recognises(self, weights: WeightsFile) -> bool:
        """By its tensors, or by a ``config.json`` of a model that is neither CLIP nor SigLIP."""
        theirs = any(k.startswith(("text_model.", "vision_model.")) for k in weights.tensors)
        others = FILE in weights.settings and not any(
            name.startswith(("visual.", "text_encoder.")) for name in weights.tensors
        )
        return theirs or others

    def parts(self, weights: WeightsFile, stated: Stated) -> Parts:
        """Raises InputError for other models of transformers', naming the model."""
        kind = model_kind(weights)
        where, tensors = weights.path / FILE, weights.tensors
        text_settings, vision_settings = (tower_settings(weights, s) for s in ("text", "vision"))
        for settings in (text_settings, vision_settings):
            decided_activation(stated.activation, settings.activation, where)
        parts_of = clip_parts if kind == "clip" else siglip_parts
        image, text = parts_of(weights, text_settings, vision_settings)
        size = vision_settings.image_size
        if image.size != size:
            raise InputError(
                f"{where}: image_size is {size}, but the tensors are for images of {image.size} "
                "pixels"
            )
        known, notes = preprocessing_of(weights, kind, size)
        return Parts(
            image,
            text,
            tensors["logit_scale"].reshape(()),
            decided_preprocessing(size, stated, known, weights.path / "preprocessor_config.json"),
            fingerprint_of(weights, kind, text_settings, vision_settings, *text.settings),
            notes,
        )


FORMAT = HuggingFaceFormat()


def model_kind(weights: WeightsFile) -> str:
    """clip or siglip.

    Raises:
        InputError: the folder has no configuration, or one of another model.
    """
    if FILE not in weights.settings:
        raise InputError(
            f"{weights.path}: these tensors have the names of the transformers library; give the "
            f"folder with {FILE} as MODEL.BACKBONE.PATH, which says the activation"
        )
    settings, where = weights.settings[FILE], weights.path / FILE
    kind = settings.get("model_type", "not stated")
    if "auto_map" in settings:
        raise InputError(
            f"{where}: the model needs code of its own (auto_map), which is never run; use its "
            "release in open_clip's format if there is one"
        )
    if kind not in KINDS:
        naflex = " (images of any proportions, NaFlex)" if kind == "siglip2" else ""
        raise InputError(
            f"{where}: model_type {kind}{naflex} is not supported; of the transformers library's "
            f"models, {' and '.join(KINDS)} are"
        )
    return kind


def tower_settings(weights: WeightsFile, side: str) -> TowerSettings:
    """The settings of one encoder, ``side`` text or vision.

    Old folders have a ``text_config_dict`` too, which overrides ``text_config``.
    """
    settings, where = weights.settings[FILE], weights.path / FILE
    given = settings.get(f"{side}_config_dict")
    if given is None:
        given = settings.get(f"{side}_config") or {}
    try:
        found = TowerSettings(**{**DEFAULTS[model_kind(weights)][side], **given})
    except (TypeError, ValidationError) as error:
        key, reason = "", str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            key, reason = "." + ".".join(map(str, first["loc"])), first["msg"].lower()
        raise InputError(f"{where}: {side}_config{key} cannot be read ({reason})") from None
    if found.hidden_act not in ACTIVATIONS:
        raise InputError(
            f"{where}: {side}_config.hidden_act {found.hidden_act!r} is not supported; "
            f"{', '.join(ACTIVATIONS)} are"
        )
    return found


def clip_parts(
    weights: WeightsFile, text: TowerSettings, vision: TowerSettings
) -> tuple[ImageEncoder, TextEncoder]:
    """CLIP's encoders; the tokenizer is OpenAI's, whatever files the folder has."""
    tensors = weights.tensors
    texts = renamed(below(tensors, "text_model."), HUGGING_FACE_CLIP)
    images = renamed(below(tensors, "vision_model."), HUGGING_FACE_CLIP)
    texts["text_projection"] = tensors["text_projection.weight"].t()
    images["proj"] = tensors["visual_projection.weight"].t()
    # transformers takes 2 for the token with the highest id, as OpenAI's code does.
    if text.eos_token_id not in (None, 2, END_ID):
        raise InputError(
            f"{weights.path / FILE}: text_config.eos_token_id {text.eos_token_id} is not "
            f"supported; {END_ID}, of OpenAI's tokenizer, is"
        )
    return (
        image_encoder_of(
            images, vision.activation, vision.num_attention_heads, vision.layer_norm_eps
        ),
        clip_text_of(texts, text.activation, text.num_attention_heads, text.layer_norm_eps),
    )


def siglip_parts(
    weights: WeightsFile, text: TowerSettings, vision: TowerSettings
) -> tuple[ImageEncoder, TextEncoder]:
    """SigLIP's encoders, also those of SigLIP 2 for images of one size."""
    texts = renamed(below(weights.tensors, "text_model."), HUGGING_FACE_SIGLIP)
    return (
        ViT(
            siglip_image_tensors(weights.tensors),
            vision.activation,
            vision.layer_norm_eps,
            vision.num_attention_heads,
            vision.image_size,
        ),
        TransformerText(
            texts,
            TextShape(
                "siglip", "last", text.activation, text.layer_norm_eps, text.num_attention_heads
            ),
            read_siglip_tokenizer(weights.folder),
            len(texts["positions"]),
        ),
    )


def siglip_image_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of ``vision_model.`` by timm's names."""
    named = renamed(below(tensors, "vision_model."), HUGGING_FACE_SIGLIP)
    named["pos_embed"] = named.pop("positions").unsqueeze(0)
    for name in ("weight", "bias"):
        whole = named.pop(f"attn_pool.qkv.{name}")
        width = len(whole) // 3
        named[f"attn_pool.q.{name}"] = whole[:width]
        named[f"attn_pool.kv.{name}"] = whole[width:]
    return {f"trunk.{name}": tensor for name, tensor in named.items()}
