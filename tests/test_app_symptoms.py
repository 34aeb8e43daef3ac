"""Changed symptoms in the browser app: weights, new classes, checks, files; and what it costs."""

import json
import shlex

import numpy as np
import pytest
import torch
from app_runs import opened, phrase, probabilities, state_of
from torch.nn import functional as F

from backbones.backbone import Backbone
from core.errors import InputError
from datasets import views
from engine.ensemble import load_ensemble
from engine.loading import load_run
from explanations.contributions import contributions
from explanations.reliability import reliability
from explanations.what_if import with_symptoms
from scripts.arguments import parse_script
from scripts.parsers import script_parser
from symptoms import Symptoms, load_symptoms

SYMPTOMS = ("TRAINER.ZEROSHOTCLIP.PROMPTS", "symptoms")
SUMS = [
    ("ViP",),
    ("ViP", "TRAINER.VIP.MERGE", "mean"),
    ("ZeroshotCLIP", *SYMPTOMS),
    ("ConceptBottleneck",),
]


@pytest.fixture
def texts_read(monkeypatch):
    """The number of texts that each call of a text encoder reads."""
    read = []
    encode = Backbone.encode_text

    def counted(self, prepared, *args, **kwargs):
        read.append(prepared.n_texts)
        return encode(self, prepared, *args, **kwargs)

    monkeypatch.setattr(Backbone, "encode_text", counted)
    return read


# Weights


@pytest.mark.parametrize("options", SUMS, ids=" ".join)
def test_weights_multiply_the_shares(toy_run, options):
    """A share is the learned one times its weight, over the class's sum; logits follow from it."""
    run = load_run(toy_run(*options))
    features = run.features("test")
    phrases = run.symptoms.phrases
    factors = {"red": [0.5, 3.0, 1.0], "blue": [1.0, 1.0]}
    before = contributions(run.model, features).weight[0]
    changed = run.reading(run.symptoms, factors)
    after = contributions(changed.model, features)

    expected = before.copy()
    for c, name in enumerate(phrases):
        expected[c, run.model.owns[c].numpy()] *= factors[name]
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(after.weight[0], expected, atol=1e-6)
    np.testing.assert_allclose(after.logits, changed.logits(features), rtol=1e-5, atol=1e-5)
    assert not np.allclose(changed.logits(features)[:, 0], run.logits(features)[:, 0])
    np.testing.assert_array_equal(changed.logits(features)[:, 1], run.logits(features)[:, 1])


@pytest.mark.parametrize("options", SUMS, ids=" ".join)
def test_weights_of_one_leave_every_bit(toy_run, options):
    run = load_run(toy_run(*options))
    features = run.features("test")
    ones = {name: [1.0] * len(own) for name, own in run.symptoms.phrases.items()}

    changed = run.reading(run.symptoms, ones)

    assert changed.model.shares is None
    np.testing.assert_array_equal(changed.logits(features), run.logits(features))


@pytest.mark.parametrize("options", SUMS[:3], ids=" ".join)
def test_weight_zero_beside_off(toy_run, options):
    """The class is as if the phrase were off, but the phrase is still there to be looked at."""
    bench = opened(toy_run(*options))
    zero, off = state_of(bench), state_of(bench)
    zero[0]["phrases"][1]["weight"] = 0.0
    off[0]["phrases"][1]["on"] = False

    first, second = (bench.answer("0", "test/2", state) for state in (zero, off))

    assert list(probabilities(first).values()) == pytest.approx(
        list(probabilities(second).values()), abs=1e-6
    )
    assert len(first["rows"]) == len(second["rows"]) + 1
    row = next(row for row in first["rows"] if row["symptom"] == "the color of a tomato")
    assert row["weight"] == 0 and row["effect"] == pytest.approx(0, abs=1e-6)
    assert row["similarity"] is not None


def test_weight_zero_of_a_bottleneck_is_for_its_own_class(toy_run):
    """Off takes a concept from all classes; a weight changes its own class alone."""
    run = load_run(toy_run("ConceptBottleneck"))
    features = run.features("test")
    own = {"red": [1.0, 0.0, 1.0], "blue": [1.0, 1.0]}
    zero = run.reading(run.symptoms, own).logits(features)
    off = with_symptoms(run, ["the color of a tomato"]).logits(features)

    np.testing.assert_allclose(zero[:, 0], off[:, 0], atol=1e-4)
    np.testing.assert_array_equal(zero[:, 1], run.logits(features)[:, 1])
    assert not np.allclose(off[:, 1], zero[:, 1])


def test_weights_follow_through_leaving_out(toy_run):
    """An effect is that of the reweighed model without the symptom."""
    bench = opened(toy_run("ViP"))
    state, without = state_of(bench), state_of(bench)
    for symptoms in (state, without):
        symptoms[0]["phrases"][0]["weight"] = 4.0
    without[0]["phrases"][1]["on"] = False
    answer, less = (bench.answer("0", "test/2", symptoms) for symptoms in (state, without))

    row = next(row for row in answer["rows"] if row["symptom"] == "the color of a tomato")

    gained = probabilities(answer)["red"] - probabilities(less)["red"]
    assert row["effect"] == pytest.approx(gained, abs=1e-6)


def test_weights_that_mean_nothing(toy_run):
    bench = opened(toy_run("ViP", "TRAINER.VIP.MERGE", "max"), toy_run("ViP"))
    state = state_of(bench)
    state[0]["phrases"][0]["weight"] = 2.0
    with pytest.raises(InputError, match="nearest symptom of each class .* switch"):
        bench.answer("0", "test/2", state)
    assert bench.about()["runs"][0]["weights"] is False
    for entry in state[0]["phrases"]:
        entry["weight"] = 0.0
    with pytest.raises(InputError, match="all symptoms of class 'red' have the weight 0"):
        bench.answer("1", "test/2", state)


# New classes


def with_green(bench):
    green = [phrase("the color of grass"), phrase("fresh leaves")]
    return [*state_of(bench), {"class": "green", "new": True, "phrases": green}]


def test_a_new_class_of_vip_is_the_plain_mean_with_the_learned_context(toy_run):
    """As base-to-new reads a class that training did not see; the trained ones keep every bit."""
    bench = opened(toy_run("ViP"))
    run = bench._asked[0].first
    answer = bench.answer("0", "test/2", with_green(bench))

    model, prompts = run.model, run.model.learned.prompt_learner
    texts = ["the color of grass", "fresh leaves"]
    with torch.no_grad():
        mean = torch.cat([prompts.encode_alone(model.backbone, text) for text in texts]).mean(dim=0)
        features = bench._asked[0].features(bench._pictures.find("test/2"))
        green = model.logit_scale.exp() * F.cosine_similarity(features[0], mean, dim=0)
    logits = np.append(run.logits(features)[0], float(green))
    expected = np.exp(logits - logits.max())
    assert list(probabilities(answer)) == ["red", "blue", "green"]
    assert list(probabilities(answer).values()) == pytest.approx(
        expected / expected.sum(), abs=1e-6
    )
    assert answer["new_classes"].startswith("zero-shot, beside the trained classes")
    assert "context learned" in answer["new_classes"]
    assert answer["new_classes"] == bench.about()["runs"][0]["new_classes"]
    before = bench.answer("0", "test/2")
    odds = [probabilities(a)["red"] / probabilities(a)["blue"] for a in (before, answer)]
    assert odds[0] == pytest.approx(odds[1], rel=1e-9)
    assert before["new_classes"] is None


def test_a_new_class_of_zeroshot_is_as_all_others(toy_run):
    """The same as a run whose symptom file had it."""
    run = load_run(toy_run("ZeroshotCLIP", *SYMPTOMS))
    bench = opened(run.folder)
    answer = bench.answer("0", "test/2", with_green(bench))
    phrases = run.symptoms.phrases | {"green": ["the color of grass", "fresh leaves"]}
    model = run.method.build(run.model.backbone, list(phrases), Symptoms(phrases))
    with torch.no_grad():
        expected = model.from_features(run.encode([run.pictures("test")[2].impath])).logits[0]

    assert list(probabilities(answer).values()) == pytest.approx(
        expected.softmax(dim=0).tolist(), abs=1e-6
    )
    assert answer["new_classes"] == (
        "zero-shot: by the mean of its phrases, as every class of this run"
    )


def test_methods_with_something_for_each_class_refuse_a_new_one(toy_run):
    for options in (("ConceptBottleneck",), ("ViP", "TRAINER.VIP.CSC", "True")):
        bench = opened(toy_run(*options))
        assert bench.about()["runs"][0]["new_classes"] is None
        with pytest.raises(InputError, match="cannot read the new class 'green'"):
            bench.answer("0", "test/2", with_green(bench))


# What it costs


@pytest.mark.parametrize("options", SUMS[:3], ids=" ".join)
def test_the_text_encoder_runs_for_what_changed_alone(toy_run, texts_read, options):
    """One new phrase is one text with the context and one without, whatever is beside it."""
    bench = opened(toy_run(*options))
    bench.answer("0", "test/1")
    state = state_of(bench)
    texts_read.clear()

    state[0]["phrases"][0]["text"] = "glowing coals"
    bench.answer("0", "test/1", state)
    assert texts_read == [1, 1]

    texts_read.clear()
    bench.answer("0", "test/2", state)  # another image
    state[0]["phrases"][0]["weight"] = 0.3
    bench.answer("0", "test/2", state)
    state[0]["phrases"][1]["on"] = False
    bench.answer("0", "test/2", state)
    state[0]["phrases"][0]["text"] = "warm color like blood"  # back to the trained one
    bench.answer("0", "test/2", state)
    assert texts_read == []


def test_a_symptom_does_not_depend_on_those_beside_it(toy_run):
    """Of a loaded run, not one bit; a changed learned number is seen at once."""
    run = load_run(toy_run("ViP"))
    with torch.no_grad():
        every = run.model.symptom_features()
        less = with_symptoms(run, ["warm color like blood"]).model.symptom_features()
        together = run.model.train().symptom_features()
        run.model.eval()
        run.model.learned.prompt_learner.ctx.add_(1)
        moved = run.model.symptom_features()

    assert torch.equal(every[0, 1:], less[0]) and torch.equal(every[1, :2], less[1])
    torch.testing.assert_close(together[run.model.mask], every[run.model.mask])
    assert not torch.allclose(moved[0], every[0])


def test_a_few_shot_run_reads_its_dataset_once(toy_run, monkeypatch):
    """Drift is measured on the whole training split, which edited runs share."""
    folder = toy_run("ViP", "DATASET.NUM_SHOTS", "2")
    read = []
    build = views.build_dataset
    monkeypatch.setattr(views, "build_dataset", lambda cfg: read.append(cfg) or build(cfg))
    bench = opened(folder)
    state = state_of(bench)
    for text in ("glowing coals", "a sunset"):
        state[0]["phrases"][0]["text"] = text
        assert bench.check("0", state)[2]["drift"]["images"] == 20

    assert [cfg.DATASET.NUM_SHOTS for cfg in read] == [2, -1]


def test_known_reliability_is_measured_once(toy_run):
    """With and without what is known, the same records in the same order."""
    runs = load_ensemble([toy_run("ViP")]).runs
    changed = [with_symptoms(run, ["no blue at all"], [("red", "glowing coals")]) for run in runs]

    known = reliability(runs)

    assert reliability(changed, known.values()) == reliability(changed)
    assert list(reliability(changed, known.values())) == list(reliability(changed))
    assert reliability(runs, known.values()) == known


# Checks


def test_check_marks_weak_phrases(toy_run):
    """AUC and drift as explain.py's reliability has them; the words alone beside them."""
    folder = toy_run("ViP")
    bench = opened(folder)
    records = reliability(load_ensemble([folder]).runs)

    rows = bench.check("0")

    assert [(r["class"], r["phrase"]) for r in rows] == [
        (own.classname, own.symptom) for own in records.values()
    ]
    for row, own in zip(rows, records.values(), strict=True):
        assert [row["auc"], *row["interval"]] == list(own.area)
        assert row["drift"]["verdict"] == own.drift.verdict
        weak = own.area[1] <= 0.5 or own.area[0] < 0.55 or own.is_lost
        assert row["weak"] == weak == bool(row["reason"])
        assert row["auc_untrained"] is not None
    zero_shot = opened(toy_run("ZeroshotCLIP", *SYMPTOMS)).check("0")
    assert [r["auc"] for r in zero_shot] == pytest.approx([r["auc_untrained"] for r in rows])
    assert {row["weak"] for row in (*rows, *zero_shot)} == {True, False}


def test_check_of_edits_and_of_a_new_class(toy_run):
    bench = opened(toy_run("ViP"))
    state = with_green(bench)
    state[1]["phrases"][0] = phrase("deep as a lake", weight=0.5)

    rows = {(row["class"], row["phrase"]): row for row in bench.check("0", state)}

    assert rows["blue", "deep as a lake"]["auc"] is not None
    assert rows["blue", "deep as a lake"]["weight"] == 0.5
    green = rows["green", "fresh leaves"]
    assert green["auc"] is None and not green["weak"]
    assert green["reason"] == "there are no training images of this class"


# Files


def test_saved_symptoms_are_a_file_that_trains_and_reloads(toy_run, tmp_path):
    """With provenance; a run reads what is on, the page gets back all that it had."""
    bench = opened(toy_run("ViP"), symptoms=tmp_path / "saved")
    state = state_of(bench)
    state[0]["phrases"][1]["on"] = False
    state[0]["phrases"][2]["weight"] = 2.5
    state[0]["phrases"].append(phrase("glowing <b>coals</b>"))

    saved = bench.save("0", state, "my_edit-1")

    assert saved["path"] == str(tmp_path / "saved" / "my_edit-1.json")
    symptoms = load_symptoms(saved["path"], ["red", "blue"])
    assert symptoms.phrases == {
        "red": ["warm color like blood", "no blue at all", "glowing <b>coals</b>"],
        "blue": ["cold color like the sea", "the color of the sky"],
    }
    assert symptoms.provenance == {"red": "edited by hand", "blue": ""}
    text = (tmp_path / "saved" / "my_edit-1.json").read_text(encoding="utf-8")
    assert json.loads(text)["provenance"] == "edited by hand"
    assert text == bench.symptom_file("0", state)
    again = bench.read_symptom_file("0", text)
    assert bench.symptom_file("0", again) == text
    answers = [bench.answer("0", "test/2", symptoms) for symptoms in (state, again)]
    assert probabilities(answers[0]) == probabilities(answers[1])
    command, note = saved["command"], saved["note"]
    assert command.startswith("DATA=") and "bash scripts/vip/main.sh toy random " in command
    assert command.endswith(f"TRAINER.VIP.SYMPTOMS {saved['path']}")
    assert "weights" in note


def test_the_command_is_one_that_the_script_takes(toy_run, tmp_path):
    """Every option of the run is in it, so that only the symptoms differ."""
    options = ("TRAINER.VIP.MERGE", "mean")
    bench = opened(toy_run("ViP", *options), symptoms=tmp_path / "a folder")
    command = shlex.split(bench.save("0", None, "plain")["command"])
    words = command[command.index("scripts/vip/main.sh") + 1 :]

    parser = script_parser("main.sh", "", first="trainer")
    args = parse_script(parser, ["ViP", "synthderm", "tiny", *words[2:]])

    given = dict(zip(args.opts[::2], args.opts[1::2], strict=True))
    assert given["TRAINER.VIP.MERGE"] == "mean" and given["OPTIM.MAX_EPOCH"] == "3"
    assert given["TRAINER.VIP.SYMPTOMS"] == str(tmp_path / "a folder" / "plain.json")


def test_new_classes_are_saved_and_reloaded(toy_run, tmp_path):
    bench = opened(toy_run("ViP"), symptoms=tmp_path)
    saved = bench.save("0", with_green(bench), "green")

    again = bench.read_symptom_file("0", (tmp_path / "green.json").read_text())

    assert saved["command"] == "" and "no images of green" in saved["note"]
    assert again == with_green(bench)


def test_files_of_other_sources_are_read(toy_run, checkout):
    """The short form too; a file of other classes is one line."""
    bench = opened(toy_run("ViP"))
    state = bench.read_symptom_file(
        "0", '{"blue": ["y. "], "red": ["x", "x"], "dark_green": ["z"]}'
    )

    assert [(c["class"], c["new"], [p["text"] for p in c["phrases"]]) for c in state] == [
        ("red", False, ["x"]),
        ("blue", False, ["y"]),
        ("dark green", True, ["z"]),
    ]
    other = (checkout / "symptoms" / "derm7pt.json").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="the trained class 'red' is missing"):
        bench.read_symptom_file("0", other)
