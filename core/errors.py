"""What a user sees when something outside the program is wrong: one line and an exit status."""

import contextlib
import errno
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, NoReturn

LONGEST = 1000  # characters of a message

# 128 + the signal's number, as a shell reports SIGINT and SIGPIPE.
INTERRUPTED = 130
CLOSED_PIPE = 141

LESS_MEMORY = (
    "lower DATALOADER.TRAIN_X.BATCH_SIZE or DATALOADER.TEST.BATCH_SIZE (CoCoOp and "
    "BayesianPrompt: or TEXT_BATCH), or set the method's PREC to fp16, bf16 or amp"
)


class InputError(ValueError):
    """The input is wrong. The message is one line: what is wrong, where, what to do."""


def some(names: Sequence[str], most: int = 8) -> str:
    """The first of ``names``, and how many more there are."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


def and_more(items: Sequence[object], what: str) -> str:
    """What follows the first of ``items`` in a message: " (and 3 more missing files)"."""
    return f" (and {len(items) - 1:,} more {what})" if len(items) > 1 else ""


def first_line(error: BaseException) -> str:
    """The first line of an exception's message; the name of its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def short(value: object, limit: int = 80) -> str:
    """``repr(value)`` for a message: what is longer than ``limit`` characters is cut."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def shortened(text: str, longest: int = 80) -> str:
    """``text``, with its middle left out if it is longer than ``longest`` characters."""
    half = (longest - 5) // 2
    return text if len(text) <= longest else f"{text[:half]} ... {text[-half:]}"


@contextlib.contextmanager
def as_input_error(where: str) -> Iterator[None]:
    """Turn a library's complaint about a setting into an InputError that names ``where``."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, KeyError, AssertionError) as error:
        raise InputError(f"{where}: {' '.join(str(error).split())}") from error


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Give every OSError that does not name a file the name ``path``.

    The operating system does not name the file when a write fails (a full disk, say).
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


def command_line(main: Callable[[], Any]) -> Callable[[], NoReturn]:
    """Turn the failures that a user can correct into one line on stderr and an exit status.

    Returns a function of no arguments that never returns. Its exit status is 0; 2 for wrong input,
    for a file or folder that cannot be read or written, for a full disk, too little memory or a
    training that diverged; 130 for an interrupt; 141 if the reader of the output closed it.
    Everything else is a bug and keeps its traceback.
    """

    @wraps(main)
    def run() -> NoReturn:
        try:
            with contextlib.suppress(AttributeError):  # a stand-in for stdout, as in tests
                # A file's name may hold what is not UTF-8.
                sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
            check_arguments(sys.argv[1:])
            try:
                status = main()
            finally:
                sys.stdout.flush()  # here, where a failure can still be handled
        except BaseException as error:
            message, status = _explained(error)
            if status is None:
                raise
            _discard_output()
            if message:
                with contextlib.suppress(BrokenPipeError):
                    print(message, file=sys.stderr, flush=True)
        sys.exit(status)

    return run


def check_arguments(words: list[str]) -> None:
    """Raise InputError for an argument that is not valid text in the encoding of the system."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise InputError(f"the argument {shortened(ascii(word))} is not valid UTF-8") from None


def _explained(error: BaseException) -> tuple[str, int | None]:
    """The line that explains an exception, and the exit status; None for a bug."""
    if isinstance(error, InputError):
        message, status = f"error: {error}", 2
    elif isinstance(error, KeyboardInterrupt):
        message = "interrupted; run the same command again to continue from the last complete epoch"
        status = INTERRUPTED
    elif isinstance(error, FloatingPointError):
        message, status = f"error: {first_line(error).rstrip('.!')}; lower OPTIM.LR", 2
    elif _is_out_of_memory(error):
        message, status = f"error: out of memory; {LESS_MEMORY}", 2
    elif isinstance(error, BrokenPipeError) and _output_is_closed():
        return "", CLOSED_PIPE
    elif isinstance(error, OSError) and (reason := _reason(error)):
        message, status = f"error: {reason}", 2
    else:
        return "", None
    return shortened(" ".join(message.splitlines()), LONGEST), status


def _reason(error: OSError) -> str:
    """What the operating system refused, with the path; empty if it named neither."""
    where = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}the disk is full; free some space and run the same command again"
    if error.errno == errno.EEXIST:  # what mkdir says where a file is
        return f"{where}is a file, and a folder is needed"
    return f"{where}{error.strerror}" if where and error.strerror else ""


def _is_out_of_memory(error: BaseException) -> bool:
    # By name, so that this module does not import torch.
    words = ("not enough memory", "can't allocate memory")  # the CPU allocator's
    by_torch = isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError" or any(word in str(error) for word in words)
    )
    return isinstance(error, MemoryError) or by_torch


def _output_is_closed() -> bool:
    """Whether the reader of stdout or stderr is gone."""
    poll = select.poll()
    for stream in (sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            poll.register(stream.fileno(), 0)  # type: ignore[union-attr]
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _discard_output() -> None:
    """If stdout cannot be written, drop what it still holds: Python's flush at exit would fail."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
