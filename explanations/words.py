"""Which words the learned context tokens are near, and how little that says."""

from dataclasses import dataclass

import torch

from core.errors import InputError

SAMPLE = 500  # words whose own nearest neighbour is looked up, for comparison


@dataclass(frozen=True)
class NearestWords:
    """``rows``: dicts with token, rank, word, distance (Euclidean), cosine.

    ``usual`` is the distance at which half of all words have their nearest other word.
    """

    rows: list
    usual: float

    @property
    def caution(self):
        """What the distances allow to be said."""
        nearest = [row["distance"] for row in self.rows if row["rank"] == 1]
        further = sum(distance > self.usual for distance in nearest)
        return (
            f"{further} of {len(nearest)} context tokens lie further from their nearest word (on "
            f"average {sum(nearest) / len(nearest):.2f}) than a word usually lies from its nearest "
            f"({self.usual:.2f}). A learned vector is no word: what it does depends on the tokens "
            "around it, and the nearest word says little, often nothing, about its meaning."
        )


def context_of(run):
    """[tokens, d_txt] learned context and a name for each token.

    Raises:
        InputError: the run learned none.
    """
    found = [p for name, p in run.model.learned.named_parameters() if name.split(".")[-1] == "ctx"]
    if not found:
        raise InputError(f"{run.folder}: {run.cfg.TRAINER.NAME} learned no context in this run")
    context = found[0].detach().float()
    if context.dim() == 2:
        return context, [str(i + 1) for i in range(len(context))]
    names = [f"{name} {i + 1}" for name in run.classnames for i in range(context.shape[1])]
    return context.flatten(0, 1), names


@torch.no_grad()
def nearest_words(run, count=5):
    """The ``count`` words of CLIP's vocabulary nearest to each learned context token.

    Returns:
        ``NearestWords``.
    """
    context, names = context_of(run)
    words, table = run.model.backbone.vocabulary()
    table = table.float()
    distances = torch.cdist(context, table)  # [tokens, words]
    nearest = distances.topk(count, largest=False)
    rows = []
    for t, name in enumerate(names):
        for rank in range(count):
            at = int(nearest.indices[t, rank])
            cosine = torch.cosine_similarity(context[t], table[at], dim=0)
            rows.append(
                {
                    "token": name,
                    "rank": rank + 1,
                    "word": words[at],
                    "distance": float(nearest.values[t, rank]),
                    "cosine": float(cosine),
                }
            )
    generator = torch.Generator().manual_seed(0)
    sample = torch.randperm(len(table), generator=generator)[:SAMPLE].to(table.device)
    # The nearest but one: the nearest is the word itself.
    others = torch.cdist(table[sample], table).topk(2, largest=False).values[:, 1]
    return NearestWords(rows, float(others.median()))
