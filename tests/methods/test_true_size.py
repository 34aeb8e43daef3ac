"""Every method takes a step at true size, on random weights of each kind of the paper's and a BERT.

Where the README's table says that a method does not apply to a kind, it says so itself.
"""

import copy

import pytest
import torch
from small_clip import frozen_clip
from test_agreement import TRUE_SIZES
from test_every_backbone import readme_table
from test_runs import OPTIONS
from test_true_sizes import true_size_clip

from backbones.loading import load_backbone
from engine.method import METHODS, DoesNotApply, FitData, LabelledFeatures
from symptoms import Symptoms

# Learned numbers with two classes and the symptoms below, d = d_txt = 512, d_vis = 768.
ENCODER = 86_192_640
COUNTS = {
    "CoOp": 4 * 512,
    "CoOp-csc": 2 * 4 * 512,
    "ProGrad": 4 * 512,
    "CoCoOp": 4 * 512 + (512 + 1) * 32 + (32 + 1) * 512,
    "KgCoOp": 4 * 512,
    "TCP": 4 * 512 + (512 + 1) * 128 + (128 + 1) * 4 * 512,
    "MaPLe": 9 * (2 * 512 + (512 + 1) * 768),
    "PromptSRC": 9 * 4 * (512 + 768),
    "CLIPLoRA": 12 * 3 * 2 * (2 * 512 + 2 * 768),
    "CLIPSVD": 12 * 6 * (512 + 768),
    "BayesianPrompt": 4 * 512 + 2 * ((512 + 1) * 256 + (256 + 1) * 256 + (256 + 1) * 512),
    "XCoOp": 2 * 4 * 4 * 512,
    "ConceptBottleneck": 2 * 5,
    "Supervised": ENCODER + 2 * 513,
    "Supervised-clip": ENCODER + 2 * 513,
    "ViP": 4 * 512 + 2 * 512 * 512 + 2 * 512,
    "ViP-16.0": 4 * 512 + 2 * 512 * 512 + 2 * 512,
    "BiomedCoOp": 4 * 512,
    "LinearProbe": 2 * 513,
    "LPPlusPlus": 2 * 514,
    "SSText": 2 * 512,
    "SSText-True": 2 * 512,
    "CLAP": 2 * 512,
    "GDA": 2 * 513,
    "TipAdapter": 2,
    "TipAdapterF": 2,  # and the cached features, once there are training images
    "CLIPAdapter": 2 * 512 * 128,
    "TaskResidual": 2 * 512,
    "ZeroshotCLIP": 0,
    "ZeroshotCLIP-symptoms": 0,
}

ROWS = OPTIONS | {
    "-".join(["ViP", *map(str, row.values())]): [
        word for key, value in row.items() for word in (f"TRAINER.VIP.{key}", str(value))
    ]
    for row in METHODS["ViP"].rows
}
SYMPTOMS = {
    "melanoma": ["red", "skin with dots", "of a blue veil"],
    "skin lesion": ["a photo of skin", "red skin"],
}
VIT, RESNET, BERT = "CLIP, ViT", "CLIP, ResNet", "BERT (BiomedCLIP)"


@pytest.fixture(scope="module", params=[VIT, RESNET, BERT])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def whole(kind, tmp_path_factory):
    """The backbone of a kind: ViT-B/16, RN50, or BiomedCLIP's BERT and vision transformer."""
    torch.manual_seed(0)
    if kind == BERT:
        folder = tmp_path_factory.mktemp("biomedclip")
        TRUE_SIZES["BiomedCLIP, true size"](folder)
        return load_backbone(path=str(folder))
    return frozen_clip(true_size_clip("vit_b16" if kind == VIT else "rn50").float())


@pytest.fixture
def backbone(whole):
    """A copy, because some methods change what they are given."""
    return copy.deepcopy(whole)


def learned_numbers(model):
    return sum(p.numel() for p in model.learned.parameters() if p.requires_grad)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_one_step(kind, backbone, build, name):
    """It learns exactly what it should, all of it moves, and its loss is finite."""
    torch.manual_seed(1)
    trainer = name.split("-")[0]
    words = trainer, backbone, *ROWS[name]
    names = {"classnames": list(SYMPTOMS), "symptoms": Symptoms(SYMPTOMS)}
    if readme_table()[trainer, kind] == "does not apply":
        with pytest.raises(DoesNotApply):
            build(*words, **names)
        return
    built = build(*words, **names)

    if kind == VIT:
        assert learned_numbers(built.model) == COUNTS[name]
    if built.method.fitted_at_once:
        fit(built)
    elif learned_numbers(built.model):
        step(built.model, torch.randn(2, 3, 224, 224))
    with torch.no_grad():
        logits, losses = built.model.eval()(torch.randn(2, 3, 224, 224))
    assert logits.shape == (2, 2) and logits.isfinite().all() and not losses


def fit(built):
    """Fit to random features of the backbone's dimension."""
    d = built.model.backbone.embed_dim
    label = torch.arange(8) % 2
    train, val = (LabelledFeatures(torch.randn(8, d), label) for _ in range(2))
    built.method.fit(built.model, FitData(train, val, lambda passes: torch.randn(passes, 8, d)))


def step(model, images):
    """A step on two images, as the trainer takes it."""
    learned = dict(model.learned.named_parameters())
    before = {key: p.detach().clone() for key, p in learned.items()}
    optimizer = torch.optim.SGD(model.parameter_groups(0.01))
    model.learned.train()
    _, losses = model(images, torch.tensor([0, 1]))
    assert losses and all(loss.isfinite() for loss in losses.values())
    model.backward(losses, lambda loss: loss)
    optimizer.step()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in learned.values())
    still = {key for key, p in learned.items() if torch.equal(before[key], p)}
    assert not still - behind_zeros(before)


def behind_zeros(learned):
    """What has no gradient in the first step, as a factor behind it starts at zero.

    A low-rank change's A, because of its B; in a ResNet, what comes before a block's last
    normalisation, because of its weight.
    """
    found = {key for key in learned if key.endswith(".A")}
    for norm, weight in learned.items():
        if norm.endswith("bn3.weight") and not weight.any():
            block = norm.removesuffix("bn3.weight")
            parts = [f"{block}{part}" for part in ("conv1", "bn1", "conv2", "bn2", "conv3")]
            found |= {key for key in learned if key.rpartition(".")[0] in parts}
    return found
