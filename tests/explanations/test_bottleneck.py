"""Explanations of a concept bottleneck, whose classes read the symptoms of all classes."""

import csv

import numpy as np
import pytest
import torch
from small_clip import frozen_clip
from small_folders import KINDS, save_backbone
from test_evidence import check_sums
from test_faithfulness import scored_of

import explain
from backbones.loading import load_backbone
from core.errors import InputError
from explanations import explain as explain_images
from explanations import with_symptoms
from explanations.contributions import contributions
from explanations.drift import meaning_drift
from explanations.evidence import evidence_of
from explanations.faithfulness import curves
from explanations.heatmaps import symptoms_of
from explanations.leave_one_out import logits_without
from explanations.randomisation import PASSES, randomisation
from explanations.reliability import reliability
from explanations.wording import owners, reason
from trainers import load_run
from trainers.concept_bottleneck import BottleneckCLIP

PHRASES = {
    "melanoma": ["ragged edges", "a blue-white veil", "redness"],
    "nevus": ["one even colour", "redness"],
    "scar": ["a pale, shiny patch"],
}


def bottleneck(backbone):
    """A model whose weights are drawn, so that symptoms speak for other classes too."""
    torch.manual_seed(0)
    model = BottleneckCLIP(backbone, PHRASES)
    with torch.no_grad():
        model.learned.weights += torch.randn_like(model.learned.weights)
    return model


@pytest.fixture
def run(toy_run):
    """A finished run, in which some symptoms came to speak for the other class."""
    loaded = load_run(toy_run("ConceptBottleneck"))
    sides = torch.tensor([[0.6, -0.5, 0.1, 0.9, -0.7], [-0.4, 0.8, -0.2, -0.3, 0.5]])
    with torch.no_grad():
        loaded.model.learned.weights += sides
    return loaded


def paths(run, split="test"):
    return [picture.impath for picture in run.pictures(split)]


@pytest.mark.parametrize("kind", KINDS)
def test_steps_sum_to_the_margin_on_every_kind_of_backbone(kind, tmp_path):
    model = bottleneck(load_backbone(path=str(save_backbone(kind, tmp_path))))
    features = torch.randn(12, model.backbone.embed_dim)

    check_sums(model, features[:4], features[4:], model.phrases)


def test_contributions_sum_exactly_in_double_precision(frozen64):
    """Each is s times the softmax weight times the cosine, for every class and every symptom."""
    model = bottleneck(frozen64).double()
    features = torch.randn(4, 48, dtype=torch.float64)
    with torch.no_grad():
        logits = model.from_features(features).logits.numpy()
        weights = model.learned.weights.softmax(dim=1).numpy()
    parts = contributions(model, features)

    np.testing.assert_allclose(parts.logits, logits, rtol=0, atol=1e-10)
    scale = float(model.logit_scale.exp())
    for i in range(4):
        np.testing.assert_allclose(
            parts.symptom[i], scale * weights * parts.similarity[i], rtol=0, atol=1e-10
        )
    assert (parts.own == 0).all()


def test_leaving_out_is_the_model_without_the_symptom(frozen64):
    """As a bottleneck that is built without it answers, with the same learned numbers."""
    model = bottleneck(frozen64).double()
    features = torch.randn(4, 48, dtype=torch.float64)
    found = logits_without(model, features)
    small = BottleneckCLIP(frozen64, PHRASES | {"melanoma": ["ragged edges", "redness"]}).double()
    small.learned.load_state_dict(model.learned.state_dict())

    with torch.no_grad():
        expected = small.from_features(features).logits.numpy()
    np.testing.assert_allclose(found[:, :, 1], expected, rtol=0, atol=1e-6)


def test_steps_and_effects_of_a_run(run):
    """Steps sum to the margin; an effect is that of dropping the symptom from all classes."""
    explanation = explain_images(run, paths(run))
    dropped = "the color of a tomato"
    without = explain_images(with_symptoms(run, [dropped]), paths(run))

    for i, (one, rival) in enumerate(zip(explanation.prediction, explanation.rival, strict=True)):
        fall = explanation.waterfall(i)
        margin = explanation.logits[i, one] - explanation.logits[i, rival]
        assert fall.margin == pytest.approx(margin, rel=1e-5, abs=1e-5)
        assert len(fall.steps) == 5
        step = next(step for step in fall.steps if step.phrase == dropped)
        expected = explanation.probabilities[i] - without.probabilities[i]
        assert explanation.effect(i, step) == pytest.approx(expected[one], abs=1e-6)
        rows = [row for row in explanation.rows(i) if row["symptom"] == dropped]
        assert [row["class"] for row in rows] == ["red", "blue"]
        assert [row["symptom_of"] for row in rows] == ["red", "red"]
        assert [row["effect"] for row in rows] == pytest.approx(expected, abs=1e-6)


def test_evidence_across_classes_is_said_rightly(run):
    """A symptom of blue whose weight is greater for red speaks for red where an image shows it."""
    explanation = explain_images(run, paths(run))
    weights = run.model.learned.weights.softmax(dim=1)
    sides = weights[0] > weights[1]
    own = run.model.owns[0]
    assert (sides != own).any() and (sides == own).any()  # else nothing is shown here

    for i, one in enumerate(explanation.prediction):
        for step in explanation.waterfall(i).steps:
            ((c, j),) = step.places
            above = bool(explanation.standardised[i, c, j] > 0)
            favours = 0 if sides[j] else 1
            assert (step.value > 0) == (above == (favours == one))
            text = reason(explanation, i, step)
            assert ("is more similar" if above else "is less similar") in text
            assert owners(explanation, step) == ("red" if own[j] else "blue")
            assert text.endswith(f"it speaks for {('red', 'blue')[favours]}")


def test_a_symptom_is_listed_once_under_its_own_class(run):
    """Reliability, heat maps and drift are of symptoms, not of pairs of class and symptom."""
    symptoms = [(s.classname, s.phrase) for s in symptoms_of(run)]
    drifts = meaning_drift(run)

    assert symptoms == [(c, p) for c, own in run.symptoms.phrases.items() for p in own]
    assert [(d.classname, d.symptom) for d in drifts] == symptoms
    assert all(d.correlation == pytest.approx(1) for d in drifts)
    assert [(r.classname, r.symptom) for r in reliability([run]).values()] == symptoms


def test_dropping_keeps_the_other_weights_and_adding_has_none(run):
    with pytest.raises(InputError, match="the symptom 'a red sky' has no learned weight") as said:
        with_symptoms(run, add=[("red", "a red sky")])
    assert "\n" not in str(said.value)
    smaller = with_symptoms(run, drop=["the color of the sky"]).model.learned.weights

    assert torch.equal(smaller, run.model.learned.weights[:, :4])
    given = with_symptoms(run, add=[("red", "the color of the sky")])  # a concept that is known
    moved = [0, 1, 2, 4, 3]  # it now stands among the symptoms of red
    assert torch.equal(given.model.learned.weights, run.model.learned.weights[:, moved])


def test_curves_follow_from_replacing_one_symptom_after_the_other(tiny_clip):
    """A deleted symptom is at its mean for both classes; the words know only a class's own."""
    model = bottleneck(frozen_clip(tiny_clip))
    scored = scored_of(model, torch.randn(4, 48), torch.randn(9, 48))
    predicted, rival = np.array([0, 0, 1, 2]), np.array([1, 1, 0, 0])
    found = curves(scored, predicted, rival)

    parts, mean = scored.parts.symptom, scored.reference.symptom
    evidence = evidence_of(model, scored.parts, scored.reference).symptom
    owns = model.owns.double().numpy()
    for i, (c, r) in enumerate(zip(predicted, rival, strict=True)):
        words = scored.words[i, 0] * (owns[c] - owns[r])
        for order, values in (
            ("by_words", words),
            ("by_evidence", evidence[i, c] - evidence[i, r]),
        ):
            left = np.argsort(-values, kind="stable")
            for step in range(6):
                gone = left[:step]
                total = 0.0
                for m in range(5):
                    source = mean if m in gone else parts[i]
                    total += source[c, m] - source[r, m]
                curve = getattr(found["deletion"], order)
                assert curve.shape == (4, 6)
                assert curve[i, step] == pytest.approx(total, rel=1e-6, abs=1e-6)


def test_shuffled_parts(run):
    """Shuffled weights change which symptoms speak for a class: so do the explanations."""
    rows = randomisation(run, paths(run), paths(run, "train"))

    assert [row["part"] for row in rows] == ["concept weights", "backbone"]
    # Each class's own parts hardly change: what counts is their difference, which the page shows.
    assert rows[0]["correlation"] < 0.5 and rows[0]["verdict"] == PASSES


def test_the_commands(toy_run, tmp_path, capsys):
    """Page, table and the what-if; faithfulness; --add is refused in one line."""
    folder = str(toy_run("ConceptBottleneck"))
    out = ["--output-dir", str(tmp_path)]
    explain.main([folder, "--limit", "2", "--figures", "--drop", "no blue at all", *out])
    page = (tmp_path / "index.html").read_text()
    with open(tmp_path / "explanations.csv", newline="") as file:
        rows = list(csv.DictReader(file))

    assert 'the color of the sky <span class="quiet">(of blue)</span>' in page
    assert "learned tokens" not in page
    assert len([r for r in rows if r["version"] == "as trained"]) == 2 * 2 * 5
    assert {r["symptom_of"] for r in rows if r["class"] == "red"} == {"red", "blue"}
    explain.main([folder, "--faithfulness", *out])
    assert "concept weights" in capsys.readouterr().out
    with pytest.raises(InputError, match="has no learned weight"):
        explain.main([folder, "--add", "red", "a red sky", *out])
    with pytest.raises(InputError, match="did not learn a context"):
        explain.main([folder, "--words"])


def test_several_seeds_are_explained_together(toy_run, tmp_path):
    seeds = [str(toy_run("ConceptBottleneck", *seed)) for seed in ((), ("SEED", "2"))]
    explain.main([*seeds, "--limit", "2", "--output-dir", str(tmp_path)])

    assert "(of blue)" in (tmp_path / "index.html").read_text()
