"""The parsers of the scripts. They import no PyTorch: --help is answered at once."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from core.arguments import Parser, positive_int, real_number, whole_number

PAPER_BACKBONES = ("vit_b16", "vit_l14", "rn50")
EXECUTORS = ("local", "ray")
EXPERIMENTS = ("methods", "zeroshot", "ablation", "knowledge")


def script_parser(
    prog: str, description: str | None, first: str = "", subject: str = "dataset"
) -> Parser:
    """A parser of what all scripts take; a script adds its own flags.

    Args:
        first: ``trainer``, if the method is named before the dataset.
        subject: ``dataset``, or ``benchmark`` where a script runs on several.
    """
    parser = Parser(description, prog=prog)
    add = parser.add_argument
    if first:
        add(first, help="the method, for example CoOp")
    add(subject, help=f"a file of configs/{subject}s, by its name, or a YAML file")
    add(
        "backbones",
        nargs="*",
        metavar="backbone",
        help=f"files of configs/backbones (default: the paper's {', '.join(PAPER_BACKBONES)})",
    )
    seeds = (os.environ.get("SEEDS") or "1 2 3").split()
    add(
        "--seeds",
        nargs="+",
        default=seeds,
        help="seeds (default: SEEDS of the environment, or 1 2 3)",
    )
    add("--root", default="data", help="folder that holds the datasets (default: data)")
    add("--output", type=Path, default=Path("output"), help="folder for the runs (default: output)")
    parser.epilog = "Any setting may follow as KEY VALUE, for example OPTIM.LR 0.01."
    return parser


def comparison_parser(prog: str, description: str | None, subject: str = "dataset") -> Parser:
    """A parser of what a comparison takes; ``subject`` as for ``script_parser``."""
    parser = script_parser(prog, description, subject=subject)
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help="methods, and sets of methods: paper (the paper's), strong (rivals of today), all "
        "(default: paper, and of strong those that take seconds because they are fitted at once)",
    )
    add_executor_arguments(parser)
    parser.set_defaults(experiment="methods")
    return parser


def add_executor_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says where the runs go."""
    parser.add_argument(
        "--executor",
        choices=EXECUTORS,
        default="local",
        help="ray: runs on several GPUs or machines, by Ray (default: local)",
    )
    parser.add_argument(
        "--workers",
        type=positive_int,
        metavar="N",
        help="runs at a time without Ray (default: one for each GPU; without a GPU, one for each "
        "core, at most 8 and one for each 2 GiB of memory)",
    )
    parser.add_argument(
        "--gpus-per-run",
        type=real_number(least=0),
        default=1.0,
        help="GPUs for each run with Ray, or a fraction of one (default: 1)",
    )


def add_experiment_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--experiment",
        choices=EXPERIMENTS,
        default="methods",
        help="which runs and tables (default: methods)",
    )


def add_shots(parser: argparse.ArgumentParser, default: Sequence[int] | None) -> None:
    """Add the numbers of training images a class."""
    shown = " ".join(map(str, default)) if default else "the benchmark's"
    parser.add_argument(
        "--shots",
        nargs="+",
        type=whole_number(1),
        default=default,
        help=f"training images of each class (default: {shown})",
    )
