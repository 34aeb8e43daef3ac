"""Whether heat maps find what is drawn: verdicts on planted maps, and the command."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

import explain
import train
from core.errors import InputError
from datasets.synthetic import attribute_masks
from explanations import localisation as module
from explanations.heatmaps import METHODS, symptoms_of
from explanations.localisation import (
    BASELINES,
    Localisation,
    found_symptoms,
    mean_interval,
    symptom_masks,
)
from trainers import load_run


def of(method, hits, shares, baselines=()):
    return Localisation("c", "s", method, np.array(hits, float), np.array(shares), baselines)


def test_a_map_finds_a_symptom_only_if_it_beats_both_baselines():
    """By the interval of its share's difference, and without pointing there less often."""
    rng = np.random.default_rng(0)
    shares = rng.uniform(0.1, 0.3, 40)
    centre, random = of("centre", [1, 0] * 20, shares), of("random", [0] * 40, shares / 2)
    both = [centre, random]

    assert of("gradient", [1, 0] * 20, shares + 0.05, both).beats
    assert not of("gradient", [0] * 40, shares + 0.05, both).beats  # points elsewhere
    assert not of("gradient", [1] * 40, shares, both).beats  # no more heat than the centre
    noisy = shares + 0.001 + rng.normal(0, 0.1, 40)
    assert not of("gradient", [1] * 40, noisy, both).beats  # not beyond chance
    assert not of("gradient", [1] * 40, shares * 0.9, both).beats  # beats only the random one
    assert of("centre", [1] * 40, shares).beats is None


def test_intervals_are_of_the_mean():
    """They hold it, and shrink with the number of images."""
    values = np.random.default_rng(1).uniform(size=400)
    low, high = mean_interval(values)
    assert low < values.mean() < high
    width = 2 * 1.96 * values.std() / 20
    assert high - low == pytest.approx(width, rel=0.1)


@pytest.fixture(scope="module")
def drawn_run(tmp_path_factory):
    """A run on drawn chest films with the words alone, so that nothing is trained."""
    folder = tmp_path_factory.mktemp("drawn")
    train.main(
        ["--trainer", "ZeroshotCLIP", "--dataset", "synthchest", "--backbone", "tiny"]
        + ["--root", str(folder / "data"), "--output-dir", str(folder / "run")]
        + ["TRAINER.ZEROSHOTCLIP.PROMPTS", "symptoms", "DATALOADER.NUM_WORKERS", "0"]
    )
    return folder / "run"


def test_masks_are_those_of_the_images_and_of_the_symptoms_that_they_show(drawn_run):
    """The image of a row of attributes.csv is the one that is drawn again."""
    run = load_run(drawn_run)
    masks = symptom_masks(run, "test")
    pictures = run.pictures("test")
    world, seed = run.dataset.drawn_from
    with open(Path(run.dataset.dataset_dir) / "attributes.csv") as file:
        rows = {row["picture"]: (i, row) for i, row in enumerate(csv.DictReader(file))}

    assert len(masks) == len(pictures) == 62
    for picture, own in zip(pictures, masks, strict=True):
        index, row = rows[picture.id]
        expected, _ = attribute_masks(world, seed, index, row["class"])
        assert ("presence of cavitation" in own) == (row["cavity"] == "cavity")
        assert ("sharp outline of the heart" in own) == (row["borders"] == "sharp")
        assert "sharp, dark corners between the ribs and the diaphragm" not in own
        if "presence of consolidation" in own:
            assert np.array_equal(own["presence of consolidation"], expected["opacity"])


def test_a_perfect_map_finds_everything_and_a_blind_one_nothing(drawn_run, monkeypatch):
    """Planted in the place of the gradients: the masks themselves, then what lies outside them."""
    run = load_run(drawn_run)
    masks, symptoms = symptom_masks(run, "val"), symptoms_of(run)
    truth = np.zeros((len(masks), len(symptoms), 64, 64), np.float32)
    for i, own in enumerate(masks):
        for j, symptom in enumerate(symptoms):
            truth[i, j] = own.get(symptom.phrase.casefold(), 0)
    for sign, expected in ((1, True), (-1, False)):
        batches = iter(torch.from_numpy(sign * truth).split(module.BATCH))
        monkeypatch.setattr(module, "maps_of_views", lambda *_, b=batches: next(b).numpy())
        found = found_symptoms(run)
        assert len(found) == 8  # of 9: the sharp corners are where nothing is drawn
        assert set(found.values()) == {expected}


def test_the_command_prints_and_writes_the_table(drawn_run, tmp_path, capsys):
    """A line for each symptom with a place and each map; the gradient finds the cavities."""
    explain.main([str(drawn_run), "--localise", "--output-dir", str(tmp_path)])
    out = capsys.readouterr().out
    with open(tmp_path / "localisation.csv", newline="") as file:
        rows = list(csv.DictReader(file))

    assert len(rows) == 8 * len([*METHODS, *BASELINES])
    assert [row["method"] for row in rows[:4]] == [*METHODS, *BASELINES]
    cavity = {row["method"]: row for row in rows if row["symptom"] == "presence of cavitation"}
    assert cavity["gradient"]["beats"] == "True" and cavity["centre"]["beats"] == ""
    assert float(cavity["gradient"]["share"]) > 4 * float(cavity["random"]["share"])
    for row in rows:
        assert float(row["share_low"]) <= float(row["share"]) <= float(row["share_high"])
    assert "| pneumonia: presence of cavitation" in out and "| gradient |" in out


def test_without_drawn_images_nothing_is_measured(toy_run, capsys):
    """One line that says which datasets have it; a page is told that nothing is known."""
    run = load_run(toy_run("ViP"))
    assert found_symptoms(run) is None
    capsys.readouterr()
    with pytest.raises(InputError, match="synthderm, synthskin and synthchest"):
        explain.main([str(toy_run("ViP")), "--localise"])
    assert capsys.readouterr().out == ""


def test_without_the_dataset_or_its_pairs_nothing_is_known(drawn_run, monkeypatch, tmp_path):
    """Own images are explained all the same."""
    (tmp_path / "file").write_text("")  # no folder can be made below it
    assert found_symptoms(load_run(drawn_run, root=tmp_path / "file")) is None
    monkeypatch.setattr(module, "PAIRS", tmp_path)
    assert found_symptoms(load_run(drawn_run)) is None


def test_a_dataset_of_another_drawing_is_rejected(drawn_run, monkeypatch):
    """Masks of other images would measure nothing."""
    run = load_run(drawn_run)
    world, seed = run.dataset.drawn_from
    monkeypatch.setattr(type(run.dataset), "drawn_from", (world, seed + 1))
    with pytest.raises(InputError, match="drawn by another version"):
        symptom_masks(run, "test")
