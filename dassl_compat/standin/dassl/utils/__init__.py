"""Registries, logs, meters, files, seeds, checkpoints and parameters."""

from .files import (
    check_isfile,
    listdir_nohidden,
    mkdir_if_missing,
    read_image,
    read_json,
    write_json,
)
from .logger import setup_logger
from .meters import AverageMeter, MetricMeter
from .registry import Registry
from .session import collect_env_info, set_random_seed, tolist_if_not
from .torchtools import (
    count_num_param,
    load_checkpoint,
    load_pretrained_weights,
    open_specified_layers,
    resume_from_checkpoint,
    save_checkpoint,
)

__all__ = [
    "AverageMeter",
    "MetricMeter",
    "Registry",
    "check_isfile",
    "collect_env_info",
    "count_num_param",
    "listdir_nohidden",
    "load_checkpoint",
    "load_pretrained_weights",
    "mkdir_if_missing",
    "open_specified_layers",
    "read_image",
    "read_json",
    "resume_from_checkpoint",
    "save_checkpoint",
    "set_random_seed",
    "setup_logger",
    "tolist_if_not",
    "write_json",
]
