"""The words nearest to the learned context tokens, and how little they say."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.errors import InputError
from engine.loading import LoadedRun

SAMPLE = 500  # words whose nearest other word is computed, for comparison


@dataclass(frozen=True)
class NearestWords:
    """``rows``: dicts with token, rank, word, distance (Euclidean), cosine.

    ``usual`` is the median distance of a word to its nearest other word.
    """

    rows: list[dict[str, Any]]
    usual: float

    @property
    def caution(self) -> str:
        """How far the words can be relied on."""
        nearest = [row["distance"] for row in self.rows if row["rank"] == 1]
        further = sum(distance > self.usual for distance in nearest)
        return (
            f"{further} of {len(nearest)} context tokens are further from their nearest word (mean "
            f"distance {sum(nearest) / len(nearest):.2f}) than a word usually is from its nearest "
            f"word (median {self.usual:.2f}). A learned vector is not a word: its effect depends "
            "on the tokens around it, and the nearest word says little or nothing about it."
        )


def learned_context(run: LoadedRun) -> tuple[Tensor, list[str]]:
    """[tokens, d_txt] learned context and a name for each token.

    Raises:
        InputError: the run did not learn a context.
    """
    found = [p for name, p in run.model.learned.named_parameters() if name.split(".")[-1] == "ctx"]
    if not found:
        raise InputError(
            f"{run.folder}: {run.cfg.TRAINER.NAME} did not learn a context in this run"
        )
    context = found[0].detach().float()
    if context.dim() == 2:
        return context, [str(i + 1) for i in range(len(context))]
    names = [f"{name} {i + 1}" for name in run.classnames for i in range(context.shape[1])]
    return context.flatten(0, 1), names


@torch.no_grad()
def nearest_words(run: LoadedRun, count: int = 5) -> NearestWords:
    """The ``count`` words of CLIP's vocabulary nearest to each learned context token."""
    context, names = learned_context(run)
    words, table = run.model.backbone.vocabulary()
    table = table.float()
    nearest = torch.cdist(context, table).topk(count, largest=False)  # [tokens, count]
    cosines = torch.cosine_similarity(context[:, None], table[nearest.indices], dim=-1)
    rows = [
        {
            "token": name,
            "rank": rank + 1,
            "word": words[int(nearest.indices[t, rank])],
            "distance": float(nearest.values[t, rank]),
            "cosine": float(cosines[t, rank]),
        }
        for t, name in enumerate(names)
        for rank in range(count)
    ]
    generator = torch.Generator().manual_seed(0)
    sample = torch.randperm(len(table), generator=generator)[:SAMPLE].to(table.device)
    # The nearest but one: the nearest is the word itself.
    others = torch.cdist(table[sample], table).topk(2, largest=False).values[:, 1]
    return NearestWords(rows, float(others.median()))
