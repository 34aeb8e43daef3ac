"""A run that is killed leaves no process behind and no lock held, however workers are started."""

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from core import processes

METHODS = ["fork", "forkserver", "spawn"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

RUN = """
import multiprocessing, sys, time

from filelock import FileLock

from core import processes

method, part, toy, checkout, lock = sys.argv[1:]


def forever(queue):
    processes.end_worker_with_parent()
    queue.put("started")
    time.sleep(600)


def main():
    FileLock(lock).acquire()
    multiprocessing.set_start_method(method)
    if part == "process":
        queue = multiprocessing.Queue()
        multiprocessing.Process(target=forever, args=(queue,)).start()
        queue.get()
    else:
        processes.start_method = lambda uses_cuda: method
        import trainers
        from datasets.views import ViewManager
        from engine.config import load_cfg

        opts = ["DATALOADER.NUM_WORKERS", "2", "DATALOADER.TRAIN_X.BATCH_SIZE", "1"]
        files = f"{toy}/toy.yaml", f"{toy}/random.yaml"
        cfg, _ = load_cfg("ViP", *files, opts=opts, root=f"{toy}/data")
        manager = ViewManager(cfg)
        batches = iter(manager.train_loader_x)
        next(batches)
    print("started", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main()
"""


def descendants(pid):
    """The living processes below ``pid``, the server of ``forkserver`` among them."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        fields = state_of(path.parent.name)
        if fields:
            parents[int(path.parent.name)] = int(fields[1])
    found = [pid]
    for parent in found:
        found += [child for child, its in parents.items() if its == parent]
    return found[1:]


def state_of(pid):
    """State, parent and so on of a living process; a zombie does not live."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields


@pytest.mark.parametrize(
    ("method", "part"),
    [
        *((method, "process") for method in METHODS),
        ("fork", "loaders"),
        ("forkserver", "loaders"),
        pytest.param("spawn", "loaders", marks=pytest.mark.slow),
    ],
)
def test_killed_run_leaves_no_process_and_no_lock(toy, checkout, method, part):
    script, lock = toy / "killed.py", toy / "lock"
    script.write_text(RUN)
    words = [sys.executable, script, method, part, toy, checkout, lock]
    run = subprocess.Popen(
        list(map(str, words)),
        cwd=checkout,
        env={"PYTHONPATH": str(checkout), "PATH": "", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert any(line == "started\n" for line in run.stdout)
    children = descendants(run.pid)
    assert len(children) >= (2 if part == "loaders" else 1)
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()

    try:
        with FileLock(lock, timeout=1):
            pass
        assert not left_of(children)
    finally:
        for child in filter(state_of, children):
            os.kill(child, signal.SIGKILL)


def left_of(processes):
    """Those that live ten seconds later."""
    end = time.time() + 10
    while time.time() < end and any(map(state_of, processes)):
        time.sleep(0.05)
    return list(filter(state_of, processes))


def test_cores_are_shared(monkeypatch):
    """A worker of a comparison starts loaders for its part of the machine alone."""
    monkeypatch.setattr(processes.sys, "platform", "any")
    monkeypatch.setattr(processes.os, "cpu_count", lambda: 8)
    monkeypatch.delenv(processes.SHARED_BY, raising=False)
    assert processes.usable_cores() == 8
    for several, cores in (("2", 4), ("3", 2), ("20", 1)):
        monkeypatch.setenv(processes.SHARED_BY, several)
        assert processes.usable_cores() == cores


def test_loaders_fork_where_no_cuda_is_used():
    """From Python 3.14 on the default would import PyTorch again in every worker."""
    assert processes.start_method(uses_cuda=False) == "fork"
    assert processes.start_method(uses_cuda=True) is None
    assert processes.worker_options(0, False)["multiprocessing_context"] is None


@pytest.mark.parametrize("method", METHODS)
def test_evaluation_keeps_workers_that_start_slowly(toy, monkeypatch, method):
    """A validation an epoch: forked workers start in milliseconds, others stay."""
    from datasets import views
    from engine.config import load_cfg

    monkeypatch.setattr(views, "start_method", lambda uses_cuda: method)
    files = str(toy / "toy.yaml"), str(toy / "random.yaml")
    opts = ["DATALOADER.NUM_WORKERS", "2"]
    cfg, _ = load_cfg("ViP", *files, opts=opts, root=str(toy / "data"))
    manager = views.ViewManager(cfg)
    assert manager.val_loader.persistent_workers == (method != "fork")
    assert manager.train_loader_x.persistent_workers


def test_child_of_a_killed_command_ends(checkout):
    """``preexec_fn``: the runs of a comparison end with it."""
    code = (
        "import subprocess, sys, time; from core.processes import end_with_parent\n"
        "command = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "child = subprocess.Popen(command, preexec_fn=end_with_parent)\n"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", code], cwd=checkout, stdout=subprocess.PIPE, text=True
    )
    child = int(command.stdout.readline())
    assert state_of(child)
    command.kill()
    command.wait()
    command.stdout.close()
    assert not left_of([child])


FAULTS = """
import resource
import numpy as np
from core.processes import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(64 * 1024**2, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(not platform.libc_ver()[0], reason="glibc alone hands large blocks back")
def test_freed_memory_is_used_again_without_new_pages(checkout):
    words = [sys.executable, "-c", FAULTS]
    # Pages of 2 MB, where the system gives them, are few faults either way.
    without, kept = map(
        int, subprocess.run(words, cwd=checkout, capture_output=True, check=True).stdout.split()
    )

    assert without > 30 and kept < without / 4


def test_a_process_ends_without_a_look_at_every_object(checkout):
    """What is registered before is called after it."""
    code = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count()));"
    words = [sys.executable, "-c", f"{code} import core.processes"]
    done = subprocess.run(words, cwd=checkout, capture_output=True, check=True)
    assert int(done.stdout) > 1000
