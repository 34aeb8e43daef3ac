"""A GPU works ahead of the program until something asks it for a number, or copies one to it."""

import pytest
import torch
from dassl.engine import build_trainer
from drawn_findings import write_nih
from test_features import cfg_of
from test_multi_label import dataset_file
from torch.utils._python_dispatch import TorchDispatchMode

import datasets.features as features
import trainers  # noqa: F401  (registers the methods)
from datasets.views import Scale
from engine.config import load_cfg
from engine.method import METHODS

aten = torch.ops.aten
# What reads the device, and what makes a tensor of Python's numbers: the same operations on a CPU.
READS = (aten._local_scalar_dense, aten.equal, aten.is_nonzero)
READS += (aten.nonzero, aten.masked_select, aten._unique2, aten.lift_fresh)
ON_THE_CPU = {"XCoOp": ["aten._local_scalar_dense.default"]}  # reads a number drawn on the CPU
BY_MASK = (aten.index, aten.index_put, aten.index_put_)


class Waits(TorchDispatchMode):
    """Notes the operations within for which the program and a GPU would wait for each other."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        packet = function.overloadpacket
        masks = args[1] if packet in BY_MASK else ()
        if packet in READS or any(i is not None and i.dtype == torch.bool for i in masks):
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 1],
        lambda x: x.nonzero(),
        lambda x: x * torch.tensor([1.0, 2.0, 3.0]),
        lambda x: bool((x > 1).any()),
    ],
)
def test_what_waits_is_noticed(wait):
    x = torch.arange(3.0)
    with Waits() as waits:
        x = x * 2 + torch.arange(3)
    assert not waits.found
    with Waits() as waits:
        wait(x)
    assert waits.found


def step_of(trainer):
    """What the second step of a run waits for; the first prepares what stays."""
    trainer.set_model_mode("train")
    trainer.epoch = 0
    first, second, *_ = trainer.batches()
    trainer.forward_backward(first)
    with Waits() as waits:
        trainer.forward_backward(second)
    return waits.found


def rows():
    """(method, its options) of every row of a comparison whose method trains by steps."""
    for name, method in METHODS.items():
        if not method.fitted_at_once:
            for row in method.rows:
                yield name, [word for key, value in row.items() for word in (key, str(value))]


@pytest.mark.parametrize("method, options", list(rows()))
def test_a_step_waits_for_nothing(method, options, toy):
    opts = ["FEATURES.KEEP", "False", *options]
    trainer = build_trainer(cfg_of(toy, *opts, trainer=method))
    if trainer.trainable_parameters:
        assert step_of(trainer) == ON_THE_CPU.get(method, [])


def test_a_step_of_several_findings_waits_for_nothing(toy):
    write_nih(toy / "nih", 12)
    file = dataset_file(toy, "nih")
    opts = ["FEATURES.KEEP", "False", "DATALOADER.TRAIN_X.BATCH_SIZE", "4"]
    opts += ["DATALOADER.NUM_WORKERS", "0"]
    cfg, _ = load_cfg("CoOp", str(file), str(toy / "random.yaml"), opts=opts, root=str(toy))
    assert step_of(build_trainer(cfg)) == []


def test_scaling_waits_for_nothing_after_the_first():
    scale, views = Scale((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), torch.zeros(2, 3, 4, 4).byte()
    scale(views)
    with Waits() as waits:
        scale(views)
    assert not waits.found


def test_features_are_read_some_blocks_at_a_time(toy, monkeypatch):
    """How many are left on the device changes nothing."""
    cfg = cfg_of(toy, "FEATURES.KEEP", "False", "FEATURES.AHEAD", "2")
    expected = build_trainer(cfg).frozen_features.of_epoch(0, 3)
    for unread in (1, 3):
        monkeypatch.setattr(features, "UNREAD", unread)
        assert torch.equal(build_trainer(cfg).frozen_features.of_epoch(0, 3), expected)
