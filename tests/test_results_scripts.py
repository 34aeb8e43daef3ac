"""The shell scripts that make several comparisons: what they hand on to the Python commands."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def called(tmp_path):
    """``called(script, *words)``: the commands of a script whose Python only writes them down."""
    log, python = tmp_path / "log", tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$*" >>"{log}"\n')
    python.chmod(0o755)

    def run(script, *words):
        env = {**os.environ, "PYTHON": str(python), "DATA": "/data", "SEEDS": "1"}
        subprocess.run(["bash", SCRIPTS / script, *words], check=True, env=env)
        return log.read_text().splitlines()

    return run


@pytest.mark.parametrize(
    "words, given",
    [
        ("derm7pt vit_b16", "derm7pt vit_b16 --"),
        ("derm7pt vit_b16 --methods CoOp ViP", "derm7pt vit_b16 --methods CoOp ViP --"),
        ("derm7pt vit_b16 -- PREC fp32", "derm7pt vit_b16 -- PREC fp32"),
    ],
)
def test_few_shot_is_a_comparison_for_each_number_of_shots(called, words, given):
    *comparisons, curve = called("few_shot.sh", *words.split())
    assert comparisons == [
        f"-m scripts.compare --root /data {given} DATASET.NUM_SHOTS {shots}"
        for shots in (1, 2, 4, 8, 16)
    ]
    assert curve == "parse_results.py output/derm7pt --plot shots"


@pytest.mark.parametrize(
    "options, variant",
    [([], "base"), (["OPTIM.LR", "0.1"], "base_OPTIM.LR_0.1"), (["A", "b/c"], "base_A_b-c")],
)
def test_base_to_new_names_its_folder_by_the_options(called, options, variant):
    train, evaluate, _ = called("base_to_new.sh", "CoOp", "derm7pt", "vit_b16", *options)
    folder = f"output/derm7pt/CoOp/vit_b16/{variant}/seed1"
    assert f"--output-dir {folder} " in train
    assert evaluate.startswith(f"-m scripts.evaluate {folder} derm7pt ")
