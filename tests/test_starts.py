"""What a command does not need is not imported: names of modules, not seconds, are compared."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import train
from results.experiments import KNOWLEDGE_KINDS
from scripts import anchor, compare, experiments, parsers

ROOT = Path(__file__).resolve().parent.parent
SLOW = {
    *("torch", "torchvision", "clip", "dassl", "sklearn", "scipy", "pandas", "matplotlib"),
    *("statsmodels", "tensorboard", "tokenizers", "transformers", "safetensors", "imagehash"),
}
# Started by other programs only: a worker of `python -m benchmarks`, which takes no --help.
NO_COMMANDS = {"benchmarks.checkout"}


def commands():
    """The words that start each file of the project that can be started."""
    for path in sorted(ROOT.rglob("*.py")):
        place = path.relative_to(ROOT)
        if place.parts[0] in ("tests", ".venv", "dassl_compat") or place.name == "setup.py":
            continue
        if '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8"):
            module = ".".join(place.with_suffix("").parts).removesuffix(".__main__")
            if module not in NO_COMMANDS:
                yield place.name if len(place.parts) == 1 else f"-m {module}"


def imported(words):
    """The packages that a command imports, and what it prints."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], cwd=ROOT, capture_output=True, text=True
    )
    names = re.findall(r"^import time:.*\|\s+([\w.]+)$", done.stderr, re.MULTILINE)
    assert done.returncode == 0, done.stderr[-2000:]
    assert names
    return {name.partition(".")[0] for name in names}, done.stdout


@pytest.mark.parametrize("command", sorted(commands()))
def test_help_imports_nothing_slow(command):
    packages, said = imported([*command.split(), "--help"])

    assert packages & SLOW == set()
    assert "usage: " in said


def test_commands_are_found():
    found = set(commands())

    assert {"train.py", "-m scripts.compare", "-m datasets", "-m benchmarks"} <= found


def test_choices_of_the_parsers_are_what_there_is():
    """The parsers name them without importing them."""
    assert set(parsers.EXPERIMENTS) == set(experiments.EXPERIMENTS)
    assert set(parsers.EXECUTORS) == set(compare.EXECUTORS)
    assert anchor.KINDS == ("right", *filter(None, KNOWLEDGE_KINDS))


def test_complete_run_imports_only_what_tells_that_it_is_complete(toy_args, short):
    """Neither the data nor the backbone is needed; a GPU's libraries come with torch alone."""
    words = ["--trainer", "ZeroshotCLIP", *toy_args, *short]
    assert train.main(words) is None
    packages, said = imported(["train.py", *words])

    assert "is complete" in said
    assert packages & SLOW <= {"torch", "dassl", "safetensors"}
