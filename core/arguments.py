"""The arguments of a command: numbers in range, KEY VALUE options, complaints of one line."""

import argparse
import math
import re
import sys
from collections.abc import Callable, Collection, Sequence
from typing import NoReturn

from core.errors import InputError, command_line, short, shortened

# OPTIM.LR, PREC; and DATASET.CSV_COLUMNS.path, but not HAM.yaml.
_UPPER = r"[A-Z][A-Z0-9_]*"
KEY = re.compile(rf"{_UPPER}(\.{_UPPER})*|{_UPPER}(\.{_UPPER})+\.[a-z_]+")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises ``InputError``, so that a wrong argument is one line.

    The module's docstring is its description, printed as it is.
    """

    def __init__(self, description: str | None, prog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{shortened(message, 300)} (--help lists the arguments)")


def help_first(module: str, parser: Callable[[], argparse.ArgumentParser]) -> None:
    """Answer --help and end, if ``module`` is the command that runs.

    Called above the imports that take seconds.
    """
    if module == "__main__" and {"-h", "--help"} & set(sys.argv[1:]):
        command_line(lambda: parser().print_help())()


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argparse type: a whole number in ``[least, most]``."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise _rejected(text, "a whole number") from None
        if number < least or (most is not None and number > most):
            bounds = f"at least {least}" if most is None else f"from {least} to {most}"
            raise _rejected(text, bounds)
        return number

    return convert


positive_int = whole_number(1)
not_negative_int = whole_number(0)


def real_number(
    least: float = -math.inf, most: float = math.inf, above: float = -math.inf
) -> Callable[[str], float]:
    """An argparse type: a finite number in ``[least, most]`` that is greater than ``above``."""

    def convert(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise _rejected(text, "a number") from None
        if not math.isfinite(number):
            raise _rejected(text, "a finite number")
        if number <= above:
            raise _rejected(text, f"greater than {above:g}")
        if not least <= number <= most:
            at_most = "" if math.isinf(most) else f" and at most {most:g}"
            raise _rejected(text, f"at least {least:g}{at_most}")
        return number

    return convert


def _rejected(text: str, wanted: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"it is {shortened(text, 40)}, and should be {wanted}")


def split_options(
    words: Sequence[str], short_keys: Callable[[], Collection[str]] = tuple
) -> tuple[list[str], list[str]]:
    """Separate the KEY VALUE options of a command line from its other words.

    A key is known by its form: upper case with a dot, as in ``OPTIM.LR``, or without one if it is
    among ``short_keys()``, which is asked only then. After ``--`` there are only options.

    Returns:
        The other words; and the options, ``[KEY, value, ...]``.

    Raises:
        InputError: a key without a value, or something else where a key should be.
    """
    rest, others, opts = list(words), [], []
    only_options = False
    while rest:
        word = rest.pop(0)
        if word == "--" and not only_options:
            only_options = True
        elif only_options or _is_key(word, short_keys):
            if not KEY.fullmatch(word.upper()):
                raise InputError(f"{short(word)} is not a setting; after -- give KEY VALUE")
            if not rest or rest[0].startswith("--"):
                raise InputError(
                    f"options come in pairs, KEY VALUE; {shortened(word)!r} has no value"
                )
            opts += [word, rest.pop(0)]
        else:
            others.append(word)
    return others, opts


def _is_key(word: str, short_keys: Callable[[], Collection[str]]) -> bool:
    return KEY.fullmatch(word) is not None and ("." in word or word in short_keys())
