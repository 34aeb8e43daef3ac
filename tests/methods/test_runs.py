"""Every method through train.py: a whole run, its end, and what belongs to its classes."""

import csv
import json

import pytest
import torch
from naive import NAMES
from small_clip import frozen_clip

import train
from core.errors import InputError, command_line
from engine.method import METHODS, DoesNotApply
from engine.symptom_model import SymptomModel
from engine.trainer import MethodTrainer
from results.record import read_record
from symptoms import Symptoms

# Every method, its rows in a comparison, and what else is worth a run: name -> its options.
OPTIONS = {
    "-".join([name, *map(str, row.values())]): [
        word for key, value in row.items() for word in (f"TRAINER.{name.upper()}.{key}", str(value))
    ]
    for name, method in METHODS.items()
    for row in method.rows
    if name != "ViP"  # test_vip.py and others run it
} | {
    "CoOp-csc": ["TRAINER.COOP.CSC", "True"],
    "CoCoOp": ["TRAINER.COCOOP.TEXT_BATCH", "5"],
    "BayesianPrompt": ["TRAINER.BAYESIANPROMPT.TEXT_BATCH", "50"],
}
TRAINED = [name for name in OPTIONS if not name.startswith("ZeroshotCLIP")]


def predictions(folder):
    with open(folder / "predictions.csv", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("name", OPTIONS)
def test_run_and_its_evaluation(toy, toy_args, short, capsys, name):
    """Results, history, checkpoint; the saved model gives the very figures of the run's end."""
    args = ["--trainer", name.split("-")[0], *toy_args]
    train.main([*args, *short, *OPTIONS[name]])
    ended = [line for line in capsys.readouterr().out.splitlines() if line.startswith("* ")]
    record = read_record(toy / "run")
    train.main([*args, "--eval-only", *short, *OPTIONS[name]])
    again = [line for line in capsys.readouterr().out.splitlines() if line.startswith("* ")]

    assert ended and ended == again
    assert record.metrics.accuracy is not None
    assert len(predictions(toy / "run")) == 13
    assert (toy / "run" / "history.csv").exists() == (name in TRAINED)


@pytest.mark.parametrize(
    "name",
    ["CoCoOp", "BayesianPrompt", "MaPLe", "PromptSRC", "CLIPLoRA", "CLIPSVD", "Supervised-clip"],
)
def test_resumed_run_is_the_whole_run(toy, toy_args, short, monkeypatch, name):
    """Cut after an epoch and started again: the same predictions, bit for bit."""
    args = ["--trainer", name.split("-")[0], *toy_args[:-1]]
    train.main([*args, str(toy / "whole"), *short, *OPTIONS[name]])
    after_epoch = MethodTrainer.after_epoch

    def cut(self):
        after_epoch(self)
        if self.epoch == 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MethodTrainer, "after_epoch", cut)
        with pytest.raises(KeyboardInterrupt):
            train.main([*args, str(toy / "cut"), *short, *OPTIONS[name]])
    train.main([*args, str(toy / "cut"), *short, *OPTIONS[name]])

    assert predictions(toy / "cut") == predictions(toy / "whole")


@pytest.mark.parametrize("name", TRAINED)
def test_other_order_of_the_classes(toy, toy_args, short, name):
    """Tested on a dataset that lists its classes in another order: the same scores."""
    args = ["--trainer", name.split("-")[0], *toy_args[:-1]]
    train.main([*args, str(toy / "run"), *short, *OPTIONS[name]])
    text = (toy / "toy.yaml").read_text()
    (toy / "turned.yaml").write_text(text.replace("[red, blue]", "[blue, red]"))
    args[args.index("--dataset") + 1] = str(toy / "turned.yaml")
    train.main(
        [*args, str(toy / "there"), "--eval-only", "--model-dir", str(toy / "run"), *short]
        + OPTIONS[name]
    )
    here, there = predictions(toy / "run"), predictions(toy / "there")
    red = {row[0]: float(row[3]) for row in here[1:]}

    assert here[0][3:5] == there[0][3:5][::-1] == ["p(red)", "p(blue)"]
    for row in there[1:]:
        assert float(row[4]) == pytest.approx(red[row[0]], abs=1e-5)
    assert read_record(toy / "there").trained_on == "toy"


@pytest.mark.parametrize("name", METHODS)
def test_explainable_methods_have_symptom_models(tiny_clip, build, name):
    """The report chooses a run to explain by the class, before it loads any weights."""
    method = METHODS[name]
    reads = {"PROMPTS": "symptoms"} if name == "ZeroshotCLIP" else {}
    signs = Symptoms({name: [f"sign of {name}", "round"] for name in NAMES})
    symptoms = signs if method(**reads).reads_symptoms else None

    model = method(**reads).build(frozen_clip(tiny_clip), NAMES, symptoms)

    assert method.explainable == isinstance(model, SymptomModel)
    assert symptoms or not method.explainable


@pytest.mark.parametrize("n_cls", [2, 100])
@pytest.mark.parametrize("name", OPTIONS)
def test_number_of_classes(tiny_clip, build, name, n_cls):
    """From two classes to a hundred: a score for each, and a finite gradient."""
    names = [f"kind {i}" for i in range(n_cls)]
    options = [] if name.endswith("symptoms") else OPTIONS[name]
    method = name.split("-")[0]
    signs = Symptoms({name: [f"sign of {name}", "a pale spot"] for name in names})
    reads = METHODS[method].reads_symptoms is True
    built = build(
        *(method, frozen_clip(tiny_clip), *options),
        classnames=names,
        symptoms=signs if reads else None,
    )
    label = torch.tensor([0, n_cls - 1])
    logits, losses = built.model(torch.randn(2, 3, 32, 32), label)

    assert logits.shape == (2, n_cls)
    if name in TRAINED:
        sum(losses.values()).backward()
        for parameter in built.model.learned.parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "amp", "bf16"])
@pytest.mark.parametrize(
    "name", [name for name in TRAINED if not METHODS[name.split("-")[0]].fitted_at_once]
)
def test_precisions(tiny_clip, build, name, precision):
    """What learns is fp32, scores and loss are fp32, in each (fp16 needs a GPU: fp32 here)."""
    built = build(
        *(name.split("-")[0], frozen_clip(tiny_clip, precision), *OPTIONS[name]),
        symptoms=Symptoms({name: [f"sign of {name}", "round"] for name in NAMES}),
    )
    logits, losses = built.model(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    loss = sum(losses.values())
    loss.backward()

    assert logits.dtype == loss.dtype == torch.float32
    for parameter in built.model.learned.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None and parameter.grad.isfinite().all()


def test_does_not_apply(toy, toy_args, short, tiny_resnet, capsys):
    """One line and exit status 2; results.json says why, so that the tables can."""
    torch.save(tiny_resnet.state_dict(), toy / "clip.pt")
    args = ["--trainer", "MaPLe", *toy_args, *short]
    for _ in range(2):
        with pytest.raises(SystemExit) as stopped:
            command_line(lambda: train.main(args))()
        assert stopped.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
    results = json.loads((toy / "run" / "results.json").read_text())

    assert results["metrics"] is None
    assert "ResNet" in results["does_not_apply"]
    assert (results["trainer"], results["backbone"], results["seed"]) == ("MaPLe", "random", 1)


def test_does_not_apply_without_training(toy, toy_args, short, tiny_resnet):
    """A check leaves nothing behind."""
    torch.save(tiny_resnet.state_dict(), toy / "clip.pt")
    with pytest.raises(DoesNotApply):
        train.main(["--trainer", "MaPLe", *toy_args, "--no-train", *short])

    assert not (toy / "run").exists()


def test_vip_s_new_classes_start_at_zero(four_classes, toy_args, short, capsys):
    """Base to new: a class that training did not see has g = 0, the others keep theirs."""
    toy = four_classes
    args = ["--trainer", "ViP", *toy_args[:-1]]
    train.main([*args, str(toy / "base"), *short, "DATASET.SUBSAMPLE_CLASSES", "base"])
    capsys.readouterr()
    train.main(
        [*args, str(toy / "new"), "--eval-only", "--model-dir", str(toy / "base"), *short]
        + ["DATASET.SUBSAMPLE_CLASSES", "new"]
    )

    assert (
        "green, grey: not among the trained classes, token.0 is 0 there" in capsys.readouterr().out
    )
    assert read_record(toy / "new").classnames == ("green", "grey")


def test_head_has_nothing_for_new_classes(four_classes, toy_args, short):
    toy = four_classes
    args = ["--trainer", "LinearProbe", *toy_args[:-1]]
    train.main([*args, str(toy / "base"), *short, "DATASET.SUBSAMPLE_CLASSES", "base"])
    with pytest.raises(InputError, match="LinearProbe learned weight for each .* green, grey"):
        train.main(
            [*args, str(toy / "new"), "--eval-only", "--model-dir", str(toy / "base"), *short]
            + ["DATASET.SUBSAMPLE_CLASSES", "new"]
        )


def test_a_run_names_the_parameters_it_learned(toy, toy_args, short, capsys):
    """And none where there is nothing to learn."""
    for trainer, learned in (("ZeroshotCLIP", False), ("CoOp", True)):
        args = [*toy_args[:-1], str(toy / trainer)]
        train.main(["--trainer", trainer, *args, *short])
        assert ("Learned parameters are in" in capsys.readouterr().out) == learned


def test_maple_says_where_its_depth_is_cut(toy, toy_args, short, capsys):
    """The protocol's depth of 9 does not fit every tower."""
    train.main(["--trainer", "MaPLe", *toy_args, "--no-train", *short])
    assert "PROMPT_DEPTH is 9: all 2 layers of the shorter tower" in capsys.readouterr().out
