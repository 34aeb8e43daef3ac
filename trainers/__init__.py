"""The methods, one a file. Importing this package makes all of them known, to Dassl too.

from trainers import load_run
run = load_run("output/synthderm/ViP/tiny/default/seed1")
"""

import importlib
import pkgutil
import warnings

# The clip package says so at every start.
warnings.filterwarnings("ignore", message="pkg_resources is deprecated")

import dassl_compat  # noqa: E402, F401, I001  (makes dassl importable; before everything else)

from engine.loading import load_run  # noqa: E402, F401
from engine.trainer import register_with_dassl  # noqa: E402

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
register_with_dassl()
