"""The part of Dassl's public API that CoOp-family code and this plug-in use.

What is here, and how that was found out:

- Names: all files of CoOp, KgCoOp and MaPLe were parsed. Here is every name of Dassl that they
  import, and whatever of Dassl's their trainers and datasets use of ``cfg``, ``self`` and ``dm``;
  then every name that this plug-in imports; then Dassl's documented helpers for trainers of the
  same style (parameters, meters, downloads).
- Behaviour: their unmodified ``train.py`` was run on this package under a coverage measurement
  (CoOp, CoCoOp, zero-shot, MaPLe, IVLP; VPT and KgCoOp with ``.cuda()`` doing nothing, as they call
  it on a CPU too): training, validation, resuming and evaluation. So was the plug-in's training.
  What none of them reached was deleted: domain and class samplers, transforms that no
  configuration names, staged learning rates.
- Not here: ProGrad, which comes with a Dassl of its own.
- Settings: those that these projects' code and YAML files name, and the choices of each that the
  plug-in's users have. A choice that is missing here is rejected by name.

``tests/dassl_compat/test_dassl_api.py`` lists the names.
"""

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
        assert _spec and _spec.loader
        _module = importlib.util.module_from_spec(_spec)
        sys.modules[_name] = _module
        _spec.loader.exec_module(_module)

__version__ = "0.6.3"  # the release of Dassl whose API this follows
