"""Which settings a run reads, and which values each may have.

A setting of Dassl's that is not in the table has no effect on a run of this project, so changing it
is an error. How that was found: ``tests/test_settings.py`` trains every method on a configuration
that records each access, and compares what was read with this table.

Other settings are declared where they are read: of a dataset in ``datasets/settings.py``, with
checks of its own; of the kept features in ``datasets/features.py``; of a method in its class
(``DEFAULTS``, and ``RULES``: option -> type). Without a rule the type of the default decides.
"""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from backbones.device import PRECISIONS
from backbones.texts import POSITIONS
from core.errors import InputError, short, shortened
from datasets.features import DEFAULTS as FEATURES_DEFAULTS
from datasets.settings import DEFAULTS as DATASET_DEFAULTS
from datasets.settings import check_settings as check_dataset

LARGEST_SEED = 2**32 - 1  # NumPy's bound


class SettingError(InputError):
    """A setting that does not exist, has no effect, or cannot have the value given."""


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("the first number should not be greater than the second")
    return pair


def _odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError("it should be odd")
    return number


Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
MinusOneOrMore = Annotated[int, Field(ge=-1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
BelowOne = Annotated[Number, Field(ge=0, lt=1)]
ThreeNumbers = tuple[Number, Number, Number]
ThreePositive = tuple[Positive, Positive, Positive]

RULES: dict[str, Any] = {
    "OUTPUT_DIR": str,
    "RESUME": str,
    "SEED": Annotated[int, Field(ge=0, le=LARGEST_SEED)],
    "USE_CUDA": bool,
    "VERBOSE": bool,
    "INPUT.SIZE": tuple[Annotated[int, Field(ge=1, le=4096)], Annotated[int, Field(ge=1, le=4096)]],
    "INPUT.INTERPOLATION": Literal["bilinear", "bicubic", "nearest"],
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
        AfterValidator(_ascending),
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
    "INPUT.GB_K": Annotated[AtLeastOne, AfterValidator(_odd)],
    "DATASET.ROOT": str,
    "DATASET.NAME": str,
    "DATASET.NUM_SHOTS": int,
    "DATALOADER.NUM_WORKERS": Count,
    "DATALOADER.TRAIN_X.BATCH_SIZE": AtLeastOne,
    "DATALOADER.TEST.BATCH_SIZE": AtLeastOne,
    "MODEL.BACKBONE.NAME": str,
    "MODEL.BACKBONE.PATH": str,
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
    "TRAIN.PRINT_FREQ": AtLeastOne,
    "TEST.SPLIT": Literal["val", "test"],
    "TEST.FINAL_MODEL": Literal["best_val", "last_step"],
    # Ours
    "FEATURES.MAX_GB": NotNegative,
    "FEATURES.BLOCK": Count,
    "FEATURES.AHEAD": Count,
    "RUN.DATASET": str,
    "RUN.BACKBONE": str,
    "RUN.SYMPTOMS": str,
    "TRAINER.NAME": str,
}

# Options of the methods, by their name below TRAINER.<METHOD>; a class's own RULES come first.
# CLIP reads 77 tokens: a start, an end, the learned ones and at least one of a text.
METHOD_RULES: dict[str, Any] = {
    "PREC": Literal[PRECISIONS],
    "N_CTX": Annotated[int, Field(ge=1, le=74)],
    "CLASS_TOKEN_POSITION": Literal[POSITIONS],
    "TEXT_BATCH": AtLeastOne,
    "SAMPLES": AtLeastOne,
    "KL_WEIGHT": NotNegative,
    "W": NotNegative,
    "C": NotNegative,
    "MAX_ITER": AtLeastOne,
    "PROMPT_DEPTH": AtLeastOne,
    "START": Literal["scratch", "clip"],
    "MERGE": Literal["prompt", "mean", "max"],
    "PROMPTS": Literal["names", "symptoms"],
}


# What pydantic says in a programmer's words.
REASONS = {
    "int_type": "it should be a whole number",
    "float_type": "it should be a number",
    "bool_type": "it should be True or False",
    "string_type": "it should be text",
    "tuple_type": "it should be a list, as in (1, 2)",
    "missing": "this entry is missing",
    "too_long": "it has too many entries",
}


def rules_for(defaults: Mapping[str, Any], methods: Mapping[str, type]) -> dict[str, Any]:
    """The type that each setting must have; None for a setting that nothing reads.

    Args:
        defaults: key -> default value, of the whole configuration.
        methods: name -> class, which may declare ``RULES`` for its options.
    """
    declared = {("DATASET", name) for name in DATASET_DEFAULTS}
    declared |= {("FEATURES", name) for name in FEATURES_DEFAULTS}
    rules = {}
    for key, default in defaults.items():
        is_declared = tuple(key.split(".")[:2]) in declared
        rules[key] = RULES.get(key, _of_default(default) if is_declared else None)
    for method, cls in methods.items():
        prefix = f"TRAINER.{method.upper()}."
        own = METHOD_RULES | getattr(cls, "RULES", {})
        for key in (key for key in defaults if key.startswith(prefix)):
            rules[key] = own.get(key.removeprefix(prefix), _of_default(defaults[key]))
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
    for text in value if isinstance(value, list | tuple) else (value,):
        if isinstance(text, str) and ("\0" in text or not _is_unicode(text)):
            raise SettingError(f"{key} is {shortened(ascii(value))}; it should be plain text")
    try:
        _adapter(rule).validate_python(tuple(value) if isinstance(value, list) else value)
    except ValidationError as error:
        # Of a union every alternative complains; the first will do.
        problem = error.errors(include_url=False)[0]
        entry = [str(i + 1) for i in problem["loc"] if isinstance(i, int)][:1]
        where = f", entry {entry[0]}" if entry else ""
        reason = REASONS.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
        reason = reason.replace("Input should", "it should", 1)
        reason = reason.replace("greater than or equal to", "at least")
        reason = reason.replace("less than or equal to", "at most")
        raise SettingError(f"{key} is {short(value)}{where}; {reason}") from None
    group, _, name = key.partition(".")
    if group == "DATASET":
        try:
            check_dataset({name: value})
        except InputError as error:
            raise SettingError(str(error)) from None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates
        return False
    return True


@cache
def _adapter(rule: Any) -> TypeAdapter[Any]:
    # strict: "3" is not a number, 1 is not a truth value; a whole number counts as a fraction.
    return TypeAdapter(rule, config=ConfigDict(strict=True))


def _of_default(default: Any) -> Any:
    if isinstance(default, bool):
        return bool
    if isinstance(default, int):
        return int
    if isinstance(default, float):
        return Number
    return str if isinstance(default, str) else object
