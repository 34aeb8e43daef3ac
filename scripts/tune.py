"""Choose a method's options on the validation images, then train the choice with every seed.

Every combination of a small grid is tried with the first seed: of the method's own grid (GRID,
beside its class), or of the one that --grid gives. These runs are in OUTPUT/_tuning and are no rows
of the tables; they are tested on the validation images, so that they read no test image. The best
validation accuracy wins; of several that reach it, the combination nearest to the defaults. A
complete run is left as it is and an interrupted one is resumed, so the same command may be given
again.
"""

import argparse
import contextlib
import io
import itertools
from collections.abc import Sequence
from typing import Any

from core.arguments import Parser, help_first, positive_int
from scripts.parsers import add_executor_arguments, script_parser


def make_parser() -> Parser:
    # The method comes first, as in METHOD DATASET BACKBONE.
    parser = script_parser("tune.sh", __doc__, first="trainer")
    add = parser.add_argument
    add(
        "--grid",
        nargs="+",
        default=[],
        metavar="OPTION=V,V",
        help="options and the values to try, instead of the method's own grid: W=1,2,4",
    )
    add(
        "--max-runs",
        type=positive_int,
        default=64,
        help="stop at once if the grid has more combinations (default: 64)",
    )
    add_executor_arguments(parser)
    return parser


help_first(__name__, make_parser)

from yacs.config import CfgNode as CN

from core.errors import InputError, command_line, short
from core.files import atomic_write
from datasets.multi_label import check_one_class
from datasets.views import read_dataset
from engine.config import key_of, load_cfg, own_options, run_folder, trainer_name
from engine.method import METHODS
from results.rendering import Estimate, Table, render
from results.runs import TUNED, TUNING
from scripts import compare
from scripts.arguments import parse_script
from scripts.experiments import Row
from scripts.jobs import interrupt_on_sigterm

FILE = "tuning.csv"  # what was tried and chosen
Grid = dict[str, list[str]]  # option -> values as on a command line
Combination = dict[str, Any]  # option -> value


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    args = parse_script(make_parser(), argv, decided=["TEST.SPLIT"])
    if len(args.backbones) > 1:
        raise InputError("tune.sh takes one backbone: METHOD DATASET BACKBONE")
    args.trainer = trainer_name(args.trainer)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    grid = grid_of(args.trainer, args.grid)
    tried = combinations(args, grid)
    if len(tried) > args.max_runs:
        raise InputError(
            f"the grid has {len(tried)} combinations, more than --max-runs {args.max_runs}; give "
            "fewer values in --grid, or a greater --max-runs"
        )
    check_validation(args)
    accuracies = search(args, grid, tried)
    best = best_of(accuracies)
    report(args, tried, accuracies, best)
    if best is None:
        return 1
    outcomes = compare.run_rows(args, [chosen_row(args.trainer, tried[best])])
    if any(outcome.record for outcome in outcomes):
        compare.print_tables(args, [[]])
    return compare.exit_status(outcomes)


# The grid


def grid_of(trainer: str, given: Sequence[str]) -> Grid:
    """The grid that --grid gives, else the method's own.

    Raises:
        InputError: there is neither, or the method does not have such an option.
    """
    method = METHODS[trainer]
    if not given:
        if not method.GRID:
            raise InputError(
                f"{trainer} has no grid of options to tune; give one, as in --grid OPTION=1,2,4"
            )
        return {option: list(map(str, values)) for option, values in method.GRID.items()}
    grid: Grid = {}
    for word in given:
        option, _, texts = word.partition("=")
        if option not in method.defaults():
            raise InputError(
                f"--grid {short(word)}: {trainer} has no option {short(option)}; choose of "
                f"{', '.join(method.defaults())}"
            )
        grid[option] = [text.strip() for text in texts.split(",") if text.strip()]
        if not grid[option]:
            raise InputError(f"--grid {short(word)}: has no values; give {option}=1,2,4")
    return grid


def combinations(args: argparse.Namespace, grid: Grid) -> list[Combination]:
    """Every combination of the grid's values, those nearest to the defaults first.

    Raises:
        InputError: a value that its option does not admit, or an option that is also given apart.
    """
    for key in args.opts[::2]:
        if key_of(args.trainer, key).rpartition(".")[2] in grid:
            raise InputError(f"{key} is in the grid; leave it out, or out of --grid")
    ordered = []
    for option, texts in grid.items():
        default = options_of(args)[option]
        values = dict.fromkeys(options_of(args, option, text)[option] for text in texts)
        ordered.append(nearest_first(list(values), default))
    ranked = itertools.product(*map(enumerate, ordered))
    return [
        dict(zip(grid, (value for _, value in places), strict=True))
        for places in sorted(ranked, key=lambda places: sum(rank for rank, _ in places))
    ]


def nearest_first(values: list[Any], default: Any) -> list[Any]:
    """Numbers by their distance from the default; of other values, the default first."""
    if all(isinstance(value, int | float) for value in [default, *values]):
        return sorted(values, key=lambda value: abs(value - default))
    return sorted(values, key=lambda value: value != default)


def options_of(args: argparse.Namespace, *opts: str) -> dict[str, Any]:
    """The method's options in a run with further settings."""
    cfg, _ = configuration(args, *opts)
    return cfg.TRAINER[args.trainer.upper()]


def configuration(args: argparse.Namespace, *opts: str) -> tuple[CN, dict[str, Any]]:
    return load_cfg(
        args.trainer,
        args.dataset,
        args.backbones[0],
        opts=[*own_options(args.trainer, args.opts), *opts],
        root=args.root,
        seed=args.seeds[0],
    )


def check_validation(args: argparse.Namespace) -> None:
    """Raise InputError for a dataset without validation images."""
    cfg, _ = configuration(args)
    with contextlib.redirect_stdout(io.StringIO()):  # every run prints its card
        dataset = read_dataset(cfg)
    if not dataset.val:
        raise InputError(f"{args.dataset}: it has no validation images to choose options with")
    check_one_class(dataset, "tune.sh, which chooses by the validation accuracy,")


# The search


def search(
    args: argparse.Namespace, grid: Grid, tried: Sequence[Combination]
) -> list[float | None]:
    """The validation accuracy of every combination with the first seed; None where a run failed."""
    texts = [f"{option}={','.join(values)}" for option, values in grid.items()]
    print(f"The grid: {' '.join(texts)}")
    own = argparse.Namespace(**vars(args))
    own.output, own.seeds = args.output / TUNING, args.seeds[:1]
    own.opts = [*args.opts, "TEST.SPLIT", "val"]
    rows: list[Row] = [(args.trainer, opts_of(args.trainer, values)) for values in tried]
    jobs = compare.make_jobs(own, rows)
    records = {outcome.job: outcome.record for outcome in compare.run_jobs(own, jobs)}
    found = [records[job] for job in jobs]
    return [record.validation.accuracy if record else None for record in found]


def opts_of(trainer: str, values: Combination) -> list[str]:
    prefix = f"TRAINER.{trainer.upper()}."
    return [word for option, value in values.items() for word in (prefix + option, str(value))]


def chosen_row(trainer: str, values: Combination) -> Row:
    """The row of the tables that says how its options were chosen."""
    return (trainer, [*opts_of(trainer, values), TUNED, said(values)])


def said(values: Combination) -> str:
    return ",".join(f"{option}={value}" for option, value in values.items())


def best_of(accuracies: Sequence[float | None]) -> int | None:
    """The place of the best, the first of equal ones; None unless every combination was tried."""
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    return accuracies.index(max(known)) if len(known) == len(accuracies) else None


def report(
    args: argparse.Namespace,
    tried: Sequence[Combination],
    accuracies: Sequence[float | None],
    best: int | None,
) -> None:
    """Print what was tried and chosen, and write it beside the runs of the search."""
    cfg, options = configuration(args)
    title = f"{args.trainer} on {cfg.RUN.DATASET}, {cfg.RUN.BACKBONE}, seed {args.seeds[0]}"
    table = Table(
        f"{title}: options tuned on validation",
        [*tried[0], "validation ACC", "chosen"],
        [
            [
                *map(str, values.values()),
                None if accuracy is None else Estimate(accuracy),
                "yes" if place == best else "",
            ]
            for place, (values, accuracy) in enumerate(zip(tried, accuracies, strict=True))
        ],
        ["nothing is chosen, because some combinations have no result"]
        if best is None
        else [f"chosen: {said(tried[best])}; of equally good ones, the nearest to the defaults"],
        text_columns=len(tried[0]),
    )
    path = args.output / TUNING / run_folder(cfg, options).parent / FILE
    with atomic_write(path) as file:
        file.write(render(table, "csv") + "\n")
    print(f"\n{render(table)}\n\nThis table is in {path}\n", flush=True)


if __name__ == "__main__":
    interrupt_on_sigterm()
    command_line(main)()
