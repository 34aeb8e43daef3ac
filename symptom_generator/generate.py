"""Have a language model write the symptoms of a dataset's classes (section 2.2 of the paper).

python -m symptoms.generate --dataset derm7pt --modality "dermoscopic images" --upload-images
"""

import argparse
import functools
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from core.arguments import help_first
from core.errors import InputError, command_line, shortened


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m symptoms.generate",
        description="Have a language model write the symptoms of a dataset's classes. The address "
        "and the key of the endpoint come from OPENAI_BASE_URL and OPENAI_API_KEY.",
    )
    add = parser.add_argument_group("what to describe").add_argument
    add("--dataset", help="name of a file in configs/datasets, or a YAML file")
    add("--classes", help='class names, such as "melanoma,nevus", without a dataset')
    add("--modality", help='what the images are, such as "dermoscopic images"')
    add("--root", default="data", help="folder of the datasets (default: %(default)s)")
    add("--images", help="with --classes: a folder with one folder per class")
    add("--output", help="symptom file (default: symptoms/<dataset>.json)")
    add = parser.add_argument_group("which model to ask").add_argument
    add("--model", default="gpt-4o", help="default: %(default)s")
    add("--temperature", type=float, help="default: the endpoint's own")
    add(
        "--retries",
        type=int,
        default=5,
        help="retries after error 429 or 5xx, a timeout or a cut connection (default: 5)",
    )
    add("--timeout", type=float, default=120, help="seconds to wait for data (default: 120)")
    add("--no-stream", action="store_true", help="ask for whole answers")
    add = parser.add_argument_group("images").add_argument
    add("--upload-images", action="store_true", help="allow sending images to the endpoint")
    add("--no-images", action="store_true", help="stop after the text question")
    add("--montages", type=int, default=3, help="sheets per class (default: %(default)s)")
    add("--seed", type=int, default=1, help="seed of the choice of images (default: %(default)s)")
    add = parser.add_argument_group("refining").add_argument
    add("--support", type=int, help="image answers that must report a feature (default: most)")
    add("--match", choices=("llm", "clip"), default="llm", help="what matches features and answers")
    add("--backbone", default="vit_b16", help="CLIP for --match clip (default: %(default)s)")
    add("--similarity", type=float, help="cosine that counts as a match, for --match clip")
    add("--avoid", default="", help='synonyms to leave out, such as "mole,nevi"')
    add("--max", type=int, default=8, help="phrases per class (default: %(default)s)")
    add = parser.add_argument_group("what to do").add_argument
    add("--dry-run", action="store_true", help="print every prompt, send nothing")
    add("--replay", metavar="TRANSCRIPT", help="rebuild the symptom file offline")
    add("--fresh", action="store_true", help="ask everything again")
    add("--yes", action="store_true", help="replace the symptom file without asking")
    add("--page", metavar="FOLDER", help="default: output/symptoms/<name of the symptom file>")
    parser.add_argument("opts", nargs="*", metavar="KEY value", help="settings of the dataset")
    return parser


help_first(__name__, make_parser)

from yacs.config import CfgNode

import trainers  # noqa: F401  (registers the methods, and makes dassl importable)
from backbones.loading import backbone_of
from datasets.dicom import DEFAULT, Rendering, rendering_of
from symptom_generator.chat import Endpoint
from symptom_generator.interview import STAGES
from symptom_generator.montage import TILES, SourceImage, draw, image_fingerprint, sheet
from symptom_generator.page import write_symptom_page
from symptom_generator.pipeline import PROMPTS, Generation
from symptom_generator.places import (
    Sheets,
    check_place,
    kept_aside,
    replace,
    save_sheets,
    saved_sheets,
    slug,
)
from symptom_generator.provenance import content
from symptom_generator.sources import (
    ImagesByClass,
    backbone_cfg,
    folder_images,
    training_images,
)
from symptom_generator.transcript import Record, Transcript

SUFFIX = ".transcript.jsonl"
Chosen = dict[str, list[list[SourceImage]]]  # class -> the images of each sheet


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    return make_parser().parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        return _replay(args) if args.replay else _generate(args)
    except KeyboardInterrupt:
        print("interrupted; the same command continues and asks nothing twice", file=sys.stderr)
        return 130


def _generate(args: argparse.Namespace) -> int:
    _check(args)
    classes, images, no_images = _classes_and_images(args)
    output = Path(args.output or _default_output(args, classes))
    path, page = output.with_suffix(SUFFIX), _page_folder(args, output) / "page.html"
    for place in (output, path, page):
        check_place(place)
    endpoint = Endpoint(
        args.model, args.temperature, args.retries, args.timeout, not args.no_stream
    )
    chosen = {} if no_images else _chosen(args, images)
    rendering = rendering_of(_cfg(args).DATASET) if chosen else DEFAULT
    settings = _settings(args, classes, chosen, rendering, no_images, endpoint.host)
    transcript = Transcript(path, keep=not args.dry_run, fresh=args.fresh)
    sheets = functools.cache(lambda classname, number: sheet(chosen[classname][number], rendering))
    generation = Generation(
        settings, transcript, endpoint, sheets, lambda: backbone_of(_cfg(args), "cpu"), endpoint.say
    )
    if no_images:
        endpoint.say(f"stage 2 is left out: {no_images}")
    if args.dry_run:
        return _dry_run(generation, sheets, page.parent)
    if not args.upload_images:
        _check_nothing_to_upload(generation, chosen, endpoint.host)
    if args.fresh and path.exists():
        endpoint.say(f"the previous transcript is kept as {kept_aside(path)}")
        path.unlink()
    if transcript.settings != settings:
        transcript.append(settings)
    return _finish(
        args, output, page, generation, lambda: save_sheets(generation, sheets, page.parent)
    )


def _replay(args: argparse.Namespace) -> int:
    path = Path(args.replay)
    if not path.is_file():
        raise InputError(f"{path}: there is no such transcript")
    transcript = Transcript(path, keep=False)
    if transcript.settings is None:
        raise InputError(f"{path}: is not a transcript: it has no settings")
    if args.output is None and not path.name.endswith(SUFFIX):
        raise InputError(f"{path}: give --output, the symptom file to write")
    output = Path(args.output or str(path).removesuffix(SUFFIX) + ".json")
    page = _page_folder(args, output) / "page.html"
    for place in (output, page):
        check_place(place)
    generation = Generation(transcript.settings, transcript, say=_say)
    return _finish(args, output, page, generation, lambda: saved_sheets(generation, page.parent))


def _finish(
    args: argparse.Namespace,
    output: Path,
    page: Path,
    generation: Generation,
    find_sheets: Callable[[], Sheets],
) -> int:
    """Ask, then write the page and the symptom file."""
    results = generation.run()
    written = content(generation.settings, results, generation.without_images)
    write_symptom_page(
        page, output.name, generation.settings, results, written.provenance, find_sheets()
    )
    generation.say(f"questions, images and answers side by side: {page}")
    if replace(output, written, yes=args.yes):
        count = sum(map(len, written.phrases.values()))
        print(f"{output}: {count} phrases in {len(written.phrases)} classes")
        print(f"look at them before you train on them: python -m symptoms.check {output}")
    return 0


# -- what is asked -----------------------------------------------------------------------------


def _check(args: argparse.Namespace) -> None:
    if bool(args.dataset) == bool(args.classes):
        raise InputError("give --dataset, or --classes with the names of the classes")
    if not args.modality:
        raise InputError('give --modality, what the images are, such as "dermoscopic images"')
    for name in ("montages", "max"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} is {getattr(args, name)}; give 1 or more")
    if args.retries < 0 or not 0 < args.timeout < math.inf:
        raise InputError("--retries takes 0 or more, --timeout a number of seconds above 0")
    for name in ("temperature", "similarity"):
        if not math.isfinite(getattr(args, name) or 0):
            raise InputError(f"--{name} is {getattr(args, name)}; give a finite number")
    if args.support is not None and not 1 <= args.support <= args.montages:
        raise InputError(f"--support is {args.support}; give 1 to --montages, {args.montages}")
    if args.upload_images and args.no_images:
        raise InputError("--upload-images and --no-images contradict each other; give one")
    if args.images and args.dataset:
        raise InputError("--images needs --classes; a dataset has its own images")


def _classes_and_images(
    args: argparse.Namespace,
) -> tuple[list[str], ImagesByClass, str | None]:
    """The classes, their training images by class, and why there are none (or None)."""
    no_images = "--no-images" if args.no_images else None
    if args.dataset:
        dataset, images = training_images(_cfg(args))
        return list(dataset.classnames), images, no_images
    classes = [name.strip() for name in args.classes.split(",") if name.strip()]
    if not classes or len(set(classes)) < len(classes):
        given = shortened(repr(args.classes))
        raise InputError(f"--classes {given} should name each class once, separated by commas")
    if not args.images:
        return classes, {}, no_images or "no images were given (--images FOLDER)"
    return classes, folder_images(args.images, classes), no_images


def _chosen(args: argparse.Namespace, images: ImagesByClass) -> Chosen:
    return {
        name: draw(found, args.montages, TILES, args.seed, name) for name, found in images.items()
    }


def _cfg(args: argparse.Namespace) -> CfgNode:
    # Without a dataset only the backbone, and how DICOM is shown, are read from it.
    return backbone_cfg(args.dataset or "derm7pt", args.backbone, args.root, args.opts)


def _settings(
    args: argparse.Namespace,
    classes: list[str],
    chosen: Chosen,
    rendering: Rendering,
    no_images: str | None,
    host: str,
) -> Record:
    clip = args.match == "clip" and not no_images
    return {
        "record": "settings",
        "format": 1,
        "dataset": Path(args.dataset).stem if args.dataset else None,
        "classes": classes,
        "modality": args.modality,
        "model": args.model,
        "host": host,
        "temperature": args.temperature,
        "prompts": PROMPTS,
        "no_pictures": no_images,
        "seed": args.seed,
        "support": args.support or args.montages // 2 + 1,
        "match": args.match,
        "backbone": args.backbone if clip else None,
        "similarity": args.similarity if clip else None,
        "avoid": [word.strip() for word in args.avoid.split(",") if word.strip()],
        "max": args.max,
        "pictures": {
            name: [[image_fingerprint(image, rendering) for image in one] for one in sheets]
            for name, sheets in chosen.items()
        },
    }


def _check_nothing_to_upload(generation: Generation, chosen: Chosen, host: str) -> None:
    """Raise InputError if images would leave this machine."""
    waiting = [question for question in generation.unanswered() if question.shown]
    images = {image.impath for q in waiting for image in chosen[q.classname][q.number]}
    if waiting:
        raise InputError(
            f"stage 2 would send {len(waiting)} sheets with {len(images)} training images to "
            f"{host}; give --upload-images to allow it, or --no-images to stop after stage 1; "
            "nothing has been sent"
        )


def _dry_run(generation: Generation, sheets: Callable[[str, int], bytes], folder: Path) -> int:
    settings = generation.settings
    for classname in settings["classes"]:
        text = generation.text_question(classname)
        print(f"\n== {text.where}\n{text.prompt}")
        for question in generation.image_questions(classname):
            print(
                f"\n== {classname}, {STAGES['pictures']}, sheet {question.number + 1} of "
                f"{len(question.shown)} training images\n{question.prompt}"
            )
    by_model = generation.with_images and settings["match"] == "llm"
    if by_model:
        blanks = {name: f"<{name}>" for name in ("category", "count", "features", "descriptions")}
        print("\n== each class, refining\n" + settings["prompts"]["match"].format(**blanks))
    waiting = generation.unanswered()
    images = sum(bool(question.shown) for question in waiting)
    if images:
        save_sheets(generation, sheets, folder)
        print(f"\nthe sheets as they would be sent: {folder}")
    matches = by_model * len(settings["classes"])
    print(
        f"\n{len(waiting) + matches} requests to {settings['model']} at {settings['host']}: "
        f"{len(waiting) - images} in text, {images} with one sheet each, {matches} to match; each "
        "is asked again at most twice if its answer cannot be used. Nothing was sent."
    )
    return 0


def _default_output(args: argparse.Namespace, classes: list[str]) -> Path:
    stem = Path(args.dataset).stem if args.dataset else slug("_".join(classes)).lower()
    return Path("symptoms") / f"{stem}.json"


def _page_folder(args: argparse.Namespace, output: Path) -> Path:
    return Path(args.page) if args.page else Path("output") / "symptoms" / output.stem


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    command_line(main)()
