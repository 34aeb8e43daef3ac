"""Datasets, registered with Dassl by being imported. A new one is one file and one line here."""

import dassl_compat  # noqa: F401  (makes dassl importable)

from . import (  # noqa: F401
    derm7pt,
    image_folder,
    medmnist,
    multi_label,
    pneumonia,
    synthchest,
    synthderm,
    synthskin,
)
