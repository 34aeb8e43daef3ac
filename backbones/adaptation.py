"""Small learned changes of the frozen linear maps in a backbone's transformer layers.

An adapted backbone computes with the changed weights wherever it reads them. PyTorch's own
``parametrize`` puts them there. The ``peft`` library does not fit: it adapts stacked queries, keys
and values as one map of one low rank, and cannot drop entries of the input of
``nn.MultiheadAttention``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from backbones.backbone import ImageEncoder, TextEncoder
from backbones.numerics import at_least_fp32


class Adapter(nn.Module):
    """What is learned of one map [d_out, d_in]."""

    def change(self) -> Tensor | None:
        """[d_out, d_in], added to the frozen weight; None changes nothing."""
        return None

    def beside(self, x: Tensor) -> Tensor | None:
        """[..., d_out], added to the map's output for x [..., d_in]; None adds nothing."""
        return None


class AdaptedStack(nn.Module):
    """The parametrization of a weight whose rows are the maps ``names``, stacked.

    Args:
        adapters: name -> ``Adapter``; a map without one stays frozen.
    """

    def __init__(self, names: Sequence[str], adapters: Mapping[str, Adapter]) -> None:
        super().__init__()
        self.names, self.adapters = tuple(names), nn.ModuleDict(adapters)

    def _each(self, of: Callable[[Any], Tensor | None]) -> list[Tensor | None]:
        return [of(self.adapters[name]) if name in self.adapters else None for name in self.names]

    def forward(self, weight: Tensor) -> Tensor:
        # In fp32 under autocast too, so that weight and change are rounded once, together.
        with torch.autocast(weight.device.type, enabled=False):
            changes = self._each(lambda adapter: adapter.change())
            if all(change is None for change in changes):
                return weight
            frozen = at_least_fp32(weight).chunk(len(self.names))
            return torch.cat(
                [
                    rows if change is None else rows + change
                    for rows, change in zip(frozen, changes, strict=True)
                ]
            ).to(weight.dtype)

    def add_beside(self, module: nn.Linear, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """A forward hook: the adapted maps' output."""
        added = self._each(lambda adapter: adapter.beside(args[0]))
        if all(part is None for part in added):
            return output
        parts = [
            rows if part is None else rows + part.to(rows.dtype)
            for rows, part in zip(output.chunk(len(self.names), dim=-1), added, strict=True)
        ]
        return torch.cat(parts, dim=-1)


def adapt(
    encoder: ImageEncoder | TextEncoder, names: Sequence[str], make: Callable[[Tensor], Adapter]
) -> nn.ModuleList:
    """Adapt maps of every transformer layer of an encoder, which is changed.

    Args:
        names: of q, k, v, out, up, down (see ``StackedMaps``).
        make: the adapter of a frozen weight [d_out, d_in], given in at least fp32.

    Returns:
        For each layer a ``ModuleDict`` name -> adapter. The encoder has the same modules, so that
        what they learn gets gradients.

    Raises:
        ValueError: the encoder is adapted already, or names no linear maps.
    """
    layers = nn.ModuleList()
    for maps in encoder.linear_maps():
        layer = nn.ModuleDict()
        for module, stacked in maps:
            if parametrize.is_parametrized(module):
                raise ValueError("the encoder is adapted already: load the backbone again")
            weights = at_least_fp32(module.weight.detach()).chunk(len(stacked))
            adapters = {
                name: make(weight)
                for name, weight in zip(stacked, weights, strict=True)
                if name in names
            }
            if not adapters:
                continue
            stack = AdaptedStack(stacked, adapters)
            parametrize.register_parametrization(module, "weight", stack)
            module.register_forward_hook(stack.add_beside)
            layer.update(adapters)
        layers.append(layer)
    if not len(layers):
        raise ValueError(f"{type(encoder).__name__} names no linear maps to adapt")
    return layers
