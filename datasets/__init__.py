"""Images, splits, views, kept features; ``registered`` has every dataset."""

import dassl_compat  # noqa: F401  (makes dassl importable)
