"""Symptoms less and more: what changes, and what is refused."""

import pytest

from core.errors import InputError
from explanations.what_if import changed_phrases

PHRASES = {"melanoma": ["ragged edges", "redness"], "nevus": ["clear edges", "redness"]}


def test_drop_takes_a_symptom_from_every_class_and_add_gives_it_to_one():
    """Case, spaces and a full stop do not matter; the list handed in stays as it is."""
    changed = changed_phrases(PHRASES, ["Redness. "], [("Nevus", "one  even colour")])

    assert changed == {"melanoma": ["ragged edges"], "nevus": ["clear edges", "one even colour"]}
    assert PHRASES["melanoma"] == ["ragged edges", "redness"]


@pytest.mark.parametrize(
    ("drop", "add", "message"),
    [
        (["redess"], [], "no class has the symptom 'redess'; did you mean 'redness'?"),
        (["pallor"], [], "no class has the symptom 'pallor'; the symptoms are: ragged edges; "),
        ([], [("wart", "x")], "no class 'wart'; choose one of melanoma, nevus"),
        ([], [("nevus", " . ")], "the symptom to add to class 'nevus' is empty"),
        ([], [("nevus", "Redness")], "class 'nevus' already has the symptom 'Redness'"),
        (["redness", "clear edges"], [], "leaves class 'nevus' without symptoms"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(drop, add, message):
    with pytest.raises(InputError) as caught:
        changed_phrases(PHRASES, drop, add)

    assert message in str(caught.value) and "\n" not in str(caught.value)
