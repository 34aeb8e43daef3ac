"""YAML files, read without running anything in them and with a clear message for what is wrong."""

import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from core.errors import InputError, shortened

ENDINGS = (".yaml", ".yml")


class _PlainLoader(yaml.SafeLoader):
    """Plain values only: no tags that build objects, no aliases, no key given twice.

    A few lines of aliases can stand for billions of values. Of a key given twice the first value
    would be lost.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.constructor.ConstructorError(
                None,
                None,
                "aliases (*name) are not supported; write the value out",
                event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _error(f"the key {key.value} is given twice", key)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _error(problem: str, at: Any) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, at.start_mark)


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping that a YAML file holds; an empty one for an empty file.

    Raises:
        InputError: the file's name does not end in .yaml or .yml, or it cannot be read, is not
            YAML, or does not hold a mapping with text for keys.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{path}: a configuration has to be a {' or '.join(ENDINGS)} file")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not a text file in UTF-8") from error
    except (RecursionError, MemoryError) as error:
        raise InputError(f"{path}: is nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: the 30th of February, say
        raise InputError(f"{path}: is not valid YAML: {_where(error)}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path}: should hold settings such as `OPTIM:`, and does not")
    return content


def _where(error: Exception) -> str:
    """What is wrong with a YAML file and in which line."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return shortened(" ".join(str(error).split()), 200)
    return f"line {error.problem_mark.line + 1}: {shortened(error.problem or '', 200)}"
