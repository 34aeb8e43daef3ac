"""The arguments that all scripts share: DATASET [BACKBONE ...] [--flags] [--] [KEY VALUE ...]."""

import argparse
import sys
from collections.abc import Sequence

import trainers  # noqa: F401  (registers the methods)
from core.arguments import Parser, split_options, whole_number
from core.errors import InputError
from engine.config import (
    config_file,
    default_cfg,
    flatten,
    key_of,
    no_such_setting,
    short_keys,
)
from engine.method import METHODS
from engine.settings import LARGEST_SEED
from scripts.parsers import PAPER_BACKBONES

SUBJECTS = ("dataset", "benchmark")  # what a script may run on

# Settings that a script decides itself, and the argument that changes them.
DECIDED = {
    "SEED": "--seeds",
    "OUTPUT_DIR": "--output",
    "RESUME": "train.py's --resume",
    "DATASET.ROOT": "--root, or DATA",
    "TRAINER.NAME": "another script, or --methods",
    "RUN.TUNED": "tune.sh",
}


def parse_script(
    parser: Parser, argv: Sequence[str] | None, decided: Sequence[str] = ()
) -> argparse.Namespace:
    """Parse and check a script's arguments before anything starts.

    Args:
        decided: further settings that the script decides itself.

    Returns:
        The arguments; ``opts`` are the settings, ``[KEY, value, ...]``.

    Raises:
        InputError: an unknown dataset, benchmark, backbone or setting, or wrong seeds.
    """
    words, opts = split_options(argv_of(argv), short_keys)
    args = parser.parse_intermixed_args(words)
    args.opts = opts
    args.backbones = args.backbones or list(PAPER_BACKBONES)
    for subject in SUBJECTS:
        if hasattr(args, subject):
            config_file(f"{subject}s", getattr(args, subject))
    for backbone in args.backbones:
        config_file("backbones", backbone)
    for key in opts[::2]:
        if key in decided:
            raise InputError(f"{parser.prog} chooses {key} itself; leave it out")
        if key in DECIDED:
            raise InputError(f"{key} is not an option of a script; use {DECIDED[key]}")
        if not any(key_of(name, key) for name in METHODS):
            raise InputError(no_such_setting(key, flatten(default_cfg())))
    args.seeds = list(dict.fromkeys(map(_seed, args.seeds)))
    return args


def argv_of(argv: Sequence[str] | None) -> list[str]:
    """The words of a command line: the process's own for None."""
    return sys.argv[1:] if argv is None else list(argv)


def _seed(text: str) -> int:
    try:
        return whole_number(0, LARGEST_SEED)(text)
    except argparse.ArgumentTypeError as error:
        raise InputError(f"a seed (--seeds, SEEDS): {error}") from None
