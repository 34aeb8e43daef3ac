"""Vision transformers as timm defines them: with a class token, or pooled by attention.

Dosovitskiy et al., ICLR 2021, https://arxiv.org/abs/2010.11929; SigLIP: Zhai et al., ICCV 2023,
https://arxiv.org/abs/2303.15343; CoCa: Yu et al. 2022, https://arxiv.org/abs/2205.01917
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from backbones.backbone import ImageEncoder, StackedMaps, count, new_module
from backbones.encoders.blocks import AttentionPool, Block, CocaPool, LayerNorm
from backbones.gradient_maps import attention_maps
from core.errors import InputError


class Trunk(nn.Module):
    """The transformer; parameters are named as timm's ``VisionTransformer`` names them.

    Args:
        side: patches in a row.
        pool: token (the class token), map (SigLIP's attention) or coca (CoCa's).
        pool_heads, pool_dim: CoCa's pooling alone reads them.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        patch: int,
        side: int,
        activation: str,
        eps: float,
        pool: str,
        pool_heads: int = 8,
        pool_dim: int = 0,
    ) -> None:
        super().__init__()
        has_class = pool != "map"
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, kernel_size=patch, stride=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if has_class else None
        n_tokens = side * side + has_class
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, n_tokens, width))
        self.blocks = nn.ModuleList(
            Block(width, heads, hidden, activation, eps) for _ in range(depth)
        )
        self.norm = LayerNorm(width, eps=eps)
        self.attn_pool: AttentionPool | CocaPool | None = None
        if pool == "map":
            self.attn_pool = AttentionPool(width, heads, hidden, activation, eps)
        elif pool == "coca":
            self.attn_pool = CocaPool(width, pool_heads, pool_dim)

    def embed(self, images: Tensor) -> Tensor:
        """[batch, 3, size, size] to the input of the first layer, [batch, (1 +) P, width]."""
        x = self.patch_embed.proj(images).flatten(2).transpose(1, 2)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.to(x.dtype).expand(len(x), -1, -1), x], dim=1)
        return x + self.pos_embed.to(x.dtype)

    def pool(self, x: Tensor, seen: list[Tensor] | None = None) -> Tensor:
        """The last layer's output, [batch, (1 +) P, width], to what the projection reads."""
        if self.attn_pool is None:
            return self.norm(x[:, 0])
        return self.attn_pool(self.norm(x), seen)


class Tower(nn.Module):
    """A trunk and the projection into the joint space."""

    def __init__(self, trunk: Trunk, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, images: Tensor, tokens: Sequence[Tensor] = ()) -> Tensor:
        """As ``ImageEncoder.encode``, without a change of precision."""
        trunk = self.trunk
        x = trunk.embed(images)
        length = x.shape[1]
        for i, block in enumerate(trunk.blocks):
            if i < len(tokens):  # in place of what the last positions became
                beside = tokens[i].to(x.dtype).expand(len(x), -1, -1)
                x = torch.cat([x[:, :length], beside], dim=1)
            ends_in_token = block is trunk.blocks[-1] and trunk.attn_pool is None
            x = block(x, reads=1 if ends_in_token else None)
        return self.head(trunk.pool(x[:, :length]))

    def gradient_maps(self, images: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
        """As ``ImageEncoder.gradient_maps``; the pooling's attention counts as a layer."""
        trunk = self.trunk
        weights: list[Tensor] = []
        x = trunk.embed(images).detach().requires_grad_()
        for block in trunk.blocks:
            x = block(x, seen=weights)
        scores = score(self.head(trunk.pool(x, weights)))
        return attention_maps(scores, weights, x.shape[1] - (trunk.cls_token is not None))

    def with_patches(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As ``ImageEncoder.encode_with_patches``."""
        trunk = self.trunk
        x = trunk.embed(images)
        for block in trunk.blocks:
            x = block(x)
        patches = trunk.norm(x if trunk.cls_token is None else x[:, 1:])
        if trunk.attn_pool is not None:
            patches = trunk.attn_pool.alone(patches)
        return self.head(trunk.pool(x)), self.head(patches)

    def patches(self, images: Tensor) -> Tensor:
        """As ``ImageEncoder.patch_tokens``."""
        trunk = self.trunk
        x = trunk.embed(images)
        *blocks, last = trunk.blocks
        for block in blocks:
            x = block(x)
        values = trunk.norm(last.attn.value_of_each(last.norm1(x)))
        if trunk.cls_token is not None:
            values = values[:, 1:]
        return self.head(values if trunk.attn_pool is None else trunk.attn_pool.alone(values))


class ViT(ImageEncoder):
    """A timm vision transformer as an image encoder.

    Learned tokens follow the patches. Neither a class token nor the pooling's query is among them,
    and the pooling does not read them: they act through the attention of the layers alone.

    Args:
        tensors: ``trunk.*`` and ``head.*``, as timm and open_clip name them.
        activation, eps: of all layers. heads: None is one for each 64 channels.
        size: pixels of a side; None is the patches' own. What is left of a patch is not read.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        activation: str = "gelu",
        eps: float = 1e-6,
        heads: int | None = None,
        size: int | None = None,
    ) -> None:
        super().__init__()
        patches = tensors["trunk.patch_embed.proj.weight"]
        width, patch = patches.shape[0], patches.shape[-1]
        pools = {"trunk.attn_pool.latent": "map", "trunk.attn_pool.query": "coca"}
        pool = next((pools[name] for name in pools if name in tensors), "token")
        side = round((tensors["trunk.pos_embed"].shape[1] - (pool != "map")) ** 0.5)
        self.shape = {
            "width": width,
            "depth": count(tensors, "trunk.blocks."),
            "heads": heads or max(1, width // 64),
            "hidden": tensors["trunk.blocks.0.mlp.fc1.weight"].shape[0],
            "patch": patch,
            "side": side,
            "activation": activation,
            "eps": eps,
            "pool": pool,
        }
        if pool == "coca":
            self.shape["pool_dim"] = tensors["trunk.attn_pool.query"].shape[1]
        projection = tensors.get("head.proj.weight")
        self.embed_dim = width if projection is None else projection.shape[0]
        # Arguments of the head's nn.Linear; None where the pooled feature is in the joint space.
        self.head_shape = None if projection is None else (projection.shape[1], self.embed_dim)
        self.head_bias = "head.proj.bias" in tensors
        self.size, self.width, self.depth = size or side * patch, width, self.shape["depth"]
        if self.size // patch != side:
            raise InputError(
                f"an image encoder for images of {self.size} pixels in patches of {patch} has "
                f"{side} x {side} position embeddings"
            )
        self.tower = new_module(self.fresh, tensors)

    def fresh(self) -> Tower:
        head = nn.Sequential()
        if self.head_shape is not None:
            head.proj = nn.Linear(*self.head_shape, bias=self.head_bias)
        return Tower(Trunk(**self.shape), head)

    def encode(self, images: Tensor, tokens: Sequence[Tensor] = ()) -> Tensor:
        return self.tower(images, tokens)

    def patch_tokens(self, images: Tensor) -> Tensor:
        return self.tower.patches(images)

    def encode_with_patches(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.tower.with_patches(images)

    def layer_norms(self) -> dict[str, nn.Module]:
        """Of the layers, as CLIP's names them; not of the pooling."""
        blocks: Any = self.tower.trunk.blocks
        first = {f"{i}.ln_1": block.norm1 for i, block in enumerate(blocks)}
        return first | {f"{i}.ln_2": block.norm2 for i, block in enumerate(blocks)}

    def gradient_maps(self, images: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
        return self.tower.gradient_maps(images, score)

    def linear_maps(self) -> list[list[StackedMaps]]:
        """Of the layers; the pooling is not one."""
        return [block.linear_maps() for block in self.tower.trunk.blocks]
