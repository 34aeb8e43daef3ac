"""Train on the first half of the classes, test on the other half; then print the table.

base_to_new.sh METHOD DATASET [BACKBONE ...]              one method
base_to_new.sh DATASET [BACKBONE ...] --methods A B ...   several: names, and the sets of compare.sh

Only for methods that can score classes that training did not see. Their learned parameters do not
belong to classes, or they say what a new class starts from: ViP's new classes start at g = 0, the
mean of their symptoms' features. Zero-shot, where nothing is trained, is tested on both halves.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from core.arguments import Parser, help_first
from scripts.parsers import add_executor_arguments, script_parser


def make_parser(several: bool = False) -> Parser:
    # One method comes first, as in METHOD DATASET [BACKBONE ...].
    parser = script_parser("base_to_new.sh", __doc__, first="" if several else "trainer")
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help="in place of one method: methods, and the sets paper, strong and all",
    )
    add_executor_arguments(parser)
    parser.set_defaults(experiment="methods")
    return parser


help_first(__name__, make_parser)

import torch

from core.errors import InputError, command_line
from engine.config import load_cfg, method_of, own_options, trainer_name
from engine.method import METHODS, Method
from engine.settings import SettingError
from results.record import find_record
from scripts import compare
from scripts.arguments import argv_of, parse_script
from scripts.evaluate import origin_of, output_folder
from scripts.experiments import Row
from scripts.jobs import Job, Outcome, interrupt_on_sigterm, train_command

HALF = "DATASET.SUBSAMPLE_CLASSES"


def main(argv: Sequence[str] | None = None) -> int:
    words = argv_of(argv)
    several = any(word.partition("=")[0] == "--methods" for word in words)
    return run_all(parse_args(words, several))


def parse_args(words: Sequence[str], several: bool) -> argparse.Namespace:
    return parse_script(make_parser(several), words, decided=[HALF])


def learned_of_each_class(method: Method) -> list[str]:
    """What the method learns of each class without saying what a new class has of it."""
    rows = torch.zeros(2, 2)
    return [key for key in method.per_class() if method.new_class_row(key, rows) is None]


def run_all(args: argparse.Namespace) -> int:
    """Train the method or every method, test those that were trained, and print the tables.

    A run that fails is named at the end and leaves the others alone.
    """
    one = getattr(args, "trainer", None)
    rows = [(trainer_name(one), [])] if one else compare.chosen_rows(args)
    compare.check_settings(args, rows)
    rows = rows_for_new_classes(args, rows)
    pairs = [
        make_pair(args, trainer, options, backbone, seed)
        for backbone in args.backbones
        for seed in args.seeds
        for trainer, options in rows
        if seed == args.seeds[0] or METHODS[trainer].seeded
    ]
    compare.check_jobs(args, [base for base, _ in pairs])
    compare.print_settings(rows, args.opts)
    trained = compare.run_jobs(args, [base for base, _ in pairs])
    ready = {outcome.job for outcome in trained if outcome.record}
    tested: list[Outcome] = []
    if jobs := [new for base, new in pairs if new and base in ready]:
        tested = compare.run_jobs(args, jobs)
        compare.print_tables(args, [[]])
    return compare.exit_status([*trained, *tested])


def rows_for_new_classes(args: argparse.Namespace, rows: Iterable[Row]) -> list[Row]:
    """The rows whose methods can score new classes; the others are named.

    Raises:
        InputError: no method can.
    """
    kept, others = [], []
    for trainer, options in rows:
        keys = _keys_of_classes(args, trainer, options)
        if keys:
            others.append(f"{compare.row_name(trainer, options)} ({', '.join(keys)})")
        else:
            kept.append((trainer, options))
    reason = "learned for each class, with nothing for new classes"
    if not kept:
        raise InputError(
            f"none of the methods can score new classes; {reason}: {', '.join(others)}"
        )
    if others:
        print(f"Left out, because they have something {reason}: {', '.join(others)}\n")
    return kept


def _keys_of_classes(args: argparse.Namespace, trainer: str, options: list[str]) -> list[str]:
    """``learned_of_each_class`` of a row; nothing where the run cannot be, as its job will say."""
    opts = [*options, *own_options(trainer, args.opts), HALF, "base"]
    try:
        cfg, _ = load_cfg(trainer, args.dataset, args.backbones[0], opts=opts, root=args.root)
    except SettingError:
        raise
    except InputError:
        return []
    return learned_of_each_class(method_of(cfg))


def make_pair(
    args: argparse.Namespace, trainer: str, row_options: list[str], backbone: str, seed: int
) -> tuple[Job, Job | None]:
    """The jobs of a row: training on the base classes, and the test on the new ones.

    Raises:
        SettingError: an option that no run could have.
    """
    opts = [*row_options, *own_options(trainer, args.opts)]
    base = [*opts, HALF, "base"]
    row = compare.row_name(trainer, row_options)
    name = f"{row}, base classes"
    folder = run_of(args, trainer, backbone, seed, opts)
    try:
        cfg, options = load_cfg(
            trainer, args.dataset, backbone, opts=base, root=args.root, seed=seed
        )
        train = train_command(args, trainer, backbone, seed, folder, base)
        trained = compare.job_of(cfg, name, backbone, seed, train, folder)
    except SettingError:
        raise
    except InputError as error:
        return Job(name, backbone, seed, [], None, problem=str(error)), None
    there = output_folder(cfg, {**options, HALF: "new"}, args.output, origin_of(cfg))
    tested = trained.is_complete and find_record(there) is not None
    test = test_command(args, trainer, folder)
    return trained, Job(f"{row}, new classes", backbone, seed, test, there, is_complete=tested)


def run_of(
    args: argparse.Namespace, trainer: str, backbone: str, seed: int, opts: Sequence[str]
) -> Path:
    """The folder of a base run; runs with other options have another one."""
    variant = re.sub(r"[^A-Za-z0-9._=-]", "-", "_".join(["base", *opts]))
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
