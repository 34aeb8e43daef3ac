"""Learning rates against closed forms; optimizers against PyTorch's."""

import math

import pytest
import torch
from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler, build_optimizer
from torch import nn

import dassl_compat
from core.errors import InputError

LR, EPOCHS = 0.1, 6


def optim_cfg(**options):
    cfg = get_cfg_default().OPTIM
    cfg.merge_from_list(["NAME", "sgd", "LR", LR, "MAX_EPOCH", EPOCHS])
    cfg.merge_from_list([word for option in options.items() for word in option])
    return cfg


def rates(cfg, epochs=EPOCHS + 2, reload_at=None):
    """The rate of each epoch; at ``reload_at`` all goes through the states, as in a resume."""
    model = nn.Linear(2, 2)
    optim = build_optimizer(model, cfg)
    sched = build_lr_scheduler(optim, cfg)
    seen = []
    for epoch in range(epochs):
        if epoch == reload_at:
            states = optim.state_dict(), sched.state_dict()
            optim = build_optimizer(model, cfg)
            sched = build_lr_scheduler(optim, cfg)
            optim.load_state_dict(states[0])
            sched.load_state_dict(states[1])
        seen.append(optim.param_groups[0]["lr"])
        assert sched.get_last_lr() == [seen[-1]]
        optim.step()
        sched.step()
    return seen


def cosine(step):
    return LR * (1 + math.cos(math.pi * step / EPOCHS)) / 2


COSINE = {"LR_SCHEDULER": "cosine"}
CONSTANT = {"WARMUP_TYPE": "constant"}
CASES = {
    "single step, never": ({}, lambda t: LR * 0.1 ** (t // EPOCHS)),
    "single step, list": ({"STEPSIZE": (2,)}, lambda t: LR * 0.1 ** (t // 2)),
    "multi step": (
        {"LR_SCHEDULER": "multi_step", "STEPSIZE": (2, 4), "GAMMA": 0.5},
        lambda t: LR * 0.5 ** ((t >= 2) + (t >= 4)),
    ),
    "cosine": (COSINE, cosine),
    "the paper's": (
        COSINE | CONSTANT | {"WARMUP_EPOCH": 1},
        lambda t: 1e-5 if t < 1 else cosine(t - 1),
    ),
    "constant, two epochs": (
        COSINE | CONSTANT | {"WARMUP_EPOCH": 2, "WARMUP_CONS_LR": 1e-3},
        lambda t: 1e-3 if t < 2 else cosine(t - 2),
    ),
    "linear": (
        COSINE | {"WARMUP_EPOCH": 3, "WARMUP_MIN_LR": 1e-4},
        lambda t: (1e-4 if t == 0 else LR * t / 3) if t < 3 else cosine(t - 3),
    ),
    "steps counted through the warm-up": (
        CONSTANT | {"STEPSIZE": (3,), "WARMUP_EPOCH": 2, "WARMUP_RECOUNT": False},
        lambda t: 1e-5 if t < 2 else LR * 0.1 ** (t // 3),
    ),
}


@pytest.mark.parametrize("reload_at", [None, 1, 3])
@pytest.mark.parametrize("case", CASES)
def test_rate_of_every_epoch(case, reload_at):
    """Each schedule follows its formula, also when it is saved and loaded on the way."""
    options, formula = CASES[case]
    expected = [formula(epoch) for epoch in range(EPOCHS + 2)]

    assert rates(optim_cfg(**options), reload_at=reload_at) == pytest.approx(expected, abs=1e-12)


def test_warmup_takes_the_state_of_a_live_successor():
    """Dassl's files hold all of the successor, its optimizer too, as the reader gives it."""
    cfg = optim_cfg(**COSINE, **CONSTANT, WARMUP_EPOCH=1)
    optim = build_optimizer(nn.Linear(2, 2), cfg)
    sched = build_lr_scheduler(optim, cfg)
    state = sched.state_dict()
    state["successor"] = state["successor"] | {"optimizer": {"param_groups": []}, "last_epoch": 4}

    sched.load_state_dict(state)

    assert sched.successor.last_epoch == 4
    assert sched.successor.optimizer is optim


@pytest.mark.parametrize(
    ("name", "reference"),
    {
        "sgd": lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9, weight_decay=5e-4),
        "adam": lambda p: torch.optim.Adam(p, lr=LR, weight_decay=5e-4),
        "amsgrad": lambda p: torch.optim.Adam(p, lr=LR, weight_decay=5e-4, amsgrad=True),
        "adamw": lambda p: torch.optim.AdamW(p, lr=LR, weight_decay=5e-4),
        "rmsprop": lambda p: torch.optim.RMSprop(p, lr=LR, weight_decay=5e-4, momentum=0.9),
        "radam": lambda p: torch.optim.RAdam(
            p, lr=LR, weight_decay=5e-4, decoupled_weight_decay=True
        ),
    }.items(),
)
def test_optimizer_steps_as_pytorchs(name, reference):
    start = torch.linspace(-1, 1, 6)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    pairs = [(build_optimizer([ours], optim_cfg(NAME=name)), ours), (reference([theirs]), theirs)]
    for _ in range(8):
        for optim, parameter in pairs:
            optim.zero_grad()
            (parameter**4).sum().backward()
            optim.step()

    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.skipif(dassl_compat.USING_INSTALLED_DASSL, reason="the installed Dassl has them")
def test_staged_rates_are_rejected_and_not_ignored():
    with pytest.raises(InputError, match="OPTIM.STAGED_LR"):
        build_optimizer(nn.Linear(2, 2), optim_cfg(STAGED_LR=True, NEW_LAYERS=("head",)))


@pytest.mark.parametrize(
    "options",
    [
        {"NAME": "none"},
        {"LR_SCHEDULER": "none"},
        {"WARMUP_EPOCH": 1, "WARMUP_TYPE": "?"},
    ],
)
def test_unknown_names_are_rejected(options):
    cfg = optim_cfg(**options)
    with pytest.raises(ValueError):
        build_lr_scheduler(build_optimizer(nn.Linear(2, 2), cfg), cfg)
