"""Loading a backbone by name or from a file; the file's content decides which family it is."""

import importlib
import pkgutil
from typing import Any

import torch
from yacs.config import CfgNode

from backbones import families
from backbones.backbone import Backbone
from backbones.weights import read_weights
from core.errors import InputError, first_line

# The defaults of the settings below INPUT that travel with the backbone.
BACKBONES_OWN: dict[str, Any] = {"SIZE": (), "PIXEL_MEAN": [], "PIXEL_STD": [], "INTERPOLATION": ""}


def known_families() -> list[type[Backbone]]:
    """The family of each file in ``backbones/families``: what the file calls ``FAMILY``."""
    names = sorted(module.name for module in pkgutil.iter_modules(families.__path__))
    return [importlib.import_module(f"backbones.families.{name}").FAMILY for name in names]


def load_backbone(
    name: str = "",
    path: str = "",
    precision: str = "fp32",
    device: str | torch.device = "cpu",
    **options: Any,
) -> Backbone:
    """Load a frozen backbone.

    Args:
        name: released weights, e.g. ``ViT-B/16``; not read where there is a path.
        path: a file of weights.
        precision: fp32, fp16 (fp32 on a CPU), amp or bf16.
        device: cpu, cuda, or auto for a GPU where there is one.
        options: what the family allows beside the file, e.g. ``activation="gelu"``.

    Raises:
        InputError: a name or file that is missing, damaged or of no known family.
    """
    every = known_families()
    if path:
        weights = read_weights(path)
        family = next((family for family in every if family.recognises(weights)), None)
        if family is None:
            known = ", ".join(family.family for family in every)
            first = ", ".join(list(weights.tensors)[:2])
            raise InputError(
                f"{weights.path} does not hold weights of a known family ({known}); its tensors "
                f"are called {first}, ..."
            )
    else:
        family = next((family for family in every if name in family.released()), None)
        if family is None:
            choices = ", ".join(n for family in every for n in family.released())
            raise InputError(
                f"MODEL.BACKBONE.NAME is {name!r}; choose one of {choices}, or give a file of "
                "weights in MODEL.BACKBONE.PATH"
            )
        weights = family.fetch(name)
    try:
        return family.from_weights(weights, precision, device, **options)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{weights.path} does not hold the {family.family} format: {reason}"
        ) from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{weights.path}: {first_line(error)}") from error


def backbone_of(cfg: CfgNode, device: str | torch.device) -> Backbone:
    """The backbone that a run's configuration names.

    Raises:
        InputError: as ``load_backbone``.
    """
    chosen = cfg.MODEL.BACKBONE
    precision = cfg.TRAINER[cfg.TRAINER.NAME.upper()].PREC
    return load_backbone(chosen.NAME, chosen.PATH, precision, device)


def with_preprocessing(cfg: CfgNode, backbone: Backbone) -> CfgNode:
    """A copy of ``cfg`` in which ``INPUT`` says how images are prepared for ``backbone``.

    What the user left at ``BACKBONES_OWN`` is the backbone's own; another value than that stays,
    and is said.

    Raises:
        InputError: INPUT.SIZE is not the size that the backbone reads.
    """
    own = backbone.preprocessing
    values = {
        "SIZE": (own.size, own.size),
        "PIXEL_MEAN": list(own.mean),
        "PIXEL_STD": list(own.std),
        "INTERPOLATION": own.interpolation,
    }
    given = {key: cfg.INPUT[key] for key in values if cfg.INPUT[key] != BACKBONES_OWN[key]}
    name = cfg.MODEL.BACKBONE.PATH or cfg.MODEL.BACKBONE.NAME
    for key, value in given.items():
        if list(value) == list(values[key]):
            continue
        if key == "SIZE":
            raise InputError(
                f"INPUT.SIZE is {tuple(value)}, but {name} reads images of {own.size}x{own.size}; "
                "leave INPUT.SIZE out"
            )
        print(f"note: INPUT.{key} is {value}; the value of {name} itself is {values[key]}")
    prepared = cfg.clone()
    prepared.defrost()
    prepared.INPUT.update({**values, **given})
    prepared.freeze()
    return prepared
