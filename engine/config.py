"""A run's configuration: defaults, the files that change them, and the folder that follows."""

import ast
import copy
import difflib
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from dassl.config import get_cfg_default
from yacs.config import CfgNode as CN

from backbones.settings import BACKBONE_DEFAULTS, BACKBONES_OWN, DESCRIPTIONS
from core.errors import InputError, short, shortened
from core.files import fingerprint, slug
from core.yaml_files import ENDINGS, read_yaml
from datasets.base import DEFAULTS as DATASET_DEFAULTS
from datasets.features import DEFAULTS as FEATURES_DEFAULTS
from datasets.multi_label import reader_of
from engine.method import METHODS, Method
from engine.settings import SettingError, check_setting, rules_for
from results.settings import flatten, read_settings
from symptoms import NO_FINDING, SymptomFile, Symptoms

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"

# What may differ between two runs without their results differing.
INDIFFERENT = (
    "OUTPUT_DIR",
    "RESUME",
    "USE_CUDA",
    "VERBOSE",
    "DATASET.ROOT",
    "DATASET.NOTE",
    "DATASET.COPIES_GB",
    "DATALOADER.NUM_WORKERS",
    *(f"FEATURES.{name}" for name in FEATURES_DEFAULTS if name != "VIEWS"),
    *(f"MODEL.BACKBONE.{name}" for name in DESCRIPTIONS),
    "TRAIN.CHECKPOINT_FREQ",
    "TRAIN.PRINT_FREQ",
)

# What a run's folder says without their help.
_OTHERWISE_SAID = ("SEED", "TRAINER.NAME", "RUN.DATASET", "RUN.BACKBONE", "RUN.SYMPTOMS")

# What changes training alone: all the same to a method that does not train.
_OF_TRAINING = (
    "OPTIM.",
    "TRAIN.",
    "DATALOADER.TRAIN_X.",
    "DATASET.NUM_SHOTS",
    "INPUT.RRCROP_SCALE",
    "TEST.FINAL_MODEL",
)


def method_of(cfg: CN) -> Method:
    """The method of a run, with its options.

    Raises:
        InputError: an option has a value that the method does not accept.
    """
    name = cfg.TRAINER.NAME
    return METHODS[name](**cfg.TRAINER[name.upper()])


def method_node(name: str) -> CN:
    """The default TRAINER node of a run: the method's name and its options."""
    return CN({"NAME": name, name.upper(): CN(METHODS[name].defaults())})


def default_cfg() -> CN:
    """Dassl's defaults, ours for datasets and runs, and every method's under its own name."""
    cfg = get_cfg_default()
    for key, value in copy.deepcopy(DATASET_DEFAULTS).items():
        cfg.DATASET[key] = value
    cfg.MODEL.BACKBONE.update(copy.deepcopy(BACKBONE_DEFAULTS))
    cfg.INPUT.update(copy.deepcopy(BACKBONES_OWN))
    cfg.FEATURES = CN(FEATURES_DEFAULTS)
    cfg.TRAIN.CLASS_WEIGHTS = "none"  # balanced: the cross-entropy weighs classes by 1 / their size
    cfg.DATALOADER.TRAIN_X.BALANCED = False  # an epoch shows as many images of each class
    # "shared": configs/protocol.yaml; "own": with what the method's own paper changes in it.
    cfg.PROTOCOL = "shared"
    # The short names, of the YAML files; the fingerprint of the symptoms that the run reads; and
    # what scripts/tune.sh chose on validation, as OPTION=value,OPTION=value.
    cfg.RUN = CN({"DATASET": "", "BACKBONE": "", "SYMPTOMS": "", "TUNED": ""})
    cfg.TRAINER = CN({"NAME": ""})
    for name, method in METHODS.items():
        cfg.TRAINER[name.upper()] = CN(method.defaults())
    return cfg


def load_cfg(
    trainer: str,
    dataset: str,
    backbone: str = "",
    files: Sequence[str | os.PathLike[str]] = (),
    opts: Sequence[str] = (),
    *,
    root: str = "",
    seed: int = 1,
    output_dir: str = "",
) -> tuple[CN, dict[str, Any]]:
    """Build a run's configuration; later parts override earlier ones.

    Args:
        trainer: a registered name, in any case: ``ViP``.
        dataset: stem of a file in configs/datasets, or a YAML file's path.
        backbone: the same for configs/backbones; may be empty when ``files`` name one.
        files: further YAML files, merged after the trainer's own.
        opts: ``[KEY, value, ...]`` as on a command line.
        root: the folder that holds the datasets; "data" if empty.
        output_dir: the run's folder; one below output/ that follows from the rest if empty.

    Returns:
        cfg, frozen, with only the method's own node below TRAINER; and the options that ``opts``
        and ``files`` changed, as key -> value.

    Raises:
        InputError: naming the file or setting that is wrong.
    """
    trainer = trainer_name(trainer)
    dataset_file = config_file("datasets", dataset)
    backbone_file = config_file("backbones", backbone) if backbone else None
    cfg = default_cfg()
    merge = _Merge(cfg, trainer)
    for path in (
        CONFIGS / "protocol.yaml",
        backbone_file,
        dataset_file,
        CONFIGS / "trainers" / f"{trainer}.yaml",
        own_protocol(trainer) if protocol_of(opts, files) == "own" else None,
    ):
        if path and (path.parent.name != "trainers" or path.exists()):
            merge.file(path)
    standard = flatten(cfg)
    for path in map(Path, files):
        merge.file(path)
    if not backbone_file:  # one of the files is the backbone's, and no option
        standard = flatten(cfg)
    merge.setting("SEED", seed)
    cfg.TRAINER = CN({"NAME": trainer, trainer.upper(): cfg.TRAINER[trainer.upper()]})
    merge.options(opts)
    if not METHODS[trainer].seeded:
        merge.restore(standard, _OF_TRAINING)
    cfg.RUN.DATASET = dataset_file.stem
    cfg.RUN.BACKBONE = (
        backbone_file.stem if backbone_file else slug(cfg.MODEL.BACKBONE.NAME) or "backbone"
    )
    cfg.RUN.SYMPTOMS = symptoms_fingerprint(cfg)
    cfg.DATASET.ROOT = str(Path(root or "data").expanduser())
    options = {
        key: value
        for key, value in flatten(cfg).items()
        if value != standard.get(key, value) and key not in (*INDIFFERENT, *_OTHERWISE_SAID)
    }
    cfg.OUTPUT_DIR = str(output_dir or Path("output") / run_folder(cfg, options))
    cfg.DATASET.NAME = reader_of(cfg.DATASET.NAME, cfg.DATASET.MULTI_LABEL)
    cfg.freeze()
    return cfg, options


def has_own_protocol(trainer: str) -> bool:
    """Whether a file says how the method's own paper trains it."""
    return _own_file(trainer).exists()


def _own_file(trainer: str) -> Path:
    return CONFIGS / "trainers" / "own" / f"{trainer}.yaml"


def own_protocol(trainer: str) -> Path:
    """The file that says how the method's own paper trains it.

    Raises:
        InputError: there is none.
    """
    path = _own_file(trainer)
    if not path.exists():
        raise InputError(
            f"PROTOCOL own: {trainer} has no schedule of its own here (there is no file "
            f"configs/trainers/own/{trainer}.yaml); leave PROTOCOL out"
        )
    return path


def protocol_of(opts: Sequence[str], files: Sequence[str | os.PathLike[str]] = ()) -> str:
    """The protocol that options and files ask for; the last that says it wins."""
    said = [read_yaml(Path(path)).get("PROTOCOL") for path in files]
    said += [value for key, value in zip(opts[::2], opts[1::2], strict=False) if key == "PROTOCOL"]
    return next((str(value) for value in reversed(said) if value is not None), "shared")


def run_folder(cfg: CN, options: Mapping[str, Any]) -> Path:
    """``dataset/trainer/backbone/variant/seed<N>``: no two variants share a folder."""
    variant = variant_name(cfg, options)
    return Path(cfg.RUN.DATASET, cfg.TRAINER.NAME, cfg.RUN.BACKBONE, variant, f"seed{cfg.SEED}")


def variant_name(cfg: CN, options: Mapping[str, Any]) -> str:
    """What of a run its dataset, method, backbone and seed do not say; ``default`` if nothing."""
    own = f"TRAINER.{cfg.TRAINER.NAME.upper()}."
    parts = []
    for key, value in sorted(options.items()):
        text = f"{key.removeprefix(own)}={value}"
        plain = re.sub(r"[^A-Za-z0-9._=,+-]", "-", text)
        # Two values may look alike once made fit for a folder's name.
        parts.append(plain if plain == text else f"{plain[:60]}-{fingerprint(text)[:6]}")
    if cfg.RUN.SYMPTOMS:
        parts.append(f"symptoms-{cfg.RUN.SYMPTOMS}")
    name = "_".join(parts) or "default"
    return name if len(name) <= 150 else f"{name[:130]}-{fingerprint(name)}"


def symptom_file(cfg: CN) -> Path | None:
    """The symptom file of a run: the method's option, else the dataset's, else by its name.

    None for a method that reads no symptoms.
    """
    method = method_of(cfg)
    return symptom_path(cfg) if method.reads_symptoms else None


def symptom_path(cfg: CN) -> Path:
    """Where the symptoms of a method with a ``SYMPTOMS`` option are."""
    chosen = cfg.TRAINER[cfg.TRAINER.NAME.upper()].SYMPTOMS or cfg.DATASET.SYMPTOMS
    return Path(chosen or Path("symptoms") / f"{cfg.RUN.DATASET}.json")


def read_symptoms(
    path: Path, classnames: Sequence[str], others: Collection[str] | None, findings: bool
) -> Symptoms:
    """The symptoms of a run's classes.

    Args:
        classnames: the classes; of ``findings``, these and then the absence of each.
        others: what else the file may hold; None: anything.

    Raises:
        InputError: the file is missing or malformed, or does not fit the classes.
    """
    file = SymptomFile.read(path)
    if findings:
        file = file.sharing(NO_FINDING, classnames[len(classnames) // 2 :])
    return file.select(classnames, file.classes if others is None else others)


def symptoms_fingerprint(cfg: CN) -> str:
    """The fingerprint of the phrases that a run reads; "" for a method without symptoms."""
    path = symptom_file(cfg)
    return SymptomFile.read(path).fingerprint if path else ""


def differing_keys(cfg: CN, file: str | Path) -> list[str]:
    """The keys in which the configuration in ``file`` differs from ``cfg`` and that matter.

    Keys that only one of them has are ignored: Dassl and its stand-in declare different ones.
    """
    try:
        saved = read_settings(file)
    except InputError as error:
        raise InputError(f"{error}; delete its folder") from None
    current = flatten(cfg)
    # What is left to the backbone does not differ: its weights are compared by their fingerprint.
    own = {f"INPUT.{key}" for key, value in BACKBONES_OWN.items() if cfg.INPUT[key] == value}
    both = sorted(saved.keys() & current.keys() - set(INDIFFERENT) - own)
    return [key for key in both if saved[key] != current[key]]


def short_keys() -> set[str]:
    """Keys without a dot that a command line may give: a method's options (PREC), SEED, ..."""
    options = {name for method in METHODS.values() for name in method.defaults()}
    return options | {key for key in _common_keys() if "." not in key}


def key_of(trainer: str, key: str) -> str:
    """The full name of a setting for a run of ``trainer``; empty if such a run does not have it.

    ``PREC`` is ``TRAINER.COOP.PREC`` for CoOp; ``TRAINER.VIP.PREC`` is nothing to it.
    """
    own, options = f"TRAINER.{trainer.upper()}.", METHODS[trainer].defaults()
    if key in options:
        return own + key
    is_own = key.startswith(own) and key.removeprefix(own) in options
    return key if is_own or key in _common_keys() else ""


def own_options(trainer: str, opts: Sequence[str]) -> list[str]:
    """The options among ``opts`` that a run of ``trainer`` has, by their full names."""
    kept = []
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        if full := key_of(trainer, key):
            kept += [full, value]
    return kept


@cache
def _common_keys() -> frozenset[str]:
    """The settings that runs of all methods have."""
    return frozenset(key for key in flatten(default_cfg()) if not key.startswith("TRAINER."))


def trainer_name(name: str) -> str:
    """A method's name in its own spelling.

    Raises:
        InputError: there is no such method.
    """
    known = {known.lower(): known for known in METHODS}
    if name.lower() not in known:
        choices = ", ".join(known.values())
        raise InputError(f"there is no trainer {short(name)}; choose one of {choices}")
    return known[name.lower()]


def config_file(kind: str, name: str) -> Path:
    """The YAML file of a dataset or a backbone.

    Args:
        kind: ``datasets`` or ``backbones``.
        name: the stem of a file in configs/<kind>, or a YAML file's path.

    Raises:
        InputError: there is no such file.
    """
    if name.endswith(ENDINGS):
        path = Path(name)
        if not path.exists():
            raise InputError(f"there is no file {shortened(str(path), 200)}")
        return path
    path = CONFIGS / kind / f"{name}.yaml"
    known = sorted(p.stem for p in path.parent.glob("*.yaml"))
    if name not in known:
        raise InputError(
            f"there is no configs/{kind}/{shortened(name)}.yaml; choose one of {', '.join(known)}"
        )
    return path


class _Merge:
    """Changes a configuration, checking each setting that is given."""

    def __init__(self, cfg: CN, trainer: str) -> None:
        self.cfg = cfg
        self.trainer = trainer
        self.defaults = flatten(cfg)
        self.rules = rules_for(self.defaults, METHODS)

    def file(self, path: Path) -> None:
        """Merge a YAML file; an error names it."""
        for key, value in flatten(read_yaml(path)).items():
            if value is None and key in _groups(self.defaults):
                continue  # nothing stands below the heading
            try:
                self.setting(key, value)
            except InputError as error:
                raise SettingError(f"{path}: {error}") from None

    def options(self, opts: Sequence[str]) -> None:
        """Merge ``[KEY, value, ...]`` of a command line."""
        if len(opts) % 2:
            raise InputError(f"options come in pairs, KEY value; {opts[-1]!r} has no value")
        for key, value in zip(opts[::2], opts[1::2], strict=True):
            if key == "TRAINER.NAME":
                raise InputError("the method is chosen by --trainer, not by TRAINER.NAME")
            self.setting(key_of(self.trainer, key) or key, value)

    def setting(self, key: str, value: Any) -> None:
        """Set one key; a text is read as Python reads a literal, as ``0.1`` or ``(1, 2)``."""
        *groups, name = key.split(".")
        node = self.cfg
        for group in groups:
            node = node.get(group) if isinstance(node, CN) else None
        if not isinstance(node, CN) or name not in node or key not in self.defaults:
            raise SettingError(no_such_setting(key, flatten(self.cfg)))
        value = _converted(value, self.defaults[key])
        check_setting(key, value, self.defaults[key], self.rules[key])
        node[name] = type(node[name])(value) if isinstance(value, tuple) else value

    def restore(self, values: Mapping[str, Any], prefixes: tuple[str, ...]) -> None:
        """Set all keys that start with one of ``prefixes`` back to what ``values`` holds."""
        for key, value in flatten(self.cfg).items():
            if key.startswith(prefixes) and value != values[key]:
                self.setting(key, values[key])


def no_such_setting(key: str, known: Iterable[str]) -> str:
    """What to say about a key that is not among ``known``."""
    known = list(known)
    if key in _groups(known):
        return f"{key} is a group of settings; give one of its settings"
    near = difflib.get_close_matches(key.upper()[:80], known, 1)
    advice = f"; did you mean {near[0]}?" if near else ""
    return f"there is no setting {shortened(key)}{advice}"


def _groups(keys: Iterable[str]) -> set[str]:
    """OPTIM and the like: what keys have before their dots."""
    parts = [key.split(".") for key in keys]
    return {".".join(names[:i]) for names in parts for i in range(1, len(names))}


def _converted(value: Any, default: Any) -> Any:
    """A value that a user gave, in the type of the default where that loses nothing."""
    if isinstance(value, str):
        value = _literal(value, default)
    if isinstance(default, float) and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            return float("inf")
    return tuple(value) if isinstance(value, list) else value


def _literal(text: str, default: Any) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
    return text if isinstance(default, str) and not isinstance(value, str) else value
