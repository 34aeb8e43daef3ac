"""Top-k accuracy, for the installed Dassl too: its own fails for k > 1 on today's PyTorch."""

from collections.abc import Sequence

from torch import Tensor


def compute_accuracy(
    output: Tensor | Sequence[Tensor], target: Tensor, topk: Sequence[int] = (1,)
) -> list[Tensor]:
    """Percentage of samples whose label is among the k highest scores.

    Args:
        output: [batch, n_cls] scores, or a tuple or list that starts with them.
        target: [batch] labels.
        topk: the values of k.

    Returns:
        One tensor of shape [1] for each k, between 0 and 100.
    """
    scores = output if isinstance(output, Tensor) else output[0]
    ranked = scores.topk(max(topk), dim=1).indices  # [batch, max k]
    hits = ranked == target.reshape(-1, 1)
    return [hits[:, :k].any(dim=1).float().mean().reshape(1) * 100 for k in topk]
