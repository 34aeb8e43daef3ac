"""What each experiment runs: rows of (trainer, its options), and how its tables are printed."""

from collections.abc import Sequence

from core.errors import InputError
from engine.config import has_own_protocol, load_cfg, symptom_path
from engine.method import METHODS
from results.experiments import KNOWLEDGE_KINDS

Row = tuple[str, list[str]]
ALL = "all"
SETS = ("paper", "strong", ALL)  # of methods; a method says which it belongs to


def method_rows(dataset: str) -> list[Row]:
    """Every row of every method, in the order of tables."""
    return [
        row for name in sorted(METHODS, key=lambda n: METHODS[n].place) for row in rows_of(name)
    ]


def rows_of(trainer: str) -> list[Row]:
    """A method's rows; where its own paper uses another schedule, that is a row too."""
    prefix = f"TRAINER.{trainer.upper()}."
    rows: list[Row] = [
        (trainer, [word for key, value in row.items() for word in (prefix + key, str(value))])
        for row in METHODS[trainer].rows
    ]
    return [*rows, (trainer, ["PROTOCOL", "own"])] if has_own_protocol(trainer) else rows


def is_own(row: Row) -> bool:
    """Whether a row is trained as the method's own paper trains it."""
    _, options = row
    return dict(zip(options[::2], options[1::2], strict=True)).get("PROTOCOL") == "own"


def is_in(trainer: str, names: Sequence[str]) -> bool:
    """Whether a method is among ``names``, of methods and of sets, in any case.

    No names at all mean the default: the paper's methods, and the strong ones that take seconds
    because they are fitted at once.
    """
    method = METHODS[trainer]
    if not names:
        return "paper" in method.sets or ("strong" in method.sets and method.fitted_at_once)
    return bool({trainer.lower(), ALL, *method.sets} & {name.lower() for name in names})


def zeroshot_rows(dataset: str) -> list[Row]:
    """The paper's Fig. 3 I: by class names, by symptoms."""
    return [
        ("ZeroshotCLIP", []),
        ("ZeroshotCLIP", ["TRAINER.ZEROSHOTCLIP.PROMPTS", "symptoms"]),
    ]


def ablation_rows(dataset: str) -> list[Row]:
    """The paper's Table 2; it does not say what its first row reads, so both texts are run."""
    return [
        *zeroshot_rows(dataset),
        ("ViP", ["TRAINER.VIP.CONTEXT", "False"]),
        ("ViP", ["TRAINER.VIP.MERGE", "max"]),
        ("ViP", ["TRAINER.VIP.MERGE", "mean"]),
        ("ViP", []),
    ]


def knowledge_rows(dataset: str) -> list[Row]:
    """The paper's Fig. 5: ViP with other symptoms, from the files beside the dataset's own."""
    cfg, _ = load_cfg("ViP", dataset)
    own = symptom_path(cfg)
    files = [own.with_name(f"{own.stem}_{kind}.json") for kind in KNOWLEDGE_KINDS if kind]
    found = [file for file in files if file.exists()]
    if not found:
        raise InputError(
            f"the experiment needs other symptom files; write {', '.join(map(str, files))}"
        )
    for file in files:
        if file not in found:
            print(f"{file} does not exist: its row is left out")
    return [("ViP", []), *(("ViP", ["TRAINER.VIP.SYMPTOMS", str(file)]) for file in found)]


# Name -> its rows, and the calls of parse_results.py that print it.
EXPERIMENTS = {
    "methods": (method_rows, [["--paper"], ["--cost"]]),
    "zeroshot": (zeroshot_rows, [["--zeroshot", "--paper"]]),
    "ablation": (ablation_rows, [["--ablation", "--paper"]]),
    "knowledge": (knowledge_rows, [["--knowledge", "--paper"]]),
}
