"""A run's config.yaml: its one reader, and settings as dotted KEY -> value."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import ConfigDict, FiniteFloat, StringConstraints, TypeAdapter, ValidationError
from typing_extensions import TypeAliasType

from core.errors import InputError
from results.record import shortened

CONFIG = "config.yaml"

Key = Annotated[str, StringConstraints(pattern=r"^\w+$")]
Scalar = None | bool | int | FiniteFloat | str
Value = TypeAliasType("Value", "Scalar | list[Value]")  # type: ignore[misc]
Settings = TypeAliasType("Settings", "dict[Key, Settings | Value]")  # type: ignore[misc]
_SETTINGS: TypeAdapter = TypeAdapter(Settings, config=ConfigDict(strict=True))


class _Loader(yaml.SafeLoader):
    """Plain values only; a few aliases of nested values could stand for any amount of them."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        # yacs writes an alias where two settings have one and the same tuple.
        parts = node.value if node else ()
        if is_alias and not all(isinstance(part, yaml.ScalarNode) for part in parts):
            raise yaml.YAMLError("it has an alias of a nested value")
        return node


def read_nested(path: Path | str) -> dict[str, Any]:
    """The settings in a configuration file, as nested as they are there.

    Raises:
        InputError: it cannot be read, or is not a configuration; names the file and what is wrong.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        return _SETTINGS.validate_python(yaml.load(text, _Loader))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = f"{shortened(first['input'])} is not a setting"
    except RecursionError:
        reason = "nested too deeply"
    except (yaml.YAMLError, ValueError) as error:
        reason = shortened(str(error))
    raise InputError(f"{path}: damaged or not the configuration of a run ({reason})")


def read_settings(path: Path | str) -> dict[str, Any]:
    """The same as dotted KEY -> value."""
    return flatten(read_nested(path))


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"OPTIM.LR": 0.001, ...} of a configuration; sequences become tuples."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = tuple(value) if isinstance(value, list | tuple) else value
    return flat
