"""How fast, beside what: ``python -m benchmarks``."""

import trainers  # noqa: F401  (registers the methods; mends what importing clip and dassl needs)
