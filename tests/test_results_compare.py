"""Comparing two methods: pairs, tests, subgroups and settings that differ."""

import numpy as np
import pytest
import scipy.stats
from results_runs import write_run

from core.errors import InputError
from results import compare
from results.runs import find_runs


def compared(root, a="ViP", b="CoOp", **options):
    """Tables by the last part of their titles."""
    found = compare.compare_tables(find_runs(root), a, b, times=200, **options)
    return {table.title.split(", ")[-1]: table for table in found}


def both(root, seeds=(1, 2), backbones=("vit_b16",), skill=3.0, **options):
    for backbone in backbones:
        for seed in seeds:
            write_run(root, "ViP", backbone=backbone, seed=seed, skill=skill, **options)
            write_run(root, "CoOp", backbone=backbone, seed=seed, skill=0.5, **options)


def test_mcnemar_is_for_each_pair_and_holm_corrected(tmp_path):
    both(tmp_path, seeds=(1, 2, 3))
    runs = {(run.trainer, run.seed): run.predictions() for run in find_runs(tmp_path)}
    rows = compared(tmp_path)["McNemar's exact test"].rows
    p_values = []
    for backbone, seed, only_a, only_b, p, _ in rows:
        a, b = runs["ViP", seed].correct, runs["CoOp", seed].correct
        assert (only_a, only_b) == ((a & ~b).sum(), (~a & b).sum())
        p_values.append(scipy.stats.binomtest(only_a, only_a + only_b).pvalue)
        assert p == pytest.approx(p_values[-1]) and backbone == "vit_b16"
    ranked = np.sort(p_values) * [3, 2, 1]
    expected = np.minimum(np.maximum.accumulate(ranked), 1)
    assert sorted(row[-1] for row in rows) == pytest.approx(expected)


def test_a_clear_difference_is_beyond_the_noise(tmp_path):
    both(tmp_path, backbones=("vit_b16", "rn50"))
    table = compared(tmp_path)["differences"]
    assert [row[0] for row in table.rows] == ["vit_b16", "rn50", "all backbones"]
    assert table.rows[-1][-1] == "ACC, F1"
    assert any(
        "ACC" in note and "beyond the noise of 60 test images, for ViP" in note
        for note in table.notes
    )
    assert "settings: identical except for the method" in table.notes


def test_a_small_difference_lies_within_the_noise(tmp_path):
    both(tmp_path, skill=0.5)
    table = compared(tmp_path)["differences"]
    assert table.rows[-1][-1] == "none"
    assert any("is within the noise of 60 test images" in note for note in table.notes)


def test_only_pairs_are_compared(tmp_path):
    both(tmp_path, seeds=(1,))
    write_run(tmp_path, "ViP", seed=2)
    tables = compared(tmp_path)
    assert len(tables["McNemar's exact test"].rows) == 1
    assert "only ViP has vit_b16 seed 2: left out" in tables["differences"].notes


def test_other_test_pictures_are_no_pair(tmp_path):
    write_run(tmp_path, "ViP", n=60)
    write_run(tmp_path, "CoOp", n=50)
    (table,) = compare.compare_tables(find_runs(tmp_path), "ViP", "CoOp")
    assert not table.rows
    assert any("10 test images are in only one" in note for note in table.notes)


def test_settings_that_differ_are_named(tmp_path):
    """Anything but the trainer's own node and the folder; precision, which is in it, too."""
    common = "\nOUTPUT_DIR: {0}\nTRAINER: {{NAME: {0}, {1}: {{PREC: {2}, N_CTX: {3}}}}}"
    for trainer, precision, n_ctx, lr in (("ViP", "fp16", 4, 0.001), ("CoOp", "fp32", 16, 0.002)):
        folder = write_run(tmp_path, trainer, device=trainer)
        with open(folder / "config.yaml", "a") as file:
            file.write(f"OPTIM:\n  LR: {lr}")
            file.write(common.format(trainer, trainer.upper(), precision, n_ctx))
    notes = compared(tmp_path)["differences"].notes
    differing = [note for note in notes if note.startswith("besides the method")]
    assert len(differing) == 3
    assert "besides the method, OPTIM.LR differs: 0.001 against 0.002 (all pairs)" in differing
    assert any("PREC differs: fp16 against fp32" in note for note in differing)
    assert any("device differs" in note for note in differing)


def test_a_missing_config_is_said(tmp_path):
    both(tmp_path, seeds=(1,))
    next(tmp_path.glob("**/CoOp/**/config.yaml")).unlink()
    notes = compared(tmp_path)["differences"].notes
    assert "settings not compared, because there is no config.yaml: all pairs" in notes


def test_auroc_stands_with_delongs_interval(tmp_path):
    both(tmp_path, seeds=(1,))
    (row,) = compared(tmp_path)["AUROC by DeLong's paired test"].rows
    runs = {run.trainer: run for run in find_runs(tmp_path)}
    for cell, trainer in zip(row[2:4], ("ViP", "CoOp"), strict=True):
        assert cell.value == pytest.approx(runs[trainer].metrics["auroc"], abs=1e-12)
        assert cell.low <= cell.value <= cell.high
    assert row[4].value == pytest.approx(row[2].value - row[3].value)


def test_many_classes_without_a_positive_one_have_no_delong(tmp_path):
    both(tmp_path, seeds=(1,), classnames=("a", "b", "c"))
    tables = compared(tmp_path)
    assert not any("AUROC" in title for title in tables)
    assert any("name it by DATASET.POSITIVE" in note for note in tables["differences"].notes)


def test_subgroups(tmp_path):
    both(tmp_path, subtypes=["bacterial", "viral", ""])
    table = compared(tmp_path)["subgroups"]
    assert [row[:2] for row in table.rows] == [["bacterial", 20], ["viral", 20]]
    runs = [run.predictions() for run in find_runs(tmp_path) if run.trainer == "ViP"]
    expected = np.mean([run.correct[run.subtypes == "viral"].mean() for run in runs])
    assert table.rows[1][2].value == pytest.approx(expected)


def test_no_subtypes_no_subgroups(tmp_path):
    both(tmp_path)
    assert "subgroups" not in compared(tmp_path)


def test_a_variant_is_named_by_its_options(tmp_path):
    write_run(tmp_path)
    write_run(tmp_path, options={"TRAINER.VIP.MERGE": "mean", "OPTIM.LR": 0.1})
    tables = compared(tmp_path, "vip", "ViP:OPTIM.LR=0.1,MERGE=mean")
    assert tables["differences"].rows


def test_unknown_method_names_the_known(tmp_path):
    both(tmp_path)
    with pytest.raises(InputError, match="ViP and Nothing; there are: CoOp, ViP"):
        compare.compare_tables(find_runs(tmp_path), "ViP", "Nothing")
