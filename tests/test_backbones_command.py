"""`python -m backbones`: the list, what weights are, and whether their settings are suspicious."""

import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from small_clip import frozen_clip, make_clip

from backbones import __main__ as command
from backbones.examine import signs_of_life
from backbones.hub import from_hub, parsed
from backbones.loading import load_backbone
from backbones.weights import file_of_weights
from core.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted(path.stem for path in (ROOT / "configs" / "backbones").glob("*.yaml"))


def test_the_list_names_every_config_and_whether_its_weights_are_here(capsys):
    command.main([])
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}

    assert set(CONFIGS) <= set(rows)
    assert "yes" in rows["tiny"].split() and "no" in rows["biomedclip"].split()
    assert "CC BY-NC-SA 4.0" in rows["monet"]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_states_source_licence_and_files(name):
    chosen = command.settings_of(name)

    assert chosen["SOURCE"] and chosen["LICENSE"] and chosen["FILES"]
    assert bool(chosen["NAME"]) or bool(chosen["PATH"])


def test_check_says_what_a_file_is(tmp_path, capsys):
    torch.save(make_clip().state_dict(), tmp_path / "clip.pt")
    command.main(["check", str(tmp_path / "clip.pt"), "--no-images"])
    out = capsys.readouterr().out

    assert "OpenAI CLIP" in out and "ClipViT, 2 layers, width 64, activation quick_gelu" in out
    assert "32 x 32" in out and "cosines times 100" in out
    assert "note:" in out and "MODEL.BACKBONE.ACTIVATION" in out
    command.main(["check", str(tmp_path / "clip.pt"), "--no-images", "--activation", "gelu"])
    out = capsys.readouterr().out
    assert "activation gelu" in out and "note:" not in out


@pytest.mark.parametrize("name", ["tiny", "tiny_rn"])
def test_a_wrong_preprocessing_is_suspicious_and_the_right_one_is_not(name):
    """Of the embedded CLIPs, on images that are drawn for the purpose."""
    path = str(ROOT / "backbones" / f"{name}.pt")

    assert signs_of_life(load_backbone(path=path, activation="quick_gelu")).suspicions == []
    for mean, std in (((0.5,) * 3, (0.5,) * 3), ((0.398,) * 3, (0.327,) * 3)):
        wrong = load_backbone(path=path, activation="quick_gelu", mean=mean, std=std)
        (first, *_) = signs_of_life(wrong).suspicions
        assert "CLIP's mean and deviation" in first


def test_weights_that_read_nothing_are_not_suspected():
    """A random model guesses, in whatever setting."""
    signs = signs_of_life(frozen_clip(make_clip()), n_images=10)

    assert signs.is_blind and signs.suspicions == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check"], "give a file, a folder"),
        (["check", "monet"], "weights/monet/weight_clip.pt .*come from https.*configs/backbones"),
        (["check", "nothing.pt"], "there is no file or folder nothing.pt"),
        (["list", "tiny"], "takes no other arguments"),
        (["check", "hf-hub:one"], "write hf-hub:OWNER/NAME"),
        (["show"], "invalid choice"),
    ],
)
def test_wrong_words_are_one_line(words, said):
    with pytest.raises(InputError, match=said) as error:
        command.main(words)
    assert "\n" not in str(error.value)


# -- the hub --------------------------------------------------------------------------------------


def hub(tmp_path, *words):
    """`python -m backbones` in a process with a cache of its own and no network."""
    environment = os.environ | {"HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "backbones", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_a_cached_revision_is_read_without_a_network(tmp_path):
    revision = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "hub/hub/models--me--toy/snapshots" / revision
    folder.mkdir(parents=True)
    torch.save(make_clip().state_dict(), folder / "open_clip_pytorch_model.bin")
    done = hub(tmp_path, "check", f"hf-hub:me/toy@{revision}", "--no-images")

    assert done.returncode == 0, done.stderr
    assert "2 layers, width 64" in done.stdout


def test_without_a_network_the_folder_that_is_wanted_is_named(tmp_path):
    done = hub(tmp_path, "check", "hf-hub:me/toy@v2")

    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "hf download me/toy --revision v2 --local-dir" in done.stderr
    assert "MODEL.BACKBONE.PATH" in done.stderr


def test_one_file_of_weights_is_chosen():
    files = ["README.md", "pytorch_model.bin", "open_clip_pytorch_model.bin", "model.safetensors"]

    assert file_of_weights(files, "x") == "open_clip_pytorch_model.bin"
    assert file_of_weights(files[:2], "x") == "pytorch_model.bin"
    assert file_of_weights(["README.md", "weights.pth"], "x") == "weights.pth"
    with pytest.raises(InputError, match="several files of weights .a.pt, b.pt. and none is"):
        file_of_weights(["b.pt", "a.pt"], "hf-hub:me/toy")
    assert parsed("hf-hub:a/b") == ("a/b", None) and parsed("hf-hub:a/b@c") == ("a/b", "c")


def test_a_cached_folder_without_its_tokenizer_is_completed(tmp_path, monkeypatch):
    """open_clip caches weights alone. Without a network they are read as they are."""
    cached, whole = tmp_path / "cached", tmp_path / "whole"
    for folder in (cached, whole):
        folder.mkdir()
        (folder / "open_clip_pytorch_model.bin").touch()
    asked = []

    def download(repository, revision, local_files_only=False, allow_patterns=()):
        asked.append(allow_patterns)
        return cached if local_files_only else whole

    names = ["open_clip_pytorch_model.bin", "other.pt", "folder/model.safetensors", "vocab.txt"]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: names)

    assert from_hub("hf-hub:me/toy") == whole
    assert asked[-1] == ["*.json", "*.txt", "open_clip_pytorch_model.bin"]
    (cached / "vocab.txt").touch()
    assert from_hub("hf-hub:me/toy") == cached
    (cached / "vocab.txt").unlink()
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: 1 / 0)
    assert from_hub("hf-hub:me/toy") == cached
