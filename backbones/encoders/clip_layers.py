"""The transformer layers that OpenAI's ``clip`` package defines, opened for what adapts them."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from backbones.backbone import StackedMaps


class OpenAttention(nn.Module):
    """A ``nn.MultiheadAttention`` whose stacked projections are a module, over the same weights.

    What adapts a map changes the module's weight or its output; ``nn.MultiheadAttention`` reads
    its weights inside one function.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.num_heads = attention.embed_dim, attention.num_heads
        self.head_dim = attention.head_dim
        self.qkv = nn.Linear(self.embed_dim, 3 * self.embed_dim, device="meta")
        self.qkv.weight, self.qkv.bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj

    @property
    def in_proj_weight(self) -> Tensor:
        return self.qkv.weight

    @property
    def in_proj_bias(self) -> Tensor:
        return self.qkv.bias

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Self-attention, as the layers call it: [L, batch, width] to the same, no weights."""
        q, k, v = heads_of(self, query)
        read = F.scaled_dot_product_attention(q, k, v, attn_mask)
        return self.out_proj(read.permute(2, 0, 1, 3).flatten(2)), None


def project(attention: nn.MultiheadAttention | OpenAttention, x: Tensor) -> Tensor:
    """The queries, keys and values of x [..., width]: [..., 3 * width]."""
    if isinstance(attention, OpenAttention):
        return attention.qkv(x)
    return F.linear(x, attention.in_proj_weight, attention.in_proj_bias)


def heads_of(attention: nn.MultiheadAttention | OpenAttention, x: Tensor) -> Tensor:
    """[3, batch, heads, L, width / heads]: queries, keys and values of x [L, batch, width]."""
    return project(attention, x).unflatten(2, (3, attention.num_heads, -1)).permute(2, 1, 3, 0, 4)


def read_by_first(attention: nn.MultiheadAttention | OpenAttention, x: Tensor) -> Tensor:
    """What the first place of x [L, batch, width] reads of all: [1, batch, width]."""
    query, key, value = heads_of(attention, x)
    read = F.scaled_dot_product_attention(query[:, :, :1], key, value)
    return attention.out_proj(read.permute(2, 0, 1, 3).flatten(2))


def linear_maps(blocks: Iterable[Any]) -> list[list[StackedMaps]]:
    """As ``ImageEncoder.linear_maps``, of these layers; their attention becomes open."""
    maps = []
    for block in blocks:
        if not isinstance(block.attn, OpenAttention):
            block.attn = OpenAttention(block.attn)
        maps.append(
            [
                StackedMaps(block.attn.qkv, ("q", "k", "v")),
                StackedMaps(block.attn.out_proj, ("out",)),
                StackedMaps(block.mlp.c_fc, ("up",)),
                StackedMaps(block.mlp.c_proj, ("down",)),
            ]
        )
    return maps
