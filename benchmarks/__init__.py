"""How fast, beside what: ``python -m benchmarks``."""

import foundation  # noqa: F401  (mends what importing clip needs)
