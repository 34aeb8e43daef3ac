"""The methods. Importing this package registers every trainer with Dassl."""

import warnings

# clip says so at every start; setup.py keeps the setuptools that it needs.
warnings.filterwarnings("ignore", message="pkg_resources is deprecated")

import dassl_compat  # noqa: E402, F401, I001  (makes dassl importable; before everything else)

from . import bayesian  # noqa: E402, F401
from . import cocoop  # noqa: E402, F401
from . import coop  # noqa: E402, F401
from . import kgcoop  # noqa: E402, F401
from . import linear_probe  # noqa: E402, F401
from . import maple  # noqa: E402, F401
from . import supervised  # noqa: E402, F401
from . import vip  # noqa: E402, F401
from . import zeroshot  # noqa: E402, F401
from engine.loading import load_run  # noqa: E402, F401
