"""Deletion, insertion and attribute AUC against brute force and against worlds that are known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from dassl.data.transforms import build_transform
from PIL import Image
from sklearn.metrics import roc_auc_score
from test_contributions import PHRASES, symptom_clip

from backbones.loading import backbone_of, with_preprocessing
from core.errors import InputError
from datasets import synthetic
from datasets.synthetic import CHESTS, LESIONS
from datasets.synthskin import SKIN
from engine.config import load_cfg
from explanations.attributes import attribute_areas, read_pairs, true_attributes
from explanations.contributions import Contributions, contributions
from explanations.drift import similarities
from explanations.evidence import evidence_of
from explanations.explanation import Explanation
from explanations.faithfulness import (
    PASSED,
    Curves,
    Scored,
    curves,
    mean_curves,
    summary,
    word_scores,
)
from explanations.leave_one_out import subset_logits
from explanations.randomisation import FAILS, PASSES, STAYS, randomisation, spearman, verdict
from explanations.reference import reference_from
from symptoms import read_symptom_file
from trainers import load_run
from trainers.vip import MERGES, SymptomCLIP

PAIRS = Path(__file__).resolve().parents[2] / "symptoms" / "attribute_pairs"


@pytest.mark.parametrize("merge", MERGES)
def test_a_subset_is_the_class_with_only_these_symptoms(tiny_clip, merge):
    """As a model built from the shorter list answers, with the same learned numbers."""
    model = symptom_clip(tiny_clip, merge)
    features = torch.randn(3, 48)
    phrases = PHRASES["melanoma"]

    for kept in [(0,), (1, 2), (0, 1, 2)]:
        subset = torch.zeros(1, 3, dtype=torch.bool)
        subset[0, list(kept)] = True
        fewer = {"melanoma": [phrases[j] for j in kept], "nevus": ["x"], "scar": ["y"]}
        small = SymptomCLIP(model.backbone, fewer, n_ctx=4, merge=merge)
        small.learned.load_state_dict(model.learned.state_dict())
        with torch.no_grad():
            expected = small.from_features(features).logits[:, 0]
        found = subset_logits(model, features, 0, subset)[:, 0]
        np.testing.assert_allclose(found, expected.double().numpy(), rtol=1e-4, atol=1e-4)


def scored_of(model, features, training):
    """The images' ``Scored``, with the words' scores from the untrained symptoms."""
    words = word_scores(*(similarities(model, f)[0] for f in (features, training)))
    reference = reference_from(model, contributions(model, training))
    return Scored(model, contributions(model, features), reference, words)


@pytest.mark.parametrize("merge", MERGES)
def test_curves_follow_from_replacing_one_symptom_after_the_other(tiny_clip, merge):
    """Each step by hand: the similarity of what is deleted is its mean over the training images."""
    model = symptom_clip(tiny_clip, merge)
    scored = scored_of(model, torch.randn(4, 48), torch.randn(9, 48))
    predicted, rival = np.array([0, 0, 1, 2]), np.array([1, 1, 0, 0])
    found = curves(scored, predicted, rival)

    parts, mean = scored.parts, scored.reference
    counts = [len(symptoms) for symptoms in PHRASES.values()]
    scale = float(model.logit_scale.double().exp())

    def logit(i, c, kept):
        if merge == "max":
            both = (parts.similarity[i, c], mean.similarity[c])
            return scale * max(both[j not in kept][j] for j in range(counts[c]))
        both = (parts.symptom[i, c], mean.symptom[c])
        return parts.own[i, c] + sum(both[j not in kept][j] for j in range(counts[c]))

    for i in range(4):
        pair = (predicted[i], rival[i])
        places = [(c, j) for c in pair for j in range(counts[c])]
        sign = {pair[0]: 1, pair[1]: -1}
        order = sorted(places, key=lambda p: -sign[p[0]] * scored.words[i, p[0], p[1]])
        for step in range(len(places) + 1):
            margins = {}
            for measure, kept in (("deletion", order[step:]), ("insertion", order[:step])):
                one, other = (logit(i, c, {j for d, j in kept if d == c}) for c in pair)
                margins[measure] = one - other
            for measure, margin in margins.items():
                curve = found[measure].by_words[i]
                at = np.interp(step / len(places), np.linspace(0, 1, len(curve)), curve)
                if len(places) == len(curve) - 1:
                    assert at == pytest.approx(margin, abs=1e-9)
                elif step in (0, len(places)):  # others are stretched
                    assert at == pytest.approx(margin, abs=1e-9)


@pytest.mark.parametrize("merge", MERGES)
def test_deletion_ends_where_insertion_starts(tiny_clip, merge):
    """From the image's own margin to that of the mean similarities, in every order, and back."""
    model = symptom_clip(tiny_clip, merge)
    scored = scored_of(model, torch.randn(6, 48), torch.randn(9, 48))
    predicted, rival = np.zeros(6, int), np.ones(6, int)

    found = curves(scored, predicted, rival)

    margin = scored.parts.logits[:, 0] - scored.parts.logits[:, 1]
    deletion, insertion = found["deletion"], found["insertion"]
    for order in ("by_words", "by_evidence", "random"):
        falling, rising = getattr(deletion, order), getattr(insertion, order)
        np.testing.assert_allclose(falling[:, 0], margin, atol=1e-9)
        np.testing.assert_allclose(rising[:, -1], margin, atol=1e-9)
        np.testing.assert_allclose(falling[:, -1], rising[:, 0], atol=1e-9)
    if merge != "max":  # no order beats the explanation's own, and the two are mirror images
        own = evidence_of(model, scored.parts, scored.reference).symptom
        assert np.abs(own).max() > 0
        assert (deletion.gain("by_evidence") >= deletion.gain() - 1e-9).all()
        np.testing.assert_allclose(deletion.gain(), insertion.gain(), atol=1e-9)


MEANINGS = {
    "melanoma": [
        "The spot has ragged, notched or blurred edges",
        "The spot has several colors, such as brown, black, red, white and blue",
        "Irregular dots, streaks or a blue-white veil within the spot",
    ],
    "nevus": [
        "The spot has clear, well-defined edges",
        "The spot is symmetric on both sides",
        "Redness or swelling around the spot",
    ],
}


@pytest.fixture(scope="module")
def world(request):
    """The embedded backbone, and features of 80 drawn lesions twice."""
    path = request.config.rootpath / "backbones" / "tiny.pt"
    cfg, _ = load_cfg("ViP", "synthderm", "tiny", opts=["MODEL.BACKBONE.PATH", str(path)])
    frozen = backbone_of(cfg, torch.device("cpu"))
    view = build_transform(with_preprocessing(cfg, frozen), is_train=False)
    drawn = [synthetic.picture(synthetic.LESIONS, 7, i)[0] for i in range(160)]
    features = frozen.encode_image(torch.stack([view(Image.fromarray(p)) for p in drawn]))
    return frozen, features[:80], features[80:]


def planted(world, change):
    """Summaries for a run whose trained symptom features are ``change`` of those of its words."""
    frozen, training, features = world
    model = SymptomCLIP(frozen, MEANINGS, n_ctx=0, merge="mean")
    model.known = change(model.known)
    scored = scored_of(model, features, training)
    ranked = np.argsort(-scored.parts.logits, axis=1)
    return [summary(curve, times=300) for curve in curves(scored, *ranked.T).values()]


def test_a_run_that_means_what_it_says_passes(world):
    for row in planted(world, lambda known: known):
        assert row["passed"] and row["low"] > 0.8 and row["gain"] > 0
        assert row["sooner"] > 0.9 and row["pictures"] == 80


def test_a_run_with_lost_meanings_fails(world):
    """Each class's symptoms look for what the other class's say, as after swapped training.

    By its own order, as deletion and insertion usually have it, its explanation looks faithful.
    """
    right = planted(world, lambda known: known)
    for row, kept in zip(planted(world, lambda known: known.flip(0)), right, strict=True):
        assert not row["passed"] and row["high"] < PASSED
        assert row["share"] < kept["share"] / 2 and row["own_gain"] > 0


def test_a_run_with_reversed_meanings_has_a_negative_share(world):
    for row in planted(world, lambda known: -known):
        assert not row["passed"] and row["high"] < 0
        assert row["gain"] < 0 < row["own_gain"] and row["sooner"] < 0.2


def test_gain_has_the_sign_of_its_measure():
    """Deletion gains where the margin falls sooner, insertion where it rises sooner."""
    flat = np.array([[1.0, 0.5, 0.0]])
    sooner = np.array([[1.0, 0.0, 0.0]])

    assert Curves("deletion", sooner, sooner, flat).gain() > 0
    assert Curves("insertion", flat[:, ::-1], sooner, sooner[:, ::-1]).gain() > 0
    both = mean_curves([{"deletion": Curves("deletion", v, v, flat)} for v in (sooner, flat)])
    np.testing.assert_allclose(both["deletion"].by_words, (sooner + flat) / 2)


def test_randomisation_changes_explanations_and_leaves_the_run(toy_run):
    """A shuffled backbone leaves nothing of an explanation; the run itself does not change."""
    run = load_run(toy_run("ViP"))
    assert run.model.backbone.image is not None  # now it is loaded
    state = {k: v.clone() for k, v in run.model.state_dict().items()}
    paths = [picture.impath for picture in run.pictures("test")]
    training = [picture.impath for picture in run.pictures("train")]

    rows = randomisation(run, paths, training)

    assert [row["part"] for row in rows] == ["learned context", "merge prompt", "backbone"]
    assert all(-1 <= row["low"] <= row["correlation"] <= row["high"] <= 1 for row in rows)
    assert rows[-1]["verdict"] == PASSES and rows[-1]["correlation"] < 0.5
    assert all(torch.equal(value, state[k]) for k, value in run.model.state_dict().items())
    assert rows == randomisation(run, paths, training)


def test_randomisation_of_what_was_learned(toy_run):
    """A run without a merge prompt or a context has no such rows."""
    symptoms = ("TRAINER.ZEROSHOTCLIP.PROMPTS", "symptoms")
    parts = {}
    for trainer, options in (("ViP", ("TRAINER.VIP.MERGE", "mean")), ("ZeroshotCLIP", symptoms)):
        run = load_run(toy_run(trainer, *options))
        images = [picture.impath for picture in run.pictures("test")]
        parts[trainer] = [row["part"] for row in randomisation(run, images[:3], images[3:])]

    assert parts == {"ViP": ["learned context", "backbone"], "ZeroshotCLIP": ["backbone"]}


@pytest.mark.parametrize(
    ("explanations", "margins", "expected"),
    [(0.1, 0.1, PASSES), (0.1, 0.9, PASSES), (0.9, 0.9, STAYS), (0.9, 0.1, FAILS)],
)
def test_an_explanation_that_stays_while_predictions_change_fails(explanations, margins, expected):
    assert verdict(explanations, margins) == expected


def test_rank_correlation_of_constants_is_nothing():
    rng = np.random.default_rng(0)
    x = rng.normal(size=9)

    assert spearman(x, x**3) == pytest.approx(1)
    assert spearman(x, -x) == pytest.approx(-1)
    assert spearman(x, np.zeros(9)) == 0


def explanation_of(scores):
    """An explanation whose similarities to one class's symptoms are ``scores`` [n, k]."""
    n, k = scores.shape
    similarity = scores[:, None, :]
    zeros = np.zeros_like(similarity)
    parts = Contributions(similarity, zeros, zeros, zeros[:, :, 0])
    phrases = {"spot": [f"sign {j}" for j in range(k)]}
    return Explanation(phrases, parts, np.zeros((n, 1)), np.ones((n, 1)))


def test_areas_of_known_scores():
    """AUC as scikit-learn's, for any of several attributes; none where all pictures show it."""
    rng = np.random.default_rng(0)
    names = [f"{i}.png" for i in range(60)]
    truth = {
        name.upper(): {"veil": rng.choice(["veil", "none"]), "edge": rng.choice(["a", "b", "c"])}
        for name in names
    }
    explanation = explanation_of(rng.normal(size=(60, 2)))
    pairs = [
        ("sign 0", {"veil": ["veil"], "edge": ["a"]}),
        ("SIGN 1", {"edge": ["a", "b", "c"]}),
        ("of another file", {"veil": ["veil"]}),
    ]

    rows = attribute_areas(explanation, names, truth, pairs)

    shown = [t["veil"] == "veil" or t["edge"] == "a" for t in truth.values()]
    assert [row["symptom"] for row in rows] == ["sign 0", "sign 1"]
    assert rows[0]["auc"] == pytest.approx(
        roc_auc_score(shown, explanation.parts.similarity[:, 0, 0])
    )
    assert rows[0]["low"] < rows[0]["auc"] < rows[0]["high"]
    assert rows[0]["shown"] == sum(shown) and rows[0]["pictures"] == 60
    assert rows[1]["auc"] is None


def test_a_value_that_no_picture_has_is_said_once(capsys):
    """It may be misspelt; the rest of its pair still counts."""
    truth = {"a": {"veil": "faint"}, "b": {"veil": "none"}, "of another split": {"veil": "thick"}}
    shown_by = {"veil": ["faint", "thick", "thik"]}

    rows = attribute_areas(
        explanation_of(np.array([[0.7], [0.2]])),
        ["a", "b"],
        truth,
        [("sign 0", shown_by), ("sign 1", shown_by)],
        "pairs.json",
    )

    assert rows[0]["shown"] == 1
    said = "pairs.json: no image has veil 'thik'; the values are: faint, none, thick\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"pairs": [{"symptom": "a"}]}',
        b'{"pairs": [{"symptom": 7, "shown_by": {}}]}',
        b'{"pairs": [{"symptom": "a", "shown_by": {"veil": "faint"}}]}',
        b'{"pairs": [{"symptom": "\\ud800", "shown_by": {}}]}',
        b"[" * 100_000,
        b"\x80\xff\x00",
    ],
    ids=["empty", "no attribute", "number", "text for a list", "surrogate", "nested", "binary"],
)
def test_malformed_pairs_are_one_line(tmp_path, content):
    """The line names the file and the form that is wanted."""
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match="x.json: must contain") as caught:
        read_pairs(tmp_path / "x.json")

    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_wrong_pairs_are_named(tmp_path):
    """A file that is missing, a folder, an attribute that no image has."""
    with pytest.raises(InputError, match="cannot be read"):
        read_pairs(tmp_path)
    with pytest.raises(InputError, match="this file of attribute pairs does not exist"):
        read_pairs(tmp_path / "x.json")
    with pytest.raises(InputError, match="there is no attribute 'weight'; choose one of veil"):
        attribute_areas(
            explanation_of(np.zeros((1, 1))),
            ["a"],
            {"a": {"veil": "x"}},
            [("sign 0", {"weight": []})],
        )


@pytest.mark.parametrize(
    ("name", "world", "symptoms"),
    [
        ("synthderm", LESIONS, "derm7pt"),
        ("synthchest", CHESTS, "pneumonia"),
        ("synthskin", SKIN, "synthskin"),
    ],
)
def test_pairs_speak_of_what_is_drawn(name, world, symptoms):
    """Attributes and values exist; every symptom has a pair but size, which nothing draws."""
    known = {attribute.name: set(attribute.values) for attribute in world.attributes}
    pairs = read_pairs(PAIRS / f"{name}.json")

    for symptom, shown_by in pairs:
        for attribute, values in shown_by.items():
            assert set(values) < known[attribute], symptom
    classes, _ = read_symptom_file(PAIRS.parent / f"{symptoms}.json")
    paired = {symptom for symptom, _ in pairs}
    rest = [p for entry in classes.values() for p in entry["phrases"] if p not in paired]
    assert all("large" in phrase for phrase in rest)


def test_seven_points_of_derm7pt(tmp_path):
    """Read from the release's table by the picture's path, whatever the case of its letters."""
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "meta.csv").write_text(
        "case_num,diagnosis,pigment_network,streaks,blue_whitish_veil,derm,notes\n"
        "1,clark nevus,typical,absent,Present,NEL/Nel026.JPG,\xe9\n",
        encoding="latin-1",
    )

    class Dataset:
        dataset_dir = tmp_path

    truth = true_attributes(Dataset)

    assert truth == {
        "images/nel/nel026.jpg": {
            "pigment_network": "typical",
            "streaks": "absent",
            "blue_whitish_veil": "present",
        }
    }
    known = {
        "pigment_network": {"absent", "typical", "atypical"},
        "streaks": {"absent", "regular", "irregular"},
        "dots_and_globules": {"absent", "regular", "irregular"},
        "blue_whitish_veil": {"absent", "present"},
    }
    for _, shown_by in read_pairs(PAIRS / "derm7pt.json"):
        for attribute, values in shown_by.items():
            assert set(values) < known.get(attribute, set(values) | {"absent "})


def test_a_dataset_that_knows_no_attributes(tmp_path):
    class Dataset:
        dataset_dir = tmp_path

    assert true_attributes(Dataset) == {}
    assert json.loads((PAIRS / "derm7pt.json").read_text())["provenance"]
