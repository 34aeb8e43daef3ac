"""The contract of a format: it recognises weights by their content and puts them into encoders."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from backbones.backbone import Parts
from backbones.weights import WeightsFile
from core.errors import InputError


@dataclass(frozen=True)
class Stated:
    """What a user states about weights that do not tell it; empty values are left to the format.

    Attributes:
        activation: quick_gelu or gelu.
        text_heads, vision_heads: of the attention; None is one for each 64 channels.
        mean, std: of the preprocessing, for values between 0 and 1.
    """

    activation: str = ""
    text_heads: int | None = None
    vision_heads: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class Format(ABC):
    """A file of ``backbones/formats`` calls its instance ``FORMAT``."""

    name: str

    @abstractmethod
    def recognises(self, weights: WeightsFile) -> bool:
        """Whether ``weights`` are in this format."""

    @abstractmethod
    def parts(self, weights: WeightsFile, stated: Stated) -> Parts:
        """Encoders and what belongs to them.

        Raises:
            InputError: the weights are of a kind that is not supported, or ``stated`` contradicts
                them.
            KeyError, RuntimeError: a tensor is missing or has another shape.
        """

    def released(self) -> Sequence[str]:
        """Names of weights that ``fetch`` can bring."""
        return ()

    def is_cached(self, name: str) -> bool:
        """Whether ``fetch`` needs no download."""
        return False

    def fetch(self, name: str) -> WeightsFile:
        """The weights called ``name``, from a cache or downloaded."""
        raise NotImplementedError


def decided(what: str, stated: str, known: str, where: object) -> str:
    """The value that ``where`` has, or what the user states if it has none.

    Raises:
        InputError: both are given and differ.
    """
    if stated and known and stated != known:
        raise InputError(
            f"{what} is {stated}, but {where} says {known}; leave {what} out, or correct the file"
        )
    return known or stated
