"""Text encoders that read whole padded texts: BERT's, SigLIP's and CoCa's.

What a token becomes may depend on the tokens behind it, so no two texts share work.

- BERT (Devlin et al. 2019, https://arxiv.org/abs/1810.04805): bidirectional; padding is masked, so
  texts are cut to the longest of them; the first token or the mean is the feature.
- SigLIP (Zhai et al., ICCV 2023, https://arxiv.org/abs/2303.15343): bidirectional without a mask,
  padding is read, so texts are never cut; the last position is the feature.
- CoCa (Yu et al. 2022, https://arxiv.org/abs/2205.01917): causal, with a class embedding behind the
  padded text, which is the feature.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from backbones.backbone import StackedMaps, TextEncoder, count, new_module
from backbones.encoders.blocks import Block, LayerNorm
from backbones.encoders.token_tree import put
from backbones.texts import check_length, lay_out, strip_stop
from backbones.tokenizers import Tokenizer
from core.errors import InputError


@dataclass(frozen=True)
class TextShape:
    """What the tensors of a text encoder do not tell.

    Attributes:
        kind: bert, siglip or coca.
        pooling: first, mean, pooler (BERT's own: a tanh layer on the first token) or last.
        heads: None is one for each 64 channels.
    """

    kind: str
    pooling: str
    activation: str = "gelu"
    eps: float = 1e-12
    heads: int | None = None


class PaddedTexts(NamedTuple):
    """Texts padded to one length: ``PreparedTexts`` of these encoders.

    Attributes:
        x: [n * L, width] embeddings of the tokens, without their positions.
        is_text: [n, L], False behind a text's end.
        slots: [s] rows of context tokens. sources: [s] the context token in each slot.
    """

    x: Tensor
    is_text: Tensor
    slots: Tensor
    sources: Tensor

    @property
    def n_texts(self) -> int:
        return len(self.is_text)


class TextLayers(nn.Module):
    """The weights. Absent parts are None: what each kind has is in ``TransformerText``'s table."""

    def __init__(self, tensors: Mapping[str, Tensor], shape: TextShape) -> None:
        super().__init__()
        vocabulary, width = tensors["tokens.weight"].shape
        is_bert = shape.kind == "bert"
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty_like(tensors["positions"]))
        self.types = nn.Parameter(torch.zeros(width)) if is_bert else None
        self.norm_first = LayerNorm(width, eps=shape.eps) if is_bert else None
        self.class_token = nn.Parameter(torch.zeros(width)) if shape.kind == "coca" else None
        hidden = tensors["blocks.0.mlp.fc1.weight"].shape[0]
        heads = shape.heads or max(1, width // 64)
        self.blocks = nn.ModuleList(
            Block(width, heads, hidden, shape.activation, shape.eps, norm_first=not is_bert)
            for _ in range(count(tensors, "blocks."))
        )
        self.norm_last = None if is_bert else LayerNorm(width, eps=shape.eps)
        self.pooler = nn.Linear(width, width) if shape.pooling == "pooler" else None
        self.projection = _projection(tensors)


def _projection(tensors: Mapping[str, Tensor]) -> nn.Module:
    """Linear layers ``projection.0`` and ``.2`` with GELU between; without any, the identity."""
    layers: list[nn.Module] = []
    for place in (0, 2):
        weight = tensors.get(f"projection.{place}.weight")
        if weight is not None:
            has_bias = f"projection.{place}.bias" in tensors
            layers += [nn.GELU()] if place else []
            layers.append(nn.Linear(weight.shape[1], weight.shape[0], bias=has_bias))
    return nn.Sequential(*layers)


class TransformerText(TextEncoder):
    """A text encoder over padded texts.

    Args:
        tensors: named as ``TextLayers`` names its parameters.
        context_length: tokens of a text, at most.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        shape: TextShape,
        tokenizer: Tokenizer,
        context_length: int,
    ) -> None:
        super().__init__()
        self.shape, self.tokenizer, self.context_length = shape, tokenizer, context_length
        self.kind, self.unknown, self.pad = shape.kind, tokenizer.unknown, tokenizer.pad
        self.settings = (shape, tokenizer.fingerprint, context_length)
        self.layers = new_module(lambda: TextLayers(tensors, shape), tensors)
        self.width, self.depth = self.layers.tokens.embedding_dim, len(self.layers.blocks)
        self.n_special = len(tokenizer.start) + len(tokenizer.stop) + len(tokenizer.end)

    @property
    def dtype(self) -> torch.dtype:
        return self.layers.blocks[0].mlp.fc1.bias.dtype  # an adapted weight is computed when read

    def token_ids(self, texts: Iterable[str]) -> list[list[int]]:
        return [self.tokenizer.encode(text) for text in texts]

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return self.layers.tokens(ids)

    def vocabulary(self) -> tuple[list[str], Tensor]:
        rows = self.layers.tokens.num_embeddings
        words = {i: word for i, word in self.tokenizer.words().items() if i < rows}
        ids = torch.tensor(list(words), device=self.layers.positions.device)
        return list(words.values()), self.embed_tokens(ids)

    def layout(
        self,
        texts: Sequence[str],
        n_ctx: int = 0,
        position: str = "end",
        groups: Sequence[int] | None = None,
    ) -> list[list[int]]:
        """``start context words stop end``, each part as the tokenizer has it."""
        check_length(texts, self.context_length)
        tokenizer = self.tokenizer
        behind = n_ctx > 0 and position != "front"
        words = [tokenizer.encode(strip_stop(text), behind) for text in texts]
        end = [*tokenizer.stop, *tokenizer.end]
        return lay_out(
            texts, words, tokenizer.start, end, self.context_length, n_ctx, position, groups
        )

    def prepare(
        self,
        texts: Sequence[str],
        n_ctx: int = 0,
        position: str = "end",
        groups: Sequence[int] | None = None,
    ) -> PaddedTexts:
        """Padded to one length."""
        device = self.layers.positions.device
        rows = self.layout(texts, n_ctx, position, groups)
        length = self._padded_length(max(map(len, rows)))
        ids = torch.tensor([row + [self.pad] * (length - len(row)) for row in rows])
        if (largest := int(ids.max())) >= self.layers.tokens.num_embeddings:
            raise InputError(
                f"the tokenizer gives the token id {largest:,}, but the text encoder has "
                f"{self.layers.tokens.num_embeddings:,} token embeddings: the tokenizer's files "
                "are another model's"
            )
        lengths = torch.tensor([len(row) for row in rows]).unsqueeze(1)
        is_text = torch.arange(length) < lengths
        flat = ids.flatten().to(device)
        (slots,) = torch.where(flat < 0)
        x = self.embed_tokens(flat.clamp(min=0)).to(self.dtype)
        return PaddedTexts(x, is_text.to(device), slots, -1 - flat[slots])

    def linear_maps(self) -> list[list[StackedMaps]]:
        return [block.linear_maps() for block in self.layers.blocks]

    def _padded_length(self, longest: int) -> int:
        if self.shape.kind == "siglip":
            return self.context_length
        # CoCa's class embedding reads the first padding too: see _mask.
        return min(longest + (self.shape.kind == "coca"), self.context_length)

    def encode(
        self,
        prepared: PaddedTexts,
        learned: Tensor | None = None,
        deep: Sequence[Tensor | None] = (),
    ) -> Tensor:
        layers, slots = self.layers, prepared.slots
        m = 1 if learned is None else len(learned)
        n, length = prepared.is_text.shape
        x = prepared.x.expand(m, -1, -1)  # [m, n * L, width]
        if learned is not None:
            x = put(x, slots, learned)
        x = self._embedded(x.reshape(m * n, length, -1))
        mask = self._mask(prepared.is_text)
        if mask is not None:
            mask = mask.repeat(m, 1, 1, 1)
        for i, block in enumerate(layers.blocks):
            if 0 < i <= len(deep) and (tokens := deep[i - 1]) is not None:
                text = put(x[:, :length].reshape(m, n * length, -1), slots, tokens)
                x = torch.cat([text.reshape(m * n, length, -1), x[:, length:]], dim=1)
            x = block(x, mask)
        return layers.projection(self._pooled(x, prepared.is_text.repeat(m, 1)))

    def _embedded(self, x: Tensor) -> Tensor:
        """The input of the first layer, [n, L (+ 1), width], of token embeddings [n, L, width]."""
        layers = self.layers
        positions = layers.positions[: x.shape[1]]
        if layers.class_token is not None:  # behind the longest text that there could be
            x = torch.cat([x, layers.class_token.to(x.dtype).expand(len(x), 1, -1)], dim=1)
            positions = torch.cat([positions, layers.positions[-1:]])
        x = x + positions.to(x.dtype)
        if layers.types is not None:
            x = layers.norm_first(x + layers.types.to(x.dtype))
        return x

    def _mask(self, is_text: Tensor) -> Tensor | None:
        """[n, 1, 1 or L, L] True where a position may be read; None where all may."""
        if self.shape.kind == "siglip":
            return None
        if self.shape.kind == "bert":
            return is_text[:, None, None]
        # CoCa as it was trained: the mask of the padding stands one place too far, so that the
        # class embedding reads the padding behind a text and not itself.
        shifted = torch.cat([torch.ones_like(is_text[:, :1]), is_text], dim=1)
        causal = torch.ones(2 * shifted.shape[1:], dtype=torch.bool, device=is_text.device).tril()
        return causal & shifted[:, None, None]

    def _pooled(self, x: Tensor, is_text: Tensor) -> Tensor:
        """[n, width] of the last layer's output [n, L (+ 1), width]."""
        layers, pooling = self.layers, self.shape.pooling
        if pooling == "mean":
            weights = is_text.unsqueeze(2).to(x.dtype)
            return (x * weights).sum(1) / weights.sum(1)
        x = x[:, -1 if pooling == "last" else 0]
        if layers.norm_last is not None:
            x = layers.norm_last(x)
        return x if layers.pooler is None else torch.tanh(layers.pooler(x))
