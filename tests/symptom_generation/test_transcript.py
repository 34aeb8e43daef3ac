"""Transcripts that a person or an accident changed: each is one line, and nothing is lost."""

import json

import pytest

from core.errors import InputError
from symptom_generator.generate import main

BRACKETS = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def transcript(server, images, tmp_path):
    """The lines of a whole generation of one class, as dictionaries; matched by the model."""
    output = tmp_path / "made" / "nevus.json"
    argv = ["--classes", "nevus", "--modality", "images", "--images", str(images)]
    main([*argv, "--upload-images", "--output", str(output), "--page", str(tmp_path / "page")])
    path = output.with_suffix(".transcript.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def replay(tmp_path, lines):
    """Rebuild from ``lines``: dictionaries, texts or bytes."""
    data = []
    for line in lines:
        text = json.dumps(line) if isinstance(line, dict) else line
        data.append(text if isinstance(text, bytes) else text.encode())
    path = tmp_path / "x.transcript.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in data))
    main(["--replay", str(path), "--page", str(tmp_path / "replayed")])
    return tmp_path / "x.json"


def test_an_unchanged_transcript_is_rebuilt(transcript, tmp_path):
    """The baseline of the cases below."""
    assert replay(tmp_path, transcript).read_bytes() == (tmp_path / "made/nevus.json").read_bytes()


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        "",
        "7",
        "null",
        "[]",
        "{}",
        '{"record": 7}',
        '{"record": "unknown"}',
        '{"record": "settings"}',
        BRACKETS,
        '{"record": ' + BRACKETS + "}",
        '{"record": "no pictures", "key": "a", "why": "\\ud800"}',
        '{"record": "no pictures", "key": "a", "why": NaN}',
        b"\x89PNG\r\x00\xff",
        b"\xff\xfe{",
    ],
    ids=range(15),
)
def test_a_line_that_is_none_is_named(transcript, tmp_path, line):
    """The message has the file and the line's number, whatever the line holds."""
    with pytest.raises(InputError) as error:
        replay(tmp_path, [*transcript[:2], line, *transcript[2:]])

    assert "x.transcript.jsonl: line 3 is not a line of a transcript" in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < len(str(tmp_path)) + 300
    assert not (tmp_path / "x.json").exists()


VALUES = [None, 7, "x", [], {}, True]


@pytest.mark.parametrize("value", [*VALUES, "missing"], ids=repr)
def test_every_value_of_a_wrong_type_is_refused_or_harmless(transcript, tmp_path, value):
    """Each entry of each kind of line, replaced by each kind of value: a file or an InputError."""
    refused = rebuilt = 0
    for number in (0, 1, 2, len(transcript) - 1):
        for key in transcript[number]:
            changed = dict(transcript[number])
            if value == "missing":
                del changed[key]
            else:
                changed[key] = value
            lines = [*transcript]
            lines[number] = changed
            try:
                assert replay(tmp_path, lines).exists()
                rebuilt += 1
            except InputError as error:
                assert "\n" not in str(error)
                refused += 1
    assert refused > 20 and rebuilt


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": []}, "classes: List should have at least 1 item"),
        ({"classes": ["nevus", "mole"]}, "'pictures' lacks the class 'mole'"),
        ({"support": 0}, "support: Input should be greater than or equal to 1"),
        ({"match": "guess"}, "match: Input should be 'llm' or 'clip'"),
        ({"format": 2}, "format: Input should be 1"),
        ({"pictures": {"nevus": [[]]}}, "pictures.nevus.0: List should have at least 1 item"),
    ],
)
def test_settings_that_cannot_be_are_named(transcript, tmp_path, change, message):
    """The line says which setting and what it should be."""
    with pytest.raises(InputError, match=f"line 1 is not a line of a transcript .*{message}"):
        replay(tmp_path, [{**transcript[0], **change}, *transcript[1:]])


@pytest.mark.parametrize(
    "prompt",
    ["{category:1000000000}", "{category.__class__}", "{0}", "{unknown}", "{", "{category!r}"],
)
def test_a_prompt_has_plain_fields_only(transcript, tmp_path, prompt):
    """A format in a prompt could ask for any memory or attribute."""
    prompts = {**transcript[0]["prompts"], "text": prompt}

    with pytest.raises(InputError, match="line 1 is not a line of a transcript"):
        replay(tmp_path, [{**transcript[0], "prompts": prompts}, *transcript[1:]])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is not a transcript"), (b"\x00\xff", "line 1 is not"), (b"7", "line 1 is not")],
)
def test_a_file_that_is_no_transcript_is_left_as_it_is(tmp_path, server, content, message):
    """Neither a replay nor a generation cuts or overwrites it."""
    path = tmp_path / "nevus.transcript.jsonl"
    path.write_bytes(content)

    with pytest.raises(InputError, match=message):
        main(["--replay", str(path), "--page", str(tmp_path / "page")])
    if content:
        argv = ["--classes", "nevus", "--modality", "x", "--output", str(tmp_path / "nevus.json")]
        with pytest.raises(InputError, match=message):
            main(argv)
    assert path.read_bytes() == content and server.requests == []
