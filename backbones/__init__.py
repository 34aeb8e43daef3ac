"""Pretrained image-text models: encoders, and the formats that their weights come in."""

import dassl_compat  # noqa: F401  (makes the torchvision that clip imports importable)
