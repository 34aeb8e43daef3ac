"""CoOp: a learned context in front of the class names."""

from dassl.engine import TRAINER_REGISTRY

from backbones.clip_model import ClassFeatureModel
from engine.prompts import ContextPrompts, at_least_one
from engine.trainer import PromptTrainer


@TRAINER_REGISTRY.register()
class CoOp(PromptTrainer):
    """Context Optimization: learn the words around the class name.

    Zhou et al., IJCV 2022, https://arxiv.org/abs/2109.01134
    """

    DEFAULTS = {
        "N_CTX": 4,  # learned tokens, M
        "CTX_INIT": "",  # words the context starts from; empty: random
        "CSC": False,  # a context of its own for each class
        "CLASS_TOKEN_POSITION": "end",  # where the class name stands: end, middle or front
    }

    def build_prompts(self, clip_model, classnames):
        options = self.method_cfg
        at_least_one(N_CTX=options.N_CTX)
        return ContextPrompts(
            clip_model,
            classnames,
            options.N_CTX,
            options.CLASS_TOKEN_POSITION,
            options.CTX_INIT,
            range(len(classnames)) if options.CSC else None,
        )

    def build_prompted_clip(self, clip_model, classnames):
        return PromptedCLIP(clip_model, self.build_prompts(clip_model, classnames))

    def per_class(self):
        return ("ctx",) if self.method_cfg.CSC else ()


class PromptedCLIP(ClassFeatureModel):
    """Class features of prompts with a context.

    Args:
        clip_model: ``FrozenCLIP``.
        learned: ``ContextPrompts``, one text a class.
    """

    def class_features(self):
        prompts = self.learned
        return self.clip.encode_prompts(prompts.inputs, prompts())
