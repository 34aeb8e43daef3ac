"""Zero-shot against its definition, in float64."""

import torch
from naive import NAMES, cosine, text_feature

from symptoms import Symptoms

PHRASES = {
    NAMES[0]: ["asymmetric", "ragged (notched)", "blue-white veil."],
    NAMES[1]: ["one even color"],
    NAMES[2]: ["warm", "swollen"],
}


def test_names(frozen64, image_features, build, close, shapes):
    """The cosine with ``a photo of a {classname}.``, and nothing to learn."""
    model = build("ZeroshotCLIP", frozen64).model

    texts = [text_feature(frozen64.model, f"a photo of a {name}.") for name in NAMES]
    naive = torch.stack([torch.stack([cosine(f, t) for t in texts]) for f in image_features])

    close(model.from_features(image_features).logits, frozen64.logit_scale.exp() * naive)
    assert shapes(model) == {}


def test_symptoms(frozen64, image_features, build, close):
    """The cosine with the average of the symptoms' normalised features."""
    built = build("ZeroshotCLIP", frozen64, PROMPTS="symptoms", symptoms=Symptoms(PHRASES))
    model = built.model

    averages = []
    for phrases in PHRASES.values():
        features = [text_feature(frozen64.model, p.rstrip(".") + " .") for p in phrases]
        average = sum(t / t.norm() for t in features) / len(features)
        averages.append(average / average.norm())
    naive = torch.stack([torch.stack([cosine(f, t) for t in averages]) for f in image_features])

    close(model.from_features(image_features).logits, frozen64.logit_scale.exp() * naive)
    assert built.method.reads_symptoms
    assert not build("ZeroshotCLIP", frozen64).method.reads_symptoms
