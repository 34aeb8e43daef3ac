"""The methods. Importing this package registers every trainer with Dassl."""

import warnings

# clip says so at every start; setup.py keeps the setuptools that it needs.
warnings.filterwarnings("ignore", message="pkg_resources is deprecated")

import foundation  # noqa: E402, F401, I001  (makes dassl importable; before everything else)

from . import vip  # noqa: E402, F401
