"""Section 2.2 of the paper: features in words, features in pictures, and what both agree on."""

import re
import time
from collections import Counter
from datetime import datetime, timezone

from core.errors import InputError
from core.files import fingerprint
from symptom_generator.chat import NoPictures, Reply, Unusable, user_message
from symptom_generator.match import PROMPT as MATCH_PROMPT
from symptom_generator.match import SCHEMA, clip_similarities, question, read_matches
from symptom_generator.phrases import read_features

# As the paper prints them.
TEXT_PROMPT = (
    "I am going to use CLIP, a vision-language model to detect {category} in {modality}. What are "
    "useful medical visual features for diagnosing {category}? Please list in bullet points and "
    "explain in plain words that CLIP understands. Avoid using words such as {category}."
)
PICTURES_PROMPT = (
    "Please provide visual features regarding color, shape, and texture of this {category} image, "
    "which contains {count} sub-images."
)
PROMPTS = {"text": TEXT_PROMPT, "pictures": PICTURES_PROMPT, "match": MATCH_PROMPT}
ATTEMPTS = 3  # a question is asked again at most twice
STAGES = {"text": "stage 1, text", "pictures": "stage 2, pictures", "match": "refining"}


class Generation:
    """The questions of one generation and what follows from their answers.

    Everything that reaches the symptom file comes from ``settings`` and the transcript's lines,
    so a rebuilt file has the same bytes.

    Args:
        settings: what to ask, as ``symptom_generator.generate`` writes it into the transcript.
        transcript: ``Transcript``; answered questions are read from it.
        endpoint: ``Endpoint``, or None to ask nothing.
        sheets: (class, number) -> JPEG bytes, called for pictures that have to be sent.
        load_clip: called for ``FrozenCLIP`` where CLIP does the matching.
        say: called with a line of progress.
    """

    def __init__(self, settings, transcript, endpoint, sheets=None, load_clip=None, say=print):
        self.settings, self.transcript, self.endpoint = settings, transcript, endpoint
        self.sheets, self.load_clip, self.say = sheets, load_clip, say
        self.used = {}  # class -> the lines its phrases come from

    # -- the questions --------------------------------------------------------------------------

    def text_prompt(self, classname):
        return self.settings["prompts"]["text"].format(
            category=classname, modality=self.settings["modality"]
        )

    def pictures_prompt(self, classname, number):
        count = len(self.settings["pictures"][classname][number])
        return self.settings["prompts"]["pictures"].format(category=classname, count=count)

    def unanswered(self, stage):
        """The (class, number) of the questions of ``stage`` that the transcript cannot answer."""
        questions = []
        for classname in self.settings["classes"]:
            if stage == "text":
                questions.append((classname, 0, self.text_prompt(classname), ()))
            elif self.with_pictures:
                for number, shown in enumerate(self.settings["pictures"][classname]):
                    prompt = self.pictures_prompt(classname, number)
                    questions.append((classname, number, prompt, shown))
        return [
            (classname, number)
            for classname, number, prompt, shown in questions
            if not self.transcript.find("exchange", self._key(stage, prompt, shown))
        ]

    @property
    def with_pictures(self):
        """Whether the symptoms follow from pictures too."""
        return not self.without_pictures

    @property
    def without_pictures(self):
        """Why no pictures are shown, or None."""
        if self.settings["no_pictures"]:
            return self.settings["no_pictures"]
        note = self.transcript.find("no pictures", self._endpoint_key())
        return f"the endpoint takes no pictures ({note['why']})" if note else None

    # -- the way --------------------------------------------------------------------------------

    def run(self):
        """Ask what is still unanswered and work out the phrases.

        Returns:
            class name -> {"text": the first answer, "answers": the picture answers, "features",
            "phrases", "used": the lines it comes from}.

        Raises:
            InputError: naming the class and the stage.
        """
        classes = self.settings["classes"]
        results = {}
        for classname in classes:
            result = results[classname] = {"answers": []}
            avoid = [*classes, *self.settings["avoid"]]
            result["text"], result["features"] = self._ask(
                "text",
                classname,
                self.text_prompt(classname),
                lambda answer, avoid=avoid: read_features(answer, avoid),
            )
            for feature in result["features"]:
                feature["support"] = []
            if self.with_pictures:
                result["answers"] = self._picture_answers(classname)
            if result["answers"] and self.settings["match"] == "llm":
                self._match_by_model(classname, result)
        if self.with_pictures and self.settings["match"] == "clip":
            self._match_by_clip(results)
        for classname, result in results.items():
            result["phrases"] = self._choose(classname, result["features"])
            result["used"] = self.used[classname]
        return results

    def _picture_answers(self, classname):
        answers = []
        for number, shown in enumerate(self.settings["pictures"][classname]):
            prompt = self.pictures_prompt(classname, number)
            try:
                answer, _ = self._ask("pictures", classname, prompt, str, number, shown)
            except NoPictures as refusal:
                if self._took_pictures():
                    raise InputError(
                        f"{classname}, {STAGES['pictures']}: {refusal}; earlier pictures were taken"
                    ) from None
                self.say(f"{refusal}; going on without pictures: the symptoms are the text's alone")
                note = {"record": "no pictures", "key": self._endpoint_key(), "why": str(refusal)}
                self.transcript.append(note)
                return []
            answers.append(answer)
        return answers

    def _took_pictures(self):
        same = {name: self.settings[name] for name in ("host", "model")}
        same |= {"stage": "pictures", "outcome": "accepted"}
        return any(
            same.items() <= line.items() for line in self.transcript.lines if "stage" in line
        )

    def _match_by_model(self, classname, result):
        usable = [feature for feature in result["features"] if feature["phrase"]]
        phrases = [feature["phrase"] for feature in usable]
        prompt = question(self.settings["prompts"]["match"], classname, phrases, result["answers"])
        _, matches = self._ask(
            "match",
            classname,
            prompt,
            lambda answer: read_matches(answer, phrases, result["answers"]),
            schema=SCHEMA,
        )
        for feature, support in zip(usable, matches, strict=True):
            feature["support"] = support
        unfound = sum(not support["found"] for match in matches for support in match)
        if unfound:
            self.say(
                f"  quotations that are not in the picture answers and do not count: {unfound}"
            )

    def _match_by_clip(self, results):
        usable = {
            classname: [feature for feature in result["features"] if feature["phrase"]]
            for classname, result in results.items()
        }
        phrases = {c: [feature["phrase"] for feature in usable[c]] for c in usable}
        answers = {classname: result["answers"] for classname, result in results.items()}
        key = fingerprint(
            ["similarity", self.settings["backbone"], self.settings["similarity"], phrases, answers]
        )
        line = self.transcript.find("similarity", key)
        if line is None:
            if self.load_clip is None:
                raise InputError(f"{self.transcript.path}: lacks CLIP's matching; nothing rebuilt")
            similarities, threshold = clip_similarities(self.load_clip(), phrases, answers)
            line = {
                "record": "similarity",
                "key": key,
                "time": _now(),
                "backbone": self.settings["backbone"],
                "threshold": self.settings["similarity"] or threshold,
                "similarities": similarities,
            }
            self.transcript.append(line)
        for classname, rows in line["similarities"].items():
            self.used[classname].append(line)
            for feature, row in zip(usable[classname], rows, strict=True):
                feature["support"] = [
                    {
                        "answer": number,
                        "words": words,
                        "similarity": value,
                        "found": value >= line["threshold"],
                    }
                    for number, (value, words) in enumerate(row, start=1)
                ]

    def _choose(self, classname, features):
        """Mark what each feature came to in ``features``; return the phrases kept."""
        needed = self.settings["support"] if self.with_pictures else 0
        counts = [sum(s["found"] for s in feature["support"]) for feature in features]
        kept = []
        for feature, count in zip(features, counts, strict=True):
            if feature["phrase"] and count < needed:
                shown = len(self.settings["pictures"][classname])
                feature["dropped"] = f"reported by {count} of {shown} picture answers"
            elif feature["phrase"]:
                kept.append((-count, len(kept), feature))
        kept.sort(key=lambda entry: entry[:2])  # the most supported first, then as listed
        for _, _, feature in kept[self.settings["max"] :]:
            feature["dropped"] = f"beyond the {self.settings['max']} most supported"
        if not kept:
            raise InputError(
                f"{classname}, {STAGES['match']}: the picture answers report none of its "
                f"{len(features)} features at least {needed} times; lower --support, try another "
                "--match or --seed, or give --no-images: the same command asks nothing twice"
            )
        return [feature["phrase"] for _, _, feature in kept[: self.settings["max"]]]

    # -- asking ---------------------------------------------------------------------------------

    def _ask(self, stage, classname, prompt, read, number=0, shown=(), schema=None):
        """The accepted answer to ``prompt`` and what ``read`` makes of it."""
        key = self._key(stage, prompt, shown)
        where = f"{classname}, {STAGES[stage]}" + (f" {number + 1}" if shown else "")
        line = self.transcript.find("exchange", key)
        if line:
            try:
                value = read(line["answer"])
                self.used.setdefault(classname, []).append(line)
                return line["answer"], value
            except Unusable as why:
                if self.endpoint is None:
                    raise InputError(f"{where}: the transcript's answer: {why}") from None
        if self.endpoint is None:
            raise InputError(
                f"{self.transcript.path}: has no answer for {where}; without --replay the same "
                "generation goes on from there"
            )
        pictures = [self.sheets(classname, number)] if shown else []
        messages = [user_message(prompt, pictures)]
        for attempt in range(1, ATTEMPTS + 1):
            self.say(f"{where}: asking {self.settings['model']} at {self.endpoint.host}")
            started = time.monotonic()
            record = {
                "record": "exchange",
                "key": key,
                "class": classname,
                "stage": stage,
                "number": number,
                "attempt": attempt,
                "time": _now(),
                "model": self.settings["model"],
                "host": self.endpoint.host,
                "messages": _for_the_record(messages, shown, pictures),
            }
            reply, outcome, value = Reply(""), "accepted", None
            try:
                reply = self.endpoint.ask(messages, schema)
                value = read(reply.text)
            except Unusable as problem:
                outcome = str(problem)
                unread, reply = reply.text, reply if reply.text else problem.reply or reply
            except (InputError, NoPictures) as error:
                self.transcript.append({**record, "outcome": str(error)})
                if isinstance(error, InputError):
                    raise InputError(f"{where}: {error}") from None
                raise
            record |= {
                "schema": schema is not None and self.endpoint.schemas,
                "answer": reply.text,
                "answered_by": reply.model,
                "finish": reply.finish,
                "usage": reply.usage,
                "seconds": round(time.monotonic() - started, 2),
                "outcome": outcome,
            }
            self.transcript.append(record)
            if outcome == "accepted":
                self.used.setdefault(classname, []).append(record)
                return reply.text, value
            self.say(f"{where}: {outcome}" + ("; asking again" if attempt < ATTEMPTS else ""))
            if unread:  # a proper answer in the wrong form: say what is wrong with it
                wrong = f"That answer cannot be used: {outcome}. Please answer as asked."
                messages = [messages[0], {"role": "assistant", "content": unread}]
                messages.append(user_message(wrong))
        raise InputError(
            f"{where}: {outcome} (asked {ATTEMPTS} times); the other answers are kept, so the same "
            "command asks only this again, and another --model may answer"
        )

    def _key(self, stage, prompt, shown):
        return fingerprint([self._endpoint_key(), stage, prompt, list(shown)])

    def _endpoint_key(self):
        settings = self.settings
        return fingerprint([settings["host"], settings["model"], settings["temperature"]])


def content(settings, results, without_pictures):
    """What the symptom file says: phrases, provenance and where they come from.

    Args:
        results: of ``Generation.run``. without_pictures: ``Generation.without_pictures``.

    Returns:
        phrases, provenance, details (by class name) and meta, as ``save_symptoms`` takes them.
    """
    phrases = {classname: result["phrases"] for classname, result in results.items()}
    provenance, details = {}, {}
    for classname, result in results.items():
        lines = result["used"]
        date = max(line["time"] for line in lines)[:10]
        by = sorted({line["answered_by"] or line["model"] for line in lines if "model" in line})
        how = "from the text question alone" if without_pictures else _how(settings, classname)
        why = f" ({without_pictures})" if without_pictures else ""
        provenance[classname] = (
            f"generated by {', '.join(by)} at {settings['host']} on {date}, {how}{why}"
        )
        details[classname] = {
            "generated": {
                "by": by,
                "date": date,
                "prompts": {
                    "text": settings["prompts"]["text"].format(
                        category=classname, modality=settings["modality"]
                    )
                }
                | ({} if without_pictures else {"pictures": _picture_prompts(settings, classname)}),
                # A line a sheet: the file is for people to read and edit.
                "pictures": []
                if without_pictures
                else [" ".join(sheet) for sheet in settings["pictures"][classname]],
                "features": result["features"],
                "fingerprint": fingerprint(result["phrases"]),
            }
        }
    skipped = ("record", "classes", "pictures")
    meta = {"generation": {k: v for k, v in settings.items() if k not in skipped}}
    meta["generation"]["no_pictures"] = without_pictures
    return phrases, provenance, details, meta


def _picture_prompts(settings, classname):
    counts = Counter(len(shown) for shown in settings["pictures"][classname])
    template = settings["prompts"]["pictures"]
    return [template.format(category=classname, count=count) for count in counts]


def _how(settings, classname):
    shown = settings["pictures"][classname]
    by = "by the model" if settings["match"] == "llm" else f"by CLIP ({settings['backbone']})"
    return (
        f"from the text question and {len(shown)} sheets of {len(shown[0])} training pictures; "
        f"kept what at least {settings['support']} of {len(shown)} picture answers report, "
        f"matched {by}"
    )


def _for_the_record(messages, shown, pictures):
    kept = []
    for message in messages:
        body = message["content"]
        if not isinstance(body, str):
            body = "\n".join(part["text"] for part in body if part["type"] == "text")
        entry = {"role": message["role"], "text": body}
        if body is not message["content"]:
            entry |= {"pictures": list(shown), "sheet": fingerprint(pictures[0])}
        kept.append(entry)
    return kept


def _now():
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def slug(text):
    """``text`` as part of a file's name."""
    return re.sub(r"[^\w-]+", "_", text).strip("_")[:60] or "class"
