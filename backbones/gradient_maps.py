"""Where in an image its similarity to a feature comes from, by gradients.

Functions of tensors, for the image encoders; each encoder says which of its tensors they read.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from backbones.numerics import at_least_fp32

LEAST_SIDE = 7  # positions of a side; CLIP's RN50 ends in 7 x 7 of them


def read_with_weights(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Attention whose weights can be asked for their gradients.

    Args:
        query: [batch, heads, queries, width]. key, value: [batch, heads, keys, width].

    Returns:
        what is read, [batch, heads, queries, width], and the weights [batch, heads, queries, keys].
    """
    weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(dim=-1)
    return weights @ value, weights


def attention_maps(scores: Tensor, weights: Sequence[Tensor], n_patches: int) -> Tensor:
    """What the attention to each patch adds to the scores, where it adds, to first order.

    The map of a score s is the sum over layers, heads and queries of (A * ds/dA)+, with A the
    attention weights.

    Args:
        scores: [batch, n], with gradients to the weights.
        weights: of each layer, [batch, heads, queries, keys].
        n_patches: P; of the keys, the patches are the last, row by row of a square.

    Returns:
        [batch, n, h, w] with h = w, at least zero.

    Source: the weighting of Chefer et al., ICCV 2021, https://arxiv.org/abs/2103.15679, equation 5;
    the sum over layers and queries of LeGrad, Bousselham et al. 2024,
    https://arxiv.org/abs/2404.03214, in place of the first one's product over layers.
    """
    maps = []
    for score in scores.sum(dim=0):
        gradients = torch.autograd.grad(score, weights, retain_graph=True)
        layers = zip(weights, gradients, strict=True)
        added = [
            (at_least_fp32(weight) * at_least_fp32(gradient)).relu().sum(dim=(1, 2))
            for weight, gradient in layers
        ]
        maps.append(torch.stack(added).sum(dim=0)[:, -n_patches:])
    side = round(n_patches**0.5)
    return torch.stack(maps, dim=1).detach().unflatten(2, (side, side))


def grad_cam(scores: Tensor, channels: Tensor) -> Tensor:
    """Grad-CAM of each score.

    Args:
        scores: [batch, n], with gradients to ``channels``.
        channels: [batch, c, h, w], the output of a convolutional layer.

    Returns:
        [batch, n, h, w], at least zero.

    Source: Selvaraju et al., ICCV 2017, https://arxiv.org/abs/1610.02391, equations 1 and 2.
    """
    maps = []
    for score in scores.sum(dim=0):
        (gradient,) = torch.autograd.grad(score, channels, retain_graph=True)
        importance = at_least_fp32(gradient).mean(dim=(2, 3), keepdim=True)
        maps.append((importance * at_least_fp32(channels)).sum(dim=1).relu())
    return torch.stack(maps, dim=1).detach()
