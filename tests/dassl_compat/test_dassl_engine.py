"""The training loop: hooks, log lines, checkpoints, and going on after a kill."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dassl.engine import TRAINER_REGISTRY, build_trainer
from toy_run import ToyTrainer, toy_cfg, toy_trainer

import dassl_compat
from core.errors import InputError
from dassl_compat.checkpoint_reader import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("body", "head")


def same(a, b):
    """Equal to the last bit, at any depth."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def checkpoints(folder):
    """{model/file: content} of all checkpoints of a run."""
    files = sorted(Path(folder, "run").glob("*/model*"))
    return {f"{path.parent.name}/{path.name}": read_checkpoint(path) for path in files}


def plain(value):
    if isinstance(value, dict):
        return all(plain(k) and plain(v) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(plain, value))
    return value is None or type(value) in (torch.Tensor, int, float, bool, str)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that was never cut."""
    folder = tmp_path_factory.mktemp("whole")
    toy_trainer(folder).train()
    return folder


def test_hooks_run_in_their_order(tmp_path):
    class Recorder(ToyTrainer):
        calls = []

    def recorded(name):
        def hook(self, *args, **kwargs):
            Recorder.calls.append(name)
            return getattr(super(Recorder, self), name)(*args, **kwargs)

        return hook

    hooks = (
        *("check_cfg", "build_data_loader", "build_model"),
        *("before_train", "before_epoch", "run_epoch", "after_epoch", "after_train", "test"),
    )
    for name in hooks:
        setattr(Recorder, name, recorded(name))
    TRAINER_REGISTRY.register(Recorder, force=True)

    build_trainer(toy_cfg(tmp_path, "TRAINER.NAME", "Recorder", "OPTIM.MAX_EPOCH", 2)).train()

    epoch = ["before_epoch", "run_epoch", "after_epoch", "test"]
    assert Recorder.calls == [
        *("check_cfg", "build_data_loader", "build_model"),
        *("before_train", *epoch, *epoch, "after_train", "test"),
    ]


def test_log_lines(tmp_path, capsys):
    toy_trainer(tmp_path).train()
    told = capsys.readouterr().out

    line = (
        r"^epoch \[1/4\] batch \[2/5\] time T \(T\) data T \(T\) loss V \(V\) acc V \(V\) "
        r"lr 1\.0000e-05 eta 0:00:\d\d$"
    )
    line = (
        line.replace("T ", r"\d+\.\d{3} ").replace("(T", r"(\d+\.\d{3}").replace("V", r"\d+\.\d{4}")
    )
    assert re.search(line, told, re.MULTILINE)
    assert told.index("Finish training") < told.index("Evaluate on the *test* set")
    assert told.count("Evaluate on the *val* set") == 4


def test_checkpoints_have_dassls_names(whole):
    for model in MODELS:
        folder = whole / "run" / model
        assert {path.name for path in folder.iterdir()} == {
            "checkpoint",
            "model-best.pth.tar",
            "model.pth.tar-4",
        }
        assert (folder / "checkpoint").read_text() == "model.pth.tar-4\n"


def test_checkpoints_are_plain(whole):
    """Tensors, numbers and text; PyTorch's own safe loading reads them unaided."""
    for path in (whole / "run").glob("*/model*"):
        content = torch.load(path, weights_only=True)
        assert plain(content)
        assert {"state_dict", "epoch", "optimizer", "scheduler", "val_result"} <= set(content)


def test_checkpoint_freq_keeps_more(tmp_path):
    toy_trainer(tmp_path, "TRAIN.CHECKPOINT_FREQ", 2, "OPTIM.MAX_EPOCH", 5).train()

    kept = {path.name for path in (tmp_path / "run" / "body").glob("model.*")}
    assert kept == {"model.pth.tar-2", "model.pth.tar-4", "model.pth.tar-5"}


def test_the_first_best_epoch_is_tested(whole, capsys):
    """The strictly greatest validation accuracy picks the model that is tested at the end."""
    results = []

    class Watched(ToyTrainer):
        def test(self, split=None):
            results.append(super().test(split))
            return results[-1]

    TRAINER_REGISTRY.register(Watched, force=True)
    trainer = build_trainer(toy_cfg(whole, "TRAINER.NAME", "Watched", "OUTPUT_DIR", f"{whole}/2"))
    trainer.train()

    best = read_checkpoint(whole / "2" / "body" / "model-best.pth.tar")
    val = results[:-1]
    assert (best["epoch"], best["val_result"]) == (val.index(max(val)) + 1, max(val))
    assert same(trainer.body.state_dict(), best["state_dict"])


def run(folder, *arguments, path=(ROOT,)):
    """The toy run in a process of its own."""
    path = os.pathsep.join(map(str, path))
    return subprocess.run(
        [sys.executable, Path(__file__).with_name("toy_run.py"), folder, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def run_until(folder, epoch, batch=0):
    trainer = toy_trainer(folder)
    trainer.dies_at = epoch, batch
    with pytest.raises(KeyboardInterrupt):
        trainer.train()


def ends_like(folder, whole):
    """Weights, optimizers, schedules, random state, best result: all of them are the same."""
    cut, uncut = checkpoints(folder), checkpoints(whole)
    return all(same(cut[name], uncut[name]) for name in uncut)


def test_a_killed_process_ends_in_the_same_bits(tmp_path, whole):
    assert run(tmp_path, 2, 3).returncode == 9
    toy_trainer(tmp_path).train()

    assert ends_like(tmp_path, whole)
    assert checkpoints(tmp_path).keys() == checkpoints(whole).keys()


@pytest.mark.parametrize("cuts", [[(0, 2)], [(1, 0)], [(1, 4), (2, 0), (3, 1)]])
def test_a_run_cut_anywhere_ends_in_the_same_bits(tmp_path, whole, cuts):
    for cut in cuts:
        run_until(tmp_path, *cut)
    toy_trainer(tmp_path).train()

    assert ends_like(tmp_path, whole)


def test_a_finished_run_is_only_tested_again(tmp_path, whole, capsys):
    shutil.copytree(whole, tmp_path / "copy")
    toy_trainer(tmp_path / "copy").train()

    told = capsys.readouterr().out
    assert "loss" not in told
    assert "Evaluate on the *test* set" in told
    assert ends_like(tmp_path / "copy", whole)


def test_models_cut_at_different_epochs_go_back_together(tmp_path, whole):
    """A kill between two models' files leaves one an epoch behind."""
    run_until(tmp_path, 2)
    body = tmp_path / "run" / "body"
    torch.save(read_checkpoint(body / "model.pth.tar-2") | {"epoch": 3}, body / "model.pth.tar-3")
    (body / "checkpoint").write_text("model.pth.tar-3\n")

    toy_trainer(tmp_path).train()

    assert ends_like(tmp_path, whole)


@pytest.mark.parametrize("name", ["model.pth.tar-2", "model-best.pth.tar"])
def test_a_half_written_checkpoint_is_said_and_redone(tmp_path, whole, name, capsys):
    run_until(tmp_path, 2)
    path = tmp_path / "run" / "head" / name
    path.write_bytes(path.read_bytes()[:1000])

    toy_trainer(tmp_path).train()

    assert f'{name}" is not a complete checkpoint' in capsys.readouterr().out
    assert ends_like(tmp_path, whole)


def spoil_nan(content):
    content["state_dict"]["bias"][0] = float("nan")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda content: content.pop("epoch"), 'has no "epoch"'),
        (lambda content: content.pop("state_dict"), 'has no "state_dict"'),
        (spoil_nan, "state_dict.bias has values that are NaN"),
    ],
    ids=["no epoch", "no state_dict", "NaN"],
)
def test_an_unusable_checkpoint_is_named_by_every_way_in(tmp_path, whole, spoil, reason, capsys):
    """To load it is an error; to resume goes back to an earlier one, or to an error."""
    shutil.copytree(whole, tmp_path / "copy")
    for path in (tmp_path / "copy" / "run" / "head").glob("model*"):
        content = read_checkpoint(path)
        spoil(content)
        torch.save(content, path)
    trainer = toy_trainer(tmp_path / "copy", "RESUME", str(tmp_path / "copy" / "run"))

    for epoch in (None, 4):
        with pytest.raises(InputError, match=reason):
            trainer.load_model(trainer.cfg.RESUME, epoch=epoch)
    with pytest.raises(InputError, match="RESUME: no checkpoint"):
        trainer.train()
    assert reason in capsys.readouterr().out


def test_a_binary_pointer_is_said_and_the_newest_epoch_used(tmp_path, whole, capsys):
    run_until(tmp_path, 2)
    for model in MODELS:
        (tmp_path / "run" / model / "checkpoint").write_bytes(b"\xff\xfe")

    toy_trainer(tmp_path).train()

    assert 'checkpoint" is not text' in capsys.readouterr().out
    assert ends_like(tmp_path, whole)


@pytest.mark.parametrize("state", [{}, {"batches": "text"}, {"random_state": {"python": 3}}])
def test_another_programs_state_is_one_line(tmp_path, whole, state):
    class Picky(ToyTrainer):
        def load_resume_state(self, state):
            self.batches = state["batches"] + 1

    TRAINER_REGISTRY.register(Picky, force=True)
    shutil.copytree(whole, tmp_path / "copy")
    for path in (tmp_path / "copy" / "run").glob("*/model.pth*"):
        more = state if "random_state" in state else {"resume_state": state}
        torch.save(read_checkpoint(path) | more, path)

    with pytest.raises(InputError, match="does not fit this") as error:
        build_trainer(toy_cfg(tmp_path / "copy", "TRAINER.NAME", "Picky")).train()
    assert "\n" not in str(error.value)


def test_resume_from_an_empty_folder_is_an_error(tmp_path):
    """Not a run from scratch."""
    with pytest.raises(InputError, match="RESUME"):
        toy_trainer(tmp_path, "RESUME", str(tmp_path / "wrong")).train()


def test_load_model_without_a_validation_result(whole, capsys):
    trainer = toy_trainer(whole)
    trainer.load_model(str(whole / "run"), epoch=4)

    saved = read_checkpoint(whole / "run" / "head" / "model.pth.tar-4")
    assert same(trainer.head.state_dict(), saved["state_dict"])
    with pytest.raises(InputError, match="model.pth.tar-9"):
        trainer.load_model(str(whole / "run"), epoch=9)
    trainer.load_model("")  # told, and nothing done


def test_a_trainer_can_carry_more_across_a_cut(tmp_path):
    class Counting(ToyTrainer):
        batches = 0

        def forward_backward(self, batch):
            self.batches += 1
            return super().forward_backward(batch)

        def resume_state(self):
            return {"batches": self.batches}

        def load_resume_state(self, state):
            self.batches = state["batches"]

    TRAINER_REGISTRY.register(Counting, force=True)
    options = ("TRAINER.NAME", "Counting", "OPTIM.LR_SCHEDULER", "multi_step")
    options += ("OPTIM.STEPSIZE", (1, 2))
    build_trainer(toy_cfg(tmp_path, *options, "OPTIM.MAX_EPOCH", 2)).train()
    longer = build_trainer(toy_cfg(tmp_path, *options, "OPTIM.MAX_EPOCH", 3))
    longer.train()

    assert longer.batches == 15


def test_an_infinite_loss_stops_the_run(tmp_path):
    trainer = toy_trainer(tmp_path)
    with pytest.raises(FloatingPointError):
        trainer.model_backward(torch.tensor(float("nan"), requires_grad=True))


def test_names_and_modes_are_checked(tmp_path):
    trainer = toy_trainer(tmp_path)

    assert trainer.get_model_names() == list(MODELS)
    trainer.set_model_mode("eval", names="head")
    assert (trainer.body.training, trainer.head.training) == (True, False)
    with pytest.raises((ValueError, AssertionError)):
        trainer.get_model_names("none")
    with pytest.raises(KeyError):
        trainer.set_model_mode("no mode")


@pytest.mark.slow
def test_installed_and_standin_say_the_same(tmp_path):
    """The same seed gives the same losses and figures, to the last bit."""
    if not dassl_compat.USING_INSTALLED_DASSL:
        pytest.skip("no Dassl is installed to compare with")
    installed = run(tmp_path / "installed")
    # Ours, first on the path, is found in place of the installed one.
    own = run(tmp_path / "own", path=(ROOT / "dassl_compat" / "standin", ROOT))

    def facts(told):
        """Losses, and results at the installed one's precision."""
        results = re.findall(r"^\* (\w+): ([\d.]+)", told, re.MULTILINE)
        return re.findall(r"^loss .*", told, re.MULTILINE), results

    losses, results = facts(installed.stdout)
    own_losses, own_results = facts(own.stdout)
    assert len(losses) == 20
    assert losses == own_losses
    for (name, value), (own_name, own_value) in zip(results, own_results, strict=True):
        assert name == own_name
        assert float(value) == pytest.approx(float(own_value), abs=0.0501)
    ended, own_ended = checkpoints(tmp_path / "installed"), checkpoints(tmp_path / "own")
    assert all(same(ended[name], own_ended[name]) for name in ended)
