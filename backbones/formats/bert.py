"""BERT as the text encoder of several formats: transformers' names, open_clip's projection."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from backbones.encoders.blocks import ACTIVATIONS
from backbones.encoders.text_transformer import TextShape, TransformerText
from backbones.names import BERT, renamed
from backbones.tokenizers import read_tokenizer
from backbones.weights import WeightsFile
from core.errors import InputError

TYPES = "transformer.embeddings.token_type_embeddings.weight"


def bert_of(
    weights: WeightsFile,
    tensors: Mapping[str, Tensor],
    pooling: str,
    context_length: int,
    clean: str = "whitespace",
    heads: int | None = None,
) -> TransformerText:
    """A text encoder of tensors ``transformer.*`` and ``proj.*``, with the folder's tokenizer.

    A ``config.json`` of BERT in the folder says what the tensors do not tell; else it is as in
    every released BERT: 64 channels a head, exact GELU, epsilon 1e-12.

    Raises:
        InputError: the tensors are of another architecture, such as RoBERTa.
    """
    types = tensors.get(TYPES)
    if types is None or len(types) != 2:
        raise InputError(
            f"{weights.path}: the text encoder is not a BERT (RoBERTa, or another architecture); "
            "of the transformers library's text encoders, BERT is supported"
        )
    known = bert_settings(weights)
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
    tokenizer = read_tokenizer(weights.folder, clean, pad="[PAD]")
    return TransformerText(named, shape, tokenizer, min(context_length, len(named["positions"])))


def bert_settings(weights: WeightsFile) -> Mapping[str, Any]:
    """The folder's ``config.json`` if it is a BERT's."""
    known = weights.settings.get("config.json", {})
    if known.get("model_type") != "bert":
        return {}
    activation, positions = known.get("hidden_act", "gelu"), known.get("position_embedding_type")
    if activation not in ACTIVATIONS or positions not in (None, "absolute"):
        raise InputError(
            f"{weights.folder / 'config.json'}: hidden_act {activation!r} with "
            f"position_embedding_type {positions!r} is not supported"
        )
    return known
