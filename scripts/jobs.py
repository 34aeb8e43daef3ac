"""A run to make, and how it ended."""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

from core.errors import INTERRUPTED
from core.files import atomic_write
from core.processes import end_with_parent
from engine.config import ROOT
from results.record import Record, find_record


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
    # Of what it does, for the order of the runs and the number of workers:
    reads_training_views: bool = field(default=False, compare=False)  # kept features of them
    is_long: bool = field(default=False, compare=False)  # beside runs on kept features
    weights_bytes: int = field(default=0, compare=False)  # of the backbone's files, where known

    @property
    def name(self) -> str:
        return f"{self.row}, {Path(self.backbone).stem}, seed {self.seed}"

    def record(self) -> Record | None:
        """The record of its run, if there is one."""
        return find_record(self.folder) if self.folder else None


@dataclass(frozen=True)
class Outcome:
    job: Job
    status: str  # trained, complete, does not apply or failed
    reason: str = ""
    seconds: float = 0.0  # that it took now

    @property
    def record(self) -> Record | None:
        return self.job.record() if self.status in ("trained", "complete") else None


def train_command(
    args: argparse.Namespace, trainer: str, backbone: str, seed: int, folder: Path, opts: list[str]
) -> list[str]:
    """The command that makes one run with train.py; ``args`` are a script's arguments."""
    command = [sys.executable, str(ROOT / "train.py"), "--root", args.root, "--trainer", trainer]
    command += ["--dataset", args.dataset, "--backbone", backbone, "--seed", str(seed)]
    return [*command, "--output-dir", str(folder), *opts]


def entry_of(command: Sequence[str]) -> tuple[str, list[str]]:
    """The module and the arguments of a command that starts Python: ("train", ["--root", ...])."""
    _, first, *rest = command
    return (rest[0], rest[1:]) if first == "-m" else (Path(first).stem, rest)


def tables_command(folder: Path, *options: str) -> list[str]:
    """The command that prints the tables of the runs in ``folder``."""
    return [sys.executable, str(ROOT / "parse_results.py"), str(folder), *options]


def call(command: list[str]) -> int:
    """Run a command that prints for itself; its exit status. An interrupt ends it too."""
    sys.stdout.flush()
    process = subprocess.Popen(command, preexec_fn=end_with_parent)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        sys.exit(INTERRUPTED)  # the command itself said so
    return status if status >= 0 else 128 - status


def run_job(job: Job) -> Outcome:
    """Run a job in a process of its own; returns how it ended."""
    if outcome := without_run(job):
        return outcome
    start = time.time()
    status, message = _run_process(job.command)
    return ended(job, status, message, time.time() - start)


def without_run(job: Job) -> Outcome | None:
    """How a job ended that there is nothing to run for; None where there is."""
    if job.problem:
        return Outcome(job, "failed", job.problem)
    if not job.is_complete:
        return None
    record = job.record()
    reason = record.does_not_apply if record and record.does_not_apply else ""
    return Outcome(job, "does not apply" if reason else "complete", reason)


def ended(job: Job, status: int, message: str, seconds: float) -> Outcome:
    """How a job ended, by its exit status (-N: by signal N) and what it wrote to stderr."""
    if status == 0:
        return Outcome(job, "trained", seconds=seconds)
    record = job.record()
    if record and record.does_not_apply:
        return Outcome(job, "does not apply", record.does_not_apply, seconds)
    if status < 0:
        reason = "its process was killed or crashed; it may have run out of memory"
    else:
        reason = (message.splitlines() or [f"exit status {status}"])[-1].removeprefix("error: ")
    return Outcome(job, "failed", f"{reason}{_kept(job, message)}", seconds)


def _run_process(command: list[str]) -> tuple[int, str]:
    """A command's exit status and what it wrote to stderr."""
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            preexec_fn=end_with_parent,
        )
        try:
            status = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        errors.seek(0)
        return status, errors.read().strip()


def _kept(job: Job, message: str) -> str:
    """Write a message of more than one line beside the run's folder; says where."""
    if len(message.splitlines()) < 2 or job.folder is None:
        return ""
    path = job.folder.parent / f"{job.folder.name}-error.txt"
    try:
        with atomic_write(path) as file:
            file.write(message + "\n")
    except OSError:  # the reason is said all the same
        return ""
    return f" (full log: {path})"


def interrupt_on_sigterm() -> None:
    """End on SIGTERM as on Ctrl-C: what runs is stopped too."""

    def interrupt(signum: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
