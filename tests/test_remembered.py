"""Weights that were loaded once: not hashed again, and their image encoder stays on the disk."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from small_folders import KINDS, save_backbone
from test_features import cfg_of
from test_run import assert_same_outcome, outcome

import backbones.backbone
from backbones.loading import load_backbone, weights_key
from core.errors import InputError
from core.files import cache_folder
from engine.run import run
from engine.trainer import MethodTrainer


@pytest.fixture
def hashed(monkeypatch, tmp_path):
    """How often weights were hashed, with a cache of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls = []
    of = backbones.backbone.weights_fingerprint

    def counted(*args):
        calls.append(args)
        return of(*args)

    monkeypatch.setattr("backbones.backbone.weights_fingerprint", counted)
    monkeypatch.setattr("backbones.formats.openai.weights_fingerprint", counted)
    return calls


def loaded(path, seed=1, **options):
    """A backbone, and what PyTorch draws behind its load."""
    torch.manual_seed(seed)
    backbone = load_backbone(path=str(path), **options)
    return backbone, torch.rand(3)


def has_images(backbone):
    return "image" in dict(backbone.named_children())


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_load_is_the_first_without_images_until_they_are_asked_for(
    kind, tmp_path, hashed
):
    path = save_backbone(kind, tmp_path)
    whole, drawn = loaded(path)
    again, drawn_again = loaded(path)

    assert has_images(whole) and not has_images(again)
    assert len(hashed) == 1 and again.fingerprint == whole.fingerprint
    assert torch.equal(drawn, drawn_again)
    for name in ("embed_dim", "text_width", "vision_width", "vision_depth", "preprocessing"):
        assert getattr(again, name) == getattr(whole, name)
    texts = ["red", "a blue veil"]
    assert torch.equal(*(b.encode_text(b.prepare(texts)) for b in (whole, again)))
    size = whole.preprocessing.size
    images = torch.randn(2, 3, size, size)
    before = torch.get_rng_state()
    assert torch.equal(whole.encode_image(images), again.encode_image(images))
    assert has_images(again) and len(hashed) == 1
    assert torch.equal(before, torch.get_rng_state())
    assert not any(p.requires_grad for p in again.parameters())


def test_a_file_in_half_precision_gives_the_same_texts(tmp_path, hashed):
    """The token table then stays as the file holds it, and its rows are read in fp32."""
    path = save_backbone("CLIP, ViT", tmp_path)
    torch.save({k: v.half() for k, v in torch.load(path).items()}, path)
    backbones = [loaded(path)[0] for _ in range(2)]

    assert [b.text.token_embedding.weight.dtype for b in backbones] == [torch.float, torch.half]
    ids = torch.tensor([[1, 5], [7, 9]])
    rows, words, features = (
        [f(b) for b in backbones]
        for f in (
            lambda b: b.embed_tokens(ids),
            lambda b: b.vocabulary()[1],
            lambda b: b.encode_text(b.prepare(["red", "a blue veil"])),
        )
    )
    for pair in (rows, words, features):
        assert pair[0].dtype == pair[1].dtype == torch.float and torch.equal(*pair)


def test_threads_that_ask_at_once_load_once(tmp_path, hashed):
    path = save_backbone("CLIP, ViT", tmp_path)
    whole, again = (loaded(path)[0] for _ in range(2))
    load, loads = again._load_image, []
    again._load_image = lambda: loads.append(time.sleep(0.2)) or load()
    images = torch.randn(1, 3, whole.preprocessing.size, whole.preprocessing.size)

    with ThreadPoolExecutor(4) as pool:
        features = list(pool.map(again.encode_image, [images] * 4))

    assert len(loads) == 1
    assert all(torch.equal(each, whole.encode_image(images)) for each in features)


def test_other_files_settings_and_seeds_are_loaded_whole(tmp_path, hashed):
    """Whatever the fingerprint or the draws behind the load follow from is not remembered."""
    path = save_backbone("CLIP, ViT", tmp_path)
    first, _ = loaded(path)
    for changed in ({"seed": 2}, {"activation": "gelu"}):
        assert has_images(loaded(path, **changed)[0])
    file = path if path.is_file() else next(path.iterdir())
    os.utime(file, ns=(1, file.stat().st_mtime_ns + 1))
    same, _ = loaded(path)
    assert has_images(same) and same.fingerprint == first.fingerprint

    tensors = torch.load(file)
    tensors["visual.proj"] += 1
    torch.save(tensors, file)
    other, _ = loaded(path)
    assert has_images(other) and other.fingerprint != first.fingerprint


@pytest.mark.parametrize("content", ["", "[]", '{"fingerprint": "0"}', "{"])
def test_a_damaged_note_costs_a_load(tmp_path, hashed, content):
    path = save_backbone("CLIP, ViT", tmp_path)
    whole, _ = loaded(path)
    (note,) = cache_folder("weights").iterdir()
    note.write_text(content)

    again, _ = loaded(path)

    assert has_images(again) and again.fingerprint == whole.fingerprint
    assert not has_images(loaded(path)[0])


def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path, monkeypatch, hashed):
    path = save_backbone("CLIP, ViT", tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    assert has_images(loaded(path)[0]) and has_images(loaded(path)[0])


def test_a_later_run_on_kept_features_loads_no_image_encoder(toy, hashed, monkeypatch):
    """And its results are those of the first, to the bit."""
    models = []
    build = MethodTrainer.build_model

    def watched(trainer):
        build(trainer)
        models.append(trainer.model.backbone)

    monkeypatch.setattr(MethodTrainer, "build_model", watched)
    for name in ("first", "later"):
        run(cfg_of(toy, name=name))

    assert [has_images(backbone) for backbone in models] == [True, False]
    assert_same_outcome(outcome(toy / "first"), outcome(toy / "later"))


def test_images_of_weights_that_changed_are_refused(tmp_path, hashed):
    """They would not fit the text encoder that was loaded from the weights before."""
    path = save_backbone("CLIP, ViT", tmp_path)
    _, (again, _) = loaded(path), loaded(path)
    os.utime(path, ns=(1, 1))

    with pytest.raises(InputError, match="the weights have changed"):
        again.encode_image(torch.randn(1, 3, 64, 64))


def test_the_key_of_named_weights_follows_their_file_alone(toy, tmp_path, monkeypatch):
    """Not what else lies in the current folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    cfg = cfg_of(toy, "MODEL.BACKBONE.NAME", "ViT-B/16", "MODEL.BACKBONE.PATH", "")
    key = weights_key(cfg)
    (tmp_path / "compare.log").write_text("a line")
    assert weights_key(cfg) == key

    weights = tmp_path / ".cache" / "clip" / "ViT-B-16.pt"
    weights.parent.mkdir(parents=True)
    weights.write_text("weights")
    assert weights_key(cfg) != key
