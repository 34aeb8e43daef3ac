"""The methods, one a file. Importing this package makes them known, to Dassl too.

from trainers import load_run
run = load_run("output/synthderm/ViP/tiny/default/seed1")
"""

import warnings

# The clip package says so at every start.
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
from engine.trainer import register_with_dassl  # noqa: E402

register_with_dassl()
