"""The small CLIPs: what captions say, how the checkpoints load, what the shipped weights know."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from clip.simple_tokenizer import SimpleTokenizer

from backbones import (
    captions,
    pretrain,
    pretrain_clip,
    pretrain_data,
    pretrain_losses,
    pretrain_report,
)
from backbones.loading import load_backbone
from backbones.token_table import IDS, ROWS, SEED, STD, TOKENS, USED, expand_token_table
from core.errors import InputError
from datasets import synthetic
from datasets.synthetic import CHESTS, LESIONS, WORLDS

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("tiny", "tiny_rn", "tiny_bert")
CHECKPOINTS = ("tiny", "tiny_rn")  # of OpenAI's kind
SCALES = {"tiny": 100, "tiny_rn": 100, "tiny_bert": 60}
# Mean AUC over a world's attributes and the least, at least; the BERT's reads symmetry poorly.
KNOWN = {"tiny": (0.88, 0.75), "tiny_rn": (0.88, 0.75), "tiny_bert": (0.86, 0.57)}


def path_of(name):
    return ROOT / "backbones" / pretrain.SHIPPED[name]


@pytest.fixture(scope="module")
def said():
    """3,000 captions of each world: (world, attributes, text, facts)."""
    rows, rng = [], random.Random(0)
    for world in WORLDS:
        for i in range(3000):
            attributes = synthetic.sample_attributes(world, np.random.default_rng(i))
            rows.append((world, attributes, *captions.caption(world, attributes, rng)))
    return rows


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    return load_backbone(path=str(path_of(request.param)))


def test_a_pattern_stands_for_every_choice():
    """Alternatives may be empty and may hold further ones."""
    assert captions.expand("(a|the) b(c|)") == {"a bc", "a b", "the bc", "the b"}
    assert captions.expand("(x|(y|z) w)") == {"x", "y w", "z w"}


def test_no_caption_names_a_disease(said):
    """Neither the words that captions are made of nor a sample of captions."""
    assert not captions.DISEASE_WORDS.intersection(captions.words())
    for _, _, text, _ in said:
        assert not captions.DISEASE_WORDS.intersection(captions.plain(text).split())


def test_class_names_are_no_words_of_captions():
    """What tells one class's name from the other's was never trained."""
    for name in ("melanoma", "nevus", "normal", "pneumonia"):
        assert name not in captions.words()


def test_no_caption_holds_a_wording_of_the_evaluation(said):
    """Nor a symptom of the symptom files, which ask for what the captions taught."""
    held_out = set(captions.held_out_phrases())
    for dataset in ("derm7pt", "pneumonia"):
        classes = json.loads((ROOT / "symptoms" / f"{dataset}.json").read_text())["classes"]
        held_out |= {captions.plain(p) for entry in classes.values() for p in entry["phrases"]}
    for _, _, text, _ in said:
        padded = f" {captions.plain(text)} "
        assert not [phrase for phrase in held_out if f" {phrase} " in padded]


def test_every_value_has_many_wordings_and_some_held_out():
    """At least 30 phrases and 15 patterns' worth of wordings a value; the evaluation asks each."""
    for world in WORLDS:
        facts = captions.phrases(world.name)
        for attribute in world.attributes:
            for value in attribute.values:
                forms = [
                    forms
                    for (name, values), forms in facts.items()
                    if (name, values) == (attribute.name, (value,))
                ]
                assert sum(len(p) for patterns in forms[0] for p in patterns) >= 30
                assert captions.HELD_OUT[world.name][attribute.name][value]


def test_a_caption_is_true_and_says_one_to_all(said):
    """What it states, the picture has; short and long captions both occur."""
    counts = set()
    for world, attributes, _, facts in said:
        counts.add(len(facts))
        for name, values in facts.items():
            assert attributes[name] in values
            assert captions.can_be_said(name, attributes)
        assert set(facts) <= {attribute.name for attribute in world.attributes}
    assert {1, 2, 8} <= counts


def test_every_caption_is_within_the_trained_words(said):
    """The checkpoint's rows cover whatever a caption can say."""
    vocabulary = pretrain_data.Vocabulary()
    for _, _, text, _ in said:
        vocabulary.encode(text)  # a KeyError otherwise


def test_the_loss_is_clip_s_where_each_caption_is_true_of_one_picture():
    """Against cross-entropy on the diagonal, both ways."""
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(2, 6, 8, generator=generator)
    cosines = torch.nn.functional.cosine_similarity(images[:, None], texts[None], dim=-1)
    diagonal = torch.arange(6)
    expected = (
        torch.nn.functional.cross_entropy(10 * cosines, diagonal)
        + torch.nn.functional.cross_entropy(10 * cosines.t(), diagonal)
    ) / 2
    loss = pretrain_losses.contrastive_loss(images, texts, 10.0, torch.eye(6, dtype=torch.bool))
    torch.testing.assert_close(loss, expected)


def test_the_head_may_name_any_value_that_a_caption_allows():
    """Against the sum of the allowed values' softmax; unasked attributes weigh nothing."""
    scores = torch.randn(1, len(pretrain_data.VALUES), generator=torch.Generator().manual_seed(0))
    facts = {"border": ("blurred", "jagged")}
    permitted = torch.tensor([pretrain_data.allowed("SynthDerm", facts)])
    asked = torch.tensor([pretrain_data.stated("SynthDerm", facts)])
    at = {
        v: pretrain_data.VALUES.index(("SynthDerm", "border", v))
        for v in ("clear", "blurred", "jagged")
    }
    chances = scores[0, list(at.values())].softmax(0)
    expected = -(chances[1] + chances[2]).log()
    torch.testing.assert_close(pretrain_losses.naming_loss(scores, permitted, asked), expected)


def test_turning_and_flipping_moves_pixels_only():
    """Without a crop, each lesion is one of the eight turns and flips of itself, shaded evenly."""
    x = torch.rand(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    class Uncropped(np.random.Generator):
        def random(self, n):
            return np.ones(n)

    turned = pretrain_data.augment(x, torch.ones(16), Uncropped(np.random.PCG64(0)))
    for one, other in zip(x, turned, strict=True):
        ways = [torch.rot90(w, k, (1, 2)) for w in (one, one.flip(2)) for k in range(4)]
        assert min((other - w).std((1, 2)).max() for w in ways) < 1e-4


def test_text_is_encoded_as_clip_encodes_it():
    """Compact tokens, cut short and in parts, give what CLIP gives for whole rows."""
    torch.manual_seed(0)
    vocabulary = pretrain_data.Vocabulary()
    small = pretrain_clip.new_model("tiny", len(vocabulary)).eval()
    batch = [
        (world, synthetic.sample_attributes(world, np.random.default_rng(i)))
        for world in WORLDS
        for i in range(5)
    ]
    tokens, ends, _, _ = pretrain_data.caption_batch(vocabulary, batch, random.Random(0))
    whole = torch.zeros(len(tokens), 77, dtype=torch.long)
    whole[:, : tokens.shape[1]] = tokens
    torch.testing.assert_close(
        pretrain_clip.encode_text(small, tokens, ends), small.encode_text(whole)
    )


def test_a_short_checkpoint_expands_to_the_whole_table():
    """Kept rows stand where their tokens are, the others follow from the seed alone."""
    state = {USED: torch.ones(2, 4).half(), IDS: torch.tensor([5, 9]), ROWS: torch.tensor(2000)}
    state |= {SEED: torch.tensor(3), "other": torch.zeros(1)}
    table = expand_token_table(state)[TOKENS]
    assert table.shape == (2000, 4) and table.dtype == torch.float32
    assert bool((table[[5, 9]] == 1).all())
    assert table[10:].std() == pytest.approx(STD, rel=0.1)
    torch.testing.assert_close(expand_token_table(state)[TOKENS], table)
    torch.testing.assert_close(expand_token_table(state, seed=3)[TOKENS], table)
    other = expand_token_table(state, seed=4)[TOKENS]
    assert not torch.equal(other[0], table[0]) and torch.equal(other[5], table[5])
    assert USED in state, "the caller's dict is left alone"
    whole = {TOKENS: table}
    assert expand_token_table(whole) is whole


def test_saved_and_loaded_is_the_same_model(tmp_path):
    """Half-precision storage and rebuilding the table change the features next to nothing."""
    torch.manual_seed(0)
    vocabulary = pretrain_data.Vocabulary()
    small = pretrain_clip.new_model("tiny_rn", len(vocabulary)).eval()
    pretrain_clip.save(small, tmp_path / "small.pt")
    loaded = load_backbone(path=str(tmp_path / "small.pt"))
    pixels = torch.randint(0, 255, (4, 3, 64, 64), dtype=torch.uint8)
    kept, again = (pretrain_report.image_features(m, pixels) for m in (small, loaded))
    assert torch.cosine_similarity(kept, again).min() > 0.9999
    text = "a photo of a spot with ragged edges."
    row = [vocabulary.start, *vocabulary.encode(text), vocabulary.end]
    with torch.no_grad():
        ends = torch.tensor([len(row) - 1] * 3)
        kept = pretrain_clip.encode_text(small, torch.tensor([row] * 3), ends)
    again = pretrain_report.text_features(loaded, [text] * 3)
    assert torch.cosine_similarity(kept, again).min() > 0.9999


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_is_openai_s_format(name):
    """All keys but the token table's are CLIP's."""
    state = torch.load(path_of(name), map_location="cpu", weights_only=True)
    vocabulary = pretrain_data.Vocabulary()
    assert set(expand_token_table(state)) == set(pretrain_clip.new_model(name, 10).state_dict())
    assert state[IDS].tolist() == vocabulary.ids
    assert int(state[ROWS]) == len(SimpleTokenizer().encoder)


def test_the_shipped_weights_are_small():
    """All files together stay below 12 MB."""
    files = [f for n in NAMES for f in ([path_of(n)], path_of(n).glob("*"))[path_of(n).is_dir()]]
    assert len(files) == 6
    assert sum(file.stat().st_size for file in files) < 12e6


@pytest.mark.parametrize("name", NAMES)
def test_each_has_its_own_temperature(name):
    """CLIP's 100, or another for the BERT, so that nothing may take 100 for granted."""
    model = load_backbone(path=str(path_of(name)))
    assert model.logit_scale.exp().item() == pytest.approx(SCALES[name], rel=1e-3)


def test_a_loaded_model_encodes_the_same_each_time(model):
    """Pictures and texts, one by one or together."""
    pixels = torch.from_numpy(np.stack([synthetic.picture(LESIONS, 5, i)[0] for i in range(4)]))
    pixels = pixels.permute(0, 3, 1, 2)
    together = pretrain_report.image_features(model, pixels)
    torch.testing.assert_close(pretrain_report.image_features(model, pixels), together)
    one_by_one = torch.cat([pretrain_report.image_features(model, p[None]) for p in pixels])
    torch.testing.assert_close(one_by_one, together, atol=1e-5, rtol=1e-4)
    assert together.shape == (4, pretrain_clip.EMBED_DIM)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_the_shipped_weights_know_the_attributes(name, world):
    """Held-out pictures, held-out wordings: mean AUC and the least, with room for 300 pictures."""
    drawn = [synthetic.picture(world, 11, i) for i in range(300)]
    pixels = torch.from_numpy(np.stack([p for p, _ in drawn])).permute(0, 3, 1, 2)
    model = load_backbone(path=str(path_of(name)))
    aucs = pretrain_report.attribute_aucs(model, world, pixels, [a for _, a in drawn])
    assert set(aucs) == {attribute.name for attribute in world.attributes}
    mean, least = KNOWN[name]
    assert np.mean([auc[0] for auc in aucs.values()]) > mean
    assert min(auc[0] for auc in aucs.values()) > least


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("world", (LESIONS, CHESTS), ids=lambda world: world.name)
def test_the_shipped_weights_know_no_disease(name, world):
    """By the names of the classes, balanced accuracy is near one half on the mean over seeds."""
    accuracies = pretrain_report.ByNames(path_of(name), world, n=100).with_other_rows()
    assert len(accuracies) == 20
    assert np.mean(accuracies) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("world", (LESIONS, CHESTS), ids=lambda world: world.name)
def test_tiny_bert_knows_no_disease(world):
    """The names of the classes are as far from one half as invented names may be."""
    asked = pretrain_report.ByNames(path_of("tiny_bert"), world, n=100)
    invented = [abs(accuracy - 0.5) for accuracy in asked.with_invented_names()]
    assert len(invented) == 20
    assert abs(asked.accuracy() - 0.5) <= max(invented)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--report", "--out", "none"], "--out none: holds no tiny_rn.pt or tiny.pt or tiny_bert"),
        (["--device", "abacus"], "--device abacus: cannot be used here"),
        (["--device", "cuda:99"], "--device cuda:99: cannot be used here"),
        (["--steps", "0"], "--steps is 0"),
    ],
)
def test_wrong_options_of_pretraining_are_one_line(tmp_path, options, message):
    """Said before anything is drawn or trained."""
    with pytest.raises(InputError) as error:
        pretrain.main([*options, "--work", str(tmp_path / "work")])

    assert str(error.value).startswith(message) and "\n" not in str(error.value)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("module", [captions, pretrain_data], ids=lambda module: module.__name__)
def test_unfinished_training_is_of_its_sources(module, tmp_path, monkeypatch):
    """Another drawing, other captions or other batches begin anew; the same go on."""
    before = pretrain.work_folder(tmp_path)
    assert pretrain.work_folder(tmp_path) == before

    changed = tmp_path / "changed.py"
    changed.write_text(Path(module.__file__).read_text() + "# another word\n")
    monkeypatch.setattr(module, "__file__", str(changed))
    assert pretrain.work_folder(tmp_path) != before
