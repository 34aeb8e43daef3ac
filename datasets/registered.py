"""Every dataset, registered with Dassl by being imported. A new one is one file and a line here."""

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
