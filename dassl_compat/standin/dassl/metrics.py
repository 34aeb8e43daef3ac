"""Metrics of a batch."""

from dassl_compat.accuracy import compute_accuracy

__all__ = ["compute_accuracy"]
