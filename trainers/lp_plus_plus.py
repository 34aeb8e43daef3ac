"""LP++: a linear probe with the class names' text features blended in."""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.backbone import Backbone
from engine.method import (
    FitData,
    LabelledFeatures,
    Method,
    Output,
    PromptedModel,
    accuracy_on,
    register,
)
from engine.prompts import class_text_features
from engine.rules import AtLeastOne
from symptoms import Symptoms

ALPHA_START = 250.0
ALPHA_EVERY = 10  # epochs from one step of alpha to the next
MOMENTUM = 0.9


@register
class LPPlusPlus(Method):
    """Fit a linear probe whose class weights are w_c + alpha_c t_c, with step sizes from the data.

    Huang et al., CVPR 2024, https://arxiv.org/abs/2404.02285

    The bias, the momentum and the rates are the released code's. That code never clears the
    gradient of alpha, so each step of alpha follows the sum of the gradients of all epochs so far.
    The paper's block descent follows the current gradient, and so does this; ``ACCUMULATE`` follows
    the sum. The code's number of shots cancels out, so classes may have unequal numbers of images:
    w_c then starts longer for a class with more. The code has a template for each dataset; here the
    text is ``a photo of a {classname}.``, as for the other methods.
    """

    DEFAULTS = {
        "EPOCHS": 300,  # steps on all training images
        "ACCUMULATE": False,  # alpha follows the sum of its gradients, as the released code does
    }
    RULES = {"EPOCHS": AtLeastOne}
    place = 21
    sets = ("strong",)
    fitted_at_once = True

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        return BlendedProbe(backbone, class_text_features(backbone, classnames))

    def per_class(self) -> tuple[str, ...]:
        return ("weight", "bias", "alpha")

    def fit(self, model: PromptedModel, data: FitData) -> None:
        """Descend for ``EPOCHS``; keep the best epoch on validation, the last of equals."""
        assert isinstance(model, BlendedProbe)
        best = -1.0
        for epoch in self.descend(model, data.train):
            if data.val is None:
                continue
            accuracy = accuracy_on(model, data.val)
            if accuracy >= best:
                best, chosen, state = accuracy, epoch, copy.deepcopy(model.learned.state_dict())
        if data.val is None:
            print("There are no validation images to choose the epoch with, so it is the last")
            return
        model.learned.load_state_dict(state)
        of_all = f"epoch {chosen} of {self.options.EPOCHS}"
        print(f"{of_all} is used: validation accuracy {100 * best:.4f}%")

    def descend(self, model: "BlendedProbe", train: LabelledFeatures) -> Iterator[int]:
        """Yield the number of each epoch after its steps, the first of which is 1."""
        head = model.learned
        model.start(train)
        rate, alpha_rate = model.rates(train.features)
        optimizer = torch.optim.SGD([head.weight, head.bias], rate, momentum=MOMENTUM)

        def loss() -> Tensor:
            return model.from_features(*train).losses["cross_entropy"]

        for epoch in range(1, self.options.EPOCHS + 1):
            optimizer.zero_grad()  # of w and b; that of alpha adds up
            loss().backward()
            optimizer.step()
            if epoch % ALPHA_EVERY == 0:
                if not self.options.ACCUMULATE:
                    (head.alpha.grad,) = torch.autograd.grad(loss(), [head.alpha])
                with torch.no_grad():
                    head.alpha.sub_(alpha_rate * head.alpha.grad)
            yield epoch


class BlendedLinear(nn.Linear):
    """w, b and alpha of each class."""

    def __init__(self, embed_dim: int, n_cls: int) -> None:
        super().__init__(embed_dim, n_cls)
        self.alpha = nn.Parameter(torch.ones(n_cls))


class BlendedProbe(PromptedModel):
    """Logits w_c . f + b_c + alpha_c (f . t_c) of unit features f and t, without a temperature.

    Args:
        backbone: a frozen backbone.
        known: [n_cls, d], t.

    Source: Huang et al., CVPR 2024, section 3.
    """

    learned: BlendedLinear
    known: Tensor

    def __init__(self, backbone: Backbone, known: Tensor) -> None:
        head = BlendedLinear(known.shape[1], len(known)).to(backbone.device)
        super().__init__(backbone, head)
        self.register_buffer("known", known, persistent=False)

    def from_features(self, image_features: Tensor, label: Tensor | None = None) -> Output:
        features, head = F.normalize(image_features, dim=-1), self.learned
        logits = head(features) + head.alpha * (features @ self.known.t())
        return Output.with_cross_entropy(logits, label)

    @torch.no_grad()
    def start(self, train: LabelledFeatures) -> None:
        """Put w at the sum of a class's features, alpha at 250 times the classes' mean cosine.

        The bias stays where PyTorch drew it.
        """
        features = F.normalize(train.features, dim=-1)
        members = F.one_hot(train.label, len(self.known)).to(features).t()  # [n_cls, n]
        self.learned.weight.copy_(members @ features)
        cosines = (members * (self.known @ features.t())).sum(dim=1) / members.sum(dim=1)
        self.learned.alpha.fill_(ALPHA_START * cosines.mean())

    def rates(self, image_features: Tensor) -> tuple[float, float]:
        """The step sizes of (w, b) and of alpha, from bounds on the curvature of the loss."""
        features = F.normalize(image_features, dim=-1)
        largest = torch.linalg.matrix_norm(features, ord=2).square()  # lambda_max of F'F
        cosines = (features @ self.known.t()).square().sum(dim=0)  # [n_cls]
        n = len(features)
        return (4 * n / largest).item(), (n / (4 * cosines.max())).item()
