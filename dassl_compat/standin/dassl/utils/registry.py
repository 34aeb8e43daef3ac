"""Names for classes and functions."""

from difflib import get_close_matches


class Registry:
    """Objects by name.

    Register with ``@REGISTRY.register()``, or ``REGISTRY.register(obj)``; get with ``get(name)``.
    """

    def __init__(self, name):
        self._name = name
        self._objects = {}

    def _add(self, obj, force):
        name = obj.__name__
        if name in self._objects and not force:
            raise KeyError(f'"{name}" was already registered in the {self._name} registry')
        self._objects[name] = obj
        return obj

    def register(self, obj=None, force=False):
        if obj is None:
            return lambda decorated: self._add(decorated, force)
        return self._add(obj, force)

    def get(self, name):
        if name not in self._objects:
            raise KeyError(
                f'"{name}" is not in the {self._name} registry, which has {sorted(self._objects)}'
            )
        return self._objects[name]

    def registered_names(self):
        return list(self._objects)


def check_availability(requested, available):
    """Raise ValueError, with the nearest name, unless ``requested`` is one of ``available``."""
    if requested not in available:
        near = get_close_matches(str(requested), available, n=1, cutoff=0)
        hint = f" (do you mean {near[0]}?)" if near else ""
        raise ValueError(f"expected one of {list(available)}, but got {requested}{hint}")
