"""The part of Dassl's public API that trainers and datasets of the CoOp family use."""

import importlib.util
import sys
from pathlib import Path

# With this package's parent alone on the path (PYTHONPATH=dassl_compat/standin), the packages that
# the stand-in uses are still needed, and nothing else of the checkout should be importable.
for _name in ("core", "dassl_compat"):
    if _name not in sys.modules:
        _folder = Path(__file__).resolve().parents[3] / _name
        _spec = importlib.util.spec_from_file_location(
            _name, _folder / "__init__.py", submodule_search_locations=[str(_folder)]
        )
        _module = importlib.util.module_from_spec(_spec)
        sys.modules[_name] = _module
        _spec.loader.exec_module(_module)

__version__ = "0.6.3"  # the release of Dassl whose API this follows
