"""Checkpoints of other programs, unusable files, and full disks."""

import collections
import errno
import os
import pickle
import zipfile

import pytest
import torch
from torch import nn

from core import files
from core.errors import InputError
from dassl_compat import checkpoints
from dassl_compat.checkpoint_reader import read_checkpoint, read_saved_dict


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


@pytest.fixture
def foreign(model):
    """As Dassl writes it: a live scheduler, with its optimizer, inside the schedule's state."""
    optim = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optim.step()
    successor = torch.optim.lr_scheduler.CosineAnnealingLR(optim, 5.0)
    optim.step()
    successor.step()
    scheduler = {"successor": successor, "warmup_epoch": 1, "last_epoch": 1, "base_lrs": [0.1]}
    return {
        "state_dict": model.state_dict(),
        "epoch": 2,
        "optimizer": optim.state_dict(),
        "scheduler": scheduler,
        "val_result": None,
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["today's format", "before PyTorch 1.6"])
def test_a_live_scheduler_comes_back_as_a_dictionary(foreign, tmp_path, zipped):
    path = tmp_path / "model.pth.tar-2"
    torch.save(foreign, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)

    content = read_checkpoint(path)  # checks the entries too

    assert content["epoch"] == 2
    assert torch.equal(content["state_dict"]["weight"], foreign["state_dict"]["weight"])
    successor = content["scheduler"]["successor"]
    assert type(successor) is dict
    assert (successor["T_max"], successor["last_epoch"]) == (5.0, 1)
    assert type(successor["optimizer"]) is dict


def test_training_goes_on_from_a_foreign_file(foreign, model, tmp_path):
    from dassl.config import get_cfg_default
    from dassl.optim import build_lr_scheduler, build_optimizer

    torch.save(foreign, tmp_path / "model.pth.tar-2")
    (tmp_path / "checkpoint").write_text("model.pth.tar-2\n")
    cfg = get_cfg_default().OPTIM
    cfg.merge_from_list(["NAME", "sgd", "LR", 0.1, "LR_SCHEDULER", "cosine", "MAX_EPOCH", 5])
    cfg.merge_from_list(["WARMUP_EPOCH", 1, "WARMUP_TYPE", "constant"])
    optim = build_optimizer(model, cfg)
    sched = build_lr_scheduler(optim, cfg)

    assert checkpoints.resume_from_checkpoint(tmp_path, model, optim, sched) == 2

    uncut = foreign["scheduler"]["successor"]
    for schedule in (uncut, sched):
        schedule.optimizer.step()
        schedule.step()
    assert sched.get_last_lr() == uncut.get_last_lr()


def test_the_allowed_list_is_left_as_it_was(foreign, tmp_path):
    torch.save(foreign, tmp_path / "file")
    before = set(torch.serialization.get_safe_globals())
    read_checkpoint(tmp_path / "file")

    assert set(torch.serialization.get_safe_globals()) == before


class Sneaky:
    def __init__(self, function, argument):
        self.call = function, (argument,)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, eval, exec])
def test_a_file_that_asks_to_run_something_is_refused(tmp_path, function):
    trace = tmp_path / "trace"
    argument = f"touch {trace}" if function is os.system else f"open({str(trace)!r}, 'w')"
    torch.save({"state_dict": {}, "extra": Sneaky(function, argument)}, tmp_path / "file")

    with pytest.raises(InputError, match=f"asks to run .*{function.__name__}"):
        read_checkpoint(tmp_path / "file")
    assert not trace.exists()


def test_unknown_functions_are_never_called(tmp_path):
    """Only named, and answered by a stand-in."""
    trace = tmp_path / "trace"
    torch.save({"extra": Sneaky(pickle.Pickler, trace), "epoch": 1}, tmp_path / "file")
    torch.save({"extra": Sneaky(trace.__class__.touch, trace), "epoch": 1}, tmp_path / "other")

    for name in ("file", "other"):
        try:
            assert read_saved_dict(tmp_path / name)["epoch"] == 1
        except InputError as error:
            assert "refused" in str(error)
    assert not trace.exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.95])
def test_half_a_file_is_noticed(foreign, tmp_path, zipped, part):
    path = tmp_path / "model.pth.tar-2"
    foreign["state_dict"] = {"weight": torch.ones(100, 100)}
    torch.save(foreign, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])

    with pytest.raises(InputError) as error:
        read_checkpoint(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def nested(depth):
    """A list in a list in a list ..., written by hand: pickle cannot write so deep a one."""
    return b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."


def test_other_files_are_not_checkpoints(tmp_path):
    (tmp_path / "text").write_text("not a checkpoint\n")
    (tmp_path / "page").write_text("<!DOCTYPE html><html>404</html>")
    torch.save([1, 2], tmp_path / "list")
    (tmp_path / "folder").mkdir()
    for name in ("text", "page", "list", "missing", "folder"):
        with pytest.raises(InputError, match=name):
            read_checkpoint(tmp_path / name)
    with pytest.raises(InputError):
        read_checkpoint(None)


def test_shared_and_circular_objects(tmp_path):
    """A stand-in that holds itself ends as a dictionary that holds itself."""
    node = collections.UserList()
    node.itself = node
    torch.save({"a": node, "b": node, "tuple": (1, [node])}, tmp_path / "file")

    content = read_saved_dict(tmp_path / "file")

    assert content["a"] is content["b"] is content["a"]["itself"] is content["tuple"][1][0]
    assert type(content["a"]) is dict


def without(key):
    return lambda content: content.pop(key)


def state_dict(**entries):
    return lambda content: content["state_dict"].update(entries)


def entry(**entries):
    return lambda content: content.update(entries)


NAN = torch.tensor([[1.0, float("nan"), 3.0]] * 2)
UNUSABLE = {
    "no state_dict": (without("state_dict"), 'has no "state_dict"'),
    "no epoch": (without("epoch"), 'has no "epoch"'),
    "text for a tensor": (state_dict(weight="text"), "state_dict.weight is a str, not a tensor"),
    "a number for a name": (lambda c: c["state_dict"].update({1: NAN}), "a key that is a int"),
    "tensors in a list": (entry(state_dict=[NAN]), "its state_dict is a list"),
    "text for the epoch": (entry(epoch="two"), "its epoch is 'two'"),
    "a negative epoch": (entry(epoch=-1), "its epoch is -1"),
    "text for the classes": (entry(resume_state={"classnames": "red"}), "its classnames are not"),
    "a number for a class": (entry(resume_state={"classnames": [1, 2]}), "its classnames are not"),
    "text for the state": (entry(resume_state="text"), "its resume_state is a str"),
    "NaN": (state_dict(weight=NAN), "state_dict.weight has values that are NaN or infinite"),
    "infinity": (state_dict(bias=torch.tensor([1.0, -torch.inf])), "state_dict.bias has values"),
    "NaN in half precision": (state_dict(bias=torch.tensor([1, torch.nan]).half()), "bias has"),
    "NaN in the momentum": (
        lambda c: c["optimizer"]["state"][0].update(momentum_buffer=NAN),
        "optimizer.state.0.momentum_buffer has values",
    ),
}


@pytest.mark.parametrize("read", [read_checkpoint, "resume"], ids=["read", "resume"])
@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_checkpoint_is_one_line_that_names_file_and_entry(
    foreign, model, tmp_path, case, read
):
    spoil, reason = UNUSABLE[case]
    path = tmp_path / "model.pth.tar-2"
    spoil(foreign)
    torch.save(foreign, path)
    (tmp_path / "checkpoint").write_text("model.pth.tar-2\n")

    with pytest.raises(InputError) as error:
        if read == "resume":
            checkpoints.resume_from_checkpoint(tmp_path, model)
        else:
            read(path)

    assert str(path) in str(error.value)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    assert torch.isfinite(model.weight).all()


@pytest.mark.parametrize(
    "spoil",
    [
        state_dict(weight=torch.ones(5, 5)),
        state_dict(other=torch.ones(1)),
        lambda content: content["state_dict"].pop("weight"),
        entry(optimizer={"state": {}}),
        entry(optimizer="text"),
        entry(optimizer={"state": {}, "param_groups": []}),
    ],
    ids=["shape", "more", "less", "no groups", "text", "other groups"],
)
def test_another_models_checkpoint_is_one_line(foreign, model, tmp_path, spoil):
    spoil(foreign)
    torch.save(foreign, tmp_path / "model.pth.tar-2")
    (tmp_path / "checkpoint").write_text("model.pth.tar-2\n")
    optim = torch.optim.SGD(model.parameters(), lr=0.1)

    with pytest.raises(InputError, match="model.pth.tar-2. does not fit this") as error:
        checkpoints.resume_from_checkpoint(tmp_path, model, optim)
    assert "\n" not in str(error.value)


POINTERS = {
    "binary": b"\xff\xfe\x80",
    "NUL": b"model\0.pth",
    "empty": b"\n",
    "parent": b"..",
    "outside": b"../elsewhere/model.pth.tar-1",
    "absolute": b"/etc/hostname",
    "two lines": b"model.pth.tar-1\nmodel.pth.tar-2\n",
    "another system's folder": rb"..\model.pth.tar-1",
    "long": b"x" * 100_000 + b"/",
    "missing file": b"model.pth.tar-7",
}


@pytest.mark.parametrize("case", POINTERS)
def test_a_wrong_pointer_is_one_short_line(model, tmp_path, case):
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    for path in (tmp_path / "elsewhere" / "model.pth.tar-1", tmp_path / "run" / "model.pth.tar-1"):
        torch.save({"state_dict": model.state_dict(), "epoch": 1}, path)
    (tmp_path / "run" / "checkpoint").write_bytes(POINTERS[case])

    with pytest.raises(InputError) as error:
        checkpoints.resume_from_checkpoint(tmp_path / "run", model)
    assert str(tmp_path / "run") in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(tmp_path)) + 200


def test_nesting_is_no_traceback(tmp_path):
    """100,000 lists, one in the other, as PyTorch before 1.6 and as it is today."""
    magic, version, rest = (pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {}))
    old = magic + version + rest + nested(100_000) + pickle.dumps([], 2)
    (tmp_path / "old").write_bytes(old)
    torch.save({}, tmp_path / "empty")
    with (
        zipfile.ZipFile(tmp_path / "empty") as source,
        zipfile.ZipFile(tmp_path / "new", "w") as target,
    ):
        for name in source.namelist():
            deep = b"\x80\x02}X\x01\0\0\0a" + nested(100_000)[2:-1] + b"s."
            target.writestr(name, deep if name.endswith("data.pkl") else source.read(name))

    for name in ("old", "new"):
        with pytest.raises(InputError, match=name):
            read_checkpoint(tmp_path / name)


def test_only_plain_things_are_written(tmp_path):
    state = {"state_dict": {}, "epoch": 1, "scheduler": object()}
    with pytest.raises(TypeError):
        checkpoints.save_checkpoint(state, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_names_of_data_parallel_are_cleaned(tmp_path):
    state = {"state_dict": {"module.weight": torch.ones(1)}, "epoch": 3}
    checkpoints.save_checkpoint(state, tmp_path, is_best=True)

    assert list(read_checkpoint(tmp_path / "model-best.pth.tar")["state_dict"]) == ["weight"]


def test_the_pointer_stays_at_the_last_epoch(tmp_path):
    """The best model is saved under its own name and is not where training went on."""
    for epoch, name in ((1, ""), (2, ""), (2, "model-best.pth.tar")):
        state = {"state_dict": {}, "epoch": epoch}
        checkpoints.save_checkpoint(state, tmp_path, model_name=name)

    assert (tmp_path / "checkpoint").read_text() == "model.pth.tar-2\n"


def test_a_full_disk_leaves_the_last_whole_file(tmp_path, monkeypatch):
    checkpoints.save_checkpoint({"state_dict": {}, "epoch": 1, "val_result": 1.0}, tmp_path)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError) as error:
        checkpoints.save_checkpoint({"state_dict": {}, "epoch": 1, "val_result": 2.0}, tmp_path)

    assert "model.pth.tar-1" in error.value.filename
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "model.pth.tar-1"]
    assert read_checkpoint(tmp_path / "model.pth.tar-1")["val_result"] == 1.0


def test_random_state_goes_through_a_file(tmp_path):
    import random

    import numpy as np

    state = {"state_dict": {}, "epoch": 1, "random_state": checkpoints.random_state()}
    checkpoints.save_checkpoint(state, tmp_path)

    def draw():
        return random.random(), random.gauss(0, 1), np.random.rand(), torch.rand(1).item()

    first = draw()
    checkpoints.set_random_state(read_checkpoint(tmp_path / "model.pth.tar-1")["random_state"])
    assert draw() == first
