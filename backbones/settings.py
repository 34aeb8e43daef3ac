"""The settings that say which backbone a run has and how it reads images, with their defaults."""

from typing import Any

# The defaults of the settings below INPUT that travel with the backbone.
BACKBONES_OWN: dict[str, Any] = {
    "SIZE": (),
    "PIXEL_MEAN": [],
    "PIXEL_STD": [],
    "INTERPOLATION": "",
    "RESIZE_MODE": "",
}
# Those below MODEL.BACKBONE, beside NAME.
BACKBONE_DEFAULTS: dict[str, Any] = {
    "PATH": "",  # a file or folder of weights, in place of NAME
    "ACTIVATION": "",  # quick_gelu or gelu, for a file that does not tell
    "PIXEL_MEAN": [],  # the weights' own preprocessing, for a file that does not tell
    "PIXEL_STD": [],
    # For `python -m backbones`: where the weights come from, under which licence, which files.
    "SOURCE": "",
    "LICENSE": "",
    "FILES": "",
}
DESCRIPTIONS = ("SOURCE", "LICENSE", "FILES")
ACTIVATION_NAMES = ("quick_gelu", "gelu", "gelu_tanh")  # what ``encoders/blocks.py`` defines
