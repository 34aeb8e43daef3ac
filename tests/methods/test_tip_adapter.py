"""Tip-Adapter and -F against their equations, in float64; their caches, runs and checkpoints."""

import math

import pytest
import torch
from naive import NAMES, cosine, cross_entropy, text_feature
from torch.testing import assert_close

import train
from core.errors import InputError
from dassl_compat.checkpoint_reader import read_checkpoint
from engine.method import FitData, LabelledFeatures
from results.record import read_record
from trainers import tip_adapter
from trainers.tip_adapter import evenly

EPOCHS, LR, START = 5, 0.1, 9.0
OPTIONS = {"SEARCH_SCALE": (7.0, 30.0), "SEARCH_STEP": (8, 4), "VIEWS": 3}


@pytest.fixture
def data(frozen64):
    """Twelve training and nine validation images of three classes, and 20 views of the first."""
    d = frozen64.embed_dim
    centre = torch.randn(3, d, dtype=torch.float64)
    label, val_label = torch.arange(12) % 3, torch.arange(9) % 3

    def near(label, *passes):
        return centre[label] + 2 * torch.randn(*passes, len(label), d, dtype=torch.float64)

    views = near(label, 20)
    train = LabelledFeatures(near(label), label)
    return FitData(train, LabelledFeatures(near(val_label), val_label), lambda n: views[:n])


def unit(x):
    return x / (x * x).sum().sqrt()


def naive_logits(backbone, features, keys, label, alpha, beta):
    """s cos(f, t_c) + alpha * sum over the cached images of c of exp(-beta (1 - f . key))."""
    texts = [text_feature(backbone.model, f"a photo of a {name} .") for name in NAMES]
    scale = backbone.logit_scale.exp()
    rows = []
    for f in features:
        row = []
        for c, text in enumerate(texts):
            votes = [
                (-beta * (1 - (unit(f) * key).sum())).exp()
                for key, y in zip(keys, label, strict=True)
                if y == c
            ]
            row.append(scale * cosine(f, text) + alpha * sum(votes, torch.tensor(0.0).double()))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def naive_keys(views):
    return [unit(sum(of_image) / len(of_image)) for of_image in zip(*views, strict=True)]


def naive_search(backbone, val, keys, label, scale, steps):
    """The first best pair of the released code's grid: (correct, beta, alpha)."""
    best = (0, 0.0, 0.0)
    for i in range(steps[0]):
        beta = i * (scale[0] - 0.1) / steps[0] + 0.1
        for j in range(steps[1]):
            alpha = j * (scale[1] - 0.1) / steps[1] + 0.1
            logits = naive_logits(backbone, val.features, keys, label, alpha, beta)
            correct = sum(int(row.argmax() == y) for row, y in zip(logits, val.label, strict=True))
            if correct > best[0]:
                best = correct, beta, alpha
    return best


def test_logits_and_gradients(frozen64, image_features, label, build, close):
    """With respect to keys, alpha and beta."""
    model = build("TipAdapterF", frozen64).model.double()
    cached = torch.tensor([0, 1, 1, 2, 0])
    model.learned.hold(torch.randn(5, frozen64.embed_dim, dtype=torch.float64) / 7, cached)
    keys, alpha, beta = model.learned.keys, model.learned.alpha, model.learned.beta
    with torch.no_grad():
        alpha.fill_(1.7)
        beta.fill_(2.3)

    naive = naive_logits(frozen64, image_features, keys, cached, alpha, beta)
    logits, losses = model.from_features(image_features, label)

    close(logits, naive)
    close(sum(losses.values()), cross_entropy(naive, label), [keys, alpha, beta])


@pytest.mark.parametrize("at_once", [2**24, 20])
def test_fit(frozen64, image_features, build, data, close, monkeypatch, at_once):
    """Keys are means over views; validation chooses of the grid, also in small parts."""
    monkeypatch.setattr(tip_adapter, "SEARCHED_AT_ONCE", at_once)
    built = build("TipAdapter", frozen64, **OPTIONS)
    model = built.model.double()
    built.method.fit(model, data)

    keys = naive_keys(data.augmented(3))
    correct, beta, alpha = naive_search(
        frozen64, data.val, keys, data.train.label, OPTIONS["SEARCH_SCALE"], OPTIONS["SEARCH_STEP"]
    )
    assert 3 < correct < 9  # neither chance nor certain
    close(model.learned.beta.detach(), torch.tensor(beta, dtype=torch.float64))
    close(model.learned.alpha.detach(), torch.tensor(alpha, dtype=torch.float64))
    close(model.learned.keys, torch.stack(keys))
    expected = naive_logits(frozen64, image_features, keys, data.train.label, alpha, beta)
    close(model.from_features(image_features).logits, expected)


def test_without_validation_images(frozen64, build, data, capsys):
    """The options are used, and it is said."""
    built = build("TipAdapter", frozen64, ALPHA=2.5, BETA=5.5)
    built.method.fit(built.model.double(), data._replace(val=None))

    assert (built.model.learned.alpha.item(), built.model.learned.beta.item()) == (2.5, 5.5)
    assert "no validation images to choose alpha and beta with, so they are 2.5 and 5.5" in (
        capsys.readouterr().out
    )


def test_capped_cache(frozen64, build, data, capsys):
    """As many of each class as can be; it is said."""
    built = build("TipAdapter", frozen64, MAX_CACHE=6, **OPTIONS)
    built.method.fit(built.model.double(), data)

    assert "MAX_CACHE: 6 of 12 training images are cached" in capsys.readouterr().out
    assert built.model.learned.values.sum(dim=1).tolist() == [2, 2, 2]
    kept = built.model.learned.keys
    keys = torch.stack(naive_keys(data.augmented(3)))
    places = torch.cdist(kept, keys).argmin(dim=1)
    assert_close(kept, keys[places])
    assert torch.equal(built.model.learned.values.argmax(dim=0), data.train.label[places])


def test_rare_classes_are_cached_whole():
    label = torch.tensor([0] * 50 + [1] * 3 + [2] * 20)
    assert torch.bincount(label[evenly(label, 23)]).tolist() == [10, 3, 10]
    assert torch.equal(evenly(label, 73), torch.arange(73))


def test_checkpoint_sizes_the_cache(frozen64, build, data, close, image_features):
    """A new model has no cached images; a file gives it theirs, in the order of its classes."""
    built = build("TipAdapter", frozen64, **OPTIONS)
    built.method.fit(built.model.double(), data)
    state = {name: tensor.clone() for name, tensor in built.model.learned.state_dict().items()}
    turned = build("TipAdapter", frozen64, classnames=NAMES[::-1])
    turned.model.double()

    turned.load(state, trained=NAMES)

    there = turned.model.from_features(image_features).logits
    close(there.flip(1), built.model.from_features(image_features).logits)


def test_other_checkpoints_are_rejected(frozen64, build):
    """One line names the file where the features have another width, or a class is missing."""
    built = build("TipAdapter", frozen64)
    state = {"alpha": torch.tensor(1.0), "beta": torch.tensor(1.0)}
    with pytest.raises(InputError, match="file does not fit this TipAdapter"):
        built.load(state | {"keys": torch.ones(4, 9), "values": torch.ones(3, 4)})
    with pytest.raises(InputError, match="learned values for each of its classes"):
        built.load(
            state | {"keys": torch.ones(4, 48), "values": torch.ones(3, 4)},
            trained=["melanoma", "nevus", "wart"],
        )


@pytest.mark.parametrize("name", ["TipAdapter", "TipAdapterF"])
def test_its_run(toy_args, toy, short, capsys, name):
    """One line of history, a cached image for each training image, and the same figures again."""
    train.main(["--trainer", name, *toy_args, *short])
    out = capsys.readouterr().out
    first = read_record(toy / "run")
    history = (toy / "run" / "history.csv").read_text().splitlines()
    state = read_checkpoint(toy / "run" / "prompt_learner" / "model-best.pth.tar")["state_dict"]
    train.main(["--trainer", name, *toy_args[:-1], str(toy / "again"), *short])

    assert len(history) == 2
    assert {k: tuple(v.shape) for k, v in state.items()} == {
        "keys": (20, 48),
        "values": (2, 20),
        "alpha": (),
        "beta": (),
    }
    assert first.metrics == read_record(toy / "again").metrics
    assert first.trainable_parameters == 2 + (20 * 48 if name == "TipAdapterF" else 0)
    assert "are used: validation accuracy" in out


def naive_training(backbone, views, label, alpha, beta):
    """The keys after each epoch of full batches: AdamW with eps 1e-4, decay 0.01; cosine."""
    keys = torch.stack(naive_keys(views[: OPTIONS["VIEWS"]]))
    mean, square, after = torch.zeros_like(keys), torch.zeros_like(keys), []
    for step in range(1, len(views) + 1):
        rate = LR * (1 + math.cos(math.pi * (step - 1) / len(views))) / 2
        keys.requires_grad_(True)
        logits = naive_logits(backbone, views[step - 1], keys, label, alpha, beta)
        (gradient,) = torch.autograd.grad(cross_entropy(logits, label), keys)
        keys = keys.detach()
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        size = (square / (1 - 0.999**step)).sqrt() + 1e-4
        keys = (1 - rate * 0.01) * keys - rate * mean / (1 - 0.9**step) / size
        after.append(keys)
    return after


def fitted(build, backbone, data, **options):
    built = build("TipAdapterF", backbone, LR=LR, EPOCHS=EPOCHS, ALPHA=START, **OPTIONS, **options)
    built.method.fit(built.model.double(), data)
    return built.model.learned


def test_validation_chooses_the_epoch(frozen64, build, data, close, capsys):
    """The first best one, by the accuracy with alpha and beta as they start."""
    cache = fitted(build, frozen64, data)

    label, val = data.train.label, data.val
    after = naive_training(frozen64, data.augmented(EPOCHS), label, START, 1.0)
    accuracies = []
    for keys in after:
        predicted = naive_logits(frozen64, val.features, keys, label, START, 1.0).argmax(dim=1)
        accuracies.append(sum(predicted == val.label).item())
    best = accuracies.index(max(accuracies))
    _, beta, alpha = naive_search(
        frozen64, val, after[best], label, OPTIONS["SEARCH_SCALE"], OPTIONS["SEARCH_STEP"]
    )

    assert 0 < best < EPOCHS - 1  # neither the first nor the last
    close(cache.keys.detach(), after[best])
    close(cache.alpha.detach(), torch.tensor(alpha, dtype=torch.float64))
    close(cache.beta.detach(), torch.tensor(beta, dtype=torch.float64))
    out = capsys.readouterr().out
    assert f"The cached features of epoch {best + 1} are used, the best on validation" in out
    assert "576 numbers of the cached features learn" in out


def test_last_epoch_without_validation(frozen64, build, data, close, capsys):
    cache = fitted(build, frozen64, data._replace(val=None))

    after = naive_training(frozen64, data.augmented(EPOCHS), data.train.label, START, 1.0)
    close(cache.keys.detach(), after[-1])
    assert f"The cached features of epoch {EPOCHS} are used, the last" in capsys.readouterr().out


def test_each_image_once_an_epoch(frozen64, build, data, monkeypatch):
    """In batches, drawn anew for each epoch, of that epoch's views."""
    built = build("TipAdapterF", frozen64, EPOCHS=2, BATCH=5, **OPTIONS)
    model, seen = built.model.double(), []
    plain = model.from_features

    def noted(features, label=None):
        if label is not None:
            seen.append((features, label))
        return plain(features, label)

    monkeypatch.setattr(model, "from_features", noted)
    built.method.fit(model, data)

    views = data.augmented(2)
    orders = []
    assert [len(label) for _, label in seen] == [5, 5, 2, 5, 5, 2]
    for epoch in range(2):
        parts = seen[3 * epoch : 3 * epoch + 3]
        features, label = (torch.cat([part[i] for part in parts]) for i in range(2))
        order = torch.cdist(features, views[epoch]).argmin(dim=1)
        assert torch.equal(views[epoch][order], features)
        assert torch.equal(data.train.label[order], label)
        assert sorted(order.tolist()) == list(range(12))
        orders.append(order.tolist())
    assert orders[0] != orders[1]
