"""Causal text encoding without repetition: each distinct beginning of the texts is encoded once.

What a token becomes under causal attention depends on the tokens before it and on nothing else, so
texts with a common beginning, a learned context above all, share its rows. For a bidirectional text
encoder this would be wrong.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.encoders.clip_layers import OpenAttention, project
from backbones.numerics import take


class TokenTree(NamedTuple):
    """The prefix tree of n texts, one row for each distinct beginning.

    Attributes:
        tokens: [rows] token ids; -1 - i where context token i goes.
        positions: [rows] place of each token in its texts.
        slots: [s] the rows of context tokens.
        paths: [n, L] rows of each text's tokens, L the longest text; behind its end row 0, which
            nothing reads.
        at: [rows] a place where the row stands in ``paths.flatten()``.
        ends: [n] the row of each text's last token. lengths: [n] its tokens.
    """

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    paths: Tensor
    at: Tensor
    ends: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]]) -> "TokenTree":
        """The tree of token ids as ``backbones.texts.lay_out`` gives them."""
        rows: dict[tuple[int | None, int], int] = {}  # (row of the token before, token) -> row
        paths = []
        for text in texts:
            path: list[int] = []
            for token in text:
                before = path[-1] if path else None
                path.append(rows.setdefault((before, token), len(rows)))
            paths.append(path)
        longest = max(map(len, paths))
        at = {row: n * longest + i for n, path in enumerate(paths) for i, row in enumerate(path)}
        places = torch.tensor([at[row] for row in range(len(rows))])
        tokens = torch.tensor([token for _, token in rows])
        return cls(
            tokens=tokens,
            positions=places % longest,
            slots=torch.where(tokens < 0)[0],
            paths=torch.tensor([path + [0] * (longest - len(path)) for path in paths]),
            at=places,
            ends=torch.tensor([path[-1] for path in paths]),
            lengths=torch.tensor([len(path) for path in paths]),
        )

    def to(self, device: torch.device) -> "TokenTree":
        return TokenTree(*(value.to(device) for value in self))

    def copies(self, m: int) -> "TokenTree":
        """These texts m times over, m * rows in all, for the layers; the copies share nothing."""
        if m == 1:
            return self
        each = torch.arange(m, device=self.paths.device).unsqueeze(1)
        rows = len(self.tokens)
        return self._replace(
            paths=(self.paths + each.unsqueeze(2) * rows).flatten(0, 1),
            at=(self.at + each * self.paths.numel()).flatten(),
            ends=(self.ends + each * rows).flatten(),
            lengths=self.lengths.repeat(m),
        )


class TreeTexts(NamedTuple):
    """Texts prepared for a causal encoder: ``PreparedTexts`` of OpenAI's CLIP.

    Attributes:
        tree: their tree, on the device. sources: [s] the context token in each slot.
        x: [rows, text_width] token and position embeddings.
        slot_positions: [s, text_width] the position embeddings of the slots.
    """

    tree: TokenTree
    sources: Tensor
    x: Tensor
    slot_positions: Tensor

    @property
    def n_texts(self) -> int:
        return len(self.tree.ends)


def put(x: Tensor, slots: Tensor, values: Tensor) -> Tensor:
    """Replace the rows ``slots`` of each copy.

    Args:
        x: [m, rows, width]. values: [m or 1, s, width].
    """
    return x.index_copy(1, slots, values.to(x.dtype).expand(len(x), -1, -1))


def attend(attention: nn.MultiheadAttention | OpenAttention, x: Tensor, tree: TokenTree) -> Tensor:
    """Causal self-attention of each text over the rows on its path, [rows, width] to the same."""
    projected = project(attention, x)
    each = take(projected, tree.paths)  # [n, L, 3 * width]
    query, key, value = each.unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    read = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    read = read.transpose(1, 2).reshape(-1, x.shape[1])  # [n * L, width]
    return attention.out_proj(take(read, tree.at))


def attend_ends(
    attention: nn.MultiheadAttention | OpenAttention, x: Tensor, tree: TokenTree
) -> Tensor:
    """The same for the last token of each text alone: [rows, width] to [n, width]."""
    width, heads = x.shape[1], attention.num_heads
    projected = project(attention, x)
    query = take(projected[:, :width], tree.ends).unflatten(1, (heads, 1, -1))
    others = take(projected[:, width:], tree.paths)  # [n, L, 2 * width]
    key, value = others.unflatten(2, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    places = torch.arange(key.shape[2], device=x.device)
    mask = places < tree.lengths.view(-1, 1, 1, 1)
    read = F.scaled_dot_product_attention(query, key, value, mask)  # [n, heads, 1, width / heads]
    return attention.out_proj(read.flatten(1))
