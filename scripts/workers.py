"""Runs side by side on this machine, in a few processes that stay.

A worker imports PyTorch once and makes one run after the other. What it read for a run serves the
next one (engine/reuse.py). A run that ends its process (killed, or out of memory) costs only
itself: the process is replaced.
"""

import argparse
import contextlib
import gc
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from core.errors import command_line
from core.processes import SHARED_BY, end_worker_with_parent, usable_cores
from engine.config import ROOT
from engine.reuse import reuse
from scripts.jobs import Job, Outcome, ended, entry_of, without_run
from scripts.progress import Progress

MOST = 8  # workers without a GPU; with more cores, each gets more threads
MEMORY = 2 * 2**30  # bytes of the machine's memory for each worker, at least
LIBRARIES = 2**30  # of which for what does not grow with the backbone
COPIES = 4  # of a file in half precision: a worker's backbone in fp32, and that of its run
# What every run imports: the server that starts workers imports it once for all of them.
PRELOADED = ["trainers", "engine.run", "torchvision", "torch.utils.tensorboard"]
KILLED, WRONG_INPUT = -signal.SIGKILL, 2  # exit statuses


def in_workers(
    jobs: Sequence[Job], progress: Progress, args: argparse.Namespace
) -> Iterator[Outcome]:
    """Run jobs in ``args.workers`` processes, or as many as suit; yields outcomes as they end."""
    waiting: deque[Job] = deque()
    for job in jobs:
        if outcome := without_run(job):
            yield outcome
        else:
            waiting.append(job)
    if not waiting:
        return
    largest = max(job.weights_bytes for job in jobs)
    count, threads = shares(len(jobs), args.workers, largest)
    if count > 1:
        waiting = deque(in_order(waiting))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vip-runs-")))
        shared = {"OMP_NUM_THREADS": str(threads), SHARED_BY: str(count)}
        stack.enter_context(_environment(shared))
        workers = []
        for number in range(min(count, len(waiting))):
            workers.append(Worker(folder / str(number), number))
            stack.callback(workers[-1].stop)
        progress.at_a_time = len(workers)
        yield from _outcomes(waiting, workers, progress)


def shares(runs: int, asked: int | None = None, weights: int = 0) -> tuple[int, int]:
    """How many workers for so many runs, complete ones included, and the threads of each.

    So a comparison that goes on has the threads, and the bits, of one that nobody stopped.

    By default a worker for each GPU; without one, for each core, as memory allows. Where
    OMP_NUM_THREADS is set, each has that many threads.

    Args:
        weights: bytes of the largest backbone's files.
    """
    cores = usable_cores()
    first, *_ = os.environ.get("OMP_NUM_THREADS", "").split(",")  # the others are of nested loops
    threads = int(first) if first.strip().isdecimal() else 0
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = max(MEMORY, LIBRARIES + COPIES * weights)
    suitable = min(MOST, cores // max(threads, 1), memory // needed)
    count = max(1, min(asked or torch.cuda.device_count() or suitable, runs))
    return count, threads or max(1, cores // count)


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """First one run for each set of views, whose features serve the others; then the long ones.

    A long run that starts last would leave the other workers without work.
    """
    first: dict[tuple[str, int], Job] = {}
    for job in jobs:
        if job.reads_training_views:
            first.setdefault((job.backbone, job.seed), job)

    def rank(job: Job) -> int:
        if first.get((job.backbone, job.seed)) is job:
            return 0
        return 1 if job.is_long else 2

    return sorted(jobs, key=rank)


class Worker:
    """A process that makes runs.

    Args:
        place: beginning of the names of two files, for what a run prints. number: of its GPU.
    """

    def __init__(self, place: Path, number: int) -> None:
        self.out, self.errors = place.with_suffix(".out"), place.with_suffix(".err")
        self.number = number
        self.job: Job | None = None
        self.running: Future[int] | None = None
        self._start()

    def _start(self) -> None:
        methods = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if context.get_start_method() == "forkserver":
            context.set_forkserver_preload(PRELOADED)
        prepared = dict(os.environ), os.getcwd(), self.number
        self.pool = ProcessPoolExecutor(1, context, _prepare, prepared)
        self.pid = self.pool.submit(os.getpid)

    def run(self, job: Job) -> "Future[int]":
        """Start a job; the future gives its exit status."""
        self.job, self.began = job, time.time()
        for file in (self.out, self.errors):
            file.write_text("")
        task = partial(_run, *entry_of(job.command), self.out, self.errors)
        try:
            self.running = self.pool.submit(task)
        except BrokenProcessPool:  # its process ended while it had nothing to do
            self._start()
            self.running = self.pool.submit(task)
        return self.running

    def outcome(self, future: "Future[int]") -> Outcome:
        """How the job ended; its process is replaced if it ended too, or if it failed.

        After an unexpected error a process may be of no use, a GPU's context above all.
        """
        assert self.job is not None
        try:
            status = future.result()
        except BrokenProcessPool:
            status = KILLED
        if status not in (0, WRONG_INPUT):
            self.pool.shutdown(cancel_futures=True)
            self._start()
        message = self.errors.read_text(errors="replace").strip()
        return ended(self.job, status, message, time.time() - self.began)

    def last_line(self) -> str:
        """What the run said of its epoch last."""
        with contextlib.suppress(OSError):
            with open(self.out, "rb") as file:
                file.seek(max(0, self.out.stat().st_size - 4096))
                lines = file.read().decode(errors="replace").splitlines()
            return next((line for line in reversed(lines) if line.startswith("epoch [")), "")
        return ""

    def stop(self) -> None:
        """End the process and the run in it."""
        if self.running and not self.running.done():
            with contextlib.suppress(BrokenProcessPool, ProcessLookupError):
                os.kill(self.pid.result(), signal.SIGTERM)
        self.pool.shutdown(cancel_futures=True)


def _outcomes(
    waiting: deque[Job], workers: Sequence[Worker], progress: Progress
) -> Iterator[Outcome]:
    """Keep every worker at work; yields how each run ended."""
    running: dict[Future[int], Worker] = {}
    idle = list(workers)
    while waiting or running:
        while waiting and idle:
            worker = idle.pop(0)
            running[worker.run(waiting.popleft())] = worker
        done, _ = wait(running, timeout=1 if progress.live else None, return_when=FIRST_COMPLETED)
        if not done:
            progress.show({w.job: w.last_line() for w in running.values() if w.job})
        for future in done:
            worker = running.pop(future)
            idle.append(worker)
            yield worker.outcome(future)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables for the processes that start in the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# In a worker


def _prepare(environment: Mapping[str, str], folder: str, number: int) -> None:
    """Once in each worker: the environment of the comparison, a GPU of its own."""
    tqdm.set_lock(threading.RLock())  # its own lock for several processes is a semaphore
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the comparison ends its workers itself
    end_worker_with_parent()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [str(ROOT / "train.py")]
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    reuse.on = True


def _run(module: str, words: Sequence[str], out: Path, errors: Path) -> int:
    """Make one run as a process of its own would; returns its exit status.

    Args:
        module: of the command. words: its arguments.
        out, errors: the files that get what it prints.
    """
    with _printing_to(out, 1), _printing_to(errors, 2):
        try:
            main = importlib.import_module(module).main
            command_line(lambda: main(words, started=time.time()))()
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
                return 1
            return end.code or 0
        except BaseException:
            traceback.print_exc()
            return 1
        finally:
            gc.collect()
            if torch.cuda.is_available():
                with contextlib.suppress(RuntimeError):  # of what made the run fail
                    torch.cuda.empty_cache()


@contextlib.contextmanager
def _printing_to(path: Path, descriptor: int) -> Iterator[None]:
    """Send what is written to a descriptor (1: stdout, 2: stderr) to a file, by libraries too."""
    stream = sys.stdout if descriptor == 1 else sys.stderr
    stream.flush()
    before = os.dup(descriptor)
    with open(path, "wb") as file:
        os.dup2(file.fileno(), descriptor)
    try:
        yield
    finally:
        stream.flush()
        os.dup2(before, descriptor)
        os.close(before)
