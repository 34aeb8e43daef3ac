"""What is compared computes the same."""

import subprocess
import sys
from argparse import Namespace

import pytest
import torch
from torch.testing import assert_close

from benchmarks.__main__ import main
from benchmarks.bench import Bench
from benchmarks.checkout import time_checkout
from benchmarks.machine import matmul_rate
from benchmarks.pairs import a_step, pair
from benchmarks.reference import METHODS as REFERENCES
from benchmarks.reference import Reference
from benchmarks.timing import peak_bytes
from benchmarks.whole_runs import comparison
from benchmarks.workload import METHODS, Workload
from core.errors import InputError
from engine import method as methods


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return Workload(tmp_path_factory.mktemp("work"), "tiny", n_cls=3, pictures=8)


@pytest.mark.parametrize("method", METHODS)
def test_reference_scores_as_the_trainer_does(work, method):
    """Two implementations of every method, started alike."""
    trainer = work.trainer(method, "FEATURES.KEEP", "False")
    model = trainer.model.eval()
    params = model.learned.state_dict()
    reference = Reference(work.plain_clip(), method, params, work.classnames, work.phrases)
    pictures = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = model(pictures).logits
    if method == "BayesianPrompt":  # its draws differ: without variance there are none
        name = "meta_net.weight_log_variance.module.4.bias"
        for parameters in (reference.params, dict(model.learned.named_parameters())):
            with torch.no_grad():
                parameters[name].fill_(-60.0)
        expected = model(pictures).logits

    assert REFERENCES.keys() == METHODS.keys()
    with torch.no_grad():
        assert_close(reference.logits(pictures), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("encoded", [False, True])
def test_both_do_a_step(work, encoded):
    """From pictures, and from features, which leave the image encoder out."""
    ways = pair(work, "ViP", 4, encoded)
    assert ways.keys() == {"reference", "first", "later"}
    for step in ways.values():
        step()


def test_rate_of_the_machine_is_plausible():
    assert 1e8 < matmul_rate(torch.device("cpu"), torch.float32, rounds=1) < 1e14


def test_command_prints_a_table(capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.__main__.TABLES", {})
    main([])
    assert "cores" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_gpu_tables_without_a_gpu_are_one_line():
    with pytest.raises(InputError, match="--gpu: PyTorch finds no GPU on this machine; leave it"):
        main(["--gpu"])


@pytest.mark.slow
def test_the_papers_comparison_is_one_command(tmp_path, capsys, monkeypatch):
    """With small backbones and few images, as a user of a GPU starts it with the paper's."""
    monkeypatch.setattr("benchmarks.whole_runs.PAPER_BACKBONES", ("tiny",))
    monkeypatch.setattr("benchmarks.whole_runs.PAPER_SETS", {"Derm7pt": 6, "Pneumonia": 6})
    monkeypatch.setenv("SEEDS", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    comparison(Bench(Namespace(full=False, rounds=1), tmp_path))
    assert "| both" in capsys.readouterr().out
    rows = sum(len(method.rows) for method in methods.METHODS.values() if "paper" in method.sets)
    made = (tmp_path / "comparison-Derm7pt" / "output").rglob("results.json")
    assert len(list(made)) == rows


def test_memory_of_a_step_is_measured(tmp_path):
    """In a process of its own, which finds the step by its module's name."""
    assert peak_bytes(a_step, str(tmp_path / "work"), "tiny", "CoOp", "reference") > 1e6


@pytest.mark.slow
def test_tables_of_the_command_line(checkout):
    """As the page says, the one that starts processes of its own among them."""
    command = [sys.executable, "-m", "benchmarks", "--tables", "text", "memory"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n### ") == 2
    assert all(f"\n| tiny       | {name}" in done.stdout for name in ("9 symptoms", "ViP"))


PROGRAM = """
import torchvision, dassl.engine
print("epoch [2/2] batch [3/4] time 9.000 (3.000) data 1.000 (1.000)")
print("epoch [2/2] batch [4/4] time 9.000 (2.500) data 1.000 (0.500)")
"""


@pytest.mark.slow
def test_a_checkout_finds_dassl_and_a_torchvision_that_works(tmp_path):
    """Seconds a batch, without and with reading, from its own log; wrong, its last words."""
    program = tmp_path / "theirs" / "train.py"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    assert time_checkout(program.parent, tmp_path / "work", ["a", "b"]) == (2.0, 2.5)
    program.write_text("raise SystemExit('no such dataset')")
    with pytest.raises(InputError, match="did not train; its last line: no such dataset"):
        time_checkout(program.parent, tmp_path / "work", ["a", "b"])
