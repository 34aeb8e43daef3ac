"""A checkpoint that cannot be used is one line from every command that reads one."""

import shutil

import pytest
import torch

import predict
import train
from core.errors import command_line
from dassl_compat.checkpoint_reader import read_checkpoint


def drop(key):
    def spoil(path):
        content = read_checkpoint(path)
        del content[key]
        torch.save(content, path)

    return spoil


def context(make):
    """Put what ``make`` returns for the learned context in its place."""

    def spoil(path):
        content = read_checkpoint(path)
        content["state_dict"]["ctx"] = make(content["state_dict"]["ctx"])
        torch.save(content, path)

    return spoil


def classes(*names):
    def spoil(path):
        content = read_checkpoint(path)
        content["resume_state"]["classnames"] = list(names)
        torch.save(content, path)

    return spoil


SPOILED = {
    "no state_dict": (drop("state_dict"), 'has no "state_dict"'),
    "no epoch": (drop("epoch"), 'has no "epoch"'),
    "text for a tensor": (context(lambda ctx: "text"), "state_dict.ctx is a str, not a tensor"),
    "NaN": (
        context(lambda ctx: ctx * float("nan")),
        "state_dict.ctx has values that are NaN or infinite",
    ),
    "another shape": (context(lambda ctx: ctx[:, :1]), "does not fit this"),
    "numbers for classes": (classes(1, 2), "its classnames are not a list of names"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:700]), "not a complete"),
    "text": (lambda path: path.write_text("<html>"), "not a complete"),
    "too few classes": (classes("red"), "its class names belong to another file"),
    "foreign classes": (classes("a", "b"), "has none for red, blue"),
    "a list": (lambda path: torch.save([1], path), "holds a list"),
    "binary pointer": (lambda path: pointer(path, b"\xff\xfe"), "is not text"),
    "pointer outside": (lambda path: pointer(path, b"../../x"), "a file in its folder"),
}
# Training goes on with the classes of its own data, whatever the file calls them.
NOT_RESUMED = ("too few classes", "foreign classes")


def pointer(path, content):
    """Leave the pointer alone to say which checkpoint is meant."""
    path.with_name("checkpoint").write_bytes(content)
    path.unlink()


def words(command, toy, toy_args, run):
    options = ["TRAINER.COOP.CSC", "True", "OPTIM.MAX_EPOCH", "3", "DATALOADER.NUM_WORKERS", "0"]
    args = ["--trainer", "CoOp", *toy_args]
    return {
        "evaluate": [*args, "--eval-only", "--model-dir", str(run), *options],
        "resume": [*args, "--resume", str(run), *options],
        "predict": [str(run), "--images", str(toy / "data")],
    }[command]


@pytest.mark.parametrize("command", ["evaluate", "resume", "predict"])
@pytest.mark.parametrize("case", SPOILED)
def test_a_spoiled_checkpoint_is_one_line(toy, toy_args, toy_run, capsys, command, case):
    spoil, reason = SPOILED[case]
    if command == "resume" and case in NOT_RESUMED:
        pytest.skip("resuming does not read the class names")
    run = toy / "spoiled"
    shutil.copytree(toy_run("CoOp", "TRAINER.COOP.CSC", "True"), run)
    for path in sorted((run / "prompt_learner").glob("model*")):
        spoil(path)
    capsys.readouterr()
    main = predict.main if command == "predict" else train.main

    with pytest.raises(SystemExit) as stopped:
        command_line(lambda: main(words(command, toy, toy_args, run)))()

    told = capsys.readouterr()
    assert stopped.value.code == 2, told
    assert told.err.strip().count("\n") == 0
    # Resuming tries earlier checkpoints first and prints why each cannot be used.
    assert reason in (told.out + told.err if command == "resume" else told.err)
    assert str(run) in told.err
