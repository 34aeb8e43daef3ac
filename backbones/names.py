"""Tables that rename other libraries' tensors to the names of our encoders' parameters."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# Pairs of a pattern for the whole name and its replacement; "" leaves the tensor out. The three
# parts of a stacked tensor have names that end in qkv.0, qkv.1 and qkv.2.
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
    (r"attn_mask", r""),
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


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def renamed(tensors: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """``tensors`` by the names that ``table`` gives them; query, key and value are stacked.

    A new name that ends in ``.T`` transposes; one that ends in ``.0``, ``.1`` or ``.2`` behind
    ``qkv.weight`` or ``qkv.bias`` is a part of a stacked tensor.

    Raises:
        KeyError: a tensor has a name that the table does not know.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = _new_name(name, table)
        if new.endswith(".T"):
            found[new.removesuffix(".T")] = tensor.t()
        elif new:
            found[new] = tensor
    stacked = sorted({k[:-2] for k in found if re.search(r"qkv\.(weight|bias)\.\d$", k)})
    for name in stacked:
        found[name] = torch.cat([found.pop(f"{name}.{i}") for i in range(3)])
    return found


def _new_name(name: str, table: Table) -> str:
    for pattern, replacement in table:
        if match := re.fullmatch(pattern, name):
            return match.expand(replacement)
    raise KeyError(f"the tensor {name} is not known")
