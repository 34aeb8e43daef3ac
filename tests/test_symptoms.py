"""Symptom files: what is read, what is refused, and what the shipped ones hold."""

import json
from pathlib import Path

import pytest

import dassl_compat  # noqa: F401  (lets clip be imported beside any torchvision)
from core.errors import InputError
from symptoms import load_symptoms, read_symptom_file, save_symptoms

FOLDER = Path(__file__).resolve().parents[1] / "symptoms"
SHIPPED = sorted(FOLDER.glob("*.json"))
KNOWLEDGE = ["incorrect", "useless", "out_of_domain"]
PAPER_NEVUS = [
    "The spot is symmetric on both sides",
    "The spot has clear, well-defined edges",
    "The spot has a consistent color, usually brown, tan or black",
    "Redness or swelling around the spot",
]


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_both_forms_give_the_same_symptoms(tmp_path):
    """The original code's plain files are read as the fuller ones are."""
    plain = write(tmp_path / "plain.json", {"b": ["round.", "  red   spot.. "], "a": ["flat"]})
    full = tmp_path / "full.json"
    save_symptoms(full, {"a": ["flat"], "b": ["round", "red spot"]}, {"a": "a book"})

    first = load_symptoms(plain, ["a", "b"])
    second = load_symptoms(full, ["a", "b"])

    assert first.phrases == second.phrases == {"a": ["flat"], "b": ["round", "red spot"]}
    assert list(first.phrases) == ["a", "b"]
    assert first.fingerprint == second.fingerprint
    assert second.provenance == {"a": "a book", "b": ""}


def test_fingerprint_follows_the_phrases_alone(tmp_path):
    """The order of the classes does not change it; a word does."""
    path = write(tmp_path / "s.json", {"a": ["flat"], "b": ["round"]})
    other = write(tmp_path / "t.json", {"a": ["flat"], "b": ["oval"]})

    assert (
        load_symptoms(path, ["a", "b"]).fingerprint == load_symptoms(path, ["b", "a"]).fingerprint
    )
    assert (
        load_symptoms(path, ["a", "b"]).fingerprint != load_symptoms(other, ["a", "b"]).fingerprint
    )


def test_a_run_on_some_classes_leaves_the_others_alone(tmp_path):
    """Base-to-new runs use part of a file; it is no error that the file holds the rest."""
    path = write(tmp_path / "s.json", {"a": ["flat"], "b": ["round"], "c": ["red"]})

    assert load_symptoms(path, ["c"], others=["a", "b"]).phrases == {"c": ["red"]}
    with pytest.raises(InputError, match="unknown class 'a'"):
        load_symptoms(path, ["c"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": ["flat"]}, "class 'b' is missing; add it with its phrases"),
        ({"a": ["flat"], "B": ["red"]}, "unknown class 'B'.*classes are a, b"),
        ({"a": ["flat"], "b": []}, "class 'b' has no phrases"),
        ({"a": ["flat"], "b": ["red", "Red."]}, "class 'b' has 'Red' twice"),
        ({"a": ["flat"], "b": ["red", " . "]}, "class 'b' has an empty phrase"),
        ({"a": ["flat"], "b": ["red", 7]}, "class 'b': 7 is no phrase"),
        ({"a": ["flat"], "b": "red"}, "class 'b' should be a list of phrases"),
        ({"a": ["flat"], "b": {"words": ["red"]}}, "class 'b' should be a list of phrases"),
        ({"a": ["flat"], "b": {"phrases": ["red"], "provenance": 1}}, "'b': its provenance"),
        ({"a": ["flat"], " ": ["red"]}, "a class has an empty name"),
        ({"classes": {}}, "has no class under 'classes'"),
        ([], "should be an object of classes"),
        ("", "not JSON at line 1"),
        ('{"a": ["flat"],\n "b": ["red"\n', "not JSON at line 3"),
        ('{"a": ["flat"], "a": ["red"]}', "'a' stands there twice"),
    ],
)
def test_a_wrong_file_is_one_line_naming_it(tmp_path, content, message):
    """Every mistake names the file, the class and what to do."""
    path = write(tmp_path / "mine.json", content)

    with pytest.raises(InputError, match=message) as error:
        load_symptoms(path, ["a", "b"])
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_or_unreadable_file_is_one_line(tmp_path):
    """So is a file that is no text."""
    with pytest.raises(InputError, match="no such symptom file"):
        load_symptoms(tmp_path / "none.json", ["a"])
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\xff")
    with pytest.raises(InputError, match="cannot be read as a symptom file"):
        load_symptoms(tmp_path / "binary.json", ["a"])


def test_a_class_spelled_otherwise_is_named(tmp_path):
    """The likely mistake is a name in another case."""
    path = write(tmp_path / "s.json", {"Nevus": ["flat"]})

    with pytest.raises(InputError, match=r"class 'nevus' is missing \(it has 'Nevus'\)"):
        load_symptoms(path, ["nevus"], others=["Nevus"])


def test_saving_checks_first_and_keeps_what_else_is_said(tmp_path):
    """A refused save leaves the earlier file as it was."""
    path = tmp_path / "s.json"
    save_symptoms(path, {"a": ["flat."]}, {"a": "x"}, {"model": "m"}, {"a": {"edited": True}})
    before = path.read_bytes()

    with pytest.raises(InputError, match="class 'a' has no phrases"):
        save_symptoms(path, {"a": []})

    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    classes, meta = read_symptom_file(path)
    assert classes == {"a": {"edited": True, "phrases": ["flat"], "provenance": "x"}}
    assert meta == {"model": "m"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_file_is_sound(path):
    """Every class has phrases with provenance that fit CLIP's text and do not name a class."""
    import clip

    classes, _ = read_symptom_file(path)

    for entry in classes.values():
        assert 4 <= len(entry["phrases"]) <= 6
        assert entry["provenance"]
        for phrase in entry["phrases"]:
            assert not any(name in phrase.lower() for name in classes)
        # Room for four context tokens and the full stop.
        clip.tokenize([f"X X X X {phrase}." for phrase in entry["phrases"]])


def test_the_papers_phrases_are_verbatim():
    """Where the paper prints a class's symptoms, the file has them word for word."""
    derm7pt = load_symptoms(FOLDER / "derm7pt.json", ["melanoma", "nevus"])
    pneumonia = load_symptoms(FOLDER / "pneumonia.json", ["normal lung", "pneumonia"])

    assert derm7pt.phrases["nevus"] == PAPER_NEVUS
    assert pneumonia.phrases["pneumonia"] == [
        "presence of pleural effusion",
        "air bronchogram sign",
        "presence of cavitation",
        "presence of consolidation",
    ]
    for provenance in (derm7pt.provenance["melanoma"], pneumonia.provenance["normal lung"]):
        assert provenance.startswith("written for this project")


def test_knowledge_experiments_replace_nevus_alone():
    """Melanoma's symptoms stay, as in the paper's Fig. 5; the swapped control has both lists."""
    names = ["melanoma", "nevus"]
    base = load_symptoms(FOLDER / "derm7pt.json", names).phrases

    for name in KNOWLEDGE:
        phrases = load_symptoms(FOLDER / f"derm7pt_{name}.json", names).phrases
        assert phrases["melanoma"] == base["melanoma"]
        assert phrases["nevus"] != base["nevus"] and len(phrases["nevus"]) == 4
    swapped = load_symptoms(FOLDER / "derm7pt_swapped.json", names).phrases
    assert swapped == {"melanoma": base["nevus"], "nevus": base["melanoma"]}
    words = load_symptoms(FOLDER / "derm7pt_random_words.json", names).phrases
    assert {name: len(words[name]) for name in names} == {name: len(base[name]) for name in names}
