"""The browser app's answers: those of predict.py and explain.py, digit for digit."""

import csv
import io
import json

import numpy as np
import pytest
from app_runs import opened, phrase, predicted, probabilities, state_of
from PIL import Image

import explain
from core.errors import InputError
from engine.ensemble import load_ensemble
from explanations.explanation import explain_seeds
from explanations.what_if import with_symptoms
from reporting.explanation_items import evidence
from webapp.plain import plain

SYMPTOMS = ("TRAINER.ZEROSHOTCLIP.PROMPTS", "symptoms")
EXPLAINABLE = [
    ("ViP",),
    ("ViP", "TRAINER.VIP.MERGE", "mean"),
    ("ViP", "TRAINER.VIP.MERGE", "max"),
    ("ViP", "TRAINER.VIP.CSC", "True"),
    ("ViP", "TRAINER.VIP.ANCHOR", "2.0"),
    ("ZeroshotCLIP", *SYMPTOMS),
    ("ConceptBottleneck",),
]


def what_if(folders, file, drop=(), add=()):
    """[n_cls] probabilities of explain.py's what-if for a file."""
    ensemble = load_ensemble(folders)
    changed = [with_symptoms(run, drop, add) for run in ensemble.runs]
    return explain_seeds(changed, ensemble.first.encode([file])).probabilities[0]


def path_of(bench, image):
    return bench._pictures.find(image).path


@pytest.mark.parametrize("trainer", ["ViP", "CoOp", "MaPLe", "Supervised", "ConceptBottleneck"])
def test_probabilities_are_those_of_predict(toy_run, trainer):
    """Of every kind of method, explainable or not, digit for digit."""
    folder = toy_run(trainer)
    bench = opened(folder)
    for image in ("test/0", "val/5", "train/3"):
        answer = bench.answer("0", image)
        expected, unlike = predicted([folder], path_of(bench, image))

        assert probabilities(answer) == expected
        assert answer["prediction"] == max(expected, key=expected.get)
        assert {"yes": True, "no": False, "": None}[unlike] is answer["unlike"]
        assert (answer["evidence"] is None) == (trainer not in ("ViP", "ConceptBottleneck"))
    json.dumps(answer, allow_nan=False)


def test_several_seeds_are_one_ensemble(toy_run):
    folders = [toy_run("ViP"), toy_run("ViP", "SEED", "2")]
    bench = opened(folders, toy_run("CoOp"))
    answer = bench.answer("0", "test/7")

    assert probabilities(answer) == predicted(folders, path_of(bench, "test/7"))[0]
    assert [run["seeds"] for run in bench.about()["runs"]] == [2, 1]
    assert (
        probabilities(bench.answer("1", "test/7"))
        == (predicted([toy_run("CoOp")], path_of(bench, "test/7"))[0])
    )
    state = state_of(bench)
    state[0]["phrases"][0]["on"] = False
    changed = what_if(folders, path_of(bench, "test/7"), [state[0]["phrases"][0]["text"]])
    assert list(probabilities(bench.answer("0", "test/7", state)).values()) == changed.tolist()


@pytest.mark.parametrize("options", EXPLAINABLE, ids=" ".join)
def test_edits_equal_drop_and_add(toy_run, options):
    """Switched off, added, edited in place, moved: as explain.py's what-if, digit for digit."""
    folder = toy_run(*options)
    bench = opened(folder)
    file = path_of(bench, "test/2")

    def answered(state):
        return list(probabilities(bench.answer("0", "test/2", state)).values())

    before = list(probabilities(bench.answer("0", "test/2")).values())
    off = state_of(bench)
    off[0]["phrases"][1]["on"] = False
    assert answered(off) == what_if([folder], file, ["the color of a tomato"]).tolist() != before

    if options[0] == "ConceptBottleneck":  # it has a weight for concepts it has seen alone
        added = state_of(bench)
        added[0]["phrases"].append(phrase("the color of the sky"))
        expected = what_if([folder], file, add=[("red", "the color of the sky")])
        assert answered(added) == expected.tolist()
        return
    added = state_of(bench)
    added[1]["phrases"].append(phrase("deep  as a lake"))
    expected = what_if([folder], file, add=[("blue", "deep as a lake")]).tolist()
    assert answered(added) == expected
    assert expected != before or options[-1] == "max"  # which reads the nearest phrase alone

    edited = state_of(bench)  # in its place: where a phrase stands has no meaning
    edited[0]["phrases"][0]["text"] = "glowing coals"
    expected = what_if([folder], file, ["warm color like blood"], [("red", "glowing coals")])
    assert answered(edited) == expected.tolist()
    edited[0]["phrases"].reverse()
    edited.reverse()
    assert answered(edited) == expected.tolist()


def test_an_edit_equals_what_explain_writes(toy_run, tmp_path):
    """The table of explain.py --drop --add has the same digits."""
    folder = toy_run("ViP")
    bench = opened(folder)
    file = path_of(bench, "test/2")
    explain.main(
        [str(folder), "--images", str(file), "--drop", "no blue at all"]
        + ["--add", "blue", "deep as a lake", "--output-dir", str(tmp_path)]
    )
    with open(tmp_path / "explanations.csv", newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["version"] == "what if"]
    state = state_of(bench)
    state[0]["phrases"][2]["on"] = False
    state[1]["phrases"].append(phrase("deep as a lake"))

    answer = bench.answer("0", "test/2", state)

    written = {row["class"]: float(row["class_probability"]) for row in rows}
    assert probabilities(answer) == written
    effects = [row["effect"] for row in answer["rows"] if row["effect"] is not None]
    assert effects == [float(row["effect"]) for row in rows if row["effect"]]
    assert {row["symptom"] for row in answer["rows"]} == {row["symptom"] for row in rows}


def test_the_trained_symptoms_change_nothing(toy_run):
    """Nor do an off phrase that was never there, or weights of 1."""
    bench = opened(toy_run("ViP"))
    state = state_of(bench)
    plainly = bench.answer("0", "test/1")
    state[0]["phrases"].append(phrase("never read", on=False))

    for symptoms in (state_of(bench), state):
        answer = bench.answer("0", "test/1", symptoms)
        assert answer | {"milliseconds": 0} == plainly | {"milliseconds": 0}


def test_evidence_is_that_of_the_page(toy_run):
    """The same dict as explain.py's page shows, with the same reliability of each symptom."""
    folder = toy_run("ViP")
    bench = opened(folder)
    ensemble = load_ensemble([folder])
    trust = explain.trust_of(ensemble)
    explanation = explain_seeds(ensemble.runs, ensemble.first.encode([path_of(bench, "test/4")]))

    answer = bench.answer("0", "test/4")

    assert answer["evidence"] == plain(evidence(explanation, 0, trust.reliability))
    assert answer["evidence"]["bars"][1]["trust"]
    label = int(explanation.prediction[0])
    assert answer["confidence"] == trust.confidence(explanation.probabilities[0])[label]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "I;16"])
def test_an_upload_is_answered_as_its_file(toy_run, tmp_path, mode):
    """Bytes in memory go through the reader of files."""
    folder = toy_run("ViP")
    bench = opened(folder)
    values = np.random.default_rng(1).integers(0, 255, (48, 60), dtype=np.uint8)
    image = Image.fromarray(values)
    if mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16) * 257)
    elif mode != "L":
        image = image.convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(values[::-1].copy()))
    image.save(tmp_path / "a.png")

    upload = bench.upload("C:\\x\\a.png", (tmp_path / "a.png").read_bytes())
    answer = bench.answer("0", upload["id"])

    assert upload["name"] == "a.png" and answer["truth"] is None
    assert probabilities(answer) == predicted([folder], tmp_path / "a.png")[0]
    with Image.open(io.BytesIO(bench.thumbnail(upload["id"], 30))) as thumbnail:
        assert thumbnail.format == "PNG" and thumbnail.size == (30, 24)


def test_images_of_a_split_by_outcome_and_class(toy_run):
    """The filters are those of the recorded predictions."""
    folder = toy_run("ViP")
    bench = opened(folder)
    with open(folder / "predictions.csv", newline="") as file:
        rows = {row["picture"]: row for row in csv.DictReader(file)}
    wrong = {name for name, row in rows.items() if row["label"] != row["prediction"]}

    listed = bench.images("0", "test")
    assert listed["total"] == 12 and {i["name"] for i in listed["images"]} == set(rows)
    for outcome, expected in (("incorrect", wrong), ("correct", set(rows) - wrong)):
        found = bench.images("0", "test", outcome)
        assert {i["name"] for i in found["images"]} == expected
    unsure = bench.images("0", "test", "unsure")["images"]
    close = {name for name, row in rows.items() if abs(float(row["p(red)"]) - 0.5) < 0.1}
    assert {i["name"] for i in unsure} == close
    reds = bench.images("0", "test", class_name="red", offset=4, limit=5)
    assert reds["total"] == 6 and len(reds["images"]) == 2
    assert all(i["truth"] == "red" for i in reds["images"])
    assert bench.about()["splits"] == {"train": 20, "val": 8, "test": 12}


def test_images_of_one_patient(toy_run):
    """By a number, as in predictions.csv: what identifies a patient stays where it is."""
    bench = opened(toy_run("ViP"))
    assert bench.images("0", "val")["patients"] == []
    for i, picture in enumerate(bench._pictures.run.pictures("test")):
        picture.patient = f"Jane Roe {i % 3}"

    listed = bench.images("0", "test")
    found = bench.images("0", "test", patient=listed["images"][1]["patient"])

    assert len(listed["patients"]) == 3 and "Roe" not in str(listed)
    assert [image["id"] for image in found["images"]] == [f"test/{i}" for i in (1, 4, 7, 10)]


def test_heat_maps_are_those_of_the_symptoms(toy_run):
    """One PNG a symptom, with transparency, of the image's shape; added phrases have one too."""
    bench = opened(toy_run("ViP"))
    state = state_of(bench)
    state[1]["phrases"].append(phrase("deep as a lake"))
    drawn = [
        bench.heatmap("0", "test/3", "blue", text, state)
        for text in ("cold color like the sea", "deep as a lake")
    ]

    for data in drawn:
        with Image.open(io.BytesIO(data)) as image:
            assert image.mode == "RGBA" and image.size == (40, 40)
            alpha = np.asarray(image)[..., 3]
            assert alpha.min() == 0 < alpha.max()
    assert drawn[0] != drawn[1]
    with pytest.raises(InputError, match="no such symptom"):
        bench.heatmap("0", "test/3", "red", "deep as a lake", state)
    state[1]["phrases"][-1]["text"] = " deep  as a lake "
    assert bench.heatmap("0", "test/3", "blue", " deep  as a lake ", state) == drawn[1]
    state.append({"class": "dark_green", "new": True, "phrases": [phrase("fresh leaves")]})
    assert bench.heatmap("0", "test/3", "dark_green", "fresh leaves", state)[:4] == b"\x89PNG"
    with pytest.raises(InputError, match="CoOp does not read symptoms"):
        opened(toy_run("CoOp")).heatmap("0", "test/3", "red", "no blue at all")


def test_neighbours_are_the_most_similar_training_images(toy_run):
    """By cosine of kept features; an image is not its own neighbour."""
    bench = opened(toy_run("ViP"))
    run = load_ensemble([toy_run("ViP")]).first
    train, own = run.features("train").numpy(), run.features("train").numpy()[7]
    cosines = train @ own / np.linalg.norm(train, axis=1) / np.linalg.norm(own)
    expected = [i for i in np.argsort(-cosines) if i != 7][:4]

    found = bench.neighbours("0", "train/7", 4)

    assert [n["id"] for n in found] == [f"train/{i}" for i in expected]
    assert found[0]["similarity"] == pytest.approx(cosines[expected[0]], abs=1e-5)
    assert all(n["label"] == n["name"].split("/")[1] for n in found)


def test_methods_that_are_not_explainable_say_so(toy_run):
    bench = opened(toy_run("CoOp"))
    about = bench.about()["runs"][0]

    assert about["explainable"] is False and about["symptoms"] is None
    answer = bench.answer("0", "test/0")
    best = max(probabilities(answer).values())
    correct = answer["prediction"] == answer["truth"]
    assert answer["verdict"] == f"predicted {answer['prediction']}, {100 * best:.1f} %: " + (
        "correct" if correct else f"incorrect (true class: {answer['truth']})"
    )
    with pytest.raises(InputError, match="does not read symptoms"):
        bench.answer("0", "test/0", [{"class": "red", "phrases": []}])


def test_without_the_dataset_uploads_are_answered(toy_run, tmp_path):
    """Nothing but the images of the splits needs it."""
    bench = opened(toy_run("ViP"), root=tmp_path)
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), (200, 30, 30)).save(buffer, "PNG")

    answer = bench.answer("0", bench.upload("a.png", buffer.getvalue())["id"])

    assert bench.about()["splits"] == {}
    assert sum(probabilities(answer).values()) == pytest.approx(1)
    assert answer["evidence"] is None and answer["unlike"] is None
    with pytest.raises(InputError):
        bench.images("0", "test")
