"""Measure how images are read from the arrays of a made .npz file, in processor time.

python -m benchmarks.arrays                                   2,000 RGB images of 224 pixels
python -m benchmarks.arrays --images 236386 --size 28 --grey   as many as TissueMNIST has
"""

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from core.arguments import Parser, help_first, positive_int
from core.errors import command_line


def make_parser() -> Parser:
    parser = Parser(__doc__, prog="python -m benchmarks.arrays")
    add = parser.add_argument
    add("--images", type=positive_int, default=2000, help="number of images (default: 2000)")
    add("--size", type=positive_int, default=224, help="pixels a side (default: 224)")
    add("--grey", action="store_true", help="one channel in place of three")
    return parser


help_first(__name__, make_parser)

import numpy as np

from datasets import arrays
from datasets.pictures import read_picture


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    return make_parser().parse_args(argv)


def make_file(path: Path, images: int, size: int, grey: bool) -> None:
    """A compressed archive of noise of 32 levels, which deflate packs to about two thirds."""
    rng = np.random.default_rng(0)
    shape = (images, size, size) if grey else (images, size, size, 3)
    np.savez_compressed(path, train_images=rng.integers(0, 32, shape, dtype=np.uint8))


def resident() -> float:
    """Megabytes of memory that this process has now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def processor_seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="vip-benchmarks-") as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        path = Path(folder) / "made.npz"
        make_file(path, args.images, args.size, args.grey)
        before = resident()
        first = processor_seconds(lambda: arrays.open_arrays(path))
        addresses = [f"{path}#train/{place}" for place in range(args.images)][:20000]
        order = processor_seconds(lambda: [read_picture(a, True) and None for a in addresses])
        random.Random(0).shuffle(addresses)
        anyhow = processor_seconds(lambda: [read_picture(a, True) and None for a in addresses])
        growth = resident() - before
        arrays.close_all()
        later = processor_seconds(lambda: arrays.open_arrays(path))
    raw = args.images * args.size**2 * (1 if args.grey else 3) / 1e6
    print(
        f"{args.images:,} images, {raw:,.0f} MB unpacked: first opening {first:.1f} s, later ones "
        f"{later:.2f} s; an image in order {1e6 * order / len(addresses):.0f} us, at random "
        f"{1e6 * anyhow / len(addresses):.0f} us; memory +{growth:.0f} MB"
    )


if __name__ == "__main__":
    command_line(main)()
