"""Reading a checkpoint, also of unknown origin, without running any code in it."""

import contextlib
import pickle
import pickletools
import zipfile
import zlib
from collections import OrderedDict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch._utils import IMPORT_MAPPING, NAME_MAPPING

from core.errors import InputError

# The file beside a model's checkpoints that names the last epoch's.
POINTER = "checkpoint"

# A file of PyTorch before 1.6 is this many pickles in a row, then the raw numbers.
_PICKLES_OF_OLD_FILES = 5

# No training library writes these: a file that names them was made to attack its reader.
_NEVER_DATA = {"importlib", "nt", "os", "posix", "runpy", "shutil", "socket", "subprocess", "sys"}
_NEVER_DATA_BUILTINS = {"__import__", "compile", "eval", "exec", "getattr", "open", "setattr"}


class _StandIn(dict):
    """In the place of a class that a file names: keeps what it is given and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        self.update(state if isinstance(state, dict) else {"state": state})


class _PlainDict:
    """In the place of ``defaultdict``, as safe loading fills no dictionary of another class."""

    def __new__(cls, *args: Any) -> Any:
        return {}


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a trained model's checkpoint and check what it holds.

    Args:
        path: the file.
        map_location: the device of the tensors.

    Returns:
        The dictionary in the file. ``state_dict`` maps names to tensors and ``epoch`` counts the
        completed epochs; every tensor is finite.

    Raises:
        InputError: as ``read_saved_dict``, or if an entry is missing or unusable.
    """
    checkpoint = read_saved_dict(path, map_location)
    for key in ("state_dict", "epoch"):
        if key not in checkpoint:
            keys = _shortened(", ".join(map(str, checkpoint)) or "nothing")
            raise InputError(
                f'"{path}" is not a trained model\'s checkpoint: it has no "{key}" (it has {keys})'
            )
    if fault := _fault(checkpoint) or _non_finite(checkpoint):
        raise InputError(f'"{path}" is not a usable checkpoint: {fault}')
    return checkpoint


def read_pointer(folder: str | Path) -> Path:
    """The checkpoint that the file ``checkpoint`` in a model's folder names.

    Raises:
        InputError: if there is no such file, or it does not name a file of the same folder.
    """
    pointer = Path(folder) / POINTER
    if not pointer.is_file():
        raise InputError(f'there is no file "{pointer}", so there is no run to resume')
    try:
        name = pointer.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise InputError(f'"{pointer}" is not text; it should name a checkpoint') from error
    if not name.isprintable() or name in ("", ".", "..") or set(name) & set("/\\"):
        raise InputError(
            f'"{pointer}" should name a file in its folder, not {_shortened(repr(name))}'
        )
    return pointer.with_name(name)


def read_saved_dict(path: str | Path, map_location: Any = "cpu") -> dict[Any, Any]:
    """Read any dictionary that ``torch.save`` wrote, with ``torch.load(weights_only=True)``.

    Classes that safe loading does not know (other people's files hold a live scheduler in the
    scheduler's state) are replaced by stand-ins, which come back as dictionaries of what the file
    says about them. Nothing that a file names is imported or called.

    Args:
        path: the file.
        map_location: the device of the tensors.

    Returns:
        The dictionary in the file.

    Raises:
        InputError: if the file is missing, truncated, damaged, refused, or holds no dictionary.
    """
    if path is None:
        raise InputError("no checkpoint was named (its path is None)")
    path = Path(path)
    if not path.is_file():
        raise InputError(f'there is no checkpoint "{path}"')
    damaged = f'"{path}" is not a complete checkpoint: truncated, damaged or another kind of file'
    stand_ins = [_stand_in(module, name) for module, name in _checked_names(path, damaged)]
    try:
        with _only_allowed(stand_ins):
            content = torch.load(path, map_location=map_location, weights_only=True)
        if isinstance(content, dict):
            return _without_stand_ins(content, {})
    except pickle.UnpicklingError as error:
        raise InputError(
            f'"{path}" is refused: safe loading cannot read it ({str(error)[:80]!r}...)'
        ) from error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever a made-up file makes PyTorch raise
        raise InputError(damaged) from error
    raise InputError(f'"{path}" holds a {type(content).__name__}, not a checkpoint')


def _fault(checkpoint: dict[str, Any]) -> str:
    """What is wrong with the entries of a checkpoint; "" if nothing is."""
    weights, epoch = checkpoint["state_dict"], checkpoint["epoch"]
    if not isinstance(weights, dict):
        return f"its state_dict is {_kind(weights)}, not a dictionary of tensors"
    for name, value in weights.items():
        if not isinstance(name, str):
            return f"its state_dict has a key that is {_kind(name)}, not text"
        if not isinstance(value, torch.Tensor):
            return f"state_dict.{_shortened(name)} is {_kind(value)}, not a tensor"
    if type(epoch) is not int or epoch < 0:
        return f"its epoch is {_shortened(repr(epoch))}, not a number of epochs"
    state = checkpoint.get("resume_state", {})
    if not isinstance(state, dict):
        return f"its resume_state is {_kind(state)}, not a dictionary"
    classnames = state.get("classnames", [])
    if not isinstance(classnames, list) or not all(isinstance(name, str) for name in classnames):
        return "its classnames are not a list of names"
    return ""


def _non_finite(checkpoint: dict[str, Any]) -> str:
    """The first tensor that holds NaN or infinity; "" if none does."""
    left: deque[tuple[str, Any]] = deque([("", checkpoint)])
    seen = set()  # a file may hold an object that contains itself
    while left:
        where, value = left.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            if not torch.isfinite(value).all():
                return f"{_shortened(where)} has values that are NaN or infinite"
        elif isinstance(value, dict | list | tuple):
            entries = value.items() if isinstance(value, dict) else enumerate(value)
            left.extend((f"{where}.{key}".lstrip("."), entry) for key, entry in entries)
    return ""


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _checked_names(path: Path, damaged: str) -> list[tuple[str, str]]:
    """The (module, name) pairs that the file asks for, none of which runs a program."""
    try:
        names = sorted(set(_names_in(path)))
    except (zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, EOFError, LookupError) as e:
        raise InputError(damaged) from e
    for module, name in names:
        if module.split(".")[0] in _NEVER_DATA or (
            module == "builtins" and name in _NEVER_DATA_BUILTINS
        ):
            raise InputError(f'"{path}" is refused: it asks to run {module}.{name}')
    return names


def _names_in(path: Path) -> Iterator[tuple[str, str]]:
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


def _names_in_pickle(pickled: bytes | IO[bytes]) -> Iterator[tuple[str, str]]:
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL":
            module, name = str(argument).split(" ", 1)
            # PyTorch looks names of Python 2 up under their new ones.
            if (module, name) in NAME_MAPPING:
                yield NAME_MAPPING[module, name]
            else:
                yield IMPORT_MAPPING.get(module, module), name


def _stand_in(module: str, name: str) -> type:
    # What PyTorch knows to be harmless takes precedence over a stand-in of the same name.
    base = _PlainDict if (module, name) == ("collections", "defaultdict") else _StandIn
    return type(name, (base,), {"__module__": module, "__qualname__": name})


@contextlib.contextmanager
def _only_allowed(classes: list[Any]) -> Iterator[None]:
    """``torch.serialization.safe_globals``, which PyTorch 2.4 lacks, and nothing else allowed."""
    before = list(torch.serialization.get_safe_globals())
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(classes)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _without_stand_ins(value: Any, done: dict[int, Any]) -> Any:
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
