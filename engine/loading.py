"""A finished run as a model that predicts: ``load_run(folder)``."""

import contextlib
import copy
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dassl.data.datasets import build_dataset
from PIL import Image
from torch import Tensor
from tqdm import tqdm
from yacs.config import CfgNode as CN

from backbones.backbone import Backbone
from backbones.device import usable_device
from backbones.loading import backbone_of, with_preprocessing
from core.errors import InputError
from datasets.dicom import Rendering, rendering_of
from datasets.features import FrozenFeatures
from datasets.pictures import read_picture, to_rgb
from datasets.views import ViewManager, checked_transform, seeded_draws
from engine.config import default_cfg, method_node, method_of, read_symptoms, symptom_file
from engine.labels import finding_logits
from engine.learned import find_checkpoint, load_checkpoint, load_learned
from engine.method import METHODS, Method, PromptedModel
from engine.symptom_model import SymptomModel
from results.findings import DEFAULT_THRESHOLD
from results.record import Record, find_record
from results.settings import CONFIG, flatten, read_nested
from symptoms import Symptoms

SPLITS = {"train": "train_x", "val": "val", "test": "test"}
ImageSource = str | Path | Image.Image | Tensor


def load_run(
    folder: Path | str, root: Path | str | None = None, device: str | None = None
) -> "LoadedRun":
    """Load what a run's folder holds: its configuration, classes and best checkpoint.

    The dataset's images need not be there. Paths in the configuration (symptoms, backbone) are
    read from the current folder, as when the run was made.

    Args:
        folder: a run's folder, the one with config.yaml.
        root: the folder that holds the datasets; the run's own for ``None``.
        device: "cpu" or "cuda"; for ``None`` a GPU where there is one.

    Raises:
        InputError: the folder is not a run, or what it was made from changed or is not here.
    """
    folder = Path(folder)
    with contextlib.redirect_stdout(sys.stderr):
        record = find_record(folder)
    if record and record.own_model:
        raise InputError(
            f"{folder}: this model was asked at an endpoint and is not here; its answers are in "
            f"{folder / 'answers.html'}"
        )
    cfg = read_config(folder, root, device)
    classnames = list(record.classnames) if record else []
    if not classnames:  # stopped before its end; only the dataset can tell
        with contextlib.redirect_stdout(None):
            classnames = list(build_dataset(cfg).classnames)
    method = method_of(cfg)
    fingerprint = record.symptom_fingerprint if record else None
    symptoms = _symptoms_of(cfg, folder, classnames, fingerprint)
    # Building draws the start of what is learned; the caller's generators stay as they were.
    with contextlib.redirect_stdout(None), seeded_draws(cfg.SEED):
        backbone = backbone_of(cfg, _device(cfg))
        cfg = with_preprocessing(cfg, backbone)
        model = method.build(backbone, classnames, symptoms)
        if any(p.requires_grad for p in model.learned.parameters()):
            load_checkpoint(find_checkpoint(folder, method), method, model, classnames)
    return LoadedRun(folder, cfg, method, _learned(model), classnames, symptoms, record)


def _learned(model: PromptedModel) -> PromptedModel:
    """The model, which learns no more: it encodes each symptom by itself and once."""
    model.eval()
    if isinstance(model, SymptomModel):
        model.keep_features()
    return model


def _device(cfg: CN) -> torch.device:
    return torch.device("cuda" if cfg.USE_CUDA and torch.cuda.is_available() else "cpu")


def _symptoms_of(
    cfg: CN, folder: Path, classnames: Sequence[str], known: str | None
) -> Symptoms | None:
    """The symptoms that the run reads, checked to be those that it was made with."""
    path = symptom_file(cfg)
    if path is None:
        return None
    # A run on half of the classes reads a symptom file that may hold the other half too.
    symptoms = read_symptoms(path, classnames, None, cfg.DATASET.MULTI_LABEL)
    if known not in (None, symptoms.fingerprint):
        raise InputError(
            f"{path} holds other symptoms than {folder} was made with (fingerprint "
            f"{symptoms.fingerprint}, the run's {known}); put the run's own file there"
        )
    return symptoms


class LoadedRun:
    """A trained (or zero-shot) model with its classes.

    Attributes:
        folder, cfg, method, classnames, record: the run's; ``record`` is None for a run that did
            not end.
        symptoms: ``Symptoms``, None for a method that reads none. model: its ``PromptedModel``.
    """

    def __init__(
        self,
        folder: Path,
        cfg: CN,
        method: Method,
        model: PromptedModel,
        classnames: Sequence[str],
        symptoms: Symptoms | None,
        record: Record | None,
    ) -> None:
        self.folder = folder
        self.cfg = cfg
        self.method = method
        self.model = model
        self.classnames = list(classnames)
        self.symptoms = symptoms
        self.record = record
        with contextlib.redirect_stdout(None):
            self._transform = checked_transform(cfg, is_train=False)

    @property
    def name(self) -> str:
        """Method, dataset, backbone and seed in one line."""
        cfg = self.cfg
        return f"{cfg.TRAINER.NAME}, {cfg.RUN.DATASET}, {cfg.RUN.BACKBONE}, seed {cfg.SEED}"

    @property
    def rendering(self) -> Rendering:
        """What of DICOM files the run sees: its window and its frame."""
        return rendering_of(self.cfg.DATASET)

    @property
    def findings(self) -> list[str]:
        """What an image may show several of; empty for a run on one class an image.

        ``classnames`` are these and then the absence of each.
        """
        return self.classnames[: len(self.classnames) // 2] if self.cfg.DATASET.MULTI_LABEL else []

    @property
    def thresholds(self) -> np.ndarray:
        """[F] from which probability on an image is said to show a finding."""
        figures = self.record.finding_metrics if self.record else None
        if figures is None:
            return np.full(len(self.findings), DEFAULT_THRESHOLD)
        return np.array([figures.findings[name].threshold for name in self.findings])

    @property
    def explainable(self) -> bool:
        """Whether the class scores are sums over symptoms, which explanations take apart."""
        readable = self.symptoms is not None and isinstance(self.model, SymptomModel)
        return readable and not self.findings

    @cached_property
    def _dm(self) -> ViewManager:
        with contextlib.redirect_stdout(None):
            return ViewManager(self.cfg)

    @property
    def dataset(self) -> Any:
        """The run's dataset, read when first asked for."""
        return self._dm.dataset

    @cached_property
    def with_all_shots(self) -> "LoadedRun":
        """The run with the whole training split, also where it was trained on a few shots."""
        if self.cfg.DATASET.NUM_SHOTS < 1:
            return self
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATASET.NUM_SHOTS = -1
        cfg.freeze()
        return LoadedRun(
            self.folder, cfg, self.method, self.model, self.classnames, self.symptoms, self.record
        )

    @cached_property
    def _frozen_features(self) -> FrozenFeatures:
        return FrozenFeatures(self.cfg, self._dm, self.model.image_encoder)

    def features(self, split: str) -> Tensor:
        """[n, d] image features of a split's test views, as the run itself kept and read them."""
        self.pictures(split)
        return self._frozen_features.of_split(split)

    def pictures(self, split: str) -> list:
        """The ``Picture`` objects of ``train``, ``val`` or ``test``."""
        if split not in SPLITS:
            raise InputError(f"there is no split {split!r}; choose one of {', '.join(SPLITS)}")
        return getattr(self.dataset, SPLITS[split])

    def predict(
        self, images: ImageSource | Iterable[ImageSource], progress: str = "predicting"
    ) -> np.ndarray:
        """Class probabilities, or the probability of each finding.

        Args:
            images: one image or several: paths, PIL images, or tensors that are views already
                ([3, H, W], normalised, in the backbone's size).

        Returns:
            [n, n_cls] float64, columns in the order of ``classnames``; or [n, F], in that of
            ``findings``.
        """
        logits = self._through(lambda views: self.model(views).logits, images, progress).double()
        if self.findings:
            return finding_logits(logits).sigmoid().numpy()
        return logits.softmax(dim=1).numpy()

    def encode(
        self, images: ImageSource | Iterable[ImageSource], progress: str = "encoding"
    ) -> Tensor:
        """Image features [n, d] that the model reads, not normalised, on the CPU."""
        return self._through(self.model.image_encoder.encode_image, images, progress)

    def views(self, images: ImageSource | Iterable[ImageSource]) -> Tensor:
        """[n, 3, size, size] what the backbone reads of images, on the CPU."""
        return torch.stack([self._view(image) for image in self._views(images)])

    @torch.no_grad()
    def logits(self, image_features: Tensor) -> np.ndarray:
        """[n, n_cls] float64 logits of features that ``encode`` gave."""
        features = image_features.to(self._device)
        return self.model.from_features(features).logits.double().cpu().numpy()

    def reading(
        self, symptoms: Symptoms, weights: Mapping[str, Sequence[float]] | None = None
    ) -> "LoadedRun":
        """The same learned parameters reading other symptoms: no training.

        The text encoder runs for phrases that no such run has read before.

        Args:
            symptoms: of the classes in their order; classes behind them are new ones, whose
                learned rows are those of ``Method.new_class_row``, as for base-to-new classes.
            weights: as for ``SymptomModel.reweigh``.

        Raises:
            InputError: the method learns something for each symptom or class and has it for none of
                these, or as ``SymptomModel.reweigh``.
        """
        other = self._rebuilt(self.model.backbone, symptoms, list(symptoms.phrases))
        if isinstance(other.model, SymptomModel) and isinstance(self.model, SymptomModel):
            other.model.keep_features(self.model.kept_features())
            if weights is not None:
                other.model.reweigh(weights)
        return other

    def on_backbone(self, backbone: Backbone) -> "LoadedRun":
        """The same learned parameters beside another backbone of the same sizes: no training."""
        return self._rebuilt(backbone, self.symptoms, self.classnames)

    def _rebuilt(
        self, backbone: Backbone, symptoms: Symptoms | None, classnames: list[str]
    ) -> "LoadedRun":
        with seeded_draws(0):
            model = self.method.build(backbone, classnames, symptoms)
        state = self.model.learned.state_dict()
        load_learned(state, self.folder, self.method, model, classnames, self.classnames)
        other = copy.copy(self)
        other.symptoms, other.model, other.classnames = symptoms, model.eval(), classnames
        return other

    @torch.no_grad()
    def _through(
        self,
        function: Callable[[Tensor], Tensor],
        images: ImageSource | Iterable[ImageSource],
        progress: str,
    ) -> Tensor:
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
    def _device(self) -> torch.device:
        return self.model.backbone.device

    def _views(self, images: ImageSource | Iterable[ImageSource]) -> list[ImageSource]:
        if isinstance(images, str | Path | Image.Image):
            return [images]
        if isinstance(images, torch.Tensor):
            return list(images if images.dim() == 4 else images[None])
        images = list(images)
        if not images:
            raise InputError("there are no images to look at")
        return images

    def _view(self, image: ImageSource) -> Tensor:
        if isinstance(image, torch.Tensor):
            return image
        return self._transform(self.opened(image))

    def opened(self, image: str | Path | Image.Image) -> Image.Image:
        """An image as the run sees it before its transform: upright, RGB, in the run's window."""
        if isinstance(image, Image.Image):
            return to_rgb(image)
        return read_picture(image, rendering=self.rendering)


def read_config(
    folder: Path | str, root: Path | str | None = None, device: str | None = None
) -> CN:
    """The configuration of the run in ``folder``, frozen; arguments as in ``load_run``."""
    file = Path(folder) / CONFIG
    if not file.is_file():
        what = "there is no such folder" if not file.parent.exists() else f"it holds no {CONFIG}"
        raise InputError(f"{folder} is not a run ({what}); name a folder that train.py wrote")
    try:
        saved = read_nested(file)
        name = saved["TRAINER"]["NAME"]
        METHODS[name]
    except (TypeError, KeyError) as error:
        raise InputError(f"{file} is not the configuration of a run of this program") from error
    cfg = default_cfg()
    cfg.TRAINER = method_node(name)
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
    if root:
        cfg.DATASET.ROOT = str(Path(root).expanduser())
    if device:
        cfg.USE_CUDA = usable_device(device, "device").type == "cuda"
    cfg.freeze()
    return cfg
