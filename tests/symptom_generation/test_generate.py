"""The whole way through the real openai package, against a real server on the loopback."""

import base64
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from core.errors import InputError
from core.files import fingerprint
from symptom_generator.generate import main
from symptom_generator.pipeline import IMAGES_PROMPT, TEXT_PROMPT
from symptoms import load_symptoms, read_symptom_file

from . import server as fault
from .conftest import ANSWERS, KEY
from .server import has_images, question_of

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["melanoma", "nevus"]


@pytest.fixture
def generate(server, images, tmp_path):
    """Run the generator on the two classes; returns the symptom file's path."""

    def run(*options, upload=True, images=images, classes="melanoma,nevus"):
        output = tmp_path / "symptoms" / "skin.json"
        argv = ["--classes", classes, "--modality", "dermoscopic images", "--output", str(output)]
        argv += ["--page", str(tmp_path / "page"), "--model", "tester"]
        argv += ["--images", str(images)] if images else []
        argv += ["--upload-images"] if upload else []
        assert main([*argv, "--retries", "2", "--timeout", "5", *options]) == 0
        return output

    return run


def lines_of(output):
    path = output.with_suffix(".transcript.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_keeps_what_words_and_pictures_agree_on(generate, server):
    """Features that too few image answers report, or that name the class, are dropped."""
    output = generate()

    symptoms = load_symptoms(output, CLASSES)
    assert symptoms.phrases == {
        "melanoma": [
            "Ragged borders: The edges are ragged, notched or blurred",
            "Several colors: Shades of brown, black, red and blue in one spot",
        ],
        "nevus": [
            "The spot is symmetric on both sides",
            "The edges are clear and well-defined",
            "The color is consistent, a single brown or tan",
        ],
    }
    features = read_symptom_file(output)[0]["melanoma"]["generated"]["features"]
    assert [feature["dropped"] for feature in features] == [
        "reported by 1 of 3 image answers",
        None,
        None,
        "reported by 0 of 3 image answers",
        "names 'melanoma'",
    ]
    assert len(server.requests) == 2 * (1 + 3 + 1)


def test_asks_with_the_papers_prompts(generate, server):
    """Stage 1 is text alone; stage 2 shows 16 pictures in one sheet without metadata or names."""
    generate()

    bodies = [body for _, body in server.requests]
    assert question_of(bodies[0]) == TEXT_PROMPT.format(
        category="melanoma", modality="dermoscopic images"
    )
    assert not has_images(bodies[0])
    assert question_of(bodies[1]) == (
        "Please provide visual features regarding color, shape, and texture of this melanoma "
        "image, which contains 16 sub-images."
    )
    sheets = [
        base64.b64decode(url_of(body).partition(",")[2]) for body in bodies if has_images(body)
    ]
    assert len(sheets) == 6
    for sheet in sheets:
        picture = Image.open(io.BytesIO(sheet))
        assert picture.size == (916, 916)
        assert not picture.getexif()
        assert b"Jane" not in sheet and len(sheet) <= 1 << 20
    assert "Jane" not in json.dumps(bodies)


def url_of(body):
    return body["messages"][0]["content"][1]["image_url"]["url"]


def test_provenance_says_where_each_class_comes_from(generate, images):
    """Model, date, prompts, settings and the pictures' fingerprints, but no picture's name."""
    output = generate()

    classes, meta = read_symptom_file(output)
    generated = classes["melanoma"]["generated"]
    assert generated["by"] == ["tester-2024"]
    assert generated["date"] == lines_of(output)[-1]["time"][:10]
    assert generated["prompts"]["pictures"] == [IMAGES_PROMPT.format(category="melanoma", count=16)]
    known = {fingerprint(path.read_bytes()) for path in (images / "melanoma").iterdir()}
    assert [len(set(sheet.split()) & known) for sheet in generated["pictures"]] == [16, 16, 16]
    assert {"model", "host", "modality", "support", "match", "avoid", "seed"} <= set(
        meta["generation"]
    )
    text = output.read_text() + output.with_suffix(".transcript.jsonl").read_text()
    assert "jane" not in text.lower() and "base64" not in text
    assert "3 sheets of 16 training images" in classes["melanoma"]["provenance"]


def test_nothing_is_sent_without_leave(generate, server, tmp_path):
    """Without --upload-images one line says what would be sent and where; nothing is."""
    with pytest.raises(InputError) as error:
        generate(upload=False)

    assert str(error.value) == (
        f"stage 2 would send 6 sheets with 40 training images to {server.url[7:-3]}; give "
        "--upload-images to allow it, or --no-images to stop after stage 1; nothing has been sent"
    )
    assert server.requests == []
    assert not (tmp_path / "symptoms").exists()


def test_no_images_stops_after_the_text(generate, server):
    """--no-images asks one question a class and says so in the provenance."""
    output = generate("--no-images", upload=False)

    assert len(server.requests) == 2
    assert not any(has_images(body) for _, body in server.requests)
    classes, _ = read_symptom_file(output)
    assert "text question alone (--no-images)" in classes["nevus"]["provenance"]
    assert len(classes["melanoma"]["phrases"]) == 4


def test_classes_without_pictures_are_described_in_words(generate, server, capsys):
    """Without a dataset and --images, stage 2 is left out with a clear line."""
    generate(upload=False, images=None)

    assert "stage 2 is left out: no images were given" in capsys.readouterr().err
    assert len(server.requests) == 2


def test_dry_run_sends_nothing(generate, server, capsys, tmp_path):
    """--dry-run prints every prompt and the number of requests."""
    generate("--dry-run", upload=False)

    printed = capsys.readouterr().out
    assert TEXT_PROMPT.format(category="nevus", modality="dermoscopic images") in printed
    assert IMAGES_PROMPT.format(category="nevus", count=16) in printed
    assert "10 requests to tester" in printed and "2 in text, 6 with one sheet each, 2" in printed
    assert server.requests == []
    assert not (tmp_path / "symptoms").exists()


@pytest.mark.parametrize("offline", [False, True], ids=["sheets at hand", "elsewhere"])
def test_replay_gives_the_same_bytes(generate, server, tmp_path, monkeypatch, offline):
    """A transcript rebuilds its file without the endpoint, the key or the pictures."""
    server.faults.extend([fault.status(429, headers=[("Retry-After", "0.01")]), fault.says("")])
    output = generate("--avoid", "mole")
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.delenv("OPENAI_API_KEY")
    before, asked = lines_of(output), len(server.requests)
    rebuilt = tmp_path / "elsewhere" / "rebuilt.json"
    page = tmp_path / ("none" if offline else "page")

    transcript = output.with_suffix(".transcript.jsonl")
    main(["--replay", str(transcript), "--output", str(rebuilt), "--page", str(page)])

    assert rebuilt.read_bytes() == output.read_bytes()
    assert lines_of(output) == before and len(server.requests) == asked
    assert ("data:image/jpeg" in (page / "page.html").read_text()) is not offline


def test_replay_of_half_a_transcript_says_what_is_missing(generate, server, tmp_path):
    """A transcript that ends early names the first class and stage it lacks."""
    output = generate()
    transcript = output.with_suffix(".transcript.jsonl")
    cut = tmp_path / "cut.transcript.jsonl"
    cut.write_text("".join(transcript.read_text().splitlines(keepends=True)[:4]))

    with pytest.raises(InputError, match="has no answer for melanoma, stage 2, images 3"):
        main(["--replay", str(cut), "--page", str(tmp_path / "page")])


def test_goes_on_where_it_stopped(generate, server, monkeypatch):
    """What was answered before an interruption is not asked again."""
    server.faults.extend([lambda *_: None] * 3 + [fault.status(401, "no such key")])
    with pytest.raises(InputError, match="401: no such key"):
        generate()
    assert len(server.requests) == 4

    output = generate()

    assert len(server.requests) == 4 + 7
    assert len(load_symptoms(output, CLASSES).phrases) == 2
    # Nor is anything asked, or any leave needed, once all is answered.
    before = output.read_bytes()
    generate(upload=False)
    assert len(server.requests) == 11 and output.read_bytes() == before


@pytest.mark.parametrize("lost, asked_again", [(30, 1), (1, 0)], ids=["half a line", "its end"])
def test_a_cut_line_is_asked_again(generate, server, lost, asked_again):
    """A run that was killed while writing a line leaves a transcript to go on from."""
    output = generate()
    path = output.with_suffix(".transcript.jsonl")
    path.write_bytes(path.read_bytes()[:-lost])
    asked = len(server.requests)

    generate("--max", "3")

    assert len(server.requests) == asked + asked_again
    lines = [line["record"] for line in lines_of(output)]
    assert lines.count("exchange") == 10 and lines.count("settings") == 2
    assert load_symptoms(output, CLASSES).phrases["nevus"]


def test_another_choice_asks_nothing(generate, server):
    """--support, --max and the like work on the answers that are there."""
    generate()
    asked = len(server.requests)

    output = generate("--support", "1", "--max", "2")

    assert len(server.requests) == asked
    phrases = load_symptoms(output, CLASSES).phrases
    assert [len(listed) for listed in phrases.values()] == [2, 2]


def test_fresh_asks_anew_and_keeps_the_transcript(generate, server, tmp_path):
    """--fresh starts over; the old transcript stays under another name."""
    output = generate()
    old = output.with_suffix(".transcript.jsonl").read_bytes()

    generate("--fresh")

    assert len(server.requests) == 20
    assert [path.read_bytes() for path in output.parent.glob("*.transcript.jsonl.*.bak")] == [old]


def test_fresh_without_leave_loses_nothing(generate, server, capsys):
    """A refusal leaves the transcript in its place; a dry run counts as if there were none."""
    output = generate()
    transcript = output.with_suffix(".transcript.jsonl")
    old = transcript.read_bytes()

    with pytest.raises(InputError, match="stage 2 would send 6 sheets"):
        generate("--fresh", upload=False)
    assert "10 requests" not in capsys.readouterr().out
    generate("--fresh", "--dry-run")

    assert "10 requests to tester" in capsys.readouterr().out
    assert transcript.read_bytes() == old and not list(output.parent.glob("*.bak"))
    assert len(server.requests) == 10


def test_the_previous_file_is_kept_and_differences_shown(generate, server, capsys):
    """A changed phrase shows as a difference; the file before lies beside the new one."""
    output = generate()
    edited = json.loads(output.read_text())
    edited["classes"]["nevus"]["phrases"][0] = "The spot is round"
    output.write_text(json.dumps(edited))
    by_hand = output.read_bytes()
    capsys.readouterr()

    generate()

    printed = capsys.readouterr().out
    assert "-The spot is round" in printed and "+The spot is symmetric on both sides" in printed
    assert "edited by hand" in printed
    assert [path.read_bytes() for path in output.parent.glob("*.json.*.bak")] == [by_hand]


@pytest.mark.parametrize("answer, replaced", [("y", True), ("", False), ("n", False)])
def test_a_terminal_is_asked_first(generate, monkeypatch, answer, replaced):
    """At a terminal the file is replaced only after a yes."""
    output = generate()
    output.write_text('{"melanoma": ["a"], "nevus": ["b"]}')
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: answer)

    generate()

    assert (load_symptoms(output, CLASSES).phrases["nevus"] != ["b"]) is replaced


def test_edits_by_hand_are_recorded(generate):
    """The provenance of a class whose phrases were changed says so, wherever it is read."""
    output = generate()
    edited = json.loads(output.read_text())
    edited["classes"]["nevus"]["phrases"].append("Hair grows on it")
    output.write_text(json.dumps(edited))

    provenance = load_symptoms(output, CLASSES).provenance
    assert provenance["nevus"].endswith("edited by hand since")
    assert not provenance["melanoma"].endswith("edited by hand since")


def test_too_few_pictures_make_smaller_sheets(generate, server, images):
    """A class of five pictures shows five; the prompt says five."""
    for path in sorted((images / "nevus").iterdir())[5:]:
        path.unlink()

    generate()

    shown = [b for _, b in server.requests if has_images(b) and "nevus" in question_of(b)]
    assert all("contains 5 sub-images" in question_of(body) for body in shown)
    assert len(shown) == 3


def test_the_key_is_in_no_file_or_output(server, images, tmp_path, capfd, caplog):
    """Neither an endpoint that repeats the key nor the package's debug log gives it away."""
    server.faults.extend(
        [
            fault.says(f"- Ragged edges, {KEY}\n- Bearer {KEY}"),
            fault.error_in_the_middle,
            fault.status(401, f"Incorrect API key provided: {KEY}", code="invalid_api_key"),
        ]
    )
    options = ["--classes", "melanoma,nevus", "--modality", "pictures", "--images", str(images)]
    options += ["--upload-images", "--output", str(tmp_path / "out" / "x.json")]
    options += ["--page", str(tmp_path / "out")]
    command = [sys.executable, "-m", "symptoms.generate", *options]
    env = {**os.environ, "OPENAI_LOG": "debug"}

    first = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "openai")
    main(options)

    assert first.returncode == 2
    # The package's debug log may hold a traceback; the end is ours.
    assert first.stderr.splitlines()[-1].startswith("error: ")
    assert "401: Incorrect API key provided: [key]; check OPENAI_API_KEY" in first.stderr
    assert all(KEY in headers["authorization"] for headers, _ in server.requests)
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) == 9  # file, transcript, page, six sheets
    assert "[key]" in (tmp_path / "out" / "x.json").read_text()
    said = [first.stdout, first.stderr, *capfd.readouterr(), caplog.text]
    assert "asking gpt-4o" in said[3] and "Sending HTTP Request" in said[4]
    for data in [*(path.read_bytes() for path in written), *map(str.encode, said)]:
        assert KEY.encode() not in data


def test_a_key_at_the_end_of_a_cut_message_is_hidden(generate, server):
    """A long error is shortened after the key was taken out, so no half of it is shown."""
    server.faults.append(fault.status(418, "x" * 190 + KEY + " is wrong"))

    with pytest.raises(InputError) as error:
        generate()

    assert "x" * 190 in str(error.value) and KEY[:7] not in str(error.value)


def test_a_model_named_like_the_key_is_hidden(generate, server):
    """The model's name comes from the endpoint and goes into the file and the transcript."""
    output = generate("--model", KEY)

    assert read_symptom_file(output)[0]["nevus"]["generated"]["by"] == ["[key]-2024"]
    assert all(line["answered_by"] == "[key]-2024" for line in lines_of(output)[1:])


@pytest.mark.parametrize(
    "options, message",
    [
        (["--modality", "x"], "give --dataset, or --classes"),
        (["--classes", "a"], "give --modality"),
        (["--classes", "a,a", "--modality", "x"], "name each class once"),
        (["--classes", "a", "--modality", "x", "--support", "4"], "give 1 to --montages, 3"),
        (["--classes", "a", "--modality", "x", "--images", "none"], "contains no images"),
        (["--classes", "a", "--modality", "x", "--timeout", "nan"], "--timeout a number"),
        (["--classes", "a", "--modality", "x", "--temperature", "inf"], "--temperature is inf"),
        (["--replay", "none.jsonl"], "no such transcript"),
    ],
)
def test_wrong_options_are_named(options, message, server):
    """What is wrong with a command is one line, before anything is sent."""
    with pytest.raises(InputError, match=message):
        main(options)
    assert server.requests == []


def test_the_page_shows_pictures_beside_answers(generate, server, tmp_path):
    """The page needs no network and runs nothing, even if an answer holds markup."""
    server.answers["nevus"] = {
        **ANSWERS["nevus"],
        "pictures": ["<script>alert(1)</script> clear, well-defined symmetric edges"] * 3,
    }
    generate()

    page = (tmp_path / "page" / "page.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 6
    assert "default-src 'none'" in page and "prefers-color-scheme: dark" in page
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "http://" not in page.replace(server.url, "") and "https://" not in page
    assert len(list((tmp_path / "page").glob("*.jpg"))) == 6


@pytest.mark.parametrize("extra", [[], ["--upload-images"], ["--dry-run"]], ids=" ".join)
def test_more_sheets_than_images_are_refused(server, images, tmp_path, extra):
    """A number far beyond the images is named before any sheet is drawn."""
    argv = ["--classes", "nevus", "--modality", "x", "--images", str(images), *extra]
    argv += ["--output", str(tmp_path / "x.json"), "--page", str(tmp_path / "page")]

    with pytest.raises(InputError, match="class 'nevus' has 20 training images: give at most 20"):
        main([*argv, "--montages", "1000000000"])
    assert server.requests == [] and not (tmp_path / "page").exists()


@pytest.mark.parametrize("option", ["--output", "--page"])
@pytest.mark.parametrize("replayed", [False, True], ids=["asked", "replayed"])
def test_a_place_that_cannot_be_written_is_named_first(
    generate, server, tmp_path, option, replayed
):
    """Before anything is asked, and nothing is left behind."""
    transcript = generate().with_suffix(".transcript.jsonl")
    (tmp_path / "file").write_text("kept")
    argv = ["--classes", "nevus", "--modality", "x", "--no-images"]
    argv = ["--replay", str(transcript)] if replayed else argv
    asked, place = len(server.requests), tmp_path / "file" / "below" / "x.json"

    with pytest.raises(InputError, match=f"{place}.*: cannot be written, since .*file is not a"):
        main([*argv, option, str(place)])
    if option == "--output":
        with pytest.raises(InputError, match=f"{tmp_path}: is a folder; give the path of a file"):
            main([*argv, option, str(tmp_path)])
    assert len(server.requests) == asked and (tmp_path / "file").read_text() == "kept"


def test_a_read_only_place_is_named_first(generate, server, tmp_path, monkeypatch):
    """A mount without leave to write, as the operating system tells."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    with pytest.raises(InputError, match=r"skin.json: cannot be written; .* is read-only"):
        generate()
    assert server.requests == [] and not (tmp_path / "symptoms").exists()
