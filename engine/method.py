"""The contract of a method: it builds a model from a backbone and class names.

A method needs no trainer, no images and no optimiser::

    method = METHODS["CoOp"](N_CTX=8)
    model = method.build(backbone, ["melanoma", "nevus"])
    logits, losses = model(images, label)
"""

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from backbones.backbone import Backbone
from backbones.device import PRECISIONS
from backbones.numerics import cosine_logits
from core.errors import InputError
from datasets.features import Encoder
from engine.labels import label_loss
from engine.rules import check_value, rule_of_default
from symptoms import Symptoms

METHODS: dict[str, type["Method"]] = {}  # trainer name -> method, in the order of registration

_M = TypeVar("_M", bound=type["Method"])


class DoesNotApply(InputError):
    """The method is not defined for this backbone; the message says why."""


class Output(NamedTuple):
    """What a model returns.

    Attributes:
        logits: [batch, n_cls].
        losses: name -> scalar, already weighted; training minimises their sum. Empty without
            labels.
    """

    logits: Tensor
    losses: dict[str, Tensor]

    @classmethod
    def with_cross_entropy(
        cls, logits: Tensor, label: Tensor | None, class_weights: Tensor | None = None
    ) -> "Output":
        """Logits whose one loss, where there are labels, is the cross-entropy."""
        if label is None:
            return cls(logits, {})
        return cls(logits, {"cross_entropy": label_loss(logits, label, class_weights)})


class PromptedModel(nn.Module):
    """A frozen backbone and what a method learns beside it.

    A method gives ``learned``, a module whose state is what a checkpoint holds, and
    ``from_features``.
    """

    max_gradient_norm: float | None = None  # gradients are clipped to this norm; None: not at all
    class_weights: Tensor | None = None  # [n_cls] of the cross-entropy; the trainer sets them

    def __init__(self, backbone: Backbone, learned: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.learned = learned

    @property
    def image_encoder(self) -> Encoder:
        """What makes the image features that ``from_features`` reads and that are kept."""
        return self.backbone

    def forward(self, images: Tensor, label: Tensor | None = None) -> Output:
        """Images [batch, 3, H, W] and, for the losses, labels as ``label_loss`` reads them."""
        return self.from_features(self.image_encoder.encode_image(images), label)

    def from_features(self, image_features: Tensor, label: Tensor | None = None) -> Output:
        """The same from the features [batch, d] of ``image_encoder``, of any norm."""
        raise NotImplementedError

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """What the optimiser gets: groups of parameters, each with its learning rate."""
        return [{"params": [p for p in self.learned.parameters() if p.requires_grad], "lr": lr}]

    def backward(self, losses: Mapping[str, Tensor], scaled: Callable[[Tensor], Tensor]) -> None:
        """Leave in the learned parameters the gradient of the step: by default, of the losses' sum.

        Args:
            scaled: multiplies a loss so that gradients in half precision do not vanish.
        """
        total: Any = sum(losses.values())
        scaled(total).backward()

    def end_epoch(self, epoch: int, max_epoch: int) -> None:
        """Called after the steps of each epoch, the first of which is 1, and before validation."""


class ClassFeatureModel(PromptedModel):
    """A model whose class features do not depend on the image: they are encoded once a step."""

    def __init__(self, backbone: Backbone, learned: nn.Module) -> None:
        super().__init__(backbone, learned)
        self._kept: tuple[tuple, Tensor] | None = None

    def class_features(self) -> Tensor:
        """[n_cls, d], of any norm."""
        raise NotImplementedError

    def score(self, image_features: Tensor, class_features: Tensor) -> Tensor:
        """[batch, n_cls] logits."""
        return cosine_logits(image_features, class_features, self.backbone.logit_scale)

    def losses(self, logits: Tensor, label: Tensor, class_features: Tensor) -> dict[str, Tensor]:
        """The named losses of a batch."""
        return {"cross_entropy": label_loss(logits, label, self.class_weights)}

    def from_features(self, image_features: Tensor, label: Tensor | None = None) -> Output:
        class_features = self.current_features()
        logits = self.score(image_features, class_features)
        return Output(logits, {} if label is None else self.losses(logits, label, class_features))

    def current_features(self) -> Tensor:
        """``class_features()``, encoded once for as long as no learned number changes."""
        if torch.is_grad_enabled():
            return self.class_features()
        versions = self.versions()
        if self._kept is None or self._kept[0] != versions:
            self._kept = versions, self.class_features()
        return self._kept[1]

    def versions(self) -> tuple:
        """What differs after any change of a learned number."""
        # In-place updates, by an optimiser or by loading, raise a tensor's version.
        learned = (*self.learned.parameters(), *self.learned.buffers())
        return (self.learned.training, *((id(tensor), tensor._version) for tensor in learned))


class Method:
    """How to build a model, and what the rest of the program must know of it.

    Args:
        options: values for keys of ``DEFAULTS`` and ``SHARED_DEFAULTS``; the others keep theirs.

    Raises:
        InputError: an option has a value that the method does not accept.
    """

    DEFAULTS: ClassVar[dict[str, Any]] = {}  # the options under TRAINER.<NAME>
    RULES: ClassVar[dict[str, Any]] = {}  # option -> type; else that of its default
    SHARED_DEFAULTS: ClassVar[dict[str, Any]] = {"PREC": "fp16"}
    SHARED_RULES: ClassVar[dict[str, Any]] = {"PREC": Literal[PRECISIONS]}
    place: ClassVar[int] = 1000  # position of its row in a table, from the top
    seeded: ClassVar[bool] = True  # False: every seed gives the same result
    fitted_at_once: ClassVar[bool] = False  # it has ``fit`` in place of training steps
    explainable: ClassVar[bool] = False  # where it reads symptoms, its model is a ``SymptomModel``
    fits_class_weights: ClassVar[bool] = False  # whether ``fit`` reads ``model.class_weights``
    texts_per_image: ClassVar[bool] = False  # each image has texts of its own: a long run
    multi_label: ClassVar[bool] = False  # it also learns from several findings an image
    checkpoint_name: ClassVar[str] = "prompt_learner"  # the folder of its checkpoints
    # Its rows in a comparison, each with its options; and the named sets that have these rows.
    rows: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    sets: ClassVar[tuple[Literal["paper", "strong"], ...]] = ()
    GRID: ClassVar[dict[str, tuple]] = {}  # option -> the values that scripts/tune.sh tries

    def __init__(self, **options: Any) -> None:
        defaults = self.defaults()
        if unknown := options.keys() - defaults.keys():
            raise InputError(f"{type(self).__name__} has no option {', '.join(sorted(unknown))}")
        for option, value in options.items():
            check_value(option, value, self.rule(option))
        self.options = SimpleNamespace(**{**defaults, **options})

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Every option with its default."""
        return {**cls.SHARED_DEFAULTS, **cls.DEFAULTS}

    @classmethod
    def rule(cls, option: str) -> Any:
        """The type whose values the option may have."""
        rules = {**cls.SHARED_RULES, **cls.RULES}
        return rules.get(option, rule_of_default(cls.defaults().get(option)))

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def reads_symptoms(self) -> bool:
        """Whether ``build`` needs symptoms."""
        return False

    @property
    def learns_image_encoder(self) -> bool:
        """Whether something on the image side learns; then image features cannot be kept."""
        return False

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        """The model, on the backbone's device.

        Raises:
            DoesNotApply: the method is not defined for this backbone.
        """
        raise NotImplementedError

    def fit(self, model: PromptedModel, data: "FitData") -> None:
        """Fit ``model.learned`` to image features; only where ``fitted_at_once``."""
        raise NotImplementedError

    # -- checkpoints ----------------------------------------------------------------------------

    def adapt_state_dict(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename or drop what checkpoints of other implementations hold beyond ours."""
        # The fixed token embeddings follow from the class names.
        return {k: v for k, v in state_dict.items() if not k.endswith(("_prefix", "_suffix"))}

    def per_class(self) -> tuple[str, ...]:
        """Keys of the learned state whose rows are the classes, in their order."""
        return ()

    def new_class_row(self, key: str, rows: Tensor) -> Tensor | None:
        """The row of a class that training did not see; None where the method defines none.

        Args:
            key: one of ``per_class()``. rows: its tensor, one row for each trained class.
        """
        return None


class LabelledFeatures(NamedTuple):
    """Image features [n, d], of any norm, and their labels, on the backbone's device.

    The labels are [n] integers; of several findings an image, [n, F] floats with NaN for unknown.
    """

    features: Tensor
    label: Tensor


class FitData(NamedTuple):
    """What a method that is ``fitted_at_once`` learns from.

    Attributes:
        train: the training images, seen as at test time (no augmentation).
        val: the validation images, None where there are none.
        augmented: makes [passes, n, d] features of random views of the training images, for a
            number of passes; the views of epochs 1, 2, ... of the methods that train step by step.
    """

    train: LabelledFeatures
    val: LabelledFeatures | None
    augmented: Callable[[int], Tensor]


@torch.no_grad()
def accuracy_on(model: PromptedModel, data: LabelledFeatures) -> float:
    """The share of correct predictions, from 0 to 1."""
    logits = model.from_features(data.features).logits
    return (logits.argmax(dim=1) == data.label).double().mean().item()


def register(method: _M) -> _M:
    """Make a method known under its class's name; a decorator."""
    METHODS[method.__name__] = method
    return method
