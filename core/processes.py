"""How processes start and end, workers when the process that started them is killed too."""

import atexit
import contextlib
import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.connection import wait
from typing import Any

PR_SET_PDEATHSIG = 1  # linux/prctl.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc

SHARED_BY = "VIP_SHARED_BY"  # variable of the environment: runs that share the cores

# Python looks at every object before it ends: with those of PyTorch, that takes a second.
atexit.register(gc.freeze)


def end_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends; does nothing on other systems.

    For ``subprocess.Popen(preexec_fn=...)``.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_worker_with_parent(worker: int = 0) -> None:
    """End this ``multiprocessing`` child when the process that asked for it ends, even if killed.

    For ``worker_init_fn`` of a ``DataLoader``. A worker that stays behind would hold what it
    inherited: the locks of a run's folder when it was forked. Under ``forkserver`` the system's
    parent is the server, which lives as long as its children do, so a thread watches instead.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if sys.platform == "linux" and os.getppid() == parent.pid:
        end_with_parent()
        if os.getppid() == parent.pid:  # it did not end before the request
            return
    threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def keep_freed_memory() -> None:
    """Let this process use the memory of freed tensors again; does nothing without glibc.

    glibc hands a large block back to the system at once, and the next one then comes in pages that
    the system fills with zeros first: a tenth of the time of encoding images on a CPU.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            # Some versions of glibc refuse more than 32 MB.
            if any(library.mallopt(M_MMAP_THRESHOLD, size) for size in (2**30, 2**25)):
                library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def release_freed_memory() -> None:
    """Give the memory of freed tensors back to the system; does nothing without glibc."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def usable_cores() -> int:
    """The cores that this process may use: its share of those that the system gives it."""
    given = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, given // int(os.environ.get(SHARED_BY) or 1))


def start_method(uses_cuda: bool) -> str | None:
    """How the workers of data loaders start; None is Python's default.

    Forking takes milliseconds; from Python 3.14 on the default imports PyTorch again in every
    worker. A process that uses CUDA keeps the default.
    """
    return "fork" if sys.platform == "linux" and not uses_cuda else None


def worker_options(workers: int, uses_cuda: bool) -> dict[str, Any]:
    """Options of a ``DataLoader`` for the start and the end of its workers."""
    return {
        "num_workers": workers,
        "worker_init_fn": end_worker_with_parent,
        "multiprocessing_context": start_method(uses_cuda) if workers else None,
    }
