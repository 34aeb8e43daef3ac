"""Print the tables, statistics and plots of finished runs.

python parse_results.py                            every dataset's table, from output/
python parse_results.py --paper --ci               with the ViP paper's figures and 95 % intervals
python parse_results.py --paper vip biomedcoop     with the figures of several papers
python parse_results.py --by backbone --format csv
python parse_results.py --ablation --knowledge --zeroshot --shots --cost
python parse_results.py --mean --dataset btmri --dataset retina     means over datasets
python parse_results.py --compare ViP CoOp --dataset derm7pt
python parse_results.py --patients mean            metrics by patient (or: max)
python parse_results.py --operating sensitivity=0.9 --calibration --conformal 0.9
                                                   thresholds, calibration and sets of classes
python parse_results.py --plot                     bar charts; --plot shots: the few-shot curve;
                                                   --plot meaning: what symptoms still mean;
                                                   --plot calibration: reliability diagrams
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from core.errors import InputError, command_line
from results.choices import Choices
from results.compare import compare_tables
from results.intervals import Intervals
from results.metrics import METRICS
from results.paper import VIP, paper_names, read_paper
from results.rendering import FORMATS, Table, render
from results.rows import wanted_seeds
from results.runs import Run, find_runs, of_one_class
from results.tables import KINDS, Kind, tables_of

PLOTS = ("bars", "shots", "meaning", "calibration")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", nargs="?", help="folder that holds the runs (default: output)")
    add(
        "--by",
        choices=_values_of("--by"),
        help="one row per seed or per backbone, without a mean over them",
    )
    add("--format", choices=FORMATS, default="github")
    add(
        "--paper",
        nargs="*",
        metavar="NAME",
        help=f"show the figures that papers print beside ours: {', '.join(paper_names())} "
        f"(default: {VIP}); figures of another protocol are marked",
    )
    _add_metrics(parser)
    add("--ci", action="store_true", help="95 %% intervals (bootstrap)")
    _add_selection(parser)
    for kind in KINDS:
        if kind.value:
            default = kind.value.default
            add(
                kind.option,
                nargs="?" if default else None,
                const=default,
                metavar=kind.value.names,
                help=kind.help,
            )
        elif kind.option and " " not in kind.option:
            add(kind.option, action="store_true", help=kind.help)
    add(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="test two methods on the same images; a variant is TRAINER:KEY=VALUE,...",
    )
    add(
        "--plot",
        nargs="?",
        const="bars",
        metavar="KIND",
        help="draw Fig. 3 I and Fig. 5, with 'shots' the few-shot curve, with 'meaning' what "
        "symptoms still mean after training, or with 'calibration' reliability diagrams before and "
        "after temperature scaling, into FOLDER/plots",
    )
    return parser


def _add_selection(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dataset", action="append", help="only this dataset; may be given several times")
    add("--backbone", action="append", help="only this backbone; may be given several times")
    add(
        "--seeds",
        nargs="+",
        type=int,
        default=wanted_seeds(),
        help="seeds that every row should have; a note names missing ones "
        "(default: SEEDS of the environment, or 1 2 3)",
    )


def _add_metrics(parser: argparse.ArgumentParser) -> None:
    shown = [metric.option for metric in METRICS.values() if metric.by_default]
    titles = ", ".join(f"{metric.option}: {metric.title}" for metric in METRICS.values())
    parser.add_argument(
        "--metrics", nargs="+", choices=list(_metric_names()), default=shown, help=titles
    )


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.plot is not None and args.plot not in PLOTS:
        # `--plot output` reads as if output were the kind of plot.
        if args.folder is not None:
            parser.error(f"--plot {args.plot}: choose from {', '.join(PLOTS)}")
        args.folder, args.plot = args.plot, "bars"
    _read_values(args)
    args.paper = [VIP] if args.paper == [] else args.paper or []
    if args.folder is None and args.paper and Path(args.paper[-1]).is_dir():
        # `--paper output` reads as if output were a paper.
        args.folder = args.paper.pop()
        args.paper = args.paper or [VIP]
    args.paper = [read_paper(name) for name in dict.fromkeys(args.paper)]
    args.folder = Path(args.folder or "output")
    names = _metric_names()
    args.metrics = [names[option] for option in dict.fromkeys(args.metrics)]
    return args


def _read_values(args: argparse.Namespace) -> None:
    """Put what the options of ``KINDS`` with a value say in the place of their texts.

    Raises:
        InputError: a value is wrong; names the option.
    """
    for kind in KINDS:
        text = getattr(args, kind.option.removeprefix("--"), None) if kind.value else None
        if text is None or kind.value is None:
            continue
        if args.folder is None and kind.value.default and Path(text).is_dir():
            # `--patients output` reads as if output were the value.
            args.folder, text = text, kind.value.default
        try:
            value = kind.value.read(text)
        except InputError as error:
            raise InputError(f"{kind.option} {error}") from None
        setattr(args, kind.option.removeprefix("--"), value)


def _metric_names() -> dict[str, str]:
    """Value of --metrics -> name of the metric."""
    return {metric.option: name for name, metric in METRICS.items()}


def _values_of(option: str) -> list[str]:
    """The values of an option that chooses a kind of table, as ``seed`` of ``--by seed``."""
    split = [kind.option.split() for kind in KINDS]
    return [words[1] for words in split if len(words) == 2 and words[0] == option]


def chosen_runs(args: argparse.Namespace) -> list[Run]:
    """The runs of the folder that --dataset and --backbone leave.

    Raises:
        InputError: nothing is left.
    """
    runs = find_runs(args.folder)
    if not runs:
        raise InputError(f"{args.folder}: no finished runs; train some, or name another folder")
    for name in ("dataset", "backbone"):
        chosen, there = getattr(args, name), sorted({getattr(run, name) for run in runs})
        for wanted in chosen or ():
            if wanted not in there:
                raise InputError(f"no runs of {name} {wanted}; there are {', '.join(there)}")
        runs = [run for run in runs if not chosen or getattr(run, name) in chosen]
    return runs


def named_kinds(args: argparse.Namespace) -> list[Kind]:
    """The kinds of table that have an option of their own, and it is given."""
    given = {f"--{name}": value for name, value in vars(args).items()}
    return [kind for kind in KINDS if given.get(kind.option) not in (None, False)]


def chosen_kinds(args: argparse.Namespace) -> list[Kind]:
    """The kinds of table that the options name; without any, those that need no option."""
    return named_kinds(args) or [
        kind for kind in KINDS if kind.option == (f"--by {args.by}" if args.by else "")
    ]


def chosen_tables(args: argparse.Namespace, runs: list[Run]) -> list[Table]:
    """What the options ask for; each part says so where it has nothing to show."""
    if args.compare:
        return compare_tables(of_one_class(runs, "--compare"), *args.compare)
    intervals = Intervals(args.metrics) if args.ci else None
    values = {
        kind.value.field: getattr(args, kind.option.removeprefix("--"))
        for kind in named_kinds(args)
        if kind.value
    }
    choices = Choices(args.metrics, intervals, args.seeds, papers=args.paper, **values)
    found = []
    for kind in chosen_kinds(args):
        tables = tables_of([kind], runs, choices)
        if not tables and kind.without:
            print(f"{kind.option}: {kind.without}", file=sys.stderr)
        found += tables
    return found


def draw(args: argparse.Namespace, runs: list[Run]) -> None:
    """Draw what --plot asks for and name the files.

    Raises:
        InputError: there is nothing to draw.
    """
    from results import plots  # only a plot pays for matplotlib

    folder = args.folder / "plots"
    runs = of_one_class(runs, "--plot")
    if args.plot == "shots":
        from results import shot_plots

        paths = shot_plots.plot_shots(runs, folder)
        needed = "runs of one method with two or more DATASET.NUM_SHOTS"
    elif args.plot == "meaning":
        from results import meaning_plots

        paths = meaning_plots.plot_meaning(runs, folder)
        needed = "ViP runs whose symptoms explain.py has measured"
    elif args.plot == "calibration":
        from results import calibration_plots

        paths = calibration_plots.plot_calibration(runs, folder)
        needed = "runs with predictions on validation images"
    else:
        paths = plots.plot_zeroshot(runs, folder) + plots.plot_knowledge(runs, folder)
        needed = "zero-shot runs by names and symptoms, or ViP runs with several symptom files"
    if not paths:
        raise InputError(f"{args.folder}: nothing to draw; --plot needs {needed}")
    for path in paths:
        print(path)


def main() -> None:
    args = arguments()
    runs = chosen_runs(args)
    if not args.plot or named_kinds(args) or args.compare:
        print_tables(args, runs)
    if args.plot:
        draw(args, runs)


def print_tables(args: argparse.Namespace, runs: list[Run]) -> None:
    for i, table in enumerate(chosen_tables(args, runs)):
        print("\n" * (i > 0) + render(table, args.format))
        if args.format == "csv":
            print(*(f"{table.title}: {note}" for note in table.notes), sep="\n", file=sys.stderr)


if __name__ == "__main__":
    command_line(main)()
