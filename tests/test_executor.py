"""Runs side by side: nothing lost, nothing that one failure takes along."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.errors import InputError
from scripts import executors
from scripts.jobs import Job

DONE = "import json, sys; json.dump({'format': 1, 'metrics': {}}, open(sys.argv[1], 'w'))"
ONCE_KILLED = """
import os, pathlib, signal, sys
mark = pathlib.Path(sys.argv[1] + ".tried")
if not mark.exists():
    mark.touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
WRONG = "import sys; sys.exit('error: there is no such thing')"


def job(folder, row, code):
    place = folder / row
    place.mkdir()
    command = [sys.executable, "-c", code, str(place / "results.json")]
    return Job(row, "tiny", 1, command, place)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install '\.\[cluster\]'"):
        list(executors.on_ray([]))


@pytest.mark.slow
def test_failures_leave_the_others_alone(tmp_path, monkeypatch):
    """A killed run is run again; a wrong one is named; the rest is as if alone."""
    pytest.importorskip("ray", reason="an optional extra of setup.py")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    jobs = [
        job(tmp_path, "right", DONE),
        job(tmp_path, "killed", ONCE_KILLED + DONE),
        job(tmp_path, "wrong", WRONG),
        Job("unknown", "tiny", 1, [], None, problem="there is no backbone"),
        job(tmp_path, "right too", DONE),
    ]
    outcomes = {o.job: o for o in executors.on_ray(jobs)}

    assert outcomes.keys() == set(jobs)
    right, killed, wrong, unknown, too = (outcomes[j] for j in jobs)
    assert [o.status for o in (right, killed, too)] == ["trained"] * 3
    assert (tmp_path / "killed" / "results.json.tried").exists()
    assert wrong.status == "failed" and wrong.reason == "there is no such thing (3 times)"
    assert unknown.status == "failed" and unknown.reason == "there is no backbone"


@pytest.mark.parametrize(("address", "starts"), [("10.0.0.1:6379", 1), ("local", 3)])
def test_ray_that_does_not_answer_is_one_line(monkeypatch, address, starts):
    """A cluster is asked once; one on this machine may only have been slow."""
    asked = []

    def init(**options):
        asked.append(options["address"])
        raise ConnectionError("no Ray there\nwith details")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, shutdown=lambda: None))
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match="no Ray there$"):
        list(executors.on_ray([]))
    assert asked == [address] * starts


@pytest.mark.parametrize(
    ("resources", "machines", "gpus", "runs"),
    [({"CPU": 8.0}, 1, 1, 8), ({"CPU": 64.0, "GPU": 4.0}, 2, 0.5, 4), ({}, 1, 0, 1)],
)
def test_runs_that_share_a_machine(resources, machines, gpus, runs):
    nodes = [*machines * [{"Alive": True}], {"Alive": False}]
    ray = SimpleNamespace(cluster_resources=lambda: resources, nodes=lambda: nodes)
    assert executors._side_by_side(ray, gpus) == runs


@pytest.mark.slow
def test_comparison_on_ray_is_the_comparison(toy, checkout):
    """Real runs, two at a time, on one store of features: the figures of one after the other."""
    pytest.importorskip("ray", reason="an optional extra of setup.py")

    def compare(executor):
        command = [sys.executable, "-m", "scripts.compare", str(toy / "toy.yaml")]
        command += [str(toy / "random.yaml"), "--root", str(toy / "data"), "--seeds", "1"]
        command += ["--methods", "ZeroshotCLIP", "CoOp", "ViP", "--executor", executor]
        command += ["--output", str(toy / executor), "--", "OPTIM.MAX_EPOCH", "2"]
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        subprocess.run(command, cwd=checkout, check=True, env=environment)
        return {
            str(path.parent.relative_to(toy / executor)): json.loads(path.read_text())["metrics"]
            for path in Path(toy / executor).rglob("results.json")
        }

    alone = compare("local")
    assert len(alone) == 5
    assert compare("ray") == alone
