"""The contract of a format: it recognises weights by their content and puts them into encoders."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backbones.backbone import CLIP_MEAN, CLIP_STD, Parts, Preprocessing
from backbones.settings import ACTIVATION_NAMES
from backbones.weights import WeightsFile
from core.errors import InputError


@dataclass(frozen=True)
class Stated:
    """What a user states about weights that do not tell it; empty values are left to the format.

    Attributes:
        activation: a name of ``ACTIVATION_NAMES``.
        text_heads, vision_heads: of the attention; None is one for each 64 channels.
        mean, std: of the preprocessing, for values between 0 and 1.
    """

    activation: str = ""
    text_heads: int | None = None
    vision_heads: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


class Format(ABC):
    """A file of ``backbones/formats`` that defines a format calls its instance ``FORMAT``.

    ``recognises`` of two formats must not both hold: nothing says which is asked first.
    """

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

    def cached_file(self, name: str) -> Path | None:
        """Where ``fetch`` finds the weights called ``name``; None where it would download them."""
        return None

    def fetch(self, name: str, checked: bool = False) -> WeightsFile:
        """The weights called ``name``, from a cache or downloaded.

        Args:
            checked: an earlier load compared the cached file with what was released.
        """
        raise NotImplementedError


def decided_activation(stated: str, known: str, where: object) -> str:
    """The activation that ``where`` names, else the stated one; "" if neither is known.

    Raises:
        InputError: what is stated does not exist, or differs from what ``where`` says.
    """
    key = "MODEL.BACKBONE.ACTIVATION"
    if stated and stated not in ACTIVATION_NAMES:
        raise InputError(f"{key} is {stated!r}; choose one of {', '.join(ACTIVATION_NAMES)}")
    if stated and known and stated != known:
        raise InputError(
            f"{key} is {stated}, but {where} says {known}; leave {key} out, or correct the file"
        )
    return known or stated


def decided_preprocessing(
    size: int, stated: Stated, known: Preprocessing | None = None, where: object = ""
) -> Preprocessing:
    """The preprocessing that ``where`` says, else CLIP's with the stated mean and deviation.

    Raises:
        InputError: what is stated differs from what ``where`` says.
    """
    if known is None:
        return Preprocessing(size, stated.mean or CLIP_MEAN, stated.std or CLIP_STD)
    for name, given, own in (
        ("PIXEL_MEAN", stated.mean, known.mean),
        ("PIXEL_STD", stated.std, known.std),
    ):
        if given and any(abs(a - b) > 1e-4 for a, b in zip(given, own, strict=True)):
            raise InputError(
                f"MODEL.BACKBONE.{name} is {list(given)}, but {where} says {list(own)}; leave it "
                f"out, or set INPUT.{name} to prepare images differently"
            )
    return known
