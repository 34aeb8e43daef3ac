"""Section 2.2 of the paper: features in words, features in images, and what both agree on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from backbones.backbone import Backbone
from core.errors import InputError
from core.files import fingerprint
from symptom_generator.chat import Endpoint, NoImages
from symptom_generator.interview import STAGES, Interview, Question, now
from symptom_generator.match import PROMPT as MATCH_PROMPT
from symptom_generator.match import SCHEMA, clip_similarities, question, read_matches
from symptom_generator.phrases import read_features
from symptom_generator.transcript import Record, Transcript

# As the paper prints them.
TEXT_PROMPT = (
    "I am going to use CLIP, a vision-language model to detect {category} in {modality}. What are "
    "useful medical visual features for diagnosing {category}? Please list in bullet points and "
    "explain in plain words that CLIP understands. Avoid using words such as {category}."
)
IMAGES_PROMPT = (
    "Please provide visual features regarding color, shape, and texture of this {category} image, "
    "which contains {count} sub-images."
)
PROMPTS = {"text": TEXT_PROMPT, "pictures": IMAGES_PROMPT, "match": MATCH_PROMPT}


@dataclass
class ClassResult:
    """What was found out about a class.

    Attributes:
        text: the first answer. answers: the image answers.
        features: of the first answer, each with its "phrase", its "support" and why it was
            "dropped". phrases: those kept.
        used: the transcript's lines that all this comes from.
    """

    text: str = ""
    answers: list[str] = field(default_factory=list)
    features: list[dict[str, Any]] = field(default_factory=list)
    phrases: list[str] = field(default_factory=list)
    used: list[Record] = field(default_factory=list)

    @property
    def usable(self) -> list[dict[str, Any]]:
        """The features that have a phrase."""
        return [feature for feature in self.features if feature["phrase"]]


class Generation:
    """The questions of one generation and what follows from their answers.

    Everything that reaches the symptom file comes from ``settings`` and the transcript's lines,
    so a rebuilt file has the same bytes.

    Args:
        settings: what to ask, as the transcript's ``Settings``.
        transcript: ``Transcript``; answered questions are read from it.
        endpoint: ``Endpoint``, or None to ask nothing.
        sheets: (class, number) -> JPEG bytes, called for images that have to be sent.
        load_clip: called for ``Backbone`` where CLIP does the matching.
        say: called with a line of progress.
    """

    def __init__(
        self,
        settings: Record,
        transcript: Transcript,
        endpoint: Endpoint | None = None,
        sheets: Callable[[str, int], bytes] | None = None,
        load_clip: Callable[[], Backbone] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.settings, self.transcript = settings, transcript
        self.load_clip, self.say = load_clip, say
        images = (lambda q: [sheets(q.classname, q.number)]) if sheets else None
        self.interview = Interview(settings, transcript, endpoint, images, say)

    # -- the questions --------------------------------------------------------------------------

    def text_question(self, classname: str) -> Question:
        template, modality = self.settings["prompts"]["text"], self.settings["modality"]
        return Question("text", classname, template.format(category=classname, modality=modality))

    def image_questions(self, classname: str) -> list[Question]:
        """One question for each sheet of the class; none where no images are shown."""
        if not self.with_images:
            return []
        template = self.settings["prompts"]["pictures"]
        return [
            Question(
                "pictures",
                classname,
                template.format(category=classname, count=len(shown)),
                number,
                shown,
            )
            for number, shown in enumerate(self.settings["pictures"][classname])
        ]

    def unanswered(self) -> list[Question]:
        """The questions in text and with images that the transcript cannot answer."""
        classes = self.settings["classes"]
        questions = [self.text_question(name) for name in classes]
        questions += [q for name in classes for q in self.image_questions(name)]
        return [q for q in questions if not self.interview.answered(q)]

    @property
    def with_images(self) -> bool:
        """Whether the symptoms follow from images too."""
        return not self.without_images

    @property
    def without_images(self) -> str | None:
        """Why no images are shown, or None."""
        if self.settings["no_pictures"]:
            return self.settings["no_pictures"]
        note = self.transcript.find("no pictures", self.interview.endpoint_key)
        return f"the endpoint accepts no images ({note['why']})" if note else None

    # -- from questions to phrases --------------------------------------------------------------

    def run(self) -> dict[str, ClassResult]:
        """Ask what is still unanswered and work out the phrases of each class.

        Raises:
            InputError: naming the class and the stage.
        """
        results = {}
        for classname in self.settings["classes"]:
            result = results[classname] = self._described(classname)
            if result.answers and self.settings["match"] == "llm":
                self._match_by_model(classname, result)
        if self.with_images and self.settings["match"] == "clip":
            self._match_by_clip(results)
        for classname, result in results.items():
            result.phrases = self._choose(classname, result.features)
        return results

    def _described(self, classname: str) -> ClassResult:
        """The features in words, and the image answers."""
        avoid = [*self.settings["classes"], *self.settings["avoid"]]
        line, features = self.interview.ask(
            self.text_question(classname), lambda answer: read_features(answer, avoid)
        )
        for feature in features:
            feature["support"] = []
        result = ClassResult(line["answer"], features=features, used=[line])
        for asked in self.image_questions(classname):
            try:
                line, answer = self.interview.ask(asked, str)
            except NoImages as refusal:
                self._go_on_without_images(classname, str(refusal))
                result.answers = []
                break
            result.answers.append(answer)
            result.used.append(line)
        return result

    def _go_on_without_images(self, classname: str, refusal: str) -> None:
        same = {name: self.settings[name] for name in ("host", "model")}
        same |= {"stage": "pictures", "outcome": "accepted"}
        if any(same.items() <= line.items() for line in self.transcript.lines if "stage" in line):
            raise InputError(
                f"{classname}, {STAGES['pictures']}: {refusal}; earlier images were accepted"
            )
        self.say(f"{refusal}; continuing without images: the symptoms come from the text alone")
        key = self.interview.endpoint_key
        self.transcript.append({"record": "no pictures", "key": key, "why": refusal})

    def _match_by_model(self, classname: str, result: ClassResult) -> None:
        phrases = [feature["phrase"] for feature in result.usable]
        prompt = question(self.settings["prompts"]["match"], classname, phrases, result.answers)
        line, matches = self.interview.ask(
            Question("match", classname, prompt, schema=SCHEMA),
            lambda answer: read_matches(answer, phrases, result.answers),
        )
        result.used.append(line)
        for feature, support in zip(result.usable, matches, strict=True):
            feature["support"] = support
        unfound = sum(not support["found"] for match in matches for support in match)
        if unfound:
            self.say(f"  quotations that are not in the image answers and do not count: {unfound}")

    def _match_by_clip(self, results: dict[str, ClassResult]) -> None:
        line = self._similarities(results)
        for classname, result in results.items():
            rows = line["similarities"].get(classname, [])
            if [len(row) for row in rows] != [len(result.answers)] * len(result.usable):
                raise InputError(
                    f"{self.transcript.path}: CLIP's matching does not fit the features of "
                    f"{classname!r}; delete its line, or give --fresh"
                )
            result.used.append(line)
            for feature, row in zip(result.usable, rows, strict=True):
                feature["support"] = [
                    {
                        "answer": number,
                        "words": words,
                        "similarity": value,
                        "found": value >= line["threshold"],
                    }
                    for number, (value, words) in enumerate(row, start=1)
                ]

    def _similarities(self, results: dict[str, ClassResult]) -> Record:
        """The transcript's line of CLIP's matching, made if it is not there."""
        phrases = {name: [f["phrase"] for f in result.usable] for name, result in results.items()}
        answers = {name: result.answers for name, result in results.items()}
        backbone, chosen = self.settings["backbone"], self.settings["similarity"]
        key = fingerprint(["similarity", backbone, chosen, phrases, answers])
        if line := self.transcript.find("similarity", key):
            return line
        if self.load_clip is None:
            raise InputError(f"{self.transcript.path}: lacks CLIP's matching; nothing was rebuilt")
        similarities, threshold = clip_similarities(self.load_clip(), phrases, answers)
        line = {
            "record": "similarity",
            "key": key,
            "time": now(),
            "backbone": backbone,
            "threshold": chosen or threshold,
            "similarities": similarities,
        }
        self.transcript.append(line)
        return line

    def _choose(self, classname: str, features: list[dict[str, Any]]) -> list[str]:
        """Mark what each feature came to in ``features``; return the phrases kept."""
        needed = self.settings["support"] if self.with_images else 0
        counts = [sum(s["found"] for s in feature["support"]) for feature in features]
        kept: list[tuple[int, int, dict[str, Any]]] = []
        for feature, count in zip(features, counts, strict=True):
            if feature["phrase"] and count < needed:
                shown = len(self.settings["pictures"][classname])
                feature["dropped"] = f"reported by {count} of {shown} image answers"
            elif feature["phrase"]:
                kept.append((-count, len(kept), feature))
        kept.sort(key=lambda entry: entry[:2])  # the most supported first, then as listed
        most = self.settings["max"]
        for _, _, feature in kept[most:]:
            feature["dropped"] = f"beyond the {most} most supported"
        if not kept:
            raise InputError(
                f"{classname}, {STAGES['match']}: the image answers report none of its "
                f"{len(features)} features at least {needed} times; lower --support, try another "
                "--match or --seed, or give --no-images: the same command asks nothing twice"
            )
        return [feature["phrase"] for _, _, feature in kept[:most]]
