"""Reading run folders, broken ones among them, and the logs of other CoOp-family code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from results_runs import write_run

from core.errors import InputError
from results.logs import backbone_slug, dumped_config, final_figures
from results.runs import find_run, find_runs, latest_run

CONFIG = """***************
** Arguments **
***************
seed: 1
trainer: CoOp
************
** Config **
************
DATASET:
  NAME: Derm7pt
  NUM_SHOTS: {shots}
  SUBSAMPLE_CLASSES: all
INPUT:
  PIXEL_MEAN: [0.48145466, 0.4578275, 0.40821073]
  SIZE: (224, 224)
MODEL:
  BACKBONE:
    NAME: ViT-B/16
  INIT_WEIGHTS:
SEED: {seed}
TRAINER:
  COOP:
    CTX_INIT:
    N_CTX: 4
  NAME: CoOp
Collecting env info ...
** System info **
NAME: not a setting
"""
RESULT = """=> result
* total: 320
* correct: 260
* accuracy: {accuracy}%
* error: 18.9%
* macro_f1: {f1}%
"""
TRAINING = "epoch [1/50] batch [5/10] time 0.100 (0.100) loss 0.69 (0.70) acc 50.00 (52.00)\n"
VALIDATION = "Evaluate on the *val* set\n" + RESULT.format(accuracy="99.9", f1="99.9")
FOREIGN = "derm7pt/CoOp/vit_b16_ep50_ctxv1/nctx4_cscFalse_ctpend"


def log(accuracy="81.1", f1="77.3", seed=1, shots=-1, config=True, finished=True):
    text = CONFIG.format(seed=seed, shots=shots) if config else ""
    text += TRAINING + VALIDATION
    return text + ("Finish training\n" + RESULT.format(accuracy=accuracy, f1=f1)) * finished


def write_log(folder, text, name="log.txt"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def collect(folder):
    lines = []
    return find_runs(folder, lines.append), lines


def test_a_run_is_read_back(tmp_path):
    folder = write_run(tmp_path, options={"TRAINER.VIP.MERGE": "mean"}, subtypes=["blue nevus", ""])
    (run,), lines = collect(tmp_path)
    record = json.loads((folder / "results.json").read_text())
    assert not lines
    assert (run.dataset, run.trainer, run.backbone, run.seed) == ("derm7pt", "ViP", "vit_b16", 1)
    assert run.metrics == record["metrics"]
    assert run.option("MERGE", "prompt") == "mean" and run.option("CONTEXT", True) == "True"
    predictions = run.predictions()
    assert predictions.correct.mean() == pytest.approx(run.metrics["accuracy"])
    assert set(predictions.subtypes) == {"blue nevus", ""}


@pytest.mark.parametrize(
    "text, told",
    [
        ('{"format": 1, "metr', "half-written"),
        ('{"accuracy": 0.9}', "no format"),
        ("[1, 2]", "no format"),
        ('{"format": 3}', "format 3"),
        ('{"format": 2, "dataset": "d"}', "lacks trainer, backbone, seed, metrics"),
        ('{"format": 1, "dataset": "d"}', "lacks trainer, backbone, seed, metrics"),
    ],
)
def test_a_damaged_results_file_is_one_line_and_not_averaged(tmp_path, text, told):
    whole = write_run(tmp_path, seed=1)
    broken = write_run(tmp_path, seed=2)
    (broken / "results.json").write_text(text)
    (run,), (line,) = collect(tmp_path)
    assert run.folder == whole
    assert str(broken) in line and told in line and "skipped" in line and "\n" not in line


@pytest.mark.parametrize(
    "metrics", [None, {"accuracy": None, "macro_f1": 0.5}, {"accuracy": 81.1, "macro_f1": 77.3}]
)
def test_metrics_that_are_not_fractions_are_refused(tmp_path, metrics):
    write_run(tmp_path, metrics=metrics)
    runs, (line,) = collect(tmp_path)
    assert not runs and "skipped" in line


def test_a_method_that_does_not_apply_is_a_run_without_figures(tmp_path):
    write_run(tmp_path, "MaPLe", backbone="rn50", metrics=None, does_not_apply="needs a ViT")
    (run,), lines = collect(tmp_path)
    assert run.metrics is None and not lines


def test_an_unfinished_run_is_said(tmp_path):
    """A folder with a configuration and a log, but no results: cut before its end."""
    folder = write_run(tmp_path)
    (folder / "results.json").unlink()
    write_log(folder, log())
    runs, (line,) = collect(tmp_path)
    assert not runs and "unfinished" in line


def test_a_copy_of_a_run_is_not_counted_twice(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b")
    runs, (line,) = collect(tmp_path)
    assert len(runs) == 1 and "the same run as" in line


def test_symptom_files_of_one_name_are_kept_apart(tmp_path):
    write_run(tmp_path, symptom_fingerprint="aaaa")
    write_run(tmp_path, symptom_fingerprint="bbbb")
    runs, lines = collect(tmp_path)
    assert len({run.key for run in runs}) == 2 and not lines


def test_a_run_evaluated_on_its_own_dataset_is_no_external_test(tmp_path):
    write_run(tmp_path, seed=1, trained_on="derm7pt")
    write_run(tmp_path, seed=2, trained_on="synthderm")
    runs, _ = collect(tmp_path)
    assert {run.seed: run.trained_on for run in runs} == {1: None, 2: "synthderm"}


def test_wrong_folder_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        find_runs(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "spoil, told",
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_text("picture,label\na,melanoma\n"), "damaged"),
        (lambda path: path.write_text(_without_last_line(path)), "another run"),
        (lambda path: path.write_text(path.read_text().replace("nevus", "mole")), "damaged"),
        (lambda path: path.write_text(path.read_text() + "test/000.png,nevus"), "damaged"),
    ],
)
def test_damaged_predictions_are_an_input_error_that_names_the_file(tmp_path, spoil, told):
    spoil(write_run(tmp_path, skill=0.5) / "predictions.csv")
    (run,), _ = collect(tmp_path)
    with pytest.raises(InputError, match=told) as error:
        run.predictions()
    assert "predictions.csv" in str(error.value)


def _without_last_line(path):
    lines = path.read_text().splitlines()
    wrong = next(i for i, line in enumerate(lines) if i and len(set(line.split(",")[1:3])) == 2)
    return "\n".join(lines[:wrong] + lines[wrong + 1 :])


def test_a_foreign_log_tells_its_run_by_its_configuration(tmp_path):
    """The final test after training, not a validation before it; settings from the log's head."""
    write_log(tmp_path / "x" / "seed1", log(seed=3))
    (run,), lines = collect(tmp_path)
    assert (run.dataset, run.trainer, run.backbone, run.seed) == ("derm7pt", "CoOp", "vit_b16", 3)
    assert run.metrics == pytest.approx({"accuracy": 0.811, "macro_f1": 0.773})
    assert run.origin == "log.txt" and not lines
    with pytest.raises(InputError, match="no predictions"):
        run.predictions()


def test_a_foreign_log_without_configuration_tells_it_by_its_folders(tmp_path):
    write_log(tmp_path / FOREIGN / "seed2", log(config=False))
    write_log(tmp_path / "base2new/train_base/dtd/shots_16/CoCoOp/rn50_c4/seed1", log(config=False))
    runs, _ = collect(tmp_path)
    found = {(r.dataset, r.trainer, r.backbone, r.seed, r.shots, r.record.variant) for r in runs}
    assert found == {
        ("derm7pt", "CoOp", "vit_b16", 2, -1, "ep50_ctxv1/nctx4_cscFalse_ctpend"),
        ("dtd", "CoCoOp", "rn50", 1, 16, "c4"),
    }


def test_a_dataset_folder_may_be_named_itself(tmp_path):
    write_log(tmp_path / FOREIGN / "seed2", log(config=False))
    (run,), _ = collect(tmp_path / "derm7pt" / "CoOp")
    assert (run.dataset, run.trainer, run.backbone) == ("derm7pt", "CoOp", "vit_b16")


def test_the_newest_finished_log_wins_and_the_others_are_named(tmp_path):
    folder = tmp_path / FOREIGN / "seed1"
    write_log(folder, log("70.0"))
    write_log(folder, log("75.0"), "log.txt-2024-05-01-10-00-00")
    write_log(folder, log(finished=False), "log.txt-2024-06-01-10-00-00")
    (run,), (line,) = collect(tmp_path)
    assert run.metrics["accuracy"] == pytest.approx(0.75)
    assert "read log.txt-2024-05" in line and "not used: log.txt, log.txt-2024-06" in line


def test_a_log_without_an_end_is_skipped(tmp_path):
    write_log(tmp_path / FOREIGN / "seed1", log(finished=False))
    runs, (line,) = collect(tmp_path)
    assert not runs and "no final result" in line


def test_a_log_that_tells_nothing_is_skipped(tmp_path):
    write_log(tmp_path / "somewhere", RESULT.format(accuracy="81.1", f1="77.3"))
    runs, (line,) = collect(tmp_path)
    assert not runs and "trainer" in line


def test_results_win_over_a_log_and_keep_all_digits(tmp_path):
    folder = write_run(tmp_path)
    write_log(folder, log())
    (run,), _ = collect(tmp_path)
    assert run.origin == "results.json"


def test_an_evaluation_without_training_is_final():
    """CoOp's --eval-only and zero-shot logs have no training; more digits are kept."""
    text = RESULT.format(accuracy="81.0938", f1="77.2941")
    assert final_figures(text) == pytest.approx({"accuracy": 0.810938, "macro_f1": 0.772941})
    assert final_figures(TRAINING + text) is None
    assert final_figures("=> result\n* accuracy: 81.1%") == {"accuracy": pytest.approx(0.811)}


def test_the_printed_configuration_ends_where_it_ends():
    config = dumped_config(CONFIG.format(seed=1, shots=16))
    assert config["MODEL.BACKBONE.NAME"] == "ViT-B/16"
    assert config["DATASET.NUM_SHOTS"] == "16" and config["TRAINER.COOP.N_CTX"] == "4"
    assert config["INPUT.SIZE"] == "(224, 224)" and "NAME" not in config
    assert dumped_config("no configuration") == {}


@pytest.mark.parametrize(
    "name, slug",
    [
        ("ViT-B/16", "vit_b16"),
        ("ViT-L/14", "vit_l14"),
        ("RN50x64", "rn50x64"),
        ("ViT-L/14@336px", "vit_l14_336"),
    ],
)
def test_backbone_slug(name, slug):
    assert backbone_slug(name) == slug


def test_reading_needs_no_pytorch():
    """The tables start without loading PyTorch, pandas or matplotlib."""
    code = (
        "import sys, parse_results; "
        "print([m for m in ('torch', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    root = Path(__file__).parent.parent
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


@pytest.fixture
def named(tmp_path):
    """Runs of two methods, two variants, with the fingerprints of their symptoms in the names."""
    for seed in (1, 2):
        write_run(tmp_path, "ViP", backbone="tiny", seed=seed, variant="symptoms-0a1b2c3d4e5f")
        write_run(tmp_path, "CoOp", backbone="tiny", seed=seed)
    options = {"TRAINER.VIP.MERGE": "mean"}
    write_run(tmp_path, "ViP", backbone="tiny", options=options, variant="MERGE=mean_symptoms-0a1b")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "trainer", "seed", "merge"),
    [
        ("CoOp/seed2", "CoOp", 2, None),
        ("coop/tiny/SEED1", "CoOp", 1, None),
        ("ViP/tiny/default/seed1", "ViP", 1, None),
        ("ViP/tiny/MERGE=mean", "ViP", 1, "mean"),
        ("derm7pt/ViP/seed2", "ViP", 2, None),
    ],
)
def test_a_run_is_found_by_a_short_name(named, name, trainer, seed, merge):
    """Without the fingerprints in its folder's name."""
    folder = find_run(name, named)
    (run,) = [run for run in find_runs(named) if run.folder == folder]
    assert (run.trainer, run.seed) == (trainer, seed)
    assert run.options.get("TRAINER.VIP.MERGE") == merge
    assert find_run(str(folder), named) == folder


def test_a_name_of_several_runs_lists_them(named):
    with pytest.raises(InputError, match="CoOp/tiny matches 2 runs; choose one of") as error:
        find_run("CoOp/tiny", named)
    assert str(error.value).count("seed") == 2 and "\n" not in str(error.value)
    with pytest.raises(InputError, match="no finished run 'MaPLe'; there are CoOp/tiny, ViP/tiny"):
        find_run("MaPLe", named)


def test_the_latest_run_is_the_one_that_ended_last(named):
    for age, seed in ((100, 2), (200, 1)):
        path = find_run(f"CoOp/seed{seed}", named) / "results.json"
        os.utime(path, (1e9 - age, 1e9 - age))
    assert latest_run("CoOp/tiny", named) == find_run("CoOp/seed2", named)
