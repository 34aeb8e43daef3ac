"""Symptom files: what is read, what is refused, and what the shipped ones hold."""

import json
from pathlib import Path

import pytest

import dassl_compat  # noqa: F401  (lets clip be imported beside any torchvision)
import train
from core.errors import InputError
from core.files import fingerprint
from symptoms import SymptomFile, load_symptoms, read_symptom_file, save_symptoms

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
        (
            {"a": ["flat"], "B": ["red"]},
            "the class names differ: the dataset has 'b', the file has 'B'.*B=b",
        ),
        ({"a": ["flat"], "b": []}, "class 'b' has no phrases"),
        ({"a": ["flat"], "b": ["red", "Red."]}, "class 'b' has 'Red' twice"),
        ({"a": ["flat"], "b": ["red", " . "]}, "class 'b' has an empty phrase"),
        ({"a": ["flat"], "b": ["red", 7]}, "class 'b': 7 is not a phrase"),
        ({"a": ["flat"], "b": "red"}, "class 'b' is not a list of phrases"),
        ({"a": ["flat"], "b": {"words": ["red"]}}, "class 'b' is not a list of phrases"),
        ({"a": ["flat"], "b": {"phrases": ["red"], "provenance": 1}}, "'b': its provenance"),
        ({"a": ["flat"], " ": ["red"]}, "a class has an empty name"),
        ({"classes": {}}, "there is no class under 'classes'"),
        ([], "is not an object of classes"),
        ("", "cannot be read as JSON .line 1"),
        ('{"a": ["flat"],\n "b": ["red"\n', "cannot be read as JSON .line 3"),
        ('{"a": ["flat"], "a": ["red"]}', "the key 'a' is there twice"),
    ],
)
def test_a_wrong_file_is_one_line_naming_it(tmp_path, content, message):
    """Every mistake names the file, the class and what to do."""
    path = write(tmp_path / "mine.json", content)

    with pytest.raises(InputError, match=message) as error:
        load_symptoms(path, ["a", "b"])
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_or_unreadable_file_is_one_line(tmp_path):
    """So is a file that is not text."""
    with pytest.raises(InputError, match="there is no such file"):
        load_symptoms(tmp_path / "none.json", ["a"])
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\xff")
    with pytest.raises(InputError, match="cannot be read as UTF-8 text"):
        load_symptoms(tmp_path / "binary.json", ["a"])


HOSTILE = [
    ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
    ('{"a": ["\\ud800"]}', "half of a surrogate pair"),
    ('{"\\udc00": ["flat"]}', "half of a surrogate pair"),
    ('{"a": ["' + "x" * 1_000_000 + '"]}', "class 'a' has a phrase of more than 2,000 letters"),
    ('{"' + "x" * 1_000_000 + '": []}', "has no phrases"),
    ('{"a": NaN}', "the number 'NaN' is not finite"),
    ('{"a": [1e999]}', "the number '1e999' is not finite"),
    ('{"a": [' + "1" * 5000 + "]}", "cannot be read as JSON"),
    (b"\x89PNG\r\n\x1a\n\x00\xff", "cannot be read as UTF-8 text"),
    ('{"a": ["flat"]}'.encode("utf-16"), "cannot be read as UTF-8 text"),
    ('{"classes": {"a": ["flat"], "a": ["flat"]}}', "the key 'a' is there twice"),
    ('{"a": {"phrases": ["flat"], "phrases": ["red"]}}', "the key 'phrases' is there twice"),
]


@pytest.mark.parametrize(("content", "message"), HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_file_is_one_short_line(tmp_path, content, message):
    """Whatever the file holds, the error is one line of a length that a person reads."""
    path = tmp_path / "x.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(InputError, match=message) as error:
        load_symptoms(path, ["a"])
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 300


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path):
    """Windows' editors write one."""
    path = tmp_path / "x.json"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"a": ["flat"]}')

    assert load_symptoms(path, ["a"]).phrases == {"a": ["flat"]}


def test_exact_repeats_are_read_once_and_noted(tmp_path, caplog):
    """The note names the first and counts the rest; the fingerprint is that of one of each."""
    phrases = [f"sign {number}" for number in range(323)]
    path = write(tmp_path / "x.json", {"a": [*phrases, *phrases[1:]], "b": ["red"]})

    symptoms = load_symptoms(path, ["a", "b"])

    assert symptoms.phrases["a"] == phrases
    once = write(tmp_path / "y.json", {"a": phrases, "b": ["red"]})
    assert symptoms.fingerprint == load_symptoms(once, ["a", "b"]).fingerprint
    assert caplog.messages == [
        f"{path}: repeated phrases are read once: class 'a' has 'sign 1' twice (and 321 more)"
    ]


def test_repeats_in_another_case_are_named_at_once(tmp_path):
    """Which of the two is meant is a person's choice; the line counts all of them."""
    phrases = [f"sign {number}" for number in range(322)]
    path = write(tmp_path / "x.json", {"a": phrases + [text.upper() for text in phrases]})

    with pytest.raises(InputError, match=r"has 'SIGN 0' twice \(and 321 more\); keep one of each"):
        load_symptoms(path, ["a"])


@pytest.mark.parametrize(
    ("phrase", "better"),
    [
        ("1. **Round** shape", "Round shape"),
        ("- flat", "flat"),
        ("2) `red` spot", "red spot"),
        ("a [halo](https://example.org) around it", "a halo around it"),
        ("smooth [1]", "smooth"),
        ("a so-called 'veil'", None),
        ("10 mm wide", None),
        ("blue-white veil", None),
    ],
)
def test_list_marks_and_markdown_are_noted(tmp_path, caplog, phrase, better):
    """The phrase is kept, since its fingerprint names runs; the note says where and what."""
    path = write(tmp_path / "x.json", {"a": ["even", phrase]})

    assert load_symptoms(path, ["a"]).phrases["a"] == ["even", phrase]

    noted = f"class 'a' has {phrase!r}, better {better!r}"
    assert [noted in note for note in caplog.messages] == [True] * (better is not None)


def test_one_read_gives_all_that_a_run_needs(tmp_path):
    """The classes in the file, its fingerprint, and the symptoms of any choice of classes."""
    path = write(tmp_path / "x.json", {"a": ["flat"], "b": ["red"], "c": ["round"]})

    file = SymptomFile.read(path)
    path.unlink()

    assert list(file.classes) == ["a", "b", "c"]
    assert file.fingerprint == fingerprint({"a": ["flat"], "b": ["red"], "c": ["round"]})
    assert file.select(["c", "a"], others=["b"]).phrases == {"c": ["round"], "a": ["flat"]}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("derm7pt", "4c509120a6c8"),
        ("derm7pt_incorrect", "ea5bdad4bbe5"),
        ("derm7pt_out_of_domain", "e569455c5b9a"),
        ("derm7pt_random_words", "7585584f3da8"),
        ("derm7pt_swapped", "4e982b059bb1"),
        ("derm7pt_useless", "30e26a47036f"),
        ("pneumonia", "db05ccf5d5f0"),
        ("synthskin", "ed514113dfab"),
    ],
)
def test_fingerprints_of_shipped_files_stay(name, expected):
    """The folders of finished runs are named after them."""
    assert SymptomFile.read(FOLDER / f"{name}.json").fingerprint == expected


@pytest.mark.parametrize(
    ("in_file", "classnames", "hint"),
    [
        (["melanoma", "nevus"], ["melanoma", "benign nevus"], "nevus=benign nevus"),
        (["Nevus", "melanoma"], ["melanoma", "nevus"], "Nevus=nevus"),
        (["nv", "mel", "bcc"], ["basal cell", "other"], "nv=basal cell"),
    ],
)
def test_class_names_that_differ_are_named(tmp_path, in_file, classnames, hint):
    """The message names the mismatch on both sides and offers a mapping of the likeliest pair."""
    path = write(tmp_path / "x.json", {name: ["dark"] for name in in_file})

    with pytest.raises(InputError) as error:
        load_symptoms(path, classnames)

    message = str(error.value)
    missing = [name for name in classnames if name not in in_file]
    assert f"the class names differ: the dataset has {missing[0]!r}" in message
    assert f'eval.sh ... --classes "{hint}"' in message and "\n" not in message


def test_a_run_on_other_class_names_is_one_line(toy, toy_args, short):
    """Training says it before anything is built, and leaves nothing."""
    words = json.loads((toy / "symptoms.json").read_text())
    write(toy / "symptoms.json", {"crimson": words["red"], "blue": words["blue"]})

    with pytest.raises(InputError, match="the dataset has 'red', the file has 'crimson' instead"):
        train.main(["--trainer", "ViP", *toy_args, *short])
    assert not (toy / "run").exists()


def test_a_phrase_too_long_for_the_backbone_is_named(toy, toy_args, short):
    """File, class and the shortened phrase, before anything is trained."""
    path = write(toy / "symptoms.json", {"red": ["warm"], "blue": ["cold " * 200]})

    with pytest.raises(InputError) as error:
        train.main(["--trainer", "ViP", *toy_args, *short])

    message = str(error.value)
    assert message.startswith(f"{path}: class 'blue': the phrase 'cold cold")
    assert "has 200 tokens" in message and len(message) < len(str(path)) + 250


def test_a_class_spelled_otherwise_is_named(tmp_path):
    """The likely mistake is a name in another case."""
    path = write(tmp_path / "s.json", {"Nevus": ["flat"]})

    with pytest.raises(InputError, match=r"class 'nevus' is missing \(the file has 'Nevus'\)"):
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

    # Of several findings an image, each sign tells a finding from its absence: one may be enough.
    least = 1 if "no finding" in classes else 4
    for entry in classes.values():
        assert least <= len(entry["phrases"]) <= 6
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
