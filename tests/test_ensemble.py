"""Several seeds of one run as one model."""

import csv
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax

import explain
import predict
from core.errors import InputError, command_line
from datasets import synthetic
from engine.ensemble import load_ensemble
from engine.out_of_distribution import PERCENTILE, fit_distance, training_distance
from explanations.selection import balanced
from results.calibration import calibrate, fit_temperature, tempered
from results.named_runs import named_runs
from trainers import load_run


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def seeds(toy_run):
    """The folders of two seeds of one run."""
    return [toy_run("ViP"), toy_run("ViP", "SEED", "2")]


@pytest.fixture
def parent(seeds, tmp_path):
    """A folder that holds both, as train.py makes it."""
    for number, folder in enumerate(seeds, 1):
        shutil.copytree(folder, tmp_path / "run" / f"seed{number}")
    return tmp_path / "run"


def test_an_ensemble_is_the_mean_of_single_predictions(seeds):
    singles = [load_run(folder) for folder in seeds]
    paths = [picture.impath for picture in singles[0].pictures("test")]
    each = np.stack([run.predict(paths) for run in singles])
    assert np.abs(each[0] - each[1]).max() > 1e-4  # the seeds do differ

    found = load_ensemble(seeds).predict(iter(paths))

    np.testing.assert_allclose(found, each.mean(axis=0), atol=1e-12)


@pytest.mark.parametrize("how", ["several", "parent"])
def test_predict_takes_seeds(seeds, parent, tmp_path, how):
    """Several RUN arguments, or the folder that holds seed1, seed2."""
    named = list(map(str, seeds)) if how == "several" else [str(parent)]
    data = load_run(seeds[0]).dataset.dataset_dir / "test"
    single = []
    for folder in seeds:
        predict.main([str(folder), "--images", str(data), "--output", str(tmp_path / "one.csv")])
        single.append(read_csv(tmp_path / "one.csv"))

    predict.main([*named, "--images", str(data), "--output", str(tmp_path / "all.csv")])

    for row, *own in zip(read_csv(tmp_path / "all.csv"), *single, strict=True):
        mean = np.mean([float(one["p(red)"]) for one in own])
        assert float(row["p(red)"]) == pytest.approx(mean, abs=1e-12)
        assert row["prediction"] == ("red" if mean > 0.5 else "blue")


def test_explain_takes_seeds(parent, tmp_path, capsys):
    explain.main([str(parent), "--limit", "2"])

    page = (parent / "explanations" / "index.html").read_text()
    assert "seeds 1, 2" in page and "seeds)" in page
    ensemble = load_ensemble(named_runs([str(parent)]))
    paths = [picture.impath for picture in ensemble.first.pictures("test")[:2]]
    rows = read_csv(parent / "explanations" / "explanations.csv")
    red = [float(row["class_probability"]) for row in rows if row["class"] == "red"]
    expected = np.repeat(ensemble.predict(paths)[:, 0], len(red) // 2)
    np.testing.assert_allclose(red, expected, atol=1e-6)


@pytest.mark.parametrize("main", [predict.main, explain.main])
def test_seeds_of_different_runs_are_refused_in_one_line(toy_run, seeds, tmp_path, capsys, main):
    """Another option, another method, the same seed twice; names what differs."""
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    others = {
        toy_run("ViP", "TRAINER.VIP.MERGE", "mean"): "TRAINER.VIP.MERGE is 'mean' there",
        toy_run("CoOp"): "is not another seed of",
        seeds[0]: "are both seed 1; give each seed once",
    }
    for other, message in others.items():
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            words = [str(seeds[0]), str(other), "--images", str(tmp_path / "a.png")]
            command_line(lambda words=words: main(words))()
        (line,) = (line for line in capsys.readouterr().err.splitlines() if line)
        assert stopped.value.code == 2 and line.startswith("error: ") and message in line


def test_a_folder_of_seeds_stands_for_all_in_their_order(tmp_path):
    for number in (10, 2, 1):
        (tmp_path / f"seed{number}").mkdir()
        (tmp_path / f"seed{number}" / "config.yaml").write_text("")
    (tmp_path / "seed3").mkdir()  # not a run

    found = named_runs([str(tmp_path)])

    assert [path.name for path in found] == ["seed1", "seed2", "seed10"]
    assert named_runs([str(tmp_path / "seed2")]) == [tmp_path / "seed2"]
    assert named_runs([str(tmp_path / "seed3")]) == [tmp_path / "seed3"]


# Calibration


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_is_found_again(temperature):
    """Labels drawn from the probabilities at a temperature give that temperature."""
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(20_000, 3))
    p = softmax(logits / temperature, axis=1)
    labels = (p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1)

    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_calibration_keeps_the_prediction_and_helps():
    """The order of the classes stays; the cross-entropy of the fitted images falls."""
    rng = np.random.default_rng(0)
    p = softmax(8 * rng.normal(size=(300, 4)), axis=1)
    labels = np.where(rng.random(300) < 0.5, p.argmax(axis=1), rng.integers(0, 4, 300))

    found = calibrate(p, labels)
    after = found.apply(p)

    assert found.temperature > 1 and found.images == 300
    np.testing.assert_allclose(after.sum(axis=1), 1)
    np.testing.assert_array_equal(after.argmax(axis=1), p.argmax(axis=1))
    rows = np.arange(300)
    assert -np.log(after[rows, labels]).mean() < -np.log(p[rows, labels]).mean()
    np.testing.assert_allclose(tempered(p, 1.0), p, atol=1e-9)


def test_calibration_is_fitted_on_validation_images(seeds):
    ensemble = load_ensemble(seeds)
    labels = np.array([picture.label for picture in ensemble.first.pictures("val")])
    p = ensemble.probabilities(ensemble.first.features("val")).mean(axis=0)

    found = ensemble.calibration()

    assert found.images == len(labels) == 8
    assert found.temperature == pytest.approx(fit_temperature(np.log(p), labels))


# Images unlike the training images


@pytest.fixture(scope="module")
def lesions(request):
    """The embedded backbone's view, and features of drawn lesions with their labels."""
    from dassl.data.transforms import build_transform

    from backbones.loading import backbone_of, with_preprocessing
    from engine.config import load_cfg

    path = request.config.rootpath / "backbones" / "tiny.pt"
    cfg, _ = load_cfg("ViP", "synthderm", "tiny", opts=["MODEL.BACKBONE.PATH", str(path)])
    frozen = backbone_of(cfg, torch.device("cpu"))
    view = build_transform(with_preprocessing(cfg, frozen), is_train=False)

    def encode(images):
        views = [view(Image.fromarray(pixels)) for pixels in images]
        return frozen.encode_image(torch.stack(views))

    drawn = [synthetic.picture(synthetic.LESIONS, 5, i) for i in range(600)]
    labels = np.array([shown["border"] == "clear" for _, shown in drawn], int)
    return encode, encode([pixels for pixels, _ in drawn]), labels


def test_noise_is_marked_and_a_lesion_is_not(lesions):
    """Also chests, which are drawn as well, and lesions in false colours."""
    encode, features, labels = lesions
    found = fit_distance(features[:250], labels[:250], features[250:450], features[450:])
    rng = np.random.default_rng(0)

    noise = rng.integers(0, 255, (20, 64, 64, 3), dtype=np.uint8)
    chests = [synthetic.picture(synthetic.CHESTS, 5, i)[0] for i in range(20)]
    lesion = [synthetic.picture(synthetic.LESIONS, 6, i)[0] for i in range(100)]

    assert found.unlike(encode(noise)).all()
    assert found.unlike(encode(chests)).all()
    assert found.unlike(encode([255 - pixels for pixels in lesion[:20]])).mean() > 0.9
    assert found.unlike(encode(lesion)).mean() <= 0.1


def test_false_alarms_are_counted_on_test_images(lesions):
    """The threshold is a percentile of the validation images; the sentence has the rate."""
    _, features, labels = lesions
    found = fit_distance(features[:250], labels[:250], features[250:450], features[450:])

    assert (found.of(features[250:450]) > found.threshold).mean() == pytest.approx(
        1 - PERCENTILE / 100, abs=0.006
    )
    marked = int(found.unlike(features[450:]).sum())
    assert (found.false_alarms, found.test_images) == (marked, 150)
    assert f"({marked} of 150)" in found.describe() and "Mahalanobis" in found.describe()


def test_distance_is_mahalanobis_to_the_nearest_class_mean():
    """Against scikit-learn's own distances, class by class."""
    from sklearn.covariance import LedoitWolf

    rng = np.random.default_rng(0)
    labels = np.repeat([0, 2], 30)
    train = rng.normal(size=(60, 5)) + 3 * labels[:, None]
    unit = train / np.linalg.norm(train, axis=1, keepdims=True)
    means = [unit[labels == c].mean(axis=0) for c in (0, 2)]
    within = np.concatenate([unit[:30] - means[0], unit[30:] - means[1]])
    model = LedoitWolf(assume_centered=True).fit(within)

    found = fit_distance(
        *map(torch.tensor, (train,)), labels, torch.tensor(train[:12]), torch.tensor(train)
    )

    squares = np.stack([model.mahalanobis(unit - mean) for mean in means])
    np.testing.assert_allclose(found.of(torch.tensor(train)), np.sqrt(squares.min(axis=0)))


def test_too_few_images_are_an_error():
    features = torch.randn(20, 4)
    with pytest.raises(InputError, match="7 training and 20 validation images"):
        fit_distance(features[:7], np.zeros(7, int), features, features)


def test_a_method_that_learns_the_image_encoder_is_not_checked(toy_run, tmp_path, capsys):
    """Its features are others than the frozen ones; the column is empty, and a line says why."""
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    run = toy_run("Supervised", "TRAINER.SUPERVISED.START", "clip")
    capsys.readouterr()

    predict.main([str(run), "--images", str(tmp_path), "--output", str(tmp_path / "a.csv")])

    assert read_csv(tmp_path / "a.csv")[0]["unlike training images"] == ""
    assert "Supervised learns the image encoder" in capsys.readouterr().err
    assert training_distance(load_run(run)) is None


def test_predict_marks_noise(toy_run, tmp_path, capsys):
    run = toy_run("ViP")
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 2, (40, 40, 3), dtype=np.uint8) * 255
    Image.fromarray(noise).save(tmp_path / "noise.png")
    like = load_run(run).pictures("train")[0].impath
    images = [str(tmp_path / "noise.png"), str(like)]

    predict.main([str(run), "--images", *images, "--output", str(tmp_path / "a.csv")])

    rows = read_csv(tmp_path / "a.csv")
    assert [row["unlike training images"] for row in rows] == ["yes", "no"]
    assert "1 of 2 images are unlike the training images" in capsys.readouterr().err


# Which images are shown


def test_balanced_takes_the_classes_in_turn():
    """In the given order; a class that has no image left leaves its turn to the others."""
    truth = np.array([1, 1, 1, 1, 0, 0, 2])
    order = [3, 2, 1, 0, 6, 5, 4]

    assert balanced(order, truth, 3) == [3, 6, 5]
    assert balanced(order, truth, 4) == [3, 2, 6, 5]
    assert balanced(order, truth, 99) == order
    assert balanced([0, 1, 2], truth, 2) == [0, 1]
    assert balanced([], truth, 2) == []
