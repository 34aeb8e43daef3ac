"""The concept bottleneck against its equations in float64, and its weights by phrase."""

import pytest
import torch
from naive import cross_entropy, text_feature

import train
from core.errors import InputError
from dassl_compat.checkpoint_reader import read_checkpoint
from symptoms import Symptoms
from trainers.concept_bottleneck import BottleneckCLIP, ConceptWeights

PHRASES = {
    "melanoma": ["ragged edges", "a blue-white veil", "redness"],
    "nevus": ["one even colour", "redness"],
    "scar": ["a pale, shiny patch"],
}
CONCEPTS = [
    "ragged edges",
    "a blue-white veil",
    "redness",
    "one even colour",
    "a pale, shiny patch",
]


@pytest.fixture
def bottleneck(frozen64):
    """In float64, with weights that are drawn."""
    model = BottleneckCLIP(frozen64, PHRASES).double()
    with torch.no_grad():
        model.learned.weights += torch.randn_like(model.learned.weights)
    return model


def test_loss_and_gradients(bottleneck, frozen64, image_features, label, close, shapes):
    """s f . sum_m softmax(A_c)_m C_m for each image and class, a phrase of two classes once."""
    weights = bottleneck.learned.weights
    concepts = [text_feature(frozen64.model, f"{phrase} .") for phrase in CONCEPTS]
    rows = []
    for f in image_features:
        row = []
        for a in weights:
            total = sum(x.exp() for x in a)
            cosines = [f @ t / f.square().sum().sqrt() / t.square().sum().sqrt() for t in concepts]
            mean = sum(x.exp() / total * y for x, y in zip(a, cosines, strict=True))
            row.append(frozen64.logit_scale.exp() * mean)
        rows.append(torch.stack(row))
    naive = torch.stack(rows)
    logits, losses = bottleneck.from_features(image_features, label)

    close(logits, naive)
    close(sum(losses.values()), cross_entropy(naive, label), [weights])
    assert shapes(bottleneck) == {"weights": (3, 5)}


def test_weights_start_from_each_class_s_own_symptoms(frozen64, build):
    built = build(
        "ConceptBottleneck", frozen64, classnames=list(PHRASES), symptoms=Symptoms(PHRASES)
    )

    assert built.model.learned.weights.tolist() == [
        [1, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    assert built.model.learned.phrases == CONCEPTS


def test_weights_find_their_phrases(bottleneck, frozen64):
    """Classes and symptoms in another order, and some left out: each keeps its weight."""
    other = {"scar": PHRASES["scar"], "melanoma": ["redness", "ragged edges"], "nevus": ["redness"]}
    model = BottleneckCLIP(frozen64, other)
    model.learned.load_state_dict(bottleneck.learned.state_dict())
    rows = bottleneck.learned.weights

    assert model.learned.phrases == ["a pale, shiny patch", "redness", "ragged edges"]
    assert torch.equal(model.learned.weights, rows[:, [4, 2, 0]].float())


def test_a_symptom_without_a_weight_is_named():
    known = ConceptWeights(torch.ones(2, 2, dtype=torch.bool), ["red", "blue"])
    other = ConceptWeights(torch.ones(2, 2, dtype=torch.bool), ["red", "green"])

    with pytest.raises(RuntimeError, match="the symptom 'green' has no learned weight"):
        other.load_state_dict(known.state_dict())


def test_new_classes_have_no_weights(four_classes, toy_args, short):
    """Their symptoms are concepts that training did not see."""
    args = ["--trainer", "ConceptBottleneck", *toy_args[:-1]]
    toy = four_classes
    train.main([*args, str(toy / "base"), *short, "DATASET.SUBSAMPLE_CLASSES", "base"])
    with pytest.raises(InputError, match="ConceptBottleneck learned weights for each .* green"):
        train.main(
            [*args, str(toy / "new"), "--eval-only", "--model-dir", str(toy / "base"), *short]
            + ["DATASET.SUBSAMPLE_CLASSES", "new"]
        )
    state = read_checkpoint(toy / "base" / "concept_weights" / "model-best.pth.tar")["state_dict"]
    assert {name: tuple(x.shape) for name, x in state.items()} == {
        "weights": (2, 5),
        "concepts": (5,),
    }


def test_it_needs_symptoms(frozen64, build):
    with pytest.raises(InputError, match="ConceptBottleneck needs the symptoms of every class"):
        build("ConceptBottleneck", frozen64)
