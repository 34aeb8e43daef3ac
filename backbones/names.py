"""Tables that rename other libraries' tensors to the names of our encoders' parameters."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# Pairs of a pattern for the whole name and its replacement; "" leaves the tensor out. The three
# parts of a stacked tensor (query, key, value) have names that end in .0, .1 and .2.
Table = Sequence[tuple[str, str]]

# open_clip's transformer of texts, which is OpenAI's.
RESBLOCKS: Table = (
    (r"token_embedding\.weight", r"tokens.weight"),
    (r"positional_embedding", r"positions"),
    (r"cls_emb", r"class_token"),
    (r"transformer\.resblocks\.(\d+)\.ln_([12])\.(.+)", r"blocks.\1.norm\2.\3"),
    (r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(.+)", r"blocks.\1.attn.qkv.\2"),
    (r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.(.+)", r"blocks.\1.attn.proj.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(.+)", r"blocks.\1.mlp.fc2.\2"),
    (r"ln_final\.(.+)", r"norm_last.\1"),
    (r"text_projection\.(weight|bias)", r"projection.0.\1"),
    (r"text_projection", r"projection.0.weight.T"),
)

# transformers' BERT, below ``transformer.``, and open_clip's projection behind it.
_LAYER = r"transformer\.encoder\.layer\.(\d+)\."
BERT: Table = (
    (r"transformer\.embeddings\.word_embeddings\.weight", r"tokens.weight"),
    (r"transformer\.embeddings\.position_embeddings\.weight", r"positions"),
    (r"transformer\.embeddings\.(token_type_embeddings.*|position_ids)", r""),
    (r"transformer\.embeddings\.LayerNorm\.(.+)", r"norm_first.\1"),
    (_LAYER + r"attention\.self\.query\.(.+)", r"blocks.\1.attn.qkv.\2.0"),
    (_LAYER + r"attention\.self\.key\.(.+)", r"blocks.\1.attn.qkv.\2.1"),
    (_LAYER + r"attention\.self\.value\.(.+)", r"blocks.\1.attn.qkv.\2.2"),
    (_LAYER + r"attention\.output\.dense\.(.+)", r"blocks.\1.attn.proj.\2"),
    (_LAYER + r"attention\.output\.LayerNorm\.(.+)", r"blocks.\1.norm1.\2"),
    (_LAYER + r"intermediate\.dense\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (_LAYER + r"output\.dense\.(.+)", r"blocks.\1.mlp.fc2.\2"),
    (_LAYER + r"output\.LayerNorm\.(.+)", r"blocks.\1.norm2.\2"),
    (r"transformer\.pooler\.dense\.(.+)", r"pooler.\1"),
    (r"proj\.weight", r"projection.0.weight"),
    (r"proj\.(\d)\.weight", r"projection.\1.weight"),
)


def _hugging_face_layers(attention: str, projection: str, rest: Table) -> Table:
    """transformers' layers of CLIP and SigLIP; the arguments are names within our layer."""
    layer = r"encoder\.layers\.(\d+)\."
    parts = enumerate(("q_proj", "k_proj", "v_proj"))
    return (
        *((rf"{layer}self_attn\.{part}\.(.+)", rf"{attention}\2.{i}") for i, part in parts),
        (layer + r"self_attn\.out_proj\.(.+)", projection),
        *((layer + name, new) for name, new in rest),
        (r"embeddings\.position_ids", r""),
    )


# transformers' CLIP, below ``text_model.`` or ``vision_model.``, to OpenAI's names.
_RESBLOCK = r"transformer.resblocks.\1."
HUGGING_FACE_CLIP: Table = (
    (r"embeddings\.token_embedding\.weight", r"token_embedding.weight"),
    (r"embeddings\.class_embedding", r"class_embedding"),
    (r"embeddings\.patch_embedding\.weight", r"conv1.weight"),
    (r"embeddings\.position_embedding\.weight", r"positional_embedding"),
    (r"pre_layrnorm\.(.+)", r"ln_pre.\1"),  # so spelt
    (r"post_layernorm\.(.+)", r"ln_post.\1"),
    (r"final_layer_norm\.(.+)", r"ln_final.\1"),
    *_hugging_face_layers(
        _RESBLOCK + "attn.in_proj_",
        _RESBLOCK + r"attn.out_proj.\2",
        (
            (r"layer_norm([12])\.(.+)", _RESBLOCK + r"ln_\2.\3"),
            (r"mlp\.fc1\.(.+)", _RESBLOCK + r"mlp.c_fc.\2"),
            (r"mlp\.fc2\.(.+)", _RESBLOCK + r"mlp.c_proj.\2"),
        ),
    ),
)

# transformers' SigLIP, below ``text_model.`` or ``vision_model.``, to our encoders' names.
HUGGING_FACE_SIGLIP: Table = (
    (r"embeddings\.token_embedding\.weight", r"tokens.weight"),
    (r"embeddings\.patch_embedding\.(.+)", r"patch_embed.proj.\1"),
    (r"embeddings\.position_embedding\.weight", r"positions"),
    (r"final_layer_norm\.(.+)", r"norm_last.\1"),
    (r"post_layernorm\.(.+)", r"norm.\1"),
    (r"head\.(weight|bias)", r"projection.0.\1"),
    (r"head\.probe", r"attn_pool.latent"),
    (r"head\.attention\.in_proj_(.+)", r"attn_pool.qkv.\1"),
    (r"head\.attention\.out_proj\.(.+)", r"attn_pool.proj.\1"),
    (r"head\.layernorm\.(.+)", r"attn_pool.norm.\1"),
    (r"head\.mlp\.(.+)", r"attn_pool.mlp.\1"),
    *_hugging_face_layers(
        r"blocks.\1.attn.qkv.",
        r"blocks.\1.attn.proj.\2",
        (
            (r"layer_norm([12])\.(.+)", r"blocks.\1.norm\2.\3"),
            (r"mlp\.(.+)", r"blocks.\1.mlp.\2"),
        ),
    ),
)

# CONCH's attentional pooling, below ``visual.``; the captions' pooling is not used.
CONCH_IMAGES: Table = (
    (r"(trunk\..+)", r"\1"),
    (r"attn_pool_contrast\.(.+)", r"trunk.attn_pool.\1"),
    (r"ln_contrast\.(.+)", r"trunk.attn_pool.norm.\1"),
    (r"proj_contrast", r"head.proj.weight.T"),
    (r"(attn_pool|ln|proj)_caption.*", r""),
)


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def renamed(tensors: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """``tensors`` by the names that ``table`` gives them; query, key and value are stacked.

    A new name that ends in ``.T`` transposes; one that ends in ``.0``, ``.1`` or ``.2`` is a part
    of a stacked tensor.

    Raises:
        KeyError: a tensor has a name that the table does not know.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = new_name(name, table)
        if new.endswith(".T"):
            found[new.removesuffix(".T")] = tensor.t()
        elif new:
            found[new] = tensor
    stacked = sorted({k[:-2] for k in found if re.search(r"\.[012]$", k)})
    for name in stacked:
        found[name] = torch.cat([found.pop(f"{name}.{i}") for i in range(3)])
    return found


def new_name(name: str, table: Table) -> str:
    """The name that ``table`` gives a tensor, with its marks for transposing and stacking."""
    for pattern, replacement in table:
        if match := re.fullmatch(pattern, name):
            return match.expand(replacement)
    raise KeyError(f"the tensor {name} is not known")
