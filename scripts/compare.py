"""Run an experiment's methods x backbones x seeds, then print its tables.

compare.sh, zeroshot/main.sh, vip/ablation.sh and vip/knowledge.sh call this. A complete run is left
as it is and an interrupted one is resumed, so the same command may be given again.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from core.arguments import real_number
from core.errors import InputError, command_line
from engine.config import (
    CONFIGS,
    differing_keys,
    key_of,
    load_cfg,
    own_options,
    run_folder,
)
from engine.method import METHODS
from engine.settings import SettingError
from results.record import find_record
from results.rows import label_of, option_texts
from results.settings import CONFIG
from scripts.arguments import parse_script, script_parser
from scripts.executors import on_ray
from scripts.experiments import EXPERIMENTS, SETS, Row, is_in
from scripts.jobs import (
    Job,
    Outcome,
    call,
    interrupt_on_sigterm,
    run_job,
    tables_command,
    train_command,
)
from scripts.progress import Progress, print_end

# What there is to run


def make_job(
    args: argparse.Namespace, trainer: str, row_options: list[str], backbone: str, seed: int
) -> Job:
    """The job of a row on a backbone with a seed.

    What prevents this one run alone (a missing symptom file, say) is kept for the end.

    Raises:
        SettingError: an option that no run could have.
    """
    opts = [*row_options, *own_options(trainer, args.opts)]
    said = dict(zip(row_options[::2], row_options[1::2], strict=True))
    row = label_of(trainer, option_texts(trainer, said))
    try:
        cfg, options = load_cfg(
            trainer, args.dataset, backbone, opts=opts, root=args.root, seed=seed
        )
        folder = args.output / run_folder(cfg, options)
        config = folder / CONFIG
        done = config.exists() and not differing_keys(cfg, config) and find_record(folder)
    except SettingError:
        raise
    except InputError as error:
        return Job(row, backbone, seed, [], None, problem=str(error))
    command = train_command(args, trainer, backbone, seed, folder, opts)
    return Job(row, backbone, seed, command, folder, is_complete=bool(done))


def chosen_rows(args: argparse.Namespace) -> list[Row]:
    """The experiment's rows, or those of --methods alone."""
    make_rows, _ = EXPERIMENTS[args.experiment]
    rows = make_rows(args.dataset)
    names = args.methods or []
    known = list(dict.fromkeys(trainer for trainer, _ in rows))
    for name in names:
        if name.lower() not in (*SETS, *map(str.lower, known)):
            raise InputError(
                f"--methods {name}: neither a method of this experiment ({', '.join(known)}) nor "
                f"a set of methods ({', '.join(SETS)})"
            )
    if not names and args.experiment != "methods":
        return rows
    return [row for row in rows if is_in(row[0], names)]


def make_jobs(args: argparse.Namespace, rows: list[Row]) -> list[Job]:
    """Every run of the experiment, in the order in which they run.

    Raises:
        InputError: a setting that none of the methods has, or nothing that can run.
    """
    for key in args.opts[::2]:
        if not any(key_of(trainer, key) for trainer, _ in rows):
            raise InputError(f"none of these methods has a setting {key}")
    # Runs on the same views follow one another: the features that the first keeps serve the others.
    jobs = [
        make_job(args, trainer, options, backbone, seed)
        for backbone in args.backbones
        for seed in args.seeds
        for trainer, options in rows
        if seed == args.seeds[0] or METHODS[trainer].seeded
    ]
    if all(job.problem for job in jobs):
        raise InputError(jobs[0].problem)
    return jobs


# All runs


def one_after_another(
    jobs: Sequence[Job], progress: Progress, args: argparse.Namespace
) -> Iterator[Outcome]:
    """Run jobs in their order, in this process's own environment; yields their outcomes."""
    for job in jobs:
        yield run_job(job, partial(progress.show, job))


def side_by_side(
    jobs: Sequence[Job], progress: Progress, args: argparse.Namespace
) -> Iterator[Outcome]:
    """Hand jobs to Ray; yields their outcomes as they end."""
    return on_ray(jobs, args.gpus_per_run)


# Name -> function(jobs, progress, args) that yields an Outcome for each job, in any order.
EXECUTORS: dict[str, Callable[..., Iterable[Outcome]]] = {
    "local": one_after_another,
    "ray": side_by_side,
}


def print_settings(names: Iterable[str]) -> None:
    """Print what is the same for all methods, and what each changes and why."""
    print(
        "The same for all methods: "
        "configs/protocol.yaml, the split, the views and their order, M = 4."
    )
    print("What a method changes, and why (configs/trainers):")
    for name in dict.fromkeys(names):
        path = CONFIGS / "trainers" / f"{name}.yaml"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        reason = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
        print(f"- {name}: {reason or 'nothing'}")


def print_tables(args: argparse.Namespace, calls: Iterable[list[str]]) -> None:
    folder = args.output / Path(args.dataset).stem
    for options in calls:
        print()
        call(tables_command(folder, *options, "--seeds", *map(str, args.seeds)))


def add_executor_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says where the runs go."""
    parser.add_argument(
        "--executor",
        choices=EXECUTORS,
        default="local",
        help="ray: several runs at a time, on several GPUs or machines (default: local)",
    )
    parser.add_argument(
        "--gpus-per-run",
        type=real_number(least=0),
        default=1.0,
        help="GPUs for each run with Ray, or a fraction of one (default: 1)",
    )


def parse_args(
    argv: Sequence[str] | None = None, prog: str = "compare.sh", decided: Sequence[str] = ()
) -> argparse.Namespace:
    """The arguments of a comparison; ``decided`` are settings that the caller chooses."""
    parser = script_parser(prog, __doc__)
    add = parser.add_argument
    add(
        "--experiment",
        choices=EXPERIMENTS,
        default="methods",
        help="which runs and tables (default: methods)",
    )
    add(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help="methods, or the sets paper, strong and all (default: paper, and of strong those that "
        "take seconds)",
    )
    add_executor_arguments(parser)
    return parse_script(parser, argv, decided)


def main(argv: Sequence[str] | None = None) -> int:
    return run_all(parse_args(argv))


def run_all(args: argparse.Namespace) -> int:
    """Run a comparison and print its tables; 1 if a run failed, otherwise 0."""
    outcomes = run_rows(args, chosen_rows(args))
    if any(outcome.record for outcome in outcomes):
        print_tables(args, EXPERIMENTS[args.experiment][1])
    return exit_status(outcomes)


def exit_status(outcomes: Iterable[Outcome]) -> int:
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0


def run_rows(args: argparse.Namespace, rows: list[Row]) -> list[Outcome]:
    """Run rows on every backbone with every seed; complete runs are left as they are."""
    jobs = make_jobs(args, rows)
    print_settings(trainer for trainer, _ in rows)
    return run_jobs(args, jobs)


def run_jobs(args: argparse.Namespace, jobs: list[Job]) -> list[Outcome]:
    """Run jobs where ``args`` says, and print how each ended; the outcomes as they ended."""
    done = sum(job.is_complete for job in jobs)
    runs = f"{len(jobs)} run" + "s" * (len(jobs) != 1)
    print(f"\n{runs}" + (f", {done} complete" if done else ""), flush=True)
    progress = Progress(jobs)
    outcomes = []
    for outcome in EXECUTORS[args.executor](jobs, progress, args):
        outcomes.append(outcome)
        progress.ended(outcome)
    print_end(outcomes)
    return outcomes


if __name__ == "__main__":
    interrupt_on_sigterm()
    command_line(main)()
