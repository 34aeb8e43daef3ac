"""Names for classes and functions."""

from typing import Any

from core.errors import InputError


class Registry:
    """Objects by name.

    Register with ``@REGISTRY.register()`` or ``REGISTRY.register(obj)``; get with ``get(name)``.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._objects: dict[str, Any] = {}

    def register(self, obj: Any = None, force: bool = False) -> Any:
        """Add ``obj`` under its own name; without it, return a decorator that does.

        Raises:
            KeyError: if the name is taken, unless ``force`` replaces it.
        """
        if obj is None:
            return lambda decorated: self.register(decorated, force)
        name = obj.__name__
        if name in self._objects and not force:
            raise KeyError(f'"{name}" was already registered in the {self._name} registry')
        self._objects[name] = obj
        return obj

    def get(self, name: str) -> Any:
        """The object of that name; KeyError if there is none."""
        if name not in self._objects:
            raise KeyError(f'"{name}" is not in the {self._name} registry: {self._choices()}')
        return self._objects[name]

    def registered_names(self) -> list[str]:
        """The names in the order of registration."""
        return list(self._objects)

    def build(self, name: str, cfg: Any, **options: Any) -> Any:
        """Make the object that a setting names (for the stand-in's own ``build_...`` functions).

        Raises:
            InputError: if there is no such name.
        """
        kind = self._name.lower()
        if name not in self._objects:
            raise InputError(f"there is no {kind} {name!r}; choose one of {self._choices()}")
        if cfg.VERBOSE:
            print(f"Loading {kind}: {name}")
        return self._objects[name](cfg, **options)

    def _choices(self) -> str:
        return ", ".join(sorted(self._objects))
