"""Whole comparisons of two checkouts of this project, in turns: wall-clock and processor time.

    python -m benchmarks.comparisons ~/older-checkout
    python -m benchmarks.comparisons ~/older-checkout --cold --methods paper

Ten epochs, the embedded backbone on synthderm. Each checkout keeps its own features, and
is measured once they are there; with --cold, each time from nothing. Threads are each checkout's
default; OMP_NUM_THREADS=1 gives every run one.
"""

import argparse
import ctypes
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from core.arguments import Parser, help_first, positive_int
from core.errors import InputError, command_line

HERE = Path(__file__).resolve().parent.parent
# Those of the default comparison that leave the image encoder frozen.
FROZEN = ["ZeroshotCLIP", "LinearProbe", "LPPlusPlus", "TipAdapter", "GDA", "CoOp", "KgCoOp"]
FROZEN += ["CoCoOp", "BayesianPrompt", "ViP"]
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def make_parser() -> Parser:
    parser = Parser(__doc__, prog="python -m benchmarks.comparisons")
    add = parser.add_argument
    add("other", type=Path, help="folder of another checkout of this project")
    add("--rounds", type=positive_int, default=3, help="repetitions (default: 3)")
    add("--cold", action="store_true", help="keep nothing between the comparisons")
    add("--seeds", nargs="+", default=["1"], help="as for compare.sh (default: 1)")
    add("--methods", nargs="+", default=FROZEN, help="as for compare.sh (default: frozen ones)")
    return parser


help_first(__name__, make_parser)

import numpy as np
from tabulate import tabulate


def comparison(checkout: Path, place: Path, args: argparse.Namespace) -> tuple[float, float]:
    """Wall-clock and processor seconds of one comparison; ``place`` keeps features and data."""
    shutil.rmtree(place / "output", ignore_errors=True)
    if args.cold:
        shutil.rmtree(place, ignore_errors=True)
    place.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "scripts.compare", "synthderm", "tiny"]
    command += ["--root", str(place / "data"), "--output", str(place / "output")]
    command += ["--seeds", *args.seeds, "--methods", *args.methods, "--", "OPTIM.MAX_EPOCH", "10"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(place / "cache")}
    before, start = processor_seconds(), time.perf_counter()
    done = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, errors="replace"
    )
    wall = time.perf_counter() - start
    if done.returncode:
        raise InputError(f"{checkout}: the comparison failed: {done.stdout[-500:]}")
    return wall, processor_seconds() - before


def processor_seconds() -> float:
    """Of all processes that this one started, those that outlived their parents too."""
    while True:  # the server that started workers ends after the comparison
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    sides = {"other": args.other.expanduser().resolve(), "this": HERE}
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory(prefix="vip-comparisons-") as folder:
        for number in range(0 if args.cold else -1, args.rounds):  # -1 fills the caches
            for side in list(sides) if number % 2 else list(sides)[::-1]:
                measured = comparison(sides[side], Path(folder, side), args)
                said = "wall-clock {:.1f} s, processor {:.1f} s".format(*measured)
                print(f"round {number + 1}, {side}: {said}", file=sys.stderr)
                if number >= 0:
                    times[side].append(measured)
    rows = []
    for part, name in enumerate(("wall-clock", "processor")):
        other, this = (np.array([t[part] for t in times[side]]) for side in ("other", "this"))
        rows.append([name, np.median(other), np.median(this), np.median(other / this)])
    print(tabulate(rows, ["time", "other, s", "this, s", "times faster"], "github", ".3g"))


if __name__ == "__main__":
    command_line(main)()
