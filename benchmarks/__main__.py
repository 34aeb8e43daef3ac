"""Measure the speed on this machine, beside its limits and beside two references.

python -m benchmarks                       all tables (about 40 minutes on 2 cores)
python -m benchmarks --quick               the same with few rounds and no sweeps
python -m benchmarks --tables steps text   only these
python -m benchmarks --checkout ~/CoOp     also an unmodified checkout of CoOp
"""

import os
import platform
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from core.arguments import Parser, positive_int
from core.errors import InputError, command_line
from datasets.pictures import read_picture
from datasets.views import Views
from engine.prompts import ContextPrompts
from engine.run import run
from results.record import Record, read_record

from .checkout import time_checkout
from .pairs import BATCH, SMALLER, a_step, pair
from .reference import embedded, encode
from .timing import in_turns, once, peak_bytes, seconds, use_processor_time
from .workload import METHODS, PICTURES, SHAPES, Workload, quiet, random_clip


class Bench:
    """The options, and the workloads that several tables share."""

    def __init__(self, args, folder):
        self.args = args
        self.folder = Path(folder)
        self.rounds = args.rounds or (1 if args.quick else 3)
        self.vit = Workload(self.folder / "vit", "vit_b16", pictures=8)

    def large(self):
        """ViT-B/16 and large grey JPEGs."""
        n = 64 if self.args.quick else 128
        return Workload(self.folder / "large", "vit_b16", pictures=n, large=True)

    def default(self, **options):
        name = "-".join(f"{key}{value}" for key, value in options.items()) or "plain"
        return Workload(self.folder / f"default-{name}", "tiny", **options)


def show(title, rows, note=""):
    print(f"\n### {title}\n")
    print(tabulate(rows, headers="keys", tablefmt="github", floatfmt=".4g"))
    if note:
        print(f"\n{note}")
    print(flush=True)


# -- what the machine can do -----------------------------------------------------------------


def matmul_rate(device, dtype, rounds=7):
    """Floating point operations a second of a matrix product of the encoder's size."""
    n = 4096 if device.type == "cpu" else 16384
    a = torch.randn(n, 768, device=device, dtype=dtype)
    b = torch.randn(768, 3072, device=device, dtype=dtype)
    c = torch.empty(n, 3072, device=device, dtype=dtype)  # memory is not what is measured
    return 2 * n * 768 * 3072 / seconds(lambda: torch.mm(a, b, out=c), rounds)


def encoder_operations(backbone):
    """Floating point operations of a vision transformer's pass over one picture."""
    shape = SHAPES[backbone]
    width, patch = shape["vision_width"], shape["vision_patch_size"]
    patches = (shape["image_resolution"] // patch) ** 2
    tokens = patches + 1
    block = 24 * tokens * width**2 + 4 * tokens**2 * width
    return shape["vision_layers"] * block + 2 * patches * 3 * patch**2 * width


def data(bench):
    """Pictures a second of every part of the way from a file to a feature."""
    work = bench.large()
    trainer = work.trainer("ViP", "FEATURES.KEEP", "False")
    manager = trainer.dm
    pictures = manager.dataset.train_x
    cores = os.cpu_count()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    views = manager.train_views()
    whole = Views(pictures, views.transform, views.seed)  # RGB from the start, scaled in the worker
    paths = [picture.impath for picture in pictures[:8]]
    decode = seconds(lambda: [read_picture(p, keep_grey=True) for p in paths], bench.rounds) / 8
    rows = [
        {"part": "decode, one core", "images/s": 1 / decode, "limit": None, "share": None},
    ]
    cases = {
        "decode and view, as Dassl does it": lambda: [whole[0, i] for i in range(8)],
        "decode and view, grey until resized": lambda: _read(views, range(8)),
        "the same, 5 epochs from one decoding": lambda: [
            views[tuple(range(5)), i] for i in range(8)
        ],
    }
    each = in_turns(cases, bench.rounds)
    torch.set_num_threads(threads)
    for name, times in each.items():
        made = 8 * (5 if "5 epochs" in name else 1)
        rows.append({"part": f"{name}, one core", "images/s": made / middle(times)})
    for epochs in (1, 5):
        loader = manager.loader(views, 8, persistent=True)
        loader.batch_sampler.epoch = tuple(range(epochs))
        list(loader)  # the workers start
        # By the clock on the wall: the work is not this process's.
        rate = epochs * len(pictures) / once(partial(list, loader), time.perf_counter)
        row = {"part": f"views through {manager.workers} workers, {epochs} epoch(s) at a time"}
        limit = cores / decode * epochs
        rows.append(row | {"images/s": rate, "limit": limit, "share": f"{rate / limit:.0%}"})
    rows[-2]["of"] = rows[-1]["of"] = f"decoding on {cores} cores"
    for backbone in ("vit_b16", "tiny", *(["vit_l14"] if torch.cuda.is_available() else [])):
        rows.append(encode_row(bench, backbone))
    show("From a file to a feature (grey JPEGs of 2000 x 1500)", rows)


def encode_row(bench, backbone):
    """The image encoder beside the matrix-multiply rate of the same minute."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    from backbones.families.openai_clip import OpenAIClip

    with quiet():
        frozen = OpenAIClip(random_clip(backbone), "fp16", device)
    side = SHAPES[backbone]["image_resolution"]
    x = torch.randn(16 if device.type == "cpu" else 64, 3, side, side, device=device)
    ways = {"encode": lambda: frozen.encode_image(x)}
    products, rates = [], {name: [] for name in ways}
    for _ in range(2 * bench.rounds + 1):
        products.append(matmul_rate(device, dtype, 3))
        for name, way in ways.items():
            rates[name].append(len(x) / once(way))
    # A limit is the best that was seen.
    limit = max(products) / encoder_operations(backbone)
    row = {
        "part": f"encode, {backbone}, {dtype}".replace("torch.", ""),
        "images/s": middle(rates["encode"]),
        "limit": limit,
        "share": f"{middle(rates['encode']) / limit:.0%}",
        "of": f"matrix products at {max(products) / 1e9:.0f} GFLOP/s",
    }
    return row


# -- beside the reference --------------------------------------------------------------------


def reading(work, rounds):
    """Seconds to read a picture: its view as Dassl makes it and as we do, or its kept feature.

    Views are spread over the cores.
    """
    trainer = work.trainer("CoOp")
    ours = trainer.dm.train_views()
    plain = Views(ours.images, ours.transform, ours.seed)
    some = range(min(16, len(ours)))
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    ways = {"reference": lambda: [plain[0, i] for i in some], "first": lambda: _read(ours, some)}
    times = in_turns(ways, rounds)
    torch.set_num_threads(cores)
    read = {way: middle(values) / len(some) / cores for way, values in times.items()}
    with quiet():
        kept = seconds(lambda: list(trainer.frozen_features.batches(0, 1)), rounds)
    return read | {"later": kept / len(ours)}


def _read(views, indices):
    return [views[0, i] for i in indices]


def steps(bench):
    """Seconds a step of every method, beside the reference."""
    for work, name in (
        (bench.vit, "ViT-B/16 at 224, random weights"),
        (bench.default(pictures=PICTURES), "embedded default"),
    ):
        # Where time is short, the image encoder is measured once and added to both.
        apart = work is bench.vit and bench.args.shared
        encoder = image_seconds(work, bench.rounds) if apart else 0.0
        read = reading(work, bench.rounds)
        # A GPU computes while the cores read.
        whole = np.maximum if torch.cuda.is_available() else np.add
        rows, totals = [], {"reference": 0.0, "first": 0.0, "later": 0.0}
        for method in METHODS:
            batch = SMALLER.get(method, BATCH)
            ways = pair(work, method, batch, encoded=apart)
            heavy = work is bench.vit and method in ("CoCoOp", "BayesianPrompt")
            times = in_turns(ways, 1 if heavy else bench.rounds)
            times["reference"] += encoder * batch
            times["first"] += encoder * batch
            computing = middle(times["reference"] / times["later"])
            row = {"method": method, "batch": batch}
            for way in totals:
                times[way] = whole(times[way], read[way] * batch)
                totals[way] += middle(times[way]) * BATCH / batch
                row[f"{_TOLD[way]}, s/step"] = middle(times[way])
            for way in ("first", "later"):
                row[f"{way}, times faster"] = middle(times["reference"] / times[way])
            rows.append(row | {"later, not counting reading": computing})
        # Only the first of the methods pays for the pictures: the comparison fills the store once.
        pictures = max(0.0, totals["first"] - totals["later"]) / len(METHODS)
        filling = totals["later"] + pictures
        row = {"method": "all together", "batch": BATCH}
        row |= {"reference, s/step": totals["reference"], "first run, s/step": filling}
        row["later run, s/step"] = totals["later"]
        row["first, times faster"] = totals["reference"] / filling
        row["later, times faster"] = totals["reference"] / totals["later"]
        rows.append(row)
        told = [f"{1e3 * value:.3g} ms {_TOLD[way]}" for way, value in read.items()]
        note = (
            "A step: reading images or kept features, forward, backward, update. All together: "
            "every method does a step, the images are read and encoded once (first) or not at "
            f"all (later). Reading an image (a 64 x 64 PNG): {', '.join(told)}."
        )
        if apart:
            note += (
                f" The image encoder, measured once and added to both: {encoder:.3g} s an image."
            )
        show(f"A step of each method, {name}", rows, note)


_TOLD = {"reference": "reference", "first": "first run", "later": "later run"}


def middle(values):
    return float(sorted(values)[len(values) // 2])


def image_seconds(work, rounds):
    """Seconds of the image encoder for one picture of a batch of 8."""
    clip_model = work.trainer("CoOp").model.backbone
    side = clip_model.preprocessing.size
    x = torch.randn(8, 3, side, side, device=clip_model.device)
    return seconds(lambda: clip_model.encode_image(x), rounds) / 8


def text(bench):
    """The text encoder, forward and backward, beside one class at a time at full length."""
    from backbones.families.openai_clip import OpenAIClip

    rows = []
    for backbone, work in (("vit_b16", bench.vit), ("tiny", bench.default())):
        model = random_clip(backbone).requires_grad_(False)
        with quiet():
            frozen = OpenAIClip(random_clip(backbone), "fp32")
        symptoms = [phrase for phrases in work.phrases.values() for phrase in phrases]
        for what, classes in (
            ("symptoms", list(work.phrases.values())),
            ("class names", [[name] for name in work.classnames]),
        ):
            texts = symptoms if what == "symptoms" else list(work.classnames)
            prompts = ContextPrompts(frozen, texts, 4)
            plain = [embedded(model, texts_of_class, 4) for texts_of_class in classes]
            ctx = prompts.ctx.detach().clone().requires_grad_(True)

            def ours(encode=frozen.encode_text, prompts=prompts):
                encode(prompts.inputs, prompts()).sum().backward()

            def theirs(model=model, plain=plain, ctx=ctx):
                features = [encode(model, *tokens, ctx) for tokens in plain]
                torch.cat(features).sum().backward()

            ways = {"reference": theirs, "ours": ours}
            times = in_turns(ways, bench.rounds)
            row = {"backbone": backbone, "texts": f"{len(texts)} {what}"}
            row |= {"tokens": f"{77 * len(texts)} -> {len(prompts.inputs.x)}"}
            row |= {f"{way}, ms": 1e3 * middle(values) for way, values in times.items()}
            rows.append(row | {"times faster": middle(times["reference"] / times["ours"])})
    show("Text encoding, forward and backward, 4 learned tokens", rows)


def memory(bench):
    """How far two steps raise the memory, in a process of their own."""
    rows = []
    for backbone in ["tiny"] if bench.args.quick else ["vit_b16", "tiny"]:
        # Of some tens of MB the allocator decides a third.
        repeats = max(3, bench.rounds) if backbone == "tiny" else 1
        for method in ["CoCoOp", "ViP"] if bench.args.quick else METHODS:
            row = {"backbone": backbone, "method": method}
            for way in ("reference", "first", "later"):
                folder = str(bench.folder / f"memory-{backbone}-{method}-{way}")
                peaks = [peak_bytes(a_step, folder, backbone, method, way) for _ in range(repeats)]
                row[f"{way}, MB"] = middle(peaks) / 1e6
            rows.append(row)
    show("Peak memory of a step above what the models take", rows)


# -- whole runs ------------------------------------------------------------------------------


def runs(bench):
    """Whole runs on the embedded default: the first fills the store, the second reads it."""
    work = bench.default(pictures=PICTURES)
    epochs = 3 if bench.args.quick else 10
    rows = []
    for method in [*METHODS, "LinearProbe", "MaPLe", "Supervised"]:
        # A store of its own, as if no other method had run before.
        own = [
            "FEATURES.DIR",
            str(bench.folder / f"store-{method}"),
            "OPTIM.MAX_EPOCH",
            str(epochs),
        ]
        row = {"method": method}
        for order in ("first", "later"):
            cfg = work.cfg(method, *own, output=f"{method}-{order}")
            with quiet():
                start = time.perf_counter()
                run(cfg)
                total = time.perf_counter() - start
            trained = training_seconds(read_record(cfg.OUTPUT_DIR))
            row[f"{order}, s/epoch"] = trained / epochs if trained else None
            row[f"{order}, s in all"] = total
        rows.append(row)
    note = (
        f"{PICTURES} images for training, {PICTURES // 4} each for validation and test; {epochs} "
        "epochs; fp32. MaPLe and Supervised change the image encoder, so every run of theirs reads "
        "and encodes."
    )
    show("Whole runs, embedded default", rows, note)


def training_seconds(record: Record) -> float:
    """Seconds of training and of encoding what it trained on; 0 where nothing is learned."""
    if not record.trainable_parameters:
        return 0.0
    encoding = [u.seconds for name, u in (record.features or {}).items() if name[:5] == "train"]
    return record.seconds["train"] + sum(encoding)


def sweeps(bench):
    """How the cost of a later step grows, on the embedded default."""
    methods = ("ViP", "CoOp", "CoCoOp", "BayesianPrompt")

    def table(title, column, workloads):
        rows = []
        for value, work in workloads:
            row = {column: value}
            for method in methods:
                later = pair(work, method, BATCH)["later"]
                row[f"{method}, ms/step"] = 1e3 * seconds(later, bench.rounds)
            rows.append(row)
        show(title, rows)

    classes = [
        (n, bench.default(n_cls=n, n_symptoms=4, pictures=n)) for n in (2, 5, 10, 20, 50, 100)
    ]
    table("Cost against classes, embedded default, 4 symptoms each", "classes", classes)
    methods = ("ViP",)
    symptoms = [(n, bench.default(n_symptoms=n)) for n in (4, 8, 16, 32)]
    table("Cost against symptoms of each of 2 classes, embedded default", "symptoms", symptoms)
    rows = []
    for times in (1, 2, 5, 10):
        work = bench.default(pictures=128 * times)
        row = {"images": 128 * times}
        for order in ("first", "later"):
            cfg = work.cfg("ViP", "OPTIM.MAX_EPOCH", "2", output=order)
            with quiet():
                run(cfg)
            row[f"{order}, s/epoch"] = training_seconds(read_record(cfg.OUTPUT_DIR)) / 2
        rows.append(row)
    show("Cost against images, ViP, embedded default", rows)
    rows, so_far = [], 0.0
    work = bench.default(pictures=128)
    for n, method in enumerate(METHODS, 1):
        cfg = work.cfg(method, "OPTIM.MAX_EPOCH", "2", output=f"methods-{n}")
        with quiet():
            so_far += once(partial(run, cfg), time.perf_counter)
        rows.append({"methods": n, "the last": method, "seconds so far": so_far})
    show("Cost against methods, one after the other on one store, 2 epochs", rows)


def checkout(bench):
    """Somebody else's CoOp, as it is, in a process of its own."""
    work = bench.vit
    theirs = time_checkout(Path(bench.args.checkout), bench.folder / "checkout", work.classnames)
    ours = pair(work, "CoOp", BATCH)
    times = in_turns({way: ours[way] for way in ("first", "later")}, bench.rounds)
    rows = [
        {"program": "the checkout's CoOp, with reading images", "s/step": theirs[1]},
        {"program": "the checkout's CoOp", "s/step": theirs[0]},
    ]
    for way, values in times.items():
        row = {"program": f"ours, {way} run", "s/step": middle(values)}
        rows.append(row | {"times faster": theirs[0] / middle(values)})
    show("Beside another checkout: CoOp, ViT-B/16, 2 classes, batches of 32, fp32", rows)


TABLES = (data, text, steps, memory, runs, sweeps)


def main(argv=None):
    names = [table.__name__ for table in TABLES]
    parser = Parser(__doc__, prog="python -m benchmarks")
    add = parser.add_argument
    add("--tables", nargs="+", choices=names, default=names, help="print only these tables")
    add("--quick", action="store_true", help="few rounds, small workloads, no sweeps")
    add("--rounds", type=positive_int, help="how often each measurement is repeated (default: 3)")
    add(
        "--shared",
        action="store_true",
        help="measure the processor time of one thread, except for whole runs",
    )
    add(
        "--checkout",
        default="",
        help="also measure this checkout of CoOp, or of a project that contains it",
    )
    args = parser.parse_args(argv)
    if args.checkout and args.shared:
        raise InputError("--checkout measures wall-clock time; leave out --shared")
    if args.checkout and not (Path(args.checkout).expanduser() / "train.py").is_file():
        raise InputError(f"--checkout {args.checkout}: there is no train.py")
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine()
    if args.shared:
        use_processor_time()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {device}, "
        f"torch {torch.__version__}, load {load:.1f} before the start"
    )
    with tempfile.TemporaryDirectory(prefix="vip-benchmarks-") as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # nothing here is worth keeping
        bench = Bench(args, folder)
        for table in TABLES:
            if table.__name__ in args.tables and not (args.quick and table is sweeps):
                table(bench)
        if args.checkout:
            checkout(bench)


if __name__ == "__main__":
    command_line(main)()
