"""How often a score is right; for both foundations, as Dassl's own fails for k > 1 today."""


def compute_accuracy(output, target, topk=(1,)):
    """Percentage of samples whose label is among the k highest scores.

    Args:
        output: [batch, n_cls] scores, or a tuple or list that starts with them.
        target: [batch] labels.
        topk: the values of k.

    Returns:
        One tensor of shape [1] for each k, between 0 and 100.
    """
    if isinstance(output, (tuple, list)):
        output = output[0]
    ranked = output.topk(max(topk), dim=1).indices  # [batch, max k]
    hits = ranked == target.reshape(-1, 1)
    return [hits[:, :k].any(dim=1).float().mean().reshape(1) * 100 for k in topk]
