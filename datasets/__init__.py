"""Datasets, registered with Dassl by being imported. A new one is one file and one line here."""

import dassl_compat  # noqa: F401  (makes dassl importable)

from . import derm7pt, image_folder, medmnist, pneumonia, synthchest, synthderm, synthskin  # noqa: F401
