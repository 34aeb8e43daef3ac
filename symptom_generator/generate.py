"""Have a language model write the symptoms of a dataset's classes (section 2.2 of the paper).

python -m symptoms.generate --dataset derm7pt --modality "dermoscopic images" --upload-images
"""

import argparse
import difflib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from core.errors import InputError, command_line
from core.files import atomic_write, fingerprint
from symptom_generator.chat import Endpoint
from symptom_generator.check import backbone_cfg
from symptom_generator.montage import draw, picture_fingerprint, sheet
from symptom_generator.page import write_symptom_page
from symptom_generator.pipeline import PROMPTS, Generation, content, slug
from symptom_generator.transcript import Transcript
from symptoms import EDITED, read_symptom_file, save_symptoms

TILES = 16


@dataclass(frozen=True)
class File:
    """A picture of a folder given on the command line."""

    impath: str
    id: str


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m symptoms.generate",
        description="Have a language model write the symptoms of a dataset's classes. The address "
        "and the key of the endpoint come from OPENAI_BASE_URL and OPENAI_API_KEY.",
    )
    what = parser.add_argument_group("what to describe")
    what.add_argument("--dataset", help="stem of a file in configs/datasets, or a YAML file")
    what.add_argument("--classes", help='class names, as in "melanoma,nevus", without a dataset')
    what.add_argument("--modality", help='what the pictures are, as in "dermoscopic images"')
    what.add_argument("--root", default="data", help="folder of the datasets (default: data)")
    what.add_argument("--images", help="with --classes: a folder with one folder per class")
    what.add_argument("--output", help="symptom file (default: symptoms/<dataset>.json)")
    model = parser.add_argument_group("whom to ask")
    model.add_argument("--model", default="gpt-4o", help="default: %(default)s")
    model.add_argument("--temperature", type=float, help="default: the endpoint's own")
    model.add_argument("--retries", type=int, default=5, help="after 429, 5xx, timeouts, cuts")
    model.add_argument("--timeout", type=float, default=120, help="seconds without a byte")
    model.add_argument("--no-stream", action="store_true", help="ask for whole answers")
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument("--upload-images", action="store_true", help="allow sending pictures")
    pictures.add_argument("--no-images", action="store_true", help="stop after the text question")
    pictures.add_argument("--montages", type=int, default=3, help="sheets a class (default: 3)")
    pictures.add_argument("--seed", type=int, default=1, help="draws the pictures (default: 1)")
    refine = parser.add_argument_group("refining")
    refine.add_argument("--support", type=int, help="picture answers needed (default: most)")
    refine.add_argument("--match", choices=("llm", "clip"), default="llm", help="who matches")
    refine.add_argument("--backbone", default="vit_b16", help="CLIP for --match clip")
    refine.add_argument("--similarity", type=float, help="cosine that counts, for --match clip")
    refine.add_argument("--avoid", default="", help='synonyms to keep out, as in "mole,nevi"')
    refine.add_argument("--max", type=int, default=8, help="phrases a class (default: 8)")
    way = parser.add_argument_group("the way")
    way.add_argument("--dry-run", action="store_true", help="print every prompt, send nothing")
    way.add_argument("--replay", metavar="TRANSCRIPT", help="rebuild the file offline")
    way.add_argument("--fresh", action="store_true", help="ask everything anew")
    way.add_argument("--yes", action="store_true", help="replace the file without asking")
    way.add_argument("--page", metavar="FOLDER", help="default: output/symptoms/<file's stem>")
    parser.add_argument("opts", nargs="*", metavar="KEY value", help="settings of the dataset")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    try:
        return _replay(args) if args.replay else _generate(args)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on and asks nothing twice", file=sys.stderr)
        return 130


# -- the two ways ------------------------------------------------------------------------------


def _generate(args):
    _check(args)
    classes, pictures, no_pictures = _classes_and_pictures(args)
    output = Path(args.output or _default_output(args, classes))
    endpoint = Endpoint(
        args.model, args.temperature, args.retries, args.timeout, not args.no_stream
    )
    chosen = {
        name: draw(found, args.montages, TILES, args.seed, name)
        for name, found in pictures.items()
        if not no_pictures
    }
    settings = _settings(args, classes, chosen, no_pictures, endpoint.host)
    path = output.with_suffix(".transcript.jsonl")
    transcript = Transcript(path, keep=not args.dry_run, fresh=args.fresh)
    drawn = {}

    def sheets(classname, number):
        if (classname, number) not in drawn:
            drawn[classname, number] = sheet(chosen[classname][number])
        return drawn[classname, number]

    def load_clip():
        from backbones.clip_model import load_clip

        return load_clip(_cfg(args), "cpu")

    generation = Generation(settings, transcript, endpoint, sheets, load_clip, endpoint.say)
    if no_pictures:
        endpoint.say(f"stage 2 is left out: {no_pictures}")
    if args.dry_run:
        return _dry_run(generation, sheets, _page_folder(args, output))
    _ask_for_leave(args, generation, chosen)
    if args.fresh and path.exists():
        endpoint.say(f"the transcript so far is now {_kept_aside(path)}")
        path.unlink()
    if transcript.settings != settings:
        transcript.append(settings)
    results = generation.run()
    shown = _save_sheets(generation, sheets, _page_folder(args, output))
    return _finish(args, output, generation, results, shown, endpoint.say)


def _replay(args):
    path = Path(args.replay)
    if not path.is_file():
        raise InputError(f"{path}: there is no such transcript")
    transcript = Transcript(path, keep=False)
    if transcript.settings is None:
        raise InputError(f"{path}: is no transcript, it has no settings")
    if args.output is None and not path.name.endswith(".transcript.jsonl"):
        raise InputError(f"{path}: say with --output where the symptom file goes")
    output = Path(args.output or str(path).removesuffix(".transcript.jsonl") + ".json")
    generation = Generation(transcript.settings, transcript, endpoint=None)
    results = generation.run()
    shown = _saved_sheets(generation, _page_folder(args, output))
    return _finish(args, output, generation, results, shown, _say)


def _finish(args, output, generation, results, shown, say):
    settings = generation.settings
    phrases, provenance, details, meta = content(settings, results, generation.without_pictures)
    page = _page_folder(args, output) / "page.html"
    write_symptom_page(page, output.name, settings, results, provenance, shown)
    say(f"questions, pictures and answers side by side: {page}")
    replaced = replace(output, phrases, provenance, details, meta, yes=args.yes)
    if replaced:
        print(f"{output}: {sum(map(len, phrases.values()))} phrases in {len(phrases)} classes")
        print(f"look at them before trusting them: python -m symptoms.check {output}")
    return 0


# -- what is asked -----------------------------------------------------------------------------


def _check(args):
    if bool(args.dataset) == bool(args.classes):
        raise InputError("give --dataset, or --classes with the names of the classes")
    if not args.modality:
        raise InputError('give --modality, what the pictures are, as in "dermoscopic images"')
    for name in ("montages", "max"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} is {getattr(args, name)}; give 1 or more")
    if args.retries < 0 or args.timeout <= 0:
        raise InputError("--retries takes 0 or more, --timeout more than 0 seconds")
    if args.support is not None and not 1 <= args.support <= args.montages:
        raise InputError(f"--support is {args.support}; of {args.montages} answers a class at most")
    if args.upload_images and args.no_images:
        raise InputError("--upload-images and --no-images contradict each other; give one")
    if args.images and args.dataset:
        raise InputError("--images goes with --classes; a dataset has its own pictures")


def _classes_and_pictures(args):
    """The classes, their training pictures by class, and why there are none (or None)."""
    no_pictures = "--no-images" if args.no_images else None
    if args.dataset:
        from dassl.data.datasets import build_dataset

        dataset = build_dataset(_cfg(args))
        pictures = {name: [] for name in dataset.classnames}
        for picture in dataset.train_x:
            pictures[picture.classname].append(picture)
        return list(dataset.classnames), pictures, no_pictures
    classes = [name.strip() for name in args.classes.split(",") if name.strip()]
    if not classes or len(set(classes)) < len(classes):
        raise InputError(f"--classes {args.classes!r} should name each class once, with commas")
    if not args.images:
        return classes, {}, no_pictures or "no pictures were given (--images FOLDER)"
    from datasets.pictures import find_pictures

    pictures = {}
    for name in classes:
        folder = Path(args.images) / name
        found = find_pictures(folder)[0] if folder.is_dir() else []
        if not found:
            raise InputError(f"{folder}: holds no pictures of class {name!r}")
        pictures[name] = [File(str(p), p.relative_to(folder).as_posix()) for p in found]
    return classes, pictures, no_pictures


def _cfg(args):
    # Without a dataset only the backbone is read from it.
    return backbone_cfg(args.dataset or "derm7pt", args.backbone, args.root, args.opts)


def _settings(args, classes, chosen, no_pictures, host):
    clip = args.match == "clip" and not no_pictures
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
        "no_pictures": no_pictures,
        "seed": args.seed,
        "support": args.support or args.montages // 2 + 1,
        "match": args.match,
        "backbone": args.backbone if clip else None,
        "similarity": args.similarity if clip else None,
        "avoid": [word.strip() for word in args.avoid.split(",") if word.strip()],
        "max": args.max,
        "pictures": {
            name: [[picture_fingerprint(picture) for picture in one] for one in sheets]
            for name, sheets in chosen.items()
        },
    }


def _ask_for_leave(args, generation, chosen):
    """Stop here if pictures would leave this machine without leave."""
    waiting = generation.unanswered("pictures")
    if not waiting or args.upload_images:
        return
    pictures = {picture.impath for name, number in waiting for picture in chosen[name][number]}
    raise InputError(
        f"stage 2 would send {len(waiting)} sheets with {len(pictures)} training pictures to "
        f"{generation.endpoint.host}; give --upload-images to allow it, or --no-images to stop "
        "after stage 1; nothing has been sent"
    )


def _dry_run(generation, sheets, folder):
    settings, say = generation.settings, print
    texts, pictures = generation.unanswered("text"), generation.unanswered("pictures")
    for classname in settings["classes"]:
        say(f"\n== {classname}, stage 1, text\n{generation.text_prompt(classname)}")
        for number, shown in enumerate(settings["pictures"].get(classname, [])):
            say(f"\n== {classname}, stage 2, sheet {number + 1} of {len(shown)} training pictures")
            say(generation.pictures_prompt(classname, number))
    by_model = generation.with_pictures and settings["match"] == "llm"
    if by_model:
        blanks = {name: f"<{name}>" for name in ("category", "count", "features", "descriptions")}
        say("\n== each class, refining\n" + settings["prompts"]["match"].format(**blanks))
    if pictures:
        _save_sheets(generation, sheets, folder)
        say(f"\nthe sheets as they would be sent: {folder}")
    count = len(texts) + len(pictures) + by_model * len(settings["classes"])
    say(
        f"\n{count} requests to {settings['model']} at {settings['host']}: {len(texts)} in text, "
        f"{len(pictures)} with one sheet each, {by_model * len(settings['classes'])} to match; "
        "each asked again at most twice if its answer cannot be used. Nothing was sent."
    )
    return 0


# -- files -------------------------------------------------------------------------------------


def replace(path, phrases, provenance, details, meta, yes=False):
    """Put the new symptom file in the place of ``path`` and keep the one before it.

    The differences are shown first. At a terminal the user is asked, unless ``yes``; elsewhere the
    answer is yes, since nothing is lost.

    Returns:
        False if the user said no.
    """
    path = Path(path)
    new = path.with_name(f".{path.name}.new")
    try:
        save_symptoms(new, phrases, provenance, meta, details)
        if path.exists():
            if path.read_bytes() == new.read_bytes():
                print(f"{path}: unchanged")
                return True
            _show_differences(path, phrases)
            if not yes and sys.stdin.isatty() and not _agreed(f"replace {path}? [y/N] "):
                print(f"{path} stays as it was; the same command offers the new one again")
                return False
            print(f"the previous file is kept as {_kept_aside(path)}")
        os.replace(new, path)
        return True
    finally:
        new.unlink(missing_ok=True)


def _agreed(question):
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _show_differences(path, phrases):
    try:
        before, _ = read_symptom_file(path)
    except InputError as error:
        print(f"the previous file cannot be read: {error}")
        return
    for name in [*before, *(name for name in phrases if name not in before)]:
        entry = before.get(name, {"phrases": [], "provenance": ""})
        if entry["provenance"].endswith(EDITED):
            print(f"{name}: the phrases so far were edited by hand")
        lines = difflib.unified_diff(entry["phrases"], phrases.get(name, []), n=99, lineterm="")
        body = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
        print("\n".join([f"{name}:", *(f"  {line}" for line in body or ["the same phrases"])]))


def _kept_aside(path):
    """Copy ``path`` beside itself under a name that its content determines."""
    data = path.read_bytes()
    copy = path.with_name(f"{path.name}.{fingerprint(data)}.bak")
    with atomic_write(copy, "wb") as file:
        file.write(data)
    return copy


def _default_output(args, classes):
    stem = Path(args.dataset).stem if args.dataset else slug("_".join(classes)).lower()
    return Path("symptoms") / f"{stem}.json"


def _page_folder(args, output):
    return Path(args.page) if args.page else Path("output") / "symptoms" / output.stem


def _sheet_file(folder, settings, classname, number):
    place = settings["classes"].index(classname) + 1
    return folder / f"{place}-{slug(classname)}-{number + 1}.jpg"


def _save_sheets(generation, sheets, folder):
    """Write every sheet as it is sent; returns {(class, number): bytes}."""
    shown = {}
    if generation.with_pictures:
        for classname, chosen in generation.settings["pictures"].items():
            for number in range(len(chosen)):
                data = shown[classname, number] = sheets(classname, number)
                file = _sheet_file(folder, generation.settings, classname, number)
                with atomic_write(file, "wb") as out:
                    out.write(data)
    return shown


def _saved_sheets(generation, folder):
    """The sheets of an earlier run that lie in ``folder`` and are the ones that were sent."""
    sent = {
        (line["class"], line["number"]): line["messages"][0]["sheet"]
        for line in generation.transcript.lines
        if line["record"] == "exchange" and line["stage"] == "pictures"
    }
    shown = {}
    for (classname, number), mark in sent.items():
        if classname not in generation.settings["classes"]:
            continue
        file = _sheet_file(folder, generation.settings, classname, number)
        if file.exists() and fingerprint(file.read_bytes()) == mark:
            shown[classname, number] = file.read_bytes()
    return shown


def _say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    command_line(main)()
