"""The places of the words of a text, of a learned context and of the special tokens."""

from collections.abc import Sequence

from core.errors import InputError

POSITIONS = ("end", "middle", "front")  # of the words, relative to the context


class TextTooLong(InputError):
    """A text does not fit into the text encoder.

    Attributes:
        text: the text. index: its place among the texts.
        reason: what is wrong with it and what to do, without the text.
    """

    def __init__(self, text: str, index: int, reason: str) -> None:
        super().__init__(f"{shortened(text)!r} {reason}")
        self.text, self.index, self.reason = text, index, reason


def one_of_positions(position: str) -> None:
    """Raise InputError for a class token position that does not exist."""
    if position not in POSITIONS:
        raise InputError(
            f"CLASS_TOKEN_POSITION is {position!r}; choose one of {', '.join(POSITIONS)}"
        )


def shortened(text: str, length: int = 60) -> str:
    """``text``, or its beginning where it is longer than ``length``."""
    return text if len(text) <= length else f"{text[:length]}..."


def strip_stop(text: str) -> str:
    """``text`` without spaces and full stops at its end; the layout adds its own stop."""
    return text.strip().rstrip(". \t\n")


def check_length(texts: Sequence[str], context_length: int) -> None:
    """Reject texts that cannot fit, before the tokeniser spends minutes on a million letters."""
    for index, text in enumerate(texts):
        if len(text) > 100 * context_length:
            reason = (
                f"is {len(text):,} characters long; the text encoder reads at most "
                f"{context_length} tokens: shorten it"
            )
            raise TextTooLong(text, index, reason)


def lay_out(
    texts: Sequence[str],
    words: Sequence[Sequence[int]],
    start: Sequence[int],
    end: Sequence[int],
    context_length: int,
    n_ctx: int = 0,
    position: str = "end",
    groups: Sequence[int] | None = None,
) -> list[list[int]]:
    """Token ids of each text: start, context and words, end.

    Args:
        texts: named in errors. words: the token ids of each.
        start, end: the token ids before and behind them, a full stop among them.
        n_ctx, position, groups: as for ``Backbone.prepare``.

    Returns:
        One list a text. Context tokens are numbered -1, -2, ... through all groups.

    Raises:
        TextTooLong: a text does not fit. InputError: no text would fit beside the context, or
            nothing of a text is left to read.
    """
    one_of_positions(position)
    room = context_length - len(start) - len(end)
    if n_ctx >= room:
        raise InputError(
            f"N_CTX is {n_ctx}; the text encoder reads {context_length} tokens of a text, so give "
            f"at most {room - 1}, and fewer for texts of more than one token"
        )
    before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
    rows = []
    for i, ids in enumerate(words):
        _check_fits(texts[i], i, len(ids), n_ctx, room, context_length)
        first = n_ctx * (int(groups[i]) if groups is not None else 0)
        ctx = [-1 - token for token in range(first, first + n_ctx)]
        rows.append([*start, *ctx[:before], *ids, *ctx[before:], *end])
    return rows


def _check_fits(
    text: str, index: int, n_words: int, n_ctx: int, room: int, context_length: int
) -> None:
    """Reject a text of no tokens, or of more than there is ``room`` for beside the context."""
    if not n_words:
        raise InputError(
            f"the text {shortened(text)!r} has no words that the text encoder reads (some remove "
            "all punctuation): write it in words"
        )
    if n_words + n_ctx > room:
        context = f" with a context of {n_ctx}" if n_ctx else ""
        remedy = "shorten it or lower N_CTX" if n_words <= room else "shorten it"
        reason = (
            f"takes {n_words + n_ctx + context_length - room} tokens{context}; the text encoder "
            f"reads at most {context_length}: {remedy}"
        )
        raise TextTooLong(text, index, reason)
