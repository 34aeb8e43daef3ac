"""CoOp: a learned context in front of the class names."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor

from backbones.backbone import Backbone
from backbones.texts import POSITIONS
from engine.method import ClassFeatureModel, Method, PromptedModel, register
from engine.prompts import ContextPrompts, check_names
from engine.rules import AtLeastOne
from symptoms import Symptoms


@register
class CoOp(Method):
    """Context Optimization: learn the words around the class name.

    Zhou et al., IJCV 2022, https://arxiv.org/abs/2109.01134
    """

    DEFAULTS = {
        "N_CTX": 4,  # learned tokens, M
        "CTX_INIT": "",  # words the context starts from; empty: random
        "CSC": False,  # a context of its own for each class
        "CLASS_TOKEN_POSITION": "end",  # position of the class name: end, middle or front
    }
    RULES = {"N_CTX": AtLeastOne, "CLASS_TOKEN_POSITION": Literal[POSITIONS]}
    place = 30
    multi_label = True
    sets: ClassVar[tuple[Literal["paper", "strong"], ...]] = ("paper",)

    def prompts(self, backbone: Backbone, classnames: Sequence[str]) -> ContextPrompts:
        """The class names with the learned context that the options describe."""
        options = self.options
        check_names(classnames, backbone)
        return ContextPrompts(
            backbone,
            classnames,
            options.N_CTX,
            options.CLASS_TOKEN_POSITION,
            options.CTX_INIT,
            range(len(classnames)) if options.CSC else None,
        )

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        return PromptedCLIP(backbone, self.prompts(backbone, classnames))

    def per_class(self) -> tuple[str, ...]:
        return ("ctx",) if self.options.CSC else ()


class PromptedCLIP(ClassFeatureModel):
    """Class features of prompts with a context.

    Args:
        backbone: a frozen backbone.
        learned: ``ContextPrompts``, one text a class.
    """

    learned: ContextPrompts

    def class_features(self) -> Tensor:
        prompts = self.learned
        return self.backbone.encode_text(prompts.inputs, prompts())
