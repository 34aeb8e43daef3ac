"""Texts with a learned context, as modules that a method trains."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.backbone import Backbone
from backbones.numerics import take
from backbones.texts import strip_stop
from core.errors import InputError, some
from symptoms import Symptoms

START_WORDS = "a photo of a"


def check_phrases(symptoms: Symptoms, backbone: Backbone, n_ctx: int) -> None:
    """Raise InputError, naming file and class, for a phrase that ``backbone`` cannot read whole."""
    room = backbone.context_length - n_ctx - backbone.text.n_special
    if room > 0:
        symptoms.check_lengths(lambda phrase: len(backbone.token_ids([phrase])[0]), room)
    every = list(dict.fromkeys(p for phrases in symptoms.phrases.values() for p in phrases))
    _say_unknown(every, backbone.token_ids(every), backbone)


def check_names(classnames: Sequence[str], backbone: Backbone) -> None:
    """Raise InputError for two names that ``backbone`` reads as one text.

    Some text encoders remove punctuation, so that HER2+ and HER2- are one; most ignore case.
    """
    ids = backbone.token_ids(map(strip_stop, classnames))
    seen: dict[tuple[int, ...], str] = {}
    for name, tokens in zip(classnames, ids, strict=True):
        other = seen.setdefault(tuple(tokens), name)
        if other != name:
            raise InputError(
                f"the text encoder reads the class names {other!r} and {name!r} as the same tokens "
                "(it may ignore punctuation, or not know a character): change one of the names"
            )
    _say_unknown(classnames, ids, backbone)


def _say_unknown(texts: Sequence[str], ids: Sequence[Sequence[int]], backbone: Backbone) -> None:
    unknown = backbone.text.unknown
    if unread := [text for text, tokens in zip(texts, ids, strict=True) if unknown in tokens]:
        print(f"note: not in the text encoder's vocabulary, at least in part: {some(unread)}")


@torch.no_grad()
def encode_texts(backbone: Backbone, texts: Sequence[str]) -> Tensor:
    """[n, d] features of ``texts`` as they are (a stop is added), not normalised."""
    return backbone.encode_text(backbone.prepare(texts))


class ContextPrompts(nn.Module):
    """Texts with a learned context; its state is ``ctx`` alone.

    Args:
        backbone: it reads the texts.
        texts: n texts (class names or symptoms).
        n_ctx: context tokens M; 0 learns nothing and reads the texts as they are.
        position: position of the words relative to the context: end, middle or front.
        start_words: words whose embeddings the context starts from; "" draws N(0, 0.02^2).
        groups: [n] ints for a context of its own for each group; None shares one.

    Attributes:
        inputs: the texts, prepared by the backbone.

    Source: Zhou et al., IJCV 2022, https://arxiv.org/abs/2109.01134, section 3.2.
    """

    sources: Tensor

    def __init__(
        self,
        backbone: Backbone,
        texts: Sequence[str],
        n_ctx: int,
        position: str = "end",
        start_words: str = "",
        groups: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        # Both follow from the texts: a checkpoint holds what was learned, and nothing else.
        self.inputs = backbone.prepare(texts, n_ctx, position, groups)
        self.layout = n_ctx, position
        self.register_buffer("sources", self.inputs.sources, persistent=False)
        if n_ctx:
            self.ctx = nn.Parameter(_start(backbone, n_ctx, start_words, groups))

    def forward(self) -> Tensor | None:
        """The learned context's embeddings for the slots, [1, s, d_txt]; None without slots."""
        if not len(self.sources):
            return None
        return take(self.ctx.reshape(-1, self.ctx.shape[-1]), self.sources).unsqueeze(0)

    def encode_alone(self, backbone: Backbone, text: str, group: int = 0) -> Tensor:
        """[1, d] feature of one text beside the learned context, the context of its group."""
        inputs = backbone.prepare([text], *self.layout)
        if not len(inputs.sources):
            return backbone.encode_text(inputs)
        context = self.ctx if self.ctx.dim() == 2 else self.ctx[group]
        return backbone.encode_text(inputs, take(context, inputs.sources).unsqueeze(0))

    def with_contexts(self, contexts: Tensor) -> Tensor:
        """The embeddings for the slots with each of ``contexts`` in place of the learned one.

        Args:
            contexts: [m, n_ctx, d_txt]; with groups, theirs one after the other in dimension 1.

        Returns:
            [m, s, d_txt]
        """
        m, n_tokens, _ = contexts.shape
        each = torch.arange(m, device=contexts.device).unsqueeze(1) * n_tokens
        return take(contexts.flatten(0, 1), self.sources + each)


def _start(
    backbone: Backbone, n_ctx: int, start_words: str, groups: Sequence[int] | None
) -> Tensor:
    """What a context learns from, [n_ctx, d_txt]; with groups, [n_groups, n_ctx, d_txt]."""
    shape: tuple[int, ...] = (n_ctx, backbone.text_width)
    if groups is not None:
        shape = (int(max(groups)) + 1, *shape)
    if not start_words:  # drawn on the CPU, so that every device starts alike
        return (0.02 * torch.randn(shape)).to(backbone.device)
    (ids,) = backbone.token_ids([start_words])
    if len(ids) != n_ctx:
        raise InputError(
            f"CTX_INIT {start_words!r} has {len(ids)} tokens; N_CTX is {n_ctx}: make them equal"
        )
    return backbone.embed_tokens(torch.tensor(ids)).float().expand(shape).clone()


def class_text_features(
    backbone: Backbone, classnames: Sequence[str], normalise: bool = True
) -> Tensor:
    """[n_cls, d] features of ``a photo of a {classname}.``, what zero-shot CLIP compares with.

    Args:
        normalise: give unit features; False leaves the norm that the encoder gives.

    Raises:
        InputError: the text encoder reads two of the names as one.
    """
    check_names(classnames, backbone)
    features = encode_texts(backbone, [f"{START_WORDS} {name}" for name in classnames])
    return F.normalize(features, dim=-1) if normalise else features
