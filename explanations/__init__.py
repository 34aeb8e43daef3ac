"""Why a run answered as it did: similarities, attention and exact contributions of symptoms."""

from .explanation import Explanation, explain

__all__ = ["Explanation", "explain"]
