"""What each experiment runs: rows of (trainer, its options), and how its tables are printed."""

from core.errors import InputError
from engine.config import load_cfg, symptom_path
from engine.method import METHODS
from results.experiments import KNOWLEDGE_KINDS

Row = tuple[str, list[str]]
ANCHOR = "16"  # the weight of the anchored ViP; docs/knowledge.md says how it was chosen


def method_rows(dataset: str) -> list[Row]:
    """Every method; both starts of Supervised, texts of zero-shot and losses of ViP are rows."""
    rows: list[Row] = [
        *zeroshot_rows(dataset),
        ("LinearProbe", []),
        ("CoOp", []),
        ("CoCoOp", []),
        ("KgCoOp", []),
        ("BayesianPrompt", []),
        ("MaPLe", []),
        ("Supervised", []),
        ("Supervised", ["TRAINER.SUPERVISED.START", "clip"]),
    ]
    known = {trainer for trainer, _ in rows} | {"ViP"}
    others: list[Row] = [(trainer, []) for trainer in sorted(METHODS.keys() - known)]
    return [*rows, *others, ("ViP", []), ("ViP", ["TRAINER.VIP.ANCHOR", ANCHOR])]


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
