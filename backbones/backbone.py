"""The contract of a backbone: two frozen encoders, of images and of texts, into one space.

A family of backbones is one file in ``backbones/families``; docs/add_a_backbone.md shows how.
"""

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from backbones.device import usable_device, usable_precision
from backbones.weights import WeightsFile


class Preprocessing(NamedTuple):
    """What is done to an image before the backbone reads it; values lie between 0 and 1."""

    size: int  # pixels of a side
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"


class PreparedTexts(Protocol):
    """Everything about texts that no learned parameter changes. Only its own family reads it.

    Attributes:
        sources: [slots] which context token goes into each slot, counted through all contexts.
    """

    @property
    def n_texts(self) -> int: ...

    @property
    def sources(self) -> Tensor: ...


class Backbone(nn.Module, ABC):
    """A frozen image encoder and a frozen text encoder, in one precision, on one device.

    Attributes:
        family: name of the family. precision: one of ``backbones.device.PRECISIONS``.
        embed_dim: d, width of the joint space. context_length: tokens of a text, at most.
        text_width, text_depth: width of a token embedding, layers of the text encoder.
        vision_width, vision_depth: the same of the images' transformer; None where it is not one.
        preprocessing: how images are prepared. fingerprint: of the weights as the file holds them.
    """

    family: str
    embed_dim: int
    text_width: int
    text_depth: int
    vision_width: int | None
    vision_depth: int | None
    context_length: int
    preprocessing: Preprocessing
    fingerprint: str

    def __init__(self, precision: str = "fp32", device: str | torch.device = "cpu") -> None:
        super().__init__()
        self.device = usable_device(device)
        self.precision = usable_precision(precision, self.device)

    # -- files ----------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def recognises(cls, weights: WeightsFile) -> bool:
        """Whether the file holds a backbone of this family."""

    @classmethod
    @abstractmethod
    def from_weights(
        cls,
        weights: WeightsFile,
        precision: str,
        device: str | torch.device,
        *_: Any,
        **options: Any,
    ) -> "Backbone":
        """Build from a file; ``options`` are what the family allows beside it.

        Raises:
            KeyError, RuntimeError: a tensor is missing or has another shape.
        """

    @classmethod
    def released(cls) -> Sequence[str]:
        """Names of weights that ``fetch`` can bring."""
        return ()

    @classmethod
    def fetch(cls, name: str) -> WeightsFile:
        """The weights called ``name``, from a cache or downloaded."""
        raise NotImplementedError

    # -- texts ----------------------------------------------------------------------------------

    @abstractmethod
    def token_ids(self, texts: Iterable[str]) -> list[list[int]]:
        """The token ids of each text's words, without start and end tokens."""

    @abstractmethod
    def embed_tokens(self, ids: Tensor) -> Tensor:
        """[..., text_width] embeddings of token ids, in the precision of the token table."""

    @abstractmethod
    def prepare(
        self,
        texts: Sequence[str],
        n_ctx: int = 0,
        position: str = "end",
        groups: Sequence[int] | None = None,
    ) -> PreparedTexts:
        """Prepare texts: everything that no learned parameter changes, done once.

        Args:
            n_ctx: tokens of a context among the words; 0 reads the texts as they are.
            position: position of the words relative to the context: end, middle or front.
            groups: [n] the context of each text, from 0; None shares one.

        Raises:
            TextTooLong, InputError: a text or the context does not fit into ``context_length``.
        """

    @abstractmethod
    def encode_text(
        self, prepared: Any, learned: Tensor | None = None, deep: Sequence[Tensor] = ()
    ) -> Tensor:
        """Encode n texts with each of m contexts.

        Args:
            prepared: what ``prepare`` gave.
            learned: [m, slots, text_width], what is put into the slots; None without slots.
            deep: for layer 1, 2, ...: [m or 1, slots, text_width], which replaces what the layer
                before made of the slots.

        Returns:
            [m * n, embed_dim] in at least fp32, not normalised, with gradients to what was given.
        """

    @abstractmethod
    def vocabulary(self) -> tuple[list[str], Tensor]:
        """The words of the token table, without special tokens, and their [n, text_width] rows."""

    # -- images ---------------------------------------------------------------------------------

    @abstractmethod
    def encode_image(self, images: Tensor, tokens: Sequence[Tensor] = ()) -> Tensor:
        """Encode images.

        Args:
            images: [batch, 3, size, size], preprocessed.
            tokens: for layer 0, 1, ...: [n, vision_width] learned tokens, read beside the patches.

        Returns:
            [batch, embed_dim] in at least fp32, not normalised; no gradients but to ``tokens``.
        """

    @abstractmethod
    def patch_tokens(self, images: Tensor) -> Tensor:
        """[batch, P, embed_dim] features of the P patches, row by row, in the joint space.

        Source: MaskCLIP, Zhou et al., ECCV 2022, https://arxiv.org/abs/2112.01071, section 3.2.
        """

    @property
    @abstractmethod
    def image_tower(self) -> nn.Module:
        """The module that maps images [batch, 3, size, size] to features [batch, embed_dim]."""

    @abstractmethod
    def new_image_tower(self) -> nn.Module:
        """A tower of the same shape, on the CPU, with random weights as the family draws them."""

    # -- numbers --------------------------------------------------------------------------------

    @property
    @abstractmethod
    def logit_scale(self) -> Tensor:
        """Log inverse temperature of the cosines; CLIP's is ln 100."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """What the encoders' weights are stored in."""

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context that the encoders run in; does nothing unless the precision is ``amp``."""
        if self.precision != "amp":
            return contextlib.nullcontext()
        half = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=half)

    def train(self, mode: bool = True) -> "Backbone":
        """Stays in eval mode: neither dropout nor a batch norm may follow the training."""
        return super().train(False)


def weights_fingerprint(module: nn.Module) -> str:
    """SHA-256 of a module's parameters and buffers: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
