"""Which settings a run reads, and which values each may have.

A setting of Dassl's that is not in the table has no effect on a run of this project, so changing it
is an error. How that was found: ``tests/test_settings.py`` trains every method on a configuration
that records each access, and compares what was read with this table.

Other settings are declared where they are read: of a dataset in ``datasets/settings.py``, with
checks of its own; of the kept features in ``datasets/features.py``; of a method in its class
(``DEFAULTS``, and ``RULES``: option -> type). Without a rule the type of the default decides.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from core.errors import InputError, short
from datasets.features import DEFAULTS as FEATURES_DEFAULTS
from datasets.settings import DEFAULTS as DATASET_DEFAULTS
from datasets.settings import check_settings as check_dataset
from engine.method import Method
from engine.rules import (
    AtLeastOne,
    BelowOne,
    Count,
    MinusOneOrMore,
    NotNegative,
    Number,
    Positive,
    SettingError,
    Share,
    ThreeNumbers,
    ThreePositive,
    ascending,
    check_value,
    odd,
    rule_of_default,
)

LARGEST_SEED = 2**32 - 1  # NumPy's bound


RULES: dict[str, Any] = {
    "OUTPUT_DIR": str,
    "RESUME": str,
    "PROTOCOL": Literal["shared", "own"],
    "SEED": Annotated[int, Field(ge=0, le=LARGEST_SEED)],
    "USE_CUDA": bool,
    "VERBOSE": bool,
    "INPUT.SIZE": tuple[Annotated[int, Field(ge=1, le=4096)], Annotated[int, Field(ge=1, le=4096)]],
    "INPUT.INTERPOLATION": Literal["bilinear", "bicubic", "nearest"],
    "INPUT.RESIZE_MODE": Literal["shortest", "squash"],
    "INPUT.TRANSFORMS": tuple[
        Literal[
            "random_flip",
            "random_resized_crop",
            "normalize",
            "instance_norm",
            "random_crop",
            "random_translation",
            "center_crop",
            "cutout",
            "gaussian_noise",
            "colorjitter",
            "randomgrayscale",
            "gaussian_blur",
        ],
        ...,
    ],
    "INPUT.PIXEL_MEAN": ThreeNumbers,
    "INPUT.PIXEL_STD": ThreePositive,
    "INPUT.CROP_PADDING": Count,
    "INPUT.RRCROP_SCALE": Annotated[
        tuple[Annotated[Number, Field(gt=0, le=1)], Annotated[Number, Field(gt=0, le=1)]],
        AfterValidator(ascending),
    ],
    "INPUT.CUTOUT_N": Count,
    "INPUT.CUTOUT_LEN": AtLeastOne,
    "INPUT.GN_MEAN": Number,
    "INPUT.GN_STD": NotNegative,
    "INPUT.COLORJITTER_B": NotNegative,
    "INPUT.COLORJITTER_C": NotNegative,
    "INPUT.COLORJITTER_S": NotNegative,
    "INPUT.COLORJITTER_H": Annotated[Number, Field(ge=0, le=0.5)],
    "INPUT.RGS_P": Share,
    "INPUT.GB_P": Share,
    "INPUT.GB_K": Annotated[AtLeastOne, AfterValidator(odd)],
    "DATASET.ROOT": str,
    "DATASET.NAME": str,
    "DATASET.NUM_SHOTS": int,
    "DATASET.WINDOW": str | tuple[Number, Number],
    "DATALOADER.NUM_WORKERS": Count,
    "DATALOADER.TRAIN_X.BATCH_SIZE": AtLeastOne,
    "DATALOADER.TRAIN_X.BALANCED": bool,
    "DATALOADER.TEST.BATCH_SIZE": AtLeastOne,
    "MODEL.BACKBONE.NAME": str,
    "MODEL.BACKBONE.PATH": str,
    "MODEL.BACKBONE.ACTIVATION": Literal["", "quick_gelu", "gelu", "gelu_tanh"],
    "MODEL.BACKBONE.PIXEL_MEAN": ThreeNumbers,
    "MODEL.BACKBONE.PIXEL_STD": ThreePositive,
    "MODEL.BACKBONE.SOURCE": str,
    "MODEL.BACKBONE.LICENSE": str,
    "MODEL.BACKBONE.FILES": str,
    "OPTIM.NAME": Literal["sgd", "adam", "amsgrad", "adamw", "radam", "rmsprop"],
    "OPTIM.LR": Positive,
    "OPTIM.WEIGHT_DECAY": NotNegative,
    "OPTIM.MOMENTUM": BelowOne,
    "OPTIM.SGD_DAMPNING": Share,
    "OPTIM.SGD_NESTEROV": bool,
    "OPTIM.RMSPROP_ALPHA": BelowOne,
    "OPTIM.ADAM_BETA1": BelowOne,
    "OPTIM.ADAM_BETA2": BelowOne,
    "OPTIM.LR_SCHEDULER": Literal["single_step", "multi_step", "cosine"],
    "OPTIM.STEPSIZE": tuple[int, ...],
    "OPTIM.GAMMA": Positive,
    "OPTIM.MAX_EPOCH": AtLeastOne,
    "OPTIM.WARMUP_EPOCH": MinusOneOrMore,
    "OPTIM.WARMUP_TYPE": Literal["constant", "linear"],
    "OPTIM.WARMUP_CONS_LR": NotNegative,
    "OPTIM.WARMUP_MIN_LR": NotNegative,
    "OPTIM.WARMUP_RECOUNT": bool,
    "TRAIN.CHECKPOINT_FREQ": Count,
    "TRAIN.CLASS_WEIGHTS": Literal["none", "balanced"],
    "TRAIN.PRINT_FREQ": AtLeastOne,
    "TEST.SPLIT": Literal["val", "test"],
    "TEST.FINAL_MODEL": Literal["best_val", "last_step"],
    # Ours
    "FEATURES.MAX_GB": NotNegative,
    "FEATURES.BLOCK": Count,
    "FEATURES.AHEAD": Count,
    "FEATURES.VIEWS": Count,
    "RUN.DATASET": str,
    "RUN.BACKBONE": str,
    "RUN.SYMPTOMS": str,
    "RUN.TUNED": str,
    "TRAINER.NAME": str,
}


def rules_for(defaults: Mapping[str, Any], methods: Mapping[str, type[Method]]) -> dict[str, Any]:
    """The type that each setting must have; None for a setting that nothing reads.

    Args:
        defaults: key -> default value, of the whole configuration.
        methods: name -> method.
    """
    declared = {("DATASET", name) for name in DATASET_DEFAULTS}
    declared |= {("FEATURES", name) for name in FEATURES_DEFAULTS}
    rules = {}
    for key, default in defaults.items():
        is_declared = tuple(key.split(".")[:2]) in declared
        rules[key] = RULES.get(key, rule_of_default(default) if is_declared else None)
    for method, cls in methods.items():
        prefix = f"TRAINER.{method.upper()}."
        for key in (key for key in defaults if key.startswith(prefix)):
            rules[key] = cls.rule(key.removeprefix(prefix))
    return rules


def check_setting(key: str, value: Any, default: Any, rule: Any) -> None:
    """Check a value that a user gives.

    Raises:
        SettingError: naming the setting, if ``rule`` does not admit the value, or if nothing reads
            the setting (``rule`` is None) and the value is not the default.
    """
    if rule is None:
        if value != default:
            raise SettingError(
                f"{key} has no effect in this project; remove it, or set it to its default "
                f"{short(default)}"
            )
        return
    check_value(key, value, rule)
    group, _, name = key.partition(".")
    if group == "DATASET":
        try:
            check_dataset({name: value})
        except InputError as error:
            raise SettingError(str(error)) from None
