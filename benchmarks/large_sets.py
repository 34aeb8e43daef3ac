"""Load a made copy of NIH ChestX-ray14 again and again: processor time and memory of each start.

    python -m benchmarks.large_sets
    python -m benchmarks.large_sets --other ~/older-checkout   in turns with another checkout

Each start is a process of its own. Imports, and the first start, which decodes every image, do not
count. Memory is the peak above that of the process before it loads.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent.parent
PATIENTS = 30805
LABELS = (
    "Atelectasis Cardiomegaly Effusion Infiltration Mass Nodule Pneumonia Pneumothorax "
    "Consolidation Edema Emphysema Fibrosis Pleural_Thickening Hernia"
).split()
ONE_CLASS = "MULTI_LABEL False CLASSNAMES ['AP','PA'] CLASS_FOLDERS [] CSV_COLUMNS.label"
# What is read -> the dataset's file, and settings.
CASES: dict[str, tuple[str, list[str]]] = {
    "a table of findings": ("nih_chestxray14", []),
    "a table of classes": ("nih_chestxray14", [*ONE_CLASS.split(), "View Position"]),
    "class folders": ("folders.yaml", []),
}


def make(folder: Path, images: int) -> None:
    """112,120 images in NIH's twelve folders, with its table and lists; those are classes too."""
    rng = random.Random(0)
    Image.new("L", (8, 8)).save(folder / "image.png")
    png = (folder / "image.png").read_bytes()
    rows: list[str] = []
    lists: dict[str, list[str]] = {"train_val": [], "test": []}
    for n in range(images):
        patient = 1 + n * PATIENTS // 112120
        name = f"{patient:08}_{n:03}.png"
        path = folder / "NIH" / f"images_{1 + n * 12 // images:03}" / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Bytes after the end of an image are allowed, and make each file another one.
        path.write_bytes(png + n.to_bytes(4, "big") + bytes(rng.randrange(3000)))
        shown = rng.sample(LABELS, rng.choice([0, 0, 1, 1, 2, 3]))
        view = rng.choice(["AP", "PA"])
        rows.append(f"{name},{'|'.join(shown) or 'No Finding'},0,{patient},50,F,{view}")
        lists["test" if patient % 4 == 0 else "train_val"].append(name)
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
    (folder / "NIH" / "Data_Entry_2017.csv").write_text(
        "\n".join([f"{header}View Position", *rows]) + "\n"
    )
    for name, listed in lists.items():
        (folder / "NIH" / f"{name}_list.txt").write_text("\n".join(listed))
    (folder / "folders").mkdir()
    for n in range(1, 13):
        (folder / "folders" / f"part {n}").symlink_to(folder / "NIH" / f"images_{n:03}")
    (folder / "folders.yaml").write_text("DATASET:\n  NAME: ImageFolder\n  PATH: folders\n")
    for here, _, _ in os.walk(folder):  # as if they had been there for a while
        os.utime(here, (1e9, 1e9))


def load(checkout: str, folder: str, case: str) -> None:
    """Load the data as a run of ``checkout`` does; print seconds and megabytes."""
    sys.path[0] = checkout
    os.chdir(checkout)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import resource
    import time

    import trainers  # noqa: F401
    from datasets.views import read_dataset
    from engine.config import load_cfg

    name, options = CASES[case]
    name = str(Path(folder) / name) if name.endswith(".yaml") else name
    opts = [f"DATASET.{word}" if i % 2 == 0 else word for i, word in enumerate(options)]
    cfg, _ = load_cfg("ZeroshotCLIP", name, "tiny", opts=opts, root=folder)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    start = time.process_time()
    read_dataset(cfg)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps([seconds, (peak - before) / 1e6]), file=out, flush=True)


def measured(checkout: str, folder: Path, case: str) -> tuple[float, float]:
    """(seconds, MB) of a start of ``checkout``, with a cache folder of its own."""
    from core.errors import InputError

    cache = folder / "caches" / ("this" if checkout == str(HERE) else "other")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "--load", checkout, str(folder), case],
        env=os.environ | {"XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = (done.stderr.strip() or "nothing").splitlines()[-1]
        raise InputError(f"{checkout} does not load it; its last line: {said}")
    seconds, megabytes = json.loads(done.stdout)
    return seconds, megabytes


def main() -> None:
    # Late: a start imports the other checkout's modules of these names.
    import numpy as np

    from core.arguments import Parser, positive_int

    parser = Parser(__doc__, prog="python -m benchmarks.large_sets")
    add = parser.add_argument
    add("--images", type=positive_int, default=112120, help="number of images (default: 112120)")
    add("--rounds", type=positive_int, default=3, help="later starts of each (default: 3)")
    add("--other", help="folder of another checkout of this project")
    args = parser.parse_args()
    checkouts = {"this": str(HERE)}
    if args.other:
        checkouts["other"] = str(Path(args.other).expanduser().resolve())
    with tempfile.TemporaryDirectory(prefix="vip-benchmarks-") as name:
        folder = Path(name)
        make(folder, args.images)
        for case in CASES:
            for checkout in checkouts.values():
                measured(checkout, folder, case)
            starts: dict[str, list[tuple[float, float]]] = {side: [] for side in checkouts}
            for _ in range(args.rounds):
                for side, checkout in checkouts.items():
                    starts[side].append(measured(checkout, folder, case))
            middle = {side: np.median(starts[side], axis=0) for side in checkouts}
            said = [f"{side} {s:.2f} s, +{mb:.0f} MB" for side, (s, mb) in middle.items()]
            if args.other:
                said.append(f"{middle['other'][0] / middle['this'][0]:.1f} times faster")
            print(f"{case}, {args.images:,} images: {'; '.join(said)}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--load"]:
        load(*sys.argv[2:5])
    else:
        from core.errors import command_line

        command_line(main)()
