"""Logistic regression on CLIP's frozen image features."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from backbones.backbone import Backbone
from engine.method import FitData, LabelledFeatures, Method, Output, PromptedModel, register
from engine.rules import AtLeastOne, NotNegative
from symptoms import Symptoms

STRENGTHS = [10.0**exponent for exponent in range(-6, 7)]


@register
class LinearProbe(Method):
    """Fit a linear classifier to centre-crop features; validation chooses its regularisation.

    Radford et al. 2021, https://arxiv.org/abs/2103.00020, section 3.2. The one epoch that its log
    speaks of is the whole fit.
    """

    DEFAULTS = {
        "C": 0.0,  # inverse strength of the regularisation; 0: chosen on validation
        "MAX_ITER": 1000,
    }
    RULES = {"C": NotNegative, "MAX_ITER": AtLeastOne}
    place = 20
    sets = ("strong",)
    fitted_at_once = True
    fits_class_weights = True

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        head = nn.Linear(backbone.embed_dim, len(classnames)).to(backbone.device)
        return LinearHead(backbone, head)

    def per_class(self) -> tuple[str, ...]:
        return ("weight", "bias")

    def fit(self, model: PromptedModel, data: FitData) -> None:
        """Fit once for each strength, from the strongest on; keep the best on validation."""
        train, val = arrays(data.train), data.val and arrays(data.val)
        weights = model.class_weights
        by_class = None if weights is None else dict(enumerate(weights.tolist()))
        best = -1.0
        for strength in self.candidates(val):
            fitted = LogisticRegression(
                C=strength, max_iter=self.options.MAX_ITER, class_weight=by_class
            )
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ConvergenceWarning)
                fitted.fit(*train)
            unfinished = any(issubclass(w.category, ConvergenceWarning) for w in caught)
            judged = val or train
            accuracy = fitted.score(*judged)
            print(
                f"C {strength:g}: accuracy {100 * accuracy:.4f}%"
                + (", stopped at MAX_ITER" if unfinished else "")
            )
            if accuracy > best:
                best, chosen = accuracy, fitted
        print(f"C {chosen.C:g} is used")
        assert isinstance(model, LinearHead)
        keep(chosen, model.learned)

    def candidates(self, val: object | None) -> list[float]:
        """The strengths to try, the strongest regularisation first."""
        if self.options.C > 0:
            return [self.options.C]
        if val is None:
            print("There are no validation images to choose C with, so C is 1")
            return [1.0]
        return STRENGTHS


def arrays(data: LabelledFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Features in float64 and labels, as scikit-learn reads them."""
    return data.features.double().cpu().numpy(), data.label.cpu().numpy()


@torch.no_grad()
def keep(fitted: LogisticRegression, head: nn.Linear) -> None:
    """Copy a fitted classifier into a linear layer."""
    weight, bias = torch.from_numpy(fitted.coef_), torch.from_numpy(fitted.intercept_)
    if len(head.weight) == 2:
        # Of two classes scikit-learn keeps the second's score over the first's.
        weight, bias = (torch.cat([torch.zeros_like(x), x]) for x in (weight, bias))
    head.weight.copy_(weight)
    head.bias.copy_(bias)


class LinearHead(PromptedModel):
    """Frozen features and a linear layer, fp32."""

    learned: nn.Linear

    def from_features(self, image_features: Tensor, label: Tensor | None = None) -> Output:
        logits = self.learned(image_features)
        return Output.with_cross_entropy(logits, label, self.class_weights)
