"""Texts as CLIP reads them, with a learned context among the words."""

import clip
import torch
from torch import nn

from backbones.text_layers import MAX_MASKED_ROWS, TokenTree, take
from core.errors import InputError

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


def check_phrases(symptoms, backbone, n_ctx):
    """Raise InputError, naming file and class, for a phrase that ``backbone`` cannot read whole."""
    room = backbone.context_length - n_ctx - 3  # start, full stop and end
    if room > 0:
        symptoms.check_lengths(lambda phrase: len(token_ids([phrase])[0]), room)


def at_least_one(**options):
    """Raise InputError for an option below 1, naming it."""
    for name, value in options.items():
        if value < 1:
            raise InputError(f"{name} is {value}; give at least 1")


def one_of_positions(position):
    """Raise InputError for a class token position that does not exist."""
    if position not in POSITIONS:
        raise InputError(
            f"CLASS_TOKEN_POSITION is {position!r}; choose one of {', '.join(POSITIONS)}"
        )


class PromptTokens:
    """Texts laid out as ``[SOS] context words "." [EOS]``.

    Words and stop are tokenised apart: a phrase that ends in ")" would otherwise merge with it.

    Args:
        groups: [n] ints, the context of each text; None is one for all.

    Attributes:
        tokens: [rows] ids, placeholders where a context goes. tree: ``TokenTree``.
        sources: [s] which token of the contexts, counted through all groups, goes into each slot.
    """

    def __init__(self, texts, n_ctx=0, position="end", context_length=77, groups=None):
        sos, eos = clip.tokenize("")[0, :2].tolist()
        (stop,), (placeholder,) = token_ids([".", "x"])
        before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
        groups = [0] * len(texts) if groups is None else groups
        every = zip(texts, token_ids(map(strip_stop, texts)), groups, strict=True)
        rows, paths = {}, []  # (row of the token before, token) -> row of the token
        for text, words, group in every:
            length = len(words) + n_ctx + 3
            if length > context_length:
                raise InputError(
                    f"{text!r} takes {length} tokens with its context; CLIP reads at most "
                    f"{context_length}: shorten it"
                )
            # Tokens of a context are numbered from -1 downwards.
            context = [-1 - int(group) * n_ctx - i for i in range(n_ctx)]
            path, row = [], None
            for token in [sos, *context[:before], *words, *context[before:], stop, eos]:
                row = rows.setdefault((row, token), len(rows))
                path.append(row)
            paths.append(path)

        longest = max(map(len, paths))
        at = {row: n * longest + i for n, path in enumerate(paths) for i, row in enumerate(path)}
        at = torch.tensor([at[row] for row in range(len(rows))])
        seen = None
        if len(rows) <= MAX_MASKED_ROWS:
            seen = torch.zeros(len(rows), len(rows), dtype=torch.bool)
            for path in map(torch.tensor, paths):
                seen[path.unsqueeze(1), path] = torch.ones(len(path), len(path)).tril().bool()
        tokens = torch.tensor([token for _, token in rows])
        (slots,) = torch.where(tokens < 0)
        self.sources = -1 - tokens[slots]
        self.tokens = tokens.where(tokens >= 0, placeholder)
        self.tree = TokenTree(
            positions=at % longest,
            slots=slots,
            paths=torch.tensor([path + [0] * (longest - len(path)) for path in paths]),
            at=at,
            eos=torch.tensor([len(path) - 1 for path in paths]),
            ends=torch.tensor([path[-1] for path in paths]),
            seen=seen,
        )


@torch.no_grad()
def encode_texts(clip_model, texts):
    """[n, d] features of ``texts`` as they are (a stop is added), not normalised."""
    layout = PromptTokens(texts, context_length=clip_model.context_length)
    return clip_model.encode_prompts(clip_model.read(layout.tokens, layout.tree))


class ContextPrompts(nn.Module):
    """Texts with a learned context; its state is ``ctx`` alone.

    Args:
        clip_model: ``FrozenCLIP``.
        texts: n texts (class names or symptoms).
        n_ctx: context tokens M; 0 learns nothing and reads the texts as they are.
        position: where the words stand, one of ``POSITIONS``.
        start_words: words whose embeddings the context starts from; "" draws N(0, 0.02^2).
        groups: [n] ints for a context of its own for each group; None shares one.

    Attributes:
        inputs: ``TextInputs``, the texts read as far as they do not depend on a context.

    Source: Zhou et al., IJCV 2022, https://arxiv.org/abs/2109.01134, section 3.2.
    """

    def __init__(self, clip_model, texts, n_ctx, position="end", start_words="", groups=None):
        super().__init__()
        layout = PromptTokens(texts, n_ctx, position, clip_model.context_length, groups)
        device = clip_model.device
        if n_ctx:
            self.ctx = nn.Parameter(_start(clip_model, n_ctx, start_words, groups).to(device))
        # Both follow from the texts: a checkpoint holds what was learned, and nothing else.
        self.inputs = clip_model.read(layout.tokens, layout.tree)
        self.register_buffer("sources", layout.sources.to(device), persistent=False)

    def forward(self):
        """The learned context's embeddings where the texts have slots, [1, s, d_txt], or None."""
        if not len(self.sources):
            return None
        return take(self.ctx.reshape(-1, self.ctx.shape[-1]), self.sources).unsqueeze(0)

    def with_contexts(self, contexts):
        """The embeddings for the slots with each of ``contexts`` in place of the learned one.

        Args:
            contexts: [m, n_ctx, d_txt]; with groups, theirs one after the other in dimension 1.

        Returns:
            [m, s, d_txt]
        """
        m, n_tokens, _ = contexts.shape
        each = torch.arange(m, device=contexts.device).unsqueeze(1) * n_tokens
        return take(contexts.flatten(0, 1), self.sources + each)


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
