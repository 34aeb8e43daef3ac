"""Checkpoints and parameters."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from dassl_compat.checkpoint_reader import read_saved_dict as load_checkpoint
from dassl_compat.checkpoints import resume_from_checkpoint, save_checkpoint

__all__ = ["load_checkpoint", "resume_from_checkpoint", "save_checkpoint"]


def load_pretrained_weights(model: nn.Module, weight_path: str) -> None:
    """Copy into ``model`` every weight of a file that has its name and shape; print the others.

    The file holds a state dict, or a dictionary with one under ``state_dict``.
    """
    checkpoint = load_checkpoint(weight_path)
    weights = checkpoint.get("state_dict", checkpoint)
    own = model.state_dict()
    matched, discarded = {}, []
    for name, weight in weights.items():
        name = name.removeprefix("module.")  # written by a model inside nn.DataParallel
        if name in own and own[name].shape == getattr(weight, "shape", None):
            matched[name] = weight
        else:
            discarded.append(name)
    model.load_state_dict(matched, strict=False)
    if not matched:
        print(f"Cannot load {weight_path}: no weight has a name and a shape of the model's")
        return
    print(f"Successfully loaded pretrained weights from {weight_path}")
    if discarded:
        print(f"Layers discarded due to unmatched keys or size: {discarded}")


def count_num_param(model: nn.Module | None = None, params: Iterable[Any] | None = None) -> int:
    """The number of parameters of a model, or of an iterable of parameters or groups of them."""
    if model is not None:
        params = model.parameters()
    if params is None:
        raise ValueError("count_num_param() needs a model or params")
    total = 0
    for param in params:
        group = param["params"] if isinstance(param, dict) else [param]
        total += sum(member.numel() for member in group)
    return total


def open_specified_layers(model: nn.Module, open_layers: str | Iterable[str]) -> None:
    """Train only the children named in ``open_layers`` (a name or several); freeze the others."""
    names = [open_layers] if isinstance(open_layers, str) else list(open_layers)
    children = dict(model.named_children())
    unknown = [name for name in names if name not in children]
    if unknown:
        raise ValueError(f"no layer called {unknown[0]!r}; the model has {list(children)}")
    for name, child in children.items():
        child.train(name in names)
        for param in child.parameters():
            param.requires_grad = name in names
