"""Compare methods with 1, 2, 4, 8 and 16 training images a class, then print and draw the curve.

The methods are those of compare.sh. The figure has a line for each that was run with two or more
numbers of images, and the table a row.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from core.errors import command_line
from scripts import compare
from scripts.jobs import call, interrupt_on_sigterm, tables_command

SHOTS = (1, 2, 4, 8, 16)


def main(argv: Sequence[str] | None = None) -> int:
    args = compare.parse_args(argv, prog="few_shot.sh", decided=["DATASET.NUM_SHOTS"])
    for shots in SHOTS:
        # Its failed runs were named; they are no reason to leave out other numbers of shots.
        opts = [*args.opts, "DATASET.NUM_SHOTS", str(shots)]
        compare.run_all(argparse.Namespace(**vars(args) | {"opts": opts}))
    return call(tables_command(args.output / Path(args.dataset).stem, "--shots", "--plot", "shots"))


if __name__ == "__main__":
    interrupt_on_sigterm()
    command_line(main)()
