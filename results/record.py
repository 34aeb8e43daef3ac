"""The record of a run, results.json: its one schema, its one reader and its one writer.

Format 2 counts the seconds of encoding image features apart from those of training. Format 1 did
not; its files are still read, and ``Record.format`` says which of the two a file is.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from core.errors import InputError
from core.files import write_json
from results.findings import auroc_of, f1_of

RESULTS = "results.json"
FORMAT = 2
SHOWN = 60  # characters of a wrong value in a message

Fraction = Annotated[float, Field(ge=0, le=1)]
# A name becomes part of a line, and some become part of a file's name.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00\r\n]+$", max_length=4096)]
Name = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f/\\]+$", max_length=255)]
Counts = dict[Text, NonNegativeInt]  # class name -> images


class Part(BaseModel):
    """A part of a results file; values keep their JSON types, and no number is NaN or infinite."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class Metrics(Part):
    """Fractions by the names of ``results.metrics``; None where a metric is not defined."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Fraction | None] = Field(init=False)

    accuracy: Fraction
    macro_f1: Fraction | None  # early Dassl's logs lack it
    per_class: dict[Text, dict[str, Fraction | None]] = {}

    def values(self) -> dict[str, float | None]:
        """Metric name -> fraction or None, without the rates of single classes."""
        extra = self.__pydantic_extra__ or {}
        return {"accuracy": self.accuracy, "macro_f1": self.macro_f1, **extra}


class FindingFigures(Part):
    """Of one finding: figures (None where not defined), threshold of the F1, numbers of images."""

    auroc: Fraction | None
    f1: Fraction | None
    threshold: Fraction
    known: NonNegativeInt
    positive: NonNegativeInt


class FindingMetrics(Part):
    """Figures of several findings an image, as ``results.findings`` computes them.

    Attributes:
        thresholds_from: what chose the thresholds of F1.
        findings: name -> its figures, in the order of the labels.
    """

    macro_auroc: Fraction | None
    macro_f1: Fraction | None
    thresholds_from: Literal["validation", "0.5"]
    findings: dict[Text, FindingFigures]

    def values(self) -> dict[str, float | None]:
        """Name of ``results.findings.weighted_figures`` -> fraction or None."""
        found = {"macro_auroc": self.macro_auroc, "macro_f1": self.macro_f1}
        for name, figures in self.findings.items():
            found |= {auroc_of(name): figures.auroc, f1_of(name): figures.f1}
        return found


class Validation(Part):
    """How well the chosen model did on the validation split, and its epoch.

    The AUROC is the mean over several findings an image; there is then no accuracy.
    """

    accuracy: Fraction | None = None
    auroc: Fraction | None = None
    epoch: NonNegativeInt | None = None


class FeatureUse(Part):
    """Image features of one set of views that a run used.

    Attributes:
        images: views whose features the run used, over all epochs.
        encoded: how many of them it encoded itself; it read the others, which an earlier run kept.
        seconds: what encoding these took.
    """

    images: NonNegativeInt
    encoded: NonNegativeInt
    seconds: NonNegativeFloat


class Record(Part):
    """What results.json says of a run. Figures are fractions; unknown entries are ignored.

    Attributes:
        positive: the positive class of ROC, AUROC and DeLong's test; None where none is named.
        place: position of the method's row in a table, from the top.
        seeded: False for a method that gives the same result with every seed.
        fitted_at_once: True for a method that is fitted to kept features, without training steps.
        metrics: None where the method is not defined for the backbone, as ``does_not_apply`` says,
            and where there are ``finding_metrics``.
        multi_label: True for a run on several findings an image; ``classnames`` are then the
            findings and, in the same order, the absence of each.
        class_counts: "train", "val" and "test", as used -> images by class.
        training_split_counts: images by class of the whole training split, before shots are drawn.
        seconds: setup, encode, train, validate, test and their total.
        features: set of views -> its use; None where the image encoder learns.
        own_model: True for a method that asks a model of its own and reads no backbone;
            ``backbone`` then names that model.
        requests: to the endpoint of such a model.
        unanswered: test images that such a model did not answer for; their probabilities are even.
        backbone_notes: what was assumed about the backbone's weights, a sentence each.
        trained_on: the dataset of the training run, where the tested model is another run's.
    """

    format: Literal[1, 2]
    dataset: Name
    trainer: Name
    backbone: Name
    seed: Annotated[int, Field(ge=-1)]  # -1: Dassl's mark of a run without a seed
    metrics: Metrics | None
    multi_label: bool = False
    finding_metrics: FindingMetrics | None = None
    variant: Text = "default"
    options: dict[Text, str] = {}
    split: Text = "test"
    shots: int = -1
    subsample_classes: Text = "all"
    classnames: tuple[Text, ...] = ()
    positive: Text | None = None
    place: int | None = None
    seeded: bool | None = None
    fitted_at_once: bool | None = None
    does_not_apply: Text | None = None
    validation: Validation = Validation()
    class_counts: dict[str, Counts] = {}
    training_split_counts: Counts | None = None
    seconds: dict[str, NonNegativeFloat] = {}
    features: dict[str, FeatureUse] | None = None
    pictures_per_second: NonNegativeFloat | None = None
    peak_memory_bytes: dict[str, NonNegativeFloat | None] = {}
    trainable_parameters: NonNegativeInt | None = None
    precision: Text | None = None
    device: Text | None = None
    versions: dict[Text, Text] = {}
    backbone_fingerprint: Text | None = None
    backbone_notes: tuple[Text, ...] = ()
    split_fingerprint: Text | None = None
    symptom_file: Text | None = None
    symptom_fingerprint: Text | None = None
    trained_on: Text | None = None
    own_model: bool = False
    requests: NonNegativeInt | None = None
    unanswered: NonNegativeInt | None = None

    @field_validator("trained_on", mode="before")
    @classmethod
    def _name_of_dataset(cls, value: Any) -> Any:
        return value.get("dataset") if isinstance(value, dict) else value

    @field_validator("options")
    @classmethod
    def _one_line(cls, options: dict[str, str]) -> dict[str, str]:
        return {key: " ".join(value.split()) for key, value in options.items()}

    @model_validator(mode="after")
    def _consistent(self) -> "Record":
        if not (self.metrics or self.finding_metrics or self.does_not_apply):
            raise ValueError("no metrics and no reason why (does_not_apply)")
        if len(set(self.classnames)) != len(self.classnames):
            raise ValueError("classnames has a name twice")
        if self.positive is not None and self.positive not in self.classnames:
            raise ValueError(f"positive is {self.positive!r}, which is not one of the classes")
        return self


class OtherFormat(InputError):
    """A results file of another version of this project, which nothing may write over."""


def read_record(folder: Path | str) -> Record:
    """The record in a run's folder.

    Raises:
        InputError: there is none, or it is damaged or of another format; names file and entry.
    """
    path = Path(folder) / RESULTS
    try:
        return Record.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        is_other = first["loc"] == ("format",) and first["type"] != "missing"
        kind = OtherFormat if is_other else InputError
        raise kind(f"{path}: {_first_problem(error)}") from None


def find_record(folder: Path | str) -> Record | None:
    """The record of a complete run; None, and a line on stdout, where the run has to end again.

    Raises:
        InputError: the record is of another version of this project.
    """
    if not (Path(folder) / RESULTS).exists():
        return None
    try:
        return read_record(folder)
    except OtherFormat:
        raise
    except InputError as error:
        print(f"{error}; the run's final test is repeated")
        return None


def write_record(folder: Path | str, entries: Mapping[str, Any]) -> Record:
    """Check a run's entries against the schema and write results.json, whole or not at all.

    Args:
        entries: as the attributes of ``Record``; the format is added.

    Raises:
        InputError: a number is NaN or infinite, or an entry is not of the schema.
    """
    try:
        # Strict for text and numbers; what Python counts with may be a tuple or a Counter.
        record = Record.model_validate({**entries, "format": FORMAT}, strict=False)
    except ValidationError as error:
        raise InputError(f"{Path(folder) / RESULTS}: {_first_problem(error)}") from None
    write_json(Path(folder) / RESULTS, record.model_dump(mode="json", exclude_unset=True))
    return record


def _first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, and how many more, in one line."""
    problems = error.errors(include_url=False)
    first = problems[0]
    if first["type"] == "json_invalid":
        return f"half-written or not JSON ({first['ctx']['error']})"
    lacking = [str(p["loc"][0]) for p in problems if p["type"] == "missing" and len(p["loc"]) == 1]
    if "format" in lacking or not first["loc"] and first["type"] == "model_type":
        return "not a results file of this project (it has no format)"
    if first["loc"] == ("format",):
        return f"format {shortened(first['input'])}; this version reads 1 and 2"
    if lacking:
        return f"lacks {', '.join(lacking)}"
    more = f", and {len(problems) - 1} more entries are wrong" if len(problems) > 1 else ""
    where = ".".join(map(str, first["loc"]))
    if not where:
        return first["msg"].removeprefix("Value error, ") + more
    return f"{shortened(where)}: {first['msg']}, but it is {shortened(first['input'])}{more}"


def shortened(value: Any) -> str:
    """A wrong value for a message: one line of at most ``SHOWN`` characters."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.encode("ascii", "backslashreplace").decode().split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def to_stderr(line: str) -> None:
    print(line, file=sys.stderr)
