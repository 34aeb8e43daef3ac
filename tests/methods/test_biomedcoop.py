"""BiomedCoOp against its equations, in float64."""

import pytest
import torch
from naive import NAMES, cosine, cross_entropy, prompt_rows, rows_to_feature, text_feature
from small_clip import frozen_clip

import explain
import train
from core.errors import InputError, command_line
from results.record import read_record
from symptoms import Symptoms
from trainers.biomedcoop import kept_sentences

# Unequal numbers of sentences, one class with a single one, one with equal ones: MAD 0.
SENTENCES = {
    NAMES[0]: ["dark", "an uneven border", "several colours", "a blue veil", "it grows", "large"],
    NAMES[1]: ["even brown", "even brown", "even brown", "even brown", "a pale ring"],
    NAMES[2]: ["warm and red"],
}


def unit(x):
    return x / (x * x).sum().sqrt()


def naive_kept(scores, tau):
    """The paper's rule as it is written, for the scores of one class."""
    if len(scores) == 1:
        return [True]
    median = sorted(scores)[(len(scores) - 1) // 2]
    distances = [abs(a - median) for a in scores]
    mad = sorted(distances)[(len(scores) - 1) // 2]
    z = [(a - median) / (mad if mad > 1e-9 else 1) for a in scores]
    mean = sum(z) / len(z)
    deviation = (sum((v - mean) ** 2 for v in z) / (len(z) - 1)) ** 0.5
    kept = [abs(v - mean) <= tau * deviation for v in z]
    return kept if any(kept) else [True] * len(scores)


@pytest.mark.parametrize("tau", [1.5, 1.0, 1e-3])
def test_losses_and_gradients(frozen64, image_features, label, build, close, shapes, tau):
    """Cross-entropy, SCCM as a mean over entries, KDSP with each class's outliers left out."""
    built = build(
        *("BiomedCoOp", frozen64),
        symptoms=Symptoms(SENTENCES),
        SCCM_LAMBDA=0.75,
        KDSP_LAMBDA=3.0,
        TAU=tau,
    )
    model = built.model.double()
    ctx = model.learned.ctx
    with torch.no_grad():
        ctx += 0.1 * torch.randn_like(ctx)

    clip64, scale = frozen64.model, frozen64.logit_scale.exp()
    images = [unit(f) for f in image_features]
    features = [unit(rows_to_feature(clip64, prompt_rows(clip64, ctx, n))) for n in NAMES]
    means, teachers, numbers = [], [], []
    for name in NAMES:
        taught = [unit(text_feature(clip64, f"{text} .")) for text in SENTENCES[name]]
        means.append(unit(sum(taught) / len(taught)))
        scores = [sum(scale * (f @ e) for f in images) / len(images) for e in taught]
        keep = naive_kept([float(a) for a in scores], tau)
        kept = [e for e, stays in zip(taught, keep, strict=True) if stays]
        numbers.append(len(kept))
        teachers.append(unit(sum(kept) / len(kept)))
    naive = torch.stack([torch.stack([scale * cosine(f, t) for t in features]) for f in images])
    count, width = len(NAMES), len(features[0])
    sccm = sum(((t - m) ** 2).sum() for t, m in zip(features, means, strict=True)) / (count * width)
    kl = torch.zeros((), dtype=torch.float64)
    for f, row in zip(images, naive, strict=True):
        student = (row.exp() / row.exp().sum()).log()
        teacher = torch.stack([scale * (f @ p) for p in teachers])
        p = teacher.exp() / teacher.exp().sum()
        kl = kl + (p * (p.log() - student)).sum()
    kdsp = kl / (len(images) * count)

    logits, losses = model.from_features(image_features, label)
    close(logits, naive)
    close(losses["consistency"], 0.75 * sccm)
    close(losses["distillation"], 3 * kdsp)
    loss = cross_entropy(naive, label) + 0.75 * sccm + 3 * kdsp
    close(sum(losses.values()), loss, [ctx])
    assert (sum(numbers) < sum(map(len, SENTENCES.values()))) == (tau == 1.0 or tau == 1.5)
    assert shapes(model) == {"ctx": (4, 64)}


def test_outliers():
    """Of six scores the one that lies apart; of equal ones, of one or of padding nothing."""
    scores = torch.tensor([[1.0, 1.1, 0.9, 1.0, 1.05, 9.0], [2.0] * 6, [3.0] + [50.0] * 5])
    mask = torch.tensor([[True] * 6, [True] * 6, [True] + [False] * 5])
    kept = kept_sentences(scores, mask, tau=1.5)

    assert kept.tolist() == [[True] * 5 + [False], [True] * 6, [True] + [False] * 5]
    assert torch.equal(kept_sentences(scores, mask, tau=1e-6), mask)
    # 4 / sqrt(5) = 1.79 deviations (n - 1) from the mean, as far as one of five can be.
    one, all_five = torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0]]), torch.ones(1, 5, dtype=torch.bool)
    assert kept_sentences(one, all_five, tau=1.8).all()
    assert not kept_sentences(one, all_five, tau=1.78)[0, 4]


def test_the_teacher_has_no_gradient(frozen64, image_features, label, build):
    model = build("BiomedCoOp", frozen64, symptoms=Symptoms(SENTENCES)).model.double()
    image_features.requires_grad_()

    assert not model.teacher_features(image_features).requires_grad
    _, losses = model.from_features(image_features, label)
    sum(losses.values()).backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {"learned.ctx"}


def test_needs_symptoms(tiny_clip, build):
    with pytest.raises(InputError, match="BiomedCoOp needs the symptoms of every class"):
        build("BiomedCoOp", frozen_clip(tiny_clip))


def test_published_checkpoint(frozen64, build):
    """The original's files hold the whole model: the context is read, the rest left aside."""
    built = build("BiomedCoOp", frozen64, symptoms=Symptoms(SENTENCES))
    ctx = torch.randn(4, 64)
    frozen = {
        "prompt_learner.token_prefix": torch.zeros(3, 1, 64),
        "prompt_learner.token_suffix": torch.zeros(3, 72, 64),
        "prompt_learner.ZS_image_encoder.trunk.cls_token": torch.zeros(1),
        "image_encoder.trunk.cls_token": torch.zeros(1),
        "text_encoder.model.logit_scale": torch.zeros(()),
        "logit_scale": torch.zeros(()),
    }

    built.load({"prompt_learner.ctx": ctx, **frozen})

    assert torch.equal(built.model.learned.ctx, ctx)
    own = built.model.learned.state_dict()
    built.load(own)
    assert set(own) == {"ctx"}


def test_new_classes(four_classes, toy_args, short):
    """Base to new: nothing belongs to a class, and new classes need no sentences to be scored."""
    toy = four_classes
    args = ["--trainer", "BiomedCoOp", *toy_args[:-1]]
    train.main([*args, str(toy / "base"), *short, "DATASET.SUBSAMPLE_CLASSES", "base"])
    train.main(
        [*args, str(toy / "new"), "--eval-only", "--model-dir", str(toy / "base"), *short]
        + ["DATASET.SUBSAMPLE_CLASSES", "new"]
    )

    assert read_record(toy / "new").classnames == ("green", "grey")
    assert read_record(toy / "new").metrics.accuracy is not None


def test_explain_says_that_its_scores_are_not_those_of_symptoms(toy_run, capsys):
    run = toy_run("BiomedCoOp")
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        command_line(lambda: explain.main([str(run)]))()
    lines = capsys.readouterr().err.splitlines()

    assert stopped.value.code == 2
    assert len(lines) == 1
    assert "BiomedCoOp" in lines[0] and "explanations need a run of ViP" in lines[0]
    assert not (run / "explanations").exists()
