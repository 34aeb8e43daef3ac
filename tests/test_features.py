"""Features are encoded once, kept whole or not at all, and change no result."""

import json
import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from test_run import assert_same_outcome, outcome
from torch.testing import assert_close

import datasets.features as features
from backbones.backbone import Backbone
from core.errors import InputError
from datasets.features import FrozenFeatures, KeptFeatures
from datasets.views import ViewManager, Views
from engine.config import load_cfg
from engine.run import run


def cfg_of(toy, *opts, trainer="ViP", seed=1, name="run"):
    """The configuration of a short run whose features are kept in a folder of this test alone."""
    own = ["FEATURES.DIR", str(toy / "features"), "FEATURES.BLOCK", "8"]
    short = ["OPTIM.MAX_EPOCH", "3", "DATALOADER.TRAIN_X.BATCH_SIZE", "8"]
    files = str(toy / "toy.yaml"), str(toy / "random.yaml")
    return load_cfg(
        trainer,
        *files,
        opts=[*own, *short, "DATALOADER.NUM_WORKERS", "0", *opts],
        root=str(toy / "data"),
        seed=seed,
        output_dir=str(toy / name),
    )[0]


@pytest.fixture
def encoded(monkeypatch):
    """The number of images in each batch that went through an image encoder."""
    batches = []
    encode = Backbone.encode_image

    def counted(backbone, images, tokens=()):
        batches.append(len(images))
        return encode(backbone, images, tokens)

    monkeypatch.setattr(Backbone, "encode_image", counted)
    return batches


def folders_of(toy):
    """Those of sets of images; Python 3.10 takes files for ``*/`` too."""
    return [path for path in (toy / "features").iterdir() if path.is_dir()]


def files_of(toy):
    return sorted(p.name for p in (toy / "features").rglob("*.npz"))


def test_later_run_encodes_nothing(toy, encoded):
    """The first pays for its epochs and splits in fixed blocks, another method for nothing."""
    run(cfg_of(toy))
    assert sorted(encoded) == sorted([8, 8, 4] * 3 + [8] + [8, 4])
    assert len(files_of(toy)) == 5
    encoded.clear()
    run(cfg_of(toy, trainer="CoOp", name="coop"))
    assert not encoded


def test_run_says_once_what_it_encodes_and_where_it_is_kept(toy, tmp_path, capsys):
    """Encoding takes minutes, and a log has no progress bar."""
    features_of(cfg_of(toy), Encoder(tmp_path / "notes"))
    (kept,) = folders_of(toy)
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("Encoding")]
    assert lines == [f"Encoding 20 images; features are kept in {kept}"]


def test_other_seed_encodes_only_its_training_views(toy, encoded):
    run(cfg_of(toy))
    encoded.clear()
    run(cfg_of(toy, seed=2, name="other"))
    assert sum(encoded) == 3 * 20


def test_more_epochs_encode_only_those(toy, encoded):
    run(cfg_of(toy))
    encoded.clear()
    run(cfg_of(toy, "OPTIM.MAX_EPOCH", "4", name="longer"))
    assert sum(encoded) == 20


@pytest.mark.parametrize("keep", ["True", "False"])
def test_views_that_nothing_draws_are_encoded_once(toy, encoded, keep):
    """All epochs train on those of the first, in an order of their own, kept or not."""
    fixed = ("INPUT.TRANSFORMS", '["normalize"]', "FEATURES.KEEP", keep)
    run(cfg_of(toy, *fixed))
    assert sorted(encoded) == sorted([8, 8, 4] + [8] + [8, 4])
    encoded.clear()
    run(cfg_of(toy, "INPUT.TRANSFORMS", '["random_flip", "normalize"]', name="flipped"))
    assert sum(encoded) == 3 * 20 + 8 + 12


@pytest.mark.parametrize("ahead", ["1", "3"])
def test_a_fixed_number_of_views_is_used_in_turn(toy, encoded, ahead):
    """With two views, the third epoch has those of the first; two sets are kept."""
    opts = ("FEATURES.VIEWS", "2", "FEATURES.AHEAD", ahead, "OPTIM.MAX_EPOCH", "5")
    run(cfg_of(toy, *opts))
    assert sum(encoded) == 2 * 20 + 8 + 12
    encoded.clear()

    turns = features_of(cfg_of(toy, *opts), Encoder(toy / "notes"), 5)
    new = features_of(cfg_of(toy), Encoder(toy / "notes"), 5)
    assert torch.equal(turns, new[[0, 1, 0, 1, 0]])
    assert len({epoch.numpy().tobytes() for epoch in new}) == 5


def test_methods_that_train_on_images_have_the_same_views_in_turn(toy):
    views = ViewManager(cfg_of(toy, "FEATURES.VIEWS", "2")).train_views()
    new = ViewManager(cfg_of(toy)).train_views()

    assert torch.equal(views[3, 0]["img"], new[1, 0]["img"])
    assert not torch.equal(new[3, 0]["img"], new[1, 0]["img"])


def test_the_number_of_views_is_in_the_name_of_a_run(toy):
    """It changes results, unlike the other settings of features."""

    def folder(*opts):
        return load_cfg("ViP", str(toy / "toy.yaml"), "tiny", opts=opts)[0].OUTPUT_DIR

    assert folder("FEATURES.VIEWS", "5") != folder() == folder("FEATURES.AHEAD", "5")


def test_epochs_ahead_are_the_same_bits_in_the_same_blocks(toy, encoded):
    """One decoding for several epochs changes neither."""
    run(cfg_of(toy))
    blocks, expected = sorted(encoded), outcome(toy / "run")
    shutil.rmtree(toy / "features")
    encoded.clear()
    run(cfg_of(toy, "FEATURES.AHEAD", "2", name="ahead"))

    assert sorted(encoded) == blocks
    assert_same_outcome(expected, outcome(toy / "ahead"))


@pytest.mark.parametrize("change", ["weights", "image", "transform", "block", "seed", "format"])
def test_whatever_features_follow_from_is_in_the_key(toy, encoded, change, monkeypatch):
    cfg = cfg_of(toy, "OPTIM.MAX_EPOCH", "1")
    run(cfg)
    encoded.clear()
    opts, seed = ["OPTIM.MAX_EPOCH", "1"], 1
    if change == "weights":
        state = torch.load(toy / "clip.pt", weights_only=True)
        state["visual.proj"] += 1e-3
        torch.save(state, toy / "clip.pt")
    elif change == "image":
        os.utime(toy / "data" / "toy" / "train" / "red" / "3.png", ns=(1, 1))
    elif change == "transform":
        opts += ["INPUT.RRCROP_SCALE", "(0.5, 1.0)"]
    elif change == "block":
        opts += ["FEATURES.BLOCK", "16"]
    elif change == "seed":
        seed = 2
    elif change == "format":  # files of an older release are not misread
        monkeypatch.setattr(features, "FORMAT", features.FORMAT + 1)
    run(cfg_of(toy, *opts, seed=seed, name="other"))

    assert sum(encoded) >= 20


@pytest.mark.parametrize("change", ["dropped", "never kept", "cut", "damaged", "another's", "half"])
def test_same_bits_whatever_became_of_the_store(toy, change):
    """A run reads what it would have read, from the disk or encoded again."""
    run(cfg_of(toy))
    expected = outcome(toy / "run")
    files = list((toy / "features").rglob("*.npz"))
    opts = []
    if change == "dropped":
        shutil.rmtree(toy / "features")
    elif change == "never kept":
        opts = ["FEATURES.KEEP", "False"]
    elif change == "cut":
        for file in files:
            os.truncate(file, file.stat().st_size // 2)
    elif change == "damaged":  # in the numbers: only the checksum tells
        for file in files:
            with open(file, "r+b") as opened:
                opened.seek(file.stat().st_size // 2)
                opened.write(bytes(10))
    elif change == "another's":
        for file in files:
            np.savez(file, features=np.zeros((3, 3), np.float32))
    elif change == "half":
        for file in files[::2]:
            file.unlink()
    run(cfg_of(toy, *opts, name="again"))

    assert_same_outcome(expected, outcome(toy / "again"))
    if change == "never kept":
        assert {p.stat().st_mtime_ns for p in files} == {
            p.stat().st_mtime_ns for p in (toy / "features").rglob("*.npz")
        }


@pytest.mark.parametrize("trainer", ["ViP", "CoOp", "KgCoOp", "CoCoOp", "BayesianPrompt"])
def test_training_on_features_is_training_on_images(toy, trainer, monkeypatch):
    """fp32: the loss of every step within 1e-5, and the same predictions."""
    cls = type(_built(cfg_of(toy, trainer=trainer)))
    losses = []
    forward_backward = cls.forward_backward

    def recorded(self, batch):
        summary = forward_backward(self, batch)
        losses.append(summary["loss"])
        return summary

    monkeypatch.setattr(cls, "forward_backward", recorded)
    run(cfg_of(toy, trainer=trainer))
    on_features, losses = losses, []
    with monkeypatch.context() as patch:
        patch.setattr("engine.trainer.FrozenFeatures", lambda *_: None)
        run(cfg_of(toy, trainer=trainer, name="images"))

    assert len(losses) == 6
    np.testing.assert_allclose(on_features, losses, rtol=0, atol=1e-5)
    kept, plain = (
        np.loadtxt(toy / name / "predictions.csv", str, delimiter=",", skiprows=1, usecols=(0, 2))
        for name in ("run", "images")
    )
    assert (kept == plain).all()


def _built(cfg):
    from dassl.engine import build_trainer

    return build_trainer(cfg)


def test_features_are_those_of_the_views(toy):
    """By CLIP's own encoder and the whole transform, one image at a time."""
    trainer = _built(cfg_of(toy))
    views = trainer.train_loader_x.dataset
    plain = Views(views.images, views.transform, views.seed)
    with torch.no_grad():
        expected = torch.cat(
            [trainer.model.backbone.image_tower(plain[2, i]["img"][None]) for i in range(20)]
        )
    assert_close(trainer.frozen_features.of_epoch(2, 3), expected, atol=1e-5, rtol=0)
    trainer.epoch = 2
    order = [i for batch in trainer.batches() for i in batch["index"].tolist()]
    trainer.train_loader_x.batch_sampler.epoch = 2
    assert order == [i for batch in trainer.train_loader_x for i in batch["index"].tolist()]


def test_only_the_user_may_read_features(toy):
    """They say something about patients' images."""
    run(cfg_of(toy))
    folder = toy / "features"
    for path in [folder, *folders_of(toy), *folder.rglob("*.npz")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_default_place_follows_the_users_cache(monkeypatch, tmp_path, toy):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    kept = KeptFeatures(cfg_of(toy, "FEATURES.DIR", "").FEATURES, {})
    assert kept.root == tmp_path / "elsewhere" / "vip-for-dassl" / "features"


def kept_in(folder, megabytes, run):
    from yacs.config import CfgNode as CN

    settings = CN({"KEEP": True, "DIR": str(folder), "MAX_GB": megabytes / 1000})
    return KeptFeatures(settings, {"run": run})


def size_of(folder):
    return sum(p.stat().st_size for p in folder.rglob("*.npz"))


def test_oldest_is_dropped_but_never_one_in_use(tmp_path):
    """The bound holds, and what a living run reads stays."""
    big = np.ones((50_000, 4), np.float32)  # 0.8 MB
    living = kept_in(tmp_path, 2, run=0)
    assert living.write(0, big)
    os.utime(living.folder, (1, 1))  # the oldest of all
    for i in range(1, 5):
        later = kept_in(tmp_path, 2, run=i)
        assert later.write(0, big)
        assert size_of(tmp_path) <= 2e6
        last = later.folder
        del later
        time.sleep(0.01)

    assert living.folder.exists() and last.exists()
    assert len(list(tmp_path.glob("*/key.json"))) == 2
    other = kept_in(tmp_path, 2, run=4)
    assert (other.read(0, big.shape) == big).all()
    assert not living.write(1, big)  # all that is there is in use
    assert size_of(tmp_path) <= 2e6


def test_what_does_not_fit_is_encoded_all_the_same(toy, capsys):
    run(cfg_of(toy))
    run(cfg_of(toy, "FEATURES.MAX_GB", "0.000001", "FEATURES.DIR", str(toy / "small"), name="more"))

    assert "fill the 1e-06 GB" in capsys.readouterr().out
    assert_same_outcome(outcome(toy / "run"), outcome(toy / "more"))


def test_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "holidays").mkdir()
    (tmp_path / "holidays" / "key.json").write_text("x" * 3_000_000)
    kept_in(tmp_path, 1, run=0).write(0, np.ones((20, 4), np.float32))
    assert (tmp_path / "holidays" / "key.json").exists()


@pytest.mark.parametrize("ahead", ["1", "3"])
def test_full_disk_costs_the_keeping_and_not_the_run(toy, monkeypatch, capsys, ahead):
    run(cfg_of(toy))
    written = []

    def full(file, **arrays):
        written.append(file)
        file.write(b"half of it")
        if len(written) > 2:
            raise OSError(28, os.strerror(28))
        file.seek(0)
        save(file, **arrays)

    save = np.savez
    monkeypatch.setattr(np, "savez", full)
    opts = ["FEATURES.DIR", str(toy / "full"), "FEATURES.AHEAD", ahead]
    run(cfg_of(toy, *opts, name="full-disk"))

    out = capsys.readouterr().out
    assert out.count("image features are not kept") >= 1 and os.strerror(28) in out
    left = [p.name for p in (toy / "full").rglob("*") if p.suffix in (".npz", ".tmp")]
    assert len(left) == 2
    assert_same_outcome(outcome(toy / "run"), outcome(toy / "full-disk"))


def test_folder_that_cannot_be_made_costs_the_keeping(toy, capsys):
    (toy / "file").write_text("")
    run(cfg_of(toy, "FEATURES.DIR", str(toy / "file" / "below")))
    assert "cannot be used" in capsys.readouterr().out
    assert (toy / "run" / "results.json").exists()


@pytest.mark.parametrize(
    "words",
    [("BLOCK", "-1"), ("AHEAD", "-1"), ("VIEWS", "-1"), ("MAX_GB", "-1.0"), ("MAX_GB", "nan")],
)
def test_wrong_settings_are_named(toy, words):
    with pytest.raises(InputError, match=f"FEATURES.{words[0]}"):
        FrozenFeatures(_with(cfg_of(toy), *words), None, Encoder(None))


def _with(cfg, name, value):
    cfg = cfg.clone()
    cfg.defrost()
    cfg.FEATURES[name] = float(value)
    return cfg


class Encoder:
    """The mean colour of each image, and a note of each batch.

    Args:
        notes: file that gets a line a batch. before: called with the number of batches so far.
    """

    fingerprint, precision, device, embed_dim = "toy", "fp32", torch.device("cpu"), 3

    def __init__(self, notes, before=lambda n: None):
        self.notes = notes
        self.before = before
        self.n = 0

    def encode_image(self, x):
        self.before(self.n)
        self.n += 1
        with open(self.notes, "a") as file:
            file.write(f"{len(x)}\n")
        return x.mean(dim=(2, 3))


def features_of(cfg, encoder, epochs=3):
    """The training features of each epoch."""
    frozen = FrozenFeatures(cfg, ViewManager(cfg), encoder)
    return torch.stack([frozen.of_epoch(epoch, epochs) for epoch in range(epochs)])


@pytest.mark.parametrize("keep", ["True", "False"])
def test_features_of_half_precision_are_read_in_fp32(toy, tmp_path, keep):
    """Kept as halves, given to models as ``encode_image`` gives them: linear layers need fp32."""
    encoder = Encoder(tmp_path / "notes")
    encoder.precision = "fp16"
    cfg = cfg_of(toy, "FEATURES.KEEP", keep)
    frozen = FrozenFeatures(cfg, ViewManager(cfg), encoder)

    features = [frozen.of_split("val"), frozen.of_epoch(0, 3), frozen.batches(1, 3)[0]["features"]]
    assert [x.dtype for x in features] == [torch.float32] * 3
    assert all(torch.equal(x, x.half().float()) for x in features)


def _one_of_several(cfg, notes, ready, expected):
    ready.wait()
    encoder = Encoder(notes, before=lambda n: time.sleep(0.02))
    os._exit(0 if torch.equal(features_of(cfg, encoder), expected) else 1)


def test_several_runs_at_once_encode_each_epoch_once(toy, tmp_path):
    """The others wait, and read the same bits."""
    expected = features_of(cfg_of(toy, "FEATURES.KEEP", "False"), Encoder(tmp_path / "apart"))
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    words = cfg_of(toy), tmp_path / "notes", ready, expected
    runs = [context.Process(target=_one_of_several, args=words) for _ in range(3)]
    for process in runs:
        process.start()
    ready.set()
    for process in runs:
        process.join()
    assert [process.exitcode for process in runs] == [0, 0, 0]
    assert (tmp_path / "notes").read_text().split() == ["8", "8", "4"] * 3


@pytest.mark.parametrize("workers", ["0", "2"])
def test_killed_run_encodes_at_most_one_epoch_again(toy, tmp_path, workers):
    """Killed in the second block of the second epoch: the first is kept, bit for bit."""
    expected = features_of(cfg_of(toy, "FEATURES.KEEP", "False"), Encoder(tmp_path / "apart"))
    cfg = cfg_of(toy, "DATALOADER.NUM_WORKERS", workers)

    def kill(n):
        if n == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    context = multiprocessing.get_context("fork")
    words = cfg, Encoder(tmp_path / "killed", kill)
    process = context.Process(target=features_of, args=words)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert files_of(toy) == ["0000.npz"]
    (half,) = folders_of(toy)
    (half / ".0001.npz.x.tmp").write_bytes(b"what a run killed while it writes leaves")

    assert torch.equal(features_of(cfg, Encoder(tmp_path / "again")), expected)
    assert (tmp_path / "again").read_text().split() == ["8", "8", "4"] * 2
    assert not list((toy / "features").rglob("*.tmp"))


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_features_that_are_not_finite_name_the_image_and_are_not_kept(toy, tmp_path, value):
    class Broken(Encoder):
        def encode_image(self, x):
            features = super().encode_image(x)
            if self.n == 2:
                features[3, 1] = float(value)
            return features

    cfg = cfg_of(toy)
    image = ViewManager(cfg).dataset.train_x[8 + 3]
    with pytest.raises(InputError, match="not finite") as error:
        features_of(cfg, Broken(tmp_path / "notes"))
    assert str(image.impath) in str(error.value) and "\n" not in str(error.value)
    assert not files_of(toy)


@pytest.mark.parametrize("below", [False, True])
def test_deleted_folder_is_made_again_private(toy, tmp_path, below):
    """A user may delete the cache, or a set in it, under a run that goes on."""
    cfg = cfg_of(toy)
    frozen = FrozenFeatures(cfg, ViewManager(cfg), Encoder(tmp_path / "notes"))
    frozen.of_epoch(0, 3)
    for folder in folders_of(toy) if below else [toy / "features"]:
        shutil.rmtree(folder)
    frozen.of_epoch(1, 3)
    assert files_of(toy) == ["0001.npz"]
    for path in [toy / "features", *folders_of(toy), *toy.glob("features/*/*.npz")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


@pytest.mark.slow
def test_runs_at_once_one_of_them_killed(toy, checkout):
    """kill -9 while it encodes: the others go on, and all that is kept is right."""
    cfg = cfg_of(toy)
    expected_dir = str(toy / "expected")
    run(cfg_of(toy, "FEATURES.DIR", str(toy / "apart"), name="expected"))

    def start(name):
        words = ["--root", str(toy / "data"), "--dataset", str(toy / "toy.yaml")]
        words += ["--backbone", str(toy / "random.yaml"), "--output-dir", str(toy / name)]
        words += ["FEATURES.DIR", cfg.FEATURES.DIR, "FEATURES.BLOCK", "8"]
        words += ["OPTIM.MAX_EPOCH", "3", "DATALOADER.TRAIN_X.BATCH_SIZE", "8"]
        return subprocess.Popen(
            [sys.executable, "train.py", *words, "DATALOADER.NUM_WORKERS", "2"],
            cwd=checkout,
            stdout=subprocess.DEVNULL,
        )

    for attempt in range(3):
        shutil.rmtree(toy / "features", ignore_errors=True)
        names = [f"{attempt}-{i}" for i in range(3)]
        processes = [start(name) for name in names]
        while not files_of(toy):
            time.sleep(0.01)
        time.sleep(0.05 * attempt)
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        processes[0] = start(names[0])
        assert [process.wait() for process in processes] == [0, 0, 0]
        for name in names:
            assert_same_outcome(outcome(Path(expected_dir)), outcome(toy / name))


def test_key_is_readable(toy):
    """So that a user can tell what a folder of the cache holds."""
    run(cfg_of(toy))
    keys = [json.loads(p.read_text()) for p in (toy / "features").glob("*/key.json")]
    assert sorted(str(key["augmented by seed"]) for key in keys) == ["1", "None", "None"]
    assert all(key["precision"] == "fp32" and key["block"] == 8 for key in keys)
