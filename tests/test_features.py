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
from core.errors import InputError
from datasets.features import FeatureStore, KeptRows, Rows
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
    """The number of pictures in each batch that went through an image encoder."""
    from clip.model import CLIP

    batches = []
    encode = CLIP.encode_image

    def counted(model, image):
        batches.append(len(image))
        return encode(model, image)

    monkeypatch.setattr(CLIP, "encode_image", counted)
    return batches


def files_of(toy):
    return sorted(p.name for p in (toy / "features").rglob("*.features"))


def test_later_run_encodes_nothing(toy, encoded):
    """The first pays for its epochs and splits in fixed blocks, another method for nothing."""
    run(cfg_of(toy))
    assert sorted(encoded) == sorted([8, 8, 4] * 3 + [8] + [8, 4])
    assert len(files_of(toy)) == 5
    encoded.clear()
    run(cfg_of(toy, trainer="CoOp", name="coop"))
    assert not encoded


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


def test_epochs_ahead_are_the_same_bits_in_the_same_blocks(toy, encoded):
    """One decoding for several epochs changes neither."""
    run(cfg_of(toy))
    blocks, expected = sorted(encoded), outcome(toy / "run")
    shutil.rmtree(toy / "features")
    encoded.clear()
    run(cfg_of(toy, "FEATURES.AHEAD", "2", name="ahead"))

    assert sorted(encoded) == blocks
    assert_same_outcome(expected, outcome(toy / "ahead"))


@pytest.mark.parametrize("change", ["weights", "picture", "transform", "block", "seed"])
def test_whatever_features_follow_from_is_in_the_key(toy, encoded, change, monkeypatch):
    cfg = cfg_of(toy, "OPTIM.MAX_EPOCH", "1")
    run(cfg)
    encoded.clear()
    opts, seed = ["OPTIM.MAX_EPOCH", "1"], 1
    if change == "weights":
        state = torch.load(toy / "clip.pt", weights_only=True)
        state["visual.proj"] += 1e-3
        torch.save(state, toy / "clip.pt")
    elif change == "picture":
        os.utime(toy / "data" / "toy" / "train" / "red" / "3.png", ns=(1, 1))
    elif change == "transform":
        opts += ["INPUT.RRCROP_SCALE", "(0.5, 1.0)"]
    elif change == "block":
        opts += ["FEATURES.BLOCK", "16"]
    elif change == "seed":
        seed = 2
    run(cfg_of(toy, *opts, seed=seed, name="other"))

    assert sum(encoded) >= 20


@pytest.mark.parametrize("change", ["dropped", "never kept", "cut", "damaged", "half"])
def test_same_bits_whatever_became_of_the_store(toy, change):
    """A run reads what it would have read, from the disk or encoded again."""
    run(cfg_of(toy))
    expected = outcome(toy / "run")
    files = list((toy / "features").rglob("*.features"))
    opts = []
    if change == "dropped":
        shutil.rmtree(toy / "features")
    elif change == "never kept":
        opts = ["FEATURES.KEEP", "False"]
    elif change == "cut":
        for file in files:
            os.truncate(file, file.stat().st_size // 2)
    elif change == "damaged":  # as a power cut leaves a block whose mark came first
        for file in files:
            with open(file, "r+b") as opened:
                opened.seek(-10, os.SEEK_END)
                opened.write(bytes(10))
    elif change == "half":
        for file in files[::2]:
            file.unlink()
    run(cfg_of(toy, *opts, name="again"))

    assert_same_outcome(expected, outcome(toy / "again"))
    if change == "never kept":
        assert {p.stat().st_mtime_ns for p in files} == {
            p.stat().st_mtime_ns for p in (toy / "features").rglob("*.features")
        }


@pytest.mark.parametrize("trainer", ["ViP", "CoOp", "KgCoOp", "CoCoOp", "BayesianPrompt"])
def test_training_on_features_is_training_on_pictures(toy, trainer, monkeypatch):
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
        patch.setattr(cls, "batches", pictures)
        patch.setattr(cls, "inputs", pictures_of_split)
        run(cfg_of(toy, trainer=trainer, name="pictures"))

    assert len(losses) == 6
    np.testing.assert_allclose(on_features, losses, rtol=0, atol=1e-5)
    kept, plain = (
        np.loadtxt(toy / name / "predictions.csv", str, delimiter=",", skiprows=1, usecols=(0, 2))
        for name in ("run", "pictures")
    )
    assert (kept == plain).all()


def pictures(self):
    self.train_loader_x.batch_sampler.epoch = self.epoch
    return self.train_loader_x


def pictures_of_split(self, split):
    loader = getattr(self, f"{split}_loader")
    return (self.dm.scale(batch["img"]) for batch in loader)


def _built(cfg):
    from dassl.engine import build_trainer

    return build_trainer(cfg)


def test_features_are_those_of_the_views(toy):
    """By CLIP's own encoder and the whole transform, one picture at a time."""
    trainer = _built(cfg_of(toy))
    views = trainer.train_loader_x.dataset
    from datasets.views import Views

    plain = Views(views.pictures, views.transform, views.seed)
    with torch.no_grad():
        expected = torch.cat(
            [trainer.model.backbone.model.encode_image(plain[2, i]["img"][None]) for i in range(20)]
        )
    assert_close(trainer.frozen_features.of_epoch(2, 3), expected, atol=1e-5, rtol=0)
    trainer.epoch = 2
    order = [i for batch in trainer.batches() for i in batch["index"].tolist()]
    trainer.train_loader_x.batch_sampler.epoch = 2
    assert order == [i for batch in trainer.train_loader_x for i in batch["index"].tolist()]


def test_only_the_user_may_read_features(toy):
    """They say something about patients' pictures."""
    run(cfg_of(toy))
    folder = toy / "features"
    for path in [folder, *folder.glob("*/"), *folder.rglob("*.features")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_default_place_follows_the_users_cache(monkeypatch, tmp_path, toy):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    store = FeatureStore(cfg_of(toy, "FEATURES.DIR", "").FEATURES)
    assert store.root == tmp_path / "elsewhere" / "vip-for-dassl" / "features"


SHAPE = 20, 4, np.float32


def store_of(folder, megabytes):
    from yacs.config import CfgNode as CN

    return FeatureStore(CN({"DIR": str(folder), "MAX_GB": megabytes / 1000}))


def size_of(folder):
    return sum(p.stat().st_size for p in folder.rglob("*.features"))


def test_oldest_is_dropped_but_never_one_in_use(tmp_path):
    """The bound holds, and what a living run reads stays."""
    big = 50_000, 4, np.float32  # 0.8 MB
    living = store_of(tmp_path, 2)
    in_use = living.folder({"run": 0})
    assert living.rows(in_use, 0, big, 64)
    os.utime(in_use, (1, 1))  # the oldest of all
    for i in range(1, 5):
        store = store_of(tmp_path, 2)
        assert store.rows(store.folder({"run": i}), 0, big, 64)
        last = store.folder({"run": i})
        assert size_of(tmp_path) <= 2e6
        del store
        time.sleep(0.01)

    assert in_use.exists() and last.exists()
    assert len(list(tmp_path.glob("*/key.json"))) == 2
    other = store_of(tmp_path, 2)
    held = other.folder({"run": 4})
    assert other.rows(held, 0, big, 64)
    assert living.rows(in_use, 1, big, 64) is None  # all that is there is in use
    assert size_of(tmp_path) <= 2e6


def test_what_does_not_fit_is_encoded_all_the_same(toy, capsys):
    run(cfg_of(toy))
    run(cfg_of(toy, "FEATURES.MAX_GB", "0.000001", "FEATURES.DIR", str(toy / "small"), name="more"))

    assert "fill the 1e-06 GB" in capsys.readouterr().out
    assert_same_outcome(outcome(toy / "run"), outcome(toy / "more"))


def test_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "holidays").mkdir()
    (tmp_path / "holidays" / "key.json").write_text("x" * 3_000_000)
    store = store_of(tmp_path, 1)
    store.rows(store.folder({"run": 0}), 0, SHAPE, 8)
    assert (tmp_path / "holidays" / "key.json").exists()


def test_full_disk_costs_the_keeping_and_not_the_run(toy, monkeypatch, capsys):
    run(cfg_of(toy))
    written = []

    def full(*arguments):
        written.append(arguments)
        if len(written) > 5:
            raise OSError(28, os.strerror(28))
        return write(*arguments)

    write = features._write
    monkeypatch.setattr(features, "_write", full)
    run(cfg_of(toy, "FEATURES.DIR", str(toy / "full"), name="full-disk"))

    assert "not kept any more" in capsys.readouterr().out
    assert_same_outcome(outcome(toy / "run"), outcome(toy / "full-disk"))


def test_folder_that_cannot_be_made_costs_the_keeping(toy, capsys):
    (toy / "file").write_text("")
    run(cfg_of(toy, "FEATURES.DIR", str(toy / "file" / "below")))
    assert "cannot be used" in capsys.readouterr().out
    assert (toy / "run" / "results.json").exists()


@pytest.mark.parametrize("words", [("BLOCK", "-1"), ("AHEAD", "-1"), ("MAX_GB", "-1.0")])
def test_wrong_settings_are_named(toy, words):
    with pytest.raises(InputError, match=f"FEATURES.{words[0]}"):
        run(cfg_of(toy, f"FEATURES.{words[0]}", words[1]))


def test_rows_give_back_what_was_put(tmp_path):
    """In memory and on the disk; a block that was not put is missing."""
    kept = KeptRows(tmp_path / "0000.features", SHAPE, 8)
    kept.create()
    for rows in (kept, Rows(SHAPE, 8)):
        values = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
        assert rows.missing() == [0, 1, 2]
        rows.put(2, values[16:])
        rows.put(0, values[:8])
        assert rows.missing() == [1]
        rows.put(1, values[8:16])
        assert rows.missing() == []
        assert torch.equal(rows.tensor(), torch.from_numpy(values))


def _write_and_read(path, n, ready):
    """One of several writers of the same file."""
    ready.wait()
    values = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    rows = KeptRows(path, (n, 4, np.float32), 8)
    for _ in range(20):
        for b in range(-(-n // 8)):
            rows.put(b, values[b * 8 : (b + 1) * 8])
            missing = KeptRows(path, (n, 4, np.float32), 8).missing()
            if b in missing:
                os._exit(1)
    os._exit(0 if np.array_equal(rows.tensor().numpy(), values) else 2)


def test_several_writers_at_once(tmp_path):
    """They write the same bits; none ever meets a block that is half there."""
    path = tmp_path / "0000.features"
    KeptRows(path, (60, 4, np.float32), 8).create()
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    writers = [context.Process(target=_write_and_read, args=(path, 60, ready)) for _ in range(3)]
    for writer in writers:
        writer.start()
    ready.set()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]


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
