"""KgCoOp: CoOp that stays near what CLIP already knows of the classes."""

from dassl.engine import TRAINER_REGISTRY
from torch.nn import functional as F

from engine.prompts import START_WORDS, encode_texts

from .coop import CoOp, PromptedCLIP


@TRAINER_REGISTRY.register()
class KgCoOp(CoOp):
    """Knowledge-guided CoOp: a penalty on leaving the zero-shot class features.

    Yao et al., CVPR 2023, https://arxiv.org/abs/2303.13283
    """

    DEFAULTS = CoOp.DEFAULTS | {
        "CTX_INIT": START_WORDS,
        "W": 8.0,  # weight of the penalty
    }

    def build_prompted_clip(self, clip_model, classnames):
        return GuidedCLIP(clip_model, self.build_prompts(clip_model, classnames), classnames)

    def compute_loss(self, logits, label):
        return super().compute_loss(logits, label) + self.method_cfg.W * self.model.distance

    def adapt_state_dict(self, state_dict):
        # The original's files also hold a network that it never used.
        unused = ("bias_vectors", "meta_net.")
        state_dict = super().adapt_state_dict(state_dict)
        return {k: v for k, v in state_dict.items() if not k.startswith(unused)}


class GuidedCLIP(PromptedCLIP):
    """Prompts with a context, and how far their features are from CLIP's own.

    Attributes:
        distance: 1 - mean over classes of cos(t_c, t0_c), of the last features computed.

    Source: Yao et al., CVPR 2023, equation 4.
    """

    def __init__(self, clip_model, learned, classnames):
        super().__init__(clip_model, learned)
        texts = [f"{START_WORDS} {name}" for name in classnames]
        known = encode_texts(clip_model, texts)  # [n_cls, d], t0
        self.register_buffer("known", known, persistent=False)

    def class_features(self):
        features = super().class_features()
        self.distance = 1 - F.cosine_similarity(features, self.known, dim=-1).mean()
        return features
