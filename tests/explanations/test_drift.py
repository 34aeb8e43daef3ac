"""Meaning drift: planted symptoms that keep, lose and reverse their meaning, and trained ones."""

import csv

import numpy as np
import pytest
import torch
from dassl.data.transforms import build_transform
from PIL import Image
from scipy.stats import spearmanr
from test_contributions import PHRASES, symptom_clip
from torch.nn import functional as F

import explain
from backbones.loading import backbone_of, with_preprocessing
from datasets import synthetic
from engine.config import load_cfg
from engine.method import METHODS
from engine.prompts import encode_texts
from explanations.attributes import PAIRS, read_pairs, shown_attributes
from explanations.drift import (
    COLUMNS,
    AttributeArea,
    SymptomDrift,
    drift_of,
    lines,
    meaning_drift,
    rank_correlation,
    rows,
    similarities,
    verdict,
    warning,
)
from explanations.reliability import Reliability, reliability
from reporting import explained
from reporting.drift import drift_table, report_drift
from reporting.report import make_report
from results.rows import methods_of
from results.runs import find_runs
from symptoms import load_symptoms
from trainers import load_run

EDGES = "The spot has ragged, notched or blurred edges"
DOTS = "Irregular dots, streaks or a blue-white veil within the spot"
CLEAR = "The spot has clear, well-defined edges"


def test_the_interval_covers_the_true_correlation():
    """In 93 to 97 % of samples; Spearman's of two normals is 6 / pi * asin(rho / 2)."""
    rng = np.random.default_rng(0)
    truth = 6 / np.pi * np.arcsin(0.9 / 2)
    hits = []
    for _ in range(1000):
        x = rng.normal(size=100)
        r, low, high = rank_correlation(x, 0.9 * x + np.sqrt(1 - 0.9**2) * rng.normal(size=100))
        assert low < r < high
        hits.append(low <= truth <= high)
    assert 0.93 <= np.mean(hits) <= 0.97


def test_correlation_at_its_limits():
    """Any rising function keeps the order wholly, any falling one reverses it; else it is NaN."""
    x = np.linspace(0.1, 0.3, 40)

    assert rank_correlation(x, x**3) == pytest.approx((1, 1, 1), abs=1e-6)
    assert rank_correlation(x, -x) == pytest.approx((-1, -1, -1), abs=1e-6)
    assert np.isnan(rank_correlation(x, np.ones(40))).all()
    assert np.isnan(rank_correlation(x[:3], x[:3])[1:]).all()


@pytest.mark.parametrize(
    "interval, images, word",
    [
        ((0.8, 0.99), 300, "kept"),
        ((0.79, 0.99), 300, "weakened"),
        ((0.5, 0.7), 300, "weakened"),
        ((0.49, 0.95), 300, "lost"),
        ((-0.1, 0.1), 300, "lost"),
        ((-0.9, -0.49), 300, "lost"),
        ((-0.9, -0.5), 300, "reversed"),
        ((0.99, 0.999), 19, "unclear"),
        ((float("nan"), float("nan")), 300, "unclear"),
    ],
)
def test_verdict_follows_the_interval(interval, images, word):
    """A meaning counts as kept only where the whole interval says so."""
    assert verdict(*interval, images) == word


def test_untrained_symptoms_are_the_phrases_alone(tiny_clip):
    """Encoded without a context, whatever the context has learned."""
    model = symptom_clip(tiny_clip, "prompt")
    features = torch.randn(30, 48)
    untrained, trained = similarities(model, features)

    for c, phrases in enumerate(PHRASES.values()):
        texts = F.normalize(encode_texts(model.backbone, phrases).double(), dim=-1)
        expected = F.normalize(features.double(), dim=-1) @ texts.T
        np.testing.assert_allclose(untrained[:, c, : len(phrases)], expected, atol=1e-6)
    assert np.abs(untrained - trained).max() > 0.01


@pytest.mark.parametrize("merge", ["prompt", "mean", "max"])
def test_planted_drift(tiny_clip, merge, monkeypatch):
    """Features turned by hand: one symptom stays, one is replaced by noise, one points away."""
    model = symptom_clip(tiny_clip, merge)
    planted = model.untrained_features().clone()
    torch.manual_seed(1)
    planted[0, 1] = torch.randn(48)
    planted[0, 2] = -planted[0, 2]
    monkeypatch.setattr(model, "symptom_features", lambda: planted)
    features = torch.randn(400, 48)

    records = drift_of(model, PHRASES, features)

    assert [(r.classname, r.symptom) for r in records] == [
        (name, phrase) for name, phrases in PHRASES.items() for phrase in phrases
    ]
    assert [r.verdict for r in records[:3]] == ["kept", "lost", "reversed"]
    assert {r.verdict for r in records[3:]} == {"kept"}
    before, after = similarities(model, features)
    assert records[1].correlation == spearmanr(before[:, 0, 1], after[:, 0, 1]).statistic
    assert records[1].images == 400
    few = drift_of(model, PHRASES, features[:10])
    assert {r.verdict for r in few} == {"unclear"}


def record(word, symptom="a sign", areas=()):
    return SymptomDrift("spot", symptom, 300, 0.25, 0.1, 0.4, word, areas)


def test_only_lost_meanings_are_warned_of():
    """Lost and reversed symptoms are named; the others are not, and without any there is none."""
    kept = [record("kept", "k"), record("weakened", "w"), record("unclear", "u")]

    assert warning(kept) is None
    text = warning([*kept, record("lost", "gone"), record("reversed", "turned")])
    assert "2 of 5 symptoms" in text and "“gone” (spot); “turned” (spot)." in text
    assert not {"“k”", "“w”", "“u”"} & set(text.split())


def test_rows_and_lines_say_the_same():
    """One row for each attribute; a symptom without one has a row with empty cells."""
    areas = (
        AttributeArea("border: clear", 300, 120, (0.9, 0.85, 0.95), (0.2, 0.1, 0.3)),
        AttributeArea("veil: veil", 300, 0, None, None),
    )
    table = list(rows([record("lost", areas=areas), record("kept")]))

    assert all(tuple(row) == COLUMNS for row in table)
    assert [row["attribute"] for row in table] == ["border: clear", "veil: veil", None]
    assert table[0]["auc_untrained"] == 0.9 and table[0]["auc_high"] == 0.3
    assert table[1]["shown"] == 0 and table[1]["auc"] is None
    printed = list(lines([record("lost", areas=areas), record("kept")]))
    assert printed[0] == "lost     0.250 [0.100, 0.400]  spot: a sign"
    assert printed[1].split() == (
        "AUC untrained 0.900, trained 0.200 [0.100, 0.300] | border: clear".split()
    )
    assert len(printed) == 3  # nothing to say where no image shows the attribute


@pytest.fixture(scope="module")
def lesions(request):
    """The embedded backbone, and 300 drawn lesions: features, labels, attributes."""
    path = request.config.rootpath / "backbones" / "tiny.pt"
    cfg, _ = load_cfg("ViP", "synthderm", "tiny", opts=["MODEL.BACKBONE.PATH", str(path)])
    frozen = backbone_of(cfg, torch.device("cpu"))
    view = build_transform(with_preprocessing(cfg, frozen), is_train=False)
    label = [int(i % 10 < 7) for i in range(300)]  # melanoma, nevus
    drawn = [
        synthetic.picture(synthetic.LESIONS, 77, i, ("melanoma", "nevus")[label[i]])
        for i in range(300)
    ]
    views = torch.stack([view(Image.fromarray(pixels)) for pixels, _ in drawn])
    truth = {str(i): attributes for i, (_, attributes) in enumerate(drawn)}
    return frozen, frozen.encode_image(views), torch.tensor(label), truth


def trained_drift(lesions, root, kind, epochs=25, **options):
    """Symptom -> its drift, after a training by the protocol's optimiser on the lesions."""
    frozen, features, label, truth = lesions
    torch.manual_seed(1)
    symptoms = load_symptoms(root / "symptoms" / f"derm7pt{kind}.json", ["melanoma", "nevus"])
    model = METHODS["ViP"](**options).build(frozen, ["melanoma", "nevus"], symptoms)
    optimizer = torch.optim.SGD(
        model.learned.parameters(), lr=0.001, momentum=0.9, weight_decay=0.0005
    )
    for _ in range(epochs):
        for picked in torch.randperm(len(label)).split(32):
            loss = sum(model.from_features(features[picked], label[picked]).losses.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    pairs = read_pairs(root / PAIRS / "synthderm.json")
    shown = shown_attributes(list(truth), truth, pairs)
    return {r.symptom: r for r in drift_of(model.eval(), symptoms.phrases, features, shown)}


def test_right_symptoms_keep_their_meaning(lesions, checkout):
    """And with it the AUC for their attribute."""
    found = trained_drift(lesions, checkout, "")

    assert {r.verdict for r in found.values()} == {"kept"}
    assert warning(found.values()) is None
    for symptom in (EDGES, DOTS, CLEAR):
        (area,) = found[symptom].attributes
        assert area.before[0] > 0.85 and area.after[0] > 0.85


def test_swapped_symptoms_lose_theirs(lesions, checkout):
    """Melanoma's and nevus's symptoms swapped: the attributes' AUCs fall below one half."""
    found = trained_drift(lesions, checkout, "_swapped")

    for symptom in (EDGES, DOTS, CLEAR):
        assert found[symptom].verdict in ("lost", "reversed"), found[symptom]
        (area,) = found[symptom].attributes
        assert area.before[0] > 0.85 and area.after[0] < 0.5
        assert symptom in warning(found.values())


def test_explain_prints_and_writes_the_drift(toy_run, tmp_path, capsys, monkeypatch):
    """A line and a row for each symptom of the run, and the warning where there is one."""
    folder = toy_run("ViP")
    explain.main([str(folder), "--limit", "1", "--output-dir", str(tmp_path)])
    printed = capsys.readouterr().out

    with open(tmp_path / "drift.csv", newline="") as file:
        found = list(csv.DictReader(file))
    records = meaning_drift(load_run(folder))
    assert [row["symptom"] for row in found] == [own.symptom for own in records]
    assert [float(row["correlation"]) for row in found] == [own.correlation for own in records]
    assert "rank correlation" in printed and "20 training images" in printed
    assert all(line in printed for line in lines(records))
    planted = [record("lost", "gone") for _ in records]
    monkeypatch.setattr("explanations.reliability.meaning_drift", lambda run: planted)
    for question in (["--faithfulness"], ["--limit", "1"]):
        explain.main([str(folder), *question, "--output-dir", str(tmp_path)])
        printed = capsys.readouterr().out
        warned = printed.index("Warning: 5 of 5 symptoms no longer mean")
        assert warned < printed.index("deletion" if "--faithfulness" in question else ": predicted")


def test_a_few_shot_run_is_measured_on_the_whole_training_split(toy_run):
    """No label is used, so more images may be measured than were learned from."""
    records = meaning_drift(load_run(toy_run("ViP", "DATASET.NUM_SHOTS", "2")))

    assert {own.images for own in records} == {20}


def test_the_table_of_the_report(toy_run):
    """A row for each symptom."""
    run = load_run(toy_run("ViP"))
    table = drift_table("run", reliability([run]))
    assert [row[1] for row in table.rows] == [own.symptom for own in meaning_drift(run)]

    areas = (AttributeArea("border: clear", 300, 120, (0.9, 0.85, 0.95), (0.2, 0.1, 0.3)),)
    lost = Reliability("spot", "a sign", drift=record("lost", areas=areas))
    assert [str(cell) for cell in drift_table("run", {(0, 0): lost}).rows[0]] == [
        *("spot", "a sign", "lost"),
        *(".2500 [.100, .400]", ".9000 [.850, .950]", ".2000 [.100, .300]"),
    ]
    assert drift_table("run", {}) is None


def test_the_report_warns_above_its_explanations(toy_run, tmp_path, monkeypatch):
    """Above the table, on every image, and under every bar; without a loss nowhere."""
    folder = toy_run("ViP")
    (run,) = find_runs(folder)
    (method,) = methods_of([run])
    kept, lost = ([record(word, f"sign {n}") for n in range(5)] for word in ("kept", "lost"))

    monkeypatch.setattr("explanations.reliability.meaning_drift", lambda run: kept)
    shown = explained.explained_images([method], None)
    assert shown["warning"] is None and not any(card["warning"] for card in cards(shown))
    assert not any(bar["trust"] for card in cards(shown) for bar in card["evidence"]["bars"])
    monkeypatch.setattr("explanations.reliability.meaning_drift", lambda run: lost)
    shown = explained.explained_images([method], None)

    assert shown["warning"].startswith("Warning: 5 of 5 symptoms no longer mean")
    for card in cards(shown):
        assert "5 of the 5 symptoms of this explanation lost their meaning" in card["warning"]
        for bar in card["evidence"]["bars"]:
            assert bar["trust"] == (["meaning lost"] if bar["kind"] == "symptom" else [])
    page = make_report(folder, tmp_path / "report.html", times=20).read_text()
    said = page.index('<p class="alert"><strong>Warning: 5 of 5 symptoms no longer mean')
    assert said < page.index('<ol class="fall">')


def cards(shown):
    found = shown["best"] + shown["worst"]
    assert found
    return found


def test_seeds_are_named_where_there_are_several(tmp_path):
    """What is printed of an ensemble is the worst of its seeds, and says so."""
    known = {
        (0, 0): Reliability("spot", "a sign", drift=record("lost"), seeds=(1, 3)),
        (0, 1): Reliability("spot", "other", drift=record("kept", "other"), seeds=(3, 3)),
    }
    head, *_, last = report_drift(known, tmp_path)

    assert "of each symptom the worst of 3 seeds" in head
    assert "1 of 2 symptoms no longer mean" in last
    assert last.endswith("Each of them lost its meaning in at least one of the 3 seeds.")


def test_without_the_training_images_the_drift_is_not_known(toy_run, tmp_path, capsys):
    """One line on stderr, as for the standardised similarities."""
    assert meaning_drift(load_run(toy_run("ViP"), root=tmp_path)) is None
    assert "drift of the symptoms' meaning is not known" in capsys.readouterr().err
