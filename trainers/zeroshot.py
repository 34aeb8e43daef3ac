"""Zero-shot CLIP, by class names or by symptoms: nothing learns."""

from dassl.engine import TRAINER_REGISTRY

from core.errors import InputError
from engine.prompts import START_WORDS
from engine.trainer import PromptTrainer, symptom_path

from .vip import SymptomCLIP

PROMPTS = ("names", "symptoms")


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(PromptTrainer):
    """Score a class by ``a photo of a {classname}.`` or by the average of its symptoms.

    Radford et al. 2021, https://arxiv.org/abs/2103.00020; symptoms: Fang et al., MICCAI 2024,
    section 3.2.
    """

    DEFAULTS = {
        "PROMPTS": "names",  # names or symptoms
        "SYMPTOMS": "",  # a file of symptoms; empty: the dataset's own
    }

    @classmethod
    def symptom_file(cls, cfg):
        by_symptoms = cfg.TRAINER.ZEROSHOTCLIP.PROMPTS == "symptoms"
        return symptom_path(cfg) if by_symptoms else None

    def check_cfg(self, cfg):
        super().check_cfg(cfg)
        chosen = cfg.TRAINER.ZEROSHOTCLIP.PROMPTS
        if chosen not in PROMPTS:
            raise InputError(f"PROMPTS is {chosen!r}; choose one of {', '.join(PROMPTS)}")

    def build_prompted_clip(self, clip_model, classnames):
        if self.symptoms:
            phrases = self.symptoms.phrases
        else:
            phrases = {name: [f"{START_WORDS} {name}"] for name in classnames}
        # The average of one text is that text: both ways are one.
        return SymptomCLIP(clip_model, phrases, n_ctx=0, merge="mean")
