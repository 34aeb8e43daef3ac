"""``load_run``: a run's folder is enough to ask and to explain."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from dassl.data.transforms import build_transform
from PIL import Image

from core.errors import InputError
from datasets.pictures import find_pictures
from engine.loading import read_config
from engine.method import METHODS
from explanations import explain, with_symptoms
from trainers import load_run

SYMPTOMS = ("TRAINER.ZEROSHOTCLIP.PROMPTS", "symptoms")


def recorded_answers(run):
    """The test pictures in the order of predictions.csv, and its probabilities."""
    with open(run.folder / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [f"p({name})" for name in run.classnames]
    paths = [run.dataset.dataset_dir / row["picture"] for row in rows]
    return paths, np.array([[float(row[name]) for name in columns] for row in rows])


@pytest.mark.parametrize("trainer", sorted(METHODS))
def test_every_method_answers_as_its_run_did(toy_run, trainer):
    """The probabilities of predictions.csv, from the checkpoint and the picture files alone."""
    run = load_run(toy_run(trainer))
    paths, recorded = recorded_answers(run)

    answers = run.predict(paths)

    # The last layer's products have as many rows as a batch has images, and round accordingly.
    np.testing.assert_allclose(answers, recorded, rtol=0, atol=5e-6)
    np.testing.assert_allclose(answers.sum(axis=1), 1)


def test_a_setting_that_no_longer_exists_is_passed_over(toy_run, tmp_path):
    """Kept runs hold MODEL.COMPILE, which changed no result."""
    saved = yaml.safe_load((toy_run("ViP") / "config.yaml").read_text())
    saved["MODEL"]["COMPILE"] = True
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(saved))

    assert "COMPILE" not in read_config(tmp_path).MODEL


def test_paths_pictures_and_views_are_alike(toy_run):
    """A file, the picture in memory and its finished view give one answer; so does one of them."""
    run = load_run(toy_run("ViP"))
    path = str(recorded_answers(run)[0][0])
    with Image.open(path) as image:
        image.load()
    view = build_transform(run.cfg, is_train=False)(image)

    answers = [run.predict(x) for x in (path, image, view, [path, image, view][:1])]

    assert all(answer.shape == (1, 2) for answer in answers)
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16", "P"])
def test_pictures_in_memory_of_any_mode(toy_run, tmp_path, mode):
    """Answered as the same picture in a file is."""
    run = load_run(toy_run("ViP"))
    values = np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)
    image = Image.fromarray(values).convert("L")
    image = (
        Image.fromarray(values.astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    )
    if mode == "RGBA":
        image.putalpha(Image.fromarray(values[::-1].copy()))
    image.save(tmp_path / "a.png")

    np.testing.assert_array_equal(run.predict(image), run.predict(tmp_path / "a.png"))


def test_loading_leaves_the_callers_random_numbers_alone(toy_run):
    folder = toy_run("ViP")
    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(3)
    np.random.seed(3)

    load_run(folder)

    assert (torch.rand(1), np.random.rand()) == expected


def test_the_datasets_pictures_need_not_be_there(toy_run, tmp_path, capsys):
    """A picture is asked about, and explained without standardising."""
    run = load_run(toy_run("ViP"), root=tmp_path)
    Image.new("RGB", (50, 40), "red").save(tmp_path / "a.png")

    answer = run.predict(tmp_path / "a.png")
    explanation = explain(run, tmp_path / "a.png")

    np.testing.assert_allclose(explanation.probabilities, answer, atol=5e-6)
    assert explanation.standardised is None and explanation.waterfall(0) is None
    assert "not standardised" in capsys.readouterr().err


@pytest.mark.parametrize("args", [("ViP",), ("ZeroshotCLIP", *SYMPTOMS)], ids=lambda a: a[0])
def test_explanation_of_a_run(toy_run, args):
    """Its parts sum to the logits that its probabilities follow from."""
    run = load_run(toy_run(*args))
    paths, recorded = recorded_answers(run)

    explanation = explain(run, paths)

    np.testing.assert_allclose(explanation.parts.logits, explanation.logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(explanation.probabilities, recorded, atol=5e-6)
    training = explain(run, [picture.impath for picture in run.pictures("train")])
    standardised = training.standardised[:, 0]  # red has the most symptoms: nothing is padded
    np.testing.assert_allclose(standardised.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(standardised.std(axis=0), 1, atol=1e-4)
    np.testing.assert_allclose(training.evidence.symptom.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(explanation.evidence.logits, explanation.logits, rtol=1e-5)
    tokens = 1 if args[0] == "ViP" else 0
    assert len(explanation.waterfall(0).steps) == 3 + 2 + tokens


def test_other_symptoms_without_training(toy_run, tmp_path):
    """What if: the learned numbers with changed symptoms, as a run on that file would load."""
    folder = toy_run("ViP")
    run = load_run(folder)
    paths, _ = recorded_answers(run)
    before = run.predict(paths)

    changed = with_symptoms(run, ["no blue at all"], [("Blue", "deep  as a lake")])

    assert changed.symptoms.phrases == {
        "red": ["warm color like blood", "the color of a tomato"],
        "blue": ["cold color like the sea", "the color of the sky", "deep as a lake"],
    }
    copied = shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "other.json").write_text(json.dumps(changed.symptoms.phrases))
    config = (copied / "config.yaml").read_text()
    (copied / "config.yaml").write_text(
        config.replace(str(run.cfg.DATASET.SYMPTOMS), str(tmp_path / "other.json"))
    )
    results = json.loads((copied / "results.json").read_text())
    del results["symptom_fingerprint"]
    (copied / "results.json").write_text(json.dumps(results))
    np.testing.assert_array_equal(changed.predict(paths), load_run(copied).predict(paths))
    assert not np.array_equal(changed.predict(paths), before)
    np.testing.assert_array_equal(run.predict(paths), before)  # the run itself is as it was


def test_symptoms_that_changed_since_are_refused(toy_run, tmp_path):
    """The weights would be explained by phrases that they were not learned with."""
    copied = shutil.copytree(toy_run("ViP"), tmp_path / "copy")
    results = json.loads((copied / "results.json").read_text())
    results["symptom_fingerprint"] = "0" * 12
    (copied / "results.json").write_text(json.dumps(results))

    with pytest.raises(InputError, match="holds other symptoms than .*copy was made with"):
        load_run(copied)


def test_unfinished_run_asks_the_dataset_for_its_classes(toy_run, tmp_path):
    """Without results.json there is still the best checkpoint so far."""
    copied = shutil.copytree(toy_run("ViP"), tmp_path / "copy")
    (copied / "results.json").unlink()
    run = load_run(copied)

    assert run.classnames == ["red", "blue"]
    paths, recorded = recorded_answers(run)
    np.testing.assert_allclose(run.predict(paths), recorded, atol=5e-6)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shutil.rmtree(f), "there is no such folder"),
        (lambda f: (f / "config.yaml").unlink(), "it holds no config.yaml"),
        (lambda f: (f / "config.yaml").write_text("- a\n"), "not the configuration of a run"),
        (lambda f: (f / "config.yaml").write_bytes(b"\xff\xfe\x00"), "not the configuration"),
        (lambda f: shutil.rmtree(f / "vip"), "holds no checkpoint"),
    ],
)
def test_what_is_no_run_is_named(toy_run, tmp_path, spoil, message):
    copied = shutil.copytree(toy_run("ViP"), tmp_path / "copy")
    spoil(copied)

    with pytest.raises(InputError, match=message) as caught:
        load_run(copied)

    assert "copy" in str(caught.value) and "\n" not in str(caught.value)


def test_a_device_that_is_not_there_is_one_line(toy_run):
    with pytest.raises(InputError, match="device nope: cannot be used here"):
        load_run(toy_run("CoOp"), device="nope")


def test_pictures_there_are_none(toy_run):
    with pytest.raises(InputError, match="no images to look at"):
        load_run(toy_run("ViP")).predict([])


def test_found_pictures_can_be_asked_about(toy_run):
    """What ``find_pictures`` gives is what ``predict`` takes."""
    run = load_run(toy_run("CoOp"))
    pictures, _ = find_pictures(run.dataset.dataset_dir / "val")

    assert run.predict(pictures).shape == (8, 2)
