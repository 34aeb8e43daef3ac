"""The layers of CLIP's frozen text encoder, over a tree of tokens.

The weights are those of the clip package's model. Every distinct token goes through a layer once;
words are projected once for all steps in the first, and only end tokens are in the last.
"""

from typing import NamedTuple

import torch
from clip.model import QuickGELU
from torch import nn
from torch.nn import functional as F

# A tree of no more rows is masked on a CPU, where more would cost more than gathering each text's.
MAX_MASKED_ROWS = 192


def at_least_fp32(x):
    """``x`` in fp32, or as it is where it is fp64 (the tests' precision)."""
    return x if x.dtype == torch.float64 else x.float()


def take(rows, places):
    """``rows[places]``, for a gradient that can be repeated.

    A row that is taken more than once adds up its gradients: here in one order and in fp32, where
    indexing would add them as its threads come, and half precision lose most of hundreds.

    Args:
        rows: [n, width]. places: indices of any shape.

    Returns:
        [*places.shape, width] in the precision of ``rows``.
    """
    return F.embedding(places, at_least_fp32(rows)).to(rows.dtype)


def norm(x, weights):
    """Layer norm of ``x`` [..., width] by (weight, bias), in at least fp32, as CLIP has it."""
    return F.layer_norm(at_least_fp32(x), weights[0].shape, *weights).to(x.dtype)


def fuse_activations(transformer):
    """Have a frozen transformer compute the same with one operation in place of three.

    Its activation x * sigmoid(1.702 x) is silu(1.702 x) / 1.702; both factors go into the weights
    beside it.
    """
    for block in transformer.resblocks:
        if isinstance(block.mlp.gelu, QuickGELU):
            block.mlp.gelu = nn.SiLU()
            block.mlp.c_fc.weight.data *= 1.702
            block.mlp.c_fc.bias.data *= 1.702
            block.mlp.c_proj.weight.data /= 1.702


class TokenTree(NamedTuple):
    """The prefix tree of some texts: the tokens that CLIP's text encoder reads, each once.

    Attention is causal: what a token becomes depends on the tokens before it and on nothing else,
    so texts with a common prefix, a learned context above all, share its rows.

    Attributes:
        positions: [rows] place of each distinct token in its texts.
        slots: [s] rows where something learned goes.
        paths: [n, L] rows of each text's tokens, L the longest text; row 0, which nothing reads,
            behind the end token.
        at: [rows] a place where the row stands in ``paths.flatten()``.
        eos: [n] position of each text's end token. ends: [n] its row.
        seen: [rows, rows] whether a row reads another: itself, and those before it in a text; None
            where there are more than ``MAX_MASKED_ROWS``.
    """

    positions: torch.Tensor
    slots: torch.Tensor
    paths: torch.Tensor
    at: torch.Tensor
    eos: torch.Tensor
    ends: torch.Tensor
    seen: torch.Tensor | None

    def to(self, device):
        return TokenTree(*(value if value is None else value.to(device) for value in self))

    def copies(self, m):
        """These n texts m times over, m * rows in all, with nothing in common between them.

        What is the same for each of them, ``positions``, ``slots`` and ``seen``, stays one copy's.
        """
        if m == 1:
            return self
        rows = len(self.positions)
        each = torch.arange(m, device=self.paths.device).unsqueeze(1)
        return self._replace(
            paths=(self.paths + each.unsqueeze(2) * rows).flatten(0, 1),
            at=(self.at + each * self.paths.numel()).flatten(),
            eos=self.eos.repeat(m),
            ends=(self.ends + each * rows).flatten(),
        )


class TextInputs(NamedTuple):
    """Texts as ``FrozenCLIP.read`` gives them: everything that no learned number changes.

    Attributes:
        tree: their ``TokenTree``.
        x: [rows, text_width] embeddings of its tokens with their positions'.
        position_embeddings: [s, text_width] those of ``tree.slots``.
        projected: [rows, 3 * text_width] queries, keys and values of ``x`` in the first layer.
        mask: [rows, rows] of 0 where a row reads another, else -inf; None where each text's rows
            are gathered instead. end_mask: [n * heads, rows] the same of the end tokens.
    """

    tree: TokenTree
    x: torch.Tensor
    position_embeddings: torch.Tensor
    projected: torch.Tensor
    mask: torch.Tensor | None
    end_mask: torch.Tensor | None

    def place(self, rows, learned):
        """``rows`` [rows, width] with ``learned`` [m, s, width] at the slots: [m * rows, width]."""
        rows = rows.expand(len(learned), -1, -1)
        return rows.index_copy(1, self.tree.slots, learned).flatten(0, 1)


class Layer(NamedTuple):
    """A layer's weights, each a (weight, bias).

    Looked up once: on a small CLIP, to find them takes as long as to multiply by them.
    """

    n_heads: int
    ln_1: tuple
    in_proj: tuple
    out_proj: tuple
    ln_2: tuple
    c_fc: tuple
    c_proj: tuple

    @classmethod
    def of(cls, block):
        """The weights of a ``clip.model.ResidualAttentionBlock`` after ``fuse_activations``."""
        attention, mlp = block.attn, block.mlp
        modules = block.ln_1, attention.out_proj, block.ln_2, mlp.c_fc, mlp.c_proj
        ln_1, *others = [(module.weight, module.bias) for module in modules]
        in_proj = attention.in_proj_weight, attention.in_proj_bias
        return cls(attention.num_heads, ln_1, in_proj, *others)

    def project(self, x):
        """[..., width] what the layer reads -> [..., 3 * width] its queries, keys and values."""
        return F.linear(norm(x, self.ln_1), *self.in_proj)

    def attend(self, projected, inputs):
        """Causal self-attention of texts, by PyTorch's fused kernels.

        Under a mask every row looks at all rows of its tree; else each text's are gathered.

        Args:
            projected: [rows, 3 * width], from ``project``.

        Returns:
            [rows, width]
        """
        mask, width = inputs.mask, projected.shape[1] // 3
        if mask is None:
            heads = take(projected, inputs.tree.paths)
        else:
            heads = projected.view(-1, len(mask), 3 * width)
        query, key, value = heads.unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None)
        x = x.transpose(1, 2).reshape(-1, width)
        if mask is None:
            x = take(x, inputs.tree.at)
        return F.linear(x, *self.out_proj)

    def feed_forward(self, x):
        """[rows, width] -> [rows, width]"""
        return F.linear(F.silu(F.linear(norm(x, self.ln_2), *self.c_fc)), *self.c_proj)


class LastAttention(nn.Module):
    """The attention of the last layer, where nothing but the end tokens is needed.

    A head's score is (Wq x) . (Wk y) = (Wk' Wq x) . y, and what it adds, Wo Wv of a mean of y: with
    both products made once, only end tokens are multiplied by weights. A bias of the keys would
    shift all scores of a token alike.

    Args:
        attention: an ``nn.MultiheadAttention``.

    Source: "weight absorption", DeepSeek-AI 2024, https://arxiv.org/abs/2405.04434, section 2.1.2.
    """

    def __init__(self, attention):
        super().__init__()
        self.n_heads, width = attention.num_heads, attention.embed_dim
        weight, bias = attention.in_proj_weight.detach(), attention.in_proj_bias.detach()
        w_out, b_out = attention.out_proj.weight.detach(), attention.out_proj.bias.detach()
        # [heads, width / heads, width] each, and their biases; w_out [heads, width, width / heads].
        w_query, w_key, w_value = at_least_fp32(weight).view(3, self.n_heads, -1, width)
        b_query, _, b_value = at_least_fp32(bias).view(3, self.n_heads, -1, 1)
        w_out = at_least_fp32(w_out).view(width, self.n_heads, -1).transpose(0, 1)
        buffers = {
            "w_query": (w_key.mT @ w_query).flatten(0, 1),
            "b_query": (w_key.mT @ b_query).flatten(),
            "w_out": (w_out @ w_value).transpose(0, 1).flatten(1),
            "b_out": (w_out @ b_value).sum(dim=0).flatten() + b_out,
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.to(weight.dtype), persistent=False)

    def forward(self, x, inputs):
        """[rows, width] normalised -> [n, width]."""
        tree, width = inputs.tree, x.shape[1]
        if inputs.mask is None:
            keys = take(x, tree.paths)
            mask = torch.arange(keys.shape[1], device=x.device) <= tree.eos.view(-1, 1, 1, 1)
        else:
            keys, mask = x.view(-1, len(inputs.mask), width), inputs.end_mask
        keys = keys.unsqueeze(1)  # [m, 1, rows or L, width]: all heads look at the same
        query = F.linear(take(x, tree.ends), self.w_query, self.b_query)
        query = query.view(len(keys), 1, -1, width)  # [m, 1, n / m * heads, width]
        scale = (width // self.n_heads) ** -0.5
        x = F.scaled_dot_product_attention(query, keys, keys, mask, scale=scale)
        return F.linear(x.view(len(tree.ends), -1), self.w_out, self.b_out)
