"""A run's configuration: defaults, the files that change them, and the folder that follows."""

import copy
import re
from pathlib import Path

import yaml
from dassl.config import get_cfg_default
from yacs.config import CfgNode as CN

from core.errors import InputError
from core.files import fingerprint
from datasets.base import DEFAULTS as DATASET_DEFAULTS
from datasets.features import DEFAULTS as FEATURES_DEFAULTS
from engine.method import METHODS, Method
from results.settings import flatten, read_settings
from symptoms import SymptomFile

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"

# What may differ between two runs without their results differing.
INDIFFERENT = (
    "OUTPUT_DIR",
    "RESUME",
    "USE_CUDA",
    "VERBOSE",
    "DATASET.ROOT",
    "DATALOADER.NUM_WORKERS",
    *(f"FEATURES.{name}" for name in FEATURES_DEFAULTS),
    "TRAIN.CHECKPOINT_FREQ",
    "TRAIN.PRINT_FREQ",
)

# What a run's folder says without their help.
_OTHERWISE_SAID = ("SEED", "TRAINER.NAME", "RUN.DATASET", "RUN.BACKBONE")


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


def default_cfg():
    """Dassl's defaults, ours for datasets and runs, and every method's under its own name."""
    cfg = get_cfg_default()
    for key, value in copy.deepcopy(DATASET_DEFAULTS).items():
        cfg.DATASET[key] = value
    cfg.MODEL.BACKBONE.PATH = ""  # a checkpoint's file in OpenAI's format, in place of NAME
    cfg.FEATURES = CN(FEATURES_DEFAULTS)
    # The short names, of the YAML files; and the fingerprint of the symptoms that the run reads.
    cfg.RUN = CN({"DATASET": "", "BACKBONE": "", "SYMPTOMS": ""})
    cfg.TRAINER = CN({"NAME": ""})
    for name, method in METHODS.items():
        cfg.TRAINER[name.upper()] = CN(method.defaults())
    return cfg


def load_cfg(trainer, dataset, backbone="", files=(), opts=(), **flags):
    """Build a run's configuration; later parts override earlier ones.

    Args:
        trainer: a registered name, in any case: ``ViP``.
        dataset: stem of a file in configs/datasets, or a YAML file's path.
        backbone: the same for configs/backbones; may be empty when ``files`` name one.
        files: further YAML files, merged after the trainer's own.
        opts: ``[KEY, value, ...]`` as on a command line.
        flags: ``root``, ``seed``, ``output_dir``.

    Returns:
        cfg, frozen, with only the method's own node below TRAINER; and the options that ``opts``
        changed, as key -> value.

    Raises:
        InputError: naming the file or key that is wrong.
    """
    cfg = default_cfg()
    trainer = _trainer_name(trainer)
    dataset_file = _config_file("datasets", dataset)
    backbone_file = _config_file("backbones", backbone) if backbone else None
    own = CONFIGS / "trainers" / f"{trainer}.yaml"
    chain = [CONFIGS / "protocol.yaml", backbone_file, dataset_file, own if own.exists() else None]
    for path in filter(None, chain):
        _merge_file(cfg, path)
    plain = flatten(cfg)
    for path in map(Path, files):
        _merge_file(cfg, path)
    cfg.TRAINER = CN({"NAME": trainer, trainer.upper(): cfg.TRAINER[trainer.upper()]})
    cfg.RUN.DATASET = dataset_file.stem
    cfg.RUN.BACKBONE = backbone_file.stem if backbone_file else _slug(cfg.MODEL.BACKBONE.NAME)
    cfg.SEED = flags.get("seed", 1)
    cfg.DATASET.ROOT = str(Path(flags.get("root") or "data").expanduser())
    # What a further file changes is an option too, unless that file is the backbone's.
    before = flatten(cfg) | (plain if backbone_file else {})
    _merge_opts(cfg, list(opts))
    if cfg.SEED < 0:
        raise InputError(f"the seed is {cfg.SEED}; give 0 or more, so that the run can be repeated")
    options = {
        key: value
        for key, value in flatten(cfg).items()
        if value != before[key] and key not in (*INDIFFERENT, *_OTHERWISE_SAID)
    }
    cfg.RUN.SYMPTOMS = symptoms_fingerprint(cfg)
    cfg.OUTPUT_DIR = str(flags.get("output_dir") or Path("output") / run_folder(cfg, options))
    cfg.freeze()
    return cfg, options


def run_folder(cfg, options):
    """``dataset/trainer/backbone/variant/seed<N>``: no two variants share a folder."""
    variant = variant_name(cfg, options)
    return Path(cfg.RUN.DATASET, cfg.TRAINER.NAME, cfg.RUN.BACKBONE, variant, f"seed{cfg.SEED}")


def variant_name(cfg, options):
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


def symptoms_fingerprint(cfg):
    """The fingerprint of the phrases that a run reads; "" for a method without symptoms."""
    path = symptom_file(cfg)
    return SymptomFile.read(path).fingerprint if path else ""


def differing_keys(cfg, file):
    """The keys in which the configuration in ``file`` differs from ``cfg`` and that matter.

    Keys that only one of them has are passed over: foundations differ in what they declare.
    """
    try:
        saved = read_settings(file)
    except InputError as error:
        raise InputError(f"{error}; delete its folder") from None
    current = flatten(cfg)
    both = sorted(saved.keys() & current.keys() - set(INDIFFERENT))
    return [key for key in both if saved[key] != current[key]]


def _trainer_name(name):
    known = {known.lower(): known for known in METHODS}
    if name.lower() not in known:
        raise InputError(f"there is no trainer {name!r}; choose one of {', '.join(known.values())}")
    return known[name.lower()]


def _config_file(kind, name):
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.exists():
            raise InputError(f"there is no file {path}")
        return path
    path = CONFIGS / kind / f"{name}.yaml"
    if not path.exists():
        choices = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise InputError(f"there is no configs/{kind}/{name}.yaml; choose one of {choices}")
    return path


def _merge_file(cfg, path):
    try:
        cfg.merge_from_file(str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except KeyError as error:
        raise InputError(f"{path}: {error.args[0]}: no such setting") from error
    except (ValueError, AttributeError, AssertionError, yaml.YAMLError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from error


def _merge_opts(cfg, opts):
    if len(opts) % 2:
        raise InputError(f"options come in pairs, KEY value; {opts[-1]!r} has no value")
    flat = flatten(cfg)
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        if key == "TRAINER.NAME":
            raise InputError("the method is chosen by --trainer, not by TRAINER.NAME")
        if isinstance(flat.get(key), float) and re.fullmatch(r"[+-]?\d+", str(value)):
            value = f"{value}.0"  # yacs takes no whole number for a fraction
        try:
            cfg.merge_from_list([key, value])
        except (AssertionError, KeyError, AttributeError) as error:
            raise InputError(f"there is no setting {key}") from error
        except ValueError as error:
            raise InputError(f"{key} {value}: {' '.join(str(error).split())}") from error


def _slug(name):
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "backbone"
