"""The contract of a backbone: a frozen image encoder and a frozen text encoder, into one space.

Encoders are in ``backbones/encoders``, one kind a file; a file in ``backbones/formats`` recognises
weights and puts them into encoders. docs/add_a_backbone.md shows how to add either.
"""

import contextlib
import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from backbones.device import usable_device, usable_precision
from backbones.numerics import at_least_fp32, cosine_logits
from backbones.weights import WeightsFile
from core.errors import InputError

_E = TypeVar("_E", bound=nn.Module)
_LOADING = threading.Lock()  # threads of a server may ask at once

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Preprocessing(NamedTuple):
    """What is done to an image before the backbone reads it; values lie between 0 and 1.

    ``resize_mode`` is for evaluation: "shortest" resizes the shorter side and crops the centre,
    "squash" resizes both sides, whatever the proportions.
    """

    size: int  # pixels of a side
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"


class PreparedTexts(Protocol):
    """Everything about texts that no learned parameter changes. Only its own encoder reads it.

    Attributes:
        sources: [slots] which context token goes into each slot, counted through all contexts.
    """

    @property
    def n_texts(self) -> int: ...

    @property
    def sources(self) -> Tensor: ...


class StackedMaps(NamedTuple):
    """A module of a transformer layer that computes linear maps.

    Attributes:
        module: its weight's rows are the maps, stacked, of equal sizes.
        names: of the maps in their order: q, k, v and out of the attention, up and down of the
            feed-forward network.
    """

    module: nn.Linear
    names: tuple[str, ...]


class ImageEncoder(nn.Module, ABC):
    """Images to features in the joint space.

    Attributes:
        embed_dim: d, width of the joint space. size: pixels of a side.
        width, depth: of the transformer; None where the encoder is not one.
        tower: the module that maps images [batch, 3, size, size] to features [batch, embed_dim].
    """

    embed_dim: int
    size: int
    width: int | None
    depth: int | None
    tower: nn.Module

    @abstractmethod
    def encode(self, images: Tensor, tokens: Sequence[Tensor] = ()) -> Tensor:
        """[batch, embed_dim] features.

        Args:
            images: [batch, 3, size, size], preprocessed.
            tokens: for layer 0, 1, ...: [n, width] learned tokens, read beside the patches; empty
                where ``width`` is None.
        """

    @abstractmethod
    def patch_tokens(self, images: Tensor) -> Tensor:
        """As ``Backbone.patch_tokens``."""

    def encode_with_patches(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As ``Backbone.encode_with_patches``; by default the patches are ``patch_tokens``."""
        return self.encode(images), self.patch_tokens(images)

    def layer_norms(self) -> dict[str, nn.Module]:
        """The norms of the transformer's layers by name; empty where there are none."""
        return {}

    def gradient_maps(self, images: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
        """[batch, n, h, w], as ``Backbone.gradient_maps``; by default there are none.

        Args:
            score: makes scores [batch, n] of features [batch, embed_dim].
        """
        raise InputError(f"{type(self).__name__}: this image encoder has no maps by gradients")

    def linear_maps(self) -> list[list[StackedMaps]]:
        """The linear maps of each transformer layer; empty where they cannot be adapted."""
        return []

    @abstractmethod
    def fresh(self) -> nn.Module:
        """A tower of the same shape, on the CPU, with random weights."""


class TextEncoder(nn.Module, ABC):
    """Texts to features in the joint space.

    Attributes:
        width: of a token embedding. depth: layers. context_length: tokens of a text, at most.
        n_special: how many of these are not words: start, stop and end.
        kind: of the tower; checkpoints of learned contexts name it.
        unknown: the token id that stands for what is not in the vocabulary, if there is one.
        pad: the token id that stands behind the end of a text.
        settings: what decides the features beside the tensors, for a fingerprint.
    """

    width: int
    depth: int
    context_length: int
    n_special: int
    kind: str
    unknown: int | None = None
    pad: int = 0
    settings: tuple[Any, ...] = ()

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """What the layers' weights are stored in."""

    @abstractmethod
    def token_ids(self, texts: Iterable[str]) -> list[list[int]]:
        """The token ids of each text's words, without start and end tokens."""

    @abstractmethod
    def embed_tokens(self, ids: Tensor) -> Tensor:
        """[..., width] embeddings of token ids, in at least fp32."""

    @abstractmethod
    def layout(
        self,
        texts: Sequence[str],
        n_ctx: int = 0,
        position: str = "end",
        groups: Sequence[int] | None = None,
    ) -> list[list[int]]:
        """The token ids that ``prepare`` makes of each text, from its start token to its end token.

        Context tokens are numbered -1, -2, ... through all groups.
        """

    @abstractmethod
    def prepare(
        self,
        texts: Sequence[str],
        n_ctx: int = 0,
        position: str = "end",
        groups: Sequence[int] | None = None,
    ) -> PreparedTexts:
        """As ``Backbone.prepare``."""

    @abstractmethod
    def encode(
        self, prepared: Any, learned: Tensor | None = None, deep: Sequence[Tensor | None] = ()
    ) -> Tensor:
        """As ``Backbone.encode_text``, in the encoder's own precision."""

    @abstractmethod
    def vocabulary(self) -> tuple[list[str], Tensor]:
        """The words of the token table, without special tokens, and their [n, width] rows."""

    def linear_maps(self) -> list[list[StackedMaps]]:
        """The linear maps of each transformer layer; empty where they cannot be adapted."""
        return []


class Parts(NamedTuple):
    """What a format makes of a file or folder.

    Attributes:
        logit_scale: log inverse temperature of the cosines.
        fingerprint: of the weights as the file holds them, and of what else decides the features.
        notes: what was assumed, a sentence each: printed, and written into a run's record.
    """

    image: ImageEncoder
    text: TextEncoder
    logit_scale: Tensor
    preprocessing: Preprocessing
    fingerprint: str
    notes: tuple[str, ...] = ()


class Backbone(nn.Module):
    """A frozen image encoder and a frozen text encoder, in one precision, on one device.

    Attributes:
        precision: one of ``backbones.device.PRECISIONS``.
        embed_dim: d, width of the joint space. context_length: tokens of a text, at most.
        text_width, text_depth: width of a token embedding, layers of the text encoder.
        vision_width, vision_depth: the same of the images' transformer; None where it is not one.
        preprocessing: how images are prepared. fingerprint: of the weights as the file holds them.
        image: the image encoder; loaded when it is first asked for, if ``load_image`` is given.

    Args:
        load_image: loads the image encoder, of which ``parts`` then hold the shapes alone.
    """

    image: ImageEncoder

    def __init__(
        self,
        parts: Parts,
        precision: str = "fp32",
        device: str | torch.device = "cpu",
        load_image: Callable[[], ImageEncoder] | None = None,
    ) -> None:
        super().__init__()
        self.device = usable_device(device)
        self.precision = usable_precision(precision, self.device)
        image, text = parts.image, parts.text
        self.fingerprint, self.notes = parts.fingerprint, parts.notes
        self.preprocessing = parts.preprocessing
        self.embed_dim, self.context_length = image.embed_dim, text.context_length
        self.text_width, self.text_depth = text.width, text.depth
        self.vision_width, self.vision_depth = image.width, image.depth
        self._load_image = load_image
        if load_image is None:
            self.image = self._ready(image)
        self.text = self._ready(text)
        self.log_scale = nn.Parameter(parts.logit_scale.detach().clone())
        self.to(self.device).eval().requires_grad_(False)

    def _ready(self, encoder: _E) -> _E:
        """An encoder in the backbone's precision, on its device, frozen."""
        if halves := {"fp16": torch.float16, "bf16": torch.bfloat16}.get(self.precision):
            halve(encoder, halves)
        return encoder.to(self.device).eval().requires_grad_(False)

    def __getattr__(self, name: str) -> Any:
        # Modules are not found in the usual places; this one may not be loaded yet.
        load = self.__dict__.get("_load_image")
        if name == "image" and load is not None:
            with _LOADING:
                if "image" not in self._modules:
                    with torch.random.fork_rng(devices=[]):  # some formats draw before they read
                        self.image = self._ready(load())
        return super().__getattr__(name)

    # -- texts ----------------------------------------------------------------------------------

    def token_ids(self, texts: Iterable[str]) -> list[list[int]]:
        """The token ids of each text's words, without start and end tokens."""
        return self.text.token_ids(texts)

    @torch.no_grad()
    def embed_tokens(self, ids: Tensor) -> Tensor:
        """[..., text_width] embeddings of token ids, in at least fp32."""
        return self.text.embed_tokens(ids.to(self.device))

    @torch.no_grad()
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
        return self.text.prepare(texts, n_ctx, position, groups)

    def layout(
        self, texts: Sequence[str], n_ctx: int = 0, groups: Sequence[int] | None = None
    ) -> Tensor:
        """[n, context_length] token ids of whole texts, the context before their words, padded.

        Context tokens are numbered -1, -2, ... through all groups. Arguments and errors as for
        ``prepare``.
        """
        rows = self.text.layout(texts, n_ctx, "end", groups)
        pad = [self.text.pad] * self.context_length
        return torch.tensor([(row + pad)[: self.context_length] for row in rows])

    def encode_text(
        self, prepared: Any, learned: Tensor | None = None, deep: Sequence[Tensor | None] = ()
    ) -> Tensor:
        """Encode n texts with each of m contexts.

        Args:
            prepared: what ``prepare`` gave.
            learned: [m, slots, text_width], what is put into the slots; None without slots.
            deep: for layer 1, 2, ...: [m or 1, slots, text_width], which replaces what the layer
                before made of the slots; None leaves that.

        Returns:
            [m * n, embed_dim] in at least fp32, not normalised, with gradients to what was given.
        """
        with self.autocast():
            return at_least_fp32(self.text.encode(prepared, learned, deep))

    @torch.no_grad()
    def vocabulary(self) -> tuple[list[str], Tensor]:
        """The words of the token table, without special tokens, and their [n, text_width] rows."""
        return self.text.vocabulary()

    # -- images ---------------------------------------------------------------------------------

    def encode_image(self, images: Tensor, tokens: Sequence[Tensor] = ()) -> Tensor:
        """Encode images.

        Args:
            images: [batch, 3, size, size], preprocessed.
            tokens: for layer 0, 1, ...: [n, vision_width] learned tokens, read beside the patches.

        Returns:
            [batch, embed_dim] in at least fp32, not normalised. Gradients reach ``tokens`` and what
            a method let learn in the encoder.

        Raises:
            ValueError: tokens for an image encoder that is not a transformer.
        """
        if tokens and self.vision_width is None:
            raise ValueError(
                "the image encoder is not a transformer (a ResNet): it reads no tokens"
            )
        images = images.to(self.device, self.dtype)
        learns = bool(tokens) or any(p.requires_grad for p in self.image.parameters())
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()), self.autocast():
            return at_least_fp32(self.image.encode(images, tokens))

    def encode_with_patches(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images and each of their patches by the last layer's output.

        A patch takes the way of what makes the image's feature: the class token's norm and
        projection. Where attention pools, it is pooled as if it were the only position.

        Returns:
            [batch, embed_dim] as ``encode_image`` gives it, and [batch, P, embed_dim], the P
            patches row by row; both in at least fp32, not normalised. Gradients reach what a
            method let learn in the encoder.
        """
        images = images.to(self.device, self.dtype)
        learns = any(p.requires_grad for p in self.image.parameters())
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()), self.autocast():
            features, patches = self.image.encode_with_patches(images)
        return at_least_fp32(features), at_least_fp32(patches)

    @torch.no_grad()
    def patch_tokens(self, images: Tensor) -> Tensor:
        """[batch, P, embed_dim] features of the P patches, row by row, in the joint space.

        They are the last layer's values: what a patch itself says, without what it read of others.

        Source: MaskCLIP, Zhou et al., ECCV 2022, https://arxiv.org/abs/2112.01071, section 3.2.
        """
        with self.autocast():
            return at_least_fp32(self.image.patch_tokens(images.to(self.device, self.dtype)))

    def gradient_maps(self, images: Tensor, features: Tensor) -> Tensor:
        """[batch, n, h, w] where the similarity to each of n features comes from, by gradients.

        Args:
            images: [batch, 3, size, size], preprocessed.
            features: [n, embed_dim], of any norm.

        Returns:
            maps in at least fp32, at least zero, h rows and w columns from the top left.

        Raises:
            InputError: the image encoder has none.

        Source: ``backbones.gradient_maps``.
        """
        features, scale = features.detach().to(self.device), self.logit_scale.detach()
        images = images.to(self.device, self.dtype)
        with torch.enable_grad(), self.autocast():
            maps = self.image.gradient_maps(images, lambda x: cosine_logits(x, features, scale))
        return at_least_fp32(maps)

    @property
    def image_tower(self) -> nn.Module:
        """The module that maps images [batch, 3, size, size] to features [batch, embed_dim]."""
        return self.image.tower

    def new_image_tower(self) -> nn.Module:
        """A tower of the same shape, on the CPU, with random weights."""
        return self.image.fresh()

    # -- numbers --------------------------------------------------------------------------------

    @property
    def logit_scale(self) -> Tensor:
        """Log inverse temperature of the cosines; CLIP's is ln 100."""
        return self.log_scale

    @property
    def dtype(self) -> torch.dtype:
        """What the image encoder's first layer is stored in: what images are given in."""
        return next(p for p in self.image.parameters() if p.dim() == 4).dtype

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context that the encoders run in; does nothing unless the precision is ``amp``."""
        if self.precision != "amp":
            return contextlib.nullcontext()
        half = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=half)

    def train(self, mode: bool = True) -> "Backbone":
        """Stays in eval mode: neither dropout nor a batch norm may follow the training."""
        return super().train(False)


def halve(module: nn.Module, dtype: torch.dtype) -> None:
    """Store in ``dtype`` what may be halved: layers and projections, not norms, not embeddings.

    Source: as ``clip.model.convert_weights`` chooses them.
    """
    for part in module.modules():
        whole = isinstance(part, nn.Linear | nn.Conv2d | nn.MultiheadAttention)
        for name, parameter in part.named_parameters(recurse=False):
            if whole or name in ("text_projection", "proj"):
                parameter.data = parameter.data.to(dtype)


def new_module(make: Callable[[], nn.Module], tensors: Mapping[str, Tensor]) -> Any:
    """The module that ``make`` builds, in fp32, with ``tensors``; nothing is drawn or copied.

    Raises:
        RuntimeError: a tensor is missing, too many, or has another shape.
    """
    with torch.device("meta"):
        module = make()
    module.load_state_dict(dict(tensors), assign=True)
    return module.float().eval()


def count(names: Iterable[str], prefix: str) -> int:
    """How many numbers follow ``prefix`` in the names of tensors."""
    return len({name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)})


def fingerprint_of(weights: WeightsFile, *settings: Any) -> str:
    """Twelve digits of ``weights_fingerprint``; those that are remembered are not computed."""
    return weights.fingerprint or weights_fingerprint(weights.tensors, *settings)[:12]


def weights_fingerprint(tensors: Mapping[str, Tensor], *settings: Any) -> str:
    """SHA-256 of tensors (names, types, shapes, values) and of ``settings`` beside them."""
    digest = hashlib.sha256("".join(map(repr, settings)).encode())
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content: Any = tensor.reshape(-1).view(torch.uint8).numpy()
        digest.update(content)
    return digest.hexdigest()
