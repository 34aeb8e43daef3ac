"""GDA: zero-shot CLIP plus a Gaussian classifier of its image features, without training."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.backbone import Backbone
from backbones.numerics import cosine_logits
from engine.method import FitData, Method, Output, PromptedModel, accuracy_on, register
from engine.prompts import class_text_features
from engine.rules import AtLeastOne, NotNegative
from symptoms import Symptoms

ALPHAS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
ALPHA_WITHOUT_VALIDATION = 0.1  # what the released code's search starts from


@register
class GDA(Method):
    """Gaussian discriminant analysis with one covariance of all classes, added to zero-shot CLIP.

    Wang et al., ICLR 2024, https://arxiv.org/abs/2402.04087

    As in the released code, all classes have the same prior probability, however many images they
    have, and the Gaussians are estimated from random views. The code's temperature is a fixed 100;
    here it is the model's own. The code averages over several templates for some datasets; here the
    text is ``a photo of a {classname}.``. Its classifiers for new classes are not built.
    """

    DEFAULTS = {
        "ALPHA": 0.0,  # weight of the Gaussian classifier; 0: chosen on validation
        "PASSES": 10,  # random views of each training image
    }
    RULES = {"ALPHA": NotNegative, "PASSES": AtLeastOne}
    place = 24
    sets = ("strong",)
    fitted_at_once = True

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        return GaussianCLIP(backbone, class_text_features(backbone, classnames))

    def per_class(self) -> tuple[str, ...]:
        return ("weight", "bias")

    @torch.no_grad()
    def fit(self, model: PromptedModel, data: FitData) -> None:
        """Estimate the Gaussians; keep the smallest of the best weights on validation."""
        assert isinstance(model, GaussianCLIP)
        features = F.normalize(data.augmented(self.options.PASSES).flatten(0, 1), dim=-1)
        label = data.train.label.repeat(self.options.PASSES)
        weight, bias = gaussian_classifier(features, label, len(model.known))
        best = -1.0
        for alpha in self.candidates(data):
            model.learned.weight.copy_(alpha * weight)
            model.learned.bias.copy_(alpha * bias)
            accuracy = accuracy_on(model, data.val or data.train)
            print(f"ALPHA {alpha:g}: accuracy {100 * accuracy:.4f}%")
            if accuracy > best:
                best, chosen = accuracy, alpha
        model.learned.weight.copy_(chosen * weight)
        model.learned.bias.copy_(chosen * bias)
        print(f"ALPHA {chosen:g} is used")

    def candidates(self, data: FitData) -> tuple[float, ...]:
        """The weights to try, the smallest first."""
        if self.options.ALPHA > 0:
            return (self.options.ALPHA,)
        if data.val is None:
            print(
                "There are no validation images to choose ALPHA with, "
                f"so ALPHA is {ALPHA_WITHOUT_VALIDATION:g}"
            )
            return (ALPHA_WITHOUT_VALIDATION,)
        return ALPHAS


def gaussian_classifier(features: Tensor, label: Tensor, n_cls: int) -> tuple[Tensor, Tensor]:
    """The linear classifier of Gaussians with one covariance and equally likely classes.

    With the class means mu and the covariance S of features less their class mean, the precision
    is P = d ((n - 1) S + tr(S) I)^-1, w_c = P mu_c and b_c = -log n_cls - mu_c . P mu_c / 2.

    Args:
        features: [n, d] with n of at least 2. label: [n]; every class occurs.

    Returns:
        weight [n_cls, d] and bias [n_cls], in float64.

    Source: Wang et al., ICLR 2024, section 3.
    """
    features = features.double()
    n, d = features.shape
    members = F.one_hot(label, n_cls).to(features).t()  # [n_cls, n]
    means = members @ features / members.sum(dim=1, keepdim=True)
    centred = features - means[label]
    scatter = centred.t() @ centred  # (n - 1) S
    spread = scatter.trace() / (n - 1)
    ridge = spread * torch.eye(d, dtype=features.dtype, device=features.device)
    # One view of each class has no spread at all: the pseudo-inverse is then zero.
    weight = d * means @ torch.linalg.pinv(scatter + ridge, hermitian=True)
    prior = -torch.tensor(n_cls, dtype=features.dtype, device=features.device).log()
    return weight, prior - (weight * means).sum(dim=1) / 2


class GaussianCLIP(PromptedModel):
    """Logits s f . t_c + alpha (f . w_c + b_c) of unit features; the state is alpha w and alpha b.

    Args:
        backbone: a frozen backbone.
        known: [n_cls, d], t.
    """

    learned: nn.Linear
    known: Tensor

    def __init__(self, backbone: Backbone, known: Tensor) -> None:
        super().__init__(backbone, nn.Linear(known.shape[1], len(known)).to(backbone.device))
        self.register_buffer("known", known, persistent=False)

    def from_features(self, image_features: Tensor, label: Tensor | None = None) -> Output:
        zero_shot = cosine_logits(image_features, self.known, self.backbone.logit_scale)
        logits = zero_shot + self.learned(F.normalize(image_features, dim=-1))
        return Output.with_cross_entropy(logits, label)
