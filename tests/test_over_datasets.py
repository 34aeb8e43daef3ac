"""Means over datasets: few-shot and base to new, as papers of several datasets print them."""

import subprocess
import sys

import numpy as np
import pytest
from results_runs import write_run

from results.choices import Choices
from results.over_datasets import mean_tables
from results.runs import find_runs

DATASETS = ("btmri", "kvasir", "retina")
ACCURACY = Choices(("accuracy",), seeds=(1, 2, 3))


def runs_of(folder, names=DATASETS, trainers=("CoOp", "ViP"), shots=(1, 16), half="all"):
    """Runs with three seeds; a half of the classes is an option as the real ones have it."""
    options = {} if half == "all" else {"DATASET.SUBSAMPLE_CLASSES": half}
    for number, name in enumerate(names):
        for trainer in trainers:
            for n in shots:
                for seed in (1, 2, 3):
                    write_run(
                        folder,
                        trainer,
                        dataset=name,
                        seed=seed,
                        shots=n,
                        subsample_classes=half,
                        options={**options, "DATASET.NUM_SHOTS": n},
                        skill=0.5 + number + n / 20 + (half == "new") / 3,
                    )


def accuracies(folder, trainer, shots, half="all"):
    """Dataset -> mean over seeds, from the records themselves."""
    found = {}
    for run in find_runs(folder):
        if (run.trainer, run.record.shots, run.record.subsample_classes) == (trainer, shots, half):
            found.setdefault(run.dataset, []).append(run.metrics["accuracy"])
    return {name: np.mean(values) for name, values in found.items()}


def test_few_shot_is_the_mean_over_datasets_of_the_mean_over_seeds(tmp_path):
    runs_of(tmp_path)
    for name in DATASETS:
        write_run(tmp_path, "ZeroshotCLIP", dataset=name)
    (table,) = mean_tables(find_runs(tmp_path), ACCURACY)

    assert table.title == "mean over 3 datasets, few-shot, ACC"
    assert table.headers == ["method", "1 shot", "16 shots"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(rows) == ["ZeroshotCLIP", "CoOp", "ViP"]
    for trainer in ("CoOp", "ViP"):
        for cell, shots in zip(rows[trainer], (1, 16), strict=True):
            expected = np.mean(list(accuracies(tmp_path, trainer, shots).values()))
            assert cell.value == pytest.approx(expected)
    assert rows["ZeroshotCLIP"][0] == rows["ZeroshotCLIP"][1]  # nothing is trained
    assert "btmri, kvasir, retina" in table.notes[0] and "mean over seeds" not in table.title


def test_a_row_without_a_dataset_has_no_mean(tmp_path):
    """Means over different datasets cannot be compared; the note says what lacks."""
    runs_of(tmp_path)
    runs_of(tmp_path, DATASETS[:2], ["KgCoOp"])
    (table,) = mean_tables(find_runs(tmp_path), ACCURACY)
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["KgCoOp"] == [None, None] and None not in rows["CoOp"]
    lacking = "KgCoOp, 1 shot, KgCoOp, 16 shots: no runs of retina, so no mean"
    assert lacking in table.notes


def test_missing_seeds_are_named(tmp_path):
    runs_of(tmp_path)
    (table,) = mean_tables(find_runs(tmp_path), Choices(("accuracy",), seeds=(1, 2, 3, 4)))
    assert any("missing vit_b16 seed 4" in note for note in table.notes)


def test_base_to_new_has_both_harmonic_means(tmp_path):
    """Of each dataset, then their mean; and of the means."""
    for half in ("base", "new"):
        runs_of(tmp_path, shots=(16,), half=half)
    (table,) = mean_tables(find_runs(tmp_path), ACCURACY)

    assert table.title == "mean over 3 datasets, base to new, 16 shots a class"
    assert table.headers == ["method", "base ACC", "new ACC", "HM ACC", "HM of means ACC"]
    for row in table.rows:
        base, new = (accuracies(tmp_path, row[0], 16, half) for half in ("base", "new"))
        means = [np.mean([half[name] for name in DATASETS]) for half in (base, new)]
        harmonic = [2 / (1 / base[name] + 1 / new[name]) for name in DATASETS]
        expected = [*means, np.mean(harmonic), 2 / (1 / means[0] + 1 / means[1])]
        assert [cell.value for cell in row[1:]] == pytest.approx(expected)
        assert row[3].value != row[4].value


def test_one_dataset_has_no_mean(tmp_path):
    runs_of(tmp_path, DATASETS[:1])
    assert mean_tables(find_runs(tmp_path), ACCURACY) == []


def test_the_command_takes_some_datasets(tmp_path, checkout):
    """Those that are named; without means it says so."""
    runs_of(tmp_path, trainers=["CoOp"])

    def run(*words):
        command = [sys.executable, "parse_results.py", str(tmp_path), "--mean", *words]
        return subprocess.run(command, cwd=checkout, capture_output=True, text=True)

    two = run("--dataset", "btmri", "--dataset", "retina")
    assert "mean over 2 datasets, few-shot, ACC" in two.stdout and "kvasir" not in two.stdout
    one = run("--dataset", "btmri")
    assert one.stderr == "--mean: no few-shot or base-to-new runs on two or more datasets\n"
    none = run("--dataset", "btmri", "--dataset", "nowhere")
    assert none.returncode == 2 and "no runs of dataset nowhere; there are btmri" in none.stderr
