"""Print the tables, statistics and plots of finished runs.

python parse_results.py                            every dataset's table, from output/
python parse_results.py --paper --ci               with the paper's figures and 95 % intervals
python parse_results.py --by backbone --format csv
python parse_results.py --ablation --knowledge --zeroshot --cost
python parse_results.py --compare ViP CoOp --dataset derm7pt
python parse_results.py --plot                     bar charts; --plot shots: the few-shot curve
"""

import argparse
import sys
from pathlib import Path

from core.errors import InputError, command_line
from results import compare, experiments, paper, tables
from results.runs import find_runs

METRICS = {
    "acc": "accuracy",
    "f1": "macro_f1",
    "auroc": "auroc",
    "bacc": "balanced_accuracy",
}
PLOTS = ("bars", "shots")


def arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", help="where the runs are (default: output)")
    parser.add_argument("--by", choices=("seed", "backbone"), help="do not average over these")
    parser.add_argument("--format", choices=tables.FORMATS, default="github")
    parser.add_argument("--paper", action="store_true", help="the paper's figures beside ours")
    parser.add_argument("--metrics", nargs="+", choices=METRICS, default=["acc", "f1"])
    parser.add_argument("--ci", action="store_true", help="95 %% intervals (bootstrap)")
    parser.add_argument("--dataset", help="only this dataset")
    parser.add_argument("--backbone", help="only this backbone")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=paper.SEEDS, help="seeds no row should lack"
    )
    parser.add_argument("--cost", action="store_true", help="time, memory and parameters")
    parser.add_argument("--ablation", action="store_true", help="the paper's Table 2")
    parser.add_argument("--knowledge", action="store_true", help="the paper's Fig. 5")
    parser.add_argument("--zeroshot", action="store_true", help="the paper's Fig. 3 I")
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar=("A", "B"),
        help="test two methods on the same pictures; a variant is TRAINER:KEY=VALUE,...",
    )
    parser.add_argument(
        "--plot",
        nargs="?",
        const="bars",
        metavar="shots",
        help="draw Fig. 3 I and Fig. 5, or with 'shots' the few-shot curve, into FOLDER/plots",
    )
    args = parser.parse_args(argv)
    if args.plot is not None and args.plot not in PLOTS:
        # `--plot output` reads as if output were the kind of plot.
        if args.folder is not None:
            parser.error(f"--plot {args.plot}: choose from {', '.join(PLOTS)}")
        args.folder, args.plot = args.plot, "bars"
    args.folder = Path(args.folder or "output")
    args.metrics = [METRICS[name] for name in dict.fromkeys(args.metrics)]
    return args


def chosen_runs(args):
    """The runs of the folder that --dataset and --backbone leave.

    Raises:
        InputError: if nothing is left.
    """
    runs = find_runs(args.folder)
    if not runs:
        raise InputError(f"{args.folder}: no finished runs; train some, or name another folder")
    for name in ("dataset", "backbone"):
        wanted, there = getattr(args, name), sorted({getattr(run, name) for run in runs})
        if wanted is not None and wanted not in there:
            raise InputError(f"no runs of {name} {wanted}; there are {', '.join(there)}")
        runs = [run for run in runs if wanted in (None, getattr(run, name))]
    return runs


def chosen_tables(args, runs):
    """What the options ask for; each part says so where it has nothing to show."""
    if args.compare:
        return compare.compare_tables(runs, *args.compare)
    intervals = tables.Intervals(args.metrics) if args.ci else None
    shared = {"metrics": args.metrics, "intervals": intervals, "seeds": args.seeds}
    found = []
    if args.cost:
        found += _or_say(tables.cost_tables(runs), "--cost: no run says what it cost")
    for wanted, make, what in (
        (args.ablation, experiments.ablation_tables, "--ablation: no runs of Table 2"),
        (args.knowledge, experiments.knowledge_tables, "--knowledge: no runs with other symptoms"),
        (args.zeroshot, experiments.zeroshot_tables, "--zeroshot: no zero-shot runs"),
    ):
        if wanted:
            found += _or_say(make(runs, beside_paper=args.paper, **shared), what)
    if args.cost or args.ablation or args.knowledge or args.zeroshot:
        return found
    if args.by == "seed":
        return tables.seed_tables(runs, args.metrics, intervals)
    if args.by == "backbone":
        return tables.backbone_tables(runs, **shared)
    found = tables.paper_tables(runs, beside_paper=args.paper, **shared)
    found += tables.base_to_new_tables(runs, **shared)
    external = tables.external_table(runs, **shared)
    return found + ([external] if external else [])


def _or_say(found, otherwise):
    if not found:
        print(otherwise, file=sys.stderr)
    return found


def draw(args, runs):
    """Draw what --plot asks for and name the files.

    Raises:
        InputError: if there is nothing to draw.
    """
    from results import plots  # only a plot pays for matplotlib

    folder = args.folder / "plots"
    if args.plot == "shots":
        paths = plots.plot_shots(runs, folder)
        needed = "runs of one method with two or more DATASET.NUM_SHOTS"
    else:
        paths = plots.plot_zeroshot(runs, folder) + plots.plot_knowledge(runs, folder)
        needed = "zero-shot runs by names and symptoms, or ViP runs with several symptom files"
    if not paths:
        raise InputError(f"{args.folder}: nothing to draw; it takes {needed}")
    for path in paths:
        print(path)


def main():
    args = arguments()
    runs = chosen_runs(args)
    if args.plot:
        draw(args, runs)
        return
    for i, table in enumerate(chosen_tables(args, runs)):
        print("\n" * (i > 0) + tables.render(table, args.format))
        if args.format == "csv":
            print(*(f"{table.title}: {note}" for note in table.notes), sep="\n", file=sys.stderr)


if __name__ == "__main__":
    command_line(main)()
