"""From free text to phrases, without an endpoint."""

import random
import re

import pytest

from symptom_generator.match import statements
from symptom_generator.montage import draw
from symptom_generator.phrases import MAX_WORDS, NameFinder, bullets, phrase, read_features


@pytest.mark.parametrize(
    "answer, features",
    [
        ("- one\n* two\n\u2022 three\n1. four\n2) five", ["one", "two", "three", "four", "five"]),
        ("Intro:\n\n- one\n\nThat is all - really.", ["one"]),
        ("1. **Shape**:\n   - round\n   - even\n2. **Color**\n   - tan", ["round", "even", "tan"]),
        ("- a line that\n  goes on\n- next", ["a line that goes on", "next"]),
        ('- "quoted" words\n- a `code` and *stress* [1]', ['quoted" words', "a code and stress"]),
        ("- see [this page](https://example.org)", ["see this page"]),
        ("A sentence - with a dash.\n-no space", []),
    ],
)
def test_bullets(answer, features):
    """List marks of every kind; headings, marks and citations fall away."""
    assert bullets(answer) == features


@pytest.mark.parametrize(
    "feature, expected",
    [
        ("Asymmetry: One half is unlike the other.", "Asymmetry: One half is unlike the other"),
        ("Border \u2013 ragged. It may be notched.", "Border: ragged"),
        ("Wide, e.g. over 6 mm across", "Wide, e.g. over 6 mm across"),
        (
            "Color: it is uneven, with parts in brown, in black, in grey, in red, in white, in "
            "blue, all of them in one and the same spot",
            "it is uneven, with parts in brown, in black, in grey, in red, in white",
        ),
        ("Ragged border: melanoma has edges that fade", "Ragged border"),
        ("Pattern of melanomas", None),
        ("like a mole's", None),
        ("word " * 30, None),
    ],
)
def test_phrase(feature, expected):
    """A phrase is short and names neither the class nor a synonym."""
    short, why = phrase(feature, NameFinder(["melanoma", "mole"]))

    assert short == expected
    assert (why is None) is (short is not None)
    assert short is None or len(short.split()) <= MAX_WORDS


@pytest.mark.parametrize(
    "text, named",
    [
        ("a Normal Lung", "normal lung"),
        ("normal-lungs look clear", "normal lung"),
        ("a normal shape of the lung", None),
        ("abnormal lung", None),
    ],
)
def test_names_are_found_as_whole_words(text, named):
    """Names are whole words, in any case, joined by spaces or hyphens, in the plural too."""
    assert NameFinder(["normal lung"]).find(text) == named


def test_names_are_found_as_one_by_one():
    """The finder looks for few names in each text, and finds what a search for each would."""
    generator = random.Random(0)
    words = ["cell", "cells", "Basal", "basal-cell", "x", "CD4+", "nevus", "nevuses", "of", "a's"]
    names = [" ".join(generator.choices(words, k=generator.randint(1, 3))) for _ in range(60)]
    finder = NameFinder(names)

    def one_by_one(text):
        for name in names:
            parts = [re.escape(part) for part in re.split(r"[\s_-]+", name)]
            pattern = r"[\s_-]+".join(parts) + r"(?:e?s|['\u2019]s)?(?!\w)"
            if re.search(r"(?<!\w)" + pattern, text, re.IGNORECASE):
                return name
        return None

    joined = [
        "".join(generator.choices([*words, " ", "-", "_", "s", "es", ". "], k=9))
        for _ in range(3000)
    ]
    assert [finder.find(text) for text in joined] == [one_by_one(text) for text in joined]
    assert len({finder.find(text) for text in joined}) > 10


def test_repeated_and_endless_features_are_dropped():
    """What is said twice counts once; what has more tokens than CLIP reads does not count."""
    features = read_features("- Red spot.\n- red SPOT\n- " + "\u4e2d" * 60 + "\n- Flat", [])

    assert [feature["phrase"] for feature in features] == ["Red spot", None, None, "Flat"]
    assert features[1]["dropped"] == "said before"
    assert "tokens" in features[2]["dropped"]


def test_statements_are_entries_or_sentences():
    """A picture answer is compared piece by piece."""
    assert statements("Intro\n- red\n- round") == ["red", "round"]
    assert statements("It is red. It is\nround.") == ["It is red.", "It is round."]


class Named:
    def __init__(self, name):
        self.id = name


@pytest.mark.parametrize("count", [5, 16, 20, 100])
def test_draw_repeats_no_picture_before_it_must(count):
    """A sheet holds no picture twice, and sheets share pictures only where a class has too few."""
    pictures = [Named(f"{number:03}") for number in range(count)]

    sheets = [[picture.id for picture in one] for one in draw(pictures, 3, 16, 1, "nevus")]

    assert [len(set(sheet)) for sheet in sheets] == [min(16, count)] * 3
    assert len(set().union(*sheets)) == min(count, 48)


def test_draw_follows_the_seed_alone():
    """The order in which a dataset lists its pictures changes nothing; the seed does."""
    pictures = [Named(f"{number:03}") for number in range(40)]
    shuffled = random.Random(3).sample(pictures, len(pictures))

    def names(pool, seed):
        return [[picture.id for picture in one] for one in draw(pool, 3, 16, seed, "nevus")]

    assert names(pictures, 1) == names(shuffled, 1)
    assert names(pictures, 1) != names(pictures, 2)
