"""How the short checkpoints of the small CLIPs become whole ones: their tables of tokens."""

import torch
from torch import Tensor

TOKENS = "token_embedding.weight"
USED = "token_embedding.used"  # [n_used, width], rows of the tokens that a caption uses
IDS = "token_embedding.ids"  # [n_used], which tokens these are
ROWS = "token_embedding.rows"  # rows of the whole table
SEED = "token_embedding.seed"  # the other rows are drawn with it
STD = 0.02  # as OpenAI's CLIP draws its token embeddings before training


def expand_token_table(state_dict: dict[str, Tensor], seed: int | None = None) -> dict[str, Tensor]:
    """Make a checkpoint's token table whole; one that is whole is returned as it is.

    Most words occur in no caption, so their rows were never trained and a seed stands for them.

    Args:
        state_dict: OpenAI's keys, with ``token_embedding.{used,ids,rows,seed}`` in the place of
            ``token_embedding.weight``. Not changed.
        seed: for the untrained rows; the checkpoint's own for ``None``.

    Returns:
        A state dict with ``token_embedding.weight`` [rows, width] in fp32.
    """
    if USED not in state_dict:
        return state_dict
    state_dict = dict(state_dict)
    used, ids = state_dict.pop(USED), state_dict.pop(IDS)
    rows, own_seed = int(state_dict.pop(ROWS)), int(state_dict.pop(SEED))
    generator = torch.Generator().manual_seed(own_seed if seed is None else seed)
    table = STD * torch.randn(rows, used.shape[1], generator=generator)
    table[ids.long()] = used.float()
    state_dict[TOKENS] = table
    return state_dict
