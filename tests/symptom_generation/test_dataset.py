"""With a dataset and a backbone: the training split, CLIP's matching, and the check of a file."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small_clip import frozen_clip

import parse_results
import train
from core.errors import InputError
from core.files import fingerprint
from engine.prompts import encode_texts
from symptom_generator.check import main as check
from symptom_generator.check import phrase_aucs
from symptom_generator.generate import main
from symptom_generator.match import clip_similarities
from symptoms import load_symptoms, read_symptom_file

ROOT = Path(__file__).resolve().parents[2]
RED = "- **Tint**: A crimson tint like blood\n- **Surface**: Rough and grainy all over"
BLUE = "- A cold tint like the sea\n- Rough and grainy all over"


@pytest.fixture
def toy_server(server):
    server.answers["red"] = {
        "text": RED,
        "pictures": [
            "- Tint: A crimson tint like blood",
            "- a crimson tint\n- grainy, rough surface",
        ]
        * 2,
    }
    server.answers["blue"] = {"text": BLUE, "pictures": ["cold tint, rough and grainy"] * 3}
    return server


@pytest.fixture
def argv(toy):
    return [
        *("--dataset", str(toy / "toy.yaml"), "--root", str(toy / "data"), "--upload-images"),
        *("--modality", "squares", "--output", str(toy / "new.json"), "--page", str(toy / "page")),
    ]


def test_only_training_pictures_are_shown(toy, toy_server, argv):
    """The sheets hold the ten training pictures of a class and none of validation or test."""
    assert main(argv) == 0

    classes, _ = read_symptom_file(toy / "new.json")
    for name in ("red", "blue"):
        files = (toy / "data" / "toy" / "train" / name).iterdir()
        train = {fingerprint(path.read_bytes()) for path in files}
        assert [set(sheet.split()) for sheet in classes[name]["generated"]["pictures"]] == [
            train
        ] * 3


def test_a_dataset_without_symptoms_is_described(toy, toy_server, argv):
    """The symptom file that the dataset's YAML names need not exist yet."""
    (toy / "symptoms.json").unlink()

    assert main(argv) == 0
    assert load_symptoms(toy / "new.json", ["red", "blue"]).phrases


def test_from_disease_names_to_a_table(toy, toy_server, argv, short, capsys, monkeypatch):
    """A generated file goes straight into training, and the run's figures into a table."""
    assert main(argv) == 0
    assert check([str(toy / "new.json")]) == 0
    run = ["--trainer", "ViP", "--root", str(toy / "data"), "--dataset", str(toy / "toy.yaml")]
    run += ["--backbone", str(toy / "random.yaml")]
    monkeypatch.chdir(toy)

    train.main([*run, *short, "TRAINER.VIP.SYMPTOMS", str(toy / "new.json")])
    monkeypatch.setattr(sys, "argv", ["parse_results.py", "output/toy"])
    parse_results.main()

    (results,) = (toy / "output").rglob("results.json")
    fingerprint_used = json.loads(results.read_text())["symptom_fingerprint"]
    assert fingerprint_used == load_symptoms(toy / "new.json", ["red", "blue"]).fingerprint
    assert "ViP" in capsys.readouterr().out


def test_clip_matches_offline(toy, toy_server, argv, monkeypatch):
    """--match clip asks no model to match, and a replay needs neither CLIP nor pictures."""
    options = ["--match", "clip", "--backbone", str(toy / "random.yaml"), "--similarity", "0.99"]
    # The second feature of "red" is in no picture answer word for word.
    toy_server.answers["blue"]["pictures"] = [BLUE] * 3
    assert main([*argv, *options, "--support", "2"]) == 0

    output = toy / "new.json"
    assert len(toy_server.requests) == 2 * (1 + 3)
    classes, _ = read_symptom_file(output)
    assert classes["red"]["phrases"] == ["Tint: A crimson tint like blood"]
    assert len(classes["blue"]["phrases"]) == 2
    assert "matched by CLIP" in classes["red"]["provenance"]
    before = output.read_bytes()
    output.unlink()
    monkeypatch.setattr("symptom_generator.generate.backbone_of", None)
    main(["--replay", str(toy / "new.transcript.jsonl"), "--page", str(toy / "page")])
    assert output.read_bytes() == before


def test_clip_similarities_are_cosines(tiny_clip):
    """Each feature meets each answer's nearest statement; the threshold is between features."""
    model = frozen_clip(tiny_clip)
    phrases = {"red": ["warm like blood", "rough", "round"]}
    answers = {"red": ["- rough\n- cold", "round. warm like blood."]}

    similarities, threshold = clip_similarities(model, phrases, answers)

    features = encode_texts(model, phrases["red"]).double().numpy()
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    apart = [features[0] @ features[1], features[0] @ features[2], features[1] @ features[2]]
    assert threshold == pytest.approx(np.percentile(apart, 90), abs=1e-4)
    assert similarities["red"][1][0] == (pytest.approx(1, abs=1e-4), "rough")
    assert similarities["red"][0][1] == (pytest.approx(1, abs=1e-4), "warm like blood.")
    assert similarities["red"][0][0][0] < 1


def test_phrase_aucs_count_pairs(tiny_clip):
    """The AUC is the share of pairs in which the class's own picture is the nearer one."""
    model = frozen_clip(tiny_clip)
    generator = torch.Generator().manual_seed(0)
    image_features = torch.randn(12, 48, generator=generator)
    labels = torch.tensor([0, 1, 1] * 4)
    phrases = {"red": ["warm"], "blue": ["cold", "the sea"]}

    aucs = phrase_aucs(model, image_features, labels, phrases)

    texts = encode_texts(model, ["warm", "cold", "the sea"])
    cosines = torch.cosine_similarity(image_features[:, None], texts[None], dim=-1)
    own = (labels[:, None] == torch.tensor([0, 1, 1])).numpy()
    for column, auc in enumerate([*aucs["red"], *aucs["blue"]]):
        inside, outside = cosines[own[:, column], column], cosines[~own[:, column], column]
        pairs = (inside[:, None] > outside[None]).float()
        assert auc == pytest.approx(pairs.mean().item())


def test_check_shows_every_phrase_with_its_auc(toy, capsys):
    """One line a phrase, with its AUC on the training split."""
    args = ["--dataset", str(toy / "toy.yaml"), "--root", str(toy / "data")]
    args += ["--backbone", str(toy / "random.yaml")]

    assert check([str(toy / "symptoms.json"), *args]) == 0

    printed = capsys.readouterr().out
    assert "20 training images" in printed
    assert len(re.findall(r"^  [01]\.\d\d  ", printed, re.MULTILINE)) == 5
    assert re.search(r"[01]\.\d\d  warm color like blood", printed)
    assert "valid for" in printed


def test_check_without_clip(tmp_path, capsys):
    """Shared phrases, class names in phrases and edits by hand stand out."""
    path = tmp_path / "x.json"
    generated = {"fingerprint": "000000000000"}
    red = {"phrases": ["Warm", "Blue-ish, like blues"], "provenance": "x", "generated": generated}
    path.write_text(json.dumps({"classes": {"red": red, "blue": {"phrases": ["warm"]}}}))

    assert check([str(path)]) == 0

    printed = capsys.readouterr().out
    assert "red (x; edited by hand since)" in printed
    assert "Warm  <- also of blue" in printed
    assert "names 'blue'" in printed


@pytest.mark.parametrize(
    "content, options, message",
    [
        ('{"red": ["a"]}', ["--dataset", "toy"], "class 'blue' is missing"),
        ('{"red": [], "blue": ["b"]}', [], "class 'red' has no phrases"),
        (
            '{"red": ["' + "word " * 80 + '"], "blue": ["b"]}',
            [],
            "bad.json: class 'red': the phrase 'word word .* has 80 tokens",
        ),
        (
            '{"red": ["a"], "blue": ["b"]}',
            ["--dataset", "toy", "--device", "nope"],
            "--device nope: cannot be used here",
        ),
        (
            '{"crimson": ["a"], "blue": ["b"]}',
            ["--dataset", "toy"],
            "--classes .crimson=red",
        ),
        (
            '{"red": ["a"], "blue": ["b"]}',
            ["--dataset", "toy", "INPUT.NO_TRANSFORM", "True"],
            "INPUT.NO_TRANSFORM",
        ),
        ('{"red": ["a"]}', ["--backbone", "tiny"], "--backbone needs --dataset"),
        ('{"red": ["a"]}', ["--limit", "0"], "--limit is 0; give 1 or more"),
        ('{"red": ["a"]}', ["--limit", "-5"], "--limit is -5; give 1 or more"),
    ],
)
def test_check_names_what_is_wrong(toy, content, options, message):
    """A file that training would refuse is refused here, in one line."""
    (toy / "bad.json").write_text(content)
    if "--dataset" in options:
        options = [*options, "--root", str(toy / "data"), "--backbone", str(toy / "random.yaml")]
        options[1] = str(toy / "toy.yaml")

    with pytest.raises(InputError, match=message) as error:
        check([str(toy / "bad.json"), *options])
    assert len(str(error.value)) < len(str(toy)) + 300


def test_check_takes_settings_after_its_options(toy, capsys):
    """The file comes first, settings of the dataset last, options anywhere."""
    args = ["--dataset", str(toy / "toy.yaml"), "--root", str(toy / "data")]

    assert check([str(toy / "symptoms.json"), *args, "DATASET.NUM_SHOTS", "2"]) == 0
    assert "2 shots a class: drawn with seed 1 from 20" in capsys.readouterr().out


def test_check_notes_repeats_and_marks_on_stderr(tmp_path):
    """What the file says twice and what CLIP would read as words; the figures stay on stdout."""
    path = tmp_path / "x.json"
    path.write_text('{"a": ["flat", "flat", "1. **Round** shape"]}')
    command = [sys.executable, "-m", "symptoms.check", str(path)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0 and "valid, 2 phrases in 1 classes" in done.stdout
    noted = [line for line in done.stderr.splitlines() if line.startswith(str(path))]
    assert "class 'a' has 'flat' twice" in noted[0]
    assert "class 'a' has '1. **Round** shape', better 'Round shape'" in noted[1]


def test_check_takes_seconds_for_a_thousand_classes(tmp_path, capsys):
    """The time grows with the phrases, not with phrases times classes."""
    path = tmp_path / "x.json"
    classes = {
        f"kind {number} lesion": [f"sign {number} {sign} spot" for sign in range(5)] + ["shared"]
        for number in range(1000)
    }
    path.write_text(json.dumps(classes))

    started = time.process_time()
    assert check([str(path)]) == 0

    assert time.process_time() - started < 30  # about one; a search for each class takes minutes
    printed = capsys.readouterr().out
    assert "shared  <- also of kind 0 lesion, kind 1 lesion, kind 2 lesion and 996 more" in printed
    assert len(printed) < 400_000
