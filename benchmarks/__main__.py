"""Measure the speed on this machine, beside its limits and beside two references.

python -m benchmarks                       all tables but the sweeps, with few rounds
python -m benchmarks --full                all tables, as docs/speed.md has them (an hour or more)
python -m benchmarks --tables steps text   only these
python -m benchmarks --checkout ~/CoOp     also an unmodified checkout of CoOp
python -m benchmarks --gpu                 on a GPU: also the paper's whole comparison
"""

import argparse
import os
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path

from core.arguments import Parser, help_first, positive_int
from core.errors import InputError, command_line

NAMES = ("data", "text", "steps", "learning", "memory", "runs", "sweeps", "comparison")


def make_parser() -> Parser:
    parser = Parser(__doc__, prog="python -m benchmarks")
    add = parser.add_argument
    add("--tables", nargs="+", choices=NAMES, help="print only these tables")
    add("--full", action="store_true", help="more rounds, larger workloads, and the sweeps")
    add(
        "--gpu",
        action="store_true",
        help="refuse to run without a GPU, and add the paper's whole comparison",
    )
    add(
        "--rounds",
        type=positive_int,
        help="how often each measurement is repeated (default: 1, with --full 3)",
    )
    add(
        "--shared",
        action="store_true",
        help="measure the processor time of one thread, except for whole runs",
    )
    add(
        "--checkout",
        default="",
        help="also measure this checkout of CoOp, or of a project that contains it",
    )
    return parser


help_first(__name__, make_parser)

import torch

import trainers  # noqa: F401  (registers the methods; mends what importing clip and dassl needs)
from core.processes import keep_freed_memory

from .bench import Bench
from .beside_reference import learning, memory, steps, text
from .machine import data
from .timing import use_processor_time
from .whole_runs import checkout, comparison, runs, sweeps

TABLES = dict(
    zip(NAMES, (data, text, steps, learning, memory, runs, sweeps, comparison), strict=True)
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    args = make_parser().parse_args(argv)
    if args.gpu and not torch.cuda.is_available():
        raise InputError("--gpu: PyTorch finds no GPU on this machine; leave it out")
    if not args.tables:
        asked = {"sweeps": args.full, "comparison": args.gpu}
        args.tables = [name for name in NAMES if asked.get(name, True)]
    if args.checkout and args.shared:
        raise InputError("--checkout measures wall-clock time; leave out --shared")
    if args.checkout and not (Path(args.checkout).expanduser() / "train.py").is_file():
        raise InputError(f"--checkout {args.checkout}: there is no train.py")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    keep_freed_memory()  # as a run does
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine()
    if args.shared:
        use_processor_time()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {device}, "
        f"torch {torch.__version__}, load {load:.1f} before the start"
    )
    with tempfile.TemporaryDirectory(prefix="vip-benchmarks-") as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # nothing here is worth keeping
        bench = Bench(args, folder)
        for name, table in TABLES.items():
            if name in args.tables:
                table(bench)
        if args.checkout:
            checkout(bench)


if __name__ == "__main__":
    command_line(main)()
