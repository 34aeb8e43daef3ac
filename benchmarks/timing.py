"""Times and memory, told apart from what else a busy machine does."""

import gc
import multiprocessing
import time
from collections.abc import Callable, Mapping
from multiprocessing.queues import SimpleQueue
from typing import Any

import numpy as np
import torch

import trainers  # noqa: F401  (first in a process of its own: mends what importing clip needs)
from core.processes import end_worker_with_parent
from engine.run import forget_peak_memory, peak_memory

Call = Callable[[], object]  # what is measured

_clock: Callable[[], float] = time.perf_counter


def use_processor_time() -> None:
    """Count the seconds that this process computes, in one thread: for a machine that is shared."""
    global _clock
    torch.set_num_threads(1)
    _clock = time.process_time


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def once(function: Call, clock: Callable[[], float] | None = None) -> float:
    """Seconds of one call."""
    clock = clock or _clock
    synchronise()
    start = clock()
    function()
    synchronise()
    return clock() - start


def in_turns(
    functions: Mapping[str, Call], rounds: int, turn: float = 0.2
) -> dict[str, np.ndarray]:
    """Seconds of each function by name, [rounds]: all take turns, so that they share the noise.

    A first turn warms up. A turn is one call, or as many as fit into ``turn`` seconds: the steps of
    a run follow one another too.
    """
    calls = {name: max(1, round(turn / once(function))) for name, function in functions.items()}
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(once(_repeated(function, calls[name])) / calls[name])
    return {name: np.array(values) for name, values in times.items()}


def _repeated(function: Call, n: int) -> Call:
    return lambda: [function() for _ in range(n)]


def seconds(function: Call, rounds: int = 5) -> float:
    """Median seconds of a call."""
    return float(np.median(in_turns({"": function}, rounds)[""]))


def peak_bytes(function: Callable[..., Call], *arguments: Any) -> int:
    """How far a function's second part raises the memory of a process of its own.

    ``function(*arguments)`` sets up and returns what to measure, a function without arguments.
    """
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=_measure, args=(queue, function, arguments))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{function.__name__}{arguments} failed, see above")
    return queue.get()


def _measure(
    queue: "SimpleQueue[int]", function: Callable[..., Call], arguments: tuple[Any, ...]
) -> None:
    end_worker_with_parent()
    work = function(*arguments)
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        queue.put(torch.cuda.max_memory_allocated() - before)
        return
    gc.collect()
    forget_peak_memory()
    before = peak_memory()
    work()
    queue.put(peak_memory() - before)
