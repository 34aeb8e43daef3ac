"""Suggestions in the browser app: nothing leaves the machine without consent, never an image."""

import sys
from pathlib import Path

import pytest

from core.errors import InputError
from symptom_generator.pipeline import TEXT_PROMPT
from webapp import suggestions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from app_runs import opened  # noqa: E402

from . import server as fault  # noqa: E402


@pytest.fixture
def bench(toy_run, server):
    server.answers["red"] = {"text": "- A **tomato**'s color.\n- It is red.\n- Warm, like blood.\n"}
    server.answers["dark spot"] = {"text": "- Dark and round.\n"}
    return opened(toy_run("ViP"))


def test_nothing_is_sent_before_consent(bench, server):
    """The request is shown word for word first; another host's consent is none."""
    host = server.url.split("/")[2]
    assert bench.about()["endpoint"] == host

    shown = bench.suggestion_request("0", "red")
    assert shown["endpoint"] == host
    assert shown["sends"] == TEXT_PROMPT.format(category="red", modality="medical images")
    for consent in ("", None, True, "yes", "api.openai.com", host + "/"):
        with pytest.raises(InputError, match="^nothing was sent: the consent is for"):
            bench.suggest("0", "red", consent)
    assert server.requests == []


def test_what_is_sent_is_what_was_shown(bench, server):
    """One question in text; phrases that name a class are left out."""
    shown = bench.suggestion_request("0", "red")

    phrases = bench.suggest("0", "red", shown["endpoint"])

    ((_, body),) = server.requests
    assert body["messages"] == [{"role": "user", "content": shown["sends"]}]
    assert body["model"] == shown["model"] and "image_url" not in str(body)
    assert phrases == ["A tomato's color", "Warm, like blood"]
    assert bench.suggest("0", "dark spot", shown["endpoint"]) == ["Dark and round"]  # a new class


def test_an_endpoint_in_trouble_is_one_line(bench, server, monkeypatch):
    shown = bench.suggestion_request("0", "red")
    server.faults.append(lambda handler, body: "I'm sorry, I can't help with that.")
    with pytest.raises(InputError, match="the answer cannot be used: the model refuses"):
        bench.suggest("0", "red", shown["endpoint"])
    server.faults.append(lambda handler, body: handler.error(401, "wrong key"))
    with pytest.raises(InputError, match="answers 401: wrong key") as caught:
        bench.suggest("0", "red", shown["endpoint"])
    assert "\n" not in str(caught.value) and "sk-test" not in str(caught.value)
    monkeypatch.setattr(suggestions, "SECONDS", 0.2)
    server.faults.extend([fault.silent(3)] * 2)
    with pytest.raises(InputError, match=r"did not answer within 0\.2 s; ask again later$"):
        bench.suggest("0", "red", shown["endpoint"])


def test_without_an_endpoint_there_are_none(bench, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.delenv("OPENAI_API_KEY")

    assert bench.about()["endpoint"] is None
    for ask in (bench.suggestion_request, lambda *args: bench.suggest(*args, "x")):
        with pytest.raises(InputError, match="no endpoint is named; set OPENAI_BASE_URL"):
            ask("0", "red")
    for name in ("", "a\nb\x1b", None, "x" * 101):
        with pytest.raises(InputError, match="name"):
            bench.suggestion_request("0", name)
