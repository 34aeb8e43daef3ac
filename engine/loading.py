"""A finished run as a model that answers: ``load_run(folder)``."""

import contextlib
import copy
import sys
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import torch
import yaml
from dassl.data.datasets import build_dataset
from dassl.data.transforms import build_transform
from PIL import Image
from tqdm import tqdm
from yacs.config import CfgNode as CN

from core.errors import InputError
from datasets.features import FrozenFeatures
from datasets.pictures import read_picture, to_rgb
from datasets.views import ViewManager, seeded_draws
from engine.config import default_cfg, flatten, methods, symptom_file
from engine.run import CONFIG, read_results
from symptoms import Symptoms, read_symptom_file
from trainers.vip import SymptomCLIP

SPLITS = {"train": "train_x", "val": "val", "test": "test"}


def load_run(folder, root=None, device=None):
    """Load what a run's folder holds: its configuration, classes and best checkpoint.

    The dataset's pictures need not be there. Paths in the configuration (symptoms, backbone) are
    read from the current folder, as when the run was made.

    Args:
        folder: a run's folder, the one with config.yaml.
        root: the folder that holds the datasets; the run's own for ``None``.
        device: "cpu" or "cuda"; for ``None`` a GPU where there is one.

    Returns:
        ``LoadedRun``.

    Raises:
        InputError: the folder is no run, or what it was made from changed or is not here.
    """
    folder = Path(folder)
    cfg = read_config(folder, root, device)
    with contextlib.redirect_stdout(sys.stderr):
        results = read_results(folder) or {}
    classnames = results.get("classnames")
    if not classnames:  # stopped before its end; only the dataset can tell
        with contextlib.redirect_stdout(None):
            classnames = list(build_dataset(cfg).classnames)
    # Building a trainer seeds every generator; the caller's stay as they were.
    with contextlib.redirect_stdout(None), seeded_draws(cfg.SEED):
        trainer = _trainer_without_pictures(cfg, classnames)
        trainer.load_model(str(folder))
    trainer.set_model_mode("eval")
    known = results.get("symptom_fingerprint")
    if trainer.symptoms and known not in (None, trainer.symptoms.fingerprint):
        raise InputError(
            f"{symptom_file(cfg)} holds other symptoms than {folder} was made with (fingerprint "
            f"{trainer.symptoms.fingerprint}, the run's {known}); put the run's own file there"
        )
    return LoadedRun(folder, trainer, results)


class LoadedRun:
    """A trained (or zero-shot) model with its classes.

    Attributes:
        folder, cfg, classnames, results: the run's; ``results`` is {} for one without an end.
        symptoms: ``Symptoms``, None for a method that reads none. model: its ``PromptedModel``.
    """

    def __init__(self, folder, trainer, results):
        self.folder = Path(folder)
        self.cfg = trainer.cfg
        self.results = results
        self.classnames = trainer.classnames
        self.symptoms = trainer.symptoms
        self.model = trainer.model
        self._trainer = trainer
        with contextlib.redirect_stdout(None):
            self._transform = build_transform(self.cfg, is_train=False)

    @property
    def name(self):
        """Method, dataset, backbone and seed in one line."""
        cfg = self.cfg
        return f"{cfg.TRAINER.NAME}, {cfg.RUN.DATASET}, {cfg.RUN.BACKBONE}, seed {cfg.SEED}"

    @cached_property
    def _dm(self):
        with contextlib.redirect_stdout(None):
            return ViewManager(self.cfg)

    @property
    def dataset(self):
        """The run's dataset, read when first asked for."""
        return self._dm.dataset

    @cached_property
    def _frozen_features(self):
        return FrozenFeatures(self.cfg, self._dm, self.model.clip)

    def features(self, split):
        """[n, d] image features of a split's test views, as the run itself kept and read them."""
        self.pictures(split)
        return self._frozen_features.of_split(split).float()

    def pictures(self, split):
        """The ``Picture`` objects of ``train``, ``val`` or ``test``."""
        if split not in SPLITS:
            raise InputError(f"there is no split {split!r}; choose one of {', '.join(SPLITS)}")
        return getattr(self.dataset, SPLITS[split])

    def predict(self, images, progress="predicting"):
        """Class probabilities.

        Args:
            images: a picture or several: paths, PIL pictures, or tensors that are views already
                ([3, H, W], normalised, in the backbone's size).

        Returns:
            [n, n_cls] float64, columns in the order of ``classnames``.
        """
        logits = self._through(self.model, images, progress)
        return logits.double().softmax(dim=1).numpy()

    def encode(self, images, progress="encoding"):
        """Image features [n, d] of the frozen CLIP, not normalised, on the CPU."""
        return self._through(self.model.clip.encode_image, images, progress)

    @torch.no_grad()
    def logits(self, image_features):
        """[n, n_cls] float64 logits of features that ``encode`` gave."""
        return self.model(image_features.to(self._device)).double().cpu().numpy()

    def explain(self, images, drop=(), add=()):
        """Why: similarities, attention and exact contributions of every symptom.

        Args:
            images: as for ``predict``.
            drop: symptoms to leave out. add: (class name, phrase) pairs to take in. No training.

        Returns:
            ``explanations.Explanation``; without drop and add it is the run's own answer.

        Raises:
            InputError: the method reads no symptoms, or a symptom or class is unknown.
        """
        from explanations import explain

        return explain(self.with_symptoms(drop, add) if drop or add else self, images)

    def check_symptoms(self):
        """Raise InputError where there is no merge of symptoms to explain."""
        if self.symptoms is None or not isinstance(self.model, SymptomCLIP):
            raise InputError(
                f"{self.folder}: {self.cfg.TRAINER.NAME} reads no symptoms; explanations need a "
                "run of ViP, or of ZeroshotCLIP by symptoms"
            )

    def with_symptoms(self, drop=(), add=()):
        """The same learned parameters reading other symptoms: no training.

        Raises:
            InputError: a symptom or class that is not there, or a class left without symptoms.
        """
        from explanations.what_if import changed_phrases

        self.check_symptoms()
        phrases = changed_phrases(self.symptoms.phrases, drop, add)
        other = copy.copy(self)
        trainer = other._trainer = copy.copy(self._trainer)
        other.symptoms = trainer.symptoms = Symptoms(phrases)
        with seeded_draws(0):
            model = trainer.build_prompted_clip(self.model.clip, self.classnames)
        model.learned.load_state_dict(self.model.learned.state_dict())
        other.model = trainer.model = model.to(trainer.device).eval()
        return other

    @torch.no_grad()
    def _through(self, function, images, progress):
        views = self._views(images)
        size = self.cfg.DATALOADER.TEST.BATCH_SIZE
        starts = range(0, len(views), size)
        bar = tqdm(starts, desc=progress, leave=False, disable=None if len(starts) > 1 else True)
        batches = [
            function(torch.stack([self._view(x) for x in views[i : i + size]]).to(self._device))
            for i in bar
        ]
        return torch.cat([batch.float().cpu() for batch in batches])

    @property
    def _device(self):
        return self._trainer.device

    def _views(self, images):
        if isinstance(images, str | Path | Image.Image):
            return [images]
        if isinstance(images, torch.Tensor):
            return list(images if images.dim() == 4 else images[None])
        images = list(images)
        if not images:
            raise InputError("there are no pictures to look at")
        return images

    def _view(self, image):
        if isinstance(image, torch.Tensor):
            return image
        is_open = isinstance(image, Image.Image)
        return self._transform(to_rgb(image) if is_open else read_picture(image))


def read_config(folder, root=None, device=None):
    """The configuration of the run in ``folder``, frozen; arguments as in ``load_run``."""
    file = Path(folder) / CONFIG
    if not file.is_file():
        what = "there is no such folder" if not file.parent.exists() else f"it holds no {CONFIG}"
        raise InputError(f"{folder} is not a run ({what}); name a folder that train.py wrote")
    try:
        saved = yaml.safe_load(file.read_text(encoding="utf-8"))
        name = saved["TRAINER"]["NAME"]
        trainer = methods()[name]
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError) as error:
        raise InputError(f"{file} is not the configuration of a run of this program") from error
    cfg = default_cfg()
    own = name.upper()
    cfg.TRAINER = CN({"NAME": name, own: CN({**trainer.SHARED_DEFAULTS, **trainer.DEFAULTS})})
    known = flatten(cfg)
    # Foundations differ in what they declare; what neither declares changes nothing.
    chosen = {key: value for key, value in flatten(saved).items() if key in known}
    try:
        for key, value in chosen.items():
            # Quoted, because yacs would read a text such as "1" as a number.
            cfg.merge_from_list([key, repr(value) if isinstance(value, str) else value])
    except (ValueError, AssertionError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file} is not a run's configuration: {reason}") from error
    cfg.OUTPUT_DIR = str(folder)
    cfg.MODEL.COMPILE = False  # pays for many steps, and here there is one
    if root:
        cfg.DATASET.ROOT = str(Path(root).expanduser())
    if device:
        cfg.USE_CUDA = device != "cpu"
    cfg.freeze()
    return cfg


def _trainer_without_pictures(cfg, classnames):
    """The run's trainer, built from its class names alone."""

    # A run on half of the classes reads a symptom file that may hold the other half too.
    path = symptom_file(cfg)
    in_file = list(read_symptom_file(path)[0]) if path else []
    dataset = SimpleNamespace(classnames=classnames, all_classnames=[*classnames, *in_file])

    class Reader(methods()[cfg.TRAINER.NAME]):
        def build_data_loader(self):
            self.dm = SimpleNamespace(dataset=dataset)
            self.num_classes = len(classnames)
            self.lab2cname = dict(enumerate(classnames))
            self.train_loader_x = self.val_loader = self.test_loader = None

    return Reader(cfg)
