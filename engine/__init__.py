"""What runs a method: configuration, training, evaluation, a run's folder, loading a run."""

import dassl_compat  # noqa: F401  (makes dassl importable; before everything else)
