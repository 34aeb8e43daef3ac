"""VisionLLM from a command to a row of the tables, against a server on the loopback."""

import csv
import json
import logging
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from symptom_generation import server as fault

from core.errors import InputError
from results.record import read_record
from results.runs import Run
from vision_llm.__main__ import main

from .conftest import KEY, SIGNS, is_red, shown_images

ROOT = Path(__file__).resolve().parents[2]
REFUSAL = "I'm sorry, but I can't help with identifying medical conditions."
REQUESTS = 24  # two for each of 12 test images


def lines_of(folder):
    return [json.loads(line) for line in (folder / "transcript.jsonl").read_text().splitlines()]


def exchanges(folder):
    return [line for line in lines_of(folder) if line["record"] == "exchange"]


def rows_of(folder):
    with open(folder / "answers.csv", newline="") as file:
        return list(csv.DictReader(file))


def same_result(one, other):
    """Everything that a run leaves, but for the time it took."""
    for name in ("predictions.csv", "answers.csv", "config.yaml"):
        a, b = (folder.joinpath(name).read_text() for folder in (one, other))
        assert a.replace(str(one), "") == b.replace(str(other), ""), name
    a, b = (read_record(folder).model_dump() for folder in (one, other))
    for record in (a, b):
        del record["seconds"], record["pictures_per_second"], record["requests"]
    assert a == b


def test_the_answers_become_a_run(ask, server):
    """Its probabilities are the model's, its metrics follow, and it says what it is."""
    folder = ask()

    run = Run(read_record(folder), folder)
    found = run.predictions()
    assert sorted(set(map(tuple, found.probabilities.round(9)))) == [(0.1, 0.9), (0.8, 0.2)]
    assert found.accuracy == 1.0 and run.metrics["auroc"] == 1.0
    assert len(found) == 12 and len(server.requests) == REQUESTS
    record = run.record
    assert (record.trainer, record.backbone, record.place) == ("VisionLLM", "seer", 88)
    assert record.own_model and record.seeded is False and record.trainable_parameters == 0
    assert (record.requests, record.unanswered) == (REQUESTS, 0)
    assert record.symptom_fingerprint and record.split_fingerprint
    assert record.versions["answered by"] == "seer-2024"
    assert record.class_counts["test"] == {"red": 6, "blue": 6}


def test_each_symptom_is_answered_for_each_image(ask):
    """answers.csv: the symptoms of all classes, each once, with answer and confidence."""
    rows = rows_of(ask())

    assert len(rows) == 12 * len(SIGNS)
    for row in rows:
        warm = row["symptom of"] == "red"
        assert row["answer"] == ("present" if warm == (row["class"] == "red") else "absent")
        assert (row["confidence"], row["outcome"]) == ("0.9", "answered")


def test_the_class_is_asked_given_the_answers_about_the_same_image(ask, server):
    """The second question repeats them, shows the image again and tells no sign's class."""
    ask()

    bodies = [body for _, body in server.requests]
    for first, second in zip(bodies[::2], bodies[1::2], strict=True):
        (image,), (again,) = shown_images(first), shown_images(second)
        assert image.tobytes() == again.tobytes()
        text = second["messages"][0]["content"][0]["text"]
        for sign in SIGNS:
            warm = sign in ("warm color like blood", "the color of a tomato", "no blue at all")
            said = "present" if warm == is_red(image) else "absent"
            assert f"- {sign}: {said} (confidence 0.90)" in text
        assert "squares" in text and "red, blue" in text
        asked = first["messages"][0]["content"][0]["text"]
        assert [asked.index(f"{n}. {sign}") for n, sign in enumerate(SIGNS, start=1)]
        assert "red" not in asked.partition("Signs:")[0].split()


def test_one_by_one_asks_each_symptom_alone(ask, server):
    """As CBVLM does: five requests for the signs of an image, and one for its class."""
    folder = ask("--one-by-one", "--limit", "2")

    assert len(server.requests) == 2 * (len(SIGNS) + 1)
    assert [row["symptom"] for row in rows_of(folder)] == SIGNS * 2
    options = read_record(folder).options
    assert options["TRAINER.VISIONLLM.ONE_BY_ONE"] == "True"
    assert options["TRAINER.VISIONLLM.LIMIT"] == "2"


def test_the_page_shows_answers_and_what_it_is_not(ask):
    page = (ask() / "answers.html").read_text()

    assert "not a medical device" in page and "<script" not in page and "http:" not in page
    for sign in SIGNS:
        assert sign in page
    red, blue = "<td>6 / 0 / 0</td>", "<td>0 / 6 / 0</td>"  # present / absent / unclear
    assert page.count(f"{red}\n{blue}") == 3 and page.count(f"{blue}\n{red}") == 2
    assert page.count("<img ") == 12 and "Predicted correctly" in page
    assert "Predicted incorrectly" not in page


# Privacy


def test_nothing_is_sent_without_the_flag(ask, server, toy):
    """One line says how much would go where; no folder is made."""
    with pytest.raises(
        InputError,
        match=r"^24 requests to seer at 127\.0\.0\.1:\d+ would send 12 test images of toy: "
        r"24 uploads, about 0\.\d MB; give --upload-images to allow it; nothing has been sent$",
    ):
        ask(upload=False)
    assert server.requests == [] and not (toy / "run").exists()


def test_a_dry_run_prints_the_questions_and_the_cost(ask, server, toy, capsys):
    ask("--dry-run", "--max-requests", "5")

    printed = capsys.readouterr().out
    assert "== first step, images: 1" in printed and "1. cold color like the sea" in printed
    assert "== second step (the answers here stand for the model's), images: 1" in printed
    assert "24 requests to seer" in printed and "stops after 5 requests" in printed
    assert printed.endswith("Nothing was sent.\n")
    assert server.requests == [] and not (toy / "run").exists()


def test_the_cost_is_said_before_the_first_request(ask, server, capsys):
    order = []
    server.faults.append(lambda handler, body: order.append(capsys.readouterr().err))

    ask()
    assert "24 requests to seer at 127.0.0.1" in order[0]
    assert "0 of 12 images are answered already" in order[0]


def test_no_key_image_or_file_name_is_kept_or_shown(ask, server, toy, capsys, caplog):
    """The key goes to the endpoint; images go as bare JPEG; the transcript has fingerprints."""
    caplog.set_level(logging.DEBUG)
    for path in (toy / "data").rglob("*.png"):
        path.rename(path.with_name(f"jane_roe_{path.name}"))
    server.faults.append(fault.says(f"your key is {KEY}"))
    folder = ask()

    headers, body = server.requests[0]
    assert headers["authorization"] == f"Bearer {KEY}"
    assert "jane_roe" not in json.dumps(body)
    assert shown_images(body)[0].getexif() == {}
    kept = (folder / "transcript.jsonl").read_text()
    said = "".join(capsys.readouterr())
    everything = "".join(p.read_text() for p in folder.iterdir() if p.name != ".lock")
    assert KEY not in everything + said
    assert "jane_roe" not in kept + said and "base64" not in kept + said
    assert "[key]" in kept


def test_plain_http_to_another_machine_is_announced(ask, server, capsys, monkeypatch):
    """As the generator says it; an address by option is named as one."""
    with pytest.raises(InputError, match="--base-url is not an http"):
        ask("--base-url", "ftp://somewhere")
    with pytest.raises(InputError, match="check --base-url"):
        ask("--base-url", "http://no-such-host.invalid/v1", "--retries", "0")
    assert "is asked over plain http" in capsys.readouterr().err


# Answers that are odd


FENCED = '```json\n{"classes": [{"class": "Red", "probability": "70%"}, {"class": "blue", '
ODD_CLASSES = [
    (FENCED + '"probability": "30 %"}]}\n```', (0.7, 0.3), "answered"),
    ('I think: {"classes": {"red": 0.6, "blue": 0.2}}', (0.75, 0.25), "renormalised"),
    ('{"classes": [{"class": "blue", "probability": 1}, {"class": "red", "probability": 0}]}',
     (0, 1), "answered"),
]  # fmt: skip


@pytest.mark.parametrize("text, expected, outcome", ODD_CLASSES)
def test_odd_but_clear_probabilities_are_read(ask, server, text, expected, outcome, capsys):
    server.faults.extend([lambda handler, body: None, fault.says(text)])
    folder = ask()

    first = Run(read_record(folder), folder).predictions().probabilities[0]
    assert first == pytest.approx(expected)
    assert rows_of(folder)[0]["outcome"] == outcome
    assert ("1 images did not sum to 1" in capsys.readouterr().out) == (outcome == "renormalised")


UNUSABLE = [
    ("It is surely red.", "not the JSON"),
    ('{"classes": [{"class": "red", "probability": 0.8}]}', "leaves out the class blue"),
    ('{"classes": {"red": 0.5, "green": 0.5}}', "not the ones that were named"),
    ('{"classes": {"red": 0, "blue": 0}}', "every class has the probability 0"),
    ('{"classes": {"red": -0.5, "blue": 1.5}}', "not a number from 0 to 1"),
    ('{"classes": {"red": "high", "blue": "low"}}', "not a number from 0 to 1"),
    ('{"classes": {"red": 70, "blue": 70}}', "neither from 0 to 1 nor percentages"),
    ('{"classes": {"red": true, "blue": 0}}', "not a number from 0 to 1"),
    ('{"classes": 7}', 'no list "classes"'),
    ('{"classes": [7]}', 'no list "classes"'),
]


@pytest.mark.parametrize("text, why", UNUSABLE)
def test_nothing_is_guessed_from_an_unusable_answer(ask, server, text, why):
    """Asked again with what is wrong; a usable answer then counts as any."""
    server.faults.extend([lambda handler, body: None, fault.says(text)])
    folder = ask("--limit", "1")

    assert [line["outcome"] == "accepted" for line in exchanges(folder)] == [True, False, True]
    assert why in exchanges(folder)[1]["outcome"]
    assert why in server.requests[2][1]["messages"][2]["content"]
    assert read_record(folder).unanswered == 0


ODD_SIGNS = [
    ('{"signs": []}', "leaves out sign 1"),
    ('{"signs": [{"number": 9, "answer": "present"}]}', "not 1 to 5, once each"),
    ('{"signs": [{"number": 1, "answer": "maybe"}]}', "sign 1 is not present, absent or unclear"),
]


@pytest.mark.parametrize("text, why", ODD_SIGNS)
def test_signs_are_asked_again_too(ask, server, text, why):
    server.faults.append(fault.says(text))
    folder = ask("--limit", "1")

    assert why in exchanges(folder)[0]["outcome"]
    assert {row["answer"] for row in rows_of(folder)} == {"present", "absent"}


def test_a_confidence_that_cannot_be_read_is_left_empty(ask, server):
    """Never made up: the answer stands, without one."""
    entries = [
        {"number": "1", "answer": "Yes", "confidence": "95%"},
        {"number": 2, "answer": "no.", "confidence": "very"},
        {"number": 3, "answer": "UNCLEAR"},
        {"number": 4, "answer": "uncertain", "confidence": 400},
        {"number": 5, "answer": "absent", "confidence": 1},
    ]
    server.faults.append(fault.says(json.dumps({"signs": entries})))
    rows = rows_of(ask("--limit", "1"))

    assert [(row["answer"], row["confidence"]) for row in rows] == [
        ("present", "0.95"),
        ("absent", ""),
        ("unclear", ""),
        ("unclear", ""),
        ("absent", "1.0"),
    ]


def test_a_refused_image_gets_even_probabilities_and_is_marked(ask, server, capsys):
    """In the output, the record, answers.csv and the page; it is not asked about its class."""
    server.faults.extend([fault.says(REFUSAL)] * 3)
    folder = ask()

    found = Run(read_record(folder), folder).predictions()
    assert found.probabilities[0].tolist() == [0.5, 0.5]
    assert np.abs(found.probabilities[1:] - 0.5).min() > 0.2
    assert read_record(folder).unanswered == 1
    rows = rows_of(folder)
    assert {row["answer"] for row in rows[: len(SIGNS)]} == {"no answer"}
    assert rows[0]["outcome"].startswith("no answer: the model refuses to answer")
    assert len(server.requests) == REQUESTS + 1  # three times the first question, once no second
    assert "no usable answer for 1 of 12 images" in capsys.readouterr().out
    page = (folder / "answers.html").read_text()
    assert "no usable answer for 1 of 12 images" in page and "no answer: the model refuses" in page

    server.requests.clear()
    (folder / "results.json").unlink()
    ask()  # what it refused is not asked again
    assert server.requests == [] and read_record(folder).unanswered == 1


def test_a_class_that_is_not_answered_keeps_the_signs(ask, server):
    server.faults.extend([lambda handler, body: None, *[fault.says("Red!")] * 3])
    folder = ask("--limit", "2")

    first, *_, last = rows_of(folder)
    assert first["answer"] in ("present", "absent") and "not the JSON" in first["outcome"]
    assert last["outcome"] == "answered"


def test_a_model_that_answers_for_no_image_gives_no_result(ask, server, toy):
    server.faults.extend([fault.says(REFUSAL)] * 100)

    with pytest.raises(InputError, match="gave no usable answer for any of 3 images"):
        ask("--limit", "3")
    assert not (toy / "run" / "results.json").exists()


# Trouble on the way


@pytest.mark.parametrize(
    "trouble, message",
    [
        (fault.status(429, "slow", headers=[("Retry-After", "0.01")]), "answers 429: slow"),
        (fault.status(500, headers=[("Retry-After", "0.01")]), "answers 500"),
        (fault.cut, "cannot reach 127.0.0.1"),
        (fault.cut_in_the_middle, "the answer broke off"),
        (fault.garbage_in_the_middle, "the answer broke off"),
        (fault.status(401, "wrong key"), "check OPENAI_API_KEY"),
        (fault.status(400, "this model does not support image input"), "name a model that reads"),
    ],
    ids=["429", "500", "cut", "broken off", "garbage", "401", "no images"],
)
def test_trouble_with_the_endpoint_is_no_answer_of_the_model(ask, server, toy, trouble, message):
    """One line; nothing is filled in, the answers so far stay, and the same command ends alike."""
    expected = ask(output="whole")
    server.requests.clear()
    server.faults.extend([lambda handler, body: None] * 5 + [trouble] * 3)
    with pytest.raises(InputError, match=f"^image 3 of 12, class: .*{message}"):
        ask()
    assert not (toy / "run" / "results.json").exists()
    assert not [line for line in lines_of(toy / "run") if line["record"] == "no answer"]

    server.faults.clear()
    server.requests.clear()
    same_result(ask(), expected)
    assert len(server.requests) == REQUESTS - 5


@pytest.mark.parametrize("trouble", [fault.status(500), fault.cut], ids=["500", "cut"])
def test_passing_trouble_is_tried_again(ask, server, trouble):
    server.faults.append(trouble)

    assert read_record(ask("--limit", "1")).unanswered == 0
    assert len(server.requests) == 3


def test_the_cap_ends_in_one_line_and_keeps_the_answers(ask, server, toy):
    """And the same command goes on from there, with as many again."""
    for sent in (10, 20):
        with pytest.raises(InputError, match="--max-requests 10 is reached; the answers so far"):
            ask("--max-requests", "10")
        assert len(server.requests) == sent
    assert not (toy / "run" / "results.json").exists()

    folder = ask("--max-requests", "10")
    assert len(server.requests) == REQUESTS and read_record(folder).requests == REQUESTS


def test_the_cap_counts_retries(ask, server):
    """Not one request more, whatever the endpoint answers."""
    server.faults.extend([fault.status(500, headers=[("Retry-After", "0.01")])] * 50)

    with pytest.raises(InputError):
        ask("--max-requests", "2")
    assert len(server.requests) == 2


def test_a_killed_run_loses_one_request_at_most(ask, server, toy):
    """A line that was being written is asked again; the result is that of a run without a stop."""
    expected = ask(output="whole")
    server.faults.extend([lambda handler, body: None] * 7 + [fault.status(401)])
    with pytest.raises(InputError):
        ask()
    path = toy / "run" / "transcript.jsonl"
    kept = [line for line in path.read_bytes().splitlines(keepends=True)][:7]
    path.write_bytes(b"".join(kept) + kept[-1][:40])  # settings and six answers; then cut
    server.requests.clear()

    same_result(ask(), expected)
    assert len(server.requests) == REQUESTS - 6


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on(ask, server, toy):
    """By SIGKILL, while the endpoint is silent: nothing that was answered is asked again."""
    expected = ask(output="whole")
    server.requests.clear()
    server.faults.extend([lambda handler, body: None] * 6 + [fault.silent(60)])
    words = ["--dataset", toy / "toy.yaml", "--root", toy / "data", "--model", "seer"]
    words += ["--modality", "squares", "--upload-images", "--output-dir", toy / "run"]
    command = [sys.executable, "-m", "vision_llm", *map(str, words)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    while len(server.requests) < 7 and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert len(exchanges(toy / "run")) == 6 and not (toy / "run" / "results.json").exists()

    server.faults.clear()
    server.requests.clear()
    same_result(ask(), expected)
    assert len(server.requests) == REQUESTS - 6


def test_an_interrupt_says_how_to_go_on(ask, server, toy, capsys, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("vision_llm.asking.Asking.run", interrupt)
    argv = ["--dataset", str(toy / "toy.yaml"), "--root", str(toy / "data"), "--upload-images"]
    assert main([*argv, "--output-dir", str(toy / "run")]) == 130
    assert "the same command continues" in capsys.readouterr().err


def test_a_complete_run_is_left_as_it_is(ask, server, capsys):
    folder = ask()
    server.requests.clear()
    before = (folder / "results.json").read_bytes()
    ask()
    assert server.requests == [] and (folder / "results.json").read_bytes() == before
    assert "is complete" in capsys.readouterr().out

    ask("--fresh")
    assert len(server.requests) == REQUESTS
    assert len(list(folder.glob("*.bak"))) == 2  # the transcript and the result before


def test_a_folder_of_another_question_is_not_written_over(ask, server):
    ask("--limit", "2")

    with pytest.raises(InputError, match="holds a run with another TRAINER.VISIONLLM.MODALITY"):
        ask("--limit", "2", "--modality", "circles")


# Replay


def test_a_replay_is_the_same_without_a_network(ask, server, toy, monkeypatch):
    folder = ask()
    server.requests.clear()
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    words = ["--replay", str(folder / "transcript.jsonl"), "--root", str(toy / "data")]

    assert main([*words, "--output-dir", str(toy / "again")]) == 0
    assert server.requests == []
    same_result(toy / "again", folder)
    for name in ("results.json", "answers.html"):
        assert (toy / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_a_replay_of_an_unfinished_run_says_what_is_missing(ask, toy):
    with pytest.raises(InputError):
        ask("--max-requests", "3")
    words = ["--replay", str(toy / "run" / "transcript.jsonl"), "--root", str(toy / "data")]

    with pytest.raises(InputError, match="lacks the answers of at least 21 requests"):
        main([*words, "--output-dir", str(toy / "again")])
    assert not (toy / "again").exists()


def test_a_replay_needs_the_same_images(ask, toy):
    folder = ask("--limit", "2")
    for path in (toy / "data" / "toy" / "test" / "red").iterdir():
        path.unlink()
        break

    with pytest.raises(InputError, match="are not those that the transcript was made with"):
        main(["--replay", str(folder / "transcript.jsonl"), "--root", str(toy / "data")])


@pytest.mark.parametrize(
    "entry, value",
    [
        ("prompts", {"signs": "{nothing}", "class": "x", "examples": "x"}),
        ("prompts", {"signs": "x"}),
        ("examples", 2),
        ("phrases", {"red": ["a"]}),
        ("images", []),
        ("task", "another"),
    ],
)
def test_a_changed_transcript_is_one_line(ask, toy, entry, value):
    folder = ask("--limit", "1")
    settings, *rest = lines_of(folder)
    path = toy / "changed.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in [settings | {entry: value}, *rest]))

    with pytest.raises(InputError, match="line 1 is not a line of a transcript"):
        main(["--replay", str(path), "--root", str(toy / "data"), "--output-dir", str(toy / "x")])
    assert not (toy / "x").exists()


# Examples


def test_examples_are_the_nearest_training_images_with_their_classes(ask, server, toy, capsys):
    """Two of the training split before the image; counted in what is said to be sent."""
    options = ["--examples", "2", "--backbone", str(toy / "random.yaml"), "--limit", "3"]
    with pytest.raises(
        InputError, match=r"would send 3 test images of toy and \d training images as examples: 12 "
    ):
        ask(*options, upload=False)
    assert server.requests == []

    folder = ask(*options)
    bodies = [body for _, body in server.requests]
    assert [len(shown_images(body)) for body in bodies] == [1, 3] * 3
    settings = lines_of(folder)[0]
    train = {
        line.name: name
        for name in ("red", "blue")
        for line in (toy / "data" / "toy" / "train" / name).iterdir()
    }
    assert train
    for body in bodies[1::2]:
        *examples, _ = shown_images(body)
        names = ["red" if is_red(image) else "blue" for image in examples]
        text = body["messages"][0]["content"][0]["text"]
        assert f"in this order: 1. {names[0]}, 2. {names[1]}." in text and "The last image" in text
    assert all(len(shown) == 2 for shown in settings["shown"].values())
    options = read_record(folder).options
    assert options["TRAINER.VISIONLLM.EXAMPLES"] == "2"

    words = ["--replay", str(folder / "transcript.jsonl"), "--root", str(toy / "data")]
    assert main([*words, "--output-dir", str(toy / "again")]) == 0
    same_result(toy / "again", folder)


# Arguments


@pytest.mark.parametrize(
    "options, message",
    [
        (["--limit", "0"], "--limit"),
        (["--examples", "-1"], "--examples"),
        (["--max-requests", "0"], "--max-requests"),
        (["--timeout", "0"], "--timeout"),
        (["DATASET.NUM_SHOTS", "4"], "DATASET.NUM_SHOTS has no effect on VisionLLM"),
        (["OPTIM.LR", "1"], "OPTIM.LR has no effect on VisionLLM"),
        (["DATASET.PATH"], "'DATASET.PATH' has no value"),
        (["--symptoms", "nowhere.json"], "nowhere.json: there is no such file"),
        (["--replay", "nowhere.jsonl"], "nowhere.jsonl: there is no such transcript"),
    ],
)
def test_wrong_arguments_are_one_line(ask, server, options, message):
    with pytest.raises(InputError, match=message):
        ask(*options)
    assert server.requests == []
