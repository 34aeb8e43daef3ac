"""Ask a vision-language model for the class of each image, without training (VisionLLM).

python -m vision_llm --dataset derm7pt --modality "dermoscopic images" --dry-run
python -m vision_llm --dataset derm7pt --modality "dermoscopic images" --upload-images

The model answers in two steps: which symptoms of the symptom file an image shows, then how probable
each class is given these answers. The result is a row of the tables of parse_results.py. The key of
the endpoint comes from OPENAI_API_KEY. Images are sent only with --upload-images. The same command
continues an interrupted run and asks nothing twice.
"""

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from core.arguments import Parser, help_first, not_negative_int, positive_int, real_number
from core.errors import InputError, command_line


def make_parser() -> Parser:
    parser = Parser(__doc__, prog="python -m vision_llm")
    _add_subject(parser)
    _add_model(parser)
    add = parser.add_argument_group("what to do").add_argument
    add("--upload-images", action="store_true", help="allow sending images to the endpoint")
    add("--dry-run", action="store_true", help="print the prompts and the cost, send nothing")
    add("--replay", metavar="TRANSCRIPT", help="write the result again from a transcript, offline")
    add("--fresh", action="store_true", help="ask everything again; keep the old answers aside")
    add("--output-dir", type=Path, help="the run's folder (default: below output/)")
    parser.add_argument("opts", nargs="*", metavar="KEY value", help="settings of the dataset")
    return parser


def _add_subject(parser: Parser) -> None:
    add = parser.add_argument_group("what to ask about").add_argument
    add("--dataset", help="name of a file in configs/datasets, or a YAML file")
    add("--root", default="data", help="folder of the datasets (default: %(default)s)")
    add("--split", choices=("test", "val"), default="test", help="default: %(default)s")
    add("--limit", type=positive_int, metavar="N", help="only N images, drawn at random by a seed")
    add(
        "--modality",
        default="medical images",
        help='what the images are, such as "dermoscopic images" (default: %(default)s)',
    )
    add("--symptoms", default="", metavar="FILE", help="symptom file (default: the dataset's)")
    add(
        "--one-by-one",
        action="store_true",
        help="a request for each symptom, as CBVLM asks (default: one for all of an image)",
    )
    add = parser.add_argument_group("examples").add_argument
    add(
        "--examples",
        type=not_negative_int,
        default=0,
        metavar="K",
        help="show the K nearest training images with their classes; they are uploaded too",
    )
    add(
        "--backbone",
        default="vit_b16",
        help="whose image features find them (default: %(default)s)",
    )


def _add_model(parser: Parser) -> None:
    add = parser.add_argument_group("which model to ask").add_argument
    add("--base-url", default="", metavar="URL", help="default: OPENAI_BASE_URL, else OpenAI's")
    add("--model", default="gpt-4o", help="default: %(default)s")
    add("--temperature", type=real_number(0), help="default: the endpoint's own")
    add(
        "--retries",
        type=not_negative_int,
        default=5,
        help="retries after error 429 or 5xx, a timeout or a cut connection (default: 5)",
    )
    add(
        "--timeout",
        type=real_number(above=0),
        default=120,
        help="seconds to wait for data (default: 120)",
    )
    add("--no-stream", action="store_true", help="ask for whole answers")
    add(
        "--max-requests",
        type=positive_int,
        metavar="N",
        help="send at most N requests in this command, retries included",
    )


help_first(__name__, make_parser)

from core.files import check_place, only_run_in
from datasets.dicom import DEFAULT, Rendering, rendering_of
from datasets.pictures import read_picture
from results.record import RESULTS
from symptom_generator.chat import Endpoint
from symptom_generator.montage import jpeg
from symptom_generator.places import kept_aside
from symptom_generator.transcript import Transcript
from vision_llm.asking import Asking
from vision_llm.cost import Cost
from vision_llm.outcome import write_config, write_outcome
from vision_llm.task import Task, Wanted, check_folder, kept_task, new_task
from vision_llm.transcript import read_line

TRANSCRIPT = "transcript.jsonl"
MAX_SIDE = 768  # pixels; an image is sent smaller where it is larger than this


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    return make_parser().parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        return _replay(args) if args.replay else _ask(args)
    except KeyboardInterrupt:
        print("interrupted; the same command continues and asks nothing twice", file=sys.stderr)
        return 130


def _ask(args: argparse.Namespace) -> int:
    if not args.dataset:
        raise InputError("give --dataset, the images to ask about")
    endpoint = Endpoint(
        args.model,
        args.temperature,
        args.retries,
        args.timeout,
        not args.no_stream,
        args.base_url,
        args.max_requests,
    )
    task = new_task(_wanted(args), endpoint.host, args.root)
    folder = args.output_dir or Path(task.cfg.OUTPUT_DIR)
    _check(folder, task)
    if (folder / RESULTS).exists() and not args.fresh and not args.dry_run:
        print(f"{folder} is complete; delete it, or give --fresh, to ask again")
        return 0
    transcript = Transcript(folder / TRANSCRIPT, not args.dry_run, args.fresh, read_line)
    rendering = rendering_of(task.cfg.DATASET)
    send = functools.lru_cache(256)(lambda name: as_sent(task.files[name], rendering))
    asking = Asking(task.settings, transcript, endpoint, send, endpoint.say)
    cost = Cost.of(asking, task, send)
    if args.dry_run:
        print(f"{cost.example(asking)}\n\n{cost.text}\nNothing was sent.")
        return 0
    if cost.requests and not args.upload_images:
        raise InputError(
            f"{cost.text.splitlines()[0]}; give --upload-images to allow it; nothing has been sent"
        )
    endpoint.say(cost.text)
    folder.mkdir(parents=True, exist_ok=True)
    with only_run_in(folder):
        if args.fresh:
            _keep_aside(folder)
        write_config(folder, task)
        if transcript.settings != task.settings:
            transcript.append(task.settings)
        return _finish(folder, task, asking, transcript)


def _keep_aside(folder: Path) -> None:
    """Rename what a previous run of the same folder left."""
    for file in filter(Path.exists, (folder / TRANSCRIPT, folder / RESULTS)):
        _say(f"the previous {file.name} is kept as {kept_aside(file)}")
        file.unlink()


def _replay(args: argparse.Namespace) -> int:
    path = Path(args.replay)
    if not path.is_file():
        raise InputError(f"{path}: there is no such transcript")
    transcript = Transcript(path, keep=False, read_line=read_line)
    if transcript.settings is None:
        raise InputError(f"{path}: is not a transcript: it has no settings")
    settings = transcript.settings
    settings |= {"dataset": args.dataset} if args.dataset else {}
    task = kept_task(settings, args.root)
    folder = args.output_dir or Path(task.cfg.OUTPUT_DIR)
    _check(folder, task)
    asking = Asking(settings, transcript, None, lambda name: b"", _say)
    missing = sum(len(asking.waiting(number)) for number in range(len(asking.images)))
    if missing:
        raise InputError(
            f"{path}: lacks the answers of at least {missing} requests; without --replay the same "
            "command asks for them"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with only_run_in(folder):
        write_config(folder, task)
        return _finish(folder, task, asking, transcript)


def _finish(folder: Path, task: Task, asking: Asking, transcript: Transcript) -> int:
    """Ask what is unanswered, then write the result."""
    print("\n".join(write_outcome(folder, task, asking.run(), transcript)))
    return 0


def _wanted(args: argparse.Namespace) -> Wanted:
    if len(args.opts) % 2:
        raise InputError(f"options come in pairs, KEY value; {args.opts[-1]!r} has no value")
    return Wanted(
        args.dataset,
        args.split,
        args.limit,
        args.opts,
        " ".join(args.modality.split()),
        args.model,
        args.temperature,
        args.one_by_one,
        args.examples,
        args.backbone if args.examples else None,
        args.symptoms,
    )


def _check(folder: Path, task: Task) -> None:
    check_place(folder, folder=True)
    check_folder(folder, task.cfg)


def as_sent(path: str, rendering: Rendering = DEFAULT) -> bytes:
    """An image as it is sent: JPEG without its name and notes, at most ``MAX_SIDE`` pixels wide."""
    image = read_picture(path, rendering=rendering)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return jpeg(image)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    command_line(main)()
