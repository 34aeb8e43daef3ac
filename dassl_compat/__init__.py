"""Make ``import dassl`` work: the installed Dassl with its fixes, or the stand-in beside this file.

``import dassl_compat`` itself is cheap: torch is only imported once dassl or torchvision is.
"""

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_STANDIN = Path(__file__).resolve().parent / "standin"
_ABSENT = Path(__file__).resolve().parent / "absent"  # what other packages need and may be missing


def _is_installed() -> bool:
    """Whether ``import dassl`` finds one outside this folder."""
    spec = importlib.util.find_spec("dassl")
    return spec is not None and not Path(spec.origin or "").resolve().is_relative_to(_STANDIN)


class _DeclareOperatorsBeforeTorchvision(importlib.abc.MetaPathFinder):
    """Runs once, just before the first import of torchvision; finds nothing itself."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            from dassl_compat.torchvision_operators import declare_missing_operators

            declare_missing_operators()


class _FixDasslOnImport(importlib.abc.MetaPathFinder):
    """Runs once: applies the fixes as soon as the installed Dassl's package has been imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "dassl":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("dassl")
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_fix(module: ModuleType) -> None:
            execute(module)
            from dassl_compat import installed_dassl

            installed_dassl.apply_fixes()

        spec.loader.exec_module = execute_and_fix  # type: ignore[method-assign]
        return spec


USING_INSTALLED_DASSL = _is_installed()

if str(_ABSENT) not in sys.path:
    sys.path.append(str(_ABSENT))  # last, so that an installed module comes first
if "torchvision" not in sys.modules:
    sys.meta_path.insert(0, _DeclareOperatorsBeforeTorchvision())
if not USING_INSTALLED_DASSL:
    if str(_STANDIN) not in sys.path:
        sys.path.append(str(_STANDIN))  # last, so that nothing here hides another package
elif "dassl" in sys.modules:
    from dassl_compat import installed_dassl

    installed_dassl.apply_fixes()
else:
    sys.meta_path.insert(0, _FixDasslOnImport())
