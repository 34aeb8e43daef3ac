"""Settings, registries, meters, logs and files."""

import io
import sys

import pytest
import torch
from dassl.config import get_cfg_default
from dassl.utils import (
    AverageMeter,
    MetricMeter,
    Registry,
    check_isfile,
    collect_env_info,
    count_num_param,
    listdir_nohidden,
    load_pretrained_weights,
    mkdir_if_missing,
    open_specified_layers,
    read_image,
    read_json,
    set_random_seed,
    setup_logger,
    tolist_if_not,
    write_json,
)
from PIL import Image
from torch import nn

import dassl_compat

# From the project's description of Dassl, node by node.
DEFAULTS = {
    "OUTPUT_DIR": "./output",
    "RESUME": "",
    "SEED": -1,
    "USE_CUDA": True,
    "VERBOSE": True,
    "INPUT.SIZE": (224, 224),
    "INPUT.INTERPOLATION": "bilinear",
    "INPUT.TRANSFORMS": (),
    "INPUT.NO_TRANSFORM": False,
    "INPUT.PIXEL_MEAN": [0.485, 0.456, 0.406],
    "INPUT.PIXEL_STD": [0.229, 0.224, 0.225],
    "INPUT.CROP_PADDING": 4,
    "INPUT.RRCROP_SCALE": (0.08, 1.0),
    "DATASET.ROOT": "",
    "DATASET.NAME": "",
    "DATASET.SOURCE_DOMAINS": (),
    "DATASET.TARGET_DOMAINS": (),
    "DATASET.NUM_LABELED": -1,
    "DATASET.NUM_SHOTS": -1,
    "DATASET.VAL_PERCENT": 0.1,
    "DATALOADER.NUM_WORKERS": 4,
    "DATALOADER.K_TRANSFORMS": 1,
    "DATALOADER.RETURN_IMG0": False,
    "DATALOADER.TRAIN_X.SAMPLER": "RandomSampler",
    "DATALOADER.TRAIN_X.BATCH_SIZE": 32,
    "DATALOADER.TRAIN_X.N_DOMAIN": 0,
    "DATALOADER.TRAIN_X.N_INS": 16,
    "DATALOADER.TRAIN_U.SAME_AS_X": True,
    "DATALOADER.TEST.SAMPLER": "SequentialSampler",
    "DATALOADER.TEST.BATCH_SIZE": 32,
    "MODEL.INIT_WEIGHTS": "",
    "MODEL.BACKBONE.NAME": "",
    "MODEL.BACKBONE.PRETRAINED": True,
    "OPTIM.NAME": "adam",
    "OPTIM.LR": 3e-4,
    "OPTIM.WEIGHT_DECAY": 5e-4,
    "OPTIM.MOMENTUM": 0.9,
    "OPTIM.SGD_DAMPNING": 0,
    "OPTIM.SGD_NESTEROV": False,
    "OPTIM.STAGED_LR": False,
    "OPTIM.NEW_LAYERS": (),
    "OPTIM.BASE_LR_MULT": 0.1,
    "OPTIM.LR_SCHEDULER": "single_step",
    "OPTIM.STEPSIZE": (-1,),
    "OPTIM.GAMMA": 0.1,
    "OPTIM.MAX_EPOCH": 10,
    "OPTIM.WARMUP_EPOCH": -1,
    "OPTIM.WARMUP_TYPE": "linear",
    "OPTIM.WARMUP_CONS_LR": 1e-5,
    "OPTIM.WARMUP_MIN_LR": 1e-5,
    "OPTIM.WARMUP_RECOUNT": True,
    "TRAIN.CHECKPOINT_FREQ": 0,
    "TRAIN.PRINT_FREQ": 10,
    "TRAIN.COUNT_ITER": "train_x",
    "TEST.EVALUATOR": "Classification",
    "TEST.PER_CLASS_RESULT": False,
    "TEST.COMPUTE_CMAT": False,
    "TEST.NO_TEST": False,
    "TEST.SPLIT": "test",
    "TEST.FINAL_MODEL": "last_step",
    "TRAINER.NAME": "",
}


@pytest.mark.parametrize("key", DEFAULTS)
def test_default(key):
    value = get_cfg_default()
    for name in key.split("."):
        value = value[name]

    assert value == DEFAULTS[key]
    assert type(value) is type(DEFAULTS[key])


def test_settings_are_fresh_each_time():
    get_cfg_default().INPUT.PIXEL_MEAN.append(1)
    get_cfg_default().OPTIM.LR = 1

    assert get_cfg_default().INPUT.PIXEL_MEAN == [0.485, 0.456, 0.406]
    assert get_cfg_default().OPTIM.LR == 3e-4


def test_registry_gives_what_was_registered():
    registry = Registry("THINGS")

    @registry.register()
    class First:
        pass

    def second():
        pass

    registry.register(second)

    assert registry.registered_names() == ["First", "second"]
    assert registry.get("First") is First
    with pytest.raises(KeyError):
        registry.get("Third")
    with pytest.raises(KeyError):
        registry.register(second)
    registry.register(second, force=True)


def test_meters_average():
    meter = AverageMeter()
    meter.update(1.0, n=3)
    meter.update(torch.tensor(5.0))
    assert (meter.val, meter.avg, meter.count) == (5.0, 2.0, 4)

    metrics = MetricMeter(delimiter=", ")
    metrics.update({"loss": 2.0, "acc": 50})
    metrics.update({"loss": torch.tensor(1.0), "acc": 100})
    assert str(metrics) == "loss 1.0000 (1.5000), acc 100.0000 (75.0000)"
    with pytest.raises(TypeError):
        metrics.update(3)


def test_output_is_copied_to_a_log_and_an_old_log_is_kept(tmp_path, monkeypatch):
    for word in ("first", "second"):
        console = io.StringIO()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", console)
            setup_logger(str(tmp_path))
            print(word)
            sys.stdout.flush()
            assert console.getvalue() == f"{word}\n"

    logs = sorted(tmp_path.iterdir())
    assert logs[0].name == "log.txt"
    assert logs[1].name.startswith("log.txt-20")
    assert [log.read_text() for log in logs] == ["first\n", "second\n"]


def test_seed_sets_every_generator():
    import random

    import numpy as np

    drawn = []
    for _ in range(2):
        set_random_seed(7)
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))

    assert drawn[0] == drawn[1]


def test_environment_names_torch_and_pillow():
    told = collect_env_info()

    assert torch.__version__ in told
    assert "Pillow" in told


def test_files(tmp_path):
    folder = tmp_path / "a" / "b"
    mkdir_if_missing(folder)
    mkdir_if_missing(folder)
    write_json({"é": [1]}, str(folder / "x.json"))
    (folder / ".hidden").touch()

    assert read_json(str(folder / "x.json")) == {"é": [1]}
    assert listdir_nohidden(str(folder), sort=True) == ["x.json"]
    assert check_isfile(str(folder / "x.json"))
    with pytest.warns(UserWarning):
        assert not check_isfile(str(folder))
    assert (tolist_if_not(1), tolist_if_not([1])) == ([1], [1])


def test_images_are_read_as_rgb(tmp_path):
    path = tmp_path / "grey.png"
    Image.new("L", (4, 4), 7).save(path)

    assert read_image(str(path)).getpixel((0, 0)) == (7, 7, 7)
    with pytest.raises(FileNotFoundError):
        read_image(str(tmp_path / "none.png"))


@pytest.mark.skipif(dassl_compat.USING_INSTALLED_DASSL, reason="the installed Dassl tries for ever")
def test_a_broken_image_is_named(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 50)

    with pytest.raises(ValueError, match="broken.png"):
        read_image(str(path))


@pytest.fixture
def net():
    model = nn.Sequential()
    model.add_module("body", nn.Linear(2, 3))
    model.add_module("norm", nn.BatchNorm1d(3))
    return model


def test_parameters_are_counted_and_frozen(net):
    assert count_num_param(net) == count_num_param(params=net.parameters()) == 15

    open_specified_layers(net, "body")
    assert [p.requires_grad for p in net.parameters()] == [True, True, False, False]
    assert (net.body.training, net.norm.training) == (True, False)
    with pytest.raises((ValueError, AssertionError)):
        open_specified_layers(net, ["tail"])

    open_specified_layers(net, ["body", "norm"])
    assert all(p.requires_grad for p in net.parameters())
    assert net.norm.training


@pytest.mark.parametrize("nested", [True, False])
def test_pretrained_weights_of_matching_names_and_shapes(net, tmp_path, nested, capsys):
    weights = {
        "module.body.weight": torch.ones(3, 2),
        "body.bias": torch.ones(9),
        "z": torch.ones(1),
    }
    torch.save({"state_dict": weights} if nested else weights, tmp_path / "w.pth")
    bias = net.body.bias.clone()

    load_pretrained_weights(net, str(tmp_path / "w.pth"))

    assert torch.equal(net.body.weight, torch.ones(3, 2))
    assert torch.equal(net.body.bias, bias)
    told = capsys.readouterr().out
    assert "body.bias" in told and "'z'" in told
