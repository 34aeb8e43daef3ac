"""A comparison: what it runs, how it goes on after trouble, what it says."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from core.errors import InputError
from engine.config import own_options
from engine.method import METHODS
from scripts import experiments, jobs
from scripts.compare import EXECUTORS, main, parse_args
from scripts.experiments import EXPERIMENTS
from scripts.jobs import Job, Outcome
from scripts.progress import Progress, duration


@pytest.fixture
def words(toy, short):
    """``words(seeds, *options)``: a comparison's command line on the toy dataset."""

    def build(trainers, seeds, *options):
        return [
            *(str(toy / "toy.yaml"), str(toy / "random.yaml"), "--root", str(toy / "data")),
            *("--output", str(toy / "output"), "--methods", *trainers, "--seeds", *seeds),
            *("--", *short, "OPTIM.MAX_EPOCH", "1", *options),
        ]

    return build


def results(toy):
    return sorted((toy / "output").rglob("results.json"))


def test_every_method_has_a_row():
    rows = EXPERIMENTS["methods"][0]("derm7pt")

    assert {trainer for trainer, _ in rows} == set(METHODS)


def test_goes_on_after_trouble_and_starts_again(toy, words, tiny_resnet, capfd, monkeypatch):
    """A run that fails is named with its reason, one that cannot be is told apart, others end."""
    torch.save(tiny_resnet.state_dict(), toy / "clip.pt")
    line = words(["CoOp", "KgCoOp", "MaPLe"], ["1"], "TRAINER.KGCOOP.N_CTX", "5")

    assert main(line) == 1
    first = capfd.readouterr().out
    times = [path.stat().st_mtime_ns for path in results(toy)]
    monkeypatch.setattr(subprocess, "Popen", _only("KgCoOp", subprocess.Popen))
    assert main(line) == 1
    second = capfd.readouterr().out

    assert "1 trained, 1 failed, 1 does not apply" in first
    assert "failed: CTX_INIT 'a photo of a' has 4 tokens; N_CTX is 5: make them equal" in first
    assert "  KgCoOp, random, seed 1" in first
    assert "does not apply: MaPLe puts tokens between the layers" in first
    assert "- KgCoOp: Its context starts from" in first
    assert "- CoOp: nothing" in first
    assert "1 complete, 1 failed, 1 does not apply" in second
    assert [path.stat().st_mtime_ns for path in results(toy)] == times
    tables = [text[text.index("## ") :] for text in (first, second)]
    assert tables[0] == tables[1]
    assert "cost" in tables[0]
    assert "CoOp" in tables[0]


def _only(trainer, popen):
    """A Popen that starts no other trainer's run."""

    def start(command, *args, **kwargs):
        if "--trainer" in command:
            assert command[command.index("--trainer") + 1] == trainer
        return popen(command, *args, **kwargs)

    return start


def test_broken_picture_is_one_line_before_anything_starts(toy, words):
    (toy / "data" / "toy" / "train" / "red" / "0.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"0\.png"):
        main(words(["CoOp"], ["1"]))
    assert not (toy / "output").exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_middle(toy, words, checkout, how):
    """Started again it does what is left, and ends with the table of one that nobody killed."""
    # Epochs enough for the second run not to end before the signal arrives.
    line = words(["CoOp"], ["1", "2"], "OPTIM.MAX_EPOCH", "400")
    command = [sys.executable, "-m", "scripts.compare", "--workers", "1"]
    process = subprocess.Popen(
        [*command, *line], cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while len(list((toy / "output").rglob("history.csv"))) < 2:
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(how)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in results(toy)}
    again = subprocess.run([*command, *line], cwd=checkout, capture_output=True, text=True)
    line[line.index("--output") + 1] = str(toy / "whole" / "output")
    whole = subprocess.run([*command, *line], cwd=checkout, capture_output=True, text=True)

    assert len(done) == 1
    assert again.returncode == whole.returncode == 0
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert "1 trained, 1 complete" in again.stdout
    paper = [
        text[text.index("## ") : text.index(", cost")] for text in (again.stdout, whole.stdout)
    ]
    assert paper[0] == paper[1]


def test_options_reach_the_methods_that_have_them():
    opts = ["PREC", "fp32", "TRAINER.COOP.N_CTX", "16", "OPTIM.LR", "0.01", "W", "2"]

    assert own_options("CoOp", opts) == [
        *("TRAINER.COOP.PREC", "fp32", "TRAINER.COOP.N_CTX", "16", "OPTIM.LR", "0.01")
    ]
    assert own_options("KgCoOp", opts) == [
        *("TRAINER.KGCOOP.PREC", "fp32", "OPTIM.LR", "0.01", "TRAINER.KGCOOP.W", "2")
    ]


@pytest.mark.parametrize(
    "options, message",
    [
        (["DATASET.NUM_SHOTS"], "'DATASET.NUM_SHOTS' has no value"),
        (["NO_SUCH", "1"], "there is no setting NO_SUCH"),
        (["OPTIM.NO_SUCH", "1"], "there is no setting OPTIM.NO_SUCH"),
    ],
)
def test_wrong_options_stop_it_before_it_starts(words, options, message):
    with pytest.raises(InputError, match=message):
        main(words(["CoOp"], ["1"], *options))


def test_wrong_names_stop_it_before_it_starts(words):
    with pytest.raises(
        InputError, match="--methods VPT: neither a method of this experiment .Zero"
    ):
        main(words(["VPT"], ["1"]))
    with pytest.raises(InputError, match="there is no configs/datasets/nowhere.yaml"):
        main(["nowhere", "vit_b16"])


def test_defaults_are_the_papers(monkeypatch):
    monkeypatch.delenv("SEEDS", raising=False)
    args = parse_args(["derm7pt"])

    assert args.backbones == ["vit_b16", "vit_l14", "rn50"]
    assert args.seeds == [1, 2, 3]
    assert args.executor in EXECUTORS


def test_knowledge_reads_the_files_beside_the_dataset_s_own(toy, capsys):
    """Those that are there; without any, the files to write are named."""
    dataset = str(toy / "toy.yaml")
    with pytest.raises(InputError, match="write .*symptoms_incorrect.json, "):
        experiments.knowledge_rows(dataset)
    phrases = json.loads((toy / "symptoms.json").read_text())
    (toy / "symptoms_swapped.json").write_text(json.dumps(phrases))

    rows = experiments.knowledge_rows(dataset)

    assert rows == [
        ("ViP", []),
        ("ViP", ["TRAINER.VIP.SYMPTOMS", str(toy / "symptoms_swapped.json")]),
    ]
    assert "symptoms_useless.json does not exist: its row is left out" in capsys.readouterr().out


def test_derm7pt_and_its_drawn_kin_have_all_of_figure_5(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    for dataset in ("derm7pt", "synthderm"):
        assert len(experiments.knowledge_rows(dataset)) == 6


def test_time_left_is_from_runs_alike(capsys):
    """A slow row's other seeds are expected to be as slow."""
    jobs = [Job(row, "b", seed, [], None) for seed in (1, 2) for row in ("slow", "fast")]
    progress = Progress(jobs)
    progress.seconds = {("slow", "b"): [100.0], ("fast", "b"): [4.0]}
    progress.ended(Outcome(jobs[0], "failed", "why"))
    progress.ended(Outcome(jobs[1], "failed", "why"))

    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "[2/4] fast, b, seed 1: failed: why; about 1 min 44 s left"


def test_durations():
    assert [duration(s) for s in (8.2, 75, 3725)] == ["8 s", "1 min 15 s", "1 h 2 min"]


def test_killed_run_says_so(toy):
    """The system kills without a word when memory runs out."""
    command = [sys.executable, "-c", f"import os; os.kill(os.getpid(), {signal.SIGKILL})"]
    outcome = jobs.run_job(Job("row", "b", 1, command, toy))

    assert outcome.status == "failed"
    assert "memory" in outcome.reason


def test_long_message_is_kept(toy):
    """Its last line is the reason; the rest is beside the run's folder."""
    outcome = jobs.run_job(Job("row", "b", 1, [sys.executable, "-c", "1/0"], toy / "seed1"))

    assert outcome.reason.startswith("ZeroDivisionError: division by zero (full log: ")
    assert "Traceback" in (toy / "seed1-error.txt").read_text()


def test_no_run_outlives_a_comparison(toy, monkeypatch):
    """An interrupt ends the run under way before the comparison ends."""
    wait, pids = subprocess.Popen.wait, []

    def interrupted(process):
        if not pids:
            pids.append(process.pid)
            raise KeyboardInterrupt
        return wait(process)

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(KeyboardInterrupt):
        jobs.run_job(Job("row", "b", 1, command, toy))
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
