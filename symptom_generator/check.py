"""Check a symptom file and, with CLIP at hand, how well each phrase tells its class apart.

python -m symptoms.check symptoms/derm7pt.json [--dataset derm7pt --backbone vit_b16]
"""

import argparse
import random
from pathlib import Path

from core.errors import InputError, command_line
from symptom_generator.phrases import MAX_TOKENS, names_any, same, tokens
from symptoms import load_symptoms, read_symptom_file

CHANCE = 0.55  # an AUC below it says little about the class


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m symptoms.check",
        description="Check a symptom file. With a dataset and a backbone, each phrase also gets "
        "its zero-shot AUC on the training split: its cosine with pictures, its class against "
        "the others.",
    )
    parser.add_argument("file")
    parser.add_argument("--dataset", help="stem of a file in configs/datasets, or a YAML file")
    parser.add_argument("--backbone", help="stem of a file in configs/backbones")
    parser.add_argument("--root", default="data", help="folder of the datasets (default: data)")
    parser.add_argument("--device", default="cpu", help="where CLIP runs (default: cpu)")
    parser.add_argument(
        "--limit", type=int, default=1000, help="training pictures at most, drawn (default: 1000)"
    )
    parser.add_argument("opts", nargs="*", metavar="KEY value", help="settings of the dataset")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    if args.backbone and not args.dataset:
        raise InputError("--backbone goes with --dataset, whose pictures it looks at")
    if args.limit < 1:
        raise InputError(f"--limit is {args.limit}; give 1 or more")
    path = Path(args.file)
    classes, _ = read_symptom_file(path)
    dataset = None
    if args.dataset:
        from dassl.data.datasets import build_dataset

        cfg = backbone_cfg(args.dataset, args.backbone or "vit_b16", args.root, args.opts)
        dataset = build_dataset(cfg)
        load_symptoms(path, dataset.classnames)
    _refuse_long(path, classes)
    scores = {}
    if args.backbone:
        scores, count = _scores(cfg, dataset, classes, args.limit, args.device)
        print(f"AUC: cosine with {count} training pictures, its class against the others")
    weak = _print_classes(classes, scores)
    phrases = sum(len(entry["phrases"]) for entry in classes.values())
    checked = f" for {args.dataset}" if args.dataset else ""
    print(f"\n{path}: valid{checked}, {phrases} phrases in {len(classes)} classes")
    if weak:
        print(f"{weak} phrases to look at; edit the file by hand, it is recorded as such")
    return 0


def backbone_cfg(dataset, backbone, root, opts=()):
    """The configuration of a dataset and a backbone, for no run in particular."""
    import trainers  # noqa: F401  (registers the methods)
    from engine.config import load_cfg

    # Of a method that reads no symptoms: the symptom file is only being made or checked.
    opts = [*opts, "TRAINER.COOP.PREC", "fp32"]
    return load_cfg("CoOp", dataset, backbone, (), opts, root=root)[0]


def phrase_aucs(clip_model, image_features, labels, phrases):
    """How well each phrase's cosine tells the pictures of its class from the others.

    Args:
        image_features: [n, d]. labels: [n], places in ``phrases``.
        phrases: class name -> phrases, in the order of the labels.

    Returns:
        class name -> list of areas under the ROC curve; 0.5 is chance, below it the phrase speaks
        for another class.
    """
    from sklearn.metrics import roc_auc_score

    from backbones.clip_model import cosine_logits
    from engine.prompts import encode_texts

    aucs = {}
    for label, (classname, listed) in enumerate(phrases.items()):
        text_features = encode_texts(clip_model, listed).cpu()
        cosines = cosine_logits(image_features, text_features, image_features.new_zeros(()))
        own = (labels == label).numpy()
        aucs[classname] = [float(roc_auc_score(own, column)) for column in cosines.T.numpy()]
    return aucs


def _scores(cfg, dataset, classes, limit, device):
    import torch
    from dassl.data.transforms import build_transform

    from backbones.clip_model import load_clip
    from datasets.pictures import read_picture

    clip_model = load_clip(cfg, device)
    transform = build_transform(cfg, is_train=False)
    pictures = list(dataset.train_x)
    if len(pictures) > limit:
        pictures = random.Random(0).sample(pictures, limit)
    if len({picture.label for picture in pictures}) < len(dataset.classnames):
        raise InputError(f"--limit {limit} leaves a class without pictures; raise it")
    features = []
    for start in range(0, len(pictures), 64):
        batch = [transform(read_picture(p.impath)) for p in pictures[start : start + 64]]
        features.append(clip_model.encode_image(torch.stack(batch)).cpu())
    labels = torch.tensor([picture.label for picture in pictures])
    phrases = {name: classes[name]["phrases"] for name in dataset.classnames}
    aucs = phrase_aucs(clip_model, torch.cat(features), labels, phrases)
    return aucs, len(pictures)


def _refuse_long(path, classes):
    for name, entry in classes.items():
        for phrase in entry["phrases"]:
            if tokens(phrase) > MAX_TOKENS:
                raise InputError(
                    f"{path}: class {name!r}: {phrase!r} is {tokens(phrase)} tokens long; with a "
                    f"context CLIP reads {MAX_TOKENS}: shorten it"
                )


def _print_classes(classes, scores):
    """Print every phrase with what speaks against it; returns how many have something."""
    owners = {}
    for name, entry in classes.items():
        for phrase in entry["phrases"]:
            owners.setdefault(same(phrase), []).append(name)
    weak = 0
    for name, entry in classes.items():
        print(f"\n{name} ({entry['provenance'] or 'no provenance'})")
        for number, phrase in enumerate(entry["phrases"]):
            notes = []
            named = names_any(phrase, classes)
            if named:
                notes.append(f"names {named!r}")
            if len(owners[same(phrase)]) > 1:
                notes.append(f"also of {', '.join(c for c in owners[same(phrase)] if c != name)}")
            auc = scores[name][number] if scores else None
            if auc is not None and auc < 1 - CHANCE:
                notes.append("speaks for another class")
            elif auc is not None and auc < CHANCE:
                notes.append("weak")
            weak += bool(notes)
            figure = "" if auc is None else f"{auc:.2f}  "
            print(f"  {figure}{phrase}" + (f"  <- {'; '.join(notes)}" if notes else ""))
    return weak


if __name__ == "__main__":
    command_line(main)()
