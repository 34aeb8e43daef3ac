"""What a run asks about: its images, classes and symptoms; and the run's folder that follows."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yacs.config import CfgNode as CN

import trainers  # noqa: F401  (registers the methods)
from core.errors import InputError
from core.files import slug
from datasets.multi_label import check_one_class
from datasets.pictures import Picture
from datasets.views import read_dataset
from engine.config import load_cfg, run_folder
from results.settings import CONFIG, flatten, read_settings
from symptom_generator.montage import image_fingerprint
from symptom_generator.transcript import Record
from symptoms import Symptoms, load_symptoms
from vision_llm.examples import image_features, nearest, places_of
from vision_llm.questions import PROMPTS

NAME = "VisionLLM"
PLACE = 88  # of its row in a table
ANY_METHOD = "CoOp"  # which reads no symptoms; only the dataset's and the backbone's settings count
SEED = 1  # the only one: nothing is drawn but the images of --limit


@dataclass(frozen=True)
class Wanted:
    """What is to be asked, from a command line or from a transcript."""

    dataset: str
    split: str
    limit: int | None
    opts: list[str]
    modality: str
    model: str
    temperature: float | None
    one_by_one: bool
    examples: int
    backbone: str | None
    symptoms: str  # a symptom file; "" for the dataset's

    @classmethod
    def of(cls, settings: Record) -> "Wanted":
        """What a transcript's settings say."""
        return cls(**{name: settings[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Task:
    """A run that can be asked and written.

    Attributes:
        cfg: what the run's config.yaml says. options: what tells its row from others.
        dataset: a ``MedicalDataset``. images: those asked about, in their order.
        files: fingerprint -> path, of these images and of the training images shown as examples.
        symptoms: ``Symptoms``. settings: the transcript's ``Settings``.
    """

    cfg: CN
    options: dict[str, Any]
    dataset: Any
    images: list[Picture]
    files: dict[str, str]
    symptoms: Symptoms
    settings: Record


def new_task(wanted: Wanted, host: str, root: str) -> Task:
    """The task of a command line.

    Args:
        host: of the endpoint. root: the folder of the datasets.

    Raises:
        InputError: a setting, the dataset or the symptom file is wrong.
    """
    cfg, changed = _dataset_cfg(wanted, root)
    dataset = read_dataset(cfg)
    check_one_class(dataset, "VisionLLM")
    file = wanted.symptoms or cfg.DATASET.SYMPTOMS or f"symptoms/{cfg.RUN.DATASET}.json"
    others = set(dataset.all_classnames) - set(dataset.classnames)
    symptoms = load_symptoms(file, dataset.classnames, others)
    images = _chosen(dataset, wanted)
    names = [image_fingerprint(image) for image in images]
    files = dict(zip(names, (image.impath for image in images), strict=True))
    shown: dict[str, list[tuple[str, str]]] = {}
    if wanted.examples:
        shown, more = _examples(cfg, dataset, images, names, wanted)
        files = {**more, **files}
    settings = {
        "record": "settings",
        "format": 1,
        "task": "vision_llm",
        **asdict(wanted),
        "classes": list(dataset.classnames),
        "host": host,
        "prompts": PROMPTS,
        "symptom_file": str(file),
        "phrases": symptoms.phrases,
        "images": names,
        "shown": shown,
    }
    run, options = _run_cfg(cfg, changed, wanted, settings, symptoms)
    return Task(run, options, dataset, images, files, symptoms, settings)


def kept_task(settings: Record, root: str) -> Task:
    """The task of a transcript; the dataset is read for the labels, nothing is encoded.

    Raises:
        InputError: the dataset is not the one that was asked about.
    """
    wanted = Wanted.of(settings)
    cfg, changed = _dataset_cfg(wanted, root)
    dataset = read_dataset(cfg)
    images = _chosen(dataset, wanted)
    names = [image_fingerprint(image) for image in images]
    if names != settings["images"] or list(dataset.classnames) != settings["classes"]:
        raise InputError(
            f"{dataset.dataset_dir}: its {wanted.split} images or classes are not those that the "
            "transcript was made with; put the same data there, or name its folder in --root"
        )
    files = dict(zip(names, (image.impath for image in images), strict=True))
    symptoms = Symptoms(settings["phrases"], {}, settings["symptom_file"])
    run, options = _run_cfg(cfg, changed, wanted, settings, symptoms)
    return Task(run, options, dataset, images, files, symptoms, settings)


def check_folder(folder: Path, cfg: CN) -> None:
    """Raise InputError where ``folder`` holds a run with other settings."""
    if not (folder / CONFIG).exists():
        return
    saved, current = read_settings(folder / CONFIG), flatten(cfg)
    same_anyway = {"OUTPUT_DIR", "DATASET.ROOT", "DATASET.SYMPTOMS", "TRAINER.VISIONLLM.SYMPTOMS"}
    keys = sorted((saved.keys() | current.keys()) - same_anyway)
    if differing := [key for key in keys if saved.get(key) != current.get(key)]:
        raise InputError(
            f"{folder} holds a run with another {', '.join(differing)}; give another --output-dir, "
            "or delete that folder"
        )


def _dataset_cfg(wanted: Wanted, root: str) -> tuple[CN, dict[str, Any]]:
    """The configuration of the dataset and the examples' backbone, and the DATASET options."""
    keys = wanted.opts[::2]
    allowed = ("DATASET.", *(("MODEL.BACKBONE.", "FEATURES.") if wanted.examples else ()))
    for key in keys:
        if not key.startswith(allowed) or key == "DATASET.NUM_SHOTS":
            raise InputError(
                f"{key} has no effect on {NAME}, which is not trained; leave it out (settings of "
                "the dataset count: DATASET.PATH and the like)"
            )
    opts = [*wanted.opts, "PREC", "fp32"]
    cfg, options = load_cfg(
        ANY_METHOD, wanted.dataset, wanted.backbone or "vit_b16", (), opts, root=root, seed=SEED
    )
    return cfg, {key: value for key, value in options.items() if key.startswith("DATASET.")}


def _chosen(dataset: Any, wanted: Wanted) -> list[Picture]:
    """The images of the split; with --limit some of them, drawn by seed, in the same order."""
    images = list(getattr(dataset, wanted.split))
    if not images:
        raise InputError(f"{dataset.dataset_dir}: the {wanted.split} split has no images")
    if wanted.limit is not None and wanted.limit < len(images):
        drawn = random.Random(SEED).sample(range(len(images)), wanted.limit)
        images = [images[place] for place in sorted(drawn)]
    return images


def _examples(
    cfg: CN, dataset: Any, images: Sequence[Picture], names: Sequence[str], wanted: Wanted
) -> tuple[dict[str, list[tuple[str, str]]], dict[str, str]]:
    """Image -> (fingerprint, class) of its examples; and fingerprint -> path of all examples."""
    train = list(dataset.train_x)
    train_names = [image_fingerprint(image) for image in train]
    train_features, features = image_features(cfg, dataset, wanted.split)
    features = features[places_of(images, getattr(dataset, wanted.split))]
    chosen = nearest(features, train_features, names, train_names, wanted.examples)
    shown = {
        name: [(train_names[i], train[i].classname) for i in found]
        for name, found in zip(names, chosen, strict=True)
    }
    files = {train_names[i]: train[i].impath for found in chosen for i in found}
    return shown, files


def _run_cfg(
    cfg: CN, changed: dict[str, Any], wanted: Wanted, settings: Record, symptoms: Symptoms
) -> tuple[CN, dict[str, Any]]:
    """config.yaml of the run, and the options of its row."""
    own: dict[str, Any] = {
        "MODEL": wanted.model,
        "EXAMPLES": wanted.examples,
        "BACKBONE": wanted.backbone if wanted.examples else None,
        "LIMIT": wanted.limit,
        "ONE_BY_ONE": wanted.one_by_one,
        "TEMPERATURE": wanted.temperature,
        "SYMPTOMS": wanted.symptoms,
    }
    options = {f"TRAINER.VISIONLLM.{key}": value for key, value in own.items() if value}
    if wanted.temperature == 0:
        options["TRAINER.VISIONLLM.TEMPERATURE"] = 0
    options |= changed | ({"TEST.SPLIT": wanted.split} if wanted.split != "test" else {})
    own |= {"MODALITY": wanted.modality, "HOST": settings["host"]}
    own["SYMPTOMS"] = settings["symptom_file"]
    run = {
        "DATASET": cfg.RUN.DATASET,
        "BACKBONE": slug(wanted.model) or "model",
        "SYMPTOMS": symptoms.fingerprint,
    }
    node = CN(
        {
            "OUTPUT_DIR": "",
            "SEED": SEED,
            "RUN": run,
            "TEST": {"SPLIT": wanted.split},
            "DATASET": cfg.DATASET.clone(),
            "TRAINER": {"NAME": NAME, NAME.upper(): own},
        }
    )
    # The model's name is a folder of its own, where a backbone's would be.
    told = {k: v for k, v in options.items() if k != "TRAINER.VISIONLLM.MODEL"}
    node.OUTPUT_DIR = str(Path("output") / run_folder(node, told))
    return node, options
