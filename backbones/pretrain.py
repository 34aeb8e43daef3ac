"""Train the two small CLIPs on the drawn world from nothing, and say what they learned.

    python -m backbones.pretrain              # tiny_rn, then tiny, which learns from it
    python -m backbones.pretrain --report     # how well each shipped file knows each attribute

What an interrupted run left in ``--work`` is taken up only by the sources that it was made with.

The ResNet learns first, with the text tower, by the symmetric contrastive loss on pictures and
captions. A caption is often true of several pictures of a batch, so the target is spread over all
that it is true of. Left to this alone, attributes are discovered one after the other, each after a
long wait; so for the first part of the training one linear head, which is then thrown away, has to
read the attributes from a picture's features and the stated ones from a caption's. The transformer
then learns with the text tower frozen, from captions and from the ResNet's features. Pictures are
drawn with all attributes alike: nothing tells a disease.
"""

import argparse
import copy
import math
import random
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from clip.model import CLIP, convert_weights
from clip.simple_tokenizer import SimpleTokenizer
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch.nn import functional as F

import backbones
from backbones import IDS, ROWS, SEED, STD, TOKENS, USED, captions, expand_token_table
from backbones.device import usable_device
from backbones.families.openai_clip import MEAN, clip_of
from backbones.families.openai_clip import STD as DEVIATION
from core.errors import InputError, command_line
from core.files import atomic_write, fingerprint
from core.processes import end_worker_with_parent
from datasets import drawing, synthetic

FOLDER = Path(__file__).resolve().parent

VISION = {  # the picture tower's layers, width, patch
    "tiny_rn": {"vision_layers": (1, 1, 2, 1), "vision_width": 24, "vision_patch_size": None},
    "tiny": {"vision_layers": 4, "vision_width": 128, "vision_patch_size": 8},
}
EMBED_DIM, TEXT_WIDTH, TEXT_LAYERS, CONTEXT = 96, 128, 3, 77
# 22 and 34 minutes on two cores that others used as well.
STEPS = {"tiny_rn": 900, "tiny": 1900}
LEARNING_RATE = {"tiny_rn": 1.5e-3, "tiny": 1e-3}
PICTURES = {"SynthDerm": 24000, "SynthChest": 12000}
BATCH = {"SynthDerm": 128, "SynthChest": 64}
LONGEST = 56  # tokens of a caption in training
STRANGERS = 256  # rows for words that no caption uses, drawn afresh at every step
TRAIN_SEED, HELD_OUT_SEED = 1, 2

ATTRIBUTES = {world.name: [a.name for a in world.attributes] for world in synthetic.WORLDS}
VALUES = [
    (world.name, attribute.name, value)
    for world in synthetic.WORLDS
    for attribute in world.attributes
    for value in attribute.values
]


GROUPS = [  # the places of an attribute's values
    [i for i, (world_name, name, _) in enumerate(VALUES) if (world_name, name) == key]
    for key in dict.fromkeys((world_name, name) for world_name, name, _ in VALUES)
]


class Vocabulary:
    """The tokens that captions use, numbered without gaps: words, strangers, start, end."""

    def __init__(self):
        self.tokenizer = SimpleTokenizer()
        encode = self.tokenizer.encode
        assert not captions.DISEASE_WORDS.intersection(captions.words())
        words = sorted({token for word in captions.words() for token in encode(word)})
        ends = [self.tokenizer.encoder[end] for end in ("<|startoftext|>", "<|endoftext|>")]
        self.rows = len(self.tokenizer.encoder)
        self.n_words = len(words)
        self.ids = words + ends
        self.place = {token: i for i, token in enumerate(words)}
        self.start, self.end = self.n_words + STRANGERS, self.n_words + STRANGERS + 1

    def __len__(self):
        return self.n_words + STRANGERS + 2

    def encode(self, text):
        return [self.place[token] for token in self.tokenizer.encode(text)]

    def is_stranger(self):
        return slice(self.n_words, self.n_words + STRANGERS)

    def kept(self):
        """Places of the rows to keep, in the order of ``ids``."""
        return [*range(self.n_words), self.start, self.end]


def _draw(task):
    world_index, seed, first, last, classname = task
    world = synthetic.WORLDS[world_index]
    drawn = [synthetic.picture(world, seed, i, classname) for i in range(first, last)]
    return np.stack([pixels for pixels, _ in drawn]), [attributes for _, attributes in drawn]


def draw_pictures(world, seed, n, classname=None):
    """[n, 3, 64, 64] uint8 and the pictures' attributes; two processes draw where it pays."""
    at = synthetic.WORLDS.index(world)
    tasks = [(at, seed, i, min(i + 500, n), classname) for i in range(0, n, 500)]
    if len(tasks) > 1:
        with ProcessPoolExecutor(2, initializer=end_worker_with_parent) as pool:
            parts = list(pool.map(_draw, tasks))
    else:
        parts = [_draw(task) for task in tasks]
    pixels = torch.from_numpy(np.concatenate([p for p, _ in parts])).permute(0, 3, 1, 2)
    return pixels.contiguous(), [attributes for _, part in parts for attributes in part]


def new_model(name, vocabulary_size):
    return CLIP(
        embed_dim=EMBED_DIM,
        image_resolution=drawing.SIZE,
        **VISION[name],
        context_length=CONTEXT,
        vocab_size=vocabulary_size,
        transformer_width=TEXT_WIDTH,
        transformer_heads=TEXT_WIDTH // 64,
        transformer_layers=TEXT_LAYERS,
    )


def normalise(pixels):
    """uint8 [n, 3, 64, 64] to what CLIP's picture tower reads."""
    mean = torch.tensor(MEAN, device=pixels.device)[:, None, None]
    deviation = torch.tensor(DEVIATION, device=pixels.device)[:, None, None]
    return (pixels.float() / 255 - mean) / deviation


def augment(x, is_lesion, rng):
    """Flip, crop and shade every picture, and turn lesions by quarters; one resampling.

    Nothing that a caption says changes: captions never name a side.
    """
    n = len(x)
    turn = torch.tensor(rng.integers(0, 4, n) * (np.pi / 2)) * is_lesion
    flip = torch.tensor(rng.choice((-1.0, 1.0), n))
    cropped = rng.random(n) < 0.6
    zoom = torch.tensor(np.where(cropped, rng.uniform(0.62, 1.0, n), 1.0))
    shift = torch.tensor(rng.uniform(-1, 1, (n, 2))) * (1 - zoom)[:, None]
    theta = torch.stack(
        (
            torch.stack((turn.cos() * zoom * flip, -turn.sin() * zoom, shift[:, 0]), 1),
            torch.stack((turn.sin() * zoom * flip, turn.cos() * zoom, shift[:, 1]), 1),
        ),
        1,
    ).float()
    grid = F.affine_grid(theta, list(x.shape), align_corners=False).to(x.device)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    shade = torch.tensor(rng.normal(0, 0.08, (n, 3, 1, 1)), dtype=torch.float32, device=x.device)
    return x + torch.where(is_lesion.to(x.device)[:, None, None, None] > 0, shade, shade[:, :1])


def indicators(world_name, attributes):
    """Which of ``VALUES`` a picture has; of an opacity that is not there, no zone."""
    seen = {a: v for a, v in attributes.items() if captions.can_be_said(a, attributes)}
    return [w == world_name and seen.get(a) == value for w, a, value in VALUES]


def stated(world_name, facts):
    """Which of ``VALUES`` belong to an attribute that ``facts`` speaks of."""
    return [w == world_name and a in facts for w, a, _ in VALUES]


def allowed(world_name, facts):
    """Which of ``VALUES`` a picture may have for a caption with these facts to be true."""
    return [w == world_name and (a not in facts or value in facts[a]) for w, a, value in VALUES]


def caption_batch(vocabulary, batch, rng):
    """Captions for [(world, attributes)].

    Returns:
        compact tokens [n, length], their ends [n], the values allowed [n, values], the values of
        the attributes that are spoken of [n, values].
    """
    rows, permitted, spoken = [], [], []
    for world, attributes in batch:
        while True:
            text, facts = captions.caption(world, attributes, rng)
            row = vocabulary.encode(text)
            if len(row) <= LONGEST:
                break
        # Strange words, before the caption (as a learned context will stand) or anywhere in it.
        if rng.random() < 0.35:
            row = [_stranger(vocabulary, rng) for _ in range(rng.randint(1, 6))] + row
        if rng.random() < 0.2:
            for _ in range(rng.randint(1, 3)):
                row.insert(rng.randint(0, len(row)), _stranger(vocabulary, rng))
        rows.append([vocabulary.start, *row, vocabulary.end])
        permitted.append(allowed(world.name, facts))
        spoken.append(stated(world.name, facts))
    length = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    ends = torch.tensor([len(row) - 1 for row in rows])
    return tokens, ends, torch.tensor(permitted), torch.tensor(spoken)


def _stranger(vocabulary, rng):
    return vocabulary.n_words + rng.randrange(STRANGERS)


def encode_text(model, tokens, ends):
    """Text features of compact tokens, in three parts by length: short captions cost little."""
    order = ends.argsort()
    features = []
    for part in order.tensor_split(3):
        x = model.token_embedding(tokens[part, : int(ends[part].max()) + 1])
        x = x + model.positional_embedding[: x.shape[1]]
        x = model.transformer(x.permute(1, 0, 2))  # [length, n, width]
        x = x[ends[part], torch.arange(len(part), device=x.device)]
        features.append(model.ln_final(x) @ model.text_projection)
    return torch.cat(features)[order.argsort()]


def contrastive_loss(image_features, text_features, scale, true):
    """Symmetric cross-entropy; the target is even over the pairs that are ``true`` [n, m]."""
    logits = scale * F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).t()
    true = true.float()
    by_picture = -(logits.log_softmax(1) * true / true.sum(1, keepdim=True)).sum(1)
    by_caption = -(logits.log_softmax(0) * true / true.sum(0, keepdim=True)).sum(0)
    return (by_picture.mean() + by_caption.mean()) / 2


def naming_loss(scores, permitted, asked):
    """Cross-entropy of a linear head that names attributes.

    Args:
        scores: [n, values], of ``VALUES``.
        permitted: [n, values], the values that are right; several may be.
        asked: [n, values], where the value's attribute is asked at all.

    Returns:
        the mean over what is asked.
    """
    losses = []
    for group in GROUPS:
        rows = asked[:, group[0]].bool()
        if rows.any():
            chances = scores[rows][:, group].log_softmax(1)
            chances = chances.masked_fill(~permitted[rows][:, group], -torch.inf)
            losses.append(-chances.logsumexp(1))
    return torch.cat(losses).mean()


def learning_rate(step, steps, peak):
    if step < 100:
        return peak * (step + 1) / 100
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - 100) / max(1, steps - 100))))


def temperature(step, steps):
    """exp(logit_scale): from CLIP's starting 14 to the 100 that CLIP ends at, by a fixed course."""
    return 14.3 * (100 / 14.3) ** min(1.0, max(0.0, (step / steps - 0.3) / 0.5))


class Data:
    """Training pictures of both worlds, drawn once and kept as bytes."""

    def __init__(self, work):
        self.pixels, self.indicators, self.attributes = {}, {}, {}
        for world in synthetic.WORLDS:
            kept = work / f"{world.name}.pictures"  # an interrupted run needn't draw again
            if not kept.exists():
                with atomic_write(kept, "wb") as file:
                    torch.save(draw_pictures(world, TRAIN_SEED, PICTURES[world.name]), file)
            pixels, attributes = torch.load(kept, weights_only=True)
            self.pixels[world.name], self.attributes[world.name] = pixels, attributes
            self.indicators[world.name] = torch.tensor(
                [indicators(world.name, a) for a in attributes]
            )

    def batch(self, rng):
        pixels, batch, has = [], [], []
        for world in synthetic.WORLDS:
            chosen = rng.integers(0, len(self.pixels[world.name]), BATCH[world.name])
            pixels.append(self.pixels[world.name][chosen])
            has.append(self.indicators[world.name][chosen])
            batch += [(world, self.attributes[world.name][i]) for i in chosen]
        is_lesion = torch.tensor([world.name == "SynthDerm" for world, _ in batch]).float()
        return torch.cat(pixels), batch, torch.cat(has), is_lesion


def train(name, steps, device, work, teacher=None, data=None):
    """Train model ``name``; goes on from ``work`` where an interrupted run left its state.

    With a ``teacher``, its text tower is taken and frozen, and its picture features are matched.
    """
    vocabulary = Vocabulary()
    torch.manual_seed(TRAIN_SEED)
    model = new_model(name, len(vocabulary)).to(device)
    if teacher is not None:
        visual = {k: v for k, v in model.state_dict().items() if k.startswith("visual.")}
        model.load_state_dict(teacher.state_dict() | visual, strict=False)
        teacher.eval()
    head = torch.nn.Linear(EMBED_DIM, len(VALUES)).to(device)
    learned = [
        p
        for k, p in model.named_parameters()
        if k != "logit_scale" and (teacher is None or k.startswith("visual."))
    ]
    learned += head.parameters()
    groups = [
        {"params": [p for p in learned if p.ndim >= 2], "weight_decay": 0.02},
        {"params": [p for p in learned if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))
    state_file, first, spent = work / f"{name}-{steps}.state", 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        head.load_state_dict(state["head"])
        optimiser.load_state_dict(state["optimiser"])
        first, spent = state["step"], state["seconds"]

    began, losses = time.monotonic(), []
    for step in range(first, steps):
        rng = np.random.default_rng([TRAIN_SEED, len(name), step])
        torch.manual_seed(step)
        pixels, batch, has, is_lesion = data.batch(rng)
        tokens, ends, permitted, spoken = caption_batch(
            vocabulary, batch, random.Random(int(rng.integers(2**62)))
        )
        true = (has.float() @ (~permitted).float().t()) == 0
        x = augment(normalise(pixels.to(device)), is_lesion, rng)
        with torch.no_grad():
            model.token_embedding.weight[vocabulary.is_stranger()].normal_(std=STD)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps, LEARNING_RATE[name])
        scale = temperature(step, steps) if teacher is None else 100.0
        model.train()
        # Half precision for speed; the last quarter settles in fp32.
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=step < 0.75 * steps):
            x = x.contiguous(memory_format=torch.channels_last)
            image_features = model.visual(x)
            with torch.set_grad_enabled(teacher is None):
                text_features = encode_text(model, tokens.to(device), ends.to(device))
            if teacher is not None:
                with torch.no_grad():
                    target = F.normalize(teacher.visual(x).float(), dim=-1)
        image_features, text_features = image_features.float(), text_features.float()
        loss = contrastive_loss(image_features, text_features, scale, true.to(device))
        if teacher is None and step < 0.7 * steps:
            x, y = (12 * F.normalize(f, dim=-1) for f in (image_features, text_features))
            named = has.to(device)
            of_world = torch.cat(
                [named[:, g].any(1, keepdim=True).expand(-1, len(g)) for g in GROUPS], 1
            )
            loss = loss + 4 * naming_loss(head(x), named, of_world)
            loss = loss + 4 * naming_loss(head(y), permitted.to(device), spoken.to(device))
        if teacher is not None:
            matched = F.normalize(image_features, dim=-1)
            loss = 0.3 * loss + 20 * (1 - (matched * target).sum(-1)).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimiser.step()
        losses.append(loss.item())
        if (step + 1) % 100 == 0 or step + 1 == steps:
            seconds = spent + time.monotonic() - began
            with torch.no_grad():
                model.logit_scale.fill_(math.log(scale))
            with atomic_write(state_file, "wb") as file:
                torch.save(
                    {
                        "model": model.state_dict(),
                        "head": head.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "step": step + 1,
                        "seconds": seconds,
                    },
                    file,
                )
            rate = (time.monotonic() - began) / (step + 1 - first)
            print(
                f"{name} {step + 1}/{steps} loss {np.mean(losses[-100:]):.4f} "
                f"{rate:.2f} s a step, {seconds / 60:.1f} min",
                flush=True,
            )
    return model.eval()


def save(model, path):
    """Write OpenAI's keys in half precision, with only the rows of tokens that captions use."""
    vocabulary = Vocabulary()
    model = copy.deepcopy(model)
    convert_weights(model)  # biases too, as OpenAI's files have it
    state = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    state[USED] = state.pop(TOKENS)[vocabulary.kept()]
    state = {k: v.half() if v.is_floating_point() and v.ndim >= 2 else v for k, v in state.items()}
    state |= {
        IDS: torch.tensor(vocabulary.ids, dtype=torch.int32),
        ROWS: torch.tensor(vocabulary.rows),
        SEED: torch.tensor(TRAIN_SEED),
    }
    with atomic_write(path, "wb") as file:
        torch.save(state, file)


def load(path, seed=None):
    """A checkpoint as a model in fp32, the unused rows drawn with ``seed``."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    return clip_of(expand_token_table(state, seed))


def tokenize(texts, tokenizer=None):
    """[n, 77] of OpenAI's token ids."""
    tokenizer = tokenizer or SimpleTokenizer()
    tokens = torch.zeros(len(texts), CONTEXT, dtype=torch.long)
    for i, text in enumerate(texts):
        row = [tokenizer.encoder["<|startoftext|>"], *tokenizer.encode(text)]
        row.append(tokenizer.encoder["<|endoftext|>"])
        tokens[i, : len(row)] = torch.tensor(row)
    return tokens


@torch.no_grad()
def image_features(model, pixels, chunk=200):
    parts = [model.encode_image(normalise(part)) for part in pixels.split(chunk)]
    return F.normalize(torch.cat(parts), dim=-1)


@torch.no_grad()
def text_features(model, texts):
    return F.normalize(model.encode_text(tokenize(texts)), dim=-1)


def attribute_aucs(model, world, pixels, attributes, wordings=None):
    """How well held-out wordings tell an attribute's values apart, picture by picture.

    For two values, the score is the cosine with a wording of the one less that with a wording of
    the other; the AUC is that of this score on pictures that have the one or the other.

    Returns:
        {attribute: (mean AUC over pairs of single wordings, the worst such pair, the AUC with the
        wordings of a value averaged)}, each the mean over pairs of values but the worst.
    """
    wordings = wordings or captions.HELD_OUT[world.name]
    images = image_features(model, pixels)
    result = {}
    for name, values in wordings.items():
        scores = {v: images @ text_features(model, list(t)).t() for v, t in values.items()}
        single, ensemble = [], []
        asked = np.array([captions.can_be_said(name, a) for a in attributes])
        for one, other in _pairs(list(values)):
            has_one = np.array([a[name] == one for a in attributes])
            has_other = np.array([a[name] == other for a in attributes])
            use = (has_one | has_other) & asked
            truth = has_one[use]
            for s in scores[one].t():
                for t in scores[other].t():
                    single.append(roc_auc_score(truth, (s - t).numpy()[use]))
            mean = scores[one].mean(1) - scores[other].mean(1)
            ensemble.append(roc_auc_score(truth, mean.numpy()[use]))
        result[name] = (np.mean(single), np.min(single), np.mean(ensemble))
    return result


def _pairs(values):
    return [(a, b) for i, a in enumerate(values) for b in values[i + 1 :]]


def names_accuracy(path, world, seeds=20, n=200):
    """Balanced accuracy of zero-shot by class names, for each seed of the untrained rows."""
    model = load(path)
    drawn = [draw_pictures(world, HELD_OUT_SEED + 1, n, c)[0] for c in world.prior]
    images, truth = image_features(model, torch.cat(drawn)), np.repeat(np.arange(len(drawn)), n)
    state = torch.load(path, map_location="cpu", weights_only=True)
    accuracies = []
    for seed in range(seeds):
        model.token_embedding.weight.data = expand_token_table(state, seed)[TOKENS]
        texts = text_features(model, [f"a photo of a {c}." for c in world.prior])
        accuracies.append(balanced_accuracy_score(truth, (images @ texts.t()).argmax(1).numpy()))
    return accuracies


def report(paths, n=2000):
    """Print the table of AUCs and what the names of the classes tell."""
    for path in paths:
        model = load(path)
        size = path.stat().st_size / 2**20
        print(f"\n{path.name}, {size:.1f} MB")
        print(
            f"{'world':<11}{'attribute':<13}{'one wording':>12}{'worst pair':>12}{'averaged':>10}"
        )
        single, averaged = [], []
        for world in synthetic.WORLDS:
            pixels, attributes = draw_pictures(world, HELD_OUT_SEED, n)
            for name, auc in attribute_aucs(model, world, pixels, attributes).items():
                print(f"{world.name:<11}{name:<13}{auc[0]:>12.3f}{auc[1]:>12.3f}{auc[2]:>10.3f}")
                single.append(auc[0])
                averaged.append(auc[2])
        print(f"{'mean':<24}{np.mean(single):>12.3f}{'':>12}{np.mean(averaged):>10.3f}")
        print(f"{'least':<24}{np.min(single):>12.3f}{'':>12}{np.min(averaged):>10.3f}")
        for world in synthetic.WORLDS:
            accuracies = names_accuracy(path, world)
            print(
                f"{world.name} by names, balanced accuracy over {len(accuracies)} seeds of the "
                f"untrained rows: {np.mean(accuracies):.3f} (deviation {np.std(accuracies):.3f})"
            )


def work_folder(parent):
    """The folder below ``parent`` of what the drawing, the captions and the training now are."""
    drawn = sorted(Path(drawing.__file__).parent.glob("draw*.py"))
    modules = (synthetic.__file__, *drawn, captions.__file__, backbones.__file__, __file__)
    return parent / fingerprint([fingerprint(Path(module).read_bytes()) for module in modules])


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m backbones.pretrain",
        description="Train the small CLIPs, or report what they learned.",
    )
    parser.add_argument(
        "--model", choices=list(VISION), help="train only this one; tiny needs tiny_rn"
    )
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("output/pretrain"),
        help="folder for drawn images and unfinished trainings; in it one for each state of "
        "the sources, so that a change of drawing, captions or training starts anew "
        "(default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the two checkpoints")
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args(argv)
    if args.steps is not None and args.steps < 1:
        raise InputError(f"--steps is {args.steps}; give 1 or more")
    if args.report:
        paths = [args.out / f"{name}.pt" for name in VISION if (args.out / f"{name}.pt").exists()]
        if not paths:
            names = " or ".join(f"{name}.pt" for name in VISION)
            raise InputError(f"--out {args.out}: holds no {names} to report on")
        return report(paths)
    device = usable_device(args.device)
    work = work_folder(args.work)
    work.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    data = Data(work)
    print(f"images drawn in {time.monotonic() - began:.0f} s", flush=True)
    teacher = None
    for name in ("tiny_rn", "tiny"):
        steps = args.steps or STEPS[name]
        # An interrupted or finished run of the ResNet is taken up, also to teach the transformer.
        if name == "tiny_rn" or args.model != "tiny_rn":
            model = train(
                name,
                steps if args.model in (name, None) else STEPS[name],
                device,
                work,
                teacher,
                data,
            )
            save(model, args.out / f"{name}.pt")
            teacher = model


if __name__ == "__main__":
    command_line(main)()
