"""The training of the small CLIP of BiomedCLIP's kind: its folder, its vocabulary, its steps."""

import json
import random
import string
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from backbones import pretrain, pretrain_bert, pretrain_clip, pretrain_data, pretrain_report
from backbones import pretrain_bert_folder as folder_of
from backbones.loading import load_backbone
from backbones.tokenizers import read_tokenizer
from core.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "backbones" / "tiny_bert"
PIECES = (FOLDER / "vocab.txt").read_text("utf-8").split()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A few training images of each world."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain_data, "PICTURES", {"SynthDerm": 24, "SynthChest": 16})
        patch.setattr(pretrain_bert, "BATCH", {"SynthDerm": 8, "SynthChest": 4})
        yield pretrain_data.Data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def teacher():
    return pretrain_clip.load(ROOT / "backbones" / "tiny_rn.pt")


def students(data, teacher, work, steps=4):
    return pretrain_bert.students(steps, torch.device("cpu"), teacher, data, work)


def test_a_written_folder_holds_the_model(tmp_path):
    """Every tensor comes back, at half precision, from encoders that loaded the folder."""
    tensors = folder_of.fresh_tensors()
    folder_of.write_folder(tmp_path, tensors, PIECES)
    again = folder_of.trained_tensors(load_backbone(path=str(tmp_path)))

    assert set(again) == set(tensors)
    unused = "text.transformer.embeddings.token_type_embeddings.weight"  # the second row is
    tensors[unused][1] = 0
    for name, tensor in tensors.items():
        torch.testing.assert_close(again[name], tensor.half().float(), rtol=1e-3, atol=1e-6)


def test_the_shipped_folder_is_of_biomedclip_s_kind():
    """Its settings' names are BiomedCLIP's, its tensors' open_clip's, in half precision."""
    settings = json.loads((FOLDER / "open_clip_config.json").read_text())["model_cfg"]
    assert set(settings) == {"embed_dim", "vision_cfg", "text_cfg"}
    assert settings["vision_cfg"]["timm_pool"] == ""
    assert settings["text_cfg"]["hf_proj_type"] == "mlp"
    assert settings["text_cfg"]["hf_pooler_type"] == "cls_last_hidden_state_pooler"
    tensors = load_file(FOLDER / "open_clip_model.safetensors")
    assert {name: tuple(t.shape) for name, t in tensors.items()} == folder_of.shapes()
    assert {t.dtype for name, t in tensors.items() if name != "logit_scale"} == {torch.float16}
    assert json.loads((FOLDER / "config.json").read_text())["model_type"] == "bert"
    assert load_backbone(path=str(FOLDER)).text.kind == "bert"


def test_every_ascii_word_is_in_the_shipped_vocabulary():
    """The words of every symptom file, invented words and punctuation, without [UNK]."""
    tokenizer = read_tokenizer(FOLDER, pad="[PAD]")
    rng = random.Random(0)
    texts = [file.read_text("utf-8") for file in (ROOT / "symptoms").glob("*.json")]
    texts += ["".join(rng.choices(string.ascii_letters + string.digits, k=12)) for _ in range(200)]
    texts += [string.punctuation, string.ascii_lowercase, string.digits]
    unknown = PIECES.index("[UNK]")
    for text in texts:
        assert unknown not in tokenizer.encode(text.encode("ascii", "ignore").decode())


def test_a_new_vocabulary_is_whole(monkeypatch):
    """Its size, no piece twice, every letter and digit alone and within a word."""
    monkeypatch.setattr(folder_of, "CAPTIONS", 100)
    pieces = folder_of.pieces_of_captions()

    assert len(pieces) == len(set(pieces)) == folder_of.PIECES
    letters = {*string.ascii_lowercase, *string.digits}
    assert letters | {f"##{letter}" for letter in letters} | {*string.punctuation} <= set(pieces)
    assert pieces[0] == "[PAD]" and {"[UNK]", "[CLS]", "[SEP]"} <= set(pieces)


@pytest.mark.parametrize("place", [0, 1], ids=["image", "text"])
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(data, teacher, tmp_path, place):
    """Two steps, what they left, and two more in a new process's place: the same as four."""
    whole = students(data, teacher, tmp_path)[place]
    for step in range(4):
        whole.step(data, step)
    first = students(data, teacher, tmp_path)[place]
    for step in range(2):
        first.step(data, step)
    first.save_state(tmp_path / "state", 2, 1.0)
    second = students(data, teacher, tmp_path)[place]
    assert second.load_state(tmp_path / "state") == (2, 1.0)
    for step in (2, 3):
        second.step(data, step)

    for one, other in zip(whole.learned, second.learned, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("place", [0, 1], ids=["image", "text"])
def test_a_tower_learns_alone(data, teacher, tmp_path, monkeypatch, place):
    """Its loss falls, every parameter of it changes, none of the other tower's does."""
    student = students(data, teacher, tmp_path, steps=15)[place]
    monkeypatch.setattr(type(student), "peak", 1e-2)
    before = {k: v.clone() for k, v in student.model.state_dict().items()}
    losses = [student.step(data, step) for step in range(15)]
    after = student.model.state_dict()
    changed = {k.split(".")[0] for k in before if not torch.equal(before[k], after[k])}

    assert changed == {student.part}
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    same = [k for k in before if k.startswith(student.part) and torch.equal(before[k], after[k])]
    assert same == []


def test_the_teacher_s_features_are_those_of_image_and_caption(
    data, teacher, tmp_path, monkeypatch
):
    """What a run with ``tiny_rn`` makes of the drawn images and of the captions."""
    monkeypatch.setattr(pretrain_bert, "with_strange_words", lambda text, rng: text)
    student = students(data, teacher, tmp_path)[1]
    lesson, _ = student.lesson(data, 0)
    shipped = load_backbone(path=str(ROOT / "backbones" / "tiny_rn.pt"))
    stopped = [i for i, text in enumerate(lesson.texts) if text.endswith(".")]
    texts = pretrain_report.text_features(shipped, [lesson.texts[i] for i in stopped])
    images = pretrain_report.image_features(shipped, data.pixels["SynthChest"])

    assert len(stopped) >= 3
    torch.testing.assert_close(texts, lesson.of_texts[stopped], rtol=0, atol=1e-4)
    torch.testing.assert_close(images, student.targets["SynthChest"], rtol=0, atol=1e-4)


def test_strange_words_leave_the_caption_s_in_their_order():
    """Some texts get one to three; none loses a word."""
    rng, text = random.Random(0), "a round spot with dots"
    lengths = set()
    for _ in range(100):
        words = pretrain_bert.with_strange_words(text, rng).split()
        lengths.add(len(words))
        rest = iter(words)
        assert all(word in rest for word in text.split())  # each behind the one before
    assert lengths == {5, 6, 7, 8}


def test_a_teacher_is_needed(tmp_path):
    with pytest.raises(InputError, match=r"holds no tiny_rn.pt for tiny_bert to learn from"):
        pretrain.main(["--model", "tiny_bert", "--out", str(tmp_path), "--work", str(tmp_path)])
