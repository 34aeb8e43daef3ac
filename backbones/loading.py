"""Loading a backbone by name, file or folder; the content decides which format it is in."""

import importlib
import os
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from backbones import formats
from backbones.backbone import Backbone, ImageEncoder, Parts
from backbones.formats import Format, Stated
from backbones.hub import HUB, cached_folder, from_hub
from backbones.remembered import Remembered, file_states
from backbones.settings import BACKBONES_OWN
from backbones.weights import WeightsFile, read_weights
from core.errors import InputError, first_line


def known_formats() -> list[Format]:
    """What files in ``backbones/formats`` call ``FORMAT``."""
    names = sorted(module.name for module in pkgutil.iter_modules(formats.__path__))
    modules = [importlib.import_module(f"backbones.formats.{name}") for name in names]
    return [module.FORMAT for module in modules if hasattr(module, "FORMAT")]


def load_backbone(
    name: str = "",
    path: str = "",
    precision: str = "fp32",
    device: str | torch.device = "cpu",
    **stated: Any,
) -> Backbone:
    """Load a frozen backbone.

    Args:
        name: released weights, e.g. ``ViT-B/16`` or ``hf-hub:owner/name@revision``; not read where
            there is a path.
        path: a file or folder of weights.
        precision: fp32, fp16 (fp32 on a CPU), amp or bf16.
        device: cpu, cuda, or auto for a GPU where there is one.
        stated: fields of ``Stated``, e.g. ``activation="gelu"``.

    Raises:
        InputError: a name, file or folder that is missing, damaged or of no known format.
    """
    told = Stated(**stated)
    remembered = Remembered(_place_of(name, path), told)

    def read() -> tuple[WeightsFile, Format]:
        found, format = find_weights(name, path, checked=bool(remembered.fingerprint))
        return found._replace(fingerprint=remembered.fingerprint), format

    if not remembered.is_complete:
        parts = parts_of(*read(), told)
        remembered.write(parts.fingerprint)
        return Backbone(parts, precision, device)

    def load_image() -> ImageEncoder:
        if not remembered.is_current:
            raise InputError(
                f"{found.path}: the weights have changed since their text encoder was loaded; "
                "start again"
            )
        return parts_of(*read(), told).image

    found, format = read()
    parts = parts_of(found.of_texts(), format, told)
    remembered.restore_random_state()
    return Backbone(parts, precision, device, load_image)


def _place_of(name: str, path: str) -> Path | None:
    """The file or folder of the weights; None where they are not on this machine."""
    if path:
        return Path(path)
    if name.startswith(HUB):
        return cached_folder(name)
    format = next((format for format in known_formats() if name in format.released()), None)
    return format.cached_file(name) if format else None


def find_weights(
    name: str = "", path: str = "", checked: bool = False
) -> tuple[WeightsFile, Format]:
    """The weights that a name or path means, and their format.

    Args:
        checked: as for ``read_weights``.

    Raises:
        InputError: as ``load_backbone``.
    """
    every = known_formats()
    if not path and not name.startswith(HUB):
        return _released(name, every, checked)
    weights = read_weights(path or from_hub(name), checked)
    format = next((format for format in every if format.recognises(weights)), None)
    if format is None:
        known = ", ".join(format.name for format in every)
        first = ", ".join(list(weights.tensors)[:2])
        raise InputError(
            f"{weights.path} does not hold weights in a known format ({known}); its tensors are "
            f"called {first}, ..."
        )
    return weights, format


def _released(name: str, every: list[Format], checked: bool) -> tuple[WeightsFile, Format]:
    format = next((format for format in every if name in format.released()), None)
    if format is None:
        choices = ", ".join(n for format in every for n in format.released())
        raise InputError(
            f"MODEL.BACKBONE.NAME is {name!r}; choose one of {choices} or {HUB}OWNER/NAME, or give "
            "a file or folder of weights in MODEL.BACKBONE.PATH"
        )
    return format.fetch(name, checked), format


def parts_of(weights: WeightsFile, format: Format, stated: Stated) -> Parts:
    """The encoders that ``weights`` hold.

    Raises:
        InputError: a tensor is missing or has another shape, or what is stated does not fit.
    """
    try:
        return format.parts(weights, stated)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{weights.path} does not hold the {format.name} format: {reason}"
        ) from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{weights.path}: {first_line(error)}") from error


def backbone_of(cfg: CfgNode, device: str | torch.device) -> Backbone:
    """The backbone that a run's configuration names; prints what had to be assumed.

    Raises:
        InputError: as ``load_backbone``.
    """
    chosen = cfg.MODEL.BACKBONE
    check_present(chosen)
    precision = cfg.TRAINER[cfg.TRAINER.NAME.upper()].PREC
    backbone = load_backbone(
        chosen.NAME,
        chosen.PATH,
        precision,
        device,
        activation=chosen.ACTIVATION,
        mean=tuple(chosen.PIXEL_MEAN),
        std=tuple(chosen.PIXEL_STD),
    )
    for note in backbone.notes:
        print(f"note: {note}")
    return backbone


def weights_key(cfg: CfgNode) -> tuple[Any, ...]:
    """What ``backbone_of`` follows from, beside the device: settings, and its files' states."""
    chosen = cfg.MODEL.BACKBONE
    precision = cfg.TRAINER[cfg.TRAINER.NAME.upper()].PREC
    return chosen.dump(), precision, file_states(_place_of(chosen.NAME, chosen.PATH))


def weights_bytes(chosen: Mapping[str, Any]) -> int:
    """The size of a backbone's files; 0 where they are not on this machine."""
    return sum(size for _, size, _ in file_states(_place_of(chosen["NAME"], chosen["PATH"])))


def check_present(chosen: Mapping[str, Any]) -> None:
    """Raise InputError for a PATH that is not there, naming where its weights come from."""
    path, source = chosen["PATH"], chosen["SOURCE"]
    if path and source and not Path(path).expanduser().exists():
        raise InputError(
            f"MODEL.BACKBONE.PATH: there is no file or folder {path} (seen from {os.getcwd()}); "
            f"the weights come from {source}, and the first lines of the backbone's file in "
            "configs/backbones say how to get them"
        )


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
        "RESIZE_MODE": own.resize_mode,
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
