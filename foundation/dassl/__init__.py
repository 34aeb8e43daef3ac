"""The part of Dassl's public API that trainers and datasets of the CoOp family use."""

import importlib.util
import sys
from pathlib import Path

if "foundation" not in sys.modules:
    # With this package's parent alone on the path (PYTHONPATH=foundation), the modules beside it
    # are still wanted under their one name, and nothing else of the checkout on anybody's path.
    _folder = Path(__file__).resolve().parent.parent
    _spec = importlib.util.spec_from_file_location(
        "foundation", _folder / "__init__.py", submodule_search_locations=[str(_folder)]
    )
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["foundation"] = _module
    _spec.loader.exec_module(_module)

__version__ = "0.6.3"  # the release of Dassl whose API this follows
