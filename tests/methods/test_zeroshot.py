"""Zero-shot against its definition, in float64."""

import torch
from naive import NAMES, cosine, text_feature

from engine.config import load_cfg, methods
from symptoms import Symptoms

PHRASES = {
    NAMES[0]: ["asymmetric", "ragged (notched)", "blue-white veil."],
    NAMES[1]: ["one even color"],
    NAMES[2]: ["warm", "swollen"],
}


def test_names(frozen64, image_features, trainer_of, close, shapes):
    """The cosine with ``a photo of a {classname}.``, and nothing to learn."""
    model = trainer_of("ZeroshotCLIP", frozen64).model

    texts = [text_feature(frozen64.model, f"a photo of a {name}.") for name in NAMES]
    naive = torch.stack([torch.stack([cosine(f, t) for t in texts]) for f in image_features])

    close(model(image_features), frozen64.logit_scale.exp() * naive)
    assert shapes(model) == {}


def test_symptoms(frozen64, image_features, toy, close):
    """The cosine with the average of the symptoms' normalised features."""
    trainer = object.__new__(methods()["ZeroshotCLIP"])
    opts = ["TRAINER.ZEROSHOTCLIP.PROMPTS", "symptoms"]
    trainer.cfg, _ = load_cfg(
        "ZeroshotCLIP", str(toy / "toy.yaml"), str(toy / "random.yaml"), opts=opts
    )
    trainer.symptoms = Symptoms(PHRASES)
    model = trainer.build_prompted_clip(frozen64, NAMES)

    averages = []
    for phrases in PHRASES.values():
        features = [text_feature(frozen64.model, p.rstrip(".") + " .") for p in phrases]
        average = sum(t / t.norm() for t in features) / len(features)
        averages.append(average / average.norm())
    naive = torch.stack([torch.stack([cosine(f, t) for t in averages]) for f in image_features])

    close(model(image_features), frozen64.logit_scale.exp() * naive)
    assert trainer.symptom_file(trainer.cfg) is not None
