"""The transformer layers of every encoder that OpenAI's ``clip`` package does not define.

Names of parameters are timm's (``norm1, attn.qkv, attn.proj, norm2, mlp.fc1, mlp.fc2``).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import clip.model
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from backbones.backbone import StackedMaps
from backbones.gradient_maps import read_with_weights
from backbones.numerics import at_least_fp32

CACHED = 64 * 1024  # numbers that a thread works on at a time: they stay in its core's cache


class QuickGELU(clip.model.QuickGELU):
    """x * sigmoid(1.702 x), value and gradient to the bit as the ``clip`` package has them.

    On a CPU a tensor beyond a core's cache is computed part by part: whole tensors for each step
    of the formula would take several times as long to write and to read as the function takes to
    compute. What needs no gradient is then overwritten.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not x.is_contiguous() or x.numel() <= CACHED:
            return super().forward(x)
        if x.requires_grad:
            return _QuickGELUByParts.apply(x)
        for part in _parts(x):
            part.mul_((1.702 * part).sigmoid_())
        return x


class _QuickGELUByParts(torch.autograd.Function):
    """With a gradient; it keeps x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        y = torch.empty_like(x)
        for x_part, y_part in zip(_parts(x), _parts(y), strict=True):
            torch.mul(x_part, (1.702 * x_part).sigmoid_(), out=y_part)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_x = torch.empty_like(x)
        every = (_parts(x), _parts(gradient), _parts(of_x))
        for x_part, part, of_part in zip(*every, strict=True):
            gate = (1.702 * x_part).sigmoid_()
            inner = torch.ops.aten.sigmoid_backward(part * x_part, gate).mul_(1.702)
            torch.mul(part, gate, out=of_part).add_(inner)
        return of_x


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    return x.view(-1).split(CACHED * torch.get_num_threads())


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "quick_gelu": QuickGELU,  # x * sigmoid(1.702 x)
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
}


class LayerNorm(nn.LayerNorm):
    """Computes in at least fp32, whatever the precision of its input."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(at_least_fp32(input)).to(input.dtype)


def checked_heads(width: int, heads: int) -> int:
    """``heads`` of an attention over ``width`` channels; raises ValueError if they do not fit."""
    if width % heads:
        raise ValueError(f"{heads} attention heads do not divide a width of {width} channels")
    return heads


def _read(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, seen: list[Tensor] | None
) -> Tensor:
    if seen is None:
        return F.scaled_dot_product_attention(query, key, value, mask)
    if mask is not None:
        raise ValueError("masked attention does not keep its weights")
    read, weights = read_with_weights(query, key, value)
    seen.append(weights)
    return read


class Attention(nn.Module):
    """Multi-head self-attention.

    Here and in what is made of it, a list ``seen`` is given the attention weights [batch, heads,
    queries, keys], with gradients. Only the first ``reads`` positions read, and are returned; None
    stands for all.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = checked_heads(width, heads)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        seen: list[Tensor] | None = None,
        reads: int | None = None,
    ) -> Tensor:
        """[batch, L, width] to [batch, ``reads``, width]; ``mask`` is True where one may read."""
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        read = _read(query[:, :, :reads], key, value, mask, seen)
        return self.proj(read.transpose(1, 2).flatten(2))

    def value_of_each(self, x: Tensor) -> Tensor:
        """What each position would read if it read itself alone, [batch, L, width]."""
        width = x.shape[-1]
        return self.proj(F.linear(x, self.qkv.weight[2 * width :], self.qkv.bias[2 * width :]))


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = ACTIVATIONS[activation]()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """One transformer layer.

    Args:
        norm_first: norms before attention and feed-forward (ViT, CLIP) or after the sums (BERT).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        activation: str,
        eps: float,
        norm_first: bool = True,
    ) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.norm1 = LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads)
        self.norm2 = LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, hidden, activation)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        seen: list[Tensor] | None = None,
        reads: int | None = None,
    ) -> Tensor:
        if self.norm_first:
            x = x[:, :reads] + self.attn(self.norm1(x), mask, seen, reads)
            return x + self.mlp(self.norm2(x))
        x = self.norm1(x[:, :reads] + self.attn(x, mask, seen, reads))
        return self.norm2(x + self.mlp(x))

    def linear_maps(self) -> list[StackedMaps]:
        """As one layer of ``ImageEncoder.linear_maps``."""
        return [
            StackedMaps(self.attn.qkv, ("q", "k", "v")),
            StackedMaps(self.attn.proj, ("out",)),
            StackedMaps(self.mlp.fc1, ("up",)),
            StackedMaps(self.mlp.fc2, ("down",)),
        ]


class AttentionPool(nn.Module):
    """One learned query reads all positions (the ``map`` pooling of SigLIP, as timm names it)."""

    def __init__(self, width: int, heads: int, hidden: int, activation: str, eps: float) -> None:
        super().__init__()
        self.heads = checked_heads(width, heads)
        self.latent = nn.Parameter(torch.zeros(1, 1, width))
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm = LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, hidden, activation)

    def forward(self, x: Tensor, seen: list[Tensor] | None = None) -> Tensor:
        """[batch, L, width] to [batch, width]."""
        query = self.q(self.latent.to(x.dtype)).expand(len(x), -1, -1)
        query = query.unflatten(2, (self.heads, -1)).transpose(1, 2)
        key, value = self.kv(x).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        read = _read(query, key, value, None, seen)
        return self._finish(read.transpose(1, 2).flatten(2))[:, 0]

    def alone(self, x: Tensor) -> Tensor:
        """The pooled feature of each position, if it were the only one: [batch, L, width]."""
        return self._finish(self.kv(x)[..., x.shape[-1] :])

    def _finish(self, read: Tensor) -> Tensor:
        read = self.proj(read)
        return read + self.mlp(self.norm(read))


class CocaPool(nn.Module):
    """One learned query in the joint space reads all positions, the class token among them.

    Yu et al. 2022, https://arxiv.org/abs/2205.01917, section 3.2; names as in CONCH.
    """

    def __init__(self, width: int, heads: int, embed_dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, embed_dim))
        self.ln_q, self.ln_k = LayerNorm(embed_dim), LayerNorm(width)
        self.attn = nn.MultiheadAttention(
            embed_dim, heads, kdim=width, vdim=width, batch_first=True
        )
        self.norm = LayerNorm(embed_dim)

    def forward(self, x: Tensor, seen: list[Tensor] | None = None) -> Tensor:
        """[batch, L, width] to [batch, embed_dim]."""
        x = self.ln_k(x)
        query = self.ln_q(self.query.to(x.dtype)).expand(len(x), -1, -1)
        if seen is None:
            read, _ = self.attn(query, x, x, need_weights=False)
        else:
            read = self._read_openly(query, x, seen)
        return self.norm(read)[:, 0]

    def _read_openly(self, query: Tensor, x: Tensor, seen: list[Tensor]) -> Tensor:
        """The attention written out: torch's does not give weights that have gradients."""
        projections = (self.attn.q_proj_weight, self.attn.k_proj_weight, self.attn.v_proj_weight)
        biases = self.attn.in_proj_bias.chunk(3)
        query, key, value = (
            F.linear(of, weight, bias).unflatten(2, (self.attn.num_heads, -1)).transpose(1, 2)
            for of, weight, bias in zip((query, x, x), projections, biases, strict=True)
        )
        read = _read(query, key, value, None, seen)
        return self.attn.out_proj(read.transpose(1, 2).flatten(2))

    def alone(self, x: Tensor) -> Tensor:
        """The pooled feature of each position, if it were the only one: [batch, L, embed_dim]."""
        bias = self.attn.in_proj_bias[-self.attn.embed_dim :]
        return self.norm(self.attn.out_proj(F.linear(self.ln_k(x), self.attn.v_proj_weight, bias)))
