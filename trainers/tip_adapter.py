"""Tip-Adapter: a cache of the training images' features beside zero-shot CLIP."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.backbone import Backbone
from backbones.numerics import at_least_fp32, cosine_logits
from engine.method import FitData, LabelledFeatures, Method, Output, PromptedModel, register
from engine.prompts import class_text_features
from engine.rules import AtLeastOne, NotNegative, Positive
from symptoms import Symptoms

SEARCHED_AT_ONCE = 2**24  # numbers; 64 MB in fp32


@register
class TipAdapter(Method):
    """Add the labels of similar training images to zero-shot CLIP's scores.

    Zhang et al., ECCV 2022, https://arxiv.org/abs/2207.09519. Nothing is trained: validation
    chooses alpha and beta.

    The released code differs in three points. It has 100 in place of the model's logit scale. It
    has another grid for each dataset; here all have the widest, that of its medical versions. On
    ImageNet it searches on the test images.
    """

    DEFAULTS: ClassVar[dict[str, Any]] = {
        "ALPHA": 1.0,  # the cache's weight where there are no validation images
        "BETA": 1.0,  # how fast a cached image's weight falls with its distance; likewise
        "SEARCH_SCALE": (50.0, 50.0),  # upper ends of the grids of beta and alpha
        "SEARCH_STEP": (200, 200),  # their numbers of values
        "VIEWS": 10,  # augmented views of an image whose mean feature is its key
        "MAX_CACHE": 20000,  # cached images at most, as many of each class as possible
    }
    RULES: ClassVar[dict[str, Any]] = {
        "ALPHA": NotNegative,
        "BETA": NotNegative,
        "SEARCH_SCALE": tuple[Positive, Positive],
        "SEARCH_STEP": tuple[AtLeastOne, AtLeastOne],
        "VIEWS": AtLeastOne,
        "MAX_CACHE": AtLeastOne,
    }
    place = 25
    sets = ("strong",)
    fitted_at_once = True
    keys_learn = False  # whether gradients change the keys

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        options = self.options
        shape = len(classnames), backbone.embed_dim
        cache = Cache(*shape, options.ALPHA, options.BETA, self.keys_learn)
        return CachedCLIP(backbone, classnames, cache.to(backbone.device))

    def per_class(self) -> tuple[str, ...]:
        return ("values",)

    def fit(self, model: PromptedModel, data: FitData) -> None:
        assert isinstance(model, CachedCLIP)
        self.fill(model.learned, data.augmented(self.options.VIEWS), data.train.label)
        self.search(model, data.val)

    def fill(self, cache: "Cache", views: Tensor, label: Tensor) -> None:
        """Fill the cache with the mean features of n training images.

        Args:
            views: [passes, n, d] features of their random views. label: [n].
        """
        chosen = evenly(label, self.options.MAX_CACHE)
        if len(chosen) < len(label):
            print(f"MAX_CACHE: {len(chosen)} of {len(label)} training images are cached")
        cache.hold(F.normalize(views[:, chosen].mean(dim=0), dim=-1), label[chosen])

    def search(self, model: "CachedCLIP", val: LabelledFeatures | None) -> None:
        """Choose beta and alpha on validation; of equals the first, as the released code does."""
        if val is None:
            print(
                "There are no validation images to choose alpha and beta with, so they are "
                f"{self.options.ALPHA:g} and {self.options.BETA:g}"
            )
            return
        # i (end - 0.1) / steps + 0.1: the released code's values, without the end.
        betas, alphas = (
            (torch.arange(steps).double() * (end - 0.1) / steps + 0.1).to(model.known)
            for end, steps in zip(self.options.SEARCH_SCALE, self.options.SEARCH_STEP, strict=True)
        )
        correct = count_correct(model, val, betas, alphas)
        i, j = divmod(int(correct.argmax()), len(alphas))
        alpha, beta, accuracy = alphas[j], betas[i], 100 * int(correct[i, j]) / len(val.label)
        model.learned.alpha.data.copy_(alpha)
        model.learned.beta.data.copy_(beta)
        print(f"alpha {alpha:g} and beta {beta:g} are used: validation accuracy {accuracy:.4f}%")


def new_draws() -> torch.Generator:
    """Draws that follow from the run's seed alone, not from what was drawn before."""
    return torch.Generator().manual_seed(torch.initial_seed())


def evenly(label: Tensor, most: int) -> Tensor:
    """Indices of at most ``most`` images, drawn, with as equal counts of the classes as can be."""
    order = torch.randperm(len(label), generator=new_draws()).to(label.device)
    of_class = F.one_hot(label[order])
    earlier = (of_class.cumsum(dim=0) * of_class).sum(dim=1)  # 1 for the first of its class, ...
    return order[earlier.argsort(stable=True)][:most].sort().values


@torch.no_grad()
def count_correct(
    model: "CachedCLIP", data: LabelledFeatures, betas: Tensor, alphas: Tensor
) -> Tensor:
    """[n_beta, n_alpha] counts of correct predictions with each pair."""
    cache = model.learned
    correct = torch.zeros(len(betas), len(alphas), dtype=torch.long, device=betas.device)
    widest = max(len(cache.keys), len(alphas) * len(cache.values))
    rows = max(1, SEARCHED_AT_ONCE // widest)
    for features, label in zip(data.features.split(rows), data.label.split(rows), strict=True):
        zero_shot, affinity = model.zero_shot(features), cache.affinity(features)
        for i, beta in enumerate(betas):
            cached = cache.votes(affinity, beta)
            logits = zero_shot + alphas[:, None, None] * cached  # [n_alpha, rows, n_cls]
            correct[i] += (logits.argmax(dim=-1) == label).sum(dim=1)
    return correct


class Cache(nn.Module):
    """What is kept of N training images; N is 0 until they are known.

    Attributes:
        keys: [N, d] unit features. values: [n_cls, N], 1 where the image is of the class.
        alpha, beta: scalars. Validation chooses them, so they count as learned.
    """

    keys: Tensor
    values: Tensor

    def __init__(
        self, n_cls: int, d: int, alpha: float, beta: float, keys_learn: bool = False
    ) -> None:
        super().__init__()
        if keys_learn:
            self.keys = nn.Parameter(torch.empty(0, d))
        else:
            self.register_buffer("keys", torch.empty(0, d))
        self.register_buffer("values", torch.empty(n_cls, 0))
        self.alpha = nn.Parameter(torch.tensor(alpha))
        self.beta = nn.Parameter(torch.tensor(beta))

    def hold(self, keys: Tensor, label: Tensor) -> None:
        """Keep images by their unit features [N, d] and labels [N]."""
        # In place, because an optimiser may know the parameter.
        self.keys.data = keys
        self.values = F.one_hot(label, len(self.values)).t().to(keys)

    def affinity(self, image_features: Tensor) -> Tensor:
        """[batch, N] products of the unit features with the keys: cosines, until the keys learn."""
        return F.normalize(at_least_fp32(image_features), dim=-1) @ self.keys.t()

    def votes(self, affinity: Tensor, beta: Tensor) -> Tensor:
        """[batch, n_cls] sums of exp(-beta (1 - affinity)) over each class's images."""
        return (-beta * (1 - affinity)).exp() @ self.values.t()

    def forward(self, image_features: Tensor) -> Tensor:
        """[batch, n_cls] what the cache adds to the logits."""
        return self.alpha * self.votes(self.affinity(image_features), self.beta)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        # N follows from the training set, so a model that is yet to load has none.
        for name, dim in (("keys", 0), ("values", 1)):
            saved, own = state_dict.get(f"{prefix}{name}"), getattr(self, name)
            if saved is not None and saved.dim() == 2:
                shape = list(own.shape)
                shape[dim] = saved.shape[dim]
                own.data = own.new_empty(shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class CachedCLIP(PromptedModel):
    """Zero-shot CLIP and a cache: s f . t_c + alpha sum_i exp(-beta (1 - f . F_i)) L_ic.

    Source: Zhang et al., ECCV 2022, section 3.1.
    """

    known: Tensor
    learned: Cache

    def __init__(self, backbone: Backbone, classnames: Sequence[str], learned: Cache) -> None:
        super().__init__(backbone, learned)
        known = class_text_features(backbone, classnames)
        self.register_buffer("known", known, persistent=False)

    def zero_shot(self, image_features: Tensor) -> Tensor:
        """[batch, n_cls] zero-shot CLIP's logits."""
        return cosine_logits(image_features, self.known, self.backbone.logit_scale)

    def from_features(self, image_features: Tensor, label: Tensor | None = None) -> Output:
        logits = self.zero_shot(image_features) + self.learned(image_features)
        return Output.with_cross_entropy(logits, label)
