"""What a user sees when something outside the program is wrong."""

import errno

import pytest
import torch

from core.errors import InputError, command_line
from core.files import atomic_write, fingerprint


def outcome(error, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as stopped:
        command_line(main)()
    return stopped.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (InputError("a.csv: no column label; add it"), 2, "error: a.csv: no column label"),
        (OSError(errno.ENOSPC, "No space left", "x.pt"), 2, "x.pt: the disk is full"),
        (torch.OutOfMemoryError("CUDA out of memory."), 2, "lower DATALOADER.TRAIN_X.BATCH_SIZE"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 2, "out of memory"),
        (KeyboardInterrupt(), 130, "continue from the last complete epoch"),
    ],
    ids=["input", "disk", "gpu memory", "memory", "interrupt"],
)
def test_what_a_user_can_mend_is_one_line(error, status, words, capsys):
    code, printed = outcome(error, capsys)

    assert code == status and words in printed and printed.count("\n") == 1


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), KeyError("x"), OSError(5, "io")])
def test_a_bug_keeps_its_traceback(error):
    def main():
        raise error

    with pytest.raises(type(error)):
        command_line(main)()


def test_a_file_is_whole_or_as_it_was(tmp_path):
    """An error in the middle leaves the old content and no second file."""
    path = tmp_path / "a" / "x.txt"
    with atomic_write(path) as file:
        file.write("old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]


def test_fingerprint_follows_content_not_order():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert fingerprint(b"a") != fingerprint(b"b")
