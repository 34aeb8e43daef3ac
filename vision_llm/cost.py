"""What a run would send, where and how much of it: said before anything is sent."""

from collections.abc import Callable
from dataclasses import dataclass

from symptom_generator.interview import ATTEMPTS
from vision_llm.asking import Asking
from vision_llm.questions import UNCLEAR, SignAnswer
from vision_llm.task import Task

MEASURED = 50  # images whose size is measured; that of the others is estimated


@dataclass(frozen=True)
class Cost:
    """What is still to be asked.

    Attributes:
        requests: if every answer can be used. text: lines for the user; the first says it all.
    """

    requests: int
    text: str

    @classmethod
    def of(cls, asking: Asking, task: Task, send: Callable[[str], bytes]) -> "Cost":
        """The cost of the questions that ``asking`` has no answer for.

        Args:
            send: the fingerprint of an image -> the bytes that would be sent.
        """
        settings = task.settings
        uploads = [asking.waiting(number) for number in range(len(asking.images))]
        waiting = [name for name, sizes in zip(asking.images, uploads, strict=True) if sizes]
        requests, total = sum(map(len, uploads)), sum(map(sum, uploads))
        where = f"{settings['model']} at {settings['host']}"
        if not requests:
            return cls(0, f"all answers of {where} are kept; nothing is sent")
        examples = {name for image in waiting for name, _ in settings["shown"].get(image, ())}
        shown = f" and {len(examples):,} training images as examples" if examples else ""
        size = _mean_size(waiting, send) * total * 4 / 3 / 1e6  # as base64
        first = (
            f"{requests:,} requests to {where} would send {len(waiting):,} {settings['split']} "
            f"images of {task.cfg.RUN.DATASET}{shown}: {total:,} uploads, about {size:,.1f} MB"
        )
        lines = [
            first,
            f"{len(asking.images) - len(waiting):,} of {len(asking.images):,} images are answered "
            "already; a question is asked again at most "
            f"{ATTEMPTS - 1} times if its answer cannot be used",
        ]
        endpoint = asking.interview.endpoint
        if endpoint and endpoint.max_requests is not None:
            lines.append(f"this command stops after {endpoint.max_requests:,} requests")
        return cls(requests, "\n".join(lines))

    @staticmethod
    def example(asking: Asking) -> str:
        """The questions about the first image, the second with made-up answers."""
        signs = asking.sign_questions(0)
        answers = [SignAnswer(sign, UNCLEAR) for sign in asking.signs]
        questions = [*signs[:1], asking.class_question(0, answers)]
        titles = ("first step", "second step (the answers here stand for the model's)")
        more = f", {len(signs)} such requests, one for each symptom" if len(signs) > 1 else ""
        return "\n\n".join(
            f"== {title}{more if title == titles[0] else ''}, images: {len(question.shown)}\n"
            f"{question.prompt}"
            for title, question in zip(titles, questions, strict=True)
        )


def _mean_size(names: list[str], send: Callable[[str], bytes]) -> float:
    """Bytes of an image as it is sent, over images spread evenly over all."""
    step = max(1, len(names) // MEASURED)
    some = names[::step][:MEASURED]
    return sum(len(send(name)) for name in some) / len(some)
