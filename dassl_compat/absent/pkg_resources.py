"""The one name that the clip package takes from setuptools, which removed this module in 81.

``dassl_compat`` puts this folder last on the path: an installed ``pkg_resources`` comes first.
"""

import packaging
import packaging.version  # noqa: F401

__all__ = ["packaging"]
