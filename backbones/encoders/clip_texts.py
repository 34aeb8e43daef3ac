"""The causal text encoder of OpenAI's CLIP, and what it shares between texts.

Radford et al. 2021, https://arxiv.org/abs/2103.00020
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from clip.model import CLIP
from torch import Tensor, nn

from backbones.backbone import StackedMaps, TextEncoder, count, new_module
from backbones.encoders.blocks import checked_heads
from backbones.encoders.clip_images import set_layers
from backbones.encoders.clip_layers import linear_maps
from backbones.encoders.token_tree import TokenTree, TreeTexts, attend, attend_ends, put
from backbones.numerics import at_least_fp32, take
from backbones.texts import check_length, lay_out, strip_stop
from backbones.tokenizers import END, START, clip_token_ids, clip_tokenizer
from core.errors import InputError


class ClipText(TextEncoder):
    """The text side of a ``clip.model.CLIP``, whose parts become this encoder's own."""

    kind = "clip"

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.token_embedding, self.positional_embedding = (
            model.token_embedding,
            model.positional_embedding,
        )
        self.transformer, self.ln_final = model.transformer, model.ln_final
        self.text_projection = model.text_projection
        self.width, self.context_length = model.ln_final.weight.shape[0], model.context_length
        self.depth = len(model.transformer.resblocks)
        self.n_special = 3  # start, full stop, end

    @property
    def dtype(self) -> torch.dtype:
        return self.text_projection.dtype

    def token_ids(self, texts: Iterable[str]) -> list[list[int]]:
        return clip_token_ids(texts)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return at_least_fp32(self.token_embedding(ids))  # its rows may be halves, as in a file

    def layout(
        self,
        texts: Sequence[str],
        n_ctx: int = 0,
        position: str = "end",
        groups: Sequence[int] | None = None,
    ) -> list[list[int]]:
        """``[SOS] context words "." [EOS]``.

        Words and stop are tokenised apart: a phrase that ends in ")" would else merge with it.
        """
        check_length(texts, self.context_length)
        special = clip_tokenizer().encoder
        (stop,) = clip_token_ids(["."])
        words = clip_token_ids(map(strip_stop, texts))
        start, end = [special[START]], [*stop, special[END]]
        return lay_out(texts, words, start, end, self.context_length, n_ctx, position, groups)

    def prepare(
        self,
        texts: Sequence[str],
        n_ctx: int = 0,
        position: str = "end",
        groups: Sequence[int] | None = None,
    ) -> TreeTexts:
        """As a tree of the texts' tokens."""
        tree = TokenTree.of(self.layout(texts, n_ctx, position, groups))
        tree = tree.to(self.positional_embedding.device)
        positions = self.positional_embedding[tree.positions].to(self.dtype)
        x = self.embed_tokens(tree.tokens.clamp(min=0)).to(self.dtype) + positions
        return TreeTexts(tree, -1 - tree.tokens[tree.slots], x, positions[tree.slots])

    def encode(
        self,
        prepared: TreeTexts,
        learned: Tensor | None = None,
        deep: Sequence[Tensor | None] = (),
    ) -> Tensor:
        tree, x, m = prepared.tree, prepared.x, 1
        if learned is not None:
            m = len(learned)
            learned = learned.to(self.dtype) + prepared.slot_positions
            x = put(x.expand(m, -1, -1), tree.slots, learned).flatten(0, 1)  # [m * rows, d_txt]
        copies = tree.copies(m)
        for i, block in enumerate(self.transformer.resblocks):
            if 0 < i <= len(deep) and (tokens := deep[i - 1]) is not None:
                x = put(x.unflatten(0, (m, -1)), tree.slots, tokens).flatten(0, 1)
            if i < self.depth - 1:
                x = x + attend(block.attn, block.ln_1(x), copies)
            else:  # nothing but the end tokens is read behind the last layer
                x = take(x, copies.ends) + attend_ends(block.attn, block.ln_1(x), copies)
            x = x + block.mlp(block.ln_2(x))
        return self.ln_final(x).to(self.dtype) @ self.text_projection

    def linear_maps(self) -> list[list[StackedMaps]]:
        return linear_maps(self.transformer.resblocks)

    def vocabulary(self) -> tuple[list[str], Tensor]:
        """A word's last token ends in ``</w>``, which is left out."""
        decoder = clip_tokenizer().decoder
        words = {i: word for i, word in decoder.items() if word not in (START, END)}
        ids = torch.tensor(list(words), device=self.positional_embedding.device)
        return [word.removesuffix("</w>") for word in words.values()], self.embed_tokens(ids)


def check_vocabulary(rows: int) -> None:
    """Raise InputError for a token table of another tokenizer: words would be read as others."""
    known = len(clip_tokenizer().encoder)
    if rows != known:
        raise InputError(
            f"the token table has {rows:,} rows; a causal text encoder is supported with the "
            f"tokenizer of OpenAI's CLIP alone, which has {known:,} tokens"
        )


def clip_text_of(
    tensors: Mapping[str, Tensor],
    activation: str = "quick_gelu",
    heads: int | None = None,
    eps: float = 1e-5,
) -> ClipText:
    """An encoder from the tensors of its tower alone, in OpenAI's names.

    Raises:
        KeyError, RuntimeError: a tensor is missing or has another shape.
        InputError: the token table is of another tokenizer than OpenAI's.
    """
    width, embed_dim = tensors["text_projection"].shape
    check_vocabulary(len(tensors["token_embedding.weight"]))
    heads = checked_heads(width, heads or max(1, width // 64))

    def make() -> CLIP:
        model = CLIP(
            embed_dim=embed_dim,
            image_resolution=1,
            vision_layers=0,
            vision_width=64,
            vision_patch_size=1,
            context_length=len(tensors["positional_embedding"]),
            vocab_size=len(tensors["token_embedding.weight"]),
            transformer_width=width,
            transformer_heads=heads,
            transformer_layers=count(tensors, "transformer.resblocks."),
        )
        model.visual = nn.Identity()  # a text tower alone is wanted
        del model.logit_scale
        set_layers(model, activation, heads, eps)
        return model

    return ClipText(new_module(make, tensors))
