"""The image encoders of OpenAI's CLIP, of its ``clip`` package: vision transformer and ResNet.

Radford et al. 2021, https://arxiv.org/abs/2103.00020
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from clip.model import CLIP, ModifiedResNet, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.backbone import ImageEncoder, StackedMaps, count, new_module
from backbones.encoders.blocks import ACTIVATIONS, checked_heads
from backbones.encoders.clip_layers import OpenAttention, heads_of, linear_maps, read_by_first
from backbones.gradient_maps import LEAST_SIDE, attention_maps, grad_cam, read_with_weights


class ClipViT(ImageEncoder):
    """A ``clip.model.VisionTransformer``, which becomes this encoder's own."""

    def __init__(self, tower: VisionTransformer) -> None:
        super().__init__()
        self.tower = tower
        self.size, self.embed_dim = tower.input_resolution, tower.output_dim
        self.width, self.depth = tower.conv1.out_channels, len(tower.transformer.resblocks)

    def encode(self, images: Tensor, tokens: Sequence[Tensor] = ()) -> Tensor:
        """As in MaPLe (Khattak et al., CVPR 2023): the tokens follow the patches."""
        x = self._layer_input(images, tokens[0] if tokens else None)
        for i, block in enumerate(_layers(self.tower)):
            if 0 < i < len(tokens):  # in place of what the last positions became
                new = _for_each(tokens[i], x)
                x = torch.cat([x[: -len(new)], new])
            if i < self.depth - 1:
                x = block(x)
            else:  # nothing but the class token is read behind the last layer
                x = x[:1] + read_by_first(block.attn, block.ln_1(x))
                x = x + block.mlp(block.ln_2(x))
        return self.tower.ln_post(x[0]) @ self.tower.proj

    def _layer_input(self, images: Tensor, tokens: Tensor | None = None) -> Tensor:
        """[1 + P + n, batch, d_vis]: class embedding, patches and tokens before the first layer."""
        tower = self.tower
        x = tower.conv1(images).flatten(2).permute(2, 0, 1)  # [P, batch, d_vis]
        start = tower.class_embedding.to(x.dtype).expand(1, x.shape[1], -1)
        x = torch.cat([start, x]) + tower.positional_embedding.to(x.dtype).unsqueeze(1)
        return tower.ln_pre(x if tokens is None else torch.cat([x, _for_each(tokens, x)]))

    def patch_tokens(self, images: Tensor) -> Tensor:
        *blocks, last = _layers(self.tower)
        x = self._layer_input(images)
        for block in blocks:
            x = block(x)
        x = last.ln_1(x[1:])  # [P, batch, d_vis]
        weight, bias = last.attn.in_proj_weight, last.attn.in_proj_bias
        width = x.shape[-1]
        values = last.attn.out_proj(F.linear(x, weight[2 * width :], bias[2 * width :]))
        return (self.tower.ln_post(values) @ self.tower.proj).transpose(0, 1)

    def encode_with_patches(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self._layer_input(images)
        for block in _layers(self.tower):
            x = block(x)
        features, *_ = self.tower.ln_post(x[:1]) @ self.tower.proj
        return features, (self.tower.ln_post(x[1:]) @ self.tower.proj).transpose(0, 1)

    def layer_norms(self) -> dict[str, nn.Module]:
        blocks = enumerate(_layers(self.tower))
        return {f"{i}.{n}": getattr(block, n) for i, block in blocks for n in ("ln_1", "ln_2")}

    def gradient_maps(self, images: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
        weights = []
        x = self._layer_input(images).detach().requires_grad_()
        for block in self.tower.transformer.resblocks:
            read, of_layer = _read_with_weights(block.attn, block.ln_1(x))
            weights.append(of_layer)
            x = x + read
            x = x + block.mlp(block.ln_2(x))
        scores = score(self.tower.ln_post(x[0]) @ self.tower.proj)
        return attention_maps(scores, weights, len(x) - 1)

    def linear_maps(self) -> list[list[StackedMaps]]:
        return linear_maps(_layers(self.tower))

    def fresh(self) -> nn.Module:
        tower = _random_tower(self.tower, self.embed_dim)
        for new, known in zip(_layers(tower), _layers(self.tower), strict=True):
            new.mlp.gelu = copy.deepcopy(known.mlp.gelu)
            new.attn.num_heads, new.attn.head_dim = known.attn.num_heads, known.attn.head_dim
        parts = dict(self.tower.named_modules())
        for name, part in tower.named_modules():
            if isinstance(part, nn.LayerNorm):
                part.eps = parts[name].eps
        return tower


class ClipResNet(ImageEncoder):
    """A ``clip.model.ModifiedResNet``, which becomes this encoder's own."""

    def __init__(self, tower: ModifiedResNet) -> None:
        super().__init__()
        self.tower = tower
        self.size, self.embed_dim = tower.input_resolution, tower.output_dim
        self.width = self.depth = None

    def encode(self, images: Tensor, tokens: Sequence[Tensor] = ()) -> Tensor:
        if images.is_cuda:  # what tensor cores read; not measured
            images = images.contiguous(memory_format=torch.channels_last)
        return self.tower(images)

    def patch_tokens(self, images: Tensor) -> Tensor:
        """The pooling's value and output projections at each place."""
        maps = []
        pool = self.tower.attnpool
        hook = pool.register_forward_pre_hook(lambda _, args: maps.append(args[0]))
        try:
            self.tower(images)
        finally:
            hook.remove()
        return pool.c_proj(pool.v_proj(maps[0].flatten(2).transpose(1, 2)))

    def gradient_maps(self, images: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
        """Of the deepest layer whose output has ``LEAST_SIDE`` places a side, else of the first."""
        layers = {32: self.tower.layer4, 16: self.tower.layer3, 8: self.tower.layer2}
        fine = [layer for stride, layer in layers.items() if self.size // stride >= LEAST_SIDE]
        channels: list[Tensor] = []

        def start_here(_: nn.Module, args: object, output: Tensor) -> Tensor:
            channels.append(output.detach().requires_grad_())
            return channels[0]

        hook = (fine[0] if fine else self.tower.layer1).register_forward_hook(start_here)
        try:
            scores = score(self.tower(images))
        finally:
            hook.remove()
        return grad_cam(scores, channels[0])

    def fresh(self) -> nn.Module:
        return _random_tower(self.tower, self.embed_dim)


def clip_image_encoder(tower: VisionTransformer | ModifiedResNet) -> ClipViT | ClipResNet:
    return ClipResNet(tower) if isinstance(tower, ModifiedResNet) else ClipViT(tower)


def image_encoder_of(
    tensors: Mapping[str, Tensor],
    activation: str = "quick_gelu",
    heads: int | None = None,
    eps: float = 1e-5,
) -> ClipViT | ClipResNet:
    """An encoder from the tensors of its tower alone, in OpenAI's names without ``visual.``.

    Raises:
        KeyError, RuntimeError: a tensor is missing or has another shape.
    """
    tower = new_module(lambda: _tower(vision_shape_of(tensors), _embed_dim(tensors)), tensors)
    set_layers(tower, activation, heads, eps)
    return clip_image_encoder(tower)


def set_layers(tower: nn.Module, activation: str, heads: int | None, eps: float = 1e-5) -> None:
    """Set what the tensors of a tower (or of a whole ``CLIP``'s text side) do not tell."""
    for block in _layers(tower):
        block.mlp.gelu = ACTIVATIONS[activation]()
        if heads:
            width = block.attn.embed_dim
            block.attn.num_heads, block.attn.head_dim = checked_heads(width, heads), width // heads
    for name, part in tower.named_modules():
        if isinstance(part, nn.LayerNorm) and not name.startswith("visual."):
            part.eps = eps


def vision_shape_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of ``clip.model.CLIP`` that an image tower was made with."""
    if "proj" in tensors:
        patch = tensors["conv1.weight"].shape[-1]
        side = round((tensors["positional_embedding"].shape[0] - 1) ** 0.5)
        return {
            "image_resolution": patch * side,
            "vision_layers": count(tensors, "transformer.resblocks."),
            "vision_width": tensors["conv1.weight"].shape[0],
            "vision_patch_size": patch,
        }
    side = round((tensors["attnpool.positional_embedding"].shape[0] - 1) ** 0.5)
    return {
        "image_resolution": 32 * side,
        "vision_layers": tuple(count(tensors, f"layer{i}.") for i in range(1, 5)),
        "vision_width": tensors["layer1.0.conv1.weight"].shape[0],
        "vision_patch_size": None,
    }


def _layers(tower: nn.Module) -> Sequence[Any]:
    """Its transformer layers; none for a ResNet."""
    return list(getattr(getattr(tower, "transformer", None), "resblocks", ()))


def _embed_dim(tensors: Mapping[str, Tensor]) -> int:
    if "proj" in tensors:
        return tensors["proj"].shape[1]
    return tensors["attnpool.c_proj.weight"].shape[0]


def _tower(shape: Mapping[str, Any], embed_dim: int) -> nn.Module:
    """A random tower: of a whole CLIP, because its constructor draws the weights."""
    stub = {"context_length": 1, "vocab_size": 1, "transformer_width": 64}
    stub |= {"transformer_heads": 1, "transformer_layers": 1}
    return CLIP(embed_dim, **shape, **stub).visual


def _random_tower(tower: nn.Module, embed_dim: int) -> nn.Module:
    return _tower(vision_shape_of(tower.state_dict()), embed_dim)


def _read_with_weights(
    attention: nn.MultiheadAttention | OpenAttention, x: Tensor
) -> tuple[Tensor, Tensor]:
    """What each place of x [L, batch, width] reads, and the weights [batch, heads, L, L]."""
    read, weights = read_with_weights(*heads_of(attention, x))
    return attention.out_proj(read.permute(2, 0, 1, 3).flatten(2)), weights


def _for_each(tokens: Tensor, x: Tensor) -> Tensor:
    """[n, width] tokens for every image of x [L, batch, width]: [n, batch, width]."""
    return tokens.to(x.dtype).unsqueeze(1).expand(-1, x.shape[1], -1)
