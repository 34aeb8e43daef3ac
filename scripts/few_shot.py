"""Compare methods with 1, 2, 4, 8 and 16 training images a class, then print and draw the curve.

The methods are those of compare.sh. The figure has a line for each that was run with two or more
numbers of images, and the table a row. --shots chooses other numbers.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from core.arguments import Parser, help_first
from core.errors import command_line
from scripts.parsers import add_experiment_argument, add_shots, comparison_parser

SHOTS = (1, 2, 4, 8, 16)


def make_parser() -> Parser:
    parser = comparison_parser("few_shot.sh", __doc__)
    add_experiment_argument(parser)
    add_shots(parser, SHOTS)
    return parser


help_first(__name__, make_parser)

from scripts import compare
from scripts.arguments import parse_script
from scripts.jobs import call, interrupt_on_sigterm, tables_command


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_script(make_parser(), argv, decided=["DATASET.NUM_SHOTS"])
    run_shots(args)
    return call(tables_command(args.output / Path(args.dataset).stem, "--shots", "--plot", "shots"))


def run_shots(args: argparse.Namespace) -> int:
    """Run a comparison with each number of shots; 1 if a run failed, otherwise 0.

    Its failed runs are named; they are no reason to leave out other numbers of shots.
    """
    every = [[*args.opts, "DATASET.NUM_SHOTS", str(shots)] for shots in dict.fromkeys(args.shots)]
    failed = [compare.run_all(argparse.Namespace(**vars(args) | {"opts": opts})) for opts in every]
    return int(any(failed))


if __name__ == "__main__":
    interrupt_on_sigterm()
    command_line(main)()
