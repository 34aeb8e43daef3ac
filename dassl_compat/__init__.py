"""Make ``import dassl`` work: the installed Dassl with its fixes, or the stand-in beside this file.

``import dassl_compat`` itself is cheap: torch is only imported once dassl or torchvision is.
"""

import importlib.abc
import importlib.util
import sys
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent / "standin"


def _is_installed():
    """Whether ``import dassl`` finds one outside this folder."""
    spec = importlib.util.find_spec("dassl")
    return spec is not None and not Path(spec.origin or "").resolve().is_relative_to(_FOLDER)


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Runs once, just before the first import of torchvision; finds nothing itself."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            from dassl_compat.torchvision_operators import declare_missing_operators

            declare_missing_operators()
        return None


class _AfterDassl(importlib.abc.MetaPathFinder):
    """Runs once: mends the installed Dassl as soon as its package has been imported."""

    def find_spec(self, name, path=None, target=None):
        if name != "dassl":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("dassl")
        execute = spec.loader.exec_module

        def execute_and_mend(module):
            execute(module)
            from dassl_compat import mends

            mends.apply()

        spec.loader.exec_module = execute_and_mend
        return spec


USING_INSTALLED_DASSL = _is_installed()

if "torchvision" not in sys.modules:
    sys.meta_path.insert(0, _BeforeTorchvision())
if not USING_INSTALLED_DASSL:
    if str(_FOLDER) not in sys.path:
        sys.path.append(str(_FOLDER))  # last, so that nothing here hides another package
elif "dassl" in sys.modules:
    from dassl_compat import mends

    mends.apply()
else:
    sys.meta_path.insert(0, _AfterDassl())
