"""Reading a checkpoint, one's own or somebody else's, without running anything in it."""

import contextlib
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from torch._utils import IMPORT_MAPPING, NAME_MAPPING

from core.errors import InputError

# A file of PyTorch before 1.6 is this many pickles in a row, then the raw numbers.
_PICKLES_OF_OLD_FILES = 5

# A file that asks for these is no data that went astray. (A stand-in would make them harmless.)
_NEVER_DATA = {"importlib", "nt", "os", "posix", "runpy", "shutil", "socket", "subprocess", "sys"}
_NEVER_DATA_BUILTINS = {"__import__", "compile", "eval", "exec", "getattr", "open", "setattr"}


class _StandIn(dict):
    """In the place of a class that a file names: keeps what it is given and does nothing."""

    def __init__(self, *args, **kwargs):
        super().__init__()

    def __setstate__(self, state):
        self.update(state if isinstance(state, dict) else {"state": state})


class _PlainDict:
    """In the place of ``defaultdict``, as safe loading fills no dictionary of another class."""

    def __new__(cls, *args):
        return {}


def read_checkpoint(path, map_location="cpu"):
    """Read a checkpoint with ``torch.load(weights_only=True)``.

    Classes that safe loading does not know (other people's files hold a live scheduler in the
    scheduler's state) are replaced by stand-ins, which come back as dictionaries of what the file
    says about them. Nothing that a file names is imported or called.

    Args:
        path: the file.
        map_location: the device for the tensors; the CPU unless told.

    Returns:
        The dictionary in the file.

    Raises:
        InputError: if the file is missing, half-written, damaged, refused, or holds no dictionary.
    """
    if path is None:
        raise InputError("no checkpoint was named (its path is None)")
    path = Path(path)
    if not path.is_file():
        raise InputError(f'no checkpoint at "{path}"')
    damaged = f'"{path}" is no whole checkpoint: half-written, damaged, or another kind of file'
    try:
        names = sorted(set(_names_in(path)))
    except (zipfile.BadZipFile, ValueError, EOFError, LookupError) as error:
        raise InputError(damaged) from error
    for module, name in names:
        if module.split(".")[0] in _NEVER_DATA or (
            module == "builtins" and name in _NEVER_DATA_BUILTINS
        ):
            raise InputError(f'"{path}" is refused: it asks to run {module}.{name}')
    try:
        with _only_allowed([_stand_in(module, name) for module, name in names]):
            content = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f'"{path}" is refused: safe loading cannot read it ({error.args[0][:80]}...)'
        ) from error
    except (RuntimeError, EOFError, ValueError, LookupError) as error:
        raise InputError(damaged) from error
    if not isinstance(content, dict):
        raise InputError(f'"{path}" holds a {type(content).__name__}, not a checkpoint')
    return _without_stand_ins(content, {})


def _names_in(path):
    """Yield each (module, name) that the file's pickles ask for, without unpickling them."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith("data.pkl"):
                    yield from _names_in_pickle(archive.read(member))
        return
    with open(path, "rb") as file:
        for _ in range(_PICKLES_OF_OLD_FILES):
            yield from _names_in_pickle(file)


def _names_in_pickle(pickled):
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL":
            module, name = argument.split(" ", 1)
            # PyTorch looks names of Python 2 up under their new ones.
            if (module, name) in NAME_MAPPING:
                yield NAME_MAPPING[module, name]
            else:
                yield IMPORT_MAPPING.get(module, module), name


def _stand_in(module, name):
    # What PyTorch knows to be harmless takes precedence over a stand-in of the same name.
    base = _PlainDict if (module, name) == ("collections", "defaultdict") else _StandIn
    return type(name, (base,), {"__module__": module, "__qualname__": name})


@contextlib.contextmanager
def _only_allowed(classes):
    """``torch.serialization.safe_globals``, which PyTorch 2.4 lacks, and nothing else allowed."""
    before = list(torch.serialization.get_safe_globals())
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(classes)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _without_stand_ins(value, done):
    """``value`` with a dictionary for each stand-in; ``done`` keeps shared and circular ones so."""
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, dict):
        result = value if type(value) in (dict, OrderedDict) else {}
        done[id(value)] = result
        for key, entry in list(value.items()):
            result[key] = _without_stand_ins(entry, done)
        return result
    if isinstance(value, list):
        done[id(value)] = value
        value[:] = [_without_stand_ins(entry, done) for entry in value]
        return value
    if type(value) is tuple:
        return tuple(_without_stand_ins(entry, done) for entry in value)
    return value
