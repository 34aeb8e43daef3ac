"""Where the runs of a comparison go: to Ray, on this machine or on a cluster.

    bash scripts/compare.sh synthderm tiny --executor ray
    RAY_ADDRESS=auto bash scripts/compare.sh derm7pt --executor ray --gpus-per-run 0.5

Ray (``pip install .[cluster]``) decides what runs where and when. The machines of a cluster see the
checkout, the data and the output under the same paths. Features are encoded once for all runs that
share a cache folder: those that start together wait for the first.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

from core.errors import InputError, first_line
from core.processes import SHARED_BY
from engine.config import ROOT
from scripts.jobs import Job, Outcome, run_job

RETRIES = 2  # a run that was killed goes on from its last epoch
STARTS = 3


def on_ray(jobs: Sequence[Job], gpus_per_run: float = 1.0) -> Iterator[Outcome]:
    """Run jobs on Ray; yields their outcomes as they end.

    Args:
        gpus_per_run: GPUs, or a fraction of one, for each run; without a GPU there is none.

    Raises:
        InputError: Ray is not installed or the cluster of RAY_ADDRESS does not answer.
    """
    ray = _started()
    try:
        task, shared_by = _task(ray, gpus_per_run), _side_by_side(ray, gpus_per_run)
        running: dict[Any, Job] = {}
        attempts = dict.fromkeys(jobs, 1)
        for job in jobs:
            if job.problem or job.is_complete:
                yield run_job(job)
            else:
                running[_start(task, job, shared_by)] = job
        while running:
            (reference,), _ = ray.wait(list(running))
            job = running.pop(reference)
            outcome = _outcome(ray, job, reference)
            if outcome.status == "failed" and attempts[job] <= RETRIES:
                print(f"{job.name}: failed ({outcome.reason}); it is started again", flush=True)
                attempts[job] += 1
                running[_start(task, job, shared_by)] = job
                continue
            if attempts[job] > 1 and outcome.status == "failed":
                outcome = replace(outcome, reason=f"{outcome.reason} ({attempts[job]} times)")
            yield outcome
    finally:
        ray.shutdown()  # ends what still runs


def _task(ray: Any, gpus_per_run: float) -> Any:
    """What Ray starts for each run."""
    there = ray.cluster_resources().get("GPU", 0)
    if there and gpus_per_run > there:
        raise InputError(f"--gpus-per-run is {gpus_per_run:g}; give 0 to {there:g}")
    gpus = gpus_per_run if there else 0
    # Ray sets OMP_NUM_THREADS to a task's CPUs, so that runs side by side share the cores.
    # Its own retries are off: those of ``on_ray`` also know a run that ended in an error.
    return ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_run)


def _side_by_side(ray: Any, gpus_per_run: float) -> int:
    """How many runs share the cores of a machine, on average."""
    resources = ray.cluster_resources()
    runs = resources.get("CPU", 1)
    if gpus_per_run and "GPU" in resources:
        runs = min(runs, resources["GPU"] / gpus_per_run)
    machines = sum(node["Alive"] for node in ray.nodes())
    return max(1, round(runs / max(1, machines)))


def _start(task: Any, job: Job, shared_by: int) -> Any:
    """Start a job; Ray's reference to its result."""
    values = {f.name: getattr(job, f.name) for f in fields(job)}
    return task.remote(values, os.getcwd(), shared_by)


def _outcome(ray: Any, job: Job, reference: Any) -> Outcome:
    try:
        return Outcome(job, *ray.get(reference))
    except ray.exceptions.RayError as error:  # a machine or a worker is gone
        return Outcome(job, "failed", f"Ray: {first_line(error)}")


def _started() -> Any:
    """Ray, connected to RAY_ADDRESS or started on this machine."""
    try:
        import ray
    except ImportError as error:
        raise InputError("--executor ray needs Ray: pip install '.[cluster]'") from error
    address = os.environ.get("RAY_ADDRESS", "local")
    # A cluster's dashboard is its own affair; one started here has none to look at.
    options = {"include_dashboard": False} if address == "local" else {}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}}
    for attempt in range(1, 1 + STARTS):
        try:
            ray.init(
                address=address,
                logging_level="ERROR",
                log_to_driver=False,
                runtime_env=environment,
                **options,
            )
            return ray
        except Exception as error:  # Ray raises many types, Exception itself among them
            ray.shutdown()
            # It gives itself 30 seconds, which are few on a busy machine.
            if address != "local" or attempt == STARTS:
                where = "here" if address == "local" else f"at RAY_ADDRESS {address}"
                raise InputError(f"Ray does not answer {where}: {first_line(error)}") from error


def _run(job: dict[str, Any], folder: str, shared_by: int) -> tuple[str, str, float]:
    """Run a job in a worker of Ray: (status, reason, seconds)."""
    os.chdir(folder)
    os.environ[SHARED_BY] = str(shared_by)
    outcome = run_job(Job(**job))
    return outcome.status, outcome.reason, outcome.seconds
