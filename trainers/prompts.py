"""Texts as CLIP reads them, with a learned context among the words."""

import clip
import torch
from torch import nn

from foundation.errors import InputError

from .clip_model import at_least_fp32

POSITIONS = ("end", "middle", "front")  # where the words stand, seen from the context
START_WORDS = "a photo of a"
_UNBOUNDED = 4096  # room for any text, so that one too long is named and not cut


def token_ids(texts):
    """The BPE token ids of each text, without start and end tokens.

    Returns:
        a list of lists of ints, one a text.
    """
    rows = clip.tokenize(list(texts), context_length=_UNBOUNDED)
    return [row[1 : row.argmax()].tolist() for row in rows]  # the end token has the highest id


def strip_stop(text):
    """``text`` without spaces and full stops at its end; the template adds its own stop."""
    return text.strip().rstrip(". \t\n")


def at_least_one(**options):
    """Raise InputError for an option below 1, naming it."""
    for name, value in options.items():
        if value < 1:
            raise InputError(f"{name} is {value}; give at least 1")


class PromptTokens:
    """Texts laid out as ``[SOS] context words "." [EOS]``, cut after the longest.

    Words and stop are tokenised apart: a phrase that ends in ")" would otherwise merge with it.

    Attributes:
        tokens: [n, L] ids, placeholders where the context goes.
        eos: [n] position of the end token. slots: [n, n_ctx] positions of the context.
    """

    def __init__(self, texts, n_ctx=0, position="end", context_length=77):
        if position not in POSITIONS:
            raise InputError(
                f"CLASS_TOKEN_POSITION is {position!r}; choose one of {', '.join(POSITIONS)}"
            )
        sos, eos = clip.tokenize("")[0, :2].tolist()
        (stop,), (placeholder,) = token_ids([".", "x"])
        before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
        rows, slots = [], []
        for text, words in zip(texts, token_ids(map(strip_stop, texts)), strict=True):
            length = len(words) + n_ctx + 3
            if length > context_length:
                raise InputError(
                    f"{text!r} takes {length} tokens with its context; CLIP reads at most "
                    f"{context_length}: shorten it"
                )
            context = [placeholder] * n_ctx
            rows.append([sos, *context[:before], *words, *context[before:], stop, eos])
            after = range(1 + before + len(words), 1 + len(words) + n_ctx)
            slots.append([*range(1, 1 + before), *after])
        longest = max(map(len, rows))
        self.tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        self.eos = torch.tensor([len(row) - 1 for row in rows])
        self.slots = torch.tensor(slots, dtype=torch.long).reshape(len(rows), n_ctx)


@torch.no_grad()
def encode_texts(clip_model, texts):
    """[n, d] features of ``texts`` as they are (a stop is added), not normalised."""
    layout = PromptTokens(texts, context_length=clip_model.context_length)
    embeddings = clip_model.embed_tokens(layout.tokens)
    return at_least_fp32(clip_model.encode_prompts(embeddings, layout.eos.to(clip_model.device)))


class ContextPrompts(nn.Module):
    """Texts with a learned context; its state is ``ctx`` alone.

    Args:
        clip_model: ``FrozenCLIP``.
        texts: n texts (class names or symptoms).
        n_ctx: context tokens M; 0 learns nothing and reads the texts as they are.
        position: where the words stand, one of ``POSITIONS``.
        start_words: words whose embeddings the context starts from; "" draws N(0, 0.02^2).
        groups: [n] ints for a context of its own for each group; None shares one.

    Source: Zhou et al., IJCV 2022, https://arxiv.org/abs/2109.01134, section 3.2.
    """

    def __init__(self, clip_model, texts, n_ctx, position="end", start_words="", groups=None):
        super().__init__()
        layout = PromptTokens(texts, n_ctx, position, clip_model.context_length)
        device = clip_model.device
        if n_ctx:
            self.ctx = nn.Parameter(_start(clip_model, n_ctx, start_words, groups).to(device))
        # All follow from the texts: a checkpoint holds what was learned, and nothing else.
        groups = None if groups is None else torch.as_tensor(groups)
        buffers = {
            "fixed": clip_model.embed_tokens(layout.tokens),
            "eos": layout.eos,
            "slots": layout.slots,
            "groups": groups,
        }
        for name, value in buffers.items():
            value = value if value is None else value.to(device)
            self.register_buffer(name, value, persistent=False)

    def forward(self):
        """Token embeddings of every text: [n, L, d_txt]."""
        if not self.slots.shape[1]:
            return self.fixed
        every = torch.arange(len(self.fixed), device=self.fixed.device)
        return self.with_contexts(every, self.ctx if self.groups is None else self.ctx[self.groups])

    def with_contexts(self, texts, ctx):
        """Token embeddings of texts[i] with the context ctx[i] in place of the learned one.

        Args:
            texts: [m] indices. ctx: [m, n_ctx, d_txt], or [n_ctx, d_txt] for all.

        Returns:
            [m, L, d_txt].
        """
        fixed = self.fixed[texts].to(ctx.dtype)
        slots = self.slots[texts].unsqueeze(-1).expand(-1, -1, fixed.shape[-1])
        return fixed.scatter(1, slots, ctx.expand_as(slots))


def _start(clip_model, n_ctx, start_words, groups):
    if start_words:
        (ids,) = token_ids([start_words])
        if len(ids) != n_ctx:
            raise InputError(
                f"CTX_INIT {start_words!r} has {len(ids)} tokens; N_CTX is {n_ctx}: make them equal"
            )
        ctx = clip_model.embed_tokens(torch.tensor(ids)).float().cpu()
    else:
        ctx = None
    if groups is None:
        return ctx if ctx is not None else 0.02 * torch.randn(n_ctx, clip_model.text_width)
    n_groups = int(max(groups)) + 1
    if ctx is not None:
        return ctx.repeat(n_groups, 1, 1)
    return 0.02 * torch.randn(n_groups, n_ctx, clip_model.text_width)
