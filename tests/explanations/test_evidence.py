"""Signed evidence: it sums exactly to the margin, and it is zero for the average image."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_folders import KINDS, save_backbone
from test_contributions import PHRASES, symptom_clip, width  # noqa: F401  (width is a fixture)

from backbones.loading import backbone_of, load_backbone
from engine.config import load_cfg
from explanations import explain, with_symptoms
from explanations.contributions import contributions
from explanations.evidence import OWN, evidence_of, waterfall
from explanations.explanation import explain_features, mean_explanation
from explanations.leave_one_out import logits_without
from explanations.reference import reference_from, reference_of, symptom_parts
from explanations.wording import disagreement, disagrees, reason
from trainers import load_run
from trainers.vip import MERGES

ROOT = Path(__file__).resolve().parents[2]


def evidence_in(model, features, training):
    """The evidence of some images, measured from others."""
    reference = reference_from(model, contributions(model, training))
    return evidence_of(model, contributions(model, features), reference)


def check_sums(model, features, training, phrases=PHRASES):
    """The steps of every waterfall sum to the difference of the model's own logits, to 1e-5."""
    with torch.no_grad():
        logits = model.from_features(features).logits.double().numpy()
    evidence = evidence_in(model, features, training)
    n_cls = logits.shape[1]
    for i in range(len(features)):
        for one in range(n_cls):
            for rival in set(range(n_cls)) - {one}:
                found = waterfall(evidence, phrases, i, one, rival)
                margin = logits[i, one] - logits[i, rival]
                assert found.margin == pytest.approx(margin, rel=1e-5, abs=1e-5)
                assert found.baseline + sum(s.value for s in found.steps) == found.margin


@pytest.mark.parametrize("n_ctx", [0, 4])
@pytest.mark.parametrize("merge", MERGES)
def test_steps_sum_to_the_margin(width, merge, n_ctx):  # noqa: F811
    """For every merge, image tower and width, with a context and without."""
    model = symptom_clip(width, merge, n_ctx)
    features = torch.randn(5, model.backbone.embed_dim)

    check_sums(model, features, torch.randn(9, model.backbone.embed_dim))


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("backbone", ["tiny", "tiny_rn"])
def test_steps_sum_to_the_margin_on_the_embedded_backbones(backbone, merge):
    path = ROOT / "backbones" / f"{backbone}.pt"
    cfg, _ = load_cfg("ViP", "synthderm", backbone, opts=["MODEL.BACKBONE.PATH", str(path)])
    model = symptom_clip(backbone_of(cfg, torch.device("cpu")), merge)
    size = model.backbone.preprocessing.size
    features = model.backbone.encode_image(torch.randn(12, 3, size, size))

    check_sums(model, features[:4], features[4:])


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("kind", KINDS)
def test_steps_sum_to_the_margin_on_every_kind_of_backbone(kind, merge, tmp_path):
    """Other encoders of images and of texts, and other temperatures."""
    model = symptom_clip(load_backbone(path=str(save_backbone(kind, tmp_path))), merge)
    size = model.backbone.preprocessing.size
    features = model.backbone.encode_image(torch.randn(12, 3, size, size))

    check_sums(model, features[:4], features[4:])


@pytest.mark.parametrize("merge", MERGES)
def test_steps_sum_exactly_in_double_precision(frozen64, merge):
    model = symptom_clip(frozen64, merge).double()
    features = torch.randn(5, model.backbone.embed_dim, dtype=torch.float64)
    training = torch.randn(9, model.backbone.embed_dim, dtype=torch.float64)

    with torch.no_grad():
        logits = model.from_features(features).logits.numpy()

    found = evidence_in(model, features, training)
    np.testing.assert_allclose(found.logits, logits, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "options",
    [
        ("TRAINER.VIP.ANCHOR", "1.0"),
        ("TRAINER.VIP.MERGE", "mean"),
        ("TRAINER.VIP.MERGE", "max"),
        ("TRAINER.VIP.CSC", "True", "TRAINER.VIP.LEARN_SCALE", "True"),
    ],
    ids=" ".join,
)
def test_steps_of_a_run_sum_to_its_margin(toy_run, options):
    """Of a finished run with every kind of training, from its folder."""
    run = load_run(toy_run("ViP", *options))

    explanation = explain(run, [picture.impath for picture in run.pictures("test")])

    for i, (one, rival) in enumerate(zip(explanation.prediction, explanation.rival, strict=True)):
        margin = explanation.logits[i, one] - explanation.logits[i, rival]
        assert margin >= 0
        assert explanation.waterfall(i).margin == pytest.approx(margin, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("merge", MERGES)
def test_the_average_image_has_no_evidence(tiny_clip, merge):
    """Over the training images every part is zero on average, and none is positive everywhere."""
    model = symptom_clip(tiny_clip, merge)
    training = torch.randn(40, 48)

    found = evidence_in(model, training, training)

    np.testing.assert_allclose(found.symptom.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(found.own.mean(axis=0), 0, atol=1e-12)
    varying = np.abs(found.symptom).max(axis=0) > 1e-9
    assert varying.any()
    assert (found.symptom.min(axis=0)[varying] < 0).all()
    assert (found.symptom.max(axis=0)[varying] > 0).all()


def test_parts_of_max_are_integrated_gradients(tiny_clip):
    """The closed form against a sum over 20,000 points of the line."""
    model = symptom_clip(tiny_clip, "max")
    parts = contributions(model, torch.randn(3, 48))
    mean = contributions(model, torch.randn(6, 48)).similarity.mean(axis=0)

    found = symptom_parts(model, parts, mean)

    scale = float(model.logit_scale.exp())
    ts = (np.arange(20_000) + 0.5) / 20_000
    for i in range(3):
        for c, phrases in enumerate(PHRASES.values()):
            k = len(phrases)
            change = parts.similarity[i, c, :k] - mean[c, :k]
            nearest = (mean[c, :k] + ts[:, None] * change).argmax(axis=1)
            share = np.bincount(nearest, minlength=k) / len(ts)
            np.testing.assert_allclose(found[i, c, :k], scale * change * share, atol=2e-2)
            assert (found[i, c, k:] == 0).all()


def test_equal_similarities_of_max_are_counted_once(tiny_clip):
    """Two symptoms with the same feature: the first has the part, and the sum is still exact."""
    model = symptom_clip(tiny_clip, "max", n_ctx=0)
    with torch.no_grad():
        model.known[0, 1] = model.known[0, 0]

    check_sums(model, torch.randn(4, 48), torch.randn(7, 48))


def test_a_symptom_of_both_classes_is_one_bar(tiny_clip):
    """With what it adds to the margin on balance; the classes' own tokens are a bar of no place."""
    model = symptom_clip(tiny_clip, "prompt")
    phrases = {"a": ["one", "two", "three"], "b": ["two", "four"], "c": ["five"]}
    evidence = evidence_in(model, torch.randn(2, 48), torch.randn(5, 48))

    found = waterfall(evidence, phrases, 1, 0, 1)

    both = next(step for step in found.steps if step.phrase == "two")
    assert both.places == ((0, 1), (1, 0))
    expected = evidence.symptom[1, 0, 1] - evidence.symptom[1, 1, 0]
    assert both.value == pytest.approx(expected)
    assert found.steps[-1].phrase == OWN and found.steps[-1].places == ()
    named = [abs(step.value) for step in found.steps[:-1]]
    assert named == sorted(named, reverse=True) and len(named) == 4
    assert all(step.value > 0 for step in found.strongest(1))
    assert all(step.value < 0 for step in found.strongest(-1))


@pytest.mark.parametrize("merge", MERGES)
def test_leaving_out_is_the_model_without_the_symptom(tiny_clip, merge):
    """NaN for padding, and for a symptom that is the only one of its class."""
    from explanations.leave_one_out import subset_logits

    model = symptom_clip(tiny_clip, merge)
    features = torch.randn(4, 48)

    found = logits_without(model, features)

    kept = torch.tensor([[True, False, True]])
    expected = subset_logits(model, features, 0, kept)[:, 0]
    np.testing.assert_allclose(found[:, 0, 1], expected)
    assert np.isnan(found[:, 2]).all() and np.isnan(found[:, 1, 2]).all()
    assert not np.isnan(found[:, 0]).any()


def test_the_effect_is_that_of_dropping_the_symptom(toy_run):
    """On the probability of the predicted class, as the run without the symptom predicts it."""
    run = load_run(toy_run("ViP"))
    paths = [picture.impath for picture in run.pictures("test")]
    explanation = explain(run, paths)
    dropped = "the color of a tomato"
    without = explain(with_symptoms(run, [dropped]), paths)

    for i, label in enumerate(explanation.prediction):
        step = next(s for s in explanation.waterfall(i).steps if s.phrase == dropped)
        difference = explanation.probabilities[i, label] - without.probabilities[i, label]
        assert explanation.effect(i, step) == pytest.approx(difference, abs=1e-6)
        row = next(row for row in explanation.rows(i) if row["symptom"] == dropped)
        own = explanation.probabilities[i, 0] - without.probabilities[i, 0]
        assert row["effect"] == pytest.approx(own, abs=1e-6)


def test_several_seeds_are_the_mean_of_each(toy_run):
    """Probabilities and effects are means over the seeds; the steps sum to the mean margin."""
    runs = [load_run(toy_run("ViP", *seed)) for seed in ((), ("SEED", "2"))]
    features = runs[0].features("test")
    single = [explain_features(run, features, reference_of(run)) for run in runs]

    both = mean_explanation(single)

    expected = np.mean([own.probabilities for own in single], axis=0)
    np.testing.assert_allclose(both.probabilities, expected)
    for i, (one, rival) in enumerate(zip(both.prediction, both.rival, strict=True)):
        margins = [own.logits[i, one] - own.logits[i, rival] for own in single]
        found = both.waterfall(i)
        assert found.margin == pytest.approx(np.mean(margins), rel=1e-5, abs=1e-5)
        step = found.steps[0]
        effects = [own.effect(i, step, one) for own in single]
        assert both.effect(i, step) == pytest.approx(np.mean(effects), abs=1e-9)


def test_reasons_say_more_or_less_similar(toy_run):
    """More similar to a symptom of the prediction speaks for it, to one of the rival against it."""
    run = load_run(toy_run("ViP"))
    explanation = explain(run, [picture.impath for picture in run.pictures("test")])

    for i, one in enumerate(explanation.prediction):
        for step in explanation.waterfall(i).steps:
            if not step.places or step.value == 0:
                continue
            ((c, j),) = step.places
            above = explanation.standardised[i, c, j] > 0
            assert (step.value > 0) == (above == (c == one))
            text = reason(explanation, i, step)
            assert ("is more similar" if above else "is less similar") in text
            assert explanation.classnames[c] in text and step.phrase in text


def test_a_bar_and_an_effect_of_opposite_signs_are_named(tiny_clip):
    model = symptom_clip(tiny_clip, "mean")
    step = waterfall(evidence_in(model, torch.randn(1, 48), torch.randn(5, 48)), PHRASES, 0, 0, 1)
    (best,) = step.strongest(1, 1)

    assert disagrees(best, -0.1) and not disagrees(best, 0.1)
    assert not disagrees(best, -0.001) and not disagrees(best, None)
    assert "speaks for nevus" in disagreement(best, -0.1, "nevus")
    assert "makes nevus less probable (\u221210.0 points)" in disagreement(best, -0.1, "nevus")
