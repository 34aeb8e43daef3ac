"""The figures that papers print, as data files: ``published/NAME.yaml``, one schema, one reader.

To add a paper, write its file; ``parse_results.py --paper NAME`` then shows its figures.
"""

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)

from core.errors import InputError, shortened
from core.yaml_files import read_yaml
from results.metrics import METRICS
from results.rendering import Estimate

FOLDER = Path(__file__).parent / "published"
VIP = "vip"  # the paper whose protocol all methods share
BACKBONES = ("vit_b16", "vit_l14", "rn50")  # its backbones, in its order
SEEDS = (1, 2, 3)

Fraction = Annotated[float, Field(ge=-1, le=1)]
Figure = Fraction | tuple[Fraction, Annotated[float, Field(ge=0, le=1)]]  # or (mean, deviation)


def _known(metric: str) -> str:
    if metric not in METRICS:
        raise ValueError(f"no such metric; there are {', '.join(METRICS)}")
    return metric


MetricName = Annotated[str, AfterValidator(_known)]
Figures = dict[str, dict[MetricName, Figure]]  # method, or dataset -> metric -> figure
HALVES_MEAN = "harmonic mean"  # of base and new


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Printed(_Part):
    """A table of a paper: figures of methods in one setting.

    Attributes:
        source: which table it is.
        dataset: what the figures were measured on.
        mean_over: in place of a dataset: what the figures are means over.
        shots: training images of each class; -1 for all.
        classes: on which half of the classes, of a base-to-new table.
        figures: name of a method as it is registered here -> metric -> fraction.
    """

    source: str
    dataset: str | None = None
    mean_over: str | None = None
    shots: int = -1
    classes: Literal["all", "base", "new", "harmonic mean"] = "all"
    test_images: PositiveInt | None = None
    figures: Figures

    @model_validator(mode="after")
    def _says_on_what(self) -> "Printed":
        if (self.dataset is None) == (self.mean_over is None):
            raise ValueError("give either dataset or mean_over")
        return self

    def estimate(self, method: str, metric: str, mark: str | None = None) -> Estimate | None:
        """The figure of a method, or None where the paper prints none."""
        return estimate_of(self.figures.get(method, {}).get(metric), mark)


class Paper(_Part):
    """What a paper prints, and the protocol that its figures come from.

    Attributes:
        name: of its file; what ``--paper`` takes.
        backbones: files of configs/backbones.
        seeds: how many.
        schedule: "own" where it does not train as configs/protocol.yaml says.
        ablation: of ViP's Table 2, "context/merge" -> dataset -> metric -> mean.
        zero_shot_gain: of ViP's Fig. 3 I, dataset -> metric -> symptoms minus names.
        knowledge: of ViP's Fig. 5, dataset -> what it shows.
    """

    name: str
    citation: str
    link: str = ""
    backbones: tuple[str, ...]
    seeds: PositiveInt
    schedule: Literal["shared", "own"]
    tables: tuple[Printed, ...]
    ablation: dict[str, Figures] = {}
    zero_shot_gain: Figures = {}
    knowledge: dict[str, str] = {}

    def table_for(self, dataset: str, shots: int, classes: str = "all") -> Printed | None:
        """The table that stands beside runs: on their dataset if there is one, else a mean.

        Of several, the one with the nearest number of training images. Figures with all training
        images do not stand beside few-shot runs, which learn from much less.
        """
        fitting = [
            table
            for table in self.tables
            if table.classes == classes
            and table.dataset in (dataset, None)
            and (table.shots > 0 or shots < 1)
        ]
        wanted = _count(shots)
        return min(
            fitting,
            key=lambda table: (table.dataset is None, abs(_count(table.shots) - wanted)),
            default=None,
        )


def _count(shots: int) -> int:
    return shots if shots > 0 else 10**9


def estimate_of(figure: Figure | None, mark: str | None = None) -> Estimate | None:
    """A figure of a data file as the cell of a table."""
    if figure is None:
        return None
    value, deviation = figure if isinstance(figure, tuple) else (figure, None)
    return Estimate(value, deviation, mark=mark)


def paper_names() -> list[str]:
    """The papers whose figures are known."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@cache
def read_paper(name: str) -> Paper:
    """The figures of a paper.

    Raises:
        InputError: there is no such paper, or its file is not of the schema.
    """
    if name not in paper_names():
        raise InputError(
            f"no published figures of {shortened(name)}; choose from {', '.join(paper_names())}"
        )
    path = FOLDER / f"{name}.yaml"
    try:
        return Paper.model_validate({**read_yaml(path), "name": name})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: {where}: {first['msg']}") from None


def margin(dataset: str, metric: str = "accuracy") -> tuple[str, float]:
    """ViP's lead over the next method of its Table 1: (next method, lead)."""
    table = read_paper(VIP).table_for(dataset, -1)
    if table is None:
        raise ValueError(f"{VIP} prints no figures of {dataset}")
    values = {name: table.estimate(name, metric) for name in table.figures}
    known = {name: found.value for name, found in values.items() if found}
    own = known.pop("ViP")
    best = max(known, key=lambda name: known[name])
    return best, own - known[best]
