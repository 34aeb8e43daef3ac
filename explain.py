"""Say why a run answered as it did: from a picture's similarity to each symptom to its logit.

python explain.py RUN                                      the test pictures: PNGs, a table, a page
python explain.py RUN --images a.jpg folder/               pictures of yours
python explain.py RUN --only wrong --limit 20              the first 20 that it gets wrong
python explain.py RUN --versus OTHER                       right here, wrong there (Fig. 3 II)
python explain.py RUN --versus OTHER --only wrong          the reverse (Fig. 4)
python explain.py RUN --drop "Redness or swelling around the spot" --add melanoma "blue-white veil"
python explain.py RUN --faithfulness                       is the explanation true?
python explain.py RUN --words                              words nearest to the learned context
"""

import sys
from pathlib import Path

from core.arguments import Parser, positive_int
from results.named_runs import add_run_arguments, named_run


def parse_args(argv=None):
    parser = Parser(__doc__)
    add = parser.add_argument
    add_run_arguments(parser)
    add(
        "--images", nargs="+", metavar="PATH", help="picture files and folders, in place of a split"
    )
    add("--split", default="test", choices=("train", "val", "test"), help="default: test")
    add("--only", choices=("wrong", "right"), help="only the pictures that the run gets so")
    add("--versus", metavar="OTHER_RUN", help="only those that one run gets right, the other wrong")
    add("--limit", type=positive_int, metavar="N", help="at most N pictures")
    add("--drop", action="append", default=[], metavar="PHRASE", help="what if without it?")
    add("--add", action="append", default=[], nargs=2, metavar=("CLASS", "PHRASE"),
        help="what if with it?")  # fmt: skip
    add("--faithfulness", action="store_true", help="tables and plots of how true explanations are")
    add("--pairs", metavar="FILE", help="symptom and attribute pairs for --faithfulness "
        "(default: symptoms/attribute_pairs/<dataset>.json)")  # fmt: skip
    add("--words", action="store_true", help="print the words nearest to the learned context")
    add("--root", help="folder that holds the datasets (default: the run's)")
    add("--output-dir", help="where to write (default: RUN/explanations)")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    check_args(args)
    args.run = named_run(args.run, args.latest, args.runs)
    if args.versus:
        args.versus = named_run(args.versus, args.latest, args.runs)

    from trainers import load_run

    run = load_run(args.run, root=args.root)
    if args.words:
        return show_words(run)
    run.check_symptoms()
    folder = Path(args.output_dir or Path(args.run) / "explanations")
    if args.faithfulness:
        return test_faithfulness(args, run, folder)
    return explain_pictures(args, run, folder)


def check_args(args):
    """Refuse what would otherwise be left unheard."""
    from core.errors import InputError

    if args.words and args.faithfulness:
        raise InputError("--words and --faithfulness answer different questions; give one")
    if args.pairs and not args.faithfulness:
        raise InputError("--pairs goes with --faithfulness")
    question = "--words" if args.words else "--faithfulness" if args.faithfulness else None
    choices = ("only", "versus", "limit", "drop", "add")
    choices += ("images",) if args.words else ()
    given = [f"--{name}" for name in choices if getattr(args, name)]
    if question and given:
        why = "looks at no picture" if args.words else "looks at every picture as it is"
        raise InputError(f"{question} {why}; leave out {', '.join(given)}")


def show_words(run):
    from explanations.words import nearest_words

    words = nearest_words(run)
    for row in words.rows:
        token = f"{row['token']}:" if row["rank"] == 1 else ""
        print(
            f"{token:12}{row['word']:20}distance {row['distance']:.3f}  cosine {row['cosine']:+.3f}"
        )
    print(words.caution)


def candidates(args, run):
    from explanations.selection import pictures_at, pictures_of_split

    if args.images:
        return pictures_at(args.images, run.classnames)
    return pictures_of_split(run, args.split)


def image_features(args, run, chosen):
    if args.images:
        return run.encode([picture.path for picture in chosen])
    return run.features(args.split)


def explain_pictures(args, run, folder):
    from core.errors import InputError
    from explanations.drawing import verdict
    from explanations.explanation import explain_features
    from explanations.selection import wanted
    from explanations.standardise import standard
    from explanations.words import nearest_words
    from explanations.writing import write_explanations

    chosen = candidates(args, run)
    changed_run = run.with_symptoms(args.drop, args.add) if args.drop or args.add else None
    other = other_run(args.versus, run) if args.versus else None
    features = image_features(args, run, chosen)
    other_labels, others = None, None
    if other:
        probabilities = other.predict([p.path for p in chosen], progress="asking the other run")
        other_labels = probabilities.argmax(axis=1)
    index = wanted(chosen, run.logits(features).argmax(axis=1), args.only, other_labels)
    found = len(index)
    index = index[: args.limit]
    selection = describe(args, run, other, len(chosen), found, len(index))
    print(selection)
    if not index:
        return
    chosen, features = [chosen[i] for i in index], features[index]
    if other:
        others = [
            f"{other.cfg.TRAINER.NAME}: {run.classnames[other_labels[i]]}, "
            f"{100 * probabilities[i].max():.1f} %"
            for i in index
        ]
    explanation = explain_features(run, features, standard(run))
    changed = None
    if changed_run:
        changed = explain_features(changed_run, features, standard(changed_run))
    try:
        words = nearest_words(run)
    except InputError:  # zero-shot, or the context switched off
        words = None
    page = write_explanations(
        folder,
        run,
        chosen,
        explanation,
        changed,
        others,
        selection=selection,
        change=describe_change(args),
        words=words,
    )
    for i, picture in enumerate(chosen[:20]):
        line = f"{picture.name}: {verdict(explanation, i, picture.truth)}"
        print(line + (f"; what if: {verdict(changed, i, picture.truth)}" if changed else ""))
    if len(chosen) > 20:
        print(f"... and {len(chosen) - 20} more")
    print(f"Open {page}; the numbers are in {folder / 'explanations.csv'}")


def other_run(folder, run):
    from core.errors import InputError
    from trainers import load_run

    other = load_run(folder)
    if other.classnames != run.classnames:
        raise InputError(
            f"{folder} has the classes {', '.join(other.classnames)}, {run.folder} has "
            f"{', '.join(run.classnames)}: they cannot be compared"
        )
    return other


def describe(args, run, other, total, found, shown):
    where = "the pictures given" if args.images else f"the {args.split} pictures"
    text = f"{found} of {total} of {where}"
    if other:
        here, there = ("wrong", "right") if args.only == "wrong" else ("right", "wrong")
        text += f" are {here} here and {there} with {other.name}"
    elif args.only:
        text += f" are {args.only}"
    return text + (f"; {shown} shown." if shown < found else ".")


def describe_change(args):
    parts = [f"without “{phrase}”" for phrase in args.drop]
    parts += [f"{name} with “{phrase}”" for name, phrase in args.add]
    return ", ".join(parts)


def test_faithfulness(args, run, folder):
    from explanations.attributes import PAIRS, attribute_areas, read_pairs, true_attributes
    from explanations.drawing import draw_areas, draw_faithfulness
    from explanations.explanation import explain_features
    from explanations.faithfulness import curves, summary
    from explanations.writing import save_png, write_rows

    chosen = candidates(args, run)
    features = image_features(args, run, chosen)
    explanation = explain_features(run, features, None)
    found = curves(run.model, features, explanation.prediction)
    rows = [summary(curve) for curve in found.values()]
    if rows:
        print(f"{rows[0]['pictures']} pictures; logits of the predicted class, one symptom stays:")
        write_rows(folder / "faithfulness.csv", list(rows[0]), rows)
        save_png(draw_faithfulness(found, rows), folder / "faithfulness.png")
    else:
        print("no predicted class has two symptoms: there is no order to test")
    for row in rows:
        print(
            f"  {row['measure']:10}by contribution sooner than at random by {row['gain']:+.3f} "
            f"[{row['low']:+.3f}, {row['high']:+.3f}], in {100 * row['sooner']:.0f} % of pictures"
        )

    path = Path(args.pairs or PAIRS / f"{run.cfg.RUN.DATASET}.json")
    truth = {} if args.images else true_attributes(run.dataset)
    if not truth:
        print("the true attributes of these pictures are not known: no AUC of single symptoms")
    else:
        names = [picture.name for picture in chosen]
        areas = attribute_areas(explanation, names, truth, read_pairs(path), path)
        for row in areas:
            auc = (
                "-"
                if row["auc"] is None
                else f"{row['auc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
            )
            print(f"  AUC {auc}  {row['class']}: {row['symptom']} | {row['attribute']}")
        paired = {row["symptom"].casefold() for row in areas}
        rest = [p for s in run.symptoms.phrases.values() for p in s if p.casefold() not in paired]
        if rest:
            print(f"  not paired with an attribute in {path}: {'; '.join(rest)}")
        if areas:
            write_rows(folder / "attributes.csv", list(areas[0]), areas)
            save_png(draw_areas(areas), folder / "attributes.png")
    print(f"Tables and plots are in {folder}", file=sys.stderr)


if __name__ == "__main__":
    from core.errors import command_line

    command_line(main)()
