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
        InputError: as ``load_backbone``, or INPUT.SIZE is not the size that the backbone reads.
    """
    chosen = cfg.MODEL.BACKBONE
    precision = cfg.TRAINER[cfg.TRAINER.NAME.upper()].PREC
    backbone = load_backbone(chosen.NAME, chosen.PATH, precision, device)
    side = backbone.preprocessing.size
    if tuple(cfg.INPUT.SIZE) != (side, side):
        raise InputError(
            f"INPUT.SIZE is {tuple(cfg.INPUT.SIZE)}, but {chosen.PATH or chosen.NAME} reads "
            f"images of {side}x{side}; set INPUT.SIZE in its YAML"
        )
    own = backbone.preprocessing
    for key, value in (
        ("PIXEL_MEAN", own.mean),
        ("PIXEL_STD", own.std),
        ("INTERPOLATION", own.interpolation),
    ):
        said = cfg.INPUT[key]
        said = said if isinstance(said, str) else tuple(said)
        if said != value:
            print(f"note: INPUT.{key} is {said}; {chosen.NAME}'s own is {value}")
    return backbone
