"""Run base-to-new and few-shot on every dataset of a benchmark that is at hand; print the means.

A benchmark is a file of configs/benchmarks: its datasets, the numbers of training images, and where
missing datasets come from. The runs are those of base_to_new.sh and few_shot.sh on each dataset: a
complete run is left as it is, and an interrupted one is resumed. The last tables are means over the
datasets of the means over seeds.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from core.arguments import Parser, help_first
from scripts.parsers import add_shots, comparison_parser

PARTS = ("base-to-new", "few-shot")


def make_parser() -> Parser:
    parser = comparison_parser("benchmark.sh", __doc__, subject="benchmark")
    add_shots(parser, None)
    parser.add_argument("--only", choices=PARTS, help="one part of the benchmark (default: both)")
    return parser


help_first(__name__, make_parser)

from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import InputError, command_line
from core.yaml_files import read_yaml
from engine.config import config_file, load_cfg
from results.record import RESULTS
from scripts import base_to_new, few_shot
from scripts.arguments import parse_script
from scripts.jobs import call, interrupt_on_sigterm, tables_command

SHOTS = "DATASET.NUM_SHOTS"


class Benchmark(BaseModel):
    """A file of configs/benchmarks.

    Attributes:
        SETS: files of configs/datasets. SHOTS: training images a class, for the few-shot part.
        BASE_TO_NEW_SHOTS: the same for base-to-new. NO_BASE_TO_NEW: sets that have none.
        GET: what to do for a missing set; ``{name}`` is its folder.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    SETS: list[str]
    SHOTS: list[int]
    BASE_TO_NEW_SHOTS: int
    NO_BASE_TO_NEW: list[str] = []
    GET: str


def read_benchmark(path: Path) -> Benchmark:
    """Read a file of configs/benchmarks.

    Raises:
        InputError: the file has another form.
    """
    try:
        return Benchmark.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{path}: {key}: {first['msg']}; it has {', '.join(Benchmark.model_fields)}"
        ) from None


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    path = config_file("benchmarks", args.benchmark)
    benchmark = read_benchmark(path)
    args.shots = args.shots or benchmark.SHOTS
    missing = {name: where for name in benchmark.SETS if (where := missing_file(args, name))}
    for name, where in missing.items():
        folder = where.parent.name if where.name.endswith(".json") else where.name
        print(f"{name} is missing ({where}): {benchmark.GET.format(name=folder)}")
    here = [name for name in benchmark.SETS if name not in missing]
    if not here:
        raise InputError(
            f"no dataset of {path.stem} is in {args.root}; {benchmark.GET.format(name='NAME')} and "
            "unpack it there as docs/datasets.md says, or set DATA or --root"
        )
    status = 0
    for part in [args.only] if args.only else PARTS:
        for name in here:
            status |= run_part(args, benchmark, part, name)
    return print_means(args, benchmark, here) or status


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    return parse_script(make_parser(), argv, decided=[SHOTS, base_to_new.HALF])


def missing_file(args: argparse.Namespace, name: str) -> Path | None:
    """The folder or the split file of a dataset, if it is not there."""
    cfg, _ = load_cfg("ZeroshotCLIP", name, args.backbones[0], root=args.root)
    folder = Path(cfg.DATASET.ROOT) / cfg.DATASET.PATH
    split = Path(f"{folder}/{cfg.DATASET.SPLIT_FILE}")
    if not folder.is_dir():
        return folder
    return split.resolve() if cfg.DATASET.SPLIT_FILE and not split.is_file() else None


def run_part(args: argparse.Namespace, benchmark: Benchmark, part: str, name: str) -> int:
    """One part of the benchmark on one dataset; 1 if a run failed, otherwise 0."""
    args = argparse.Namespace(**vars(args) | {"dataset": name})
    if part == "few-shot":
        print(f"\n# {name}, few-shot\n")
        return few_shot.run_shots(args)
    if name in benchmark.NO_BASE_TO_NEW:
        return 0
    print(f"\n# {name}, base to new\n")
    args.opts = [*args.opts, SHOTS, str(benchmark.BASE_TO_NEW_SHOTS)]
    return base_to_new.run_all(args)


def print_means(args: argparse.Namespace, benchmark: Benchmark, here: Sequence[str]) -> int:
    """Print the tables of means over the datasets that have runs; says how many that are."""
    found = [name for name in here if any((args.output / name).rglob(RESULTS))]
    if not found:
        return 0
    print(f"\nMeans over {len(found)} of the {len(benchmark.SETS)} datasets of the benchmark\n")
    options = [word for name in found for word in ("--dataset", name)]
    return call(tables_command(args.output, "--mean", *options, "--seeds", *map(str, args.seeds)))


if __name__ == "__main__":
    interrupt_on_sigterm()
    command_line(main)()
