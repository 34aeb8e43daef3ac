"""Train on the first half of the classes, test on the other half; then print the table.

For methods whose learned parameters do not belong to classes: CoOp, CoCoOp, KgCoOp, MaPLe,
BayesianPrompt, and ViP, whose new classes start at g = 0: the mean of their symptoms' features.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from core.errors import command_line
from engine.config import load_cfg, trainer_name
from scripts.arguments import parse_script, script_parser
from scripts.jobs import call, interrupt_on_sigterm, tables_command, train_command

HALF = "DATASET.SUBSAMPLE_CLASSES"


def main(argv: Sequence[str] | None = None) -> int:
    # The method comes first, as in METHOD DATASET [BACKBONE ...].
    parser = script_parser("base_to_new.sh", __doc__, first="trainer")
    args = parse_script(parser, argv, decided=[HALF])
    trainer = trainer_name(args.trainer)
    runs = [
        (backbone, seed, run_of(args, trainer, backbone, seed))
        for backbone in args.backbones
        for seed in args.seeds
    ]
    base = [*args.opts, HALF, "base"]
    for backbone, seed, _ in runs:  # what is wrong is said before anything starts
        load_cfg(trainer, args.dataset, backbone, opts=base, root=args.root, seed=seed)
    for backbone, seed, folder in runs:
        train = train_command(args, trainer, backbone, seed, folder, base)
        for command in (train, test_command(args, trainer, folder)):
            if status := call(command):
                return status
    return call(tables_command(args.output / Path(args.dataset).stem))


def run_of(args: argparse.Namespace, trainer: str, backbone: str, seed: int) -> Path:
    """The folder of a base run; runs with other options have another one."""
    variant = re.sub(r"[^A-Za-z0-9._=-]", "-", "_".join(["base", *args.opts]))
    names = Path(args.dataset).stem, trainer, Path(backbone).stem, variant, f"seed{seed}"
    return args.output.joinpath(*names)


def test_command(args: argparse.Namespace, trainer: str, folder: Path) -> list[str]:
    """The command that tests a base run on the new classes."""
    command = [sys.executable, "-m", "scripts.evaluate", str(folder), args.dataset]
    command += ["--trainer", trainer, "--root", args.root, "--output", str(args.output)]
    return [*command, HALF, "new"]


if __name__ == "__main__":
    interrupt_on_sigterm()
    command_line(main)()
