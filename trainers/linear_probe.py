"""Logistic regression on CLIP's frozen image features."""

import warnings
from collections.abc import Callable, Sequence
from copy import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from backbones.backbone import Backbone
from core.late import imported
from engine.labels import has_findings
from engine.method import FitData, LabelledFeatures, Method, Output, PromptedModel, register
from engine.rules import AtLeastOne, NotNegative
from symptoms import Symptoms

if TYPE_CHECKING:  # scikit-learn takes two seconds to import, and only a fit needs it
    from sklearn.linear_model import LogisticRegression

STRENGTHS = [10.0**exponent for exponent in range(-6, 7)]
Arrays = tuple[np.ndarray, np.ndarray]  # features [n, d] and labels
Score = Callable[["LogisticRegression", np.ndarray, np.ndarray], float]


@register
class LinearProbe(Method):
    """Fit a linear classifier to centre-crop features; validation chooses its regularisation.

    Radford et al. 2021, https://arxiv.org/abs/2103.00020, section 3.2. The one epoch that its log
    speaks of is the whole fit. Of several findings an image, each has a logistic regression of its
    own, on the images where it is known; the AUROC on validation chooses its regularisation.
    """

    DEFAULTS = {
        "C": 0.0,  # inverse strength of the regularisation; 0: chosen on validation
        "MAX_ITER": 1000,
    }
    RULES = {"C": NotNegative, "MAX_ITER": AtLeastOne}
    place = 20
    multi_label = True
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
        assert isinstance(model, LinearHead)
        train, val = arrays(data.train), data.val and arrays(data.val)
        weights = model.class_weights
        if has_findings(data.train.label):
            self.fit_findings(model.learned, train, val)
            return
        by_class = None if weights is None else dict(enumerate(weights.tolist()))
        keep(self.best(train, val, accuracy_of, "accuracy", by_class), model.learned)

    def best(
        self,
        train: Arrays,
        val: Arrays | None,
        score: Score,
        name: str,
        by_class: dict[int, float] | None = None,
        warm_start: bool = False,
    ) -> "LogisticRegression":
        """The classifier of the strength that scores best, the strongest of equals.

        With ``warm_start``, each fit begins at the one before: a fifth of the time.
        """
        linear_model = imported("sklearn.linear_model")
        warning = imported("sklearn.exceptions").ConvergenceWarning
        best = -1.0
        fitted = linear_model.LogisticRegression(
            max_iter=self.options.MAX_ITER, class_weight=by_class, warm_start=warm_start
        )
        for strength in self.candidates(val):
            fitted = copy(fitted).set_params(C=strength)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", warning)
                fitted.fit(*train)
            unfinished = any(issubclass(w.category, warning) for w in caught)
            found = score(fitted, *(val or train))
            print(
                f"C {strength:g}: {name} {100 * found:.4f}%"
                + (", stopped at MAX_ITER" if unfinished else "")
            )
            if found > best:
                best, chosen = found, fitted
        print(f"C {chosen.C:g} is used")
        return chosen

    def fit_findings(self, head: nn.Linear, train: Arrays, val: Arrays | None) -> None:
        """Fit each finding on the images where it is known; its absence has a score of zero.

        A finding that training knows only one value of gets a score of zero too.
        """
        weight, bias = torch.zeros_like(head.weight), torch.zeros_like(head.bias)
        for finding in range(train[1].shape[1]):
            known = known_of(train, finding)
            if known is None:
                print(f"finding {finding + 1}: training has one value of it alone; not fitted")
                continue
            print(f"finding {finding + 1}:")
            judged = val and known_of(val, finding)
            # Of 100,000 images, fourteen findings would take minutes otherwise.
            fitted = self.best(known, judged, auroc_of, "AUROC", warm_start=True)
            weight[finding] = torch.from_numpy(fitted.coef_[0])
            bias[finding] = float(fitted.intercept_[0])
        with torch.no_grad():
            head.weight.copy_(weight)
            head.bias.copy_(bias)

    def candidates(self, val: object | None) -> list[float]:
        """The strengths to try, the strongest regularisation first."""
        if self.options.C > 0:
            return [self.options.C]
        if val is None:
            print("There are no validation images to choose C with, so C is 1")
            return [1.0]
        return STRENGTHS


def accuracy_of(fitted: "LogisticRegression", features: np.ndarray, label: np.ndarray) -> float:
    """The share of images that are classified correctly."""
    return float(fitted.score(features, label))


def auroc_of(fitted: "LogisticRegression", features: np.ndarray, label: np.ndarray) -> float:
    """The area under the ROC curve of the second class."""
    return float(
        imported("sklearn.metrics").roc_auc_score(label, fitted.decision_function(features))
    )


def known_of(data: Arrays, finding: int) -> Arrays | None:
    """The images where a finding is known, and its values; None unless it has both values."""
    features, label = data[0], data[1][:, finding]
    known = ~np.isnan(label)
    has_both = len(np.unique(label[known])) == 2
    return (features[known], label[known]) if has_both else None


def arrays(data: LabelledFeatures) -> Arrays:
    """Features in float64 and labels, as scikit-learn reads them."""
    return data.features.double().cpu().numpy(), data.label.cpu().numpy()


@torch.no_grad()
def keep(fitted: "LogisticRegression", head: nn.Linear) -> None:
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
