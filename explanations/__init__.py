"""Why a run predicted what it did: similarities, attention and exact contributions of symptoms."""

from .explanation import Explanation, explain
from .what_if import with_symptoms

__all__ = ["Explanation", "explain", "with_symptoms"]
