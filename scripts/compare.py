"""Run an experiment's methods x backbones x seeds, then print its tables.

The shell scripts call this: compare.sh, zeroshot/main.sh, vip/ablation.sh and vip/knowledge.sh. A
run that is complete is left as it is and a cut one goes on, so a command may be given again.
"""

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import trainers  # noqa: F401  (registers the methods)
from core.errors import InputError, command_line
from core.files import atomic_write
from core.processes import end_with_parent
from engine.config import CONFIGS, ROOT, differing_keys, load_cfg, run_folder, symptom_path
from engine.method import METHODS
from results.experiments import KNOWLEDGE_KINDS
from results.record import find_record
from results.settings import CONFIG

from .executors import on_ray

PAPER_BACKBONES = ("vit_b16", "vit_l14", "rn50")
EPOCH = re.compile(r"epoch \[(\d+)/(\d+)\]")


# What there is to run: rows of (trainer, its options)


def method_rows(dataset):
    """Every method; the two starts of Supervised and the two texts of zero-shot are rows."""
    rows = [
        *zeroshot_rows(dataset),
        ("LinearProbe", []),
        ("CoOp", []),
        ("CoCoOp", []),
        ("KgCoOp", []),
        ("BayesianPrompt", []),
        ("MaPLe", []),
        ("Supervised", []),
        ("Supervised", ["TRAINER.SUPERVISED.START", "clip"]),
    ]
    known = {trainer for trainer, _ in rows} | {"ViP"}
    others = [(trainer, []) for trainer in sorted(METHODS.keys() - known)]
    return [*rows, *others, ("ViP", [])]


def zeroshot_rows(dataset):
    """The paper's Fig. 3 I: by class names, by symptoms."""
    return [
        ("ZeroshotCLIP", []),
        ("ZeroshotCLIP", ["TRAINER.ZEROSHOTCLIP.PROMPTS", "symptoms"]),
    ]


def ablation_rows(dataset):
    """The paper's Table 2; what its first row reads is not said, so both texts are run."""
    return [
        *zeroshot_rows(dataset),
        ("ViP", ["TRAINER.VIP.CONTEXT", "False"]),
        ("ViP", ["TRAINER.VIP.MERGE", "max"]),
        ("ViP", ["TRAINER.VIP.MERGE", "mean"]),
        ("ViP", []),
    ]


def knowledge_rows(dataset):
    """The paper's Fig. 5: ViP with other symptoms, from the files beside the dataset's own."""
    cfg, _ = load_cfg("ViP", dataset)
    own = symptom_path(cfg)
    files = [own.with_name(f"{own.stem}_{kind}.json") for kind in KNOWLEDGE_KINDS if kind]
    found = [file for file in files if file.exists()]
    if not found:
        raise InputError(f"the experiment needs other symptoms; write {', '.join(map(str, files))}")
    for file in files:
        if file not in found:
            print(f"{file} is not there: its row is left out")
    return [("ViP", []), *(("ViP", ["TRAINER.VIP.SYMPTOMS", str(file)]) for file in found)]


# Name -> its rows, and the calls of parse_results.py that print it.
EXPERIMENTS = {
    "methods": (method_rows, [["--paper"], ["--cost"]]),
    "zeroshot": (zeroshot_rows, [["--zeroshot", "--paper"]]),
    "ablation": (ablation_rows, [["--ablation", "--paper"]]),
    "knowledge": (knowledge_rows, [["--knowledge", "--paper"]]),
}


# One run


@dataclass(frozen=True)
class Job:
    """A run to make.

    Attributes:
        row: what it is a seed of: trainer and the options that tell rows apart.
        folder: where its results go; None if its configuration is wrong, as ``problem`` says.
    """

    row: str
    backbone: str
    seed: int
    command: list[str] = field(compare=False)
    folder: Path | None = field(compare=False)
    problem: str = ""
    is_complete: bool = False

    @property
    def name(self):
        return f"{self.row}, {Path(self.backbone).stem}, seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    job: Job
    status: str  # trained, complete, does not apply or failed
    reason: str = ""
    seconds: float = 0.0  # that it took now

    @property
    def record(self):
        return find_record(self.job.folder) if self.status in ("trained", "complete") else None


def make_job(args, trainer, row_options, backbone, seed):
    """The job of a row on a backbone with a seed; what is wrong with it is kept for the end."""
    opts = [*row_options, *own_options(trainer, args.opts)]
    texts = [f"{k.split('.')[-1]}={Path(v).stem}" for k, v in _pairs(row_options)]
    row = f"{trainer} ({', '.join(texts)})" if texts else trainer
    try:
        cfg, options = load_cfg(
            trainer, args.dataset, backbone, opts=opts, root=args.root, seed=seed
        )
    except InputError as error:
        return Job(row, backbone, seed, [], None, problem=str(error))
    folder = args.output / run_folder(cfg, options)
    command = [sys.executable, str(ROOT / "train.py"), "--root", args.root, "--trainer", trainer]
    command += ["--dataset", args.dataset, "--backbone", backbone, "--seed", str(seed)]
    command += ["--output-dir", str(folder), *opts]
    config = folder / CONFIG
    done = config.exists() and not differing_keys(cfg, config) and find_record(folder)
    return Job(row, backbone, seed, command, folder, is_complete=bool(done))


def own_options(trainer, opts):
    """The user's options that concern a trainer.

    A key under another trainer's node is left out; a key without a dot is the trainer's own, if it
    has one of that name: ``PREC fp32``.
    """
    known = METHODS[trainer].defaults()
    others = {f"TRAINER.{name.upper()}." for name in METHODS} - {f"TRAINER.{trainer.upper()}."}
    kept = []
    for key, value in _pairs(opts):
        if "." not in key and key in known:
            kept += [f"TRAINER.{trainer.upper()}.{key}", value]
        elif "." in key and not key.startswith(tuple(others)):
            kept += [key, value]
    return kept


def _pairs(opts):
    return list(zip(opts[::2], opts[1::2], strict=True))


def run_job(job, on_line=lambda line: None):
    """Run a job in a process of its own and say how it ended.

    Args:
        on_line: called with each line that the run prints.
    """
    if job.problem:
        return Outcome(job, "failed", job.problem)
    if job.is_complete:
        record = find_record(job.folder)
        reason = record.does_not_apply if record and record.does_not_apply else ""
        return Outcome(job, "does not apply" if reason else "complete", reason)
    start = time.time()
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        process = subprocess.Popen(
            job.command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            preexec_fn=end_with_parent,  # a comparison killed outright leaves no run behind
        )
        try:
            for line in process.stdout:
                on_line(line)
            status = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        errors.seek(0)
        message = errors.read().strip()
    seconds = time.time() - start
    if status == 0:
        return Outcome(job, "trained", seconds=seconds)
    record = find_record(job.folder)
    if record and record.does_not_apply:
        return Outcome(job, "does not apply", record.does_not_apply, seconds)
    if status == -signal.SIGKILL:
        reason = "killed by the system; it may have run out of memory"
    else:
        reason = (message.splitlines() or [f"exit status {status}"])[-1].removeprefix("error: ")
    return Outcome(job, "failed", f"{reason}{_kept(job, message)}", seconds)


def _kept(job, message):
    """Write a message of more than one line beside the run's folder; says where."""
    if len(message.splitlines()) < 2:
        return ""
    path = job.folder.parent / f"{job.folder.name}-error.txt"
    with atomic_write(path) as file:
        file.write(message + "\n")
    return f" (all of it: {path})"


# All runs


def one_after_another(jobs, progress, args):
    """Run jobs in their order, in this process's own environment; yields their outcomes."""
    for job in jobs:
        yield run_job(job, lambda line, job=job: progress.show(job, line))


def side_by_side(jobs, progress, args):
    """Hand jobs to Ray; yields their outcomes as they end."""
    return on_ray(jobs, run_job, Outcome, args.gpus_per_run)


# Name -> function(jobs, progress, args) that yields an Outcome for each job, in any order.
EXECUTORS = {"local": one_after_another, "ray": side_by_side}


class Progress:
    """Says of each run how it ended, and how long the others may take."""

    def __init__(self, jobs):
        self.left = set(jobs)
        self.total = len(jobs)
        self.seconds = {}  # (row, backbone) -> seconds of each run
        self.live = sys.stderr.isatty()

    def show(self, job, line):
        """Show the epoch of the run under way, where someone is looking."""
        if self.live and (match := EPOCH.match(line)):
            place = self.total - len(self.left) + 1
            text = f"[{place}/{self.total}] {job.name}: epoch {match[1]} of {match[2]}"
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def ended(self, outcome):
        job = outcome.job
        self.left.discard(job)
        took = outcome.seconds
        if outcome.status == "complete":
            took = outcome.record.seconds["total"]
        if outcome.status in ("trained", "complete"):
            self.seconds.setdefault((job.row, job.backbone), []).append(took)
        if self.live:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        print(
            f"[{self.total - len(self.left)}/{self.total}] {job.name}: {_describe(outcome)}"
            f"{self.time_left()}",
            flush=True,
        )

    def time_left(self):
        """What the runs left take if they are like those of their row, backbone, or any."""
        left = [job for job in self.left if not job.is_complete and not job.problem]
        if not left or not self.seconds:
            return ""
        return f"; about {duration(sum(map(self.expected, left)))} left"

    def expected(self, job):
        known = self.seconds.get((job.row, job.backbone))
        known = known or [
            s
            for (_, backbone), all_of in self.seconds.items()
            for s in all_of
            if backbone == job.backbone
        ]
        return statistics.mean(known or [s for all_of in self.seconds.values() for s in all_of])


def _describe(outcome):
    if record := outcome.record:
        text = f"ACC {100 * record.metrics.accuracy:.2f} %"
        took = f", {duration(outcome.seconds)}" if outcome.status == "trained" else " (complete)"
        return text + took
    return f"{outcome.status}: {outcome.reason}"


def duration(seconds):
    """3725 -> "1 h 2 min", 75 -> "1 min 15 s", 8 -> "8 s"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def print_settings(names):
    """What is the same for all methods, and what one changes and why."""
    print("The same for all: configs/protocol.yaml, the split, the views and their order, M = 4.")
    print("What a method changes, and why (configs/trainers):")
    for name in dict.fromkeys(names):
        path = CONFIGS / "trainers" / f"{name}.yaml"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        reason = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
        print(f"- {name}: {reason or 'nothing'}")


def print_end(outcomes):
    """How many runs ended how, and why some failed; the same reason is said once."""
    counts = {}
    reasons = {}
    for outcome in outcomes:
        counts[outcome.status] = counts.get(outcome.status, 0) + 1
        if outcome.status in ("failed", "does not apply"):
            key = outcome.status, outcome.reason
            reasons.setdefault(key, []).append(outcome.job.name)
    print("\n" + ", ".join(f"{count} {status}" for status, count in counts.items()))
    for (status, reason), names in reasons.items():
        print(f"{status}: {reason}")
        for name in names:
            print(f"  {name}")


def print_tables(args, calls):
    sys.stdout.flush()
    folder = args.output / Path(args.dataset).stem
    for options in calls:
        command = [sys.executable, str(ROOT / "parse_results.py"), str(folder), *options]
        print()
        sys.stdout.flush()
        subprocess.run([*command, "--seeds", *map(str, args.seeds)], check=False)


def parse_args(argv=None):
    argv = sys.argv[1:] if argv is None else list(argv)
    # argparse takes "--" away where it pleases, so the options are split off first.
    at = argv.index("--") if "--" in argv else len(argv)
    argv, opts = argv[:at], argv[at + 1 :]
    parser = argparse.ArgumentParser(
        prog="compare.sh",
        description="Run methods x backbones x seeds, then print the tables.",
        epilog="After --: KEY VALUE ..., options for every run, as train.py takes them.",
    )
    add = parser.add_argument
    add("dataset", help="a file of configs/datasets, by its name, or a YAML file")
    add("backbones", nargs="*", metavar="backbone", help="default: the paper's three")
    add("--experiment", choices=EXPERIMENTS, default="methods")
    add("--methods", nargs="+", help="only these trainers")
    add("--seeds", nargs="+", default=(os.environ.get("SEEDS") or "1 2 3").split())
    add("--root", default="data", help="folder that holds the datasets")
    add("--output", type=Path, default=Path("output"), help="folder that the runs go to")
    add(
        "--executor",
        choices=EXECUTORS,
        default="local",
        help="ray: many at once, see docs/speed.md",
    )
    add("--gpus-per-run", type=float, default=1.0, help="of ray; a fraction shares a GPU")
    args = parser.parse_args(argv)
    if len(opts) % 2:
        raise InputError(f"options come in pairs, KEY VALUE; {opts[-1]!r} has no value")
    args.opts = opts
    try:
        args.seeds = [int(seed) for seed in args.seeds]
    except ValueError as error:
        raise InputError(
            f'the seeds are {" ".join(args.seeds)!r}; give whole numbers, as in "1 2 3"'
        ) from error
    args.backbones = args.backbones or list(PAPER_BACKBONES)
    return args


def chosen_rows(args):
    make_rows, _ = EXPERIMENTS[args.experiment]
    rows = make_rows(args.dataset)
    if not args.methods:
        return rows
    known = {trainer.lower(): trainer for trainer, _ in rows}
    for name in args.methods:
        if name.lower() not in known:
            raise InputError(f"there is no {name!r} here; choose from {', '.join(known.values())}")
    wanted = {name.lower() for name in args.methods}
    return [row for row in rows if row[0].lower() in wanted]


def main(argv=None):
    args = parse_args(argv)
    rows = chosen_rows(args)
    # Runs on the same views follow one another: the features that the first keeps serve the others.
    jobs = [
        make_job(args, trainer, options, backbone, seed)
        for backbone in args.backbones
        for seed in args.seeds
        for trainer, options in rows
        if METHODS[trainer].seeded or seed == args.seeds[0]
    ]
    if all(job.problem for job in jobs):
        raise InputError(jobs[0].problem)
    for key, _ in _pairs(args.opts):
        if not any(own_options(trainer, [key, ""]) for trainer, _ in rows):
            raise InputError(f"no method here has a setting {key}")
    print_settings(trainer for trainer, _ in rows)
    done = sum(job.is_complete for job in jobs)
    runs = f"{len(jobs)} run" + "s" * (len(jobs) != 1)
    print(f"\n{runs}" + (f", {done} complete" if done else ""), flush=True)
    progress = Progress(jobs)
    outcomes = []
    for outcome in EXECUTORS[args.executor](jobs, progress, args):
        outcomes.append(outcome)
        progress.ended(outcome)
    print_end(outcomes)
    if any(outcome.record for outcome in outcomes):
        print_tables(args, EXPERIMENTS[args.experiment][1])
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0


def _terminated(signum, frame):
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)
    command_line(main)()
