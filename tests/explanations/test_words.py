"""Nearest words: found where a word was planted, and honest where there is none."""

import clip
import pytest
import torch

from core.errors import InputError
from explanations.words import nearest_words
from trainers import load_run


def test_a_planted_word_is_found(toy_run):
    """A context token moved onto a word's embedding names it, at distance 0."""
    run = load_run(toy_run("ViP"))
    token = int(clip.tokenize("melanoma red")[0, 1])
    table = run.model.backbone.text.token_embedding.weight
    word_id = int(clip.tokenize("red")[0, 1])
    assert token != word_id
    with torch.no_grad():
        run.model.learned.prompt_learner.ctx[2] = table[word_id]

    words = nearest_words(run, count=3)

    assert [row["token"] for row in words.rows] == sorted("1234" * 3)
    found = next(row for row in words.rows if row["token"] == "3")
    assert (found["word"], found["rank"]) == ("red", 1)
    assert found["distance"] == pytest.approx(0, abs=1e-3)
    assert found["cosine"] == pytest.approx(1, abs=1e-5)
    for first, second in zip(words.rows, words.rows[1:], strict=False):
        if first["token"] == second["token"]:
            assert first["distance"] <= second["distance"]


def test_caution_counts_what_is_far_from_any_word(toy_run):
    """Random vectors of the start lie far from every word, and the line says so."""
    run = load_run(toy_run("ViP"))
    with torch.no_grad():
        run.model.learned.prompt_learner.ctx.normal_()

    words = nearest_words(run)

    assert words.usual > 0
    assert words.caution.startswith("4 of 4 context tokens are further from their nearest word")
    assert "A learned vector is not a word" in words.caution


@pytest.mark.parametrize(
    ("trainer", "options", "tokens"),
    [("CoOp", (), 4), ("CoOp", ("TRAINER.COOP.CSC", "True"), 8)],
)
def test_other_methods_with_a_context(toy_run, trainer, options, tokens):
    """CoOp's users look at theirs too; a class's own context carries its name."""
    words = nearest_words(load_run(toy_run(trainer, *options)), count=1)

    assert len(words.rows) == tokens
    assert words.rows[-1]["token"] == ("4" if tokens == 4 else "blue 4")


def test_a_run_without_context_says_so(toy_run):
    with pytest.raises(InputError, match="ZeroshotCLIP did not learn a context in this run"):
        nearest_words(load_run(toy_run("ZeroshotCLIP")))
