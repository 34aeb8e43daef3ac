"""What an endpoint can do wrong, and what the user then sees."""

import json

import pytest

from core.errors import InputError
from symptom_generator.generate import main
from symptoms import load_symptoms, read_symptom_file

from . import server as fault
from .server import has_images

REFUSAL = "I'm sorry, but I can't help with identifying medical conditions."


@pytest.fixture
def ask(server, images, tmp_path):
    """Generate one class; returns the symptom file's path."""

    def run(*options, images=images, timeout="5"):
        output = tmp_path / "nevus.json"
        argv = ["--classes", "nevus", "--modality", "pictures", "--output", str(output)]
        argv += ["--images", str(images), "--upload-images", "--page", str(tmp_path / "page")]
        main([*argv, "--retries", "2", "--timeout", timeout, *options])
        return output

    return run


@pytest.mark.parametrize(
    "trouble",
    [
        fault.status(429, headers=[("Retry-After", "0.2")]),
        fault.status(500, headers=[("Retry-After", "0.05")]),
        fault.cut,
    ],
    ids=["rate limit", "error 500", "cut connection"],
)
def test_the_package_tries_again(ask, server, capsys, trouble):
    """A busy or broken endpoint is tried again, and the user sees it."""
    server.faults.append(trouble)

    output = ask()

    assert load_symptoms(output, ["nevus"]).phrases["nevus"]
    assert len(server.requests) == 6
    assert "trying again in" in capsys.readouterr().err


@pytest.mark.parametrize(
    "trouble, message",
    [
        (
            fault.status(429, "slow down", headers=[("Retry-After", "0.01")]),
            r"answers 429: slow down \(after 2 retries\); run the same command later",
        ),
        (fault.status(500, headers=[("Retry-After", "0.01")]), "answers 500"),
        (fault.cut, "cannot reach 127.0.0.1"),
        (fault.status(401, "wrong key"), "answers 401: wrong key; check OPENAI_API_KEY"),
        (fault.status(404, "no model"), "answers 404: no model; check --model 'gpt-4o'"),
        (fault.status(418, "a teapot"), "answers 418: a teapot"),
        (
            fault.status(307, headers=[("Location", "http://evil.example/v1")]),
            "redirects to evil.example; redirects are not followed",
        ),
    ],
    ids=["429", "500", "cut", "401", "404", "418", "307"],
)
def test_trouble_that_stays_is_one_line(ask, server, trouble, message):
    """After bounded retries one line names class, stage and what to do."""
    server.faults.extend([trouble] * 3)

    with pytest.raises(InputError, match=f"^nevus, stage 1, text: .*{message}"):
        ask()
    assert len(server.requests) <= 3


def test_a_slow_endpoint_times_out(ask, server):
    """Silence counts as lost after --timeout, tried again a bounded number of times."""
    server.faults.extend([fault.silent(3)] * 2)

    with pytest.raises(InputError, match="did not answer within 0.2 s, 1 retries; raise --timeout"):
        ask("--retries", "1", timeout="0.2")
    assert len(server.requests) == 2


def test_an_endpoint_that_is_not_there(ask, monkeypatch):
    """Nobody at the address: one line that names it."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")

    with pytest.raises(InputError, match="cannot reach 127.0.0.1:9"):
        ask("--retries", "0")


USELESS = [
    (fault.says(""), "the answer is empty"),
    (fault.says(REFUSAL), "the model refuses to answer"),
    (fault.says(None, refusal="I will not"), "the model refuses to answer"),
    (fault.says("- half", finish="content_filter"), "the model refuses to answer"),
    (fault.says("- a spot\n- a sp", finish="length"), "cut off at the endpoint's length limit"),
    (fault.says("A spot is usually round."), "the answer is not a list of features"),
    (fault.says("- A nevus is round\n- Nevus color"), "the first names 'nevus'"),
    (fault.web_page, "the endpoint's answer is not a chat completion"),
    (fault.status(400, "no", code="content_filter"), "the endpoint's filter refuses the request"),
    (fault.content(7), "the endpoint's answer is not a chat completion"),
    (fault.content([7]), "the endpoint's answer is not a chat completion"),
    (fault.content([{"type": "text", "text": {}}]), "the endpoint's answer is not a chat"),
    (fault.content({"text": "- a spot"}), "the endpoint's answer is not a chat completion"),
    (fault.content([]), "the answer is empty"),
]
BROKEN = [
    (fault.cut_in_the_middle, "the answer broke off"),
    (fault.cut_short, "the answer broke off"),
    (fault.error_in_the_middle, r"the answer broke off \(overloaded\)"),
    (fault.garbage_in_the_middle, "the answer broke off"),
    (fault.events('{"choices": [7]}'), "the endpoint's answer is not a chat completion"),
    (fault.events('{"choices": 7}'), "the endpoint's answer is not a chat completion"),
    (fault.events("[1]"), "the answer is empty"),
    (fault.events('{"model": {}, "choices": []}'), "the endpoint's answer is not a chat"),
]
CASES = [(["--no-stream"], *case) for case in USELESS]
CASES += [([], *case) for case in USELESS + BROKEN]


@pytest.mark.parametrize("options, trouble, why", CASES)
def test_a_useless_answer_is_asked_again_twice(ask, server, options, trouble, why, capsys):
    """Two useless answers do no harm; a third is one line naming class and stage."""
    # A page in place of a stream is asked for again as a whole answer.
    each = 2 if trouble is fault.web_page and not options else 1
    server.faults.extend([trouble] * 2 * each)
    output = ask(*options)
    assert load_symptoms(output, ["nevus"]).phrases["nevus"]
    assert capsys.readouterr().err.count("asking again") == 2

    server.faults.extend([trouble] * 3 * each)
    with pytest.raises(InputError, match=rf"^nevus, stage 1, text: .*{why}.*\(asked 3 times\)"):
        ask("--fresh", *options)
    assert not server.faults


def test_a_wrong_form_is_explained(ask, server):
    """A proper answer in the wrong form goes back with what is wrong; a refusal does not."""
    server.faults.extend([fault.says("No bullets here."), fault.says(REFUSAL)])

    ask()

    second, third = server.requests[1][1]["messages"], server.requests[2][1]["messages"]
    assert [message["role"] for message in second] == ["user", "assistant", "user"]
    assert "not a list of features" in second[2]["content"]
    assert third == second


@pytest.mark.parametrize(
    "answer, why",
    [
        ("It is all in there.", "not the JSON that was asked for"),
        ('{"features": 3}', 'no list "features"'),
        ('{"features": ' + "[" * 100_000 + "]" * 100_000 + "}", "not the JSON that was asked for"),
        ('{"features": "\\ud800"}', "not the JSON that was asked for"),
        ('{"features": []}', "leaves out feature 1"),
        ('{"features": [{"number": 9, "supported_by": []}]}', "numbers are not 1 to 3"),
        (
            json.dumps({"features": [{"number": 1, "supported_by": [{"description": 7}]}]}),
            "a description is not one of 1 to 3",
        ),
    ],
)
def test_a_malformed_matching_is_one_line(ask, server, answer, why):
    """JSON that does not fit is asked again, then named with class and stage."""
    server.faults.extend([lambda *_: None] * 4 + [fault.says(answer)] * 3)

    with pytest.raises(InputError, match=f"^nevus, refining: .*{why}"):
        ask()


def test_an_endpoint_without_json_schemas(ask, server, capsys):
    """The same question goes out without the schema; the user is told once."""
    server.no_schemas = True
    server.answers["nevus"]["match"] = None
    server.faults.extend([lambda *_: None] * 4)

    output = ask()

    said = capsys.readouterr().err
    assert said.count("accepts no JSON schema") == 1
    assert [line for line in output.with_suffix(".transcript.jsonl").open()][-1].count(
        '"outcome": "accepted"'
    )


def test_json_in_a_fence_is_read(ask, server):
    """Models wrap JSON in Markdown and words."""
    listed = [
        {"number": n, "supported_by": [{"description": 1, "words": "Symmetric ... clear"}]}
        for n in (1, 2, 3)
    ]
    text = f"Sure:\n```json\n{json.dumps({'features': listed})}\n```\nAnything else?"
    server.faults.extend([lambda *_: None] * 4 + [fault.says(text)])

    output = ask("--support", "1")

    assert len(load_symptoms(output, ["nevus"]).phrases["nevus"]) == 3


def test_quotations_that_nobody_said_do_not_count(ask, server, capsys):
    """Support counts only with words that stand in the picture answer."""
    listed = [
        {"number": n, "supported_by": [{"description": d, "words": words} for d in (1, 2, 3)]}
        for n, words in [(1, "symmetric ROUND spots"), (2, "invented words"), (3, "")]
    ]
    server.answers["nevus"]["match"] = {"features": listed}

    output = ask()

    assert load_symptoms(output, ["nevus"]).phrases["nevus"] == [
        "The spot is symmetric on both sides"
    ]
    assert "do not count: 6" in capsys.readouterr().err


def test_no_agreement_is_one_line(ask, server):
    """A class that keeps no feature is named, with what to do."""
    server.answers["nevus"]["pictures"] = ["Nothing of the kind."]

    with pytest.raises(InputError, match="^nevus, refining: .*none of its 3 features.*--support"):
        ask()


@pytest.mark.parametrize("code", [400, 500])
def test_an_endpoint_without_pictures(ask, server, capsys, code):
    """It goes on with the text alone, says so once, and the provenance keeps it."""

    def refuse(handler, body):
        if has_images(body):
            return handler.error(code, "image input is not supported", [("Retry-After", "0.01")])

    server.faults.extend([refuse] * 10)
    output = ask()

    assert capsys.readouterr().err.count("continuing without images") == 1
    provenance = read_symptom_file(output)[0]["nevus"]["provenance"]
    assert "the endpoint accepts no images" in provenance
    asked, before = len(server.requests), output.read_bytes()
    ask()
    assert len(server.requests) == asked
    output.unlink()
    main(["--replay", str(output.with_suffix(".transcript.jsonl")), "--page", str(output) + ".d"])
    assert output.read_bytes() == before


@pytest.mark.parametrize("refuses", [True, False], ids=["refuses", "ignores"])
def test_an_endpoint_that_cannot_stream(ask, server, capsys, refuses):
    """Whole answers are asked for instead; the user is told once."""
    server.no_streams = refuses
    if not refuses:
        server.faults.extend([fault.whole])

    ask()

    assert capsys.readouterr().err.count("does not stream") == 1
    assert not server.requests[-1][1].get("stream")


@pytest.mark.parametrize("options", [[], ["--no-stream"]], ids=["streamed", "whole"])
def test_an_answer_in_parts_is_read(ask, server, options):
    """Some servers give a list of parts in the place of a text."""
    parts = [{"type": "text", "text": "- The spot is symmetric"}, {"type": "text", "text": "\n- x"}]
    server.faults.append(fault.content(parts))

    output = ask(*options)

    assert load_symptoms(output, ["nevus"]).phrases["nevus"][0] == "The spot is symmetric"


@pytest.mark.parametrize(
    ("events", "asked"), [(("null", None), 5), ((None, "null"), 5), (("null", "null"), 6)]
)
def test_empty_events_of_a_stream_say_nothing(ask, server, events, asked):
    """``data: null`` is passed over; a stream of nothing else is asked for as a whole answer."""
    server.faults.append(fault.events(*events))

    assert load_symptoms(ask(), ["nevus"]).phrases["nevus"]
    assert len(server.requests) == asked


def test_half_a_surrogate_pair_in_an_answer_can_be_kept(ask, server):
    """It cannot be written as UTF-8, so it becomes a question mark in every file."""
    server.faults.append(fault.says("- The spot is \ud800 symmetric\n- clear edges"))

    output = ask()

    assert load_symptoms(output, ["nevus"]).phrases["nevus"][0] == "The spot is ? symmetric"


def test_thinking_aloud_is_left_out(ask, server):
    """Local reasoning models put their thoughts in front of the answer."""
    server.faults.append(
        fault.says("<think>\n- nevus is a mole\n</think>\n- The spot is symmetric\n- clear edges")
    )

    output = ask()

    assert load_symptoms(output, ["nevus"]).phrases["nevus"][0] == "The spot is symmetric"


@pytest.mark.parametrize(
    "variable, value, message",
    [
        ("OPENAI_API_KEY", "sk-abc\ndef", "OPENAI_API_KEY contains a space or a character"),
        ("OPENAI_BASE_URL", "localhost:8000", "OPENAI_BASE_URL is not an http"),
        ("OPENAI_BASE_URL", "ftp://abc", "OPENAI_BASE_URL is not an http"),
        ("OPENAI_BASE_URL", "http://", "OPENAI_BASE_URL is not an http"),
        ("OPENAI_BASE_URL", "http://[::1", "an impossible host or port"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:99999999/v1", "an impossible host or port"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:http/v1", "an impossible host or port"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:-1/v1", "an impossible host or port"),
        ("OPENAI_BASE_URL", "http://a..b/v1", "an impossible host or port"),
        ("OPENAI_BASE_URL", "http://u:abc@127.0.0.1\n:80/v1", "contains a space, a line break"),
        ("OPENAI_BASE_URL", "http://u:abc/d@127.0.0.1/v1", "an impossible host or port"),
        ("OPENAI_BASE_URL", "http://u:abc@\u2100.org/v1", "an impossible host or port"),
        ("OPENAI_BASE_URL", "http://127.0.0.1/v 1", "contains a space"),
        ("OPENAI_BASE_URL", "http://127.0.0.1/\x1b[2J", "or a control character"),
    ],
)
def test_a_wrong_environment_is_named(ask, server, monkeypatch, variable, value, message):
    """A key or address that cannot be right is said before anything is sent, without the key."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(InputError, match=message) as error:
        ask()
    assert "abc" not in str(error.value) and server.requests == []


def test_no_key_for_openai_itself(ask, server, monkeypatch):
    """Only a server of one's own may do without a key."""
    monkeypatch.delenv("OPENAI_API_KEY")
    ask()

    monkeypatch.delenv("OPENAI_BASE_URL")
    with pytest.raises(InputError, match="OPENAI_API_KEY is not set"):
        ask()
