"""The page of explanations: what a reader must see, in which order, and what it may not hide."""

import csv
import re

import numpy as np
import pytest
from PIL import Image

import explain
from core.errors import InputError
from explanations.drawing import draw_explanation
from explanations.drift import SymptomDrift
from explanations.explanation import explain_features
from explanations.reference import reference_of
from explanations.reliability import Reliability, reliability
from reporting.explanation_items import Trust, evidence, percent, prediction, trusted, warned
from results.calibration import Calibration
from trainers import load_run


def drift(verdict, symptom="the color of the sky"):
    return SymptomDrift("blue", symptom, 20, 0.1, -0.1, 0.3, verdict)


@pytest.fixture
def explained(toy_run):
    """A run and the explanation of its test images."""
    run = load_run(toy_run("ViP"))
    return run, explain_features(run, run.features("test"), reference_of(run))


def text_of(page):
    """What a reader sees of a page's HTML."""
    body = page[page.index("<body>") :]
    return " ".join(re.sub(r"<[^>]*>", " ", body).replace("&nbsp;", " ").split())


def test_the_order_of_a_case(toy_run, tmp_path):
    """Prediction, confidence, reasons, bars; what cannot be known and nearest words come last."""
    explain.main([str(toy_run("ViP")), "--limit", "1", "--output-dir", str(tmp_path)])
    page = (tmp_path / "index.html").read_text()

    parts = [
        "confidence",
        "<h4>For ",
        "<h4>Against it, for ",
        '<ol class="fall">',
        "<summary>Numbers</summary>",
        "How far each symptom can be relied on",
        "What the model cannot know",
        "<details><summary>Words nearest to the learned context",
    ]
    places = [page.index(part, page.index("<section>")) for part in parts]
    assert places == sorted(places)
    assert "is calibrated on the 8 validation images" in page or "not calibrated" in page
    assert "contribution" not in text_of(page)  # what cannot be negative is not evidence
    assert page.count("<li class=") >= 2 + 5
    with open(tmp_path / "reliability.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["red"] * 3 + ["blue"] * 2
    assert all(float(r["low"]) <= float(r["auc"]) <= float(r["high"]) for r in rows)
    assert all(row["meaning"] and row["seeds"] == "1" for row in rows)


def test_bars_run_from_the_average_image_to_this_one(explained):
    """Each starts where the last one ended, and the last is their sum."""
    run, explanation = explained
    for i in range(len(explanation)):
        found = evidence(explanation, i, None)
        first, *steps, last = found["bars"]
        ends, position = [], first["value"]
        for bar in steps:
            position += bar["value"]
            ends.append(position)
        assert last["value"] == pytest.approx(ends[-1])
        assert last["value"] >= 0  # the predicted class is the more probable one
        for bar in found["bars"]:
            assert -1e-6 <= bar["left"] and bar["left"] + bar["width"] <= 100 + 1e-6
        scale = 100 / max(0.01, *(abs(bar["width"]) for bar in found["bars"]))
        assert scale >= 1
        widths = [bar["width"] / abs(bar["value"]) for bar in found["bars"] if bar["value"]]
        np.testing.assert_allclose(widths, widths[0])
        assert {bar["owner"] for bar in steps} == {"red", "blue", ""}


def test_reasons_are_three_at_most_and_signed(explained):
    run, explanation = explained
    for i in range(len(explanation)):
        (_, reasons), (_, against) = evidence(explanation, i, None)["reasons"]
        assert len(reasons) <= 3 and len(against) <= 3
        assert all(one["value"] > 0 for one in reasons)
        assert all(one["value"] < 0 for one in against)
        values = [one["value"] for one in reasons]
        assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(
    ("verdict", "warns"),
    [("kept", False), ("weakened", False), ("unclear", False), ("lost", True), ("reversed", True)],
)
def test_a_lost_meaning_is_warned_of(explained, verdict, warns):
    """Above the explanation, beside the reason and under the bar."""
    run, explanation = explained
    phrase = "the color of the sky"
    known = {(1, 1): Reliability("blue", phrase, (0.8, 0.7, 0.9), drift(verdict))}

    said = warned(explanation, 0, known)
    found = evidence(explanation, 0, known)

    assert (said is not None) == warns
    if said:
        assert f"1 of the 5 symptoms of this explanation lost their meaning: “{phrase}”" in (
            said.replace(" in training", "")
        )
    (bar,) = (bar for bar in found["bars"] if bar["phrase"] == phrase)
    assert bar["lost"] == warns
    assert bar["trust"] == [f"meaning {verdict}", "tells blue apart: AUC\xa0.80"]


def test_the_warning_stands_above_the_explanation(toy_run, tmp_path, monkeypatch):
    """In the page itself, before the reasons; and once above all images."""
    real = reliability

    def lost(runs):
        return {
            place: Reliability(own.classname, own.symptom, own.area, drift("lost", own.symptom))
            for place, own in real(runs).items()
        }

    monkeypatch.setattr("explanations.reliability.reliability", lost)
    explain.main([str(toy_run("ViP")), "--limit", "2", "--output-dir", str(tmp_path)])
    page = (tmp_path / "index.html").read_text()

    assert page.index("5 of 5 symptoms no longer mean") < page.index("<section>")
    for case in page.split("<section>")[1:]:
        assert case.index("5 of the 5 symptoms of this explanation lost") < case.index("<h4>For ")
        assert case.count('<span class="lost">meaning lost</span></figcaption>') == 5  # heat maps


def test_what_if_warns_of_its_own_symptoms(toy_run, tmp_path, capsys, monkeypatch):
    """Also of one that is only added; above its bars, and in what is printed."""

    def planted(run):
        words = {"deep as a lake": "lost"}
        own = [phrase for phrases in run.symptoms.phrases.values() for phrase in phrases]
        return [drift(words.get(phrase, "kept"), phrase) for phrase in own]

    monkeypatch.setattr("explanations.reliability.meaning_drift", planted)
    options = ["--add", "blue", "deep as a lake", "--limit", "1"]
    explain.main([str(toy_run("ViP")), *options, "--output-dir", str(tmp_path)])

    case = (tmp_path / "index.html").read_text().split("<section>")[1]
    first, second = case.index('<ol class="fall">'), case.rindex('<ol class="fall">')
    assert case.count("of this explanation lost their meaning") == 1
    assert first < case.index("1 of the 6 symptoms of this explanation lost") < second
    assert "meaning lost" in case[second:] and "meaning lost" not in case[first:second]
    printed = capsys.readouterr().out
    assert printed.index("What if: Warning: 1 of 6 symptoms") < printed.index(": predicted")


def test_a_figure_warns_too(explained):
    run, explanation = explained
    image = Image.new("RGB", (40, 40))
    said = "2 of the 5 symptoms of this explanation lost their meaning in training"

    texts = [
        text.get_text()
        for warning in (None, said)
        for text in draw_explanation(image, explanation, 0, warning=warning).texts
    ]

    assert texts.count(said) == 1


def test_an_unlike_image_is_marked_before_anything_is_said_of_it(toy_run, tmp_path, capsys):
    run = toy_run("ViP")
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 2, (40, 40, 3), dtype=np.uint8) * 255
    Image.fromarray(noise).save(tmp_path / "noise.png")

    explain.main([str(run), "--images", str(tmp_path), "--output-dir", str(tmp_path / "out")])

    page = (tmp_path / "out" / "index.html").read_text()
    mark = page.index("This image is unlike the training images.")
    assert page.index("<h2>noise.png</h2>") < mark < page.index("confidence", mark)
    assert "noise.png: unlike the training images; predicted" in capsys.readouterr().out
    assert "of the test images" in page and "are marked, falsely" in page


def test_what_if_shows_probabilities_first(toy_run, tmp_path):
    options = ["--drop", "No blue at all", "--add", "blue", "deep as a lake", "--limit", "1"]
    explain.main([str(toy_run("ViP")), *options, "--output-dir", str(tmp_path)])
    case = (tmp_path / "index.html").read_text().split("<section>")[1]

    table = case.index("<th>as trained</th><th>what if</th><th>change</th>")
    assert table < case.index("<h4>For ") < case.index('<ol class="fall">')
    assert case.count('<ol class="fall">') == 2


def test_confidence_is_calibrated_and_has_the_range_of_the_seeds(toy_run):
    runs = [load_run(toy_run("ViP", *seed)) for seed in ((), ("SEED", "2"))]
    from explanations.explanation import explain_seeds

    explanation = explain_seeds(runs, runs[0].features("test"))
    trust = Trust(Calibration(2.0, 8))

    found = prediction(explanation, 0, trust)

    p = explanation.probabilities[0] ** 0.5
    label = explanation.prediction[0]
    assert found["classes"][found["class"]] == pytest.approx(100 * p[label] / p.sum())
    assert "seeds" in found and "2 seeds" in found["seeds"]
    assert found["uncalibrated"][found["class"]] == pytest.approx(
        100 * explanation.probabilities[0, label]
    )


def test_nothing_is_certain():
    assert percent(0.999) == "over 99\xa0%" and percent(0.001) == "under 1\xa0%"
    assert percent(0.704) == "70\xa0%"


def test_without_training_images_the_page_says_so(toy_run, tmp_path):
    Image.new("RGB", (50, 40), "red").save(tmp_path / "a.png")
    words = [str(toy_run("ViP")), "--images", str(tmp_path / "a.png"), "--root", str(tmp_path)]

    explain.main([*words, "--output-dir", str(tmp_path / "out")])

    page = " ".join((tmp_path / "out" / "index.html").read_text().split())
    assert "The training images are missing, so there is no average image" in page
    assert "Its confidence is not calibrated" in page
    assert "It is not known whether these images are like them" in page
    assert '<ol class="fall">' not in page


def test_reliability_of_a_run(toy_run):
    """AUC of each symptom's similarity for its own class, on the training images."""
    from sklearn.metrics import roc_auc_score

    from explanations.contributions import contributions

    run = load_run(toy_run("ViP"))
    found = reliability([run])

    labels = np.array([picture.label for picture in run.pictures("train")])
    similarity = contributions(run.model, run.features("train")).similarity
    assert list(found) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    for (c, j), own in found.items():
        assert own.symptom == list(run.symptoms.phrases.values())[c][j]
        assert own.area[0] == pytest.approx(roc_auc_score(labels == c, similarity[:, c, j]))
        assert own.drift.symptom == own.symptom
        assert trusted(own)[0].startswith("meaning ")


def test_reliability_of_seeds_is_that_of_the_worst(toy_run, monkeypatch):
    runs = [load_run(toy_run("ViP", *seed)) for seed in ((), ("SEED", "2"))]
    verdicts = iter(["kept", "lost"])

    def planted(run):
        word = next(verdicts)
        return [drift(word, s) for own in run.symptoms.phrases.values() for s in own]

    monkeypatch.setattr("explanations.reliability.meaning_drift", planted)

    for own in reliability(runs).values():
        assert own.drift.verdict == "lost" and own.seeds == (1, 2)
        assert "meaning lost (1 of 2 seeds)" in trusted(own)


def test_heat_maps_are_folded_and_only_those_that_find_their_symptom(
    toy_run, tmp_path, monkeypatch
):
    """The others are named with the reason; a map is a file beside the page."""
    found = {("red", "no blue at all"): True, ("red", "the color of a tomato"): False}
    monkeypatch.setattr("reporting.explanation_maps.found_symptoms", lambda run: found)

    explain.main([str(toy_run("ViP")), "--limit", "2", "--output-dir", str(tmp_path)])

    page = (tmp_path / "index.html").read_text()
    files = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert len(files) == 2 and all(f'src="maps/{name}"' in page for name in files)
    case = page.split("<section>")[1]
    where = case.index("<details><summary>Where? Heat maps of 1 ")
    assert case.index('<ol class="fall">') < where < case.index("<figcaption>The image<")
    said = text_of(page)
    assert "map that always shows the centre: the color of a tomato." in said
    assert "Not shown, because it has no place in an image:" in said


def test_heat_maps_whose_worth_is_unknown_are_shown_with_a_caution(toy_run, tmp_path, capsys):
    """As for every dataset that was not drawn; on a page of many images there are none."""
    explain.main([str(toy_run("ViP")), "--limit", "1", "--output-dir", str(tmp_path / "a")])
    assert len(list((tmp_path / "a" / "maps").iterdir())) == 5
    said = text_of((tmp_path / "a" / "index.html").read_text())
    assert "Whether the maps find the symptoms of this dataset is not known." in said

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reporting.explanation_maps.MOST", 1)
        explain.main([str(toy_run("ViP")), "--limit", "2", "--output-dir", str(tmp_path / "b")])
    assert "no heat maps: they are drawn for at most 1 images" in capsys.readouterr().err
    assert not (tmp_path / "b" / "maps").exists()


def test_an_image_encoder_without_heat_maps_is_no_error(toy_run, tmp_path, monkeypatch):
    def refuse(run, image):
        raise InputError("this image encoder has no maps")

    monkeypatch.setattr("reporting.explanation_maps.heat_maps", refuse)

    explain.main([str(toy_run("ViP")), "--limit", "1", "--output-dir", str(tmp_path)])

    assert "No heat maps: this image encoder has no maps" in (tmp_path / "index.html").read_text()
