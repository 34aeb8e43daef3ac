"""The methods. Importing this package registers every trainer with Dassl."""

import foundation  # noqa: F401, I001  (makes dassl importable; before everything else)

from . import vip  # noqa: F401
