"""A run from the command line: its folder, its repetition, its interruption, its errors."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from torch.testing import assert_close

import train
from core.errors import InputError, command_line
from engine.trainer import MethodTrainer
from results.record import read_record


def vip(toy_args, *words):
    train.main(["--trainer", "ViP", *toy_args, *words])


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def outcome(folder):
    """What two runs must share, bit for bit: learned numbers, probabilities, figures, history."""
    state = torch.load(folder / "vip" / "model-best.pth.tar", weights_only=True)
    results = json.loads((folder / "results.json").read_text())
    history = [{**row, "seconds": ""} for row in read_csv(folder / "history.csv")]
    return state["state_dict"], read_csv(folder / "predictions.csv"), results["metrics"], history


def assert_same_outcome(a, b):
    for name, tensor in a[0].items():
        assert torch.equal(tensor, b[0][name]), name
    assert a[1:] == b[1:]


def test_run_leaves_a_complete_folder(toy, toy_args, short, capsys):
    """Every file that the README names, with figures that agree among themselves."""
    vip(toy_args, "--seed", "0", *short)
    run = toy / "run"
    results = json.loads((run / "results.json").read_text())
    rows = read_csv(run / "predictions.csv")

    assert {p.name for p in run.iterdir()} >= {
        "config.yaml",
        "log.txt",
        "tensorboard",
        "vip",
        "history.csv",
        "predictions.csv",
        "results.json",
    }
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert results["seed"] == 0
    assert results["metrics"]["accuracy"] == right / len(rows) == right / 12
    for row in rows:
        probabilities = {name: float(row[f"p({name})"]) for name in ("red", "blue")}
        assert sum(probabilities.values()) == pytest.approx(1)
        assert max(probabilities, key=probabilities.get) == row["prediction"]
    assert results["class_counts"]["train"] == {"red": 10, "blue": 10}
    assert results["trainable_parameters"] == 4 * 64 + 2 * 48 * 48 + 2 * 48
    assert [row["epoch"] for row in read_csv(run / "history.csv")] == ["1", "2", "3"]
    assert float(read_csv(run / "history.csv")[0]["lr"]) == 1e-5  # the warm-up
    printed = capsys.readouterr().out
    assert f"* accuracy: {100 * right / 12:.4f}%" in printed
    assert printed.index("Finish training") < printed.index("=> result")


def test_checkpoint_holds_plain_numbers(toy, toy_args, short):
    """Safe loading reads it, and Dassl's names are there."""
    vip(toy_args, *short)
    folder = toy / "run" / "vip"
    last = torch.load(folder / "model.pth.tar-3", weights_only=True)

    assert (folder / "checkpoint").read_text().strip() == "model.pth.tar-3"
    assert {"state_dict", "epoch", "optimizer", "scheduler", "val_result"} <= last.keys()
    assert last["epoch"] == 3
    assert sorted(p.name for p in folder.iterdir()) == [
        "checkpoint",
        "model-best.pth.tar",
        "model.pth.tar-3",
    ]


def test_complete_run_is_not_run_again(toy, toy_args, short, capsys):
    vip(toy_args, *short)
    written = (toy / "run" / "results.json").stat().st_mtime_ns
    vip(toy_args, *short)

    assert "is complete" in capsys.readouterr().out
    assert (toy / "run" / "results.json").stat().st_mtime_ns == written


def test_other_settings_are_refused_the_folder(toy, toy_args, short):
    vip(toy_args, *short)
    with pytest.raises(InputError, match="OPTIM.LR"):
        vip(toy_args, *short, "OPTIM.LR", "0.5")


def test_half_written_results_are_noticed_and_redone(toy, toy_args, short, capsys):
    vip(toy_args, *short)
    before = outcome(toy / "run")
    results = toy / "run" / "results.json"
    results.write_text(results.read_text()[:50])
    vip(toy_args, *short)

    assert "half-written" in capsys.readouterr().out
    assert_same_outcome(before, outcome(toy / "run"))


def test_half_written_checkpoint_is_noticed_and_redone(toy, toy_args, short, capsys):
    vip(toy_args, *short)
    before = outcome(toy / "run")
    (toy / "run" / "results.json").unlink()
    last = toy / "run" / "vip" / "model.pth.tar-3"
    last.write_bytes(last.read_bytes()[:1000])
    vip(toy_args, *short)

    assert "trying an earlier one" in capsys.readouterr().out
    assert_same_outcome(before, outcome(toy / "run"))


def test_evaluation_gives_the_figures_the_run_ended_with(toy, toy_args, short, capsys):
    """The best checkpoint is found by itself, and nothing in the run's folder changes."""
    vip(toy_args, *short)
    ended = [line for line in capsys.readouterr().out.splitlines() if line.startswith("* ")]
    written = (toy / "run" / "results.json").read_bytes()
    vip(toy_args, "--eval-only", *short)
    again = [line for line in capsys.readouterr().out.splitlines() if line.startswith("* ")]

    assert again == ended
    assert (toy / "run" / "results.json").read_bytes() == written


def test_evaluation_elsewhere_writes_its_own_results(toy, toy_args, short):
    vip(toy_args, *short)
    elsewhere = str(toy / "again")
    args = [*toy_args[:-1], elsewhere, "--eval-only", "--model-dir", str(toy / "run")]
    vip(args, *short)

    assert read_record(elsewhere).metrics == read_record(toy / "run").metrics
    assert read_record(elsewhere).trained_on == "toy"


def killed_at(checkout, command, seconds):
    process = subprocess.Popen(command, cwd=checkout, stdout=subprocess.DEVNULL)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_run_ends_in_the_same_bits(toy, toy_args, short, checkout):
    """kill -9 at many moments, the same command again: the same numbers as without."""
    short[1] = "6"
    command = [sys.executable, "train.py", "--trainer", "ViP", *toy_args, *short]
    start = time.time()
    subprocess.run(command, cwd=checkout, check=True, stdout=subprocess.DEVNULL)
    whole = time.time() - start
    expected = outcome(toy / "run")
    interrupted = command.copy()
    interrupted[interrupted.index(str(toy / "run"))] = str(toy / "killed")
    for share in (0.5, 0.7, 0.8, 0.85, 0.9, 0.95):
        killed_at(checkout, interrupted, share * whole)
    subprocess.run(interrupted, cwd=checkout, check=True, stdout=subprocess.DEVNULL)

    assert_same_outcome(expected, outcome(toy / "killed"))


@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize("moment", ["best", "last", "history"])
def test_run_cut_at_any_write_ends_in_the_same_bits(
    toy, toy_args, short, monkeypatch, epoch, moment
):
    """Cut just before each file that an epoch writes, then resumed."""
    vip(toy_args, *short)
    expected = outcome(toy / "run")
    args = [*toy_args[:-1], str(toy / "cut")]
    from dassl_compat import checkpoints
    from engine import trainer as base

    last = checkpoints.EPOCH.format(epoch + 1)
    names = {"best": checkpoints.BEST, "last": last, "history": "history.csv"}
    real, seen = base.atomic_write, []

    def cut(path, *mode):
        if path.name == names[moment]:
            seen.append(path)
            if moment == "last" or len(seen) == epoch + 1:
                raise KeyboardInterrupt
        return real(path, *mode)

    with monkeypatch.context() as patch:
        patch.setattr(base, "atomic_write", cut)
        patch.setattr(checkpoints, "atomic_write", cut)
        try:
            vip(args, *short)
        except KeyboardInterrupt:
            pass
    vip(args, *short)

    assert_same_outcome(expected, outcome(toy / "cut"))


def test_second_run_on_the_same_folder_stops(toy, toy_args, short, checkout):
    """It says so; the first goes on."""
    from filelock import FileLock

    (toy / "run").mkdir()
    with FileLock(toy / "run" / ".lock"), pytest.raises(InputError, match="another run is writing"):
        vip(toy_args, *short)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trainer", "VIPP"], "there is no trainer 'VIPP'; choose one of"),
        (["--dataset", "nowhere"], "there is no configs/datasets/nowhere.yaml; choose one of"),
        (["--backbone", "vit_b17"], "there is no configs/backbones/vit_b17.yaml; choose one of"),
        (["TRAINER.VIP.NCTX", "4"], "there is no setting TRAINER.VIP.NCTX"),
        (["OPTIM.LR", "fast"], "OPTIM.LR is 'fast'; it should be a number"),
        (["OPTIM.LR"], "pairs"),
        (["--seed", "-1"], "argument --seed: it is -1, and should be from 0 to"),
        (["SEED", "-1"], "SEED is -1; it should be at least 0"),
        (["TRAINER.VIP.MERGE", "sum"], "MERGE is 'sum'; it should be 'prompt', 'mean' or 'max'"),
        (["TRAINER.VIP.PREC", "fp8"], "PREC is 'fp8'"),
        (["TRAINER.VIP.SYMPTOMS", "none.json"], "none.json"),
        (["MODEL.BACKBONE.PATH", "none.pt"], "there is no file or folder none.pt"),
        (["INPUT.SIZE", "(64, 64)"], "reads images of 32x32"),
        (["TEST.FINAL_MODEL", "best"], "it should be 'best_val' or 'last_step'"),
        (["TEST.SPLIT", "train"], "it should be 'val' or 'test'"),
        (["TRAINER.NAME", "CoOp"], "chosen by --trainer"),
        (["TRAINER.VIP.N_CTX", "0"], "TRAINER.VIP.N_CTX is 0; it should be at least 1"),
        (["OPTIM.NAME", "foo"], "OPTIM.NAME is 'foo'; it should be 'sgd', "),
        (["OPTIM.LR_SCHEDULER", "foo"], "OPTIM.LR_SCHEDULER is 'foo'; it should be "),
        (["INPUT.TRANSFORMS", "('foo',)"], "INPUT.TRANSFORMS is ('foo',), entry 1; it "),
        (["INPUT.INTERPOLATION", "foo"], "INPUT.INTERPOLATION is 'foo'; it should be "),
        (["DATASET.NAME", "foo"], "DATASET.NAME is 'foo'; choose one of"),
        (["DATALOADER.NUM_WORKERS", "-1"], "DATALOADER.NUM_WORKERS is -1"),
        (["DATALOADER.TEST.BATCH_SIZE", "0"], "DATALOADER.TEST.BATCH_SIZE is 0"),
        (["--config-file", "configs"], "configs: a configuration has to be a .yaml or .yml file"),
        (["--load-epoch", "3"], "need --eval-only"),
        (["--resume", "nowhere"], "no checkpoint"),
        (["--eval-only"], "holds no checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_line_and_leaves_nothing(toy, toy_args, short, capsys, words, message):
    """Exit status 2, no traceback, no folder."""
    args = ["--trainer", "ViP", *toy_args]
    flags = [word for word in words if word.startswith("--")]
    with pytest.raises(SystemExit) as stopped:
        command_line(lambda: train.main([*args, *(words if flags else [*short, *words])]))()
    error = capsys.readouterr().err.strip()

    assert stopped.value.code == 2
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert not (toy / "run").exists()


def test_full_disk_is_one_line_and_keeps_what_was_whole(toy, toy_args, short, monkeypatch, capsys):
    vip(toy_args, *short)
    (toy / "run" / "results.json").unlink()
    checkpoint = (toy / "run" / "vip" / "model.pth.tar-3").read_bytes()
    import engine.run as run

    def full(*_):
        raise OSError(28, os.strerror(28), "results.json")

    monkeypatch.setattr(run, "write_record", full)
    with pytest.raises(SystemExit) as stopped:
        command_line(lambda: vip(toy_args, *short))()

    assert stopped.value.code == 2
    assert "the disk is full" in capsys.readouterr().err
    assert (toy / "run" / "vip" / "model.pth.tar-3").read_bytes() == checkpoint


def test_variants_never_share_a_folder(toy):
    """Options and the symptoms' content enter the folder's name."""
    from engine.config import load_cfg

    def folder(*opts):
        files = str(toy / "toy.yaml"), str(toy / "random.yaml")
        return load_cfg("ViP", *files, opts=opts, root=str(toy / "data"))[0].OUTPUT_DIR

    plain = folder()
    assert folder("DATALOADER.NUM_WORKERS", "1") == plain
    assert folder("TRAINER.VIP.MERGE", "prompt") == plain  # its default
    names = {plain, folder("TRAINER.VIP.N_CTX", "8"), folder("OPTIM.LR", "0.01")}
    (toy / "symptoms.json").write_text('{"red": ["a"], "blue": ["b"]}')
    assert len(names | {folder()}) == 4


def test_config_lists_only_the_method_that_ran(toy, toy_args, short):
    """Else a new method would change the configuration of every other's runs."""
    vip(toy_args, *short)
    config = yaml.safe_load((toy / "run" / "config.yaml").read_text())

    assert config["TRAINER"].keys() == {"NAME", "VIP"}


def test_original_checkpoint_loads(toy, toy_args, short):
    """A `vip` state dict as the authors' code writes it, with a scheduler of live objects aside."""
    vip(toy_args, *short)
    state = torch.load(toy / "run" / "vip" / "model-best.pth.tar", weights_only=True)["state_dict"]
    published = toy / "published" / "vip"
    published.mkdir(parents=True)
    torch.save(
        {"state_dict": state, "epoch": 50, "optimizer": {}, "scheduler": {}, "val_result": None},
        published / "model.pth.tar-50",
    )
    args = [*toy_args[:-1], str(toy / "evaluated"), "--eval-only", "--load-epoch", "50"]
    vip(args, "--model-dir", str(toy / "published"), *short)

    ours, theirs = read_csv(toy / "run" / "predictions.csv"), toy / "evaluated" / "predictions.csv"
    for mine, other in zip(ours, read_csv(theirs), strict=True):
        assert_close(float(mine["p(red)"]), float(other["p(red)"]))


def test_an_input_that_breaks_during_training_costs_nothing(toy, toy_args, short, monkeypatch):
    """The symptoms are read once, before training; the run ends and says what it was made with."""
    vip([*toy_args[:-1], str(toy / "whole")], *short)
    train_steps = MethodTrainer.train_steps

    def and_break_the_file(self):
        (toy / "symptoms.json").write_text('{"red": [')
        return train_steps(self)

    monkeypatch.setattr(MethodTrainer, "train_steps", and_break_the_file)
    vip(toy_args, *short)

    assert_same_outcome(outcome(toy / "run"), outcome(toy / "whole"))


def test_an_input_error_after_training_began_deletes_nothing(toy, toy_args, short, monkeypatch):
    """Here a test image that is gone when the model is tested; the same command then ends."""

    def lost(self, split=None):
        raise InputError("an image is gone")

    with monkeypatch.context() as patch:
        patch.setattr(MethodTrainer, "test", lost)
        with pytest.raises(InputError, match="an image is gone"):
            vip(toy_args, *short)
    assert (toy / "run" / "vip" / "model-best.pth.tar").exists()
    vip(toy_args, *short)
    vip([*toy_args[:-1], str(toy / "whole")], *short)

    assert_same_outcome(outcome(toy / "run"), outcome(toy / "whole"))


@pytest.mark.parametrize("epoch", [1, 2])
def test_an_infinite_loss_is_one_line_and_keeps_the_epochs_before(
    toy, toy_args, short, monkeypatch, epoch
):
    """The epoch in which it appears is not saved; of the one before, nothing is lost."""
    output_of = MethodTrainer.output_of

    def spoiled(self, batch):
        output, label = output_of(self, batch)
        if self.epoch + 1 == epoch:
            output.losses["loss"] = sum(output.losses.values()) * float("nan")
        return output, label

    monkeypatch.setattr(MethodTrainer, "output_of", spoiled)
    with pytest.raises(InputError, match=f"loss became nan in epoch {epoch}; lower OPTIM.LR .now"):
        vip(toy_args, *short)
    assert (toy / "run" / "config.yaml").exists()
    saved = sorted(path.name for path in (toy / "run" / "vip").glob("*.pth*"))
    assert saved == (["model-best.pth.tar", "model.pth.tar-1"] if epoch == 2 else [])


def test_other_weights_under_a_trained_model_are_refused(toy, toy_args, short):
    """What was learned beside one CLIP means nothing beside another."""
    vip(toy_args, *short)
    weights = torch.load(toy / "clip.pt", weights_only=True)
    weights["text_projection"] += 0.5
    torch.save(weights, toy / "clip.pt")
    with pytest.raises(InputError, match="trained on other weights of the backbone"):
        vip(toy_args, "--eval-only", *short)


def test_changed_symptoms_in_the_same_folder_are_refused(toy, toy_args, short):
    """The folder's name does not tell when --output-dir gives it; config.yaml does."""
    vip(toy_args, *short)
    (toy / "symptoms.json").write_text('{"red": ["a"], "blue": ["b"]}')
    with pytest.raises(InputError, match="RUN.SYMPTOMS"):
        vip(toy_args, *short)


def test_output_dir_that_is_a_file_is_one_line(toy, toy_args, short):
    (toy / "file").write_text("")
    with pytest.raises(InputError, match="cannot be created"):
        vip([*toy_args[:-1], str(toy / "file")], *short)


def test_whole_numbers_are_fractions_too_and_files_count_as_options(toy):
    """OPTIM.LR 1; and what --config-file changes names the folder as a KEY VALUE does."""
    from engine.config import load_cfg

    (toy / "more.yaml").write_text("OPTIM:\n  LR: 0.5\n")
    places = str(toy / "toy.yaml"), str(toy / "random.yaml")
    cfg, options = load_cfg("ViP", *places, opts=["OPTIM.LR", "1"], root=str(toy / "data"))
    from_file = load_cfg("ViP", *places, files=[toy / "more.yaml"], root=str(toy / "data"))[1]

    assert cfg.OPTIM.LR == 1.0 and options == {"OPTIM.LR": 1.0}
    assert from_file == {"OPTIM.LR": 0.5}
