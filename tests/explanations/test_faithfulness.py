"""Deletion, insertion and attribute AUC against brute force and against worlds that are known."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from test_contributions import PHRASES, symptom_clip

from core.errors import InputError
from datasets.synthetic import CHESTS, LESIONS
from explanations.attributes import attribute_areas, read_pairs, true_attributes
from explanations.contributions import Contributions, contributions
from explanations.explanation import Explanation
from explanations.faithfulness import curves, subset_logits, summary
from symptoms import read_symptom_file
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


@pytest.mark.parametrize("merge", MERGES)
def test_curves_follow_from_every_order(tiny_clip, merge):
    """The random order's value is the mean over all orders; ours takes the greatest first."""
    model = symptom_clip(tiny_clip, merge)
    features = torch.randn(4, 48)
    predicted = np.zeros(4, dtype=int)
    found = curves(model, features, predicted)

    def logit(i, kept):
        subset = torch.zeros(1, 3, dtype=torch.bool)
        subset[0, list(kept)] = True
        return subset_logits(model, features[i : i + 1], 0, subset)[0, 0]

    parts = contributions(model, features)
    for i in range(4):
        full = logit(i, (0, 1, 2))
        orders = list(itertools.permutations(range(3)))
        for step in range(3):
            inserted = np.mean([logit(i, order[: step + 1]) for order in orders])
            deleted = np.mean([logit(i, order[step:]) for order in orders])
            assert found["insertion"].random[i, step] == pytest.approx(inserted - full, abs=1e-5)
            assert found["deletion"].random[i, step] == pytest.approx(deleted - full, abs=1e-5)
        ranking = parts.similarity if merge == "max" else parts.symptom
        ours = sorted(range(3), key=(-ranking[i, 0]).__getitem__)
        for step in range(3):
            inserted = logit(i, ours[: step + 1]) - full
            deleted = logit(i, ours[step:]) - full
            assert found["insertion"].by_contribution[i, step] == pytest.approx(inserted, abs=1e-5)
            assert found["deletion"].by_contribution[i, step] == pytest.approx(deleted, abs=1e-5)


def test_with_max_the_first_symptom_is_the_whole_answer(tiny_clip):
    """Bringing the nearest in changes nothing after; taking it away costs at once."""
    model = symptom_clip(tiny_clip, "max")
    found = curves(model, torch.randn(20, 48), np.zeros(20, dtype=int))

    np.testing.assert_allclose(found["insertion"].by_contribution, 0, atol=1e-9)
    assert (found["deletion"].by_contribution[:, 1:] < 0).all()
    for curve in found.values():
        row = summary(curve, times=200)
        assert 0 < row["low"] <= row["gain"] <= row["high"]
        assert row["sooner"] == 1 and row["pictures"] == 20


def test_one_symptom_has_no_order(tiny_clip):
    """A class with a single symptom is left out; nothing else leaves nothing."""
    model = symptom_clip(tiny_clip, "mean")

    assert curves(model, torch.randn(3, 48), np.full(3, 2)) == {}


def test_many_symptoms_are_sampled(tiny_clip):
    """Sets of one size beyond the limit are drawn, repeatably."""
    phrases = {"a": [f"sign number {i}" for i in range(14)], "b": ["nothing"]}
    model = SymptomCLIP(symptom_clip(tiny_clip, "mean").backbone, phrases, n_ctx=0, merge="mean")
    features = torch.randn(2, 48)

    first = curves(model, features, np.zeros(2, dtype=int))
    again = curves(model, features, np.zeros(2, dtype=int))

    np.testing.assert_array_equal(first["deletion"].random, again["deletion"].random)
    assert first["deletion"].random.shape == (2, 14)


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
    [("synthderm", LESIONS, "derm7pt"), ("synthchest", CHESTS, "pneumonia")],
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
