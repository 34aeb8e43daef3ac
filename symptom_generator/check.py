"""Check a symptom file and, with CLIP at hand, how well each phrase tells its class apart.

python -m symptoms.check symptoms/derm7pt.json [--dataset derm7pt --backbone vit_b16]
"""

import argparse
import random
from collections.abc import Collection, Mapping, Sequence
from itertools import islice

from core.arguments import help_first
from core.errors import InputError, command_line


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m symptoms.check",
        description="Check a symptom file. With a dataset and a backbone, each phrase also gets "
        "its zero-shot AUC on the training split: by its cosine with the images, those of its "
        "class against the others.",
    )
    add = parser.add_argument
    add("file", help="symptom file")
    add("--dataset", help="name of a file in configs/datasets, or a YAML file")
    add("--backbone", help="name of a file in configs/backbones, or a YAML file")
    add("--root", default="data", help="folder of the datasets (default: %(default)s)")
    add("--device", default="cpu", help="where CLIP runs (default: %(default)s)")
    add("--limit", type=int, default=1000, help="maximum number of training images, drawn at "
        "random (default: %(default)s)")  # fmt: skip
    add("opts", nargs="*", metavar="KEY value", help="settings of the dataset")
    return parser


help_first(__name__, make_parser)

import torch

import trainers  # noqa: F401  (registers the methods, and makes dassl importable)

# isort: split
from dassl.data.datasets import build_dataset
from dassl.data.transforms import build_transform
from sklearn.metrics import roc_auc_score
from torch import Tensor
from yacs.config import CfgNode

from backbones.backbone import Backbone
from backbones.loading import backbone_of, with_preprocessing
from backbones.numerics import cosine_logits
from datasets.base import MedicalDataset
from datasets.dicom import rendering_of
from datasets.multi_label import check_one_class
from datasets.pictures import read_picture
from engine.prompts import encode_texts
from symptom_generator.phrases import MAX_TOKENS, NameFinder, tokens
from symptom_generator.sources import backbone_cfg
from symptoms import NO_FINDING, SymptomFile, Symptoms
from symptoms.phrases import same

CHANCE = 0.55  # an AUC below it says little about the class
SHOWN = 3  # other owners of a phrase that a note names


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    return make_parser().parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    if args.backbone and not args.dataset:
        raise InputError("--backbone needs --dataset, whose images it encodes")
    if args.limit < 1:
        raise InputError(f"--limit is {args.limit}; give 1 or more")
    file = SymptomFile.read(args.file)
    if args.dataset:
        cfg = backbone_cfg(args.dataset, args.backbone or "vit_b16", args.root, args.opts)
        dataset = build_dataset(cfg)
        if args.backbone:
            check_one_class(dataset, "the AUC of phrases (--backbone)")
        if dataset.findings:
            file = file.sharing(NO_FINDING, dataset.classnames[len(dataset.findings) :])
        symptoms = file.select(dataset.classnames, dataset.all_classnames)
    else:
        symptoms = file.select(list(file.classes))
    symptoms.check_lengths(tokens, MAX_TOKENS)
    scores = None
    if args.backbone:
        scores, count = _scores(cfg, dataset, symptoms.phrases, args.limit, args.device)
        print(f"AUC: cosine with {count} training images, its class against the others")
    weak = _print_classes(symptoms, NameFinder([*symptoms.phrases, *file.classes]), scores)
    count = sum(map(len, symptoms.phrases.values()))
    checked = f" for {args.dataset}" if args.dataset else ""
    print(f"\n{file.path}: valid{checked}, {count} phrases in {len(symptoms.phrases)} classes")
    if weak:
        print(f"check these {weak} phrases; if you edit the file, its provenance will state that")
    return 0


def phrase_aucs(
    clip_model: Backbone, image_features: Tensor, labels: Tensor, phrases: Mapping[str, list[str]]
) -> dict[str, list[float]]:
    """How well each phrase's cosine separates the images of its class from the others.

    Args:
        image_features: [n, d]. labels: [n], places in ``phrases``.
        phrases: class name -> phrases, in the order of the labels.

    Returns:
        class name -> list of areas under the ROC curve; 0.5 is chance, below it the phrase speaks
        for another class.
    """
    aucs = {}
    for label, (classname, listed) in enumerate(phrases.items()):
        text_features = encode_texts(clip_model, listed).cpu()
        cosines = cosine_logits(image_features, text_features, image_features.new_zeros(()))
        own = (labels == label).numpy()
        aucs[classname] = [float(roc_auc_score(own, column)) for column in cosines.T.numpy()]
    return aucs


def _scores(
    cfg: CfgNode, dataset: MedicalDataset, phrases: dict[str, list[str]], limit: int, device: str
) -> tuple[dict[str, list[float]], int]:
    """The AUC of every phrase, and on how many training images."""
    clip_model = backbone_of(cfg, device)
    transform = build_transform(with_preprocessing(cfg, clip_model), is_train=False)
    if transform is None:
        raise InputError("INPUT.NO_TRANSFORM gives CLIP no tensors to read; remove the setting")
    images = list(dataset.train_x)
    if len(images) > limit:
        images = random.Random(0).sample(images, limit)
    if len({image.label for image in images}) < len(dataset.classnames):
        raise InputError(f"--limit {limit} leaves a class without images; raise it")
    features = []
    rendering = rendering_of(cfg.DATASET)
    for start in range(0, len(images), 64):
        batch = [
            transform(read_picture(image.impath, rendering=rendering))
            for image in images[start : start + 64]
        ]
        features.append(clip_model.encode_image(torch.stack(batch)).cpu())
    labels = torch.tensor([image.label for image in images])
    return phrase_aucs(clip_model, torch.cat(features), labels, phrases), len(images)


def _print_classes(
    symptoms: Symptoms, names: NameFinder, scores: Mapping[str, list[float]] | None
) -> int:
    """Print every phrase with what speaks against it; returns how many have something."""
    owners: dict[str, dict[str, None]] = {}
    for name, listed in symptoms.phrases.items():
        for phrase in listed:
            owners.setdefault(same(phrase), {})[name] = None
    weak = 0
    for name, listed in symptoms.phrases.items():
        print(f"\n{name} ({symptoms.provenance.get(name) or 'no provenance'})")
        for number, phrase in enumerate(listed):
            auc = scores[name][number] if scores else None
            notes = _notes(phrase, name, names, owners[same(phrase)], auc)
            weak += bool(notes)
            figure = "" if auc is None else f"{auc:.2f}  "
            print(f"  {figure}{phrase}" + (f"  <- {'; '.join(notes)}" if notes else ""))
    return weak


def _notes(
    phrase: str, classname: str, names: NameFinder, owners: Collection[str], auc: float | None
) -> list[str]:
    """What speaks against a phrase of ``classname``."""
    notes = []
    if named := names.find(phrase):
        notes.append(f"names {named!r}")
    if len(owners) > 1:
        others = list(islice((name for name in owners if name != classname), SHOWN))
        more = len(owners) - 1 - len(others)
        notes.append(f"also of {', '.join(others)}" + (f" and {more} more" if more > 0 else ""))
    if auc is not None and auc < CHANCE:
        notes.append("weak" if auc >= 1 - CHANCE else "speaks for another class")
    return notes


if __name__ == "__main__":
    command_line(main)()
