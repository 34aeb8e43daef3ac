"""The linear probe: its features, its choice, its head."""

import numpy as np
import pytest
import torch
from dassl.engine import build_trainer
from sklearn.linear_model import LogisticRegression
from small_clip import frozen_clip
from torch.testing import assert_close

import train
from dassl_compat.checkpoint_reader import read_checkpoint
from engine.config import load_cfg
from engine.method import FitData, LabelledFeatures
from results.record import read_record
from trainers.linear_probe import STRENGTHS, LinearProbe, keep


@pytest.fixture
def probe(toy, short):
    """A trained probe."""
    cfg, _ = load_cfg(
        "LinearProbe",
        str(toy / "toy.yaml"),
        str(toy / "random.yaml"),
        opts=short,
        root=str(toy / "data"),
        output_dir=str(toy / "run"),
    )
    trainer = build_trainer(cfg)
    trainer.train()
    return trainer


def test_is_the_best_logistic_regression_on_centre_crops(probe):
    """Of all strengths the one with the best validation accuracy, the strongest of equals."""
    dataset = probe.dm.dataset

    def features(pictures):
        views = torch.cat([probe.dm.scale(b["img"]) for b in probe.dm.test_view_loader(pictures)])
        return probe.model.backbone.encode_image(views).double().numpy()

    def labels(pictures):
        return np.array([p.label for p in pictures])

    best = (-1, None)
    for strength in STRENGTHS:
        fitted = LogisticRegression(C=strength, max_iter=1000)
        fitted.fit(features(dataset.train_x), labels(dataset.train_x))
        accuracy = fitted.score(features(dataset.val), labels(dataset.val))
        best = max(best, (accuracy, fitted), key=lambda pair: pair[0])
    probe.set_model_mode("eval")

    expected = best[1].predict_proba(features(dataset.test))
    assert_close(probe.predict("test").probabilities, expected, rtol=0, atol=1e-4)
    assert probe.trainable_parameters == 2 * 48 + 2


@pytest.mark.parametrize("n_cls", [2, 3, 100])
def test_head_gives_the_classifier_s_probabilities(tiny_clip, build, n_cls):
    """scikit-learn keeps one row for two classes, and a row each for more."""
    names = [f"class {i}" for i in range(n_cls)]
    built = build("LinearProbe", frozen_clip(tiny_clip), classnames=names)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2 * n_cls, 48))
    fitted = LogisticRegression().fit(x, np.arange(2 * n_cls) % n_cls)

    keep(fitted, built.model.learned)

    features = torch.from_numpy(x).float()
    ours = built.model.from_features(features).logits.softmax(dim=1).detach().double().numpy()
    assert_close(ours, fitted.predict_proba(x), rtol=0, atol=1e-5)


def test_its_run(toy_args, toy, short, capsys):
    """One line of history, plain tensors in the checkpoint, and the same figures again."""
    train.main(["--trainer", "LinearProbe", *toy_args, *short])
    first = read_record(toy / "run")
    history = (toy / "run" / "history.csv").read_text().splitlines()
    checkpoint = read_checkpoint(toy / "run" / "prompt_learner" / "model-best.pth.tar")
    train.main(["--trainer", "LinearProbe", *toy_args[:-1], str(toy / "again"), *short])
    again = read_record(toy / "again")
    capsys.readouterr()
    train.main(["--trainer", "LinearProbe", *toy_args, "--eval-only", *short])
    lines = capsys.readouterr().out

    assert len(history) == 2
    assert {k: tuple(v.shape) for k, v in checkpoint["state_dict"].items()} == {
        "weight": (2, 48),
        "bias": (2,),
    }
    assert first.metrics == again.metrics
    assert f"* accuracy: {100 * first.metrics.accuracy:.4f}%" in lines


def test_fixed_strength(toy_args, short, capsys):
    train.main(["--trainer", "LinearProbe", *toy_args, *short, "TRAINER.LINEARPROBE.C", "0.5"])

    assert "C 0.5 is used" in capsys.readouterr().out


def test_findings_have_a_logistic_regression_each(tiny_clip, build):
    """On the known images of each finding; validation's AUROC chooses C; one value: not fitted."""
    rng = np.random.default_rng(0)
    label = rng.choice([0.0, 1.0, np.nan], size=(80, 3))
    label[:, 2] = np.where(np.isnan(label[:, 2]), np.nan, 1)
    features = rng.normal(size=(80, 48)) + np.nan_to_num(label[:, :1], nan=0.5)
    names = ["a", "b", "c", "no a", "no b", "no c"]
    built = build("LinearProbe", frozen_clip(tiny_clip), "C", "0.5", classnames=names)
    train_data = LabelledFeatures(torch.tensor(features), torch.tensor(label))
    LinearProbe(C=0.5).fit(built.model, FitData(train_data, None, lambda passes: None))
    logits = built.model.from_features(torch.tensor(features).float()).logits
    odds = (logits[:, :3] - logits[:, 3:]).detach().numpy()

    for c in range(2):
        known = ~np.isnan(label[:, c])
        fitted = LogisticRegression(C=0.5, max_iter=1000).fit(features[known], label[known, c])
        np.testing.assert_allclose(odds[:, c], fitted.decision_function(features), atol=1e-3)
    assert not odds[:, 2].any()
