"""Why a run predicted what it did: signed evidence of symptoms, its effects and its limits."""

from .explanation import Explanation, explain
from .what_if import with_symptoms

__all__ = ["Explanation", "explain", "with_symptoms"]
