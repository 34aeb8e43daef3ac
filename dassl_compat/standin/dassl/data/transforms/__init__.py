from .transforms import INTERPOLATION_MODES, build_transform, plain_transform

__all__ = ["INTERPOLATION_MODES", "build_transform", "plain_transform"]
