"""Zero-shot CLIP, by class names or by symptoms: nothing learns."""

from collections.abc import Sequence
from typing import Literal

from backbones.backbone import Backbone
from engine.method import Method, PromptedModel, register
from engine.prompts import START_WORDS, check_names, check_phrases
from symptoms import Symptoms

from .vip import SymptomCLIP


@register
class ZeroshotCLIP(Method):
    """Score a class by ``a photo of a {classname}.`` or by the average of its symptoms.

    Radford et al. 2021, https://arxiv.org/abs/2103.00020; symptoms: Fang et al., MICCAI 2024,
    section 3.2.
    """

    DEFAULTS = {
        "PROMPTS": "names",  # names or symptoms
        "SYMPTOMS": "",  # a symptom file; empty: the dataset's own
    }
    RULES = {"PROMPTS": Literal["names", "symptoms"]}
    place = 10
    multi_label = True
    sets = ("paper",)
    rows = ({}, {"PROMPTS": "symptoms"})
    seeded = False
    explainable = True

    @property
    def reads_symptoms(self) -> bool:
        return self.options.PROMPTS == "symptoms"

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        if symptoms:
            check_phrases(symptoms, backbone, n_ctx=0)
            phrases = symptoms.phrases
        else:
            check_names(classnames, backbone)
            phrases = {name: [f"{START_WORDS} {name}"] for name in classnames}
        # The average of one text is that text: both ways are one.
        return SymptomCLIP(backbone, phrases, n_ctx=0, merge="mean")
