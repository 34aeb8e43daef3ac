"""List the backbones of configs/backbones, or say what a file or folder of weights is.

    python -m backbones
    python -m backbones check PATH [--activation gelu]
    python -m backbones check monet

`check` takes a file, a folder, a name of configs/backbones or hf-hub:OWNER/NAME. It prints format,
encoders, activation, sizes, preprocessing and temperature, and then reads drawn images (part of
this software) as a first sign of life: another preprocessing or activation that reads them better
raises suspicion (docs/backbones.md says by what measure, and what it cannot find). Nothing is
downloaded except for an hf-hub: name or the name of released weights.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backbones.settings import ACTIVATION_NAMES, BACKBONE_DEFAULTS
from core.arguments import Parser, help_first
from core.errors import InputError, command_line


def make_parser() -> Parser:
    parser = Parser(__doc__, prog="python -m backbones")
    parser.add_argument("command", nargs="?", choices=["list", "check"], default="list")
    parser.add_argument("weights", nargs="?", default="", help="what `check` examines")
    parser.add_argument("--activation", choices=ACTIVATION_NAMES, default="")
    parser.add_argument("--no-images", action="store_true", help="do not read drawn images")
    return parser


help_first(__name__, make_parser)

from tabulate import tabulate

from backbones.backbone import Backbone
from backbones.examine import Signs, activations, signs_of_life
from backbones.formats import Stated
from backbones.hub import HUB, cached_folder
from backbones.loading import (
    check_present,
    find_weights,
    known_formats,
    parts_of,
)
from core.yaml_files import read_yaml

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "backbones"


def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    if args.command == "list":
        if args.weights or args.activation or args.no_images:
            raise InputError("`list` takes no other arguments (--help lists them)")
        print(tabulate([row_of(path) for path in sorted(CONFIGS.glob("*.yaml"))], headers="keys"))
        print(
            "\nSize and licence are those of the source; a licence binds whoever uses the weights."
        )
        return
    if not args.weights:
        raise InputError("check: give a file, a folder, a name of configs/backbones, or hf-hub:...")
    check(settings_of(args.weights), args.activation, args.no_images)


def row_of(config: Path) -> dict[str, str]:
    """A row of the list."""
    chosen = _chosen(config)
    return {
        "backbone": config.stem,
        "weights here": "yes" if is_here(chosen) else "no",
        "files": chosen["FILES"],
        "licence": chosen["LICENSE"],
        "source": chosen["SOURCE"],
    }


def is_here(chosen: Mapping[str, Any]) -> bool:
    """Whether the weights need no download."""
    name, path = chosen["NAME"], chosen["PATH"]
    if path:
        return Path(path).expanduser().exists()
    if name.startswith(HUB):
        return cached_folder(name) is not None
    every = [format for format in known_formats() if name in format.released()]
    return any(format.cached_file(name) for format in every)


def settings_of(weights: str) -> dict[str, Any]:
    """The settings below MODEL.BACKBONE that the argument of ``check`` means."""
    config = CONFIGS / f"{weights}.yaml"
    if config.is_file():
        return _chosen(config)
    is_name = weights.startswith(HUB) or any(weights in f.released() for f in known_formats())
    return {**BACKBONE_DEFAULTS, "NAME": "", "NAME" if is_name else "PATH": weights}


def _chosen(config: Path) -> dict[str, Any]:
    own = read_yaml(config)["MODEL"]["BACKBONE"]
    return {"NAME": "", **BACKBONE_DEFAULTS, **own}


def check(chosen: Mapping[str, Any], activation: str, no_images: bool) -> None:
    """Print what the weights are, and what their encoders make of drawn images."""
    check_present(chosen)
    weights, format = find_weights(chosen["NAME"], chosen["PATH"])
    stated = Stated(
        activation=activation or chosen["ACTIVATION"],
        mean=tuple(chosen["PIXEL_MEAN"]),
        std=tuple(chosen["PIXEL_STD"]),
    )
    backbone = Backbone(parts_of(weights, format, stated), "fp32", "auto")
    print(tabulate([*description(backbone, format.name).items()], tablefmt="plain"))
    for note in backbone.notes:
        print(f"note: {note}")
    if not no_images:
        print("reading drawn images (--no-images leaves this out) ...", file=sys.stderr)
        print_signs(signs_of_life(backbone))


def description(backbone: Backbone, format: str) -> dict[str, str]:
    """What the weights are: label -> text."""
    own = backbone.preprocessing
    layers = f"{backbone.vision_depth} layers, width {backbone.vision_width}, "
    return {
        "format": format,
        "fingerprint": backbone.fingerprint,
        "parameters": f"{sum(p.numel() for p in backbone.parameters()) / 1e6:.1f} million",
        "image encoder": f"{type(backbone.image).__name__}, "
        + (layers if backbone.vision_depth else "")
        + f"activation {_activations(backbone.image)}",
        "text encoder": f"{backbone.text.kind}, {backbone.text_depth} layers, width "
        f"{backbone.text_width}, activation {_activations(backbone.text)}, at most "
        f"{backbone.context_length} tokens",
        "joint space": f"{backbone.embed_dim} dimensions",
        "images": f"{own.size} x {own.size}, {own.interpolation}, {own.resize_mode}; mean "
        f"{_numbers(own.mean)}, deviation {_numbers(own.std)}",
        "temperature": f"cosines times {float(backbone.logit_scale.exp()):.4g}",
    }


def _activations(module: Any) -> str:
    return " and ".join(sorted({name for _, _, name in activations(module)})) or "none of GELU's"


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def print_signs(signs: Signs) -> None:
    rows = [
        {
            "drawn images, read with": reading.setting,
            "loss": reading.loss,
            "difference (99 % interval)": ""
            if reading.better is None
            else "{:+.3f} ({:+.3f} to {:+.3f})".format(*reading.better),
        }
        for reading in signs.readings
    ]
    print("\n" + tabulate(rows, headers="keys", floatfmt=".3f"))
    print(f"Guessing has a loss of {signs.guessing:.3f}. Lower is better.")
    print(
        "With the other activation the features of the images have a cosine of "
        f"{signs.activation_cosine:.4f} with these."
    )
    if signs.is_blind:
        print("These weights cannot read the drawn images; the comparison says nothing about them.")
    for suspicion in signs.suspicions:
        print(suspicion)


if __name__ == "__main__":
    command_line(main)()
