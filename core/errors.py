"""What a user sees when something outside the program is wrong: one line and an exit status."""

import contextlib
import errno
import sys
from collections.abc import Sequence
from functools import wraps


class InputError(ValueError):
    """The input is wrong. The message is one line: what is wrong, where, what to do."""


def some(names: Sequence[str], most: int = 8) -> str:
    """The first of ``names``, and how many more there are."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


def and_more(items: Sequence[object], what: str) -> str:
    """What follows the first of ``items`` in a message: " (and 3 more missing files)"."""
    return f" (and {len(items) - 1:,} more {what})" if len(items) > 1 else ""


def first_line(error):
    """What an exception says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def short(value: object, limit: int = 80) -> str:
    """``repr(value)`` for a message: what is longer than ``limit`` letters is cut."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def shortened(text: str, longest: int = 80) -> str:
    """``text``, with its middle left out if it is longer than ``longest`` characters."""
    half = (longest - 5) // 2
    return text if len(text) <= longest else f"{text[:half]} ... {text[-half:]}"


@contextlib.contextmanager
def as_input_error(where):
    """Turn what a toolbox says of a setting it refuses into an InputError that names ``where``."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, KeyError, AssertionError) as error:
        raise InputError(f"{where}: {' '.join(str(error).split())}") from error


def command_line(main):
    """Turn the failures a user can mend into one line on stderr and an exit status.

    Returns a function of no arguments that never returns: exit status 0, 2 for wrong input, a full
    disk or too little memory, and 130 for an interrupt. Anything else is a bug and keeps its
    traceback.
    """

    @wraps(main)
    def run():
        try:
            sys.exit(main())
        except InputError as error:
            message, status = f"error: {error}", 2
        except KeyboardInterrupt:
            message, status = "interrupted; the same command goes on from the last whole epoch", 130
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            message, status = (
                f"error: the disk is full ({error.filename}); free space, run again",
                2,
            )
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            message, status = (
                "error: out of memory; lower DATALOADER.TRAIN_X.BATCH_SIZE or "
                "DATALOADER.TEST.BATCH_SIZE (CoCoOp and BayesianPrompt: or TEXT_BATCH), "
                "or set the method's PREC to fp16, bf16 or amp",
                2,
            )
        print(message, file=sys.stderr)
        sys.exit(status)

    return run


def _out_of_memory(error):
    # By name, so that reading this module does not import torch.
    words = ("not enough memory", "can't allocate memory")  # the CPU allocator's
    return type(error).__name__ == "OutOfMemoryError" or any(w in str(error) for w in words)
