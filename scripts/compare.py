"""Run an experiment's methods x backbones x seeds, then print its tables.

compare.sh, zeroshot/main.sh, vip/ablation.sh and vip/knowledge.sh call this. A complete run is left
as it is and an interrupted one is resumed, so the same command may be given again.

All methods share one protocol (configs/protocol.yaml). A method whose own paper trains it otherwise
has a second row, METHOD (PROTOCOL=own). With PROTOCOL own, only these rows are run.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from core.arguments import Parser, help_first
from core.errors import InputError, command_line
from scripts.parsers import add_experiment_argument, comparison_parser


def make_parser() -> Parser:
    parser = comparison_parser("compare.sh", __doc__)
    add_experiment_argument(parser)
    return parser


help_first(__name__, make_parser)

from yacs.config import CfgNode as CN

from backbones.loading import check_present, weights_bytes
from datasets.views import read_dataset
from engine.config import (
    CONFIGS,
    differing_keys,
    has_own_protocol,
    key_of,
    load_cfg,
    method_of,
    own_options,
    own_protocol,
    protocol_of,
    run_folder,
)
from engine.method import METHODS
from engine.settings import SettingError
from results.record import find_record
from results.rows import label_of, option_texts
from results.settings import CONFIG
from scripts.arguments import parse_script
from scripts.executors import on_ray
from scripts.experiments import EXPERIMENTS, SETS, Row, is_in, is_own
from scripts.jobs import (
    Job,
    Outcome,
    call,
    interrupt_on_sigterm,
    tables_command,
    train_command,
)
from scripts.progress import Progress, print_end
from scripts.workers import in_workers

PLAIN = "ZeroshotCLIP"  # needs nothing but a dataset

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
    row = row_name(trainer, row_options)
    try:
        cfg, options = load_cfg(
            trainer, args.dataset, backbone, opts=opts, root=args.root, seed=seed
        )
        folder = args.output / run_folder(cfg, options)
        command = train_command(args, trainer, backbone, seed, folder, opts)
        return job_of(cfg, row, backbone, seed, command, folder)
    except SettingError:
        raise
    except InputError as error:
        return Job(row, backbone, seed, [], None, problem=str(error))


def job_of(cfg: CN, row: str, backbone: str, seed: int, command: list[str], folder: Path) -> Job:
    """The job of a training command, with what its configuration tells of it.

    Raises:
        InputError: the file of the backbone's weights is missing.
    """
    if not (done := is_complete(cfg, folder)):
        check_present(cfg.MODEL.BACKBONE)
    method = method_of(cfg)
    learns_images = method.learns_image_encoder
    by_steps = method.seeded and not method.fitted_at_once
    return Job(
        row,
        backbone,
        seed,
        command,
        folder,
        is_complete=done,
        reads_training_views=by_steps and not learns_images,
        is_long=learns_images or method.texts_per_image,
        weights_bytes=weights_bytes(cfg.MODEL.BACKBONE),
    )


def row_name(trainer: str, row_options: Sequence[str]) -> str:
    """What a row is called while it runs: the trainer and the row's own options."""
    options = dict(zip(row_options[::2], row_options[1::2], strict=True))
    return label_of(trainer, option_texts(trainer, options))


def is_complete(cfg: CN, folder: Path) -> bool:
    """Whether the folder holds this very run, and it has ended."""
    config = folder / CONFIG
    return config.exists() and not differing_keys(cfg, config) and find_record(folder) is not None


def chosen_rows(args: argparse.Namespace) -> list[Row]:
    """The experiment's rows, or those of --methods alone, under the PROTOCOL of the options.

    Raises:
        InputError: --methods names something else or nothing of this experiment, or none of the
            methods has the PROTOCOL.
    """
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
    if names or args.experiment == "methods":
        rows = [row for row in rows if is_in(row[0], names)]
    if not rows:
        raise InputError(
            f"--methods {' '.join(names)}: no method of this experiment is in it; it has "
            f"{', '.join(known)}"
        )
    return rows_of_protocol(rows, args.opts)


def rows_of_protocol(rows: list[Row], opts: Sequence[str]) -> list[Row]:
    """Each row once under the PROTOCOL that the options name; says which have no such schedule.

    Raises:
        InputError: none of the rows has it.
    """
    if "PROTOCOL" not in opts[::2]:
        return rows
    rows = [row for row in rows if not is_own(row)]
    if protocol_of(opts) != "own":
        return rows
    others = list(dict.fromkeys(name for name, _ in rows if not has_own_protocol(name)))
    if len(others) == len({name for name, _ in rows}):
        raise InputError(
            f"PROTOCOL own: none of these methods has a schedule of its own in "
            f"configs/trainers/own: {', '.join(others)}"
        )
    if others:
        print(f"PROTOCOL own: left out, with no schedule of their own: {', '.join(others)}\n")
    return [row for row in rows if row[0] not in others]


def make_jobs(args: argparse.Namespace, rows: list[Row]) -> list[Job]:
    """Every run of the experiment, in the order of the tables.

    Raises:
        InputError: as ``check_settings`` and ``check_jobs``.
    """
    check_settings(args, rows)
    # Runs on the same views follow one another: the features that the first keeps serve the others.
    jobs = [
        make_job(args, trainer, options, backbone, seed)
        for backbone in args.backbones
        for seed in args.seeds
        for trainer, options in rows
        if seed == args.seeds[0] or METHODS[trainer].seeded
    ]
    check_jobs(args, jobs)
    return jobs


def check_settings(args: argparse.Namespace, rows: Sequence[Row]) -> None:
    """Raise InputError for a setting that none of the methods has."""
    for key in args.opts[::2]:
        if not any(key_of(trainer, key) for trainer, _ in rows):
            raise InputError(f"none of these methods has a setting {key}")


def check_jobs(args: argparse.Namespace, jobs: Sequence[Job]) -> None:
    """Say what prevents every run before the first one starts.

    Raises:
        InputError: the dataset cannot be read, or no job can run.
    """
    if all(job.problem for job in jobs):
        raise InputError(jobs[0].problem)
    if any(not job.is_complete for job in jobs):
        pairs = zip(args.opts[::2], args.opts[1::2], strict=True)
        opts = [word for pair in pairs if pair[0].startswith("DATASET.") for word in pair]
        backbone, seed = args.backbones[0], args.seeds[0]
        cfg, _ = load_cfg(PLAIN, args.dataset, backbone, opts=opts, root=args.root, seed=seed)
        with contextlib.redirect_stdout(None):
            read_dataset(cfg)


# All runs


def in_ray(jobs: Sequence[Job], progress: Progress, args: argparse.Namespace) -> Iterator[Outcome]:
    """Hand jobs to Ray, which alone knows how many it runs at a time; yields their outcomes."""
    progress.at_a_time = 0
    return on_ray(jobs, args.gpus_per_run)


# Name -> function(jobs, progress, args) that yields an Outcome for each job, in any order.
EXECUTORS: dict[str, Callable[..., Iterable[Outcome]]] = {
    "local": in_workers,
    "ray": in_ray,
}


def print_settings(rows: Iterable[Row], opts: Sequence[str] = ()) -> None:
    """Print what is the same for all methods, and what each changes and why."""
    rows = list(rows)
    all_own = protocol_of(opts) == "own"
    own = dict.fromkeys(name for name, options in rows if all_own or is_own((name, options)))
    print(
        "The same for all methods: "
        "configs/protocol.yaml, the split, the views and their order, M = 4."
    )
    print("What a method changes, and why (configs/trainers):")
    for name in dict.fromkeys(name for name, _ in rows):
        path = CONFIGS / "trainers" / f"{name}.yaml"
        print(f"- {name}: {comment_of(path) or 'nothing'}")
    if own:
        print("What its own paper's schedule changes too (PROTOCOL own, configs/trainers/own):")
    for name in own:
        print(f"- {name}: {comment_of(own_protocol(name)) or 'see the file'}")


def comment_of(path: Path) -> str:
    """The comment of a method's file, in one line; "" without one."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))


def print_tables(args: argparse.Namespace, calls: Iterable[list[str]]) -> None:
    folder = args.output / Path(args.dataset).stem
    for options in calls:
        print()
        call(tables_command(folder, *options, "--seeds", *map(str, args.seeds)))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    return parse_script(make_parser(), argv)


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
    print_settings(rows, args.opts)
    return run_jobs(args, jobs)


def run_jobs(args: argparse.Namespace, jobs: Sequence[Job]) -> list[Outcome]:
    """Run jobs by the executor of the arguments, and print how each ended."""
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
