"""Runs in workers that stay: the bits of runs alone, and no run that another one takes along."""

import csv
import os
import signal
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import pytest
import torch

import train
from dassl_compat.checkpoint_reader import read_checkpoint
from scripts import compare, workers
from scripts.jobs import Job, Outcome, entry_of
from scripts.progress import Progress
from scripts.workers import in_order, in_workers, shares

LONG = ("MaPLe", "BayesianPrompt")
FAKE = """
import json, os, pathlib, signal, sys, time

def main(words, started):
    what, folder = words
    place = pathlib.Path(folder)
    print("epoch [1/2] batch [1/1]", flush=True)
    if what == "kill":
        print("the last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "wrong":
        raise ValueError("no such thing")
    if what == "exit":
        sys.exit("error: it cannot be")
    place.mkdir(exist_ok=True)
    (place / "pid").write_text(str(os.getpid()))
    if what == "sleep":
        time.sleep(60)
    (place / "results.json").write_text(json.dumps({"format": 1, "metrics": {}}))
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    """``job(row, what)``: a job that does no more than that."""
    (tmp_path / "fake_run.py").write_text(FAKE)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def make(row, what, **options):
        folder = tmp_path / row
        command = ["python", str(tmp_path / "fake_run.py"), what, str(folder)]
        return Job(row, "tiny", 1, command, folder, **options)

    return make


def run(jobs, count):
    return {
        outcome.job.row: outcome
        for outcome in in_workers(jobs, Progress(jobs), SimpleNamespace(workers=count))
    }


def test_failures_leave_the_others_alone(job, tmp_path):
    """A killed run and wrong ones are named; every other one ends, in the same workers or new."""
    names = ["a", "b", "c", "d", "e"]
    whats = ["kill", "right", "wrong", "exit", "right"]
    jobs = [job(name, what) for name, what in zip(names, whats, strict=True)]
    jobs.append(Job("f", "tiny", 1, [], None, problem="there is no backbone"))
    jobs.append(Job("g", "tiny", 1, ["python", "-m", "not_there"], tmp_path / "g"))
    found = run(jobs, 2)

    assert [found[name].status for name in "abcdefg"] == [
        *("failed", "trained", "failed", "failed", "trained", "failed", "failed")
    ]
    assert "killed or crashed" in found["a"].reason
    assert "Traceback" not in found["d"].reason and "Traceback" not in found["g"].reason
    assert "no module named" in found["g"].reason.lower()
    assert found["c"].reason.startswith("ValueError: no such thing (full log: ")
    assert "Traceback" in (tmp_path / "c-error.txt").read_text()
    assert found["d"].reason == "it cannot be"
    assert found["f"].reason == "there is no backbone"


def test_one_worker_makes_all_runs(job, tmp_path):
    jobs = [job(name, "right") for name in "abc"]
    assert {outcome.status for outcome in run(jobs, 1).values()} == {"trained"}

    pids = {(tmp_path / name / "pid").read_text() for name in "abc"}
    assert len(pids) == 1 and pids != {str(os.getpid())}


def test_an_interrupt_ends_every_run(job, tmp_path, monkeypatch):
    jobs = [job("a", "sleep"), job("b", "sleep")]
    pids = [tmp_path / "a" / "pid", tmp_path / "b" / "pid"]
    whole = workers.wait

    def interrupted(running, **options):
        while not all(path.exists() and path.read_text() for path in pids):
            whole(running, timeout=0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(jobs, 2)
    for path in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


def test_runs_in_workers_are_those_alone(toy, toy_args, short, monkeypatch):
    """Checkpoints, predictions and histories, though one worker reads data and backbone once."""
    monkeypatch.chdir(toy)
    methods = ["CoOp", "CLIPLoRA", "ViP", "LinearProbe"]
    words = [str(toy / "toy.yaml"), str(toy / "random.yaml"), "--root", str(toy / "data")]
    words += ["--seeds", "1", "--workers", "1", "--methods", *methods, "--", *short]
    monkeypatch.setattr(compare, "print_tables", lambda *_: None)
    assert compare.main(words) == 0
    runs = sorted(path.parent for path in (toy / "output").rglob("results.json"))
    for folder in runs:
        name = folder.parts[-4]
        own = ["PROTOCOL", "own"] if "PROTOCOL" in folder.parts[-2] else []
        own += ["ANCHOR", "16.0"] if "ANCHOR" in folder.parts[-2] else []
        alone = toy / "alone" / folder.relative_to(toy)
        args = [*toy_args[:-1], str(alone)]
        train.main(["--trainer", name, *args, *short, *own])
        assert_same(alone, folder)
    assert {folder.parts[-4] for folder in runs} == set(methods)


def assert_same(one, other):
    checkpoints = sorted(path.relative_to(one) for path in one.rglob("*.pth.tar*"))
    assert checkpoints
    for path in checkpoints:
        a, b = (read_checkpoint(folder / path) for folder in (one, other))
        assert a["epoch"] == b["epoch"]
        assert a["state_dict"].keys() == b["state_dict"].keys()
        for key, value in a["state_dict"].items():
            assert torch.equal(value, b["state_dict"][key]), (path, key)
    for name in ("predictions.csv", "predictions_val.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    histories = [list(csv.DictReader(open(folder / "history.csv"))) for folder in (one, other)]
    for row in (*histories[0], *histories[1]):
        del row["seconds"]
    assert histories[0] == histories[1]


def test_long_runs_start_before_short_ones():
    """One run a set of views first, since its features serve others; then the long ones."""
    jobs = [
        Job(
            row,
            "tiny",
            seed,
            [],
            None,
            reads_training_views=row not in ("GDA", "MaPLe"),
            is_long=row in LONG,
        )
        for seed in (1, 2)
        for row in ("GDA", "CoOp", "BayesianPrompt", "MaPLe", "ViP")
    ]
    assert [(job.row, job.seed) for job in in_order(jobs)] == [
        (row, seed)
        for rows in (["CoOp"], ["BayesianPrompt", "MaPLe"], ["GDA", "ViP"])
        for seed in (1, 2)
        for row in rows
    ]


def test_long_runs_are_known(toy, monkeypatch):
    monkeypatch.chdir(toy)
    words = [str(toy / "toy.yaml"), str(toy / "random.yaml"), "--root", str(toy / "data")]
    args = compare.parse_args([*words, "--seeds", "1", "--methods", "paper"])
    jobs = compare.make_jobs(args, compare.chosen_rows(args))
    assert {job.row.split()[0] for job in jobs if job.is_long} == {*LONG, "CoCoOp", "Supervised"}
    unread = {job.row.split()[0] for job in jobs if not job.reads_training_views}
    assert unread == {"ZeroshotCLIP", "MaPLe", "Supervised"}
    assert {job.weights_bytes for job in jobs} == {(toy / "clip.pt").stat().st_size}


def test_the_time_left_counts_runs_side_by_side(job, capsys):
    jobs = [job(name, "right") for name in "abcd"]
    progress = Progress(jobs)
    progress.seconds = {("a", "tiny"): [100.0]}
    next(in_workers(jobs, progress, SimpleNamespace(workers=2)))
    progress.ended(Outcome(jobs[0], "failed", "why"))
    assert "about 2 min 30 s left" in capsys.readouterr().out
    progress.at_a_time = 0
    progress.ended(Outcome(jobs[1], "failed", "why"))
    assert "left" not in capsys.readouterr().out


def test_a_worker_that_ended_between_two_runs_is_replaced(job, tmp_path):
    """And what its last run said is not taken for the words of the next one."""
    worker = workers.Worker(tmp_path / "0", 0)
    try:
        first = worker.outcome(worker.run(job("a", "wrong")))
        os.kill(worker.pid.result(), signal.SIGKILL)
        with pytest.raises(BrokenProcessPool):
            while True:
                worker.pool.submit(int).result()
        worker.run(job("b", "sleep"))
        while not (tmp_path / "b" / "pid").exists():
            time.sleep(0.01)
        assert worker.errors.read_text() == ""
    finally:
        worker.stop()
    assert first.status == "failed"


def test_shares(monkeypatch):
    """A thread each, a worker a core; a comparison of one run has all cores."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(workers, "usable_cores", lambda: 4)
    monkeypatch.setattr(workers.os, "sysconf", lambda name: 2**17)
    monkeypatch.setattr(workers.torch.cuda, "device_count", lambda: 0)

    assert shares(20) == (4, 1)
    assert shares(1) == (1, 4)
    assert shares(20, 2) == (2, 2)
    assert shares(20, weights=3 * 2**30) == (1, 4)  # 16 GiB: 13 for each
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert shares(20) == (2, 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2,4")
    assert shares(20) == (2, 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "many")  # OpenMP itself takes no notice
    assert shares(20) == (4, 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(workers.torch.cuda, "device_count", lambda: 1)
    assert shares(20) == (1, 2)


def test_a_command_is_a_module_with_arguments():
    assert entry_of(["python", "/there/train.py", "--seed", "1"]) == ("train", ["--seed", "1"])
    assert entry_of(["python", "-m", "scripts.evaluate", "run"]) == ("scripts.evaluate", ["run"])
