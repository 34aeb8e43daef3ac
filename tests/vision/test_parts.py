"""Examples and agreement, each against what it should be by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from core.errors import InputError
from vision_llm.agreement import agreements
from vision_llm.asking import ImageAnswers
from vision_llm.examples import nearest
from vision_llm.questions import SignAnswer


def test_the_nearest_examples_are_those_of_the_greatest_cosine():
    """Nearest last, and never the image itself under another name."""
    rng = np.random.default_rng(0)
    train = rng.normal(size=(30, 8))
    train /= np.linalg.norm(train, axis=1, keepdims=True)
    images = np.concatenate([train[:3], rng.normal(size=(4, 8))])
    names = [f"copy{i}" for i in range(3)] + [f"new{i}" for i in range(4)]
    train_names = [f"copy{i}" if i < 3 else f"train{i}" for i in range(30)]
    images /= np.linalg.norm(images, axis=1, keepdims=True)

    found = nearest(images, train, names, train_names, 4)
    for row, name, chosen in zip(images, names, found, strict=True):
        cosines = {i: sum(row * train[i]) for i in range(30) if train_names[i] != name}
        assert chosen == sorted(cosines, key=cosines.get)[-4:]
    assert not any(i in chosen for i, chosen in enumerate(found[:3]))


def test_more_examples_than_training_images_are_refused():
    with pytest.raises(InputError, match="--examples is 3; there are 1 training images"):
        nearest(np.eye(2)[:1], np.eye(2), ["a"], ["a", "b"], 3)


def test_agreement_counts_what_was_judged(tmp_path):
    """Present on an image with the attribute and absent on one without are correct; unclear is
    not judged; a sign without a pair has no row."""
    rows = ["picture,class,border", "a,x,jagged", "b,x,clear", "c,x,jagged", "d,x,clear"]
    (tmp_path / "attributes.csv").write_text("\n".join(rows) + "\n")
    pairs = [{"symptom": "Ragged edges", "shown_by": {"border": ["jagged"]}}]
    (tmp_path / "toy.json").write_text(json.dumps({"pairs": pairs}))
    said = {"a": "present", "b": "absent", "c": "unclear", "d": "present", "e": "present"}
    images = [SimpleNamespace(id=name) for name in said]
    answers = [
        ImageAnswers([SignAnswer("ragged edges", answer), SignAnswer("other", "present")])
        for answer in said.values()
    ]
    dataset = SimpleNamespace(dataset_dir=tmp_path)

    (row,) = agreements(dataset, "toy", images, answers, tmp_path)
    assert (row.sign, row.attribute) == ("ragged edges", "border: jagged")
    assert (row.images, row.shown, row.judged, row.agree) == (4, 2, 3, 2)
    assert row.share == pytest.approx(2 / 3)
    assert agreements(dataset, "no pairs", images, answers, tmp_path) == []
