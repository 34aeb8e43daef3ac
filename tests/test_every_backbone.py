"""Every method on every kind of backbone that it is defined for; the README's table says which."""

import csv
from pathlib import Path

import pytest
import torch
from small_folders import KINDS, save_backbone

import explain
import train
from backbones.loading import load_backbone
from core.errors import InputError
from engine.loading import load_run
from engine.method import METHODS, DoesNotApply
from engine.prompts import ContextPrompts, encode_texts
from engine.trainer import MethodTrainer
from results.record import read_record
from symptoms import Symptoms

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ["red", "a photo of the sea", "x"]
QUICK = ("BERT (BiomedCLIP)", "SigLIP")  # the two that learned contexts differ most on


@pytest.fixture
def on_kind(toy):
    """Function: the words of a command line for a run on ``toy`` with a backbone of this kind."""

    def words(kind, folder):
        path = save_backbone(kind, toy / "weights")
        lines = f"MODEL:\n  BACKBONE:\n    NAME: kind\n    PATH: {path}\n    ACTIVATION: ''\n"
        (toy / "kind.yaml").write_text(lines)
        return [
            *("--root", str(toy / "data"), "--dataset", str(toy / "toy.yaml")),
            *("--backbone", str(toy / "kind.yaml"), "--output-dir", str(folder)),
        ]

    return words


def predictions(folder):
    with open(folder / "predictions.csv", newline="") as file:
        return list(csv.reader(file))


def cell_of(method, kind, toy, on_kind, short, monkeypatch):
    """What the table says: the method trains, resumes, evaluates and perhaps explains on the kind.

    A resumed run and a whole one must predict the same, and so must an evaluation.
    """
    run, cut = toy / "runs" / "whole", toy / "runs" / "cut"
    words = ["--trainer", method, *on_kind(kind, run), *short]
    try:
        train.main(words)
    except DoesNotApply:
        assert read_record(run).does_not_apply
        return "does not apply"
    assert read_record(run).metrics.accuracy is not None
    again = [str(cut) if word == str(run) else word for word in words]
    after_epoch = MethodTrainer.after_epoch

    def interrupted(self):
        after_epoch(self)
        if self.epoch == 0 and self.max_epoch > 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MethodTrainer, "after_epoch", interrupted)
        try:
            train.main(again)
        except KeyboardInterrupt:
            train.main(again)
    train.main(again)
    assert predictions(cut) == predictions(run)
    train.main([*words, "--eval-only"])
    assert predictions(cut) == predictions(run)
    loaded = load_run(run)
    if not loaded.explainable:
        return "yes"
    explain.main([str(run), "--limit", "2", "--output-dir", str(toy / "explained")])
    assert list((toy / "explained").glob("*.html"))
    return "yes, explained"


def readme_table():
    """The README's table: {(method, kind): cell}."""
    lines = (ROOT / "README.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| Method | CLIP, ViT"))
    kinds = [cell.strip() for cell in lines[start].strip("|").split("|")][1:]
    table = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        method, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        table |= {(method, kind): cell for kind, cell in zip(kinds, cells, strict=True)}
    return table


def test_the_table_has_every_method_and_kind():
    assert readme_table().keys() == {(method, kind) for method in METHODS for kind in KINDS}


@pytest.mark.parametrize("kind", QUICK)
@pytest.mark.parametrize("method", ["ViP", "MaPLe"])
def test_the_table_is_right(method, kind, toy, on_kind, short, monkeypatch):
    cell = cell_of(method, kind, toy, on_kind, short, monkeypatch)

    assert cell == readme_table()[method, kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_the_whole_table_is_right(method, kind, toy, on_kind, short, monkeypatch):
    cell = cell_of(method, kind, toy, on_kind, short, monkeypatch)

    assert cell == readme_table()[method, kind]


# -- what every kind keeps ------------------------------------------------------------------------


@pytest.fixture(params=KINDS)
def backbone(request, tmp_path):
    return load_backbone(path=str(save_backbone(request.param, tmp_path)))


def test_each_text_is_as_if_it_were_alone(backbone):
    """Neither padding nor the other texts change a feature."""
    alone = torch.cat([encode_texts(backbone, [text]) for text in TEXTS])

    torch.testing.assert_close(encode_texts(backbone, TEXTS), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("position", ["end", "front"])
def test_a_context_of_words_is_those_words(backbone, position):
    words = "a photo"
    n_ctx = len(backbone.token_ids([words])[0])
    prompts = ContextPrompts(backbone, TEXTS, n_ctx, position, start_words=words)
    texts = [f"{words} {t}" if position == "end" else f"{t} {words}" for t in TEXTS]
    features = backbone.encode_text(prompts.inputs, prompts())

    torch.testing.assert_close(features, encode_texts(backbone, texts), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(features.square().sum(), prompts.ctx)
    assert (gradient.abs().sum(dim=1) > 0).all()


def test_vocabulary_and_patches_have_the_sizes_of_the_contract(backbone):
    words, rows = backbone.vocabulary()
    side = backbone.preprocessing.size

    assert len(words) == len(rows) and rows.shape[1] == backbone.text_width and "red" in words
    patches = backbone.patch_tokens(torch.randn(2, 3, side, side))
    assert patches.shape[0] == 2 and patches.shape[2] == backbone.embed_dim


@pytest.mark.parametrize("precision", ["bf16", "amp"])
def test_half_precision_is_near_the_whole_one(backbone, precision, request, tmp_path):
    path = str(next(p for p in (tmp_path / "clip.pt", tmp_path) if p.exists()))
    half = load_backbone(path=path, precision=precision)
    x = torch.randn(2, 3, backbone.preprocessing.size, backbone.preprocessing.size)

    for ours, exact in (
        (half.encode_image(x), backbone.encode_image(x)),
        (encode_texts(half, TEXTS), encode_texts(backbone, TEXTS)),
    ):
        assert ours.dtype == torch.float32
        assert torch.cosine_similarity(ours, exact).min() > 0.99


@pytest.mark.parametrize("method", ["ZeroshotCLIP", "CoOp", "CoCoOp", "KgCoOp", "MaPLe"])
def test_names_that_the_tokenizer_makes_equal_are_refused(method, tmp_path):
    """Their logits would be the same: SigLIP's texts lose their punctuation."""
    backbone = load_backbone(path=str(save_backbone("SigLIP", tmp_path)))
    with pytest.raises(InputError, match=r"'HER2\+' and 'HER2-' as the same tokens"):
        METHODS[method]().build(backbone, ["HER2+", "HER2-"])
    METHODS["LinearProbe"]().build(backbone, ["HER2+", "HER2-"])  # it reads no names


def test_a_text_of_which_nothing_is_left_is_refused(backbone):
    """SigLIP's texts lose their punctuation, and every text its full stop."""
    with pytest.raises(InputError, match=r"the text '\.' has no words"):
        backbone.prepare(["red", "."])


def test_what_the_vocabulary_does_not_have_is_said(tmp_path, capsys):
    backbone = load_backbone(path=str(save_backbone("BERT (BiomedCLIP)", tmp_path)))
    METHODS["ZeroshotCLIP"]().build(backbone, ["皮肤", "red"])
    assert capsys.readouterr().out == (
        "note: not in the text encoder's vocabulary, at least in part: 皮肤\n"
    )
    symptoms = Symptoms({"a": ["red", "皮肤"], "b": ["red"]})
    METHODS["ViP"]().build(backbone, ["a", "b"], symptoms)
    assert "vocabulary, at least in part: 皮肤" in capsys.readouterr().out
