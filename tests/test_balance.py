"""Options for unbalanced training images: class weights and balanced sampling."""

from collections import Counter

import numpy as np
import pytest
import torch
from dassl.engine import build_trainer
from naive import NAMES
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_class_weight
from small_clip import frozen_clip
from torch.testing import assert_close

import train
from core.errors import InputError
from datasets.views import EpochBatches, view_seed
from engine.balance import balanced_weights
from engine.config import load_cfg
from engine.method import METHODS
from results.record import read_record
from symptoms import Symptoms

WEIGHTS = ["TRAIN.CLASS_WEIGHTS", "balanced"]
BALANCED = ["DATALOADER.TRAIN_X.BALANCED", "True"]
LEARNS = [n for n, m in METHODS.items() if not m.fitted_at_once and n != "ZeroshotCLIP"]
FITTED = [name for name, method in METHODS.items() if method.fitted_at_once]


@pytest.fixture
def unbalanced(toy):
    """The toy dataset with three of ten red training images."""
    for path in sorted((toy / "data/toy/train/red").iterdir())[3:]:
        path.unlink()
    return toy


def config(toy, trainer, *opts):
    return load_cfg(
        trainer,
        str(toy / "toy.yaml"),
        str(toy / "random.yaml"),
        opts=opts,
        root=str(toy / "data"),
        output_dir=str(toy / "run"),
    )


def test_weights_are_scikit_learns():
    labels = [0, 2, 2, 1, 2, 0, 2]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert balanced_weights(labels, 3).tolist() == pytest.approx(expected)
    assert balanced_weights(labels, 4)[3] == 0  # a class without images


def flat(sampler, epoch):
    sampler.epoch = epoch
    return [index for batch in sampler for _, index in batch]


def test_an_epoch_shows_each_class_equally_often():
    """As many images as before, from (seed, epoch) alone; in time every image is shown."""
    labels = [0] * 20 + [1] * 5 + [2] * 7
    sampler = EpochBatches(32, 8, seed=3, labels=labels)
    epochs = [flat(sampler, epoch) for epoch in range(12)]

    for indices in epochs:
        counts = Counter(labels[i] for i in indices)
        assert sorted(counts.values()) == [10, 11, 11]
        seen = Counter(indices)
        rare = [seen[i] for i in range(20, 32)]
        assert max(seen[i] for i in range(20)) == 1 and min(rare) >= 1
        assert max(rare[:5]) - min(rare[:5]) <= 1  # none is repeated before the others are
    assert len({tuple(indices) for indices in epochs}) == 12
    assert {i for indices in epochs for i in indices} == set(range(32))
    assert flat(EpochBatches(32, 8, seed=3, labels=labels), 5) == epochs[5]
    assert flat(EpochBatches(32, 8, seed=4, labels=labels), 5) != epochs[5]


def test_by_default_the_order_is_a_plain_shuffle():
    generator = torch.Generator().manual_seed(view_seed(3, 5, "order"))
    assert flat(EpochBatches(32, 8, seed=3), 5) == torch.randperm(32, generator=generator).tolist()


@pytest.mark.parametrize("trainer", ["CoOp", "Supervised"])
def test_training_uses_the_balanced_order(unbalanced, short, trainer):
    """With kept features and with images."""
    trainer = build_trainer(config(unbalanced, trainer, *short, *BALANCED)[0])
    trainer.epoch = 1
    labels = torch.cat([batch["label"] for batch in trainer.batches()]).tolist()

    assert len(trainer.dm.dataset.train_x) == 13
    # 13 images give one batch of 8: of seven red and six blue ones.
    order = trainer.train_loader_x.batch_sampler.order(1)
    shown = [trainer.dm.dataset.train_x[i].label for i in order]
    assert sorted(Counter(shown).values()) == [6, 7] and labels == shown[:8]


def weighted(logits, label, weights):
    """Sum of w_y * -log softmax_y over the sum of w_y, an image at a time."""
    p = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    losses = [-weights[y] * row[y].log() for row, y in zip(p, label, strict=True)]
    return sum(losses) / sum(weights[y] for y in label)


@pytest.mark.parametrize("name", LEARNS)
def test_every_method_with_steps_weighs_its_cross_entropy(name, tiny_clip):
    """Its loss is the weighted one by definition; without weights it is the plain one."""
    torch.manual_seed(0)
    symptoms = Symptoms({n: [f"sign of {n}", "a pale spot"] for n in NAMES})
    model = METHODS[name]().build(frozen_clip(tiny_clip.float()), list(NAMES), symptoms)
    images, label = torch.randn(4, 3, 32, 32), torch.tensor([0, 2, 1, 0])
    weights = torch.tensor([0.2, 3.0, 1.0])
    for given, by in ((None, torch.ones(3)), (weights.half(), weights)):
        model.class_weights = given
        torch.manual_seed(1)
        logits, losses = model(images, label)
        assert_close(losses["cross_entropy"], weighted(logits, label, by), rtol=1e-3, atol=1e-3)


def test_the_run_says_what_it_weighed(unbalanced, short, toy_args):
    """In the name of its folder and its record; results differ from those without."""
    cfg, options = config(unbalanced, "CoOp", *short, *WEIGHTS, *BALANCED)
    assert options["TRAIN.CLASS_WEIGHTS"] == "balanced"
    found = []
    for words in ([], WEIGHTS, BALANCED):
        folder = unbalanced / f"run{len(found)}"
        train.main(["--trainer", "CoOp", *toy_args[:-1], str(folder), *short, *words])
        found.append((folder / "predictions.csv").read_text())
    record = read_record(folder)
    assert "DATALOADER.TRAIN_X.BALANCED=True" in record.variant
    assert len(set(found)) == 3


def test_the_weights_are_those_of_the_training_images(unbalanced, short):
    trainer = build_trainer(config(unbalanced, "CoOp", *short, *WEIGHTS)[0])
    assert trainer.model.class_weights.tolist() == pytest.approx([13 / 6, 13 / 20])
    assert build_trainer(config(unbalanced, "CoOp", *short)[0]).model.class_weights is None


def test_a_probe_is_the_weighted_logistic_regression(unbalanced, short):
    trainer = build_trainer(config(unbalanced, "LinearProbe", *short, *WEIGHTS, "C", "1.0")[0])
    trainer.train()
    features, test = (trainer.frozen_features.of_split(s).double() for s in ("train", "test"))
    labels = [image.label for image in trainer.dm.dataset.train_x]
    fitted = LogisticRegression(C=1.0, max_iter=1000, class_weight="balanced")
    fitted.fit(features.numpy(), labels)

    expected = fitted.predict_proba(test.numpy())
    assert_close(trainer.predict("test").probabilities, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("words", [WEIGHTS, BALANCED], ids=lambda words: words[0])
@pytest.mark.parametrize("name", FITTED)
def test_what_has_no_effect_is_one_line(toy, toy_args, name, words):
    """A method that is fitted at once sees every image once; the probe alone weighs them."""
    if name == "LinearProbe" and words == WEIGHTS:
        return
    with pytest.raises(InputError, match=f"^{words[0]} has no effect on {name}, .* remove it$"):
        train.main(["--trainer", name, *toy_args, *words])
    assert not (toy / "run").exists()


def test_a_wrong_value_names_the_choices(toy):
    with pytest.raises(InputError, match="TRAIN.CLASS_WEIGHTS.*none.*balanced"):
        config(toy, "CoOp", "TRAIN.CLASS_WEIGHTS", "inverse")
