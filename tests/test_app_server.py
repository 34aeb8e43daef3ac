"""The page's server: whom it answers, what hostile requests get, and what a reader study hides."""

import concurrent.futures
import contextlib
import http.client
import io
import json
import re
import socket
import threading
import time

import pytest
import uvicorn
from PIL import Image

import app
from core.errors import InputError
from webapp import serving
from webapp.guard import HEADERS, JSON_BYTES
from webapp.server import PAGE, page_server
from webapp.workbench import Workbench

TOKEN = "a-token-of-the-tests"
ASKED = {"run": "0", "image": "test/0"}


class Answer:
    """Status, headers and body of a response."""

    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self):
        return json.loads(self.body)


class Page:
    """A running server, and requests to it as any program could send them."""

    def __init__(self, guard, port):
        self.guard, self.port = guard, port
        self.cookie = f"{guard.cookie}={TOKEN}"

    def ask(self, method, path, body=None, cookie=None, host=None, **headers):
        """``cookie`` and ``host``: None for the right one, "" for none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True)
            host = f"127.0.0.1:{self.port}" if host is None else host
            if host:
                connection.putheader("Host", host)
            if cookie := self.cookie if cookie is None else cookie:
                connection.putheader("Cookie", cookie)
            if isinstance(body, dict | list):
                body = json.dumps(body).encode()
                headers.setdefault("Content_Type", "application/json")
            if isinstance(body, bytes):
                headers.setdefault("Content_Length", str(len(body)))
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for part in [body] if isinstance(body, bytes) else body or ():
                    connection.send(part)
            return Answer(connection.getresponse())

    def get(self, path, **options):
        return self.ask("GET", path, **options)

    def post(self, name, body, **options):
        return self.ask("POST", f"/api/{name}", body, **options)


@contextlib.contextmanager
def running(workbench, **options):
    """A server on a free port of this computer."""
    guard = page_server(workbench, TOKEN, **options)
    listener = serving.listen("127.0.0.1", 0)
    server = uvicorn.Server(serving.config_of(guard))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Page(guard, listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def opened(toy_run):
    """Function folder -> a workbench on a short run, which writes into this folder alone."""

    def make(folder):
        run = toy_run("ViP")
        return Workbench.open([[run]], notes=folder / "notes.csv", symptoms=folder / "symptoms")

    return make


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("written")


@pytest.fixture(scope="module")
def bench(opened, folder):
    return opened(folder)


@pytest.fixture(scope="module")
def page(bench):
    with running(bench) as page:
        yield page


@pytest.fixture
def own_bench(opened, tmp_path):
    """A workbench without notes."""
    return opened(tmp_path)


@pytest.fixture
def picture():
    stream = io.BytesIO()
    Image.new("RGB", (40, 40), (200, 30, 30)).save(stream, "PNG")
    return stream.getvalue()


def assert_error(answer, status, *words):
    """One line of JSON, with the headers of every answer, and nothing of the inside."""
    assert answer.status == status, answer.body
    assert list(answer.json) == ["error"]
    text = answer.json["error"]
    assert text and "\n" not in text and "Traceback" not in text and TOKEN not in text
    assert len(text) < 1100
    for word in words:
        assert word in text
    assert_headers(answer)


def assert_headers(answer):
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS


# Who is let in


def test_the_address_with_its_token_opens_the_page(page):
    """The token becomes a cookie that no script and no other site sees, and leaves the address."""
    opened = page.get(f"/?token={TOKEN}", cookie="")

    assert opened.status == 200 and opened.headers["Refresh"] == "0; url=/"
    cookie = opened.headers["Set-Cookie"]
    assert cookie.startswith(f"{page.cookie}; ")
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert_headers(opened)

    html = page.get("/")
    assert html.status == 200 and html.headers["Content-Type"].startswith("text/html")
    assert b"Not a medical device" in html.body
    assert_headers(html)


def test_every_file_of_the_page_is_served(page):
    """And only with the token."""
    named = re.findall(r'(?:src|href)="(static/[^"]+)"', page.get("/").body.decode())
    modules = [f"static/{path.name}" for path in PAGE.glob("*.js")]
    assert len(named) == 4 and len(modules) > 5
    for name in {*named, *modules}:
        answer = page.get(f"/{name}")
        assert answer.status == 200 and answer.body, name
        if name.endswith(".js"):
            assert answer.headers["Content-Type"].startswith("text/javascript")
        assert_error(page.get(f"/{name}", cookie=""), 403)


def test_the_page_makes_no_html_of_texts_and_names_no_other_host():
    """What a user typed is text; nothing is loaded from elsewhere, and no script is inline."""
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8")
        found = re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text)
        assert not found, path
        assert set(re.findall(r"\w+://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}, path
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\son\w+=|\sstyle=|javascript:|<style", html)
    assert re.findall(r"<script[^>]*>", html) == ['<script type="module" src="static/app.js">']


WRONG_COOKIES = {
    "none": "",
    "no value": "{name}=",
    "wrong": "{name}=b-token-of-the-tests",
    "a part": "{name}=a-token",
    "longer": "{name}=a-token-of-the-tests-and-more",
    "of another server": "ask_000000000000=a-token-of-the-tests",
    "broken": '{name}="\\777; =;;',
    "not ASCII": "{name}=\xe9\xff",
}


@pytest.mark.parametrize("kind", WRONG_COOKIES)
def test_without_the_token_nothing_is_answered(page, kind):
    cookie = WRONG_COOKIES[kind].format(name=page.guard.cookie)
    options = {"cookie": cookie or ""}
    for path in ("/", "/api/about", "/api/thumbnail?image=test/0", "/static/app.js", "/nothing"):
        assert_error(page.get(path, **options), 403, "app.py")
    assert_error(page.post("answer", ASKED, **options), 403)


@pytest.mark.parametrize(
    "token", ["wrong", "", "%00", "%ff%fe", "a" * 5000, f"wrong&token={TOKEN}", "%F0%9F%98%80"]
)
def test_a_wrong_token_in_the_address(page, token):
    answer = page.get(f"/?token={token}", cookie="")
    assert_error(answer, 403, "app.py")
    assert "Set-Cookie" not in answer.headers


def test_the_token_opens_the_page_alone(page):
    """So that it stands in no address that a page or a program passes on."""
    assert_error(page.get(f"/api/about?token={TOKEN}", cookie=""), 403)
    assert_error(page.ask("POST", f"/?token={TOKEN}", cookie=""), 403)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "evil.example@127.0.0.1.x",
     "localhost.evil.example", "192.168.0.7:{port}", "[::ffff:10.0.0.1]", "[", "127.0.0.1, evil"],
)  # fmt: skip
def test_another_host_name_is_refused(page, host):
    """A foreign name that resolves to this computer (DNS rebinding) reads nothing."""
    host = host.format(port=page.port)
    assert_error(page.get("/api/about", host=host), 421, "open the address that app.py printed")
    assert_error(page.get(f"/?token={TOKEN}", host=host), 421)


def test_this_computer_by_its_names(page):
    """Any port: it is another one behind ``ssh -L``."""
    for host in ("localhost:9", "127.0.0.1", "[::1]:80", "LOCALHOST"):
        assert page.get("/api/about", host=host).status == 200, host
    assert page.get("/api/about", host="").status in (400, 421)


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1",
     "http://localhost:{port}", "file://", ""],
)  # fmt: skip
def test_a_foreign_origin_is_refused(page, origin):
    origin = origin.format(port=page.port)
    assert_error(page.post("answer", ASKED, Origin=origin), 403, "another page")
    assert_error(page.get("/api/about", Origin=origin), 403, "another page")


def test_the_page_itself_may_ask(page):
    own = f"http://127.0.0.1:{page.port}"
    assert page.post("answer", ASKED, Origin=own, Sec_Fetch_Site="same-origin").status == 200


@pytest.mark.parametrize("source", ["cross-site", "same-site"])
def test_other_pages_cannot_show_its_images(page, source):
    """Such requests have no origin; a page on another port is even of the same site."""
    assert_error(page.get("/api/thumbnail?image=test/0", Sec_Fetch_Site=source), 403)
    assert page.get(f"/?token={TOKEN}", cookie="", Sec_Fetch_Site=source).status == 200


# Hostile requests


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/..%2f..%2fapp.py", "/static/%2e%2e/guard.py", "/static/", "/..",
     "/static//etc/passwd", "/../../etc/passwd", "/static/app.js%00.css",
     "/static/app.js/../index.html", "/docs", "/openapi.json", "/api/", "/api/nothing",
     "//evil.example/", "/%ff"],
)  # fmt: skip
def test_no_other_file_is_served(page, path):
    assert_error(page.get(path), 404)


@pytest.mark.parametrize(
    "image",
    ["../../etc/passwd", "test/../train/0", "file:///etc/passwd", "/etc/passwd", "test/-1",
     "test/1e3", "test/999999", "upload/1", "train/0/../../x", "test/0%00", "%ff", "", "<b>x</b>",
     "x" * 5000, "%D9%A3/%D9%A3", "test/%D9%A3"],
)  # fmt: skip
def test_images_are_found_by_their_ids_alone(page, image):
    assert_error(page.get(f"/api/thumbnail?image={image}"), 400)
    assert_error(page.post("answer", {**ASKED, "image": image}), 400)


@pytest.mark.parametrize("query", ["size=0", "size=1e9", "size=999999", "size=x", "size="])
def test_sizes_are_bounded(page, query):
    assert_error(page.get(f"/api/thumbnail?image=test/0&{query}"), 400, "size")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "HEAD", "GET"])
def test_a_wrong_method(page, method):
    answer = page.ask(method, "/api/answer")
    assert answer.status == 405
    if method != "HEAD":
        assert_error(answer, 405)


WRONG_BODIES = {
    "nothing": b"",
    "no JSON": b"run=0&image=test/0",
    "broken": b'{"run": "0", "image": ',
    "a list": b"[]",
    "a text": b'"x"',
    "null": b"null",
    "a number for a text": b'{"run": 0, "image": "test/0"}',
    "a list for a text": b'{"run": ["0"], "image": "test/0"}',
    "a field too few": b'{"run": "0"}',
    "a field too many": b'{"run": "0", "image": "test/0", "path": "/etc/passwd"}',
    "deep": b'{"run": "0", "image": "test/0", "symptoms": '
    + b"[" * 100_000
    + b"]" * 100_000
    + b"}",
    "a huge number": b'{"run": "0", "image": "test/0", "symptoms": ' + b"9" * 10_000 + b"}",
    "not UTF-8": b'{"run": "\xff\xfe", "image": "test/0"}',
    "half a letter": b'{"run": "0", "image": "\\ud800"}',
    "another run": b'{"run": "7", "image": "test/0"}',
    "symptoms of another type": b'{"run": "0", "image": "test/0", "symptoms": {"red": 1}}',
    "no number": b'{"run": "0", "image": "test/0", "symptoms": [{"class": "red", "phrases": '
    b'[{"text": "x", "weight": NaN}]}]}',
}


@pytest.mark.parametrize("kind", WRONG_BODIES)
def test_a_wrong_body(page, kind):
    body = WRONG_BODIES[kind]
    assert_error(page.post("answer", body, Content_Type="application/json"), 400)
    assert page.post("answer", ASKED).status == 200  # the server still answers


def test_a_form_of_another_page_is_no_request(page):
    """What a form can send without asking is not JSON."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert_error(page.post("answer", json.dumps(ASKED).encode(), Content_Type=kind), 400)


def test_html_in_phrases_and_names_is_text(page, bench, picture):
    """It comes back as it is, in JSON, and no answer is HTML."""
    evil = '<img src=x onerror="alert(1)">'
    symptoms = bench.about()["runs"][0]["symptoms"]
    symptoms[0]["phrases"].append({"text": evil, "on": True, "weight": 1.0})
    symptoms.append({"class": evil, "new": True, "phrases": [{"text": evil}]})

    answer = page.post("answer", ASKED | {"symptoms": symptoms})
    assert answer.status == 200 and answer.headers["Content-Type"] == "application/json"
    assert [one["class"] for one in answer.json["probabilities"]] == ["red", "blue", evil]

    sent = page.ask(
        "POST", "/api/upload?name=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E.png", picture
    )
    assert sent.json["name"] == "<img src=x onerror=alert(1)>.png"
    noted = page.post("note", {"image": "test/0", "label": "red", "remark": evil, "reader": evil})
    assert noted.status == 200 and page.get("/api/notes").json[-1]["remark"] == evil


@pytest.mark.parametrize(
    "name", ["../../evil.png", "/etc/passwd", "..\\..\\evil.png", "%00", "a%0Ab"]
)
def test_the_name_of_an_upload_is_no_path(page, picture, folder, name):
    before = sorted(folder.rglob("*"))
    answer = page.ask("POST", f"/api/upload?name={name}", picture)

    assert answer.status == 200 and not {"/", "\\", "\n", "\0"} & set(answer.json["name"])
    assert page.get(f"/api/thumbnail?image={answer.json['id']}&size=40").body[:4] == b"\x89PNG"
    assert sorted(folder.rglob("*")) == before  # nothing is written


def test_a_name_too_long(page, picture):
    assert_error(page.ask("POST", f"/api/upload?name={'x' * 300}", picture), 400, "name")


@pytest.mark.parametrize(
    "data", [b"", b"hello" * 100, b"\x89PNG\r\n\x1a\n" + b"\0" * 100, b"<svg/>"]
)
def test_a_broken_upload(page, data):
    assert_error(page.ask("POST", "/api/upload?name=x.png", data), 400, "x.png")


def test_a_huge_upload(page, monkeypatch):
    """Announced, it is refused at once; not announced, as soon as the limit is reached."""
    monkeypatch.setattr(page.guard, "upload_bytes", 2**20)
    announced = page.ask("POST", "/api/upload?name=x", b"", Content_Length=str(2**40))
    assert_error(announced, 413, "1 MB")
    assert page.ask("POST", "/api/upload?name=x", b"", Content_Length="-5").status == 400
    sent = 0

    def parts():
        nonlocal sent
        for _ in range(4096):
            sent += 1
            yield b"8000\r\n" + b"\0" * 0x8000 + b"\r\n"

    answer = page.ask("POST", "/api/upload?name=x", parts(), Transfer_Encoding="chunked")
    assert_error(answer, 413, "1 MB")
    assert sent < 4096


def test_a_huge_body(page):
    body = json.dumps({**ASKED, "symptoms": "x" * JSON_BYTES}).encode()
    assert_error(page.post("answer", body, Content_Type="application/json"), 413, "2 MB")


def test_fifty_requests_at_once(page, bench, monkeypatch):
    """All are answered, and the models are asked one at a time."""
    inside, most = 0, 0
    answer = bench.answer

    def counted(*args):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        try:
            return answer(*args)
        finally:
            inside -= 1

    monkeypatch.setattr(bench, "answer", counted)
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        jobs = [pool.submit(page.post, "answer", ASKED) for _ in range(25)]
        jobs += [pool.submit(page.get, "/api/thumbnail?image=test/1") for _ in range(25)]
        answers = [job.result() for job in jobs]

    assert {answer.status for answer in answers} == {200} and most == 1
    assert len({tuple(map(str, a.json["probabilities"])) for a in answers[:25]}) == 1


def test_too_many_requests_at_once(page, bench, monkeypatch):
    """Beyond a bound they are refused with a line, and later ones are answered."""
    go = threading.Event()
    monkeypatch.setattr(bench, "neighbours", lambda *_: go.wait(30) and [])
    with concurrent.futures.ThreadPoolExecutor(130) as pool:
        path = "/api/neighbours?run=0&image=test/0"
        jobs = [pool.submit(page.get, path) for _ in range(130)]
        deadline = time.monotonic() + 30
        while sum(job.done() for job in jobs) < 30 and time.monotonic() < deadline:
            time.sleep(0.05)
        go.set()
        answers = [job.result() for job in jobs]

    refused = [answer for answer in answers if answer.status != 200]
    assert 0 < len(refused) <= 30
    assert_error(refused[0], 503, "too many")
    assert page.get("/api/about").status == 200


def test_an_answer_that_nobody_waits_for_is_not_computed(page, bench, monkeypatch):
    """While a user types, the page drops its earlier questions."""
    asked, go, begun = [], threading.Event(), threading.Event()

    def slow(run, image, symptoms):
        asked.append(image)
        begun.set()
        go.wait(30)
        return {}

    monkeypatch.setattr(bench, "answer", slow)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(page.post, "answer", ASKED)
        assert begun.wait(30)
        with socket.create_connection(("127.0.0.1", page.port)) as dropped:
            body = json.dumps({**ASKED, "image": "test/1"}).encode()
            head = (
                f"POST /api/answer HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {page.cookie}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            dropped.sendall(head.encode() + body)
            time.sleep(0.5)
        time.sleep(0.5)
        go.set()
        assert first.result().status == 200
    assert page.post("answer", {**ASKED, "image": "test/2"}).status == 200
    assert asked == ["test/0", "test/2"]


def test_a_bug_is_one_line_without_its_message(page, bench, monkeypatch, capfd):
    """The message of an exception may hold the name of a patient."""

    def broken(*_):
        raise RuntimeError("Jane Doe")

    monkeypatch.setattr(bench, "answer", broken)
    answer = page.post("answer", ASKED)

    assert_error(answer, 500, "RuntimeError")
    assert b"Jane" not in answer.body
    printed, deadline = "", time.monotonic() + 10
    while not printed and time.monotonic() < deadline:  # it is printed after the answer
        time.sleep(0.05)
        printed = "".join(capfd.readouterr())
    assert re.fullmatch(
        r"error: RuntimeError in test_app_server\.py:\d+, .*/api/answer'\n", printed
    )


def test_nothing_is_logged(page, picture, capfd):
    """No address, which holds the token, and no name of a file."""
    page.get(f"/?token={TOKEN}", cookie="")
    page.ask("POST", "/api/upload?name=Jane%20Doe.png", picture)
    page.ask("POST", "/api/upload?name=Jane%20Doe.png", b"broken")
    page.get("/api/about", cookie="", host="evil.example")
    with socket.create_connection(("127.0.0.1", page.port)) as raw:
        raw.sendall(b"no HTTP at all\r\n\r\n")
        raw.recv(1000)

    assert capfd.readouterr() == ("", "")


# A reader study


def test_a_blinded_reading_hides_the_answer_until_the_label_is_kept(own_bench):
    with running(own_bench, blind=True) as page:
        assert page.get("/api/about").json["blind"] is True
        listed = page.get("/api/images?run=0&split=test").json
        assert listed["total"] == 12 and len(listed["images"]) == 12
        for i, image in enumerate(listed["images"]):
            known = {key: value for key, value in image.items() if value is not None}
            assert known == {"id": image["id"], "name": f"image {i + 1}"}
        ids = [image["id"] for image in listed["images"]]
        assert ids != sorted(ids, key=lambda id: int(id.split("/")[1]))  # not by class

        body = {"run": "0", "image": ids[0]}
        near = f"/api/neighbours?run=0&image={ids[0]}"
        phrase = own_bench.about()["runs"][0]["symptoms"][0]["phrases"][0]["text"]
        for hidden in (
            page.post("answer", body),
            page.post("heatmap", body | {"class_name": "red", "phrase": phrase}),
            page.get(near),
        ):
            assert_error(hidden, 400, "label this image first")
        assert_error(page.get("/api/images?run=0&split=test&outcome=correct"), 400, "blinded")
        assert_error(page.get("/api/images?run=0&split=test&class_name=red"), 400, "blinded")

        note = {"image": ids[0], "label": "red", "remark": "", "reader": "A"}
        assert_error(page.post("note", note | {"label": "", "remark": "x"}), 400, "choose a label")
        assert page.post("note", note).status == 200
        assert page.post("answer", body).json["truth"] in ("red", "blue")
        assert page.get("/api/images?run=0&split=test").json["images"][0]["prediction"]
        assert_error(page.post("answer", body | {"image": ids[1]}), 400, "label this image first")
        assert_error(page.post("note", note | {"label": "blue"}), 400, "stays as it is")
        assert page.post("note", note | {"remark": "on second thoughts"}).status == 200


def test_a_blinded_reading_hides_the_notes_of_others(own_bench):
    """Another reader's label of an image is an answer too."""
    own_bench.note("test/3", "red", "sure", "A")
    with running(own_bench, blind=True) as page:
        assert page.get("/api/notes").json == []
        assert page.get("/api/agreement?run=0").json["images"] == 0
        note = {"image": "test/3", "label": "blue", "remark": "", "reader": "B"}
        assert page.post("note", note).status == 200
        assert [one["reader"] for one in page.get("/api/notes").json] == ["A", "B"]
        assert page.get("/api/agreement?run=0").json["images"] == 2


def test_a_blinded_reading_hides_the_labels_of_similar_images(own_bench):
    """A training image is an image of the reading too."""
    with running(own_bench, blind=True) as page:
        note = {"image": "train/0", "label": "red", "remark": "", "reader": "A"}
        assert page.post("note", note).status == 200
        near = "/api/neighbours?run=0&k=50&image=train/0"
        assert page.get(near).json == []
        assert page.post("note", note | {"image": "train/1"}).status == 200
        assert [one["id"] for one in page.get(near).json] == ["train/1"]


def test_a_blinded_label_stays_under_every_id_of_the_image(own_bench, picture):
    """The same file once more, and a number with a zero before it."""
    with running(own_bench, blind=True) as page:
        ids = [page.ask("POST", "/api/upload?name=a.png", picture).json["id"] for _ in range(2)]
        for first, again in (ids, ("test/7", "test/07")):
            note = {"image": first, "label": "red", "remark": "", "reader": "A"}
            assert page.post("note", note).status == 200
            changed = page.post("note", note | {"image": again, "label": "blue"})
            assert_error(changed, 400, "stays as it is")
            assert page.post("answer", {"run": "0", "image": again}).status == 200


# The command


def test_the_port_is_in_use():
    with serving.listen("127.0.0.1", 0) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} is in use; choose another with --port"):
            serving.listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no such host", "203.0.113.9", "a" * 300])
def test_an_address_that_is_not_here(host):
    with pytest.raises(InputError, match="--host .*: (no such address|not an address of this)"):
        serving.listen(host, 0)


@pytest.mark.parametrize("host, warned", [("127.0.0.1", False), ("0.0.0.0", True)])
def test_other_computers_are_warned_of(bench, monkeypatch, capsys, host, warned):
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
    with serving.listen(host, 0) as listener:
        port = listener.getsockname()[1]
        serving.serve(bench, listener, browser=False)

    printed = capsys.readouterr()
    assert re.fullmatch(rf"Open http://127\.0\.0\.1:{port}/\?token=[\w-]{{43}}\n", printed.out)
    assert ("warning: other computers can reach this page" in printed.err) == warned


def test_told_to_it_answers_by_its_addresses_but_not_by_foreign_names(bench):
    with running(bench, hosts=["localhost", "ward3"], loopback=False) as page:
        for host in ("192.168.0.7:8765", "ward3:80", "localhost"):
            assert page.get("/api/about", host=host).status == 200
        assert_error(page.get("/api/about", host="evil.example"), 421)


def test_the_browser_gets_the_address_from_a_file(bench, monkeypatch):
    """Other users see the arguments of a program, and so must not find the token in them."""
    opened, seen = [], threading.Event()

    def look(address):
        opened.append((address, http_file(address)))
        seen.set()

    monkeypatch.setattr("webbrowser.open", look)
    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: seen.wait(30))
    with serving.listen("127.0.0.1", 0) as listener:
        serving.serve(bench, listener)

    ((address, (text, mode)),) = opened
    token = re.search(r"\?token=([\w-]+)", text).group(1)
    assert token not in address and mode == 0o700


def http_file(address):
    """The text of a file: address, and who may open its folder."""
    from pathlib import Path
    from urllib.parse import urlsplit

    path = Path(urlsplit(address).path)
    return path.read_text(), path.parent.stat().st_mode & 0o777


def test_without_the_extra_there_is_one_line(toy_run, monkeypatch):
    monkeypatch.setattr(app, "find_spec", lambda name: None if name == "uvicorn" else name)
    with pytest.raises(InputError, match=r"^app\.py needs uvicorn: pip install '\.\[app\]'$"):
        app.main([str(toy_run("ViP"))])
