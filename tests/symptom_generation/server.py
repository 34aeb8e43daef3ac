"""A chat completions server on the loopback that answers from a file, and can misbehave.

python tests/symptom_generation/server.py ANSWERS.json [PORT]

The answers: {class: {"text": "...", "pictures": ["...", ...], "match": {...} or absent}}. Without
"match" a feature counts as reported by every picture answer that shares a long word with it.
"""

import json
import re
import sys
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TEXT = re.compile(r"model to detect (.+?) in ")
PICTURES = re.compile(r"texture of this (.+?) image, which contains")
MATCH = re.compile(r"numbered visual features of (.+?), and \d+ numbered")


class ChatServer(ThreadingHTTPServer):
    """Answers POST /v1/chat/completions; ``faults`` are used up first, one a request.

    A fault is a function of the handler and the request's body; it answers, or returns a text (the
    answer) or None (the usual answer).

    Attributes:
        requests: (headers, body) of what came, in order.
        no_schemas, no_images, no_streams: what it refuses with 400.
    """

    daemon_threads = True

    def __init__(self, answers, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.answers = answers
        self.faults, self.requests = deque(), []
        self.no_schemas = self.no_images = self.no_streams = False
        self.shown = {}
        self.stop = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def answer(self, text):
        """The answer to a question."""
        stages = {"match": MATCH, "pictures": PICTURES, "text": TEXT}
        stage = next(stage for stage, pattern in stages.items() if pattern.search(text))
        found = stages[stage].search(text)
        entry = self.answers[found[1]]
        if stage == "text":
            return entry["text"]
        if stage == "pictures":
            number = self.shown[found[1]] = self.shown.get(found[1], -1) + 1
            return entry["pictures"][number % len(entry["pictures"])]
        return json.dumps(entry.get("match") or match_words(text))


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        headers = {name.lower(): value for name, value in self.headers.items()}
        server.requests.append((headers, body))
        text = None
        if server.faults:
            text = server.faults.popleft()(self, body)
            if text is True:
                return
        if server.no_schemas and "response_format" in body:
            return self.error(400, "'response_format.type' must be 'text'")
        if server.no_images and has_images(body):
            return self.error(400, "this model does not support image input")
        if server.no_streams and body.get("stream"):
            return self.error(400, "stream is not supported")
        self.complete(body, server.answer(question_of(body)) if text is None else text)

    def error(self, status, message, headers=(), **extra):
        """Answer with an error in the protocol's form."""
        error = {"message": message, "type": "error", "code": None, **extra}
        self.send(status, json.dumps({"error": error}), headers=headers)
        return True

    def send(self, status, text, kind="application/json", headers=()):
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        return True

    def complete(self, body, text, finish="stop", refusal=None):
        """A whole answer, or one in pieces if that was asked for."""
        common = {"id": "1", "created": 0, "model": body["model"] + "-2024"}
        if not body.get("stream"):
            message = {"role": "assistant", "content": text, "refusal": refusal}
            choices = [{"index": 0, "message": message, "finish_reason": finish}]
            usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
            answer = {**common, "object": "chat.completion", "choices": choices, "usage": usage}
            return self.send(200, json.dumps(answer))
        self.start_stream()
        if refusal:
            self.piece(common, {"refusal": refusal})
        for start in range(0, len(text or ""), 40):
            self.piece(common, {"content": text[start : start + 40]})
        if finish:
            self.piece(common, {}, finish)
            self.wfile.write(b"data: [DONE]\n\n")
        return True

    def start_stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()

    def piece(self, common, delta, finish=None):
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        chunk = {**common, "object": "chat.completion.chunk", "choices": choices}
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.flush()


def question_of(body):
    """The text of the last message that asks one of the questions."""
    texts = []
    for message in body["messages"]:
        content = message["content"]
        if not isinstance(content, str):
            content = "\n".join(part["text"] for part in content if part["type"] == "text")
        texts.append(content)
    return texts[0]


def has_images(body):
    return any(
        part["type"] == "image_url"
        for message in body["messages"]
        if not isinstance(message["content"], str)
        for part in message["content"]
    )


def match_words(question):
    """A matching by common long words, with a quotation that stands in the description."""
    listed, _, said = question.partition("Features:\n")[2].partition("\n\nDescription 1:")
    said = re.split(r"\n\nDescription \d+:", said)
    features = []
    for line in listed.splitlines():
        number, _, feature = line.partition(". ")
        words = [word for word in re.findall(r"\w+", feature.lower()) if len(word) > 5]
        support = []
        for place, description in enumerate(said, start=1):
            shared = [word for word in words if word in description.lower()]
            if shared:
                support.append({"description": place, "words": shared[0]})
        features.append({"number": int(number), "supported_by": support})
    return {"features": features}


# -- faults ------------------------------------------------------------------------------------


def status(number, message="busy", headers=(), **extra):
    """Answer with an HTTP error."""
    return lambda handler, body: handler.error(number, message, headers, **extra)


def says(text, finish="stop", refusal=None):
    """Answer with this text."""
    return lambda handler, body: handler.complete(body, text, finish, refusal)


def content(value):
    """Answer with a ``content`` of any kind, in one piece."""

    def fault(handler, body):
        if not body.get("stream"):
            return handler.complete(body, value)
        common = {"id": "1", "created": 0, "model": "m"}
        handler.start_stream()
        handler.piece(common, {"content": value})
        handler.piece(common, {}, "stop")
        handler.wfile.write(b"data: [DONE]\n\n")
        return True

    return fault


def events(*lines):
    """Stream these events, then the usual answer's pieces where one of the lines is None."""

    def fault(handler, body):
        handler.start_stream()
        for line in lines:
            if line is None:
                text = handler.server.answer(question_of(body))
                handler.piece({"id": "1", "created": 0, "model": "m"}, {"content": text}, "stop")
            else:
                handler.wfile.write(f"data: {line}\n\n".encode())
        handler.wfile.write(b"data: [DONE]\n\n")
        return True

    return fault


def cut(handler, body):
    """Close the connection without a word."""
    handler.close_connection = True
    handler.connection.close()
    return True


def cut_in_the_middle(handler, body):
    """Begin an answer and close the connection."""
    return handler.complete(body, "- A feature that nobody will hear the end", finish=None)


def cut_short(handler, body):
    """Promise more bytes than come."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.piece({"id": "1", "created": 0, "model": "m"}, {"content": "- half"})
    return True


def error_in_the_middle(handler, body):
    """Begin a stream, then send an error event."""
    handler.start_stream()
    handler.piece({"id": "1", "created": 0, "model": "m"}, {"content": "- half"})
    handler.wfile.write(b'data: {"error": {"message": "overloaded", "type": "server_error"}}\n\n')
    return True


def garbage_in_the_middle(handler, body):
    """Begin a stream, then send what is not JSON."""
    handler.start_stream()
    handler.piece({"id": "1", "created": 0, "model": "m"}, {"content": "- half"})
    handler.wfile.write(b"data: {not json\n\n")
    return True


def web_page(handler, body):
    """Answer 200 with a login page."""
    return handler.send(200, "<html>Please log in</html>", "text/html")


def whole(handler, body):
    """Ignore that a stream was asked for."""
    body = {**body, "stream": False}
    return handler.complete(body, handler.server.answer(question_of(body)))


def silent(seconds):
    """Say nothing for a while, then answer as usual."""

    def fault(handler, body):
        handler.server.stop.wait(seconds)
        return None

    return fault


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        server = ChatServer(json.load(file), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    print(f"answering from {sys.argv[1]} at {server.url}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
