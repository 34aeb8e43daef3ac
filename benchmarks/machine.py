"""What this machine can do: from a file to a feature, beside decoding and matrix products."""

import time
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from backbones.backbone import Backbone
from backbones.formats.openai import parts_of
from core.processes import usable_cores
from datasets.pictures import read_picture
from datasets.views import ViewManager, Views

from .bench import Bench, Row, middle, show
from .timing import Call, in_turns, once, seconds
from .workload import SHAPES, quiet, random_clip


def matmul_rate(device: torch.device, dtype: torch.dtype, rounds: int = 7) -> float:
    """Floating point operations a second of a matrix product of the encoder's size."""
    n = 4096 if device.type == "cpu" else 16384
    a = torch.randn(n, 768, device=device, dtype=dtype)
    b = torch.randn(768, 3072, device=device, dtype=dtype)
    c = torch.empty(n, 3072, device=device, dtype=dtype)  # memory is not what is measured
    return 2 * n * 768 * 3072 / seconds(lambda: torch.mm(a, b, out=c), rounds)


def encoder_operations(backbone: str) -> int:
    """Floating point operations of an image encoder's pass over one image."""
    shape = SHAPES[backbone]
    width, patch, side = (
        shape[key] for key in ("vision_width", "vision_patch_size", "image_resolution")
    )
    if patch is None:  # a ResNet; of a transformer, the counter leaves out fused attention
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            random_clip(backbone).visual(torch.zeros(1, 3, side, side))
        return counter.get_total_flops()
    patches = (side // patch) ** 2
    tokens = patches + 1
    block = 24 * tokens * width**2 + 4 * tokens**2 * width
    last = 6 * tokens * width**2 + 4 * tokens * width + 18 * width**2  # for the class token alone
    return (shape["vision_layers"] - 1) * block + last + 2 * patches * 3 * patch**2 * width


def data(bench: Bench) -> None:
    """Pictures a second of every part of the way from a file to a feature."""
    manager = bench.large().trainer("ViP", "FEATURES.KEEP", "False").dm
    made = manager.train_views()
    views = Views(made.images, made.transform, made.seed, as_bytes=True)  # keeps no decoded image
    decode, rows = one_core_rows(views, bench.rounds)
    rows += worker_rows(manager, views, decode)
    for backbone in (
        "vit_b16",
        "tiny",
        *(["vit_l14", "rn50"] if torch.cuda.is_available() else []),
    ):
        rows.append(encode_row(bench, backbone))
    show("From a file to a feature (grey JPEGs of 2000 x 1500)", rows)


def one_core_rows(views: Views, rounds: int) -> tuple[float, list[Row]]:
    """Seconds to decode a picture, and the rows of decoding and of making views, on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole = Views(views.images, views.transform, views.seed)  # RGB at once, scaled in the worker
    paths = [picture.impath for picture in views.images[:8]]
    decode = seconds(lambda: [read_picture(p, keep_grey=True) for p in paths], rounds) / 8
    rows: list[Row] = [
        {"part": "decode, one core", "images/s": 1 / decode, "limit": None, "share": None},
    ]
    cases: dict[str, Call] = {
        "decode and view, as Dassl does it": lambda: [whole[0, i] for i in range(8)],
        "decode and view, grey until resized": lambda: [views[0, i] for i in range(8)],
        "the same, 5 epochs from one decoding": lambda: [
            views[tuple(range(5)), i] for i in range(8)
        ],
    }
    each = in_turns(cases, rounds)
    torch.set_num_threads(threads)
    for name, times in each.items():
        made = 8 * (5 if "5 epochs" in name else 1)
        rows.append({"part": f"{name}, one core", "images/s": made / middle(times)})
    return decode, rows


def worker_rows(manager: ViewManager, views: Views, decode: float) -> list[Row]:
    """Views through the workers, beside what decoding alone, ``decode`` seconds each, allows."""
    cores = usable_cores()
    rows: list[Row] = []
    for epochs in (1, 5):
        loader = manager.loader(views, 8, persistent=True)
        loader.batch_sampler.epoch = tuple(range(epochs))
        list(loader)  # the workers start
        # By the clock on the wall: the work is not this process's.
        rate = epochs * len(views) / once(partial(list, loader), time.perf_counter)
        row: Row = {"part": f"views through {manager.workers} workers, {epochs} epoch(s) at a time"}
        limit = cores / decode * epochs
        row |= {"images/s": rate, "limit": limit, "share": f"{rate / limit:.0%}"}
        rows.append(row | {"of": f"decoding on {cores} cores"})
    return rows


def encode_row(bench: Bench, backbone: str) -> Row:
    """The image encoder beside the matrix-multiply rate of the same minute."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    with quiet():
        frozen = Backbone(parts_of(random_clip(backbone)), "fp16", device)
    side = SHAPES[backbone]["image_resolution"]
    x = torch.randn(16 if device.type == "cpu" else 64, 3, side, side, device=device)
    products, rates = [], []
    for _ in range(2 * bench.rounds + 1):
        products.append(matmul_rate(device, dtype, 3))
        rates.append(len(x) / once(partial(frozen.encode_image, x)))
    # A limit is the best that was seen.
    limit = max(products) / encoder_operations(backbone)
    return {
        "part": f"encode, {backbone}, {dtype}".replace("torch.", ""),
        "images/s": middle(rates),
        "limit": limit,
        "share": f"{middle(rates) / limit:.0%}",
        "of": f"matrix products at {max(products) / 1e9:.0f} GFLOP/s",
    }
