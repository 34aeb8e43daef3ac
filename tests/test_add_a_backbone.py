"""docs/add_a_backbone.md works as it says: every method runs on the kind that it adds."""

import subprocess
import sys

import pytest
import torch
from test_docs import blocks, copy_of, python  # noqa: F401  (copy_of is a fixture)

# Runs in the copy: each method is trained, cut after an epoch, resumed, evaluated and loaded.
EVERY_METHOD = """
import csv, sys
from pathlib import Path
import train, trainers
from engine.loading import load_run
from engine.method import METHODS
from engine.trainer import MethodTrainer

toy, short = Path(sys.argv[1]), sys.argv[2:]
every = [(name, []) for name in METHODS]
every.append(("ZeroshotCLIP", ["TRAINER.ZEROSHOTCLIP.PROMPTS", "symptoms"]))
every.append(("Supervised", ["TRAINER.SUPERVISED.START", "clip"]))
every.append(("ViP", ["TRAINER.VIP.CSC", "True", "TRAINER.VIP.CLASS_TOKEN_POSITION", "middle"]))
after_epoch = MethodTrainer.after_epoch

def cut(self):
    after_epoch(self)
    if self.epoch == 0 and self.max_epoch > 1:
        raise KeyboardInterrupt

def predictions(folder):
    with open(folder / "predictions.csv", newline="") as file:
        return list(csv.reader(file))

for i, (name, options) in enumerate(every):
    def run(folder, *words):
        args = ["--trainer", name, "--dataset", str(toy / "toy.yaml"), "--backbone", "toy"]
        args += ["--root", str(toy / "data"), "--output-dir", str(folder), *words]
        train.main([*args, *short, *options])
    whole, parts = toy / "runs" / f"{i}whole", toy / "runs" / f"{i}cut"
    run(whole)
    MethodTrainer.after_epoch = cut
    try:
        run(parts)
    except KeyboardInterrupt:
        pass
    MethodTrainer.after_epoch = after_epoch
    run(parts)
    assert predictions(parts) == predictions(whole), name
    run(whole, "--eval-only")
    loaded = load_run(whole)
    assert loaded.model.backbone.text.kind == "toy"
    print("done", name, *options)
"""


@pytest.fixture
def with_the_kind(checkout, copy_of):  # noqa: F811
    """A checkout with the page's files, and weights."""
    backbones = copy_of / "backbones"
    backbones.unlink()
    backbones.mkdir()
    for entry in (checkout / "backbones").iterdir():
        if entry.name == "formats":
            (backbones / "formats").mkdir()
            for file in entry.glob("*.py"):
                (backbones / "formats" / file.name).write_text(file.read_text())
        elif entry.suffix == ".py":
            (backbones / entry.name).write_text(entry.read_text())
        elif entry.name != "__pycache__":
            (backbones / entry.name).symlink_to(entry)
    for name, content in blocks(checkout / "docs" / "add_a_backbone.md").items():
        path = copy_of / name
        assert not path.exists()
        path.write_text(content)
    page = (checkout / "docs" / "add_a_backbone.md").read_text()
    (command,) = [line[5:-1] for line in page.splitlines() if line.startswith("#   python -c")]
    python(copy_of, "-c", command.split('"', 1)[1])
    return copy_of


def test_add_a_backbone(with_the_kind, toy, short):
    """Its file, its config and its test: then every method trains, resumes and evaluates on it."""
    torch.manual_seed(0)
    python(with_the_kind, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_toy.py")
    out = python(with_the_kind, "-c", EVERY_METHOD, toy, *short)

    done = [line.split()[1] for line in out.splitlines() if line.startswith("done ")]
    for method in ("ViP", "CoOp", "CoCoOp", "KgCoOp", "MaPLe", "BayesianPrompt", "LinearProbe"):
        assert method in done
    assert done.count("Supervised") == done.count("ZeroshotCLIP") == done.count("ViP") == 2


def test_another_mean_than_the_backbone_s_is_said(with_the_kind, toy, short):
    """What a format prepares images with is overridden where a user says so, and then named."""
    words = ["--no-train", "--trainer", "CoOp", "--dataset", toy / "toy.yaml", "--backbone", "toy"]
    words += ["--root", toy / "data", "--output-dir", toy / "run", *short]
    assert "PIXEL_MEAN" not in python(with_the_kind, "train.py", *words)
    said = python(with_the_kind, "train.py", *words, "INPUT.PIXEL_MEAN", "[0.4,0.4,0.4]")

    assert (
        "note: INPUT.PIXEL_MEAN is [0.4, 0.4, 0.4]" in said and "itself is [0.5, 0.5, 0.5]" in said
    )
    done = subprocess.run(
        [sys.executable, "train.py", *map(str, words), "INPUT.SIZE", "(64, 64)"],
        cwd=with_the_kind,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "reads images of 32x32" in done.stderr
