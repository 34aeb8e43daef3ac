"""A symptom planted in drawn pictures is what tells two classes apart that share all others."""

import numpy as np
import pytest
import torch
from dassl.data.transforms import build_transform
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from backbones.loading import backbone_of, with_preprocessing
from datasets import synthetic
from engine.config import load_cfg
from explanations.contributions import contributions
from explanations.evidence import OWN, evidence_of, waterfall
from explanations.reference import reference_from
from trainers.vip import SymptomCLIP

SHARED = [
    "The spot is asymmetric, one half unlike the other",
    "The spot has ragged, notched or blurred edges",
    "The spot has several colors",
    "black dots within the spot",
]
PLANTED = {"redness": ("red", "redness around the spot"), "veil": ("veil", "a blue-white veil")}
SEEN = 200  # pictures to train on; the others are new


@pytest.fixture(scope="module")
def world(request):
    """The embedded backbone, features of 400 drawn lesions, and what each lesion shows."""
    path = request.config.rootpath / "backbones" / "tiny.pt"
    cfg, _ = load_cfg("ViP", "synthderm", "tiny", opts=["MODEL.BACKBONE.PATH", str(path)])
    frozen = backbone_of(cfg, torch.device("cpu"))
    view = build_transform(with_preprocessing(cfg, frozen), is_train=False)
    # No class: every value of an attribute is as likely, whatever the others are.
    drawn = [synthetic.picture(synthetic.LESIONS, 99, i) for i in range(400)]
    views = torch.stack([view(Image.fromarray(pixels)) for pixels, _ in drawn])
    return frozen, frozen.encode_image(views), [attributes for _, attributes in drawn]


def trained(model, features, label, epochs=20):
    """``model`` after a short training by the protocol's optimiser."""
    optimizer = torch.optim.SGD(model.learned.parameters(), lr=0.001, momentum=0.9)
    for _ in range(epochs):
        for rows in torch.randperm(SEEN).split(32):
            loss = F.cross_entropy(model.from_features(features[rows]).logits, label[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


def difference(classes, parts):
    """Phrases, and [n, phrases] what each adds to the logit of the first class minus the second's.

    The tokens are ``OWN``. A phrase of both classes counts once, with what it adds on balance.
    """
    totals = {}
    for c, (phrases, sign) in enumerate(zip(classes.values(), (1, -1), strict=True)):
        for j, phrase in enumerate(phrases):
            totals[phrase] = totals.get(phrase, 0) + sign * parts.symptom[:, c, j]
        totals[OWN] = totals.get(OWN, 0) + sign * parts.own[:, c]
    return list(totals), np.stack(list(totals.values()), axis=1)


@pytest.mark.parametrize("attribute", PLANTED)
@pytest.mark.parametrize("merge", ["prompt", "mean"])
def test_the_planted_symptom_makes_the_difference(world, merge, attribute):
    """In at least 95 % of new pictures that show it, nothing adds more to the difference."""
    frozen, features, attributes = world
    value, phrase = PLANTED[attribute]
    shows = np.array([shown[attribute] == value for shown in attributes])
    torch.manual_seed(0)
    classes = {"with": [*SHARED, phrase], "without": SHARED}
    model = trained(
        SymptomCLIP(frozen, classes, merge=merge), features, torch.from_numpy(~shows).long()
    )

    parts = contributions(model, features[SEEN:])
    phrases, differences = difference(classes, parts)

    shown, planted = shows[SEEN:], phrases.index(phrase)
    assert (differences[shown].argmax(axis=1) == planted).mean() >= 0.95
    # That alone could come from the symptom's being in one class only. Of all symptoms it also adds
    # most beyond what it adds on average, and that tells the pictures that show it from the others.
    symptoms = [i for i, name in enumerate(phrases) if name != OWN]
    above = (differences - differences.mean(axis=0))[:, symptoms]
    assert (above[shown].argmax(axis=1) == symptoms.index(planted)).mean() >= 0.95
    assert roc_auc_score(shown, differences[:, planted]) >= 0.95
    # So says the waterfall, too, whose bars are measured from the average training image.
    reference = reference_from(model, contributions(model, features[:SEEN]))
    evidence = evidence_of(model, parts, reference)
    first = [waterfall(evidence, classes, i, 0, 1).strongest(1, 1) for i in np.flatnonzero(shown)]
    assert np.mean([bool(best) and best[0].phrase == phrase for best in first]) >= 0.95


def test_with_max_the_planted_symptom_is_the_only_difference(world):
    """Shared symptoms cancel, so where the logits differ at all, it is what makes them differ."""
    frozen, features, _ = world
    phrase = PLANTED["veil"][1]
    classes = {"with": [*SHARED, phrase], "without": SHARED}

    parts = contributions(SymptomCLIP(frozen, classes, n_ctx=0, merge="max"), features)
    phrases, differences = difference(classes, parts)

    differ = np.abs(differences.sum(axis=1)) > 1e-9
    most = differences[differ].argmax(axis=1) == phrases.index(phrase)
    assert differ.any() and most.all()
