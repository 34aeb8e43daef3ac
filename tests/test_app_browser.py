"""The page in a real browser: its numbers are those of the commands, no request leaves the machine.

The server is a process of its own in which no connection to another computer can be made; of the
browser, every request is looked at.
"""

import base64
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from app_runs import predicted
from PIL import Image

from explanations.explanation import explain
from trainers import load_run

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
sync_api.expect.set_options(timeout=30_000)  # milliseconds; other processes may be busy
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium to drive"),
]

# app.py, but a connection to another computer, or a name to look up, ends the process.
CLOSED = """
import os, sys
def refuse(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        address = args[0] if event.startswith("socket.getho") or "addrinfo" in event else args[1]
        host = address[0] if isinstance(address, tuple) else address
        if host not in ("127.0.0.1", "localhost", None):
            print("left the machine:", event, host, file=sys.stderr, flush=True)
            os._exit(77)
sys.addaudithook(refuse)
import app
from core.errors import command_line
command_line(lambda: app.main(sys.argv[1:]))()
"""


@contextlib.contextmanager
def serving(checkout, folder, *words, **environment):
    """app.py in a folder of its own; the address that it prints."""
    env = os.environ | {"PYTHONPATH": str(checkout), "OPENAI_API_KEY": ""} | environment
    with open(folder / "stderr.txt", "w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", CLOSED, *words, "--no-browser", "--port", "0"],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            line = process.stdout.readline()
            errors.seek(0)
            assert line.startswith("Open http://127.0.0.1:"), errors.read()
            yield line.split()[1]
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()
            errors.seek(0)
            assert "left the machine" not in errors.read()


@pytest.fixture(scope="module")
def chat():
    """An endpoint for suggestions, on this computer."""
    from symptom_generation.server import ChatServer

    server = ChatServer({"red": {"text": "- Warm, like <b>blood</b>.\n- A tomato's skin.\n"}})
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def run(toy_run):
    return toy_run("ViP")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("app")


@pytest.fixture(scope="module")
def address(run, folder, chat):
    checkout = Path(__file__).resolve().parent.parent
    notes = folder / "notes.csv"
    words = (str(run), "--notes", str(notes))
    with serving(checkout, folder, *words, OPENAI_BASE_URL=chat.url) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def looking(browser, address, **options):
    """The page; in the end no request went elsewhere, and nothing failed on the page."""
    context = browser.new_context(accept_downloads=True, **options)
    page = context.new_page()
    requests, troubles = [], []
    context.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda line: troubles.append(line.text) if "Policy" in line.text else None)
    page.goto(address)
    page.wait_for_selector("#list li")
    yield page
    context.close()
    hosts = {urlsplit(url).netloc for url in requests if not url.startswith(("blob:", "data:"))}
    assert hosts == {urlsplit(address).netloc}
    assert troubles == []


@pytest.fixture
def page(browser, address):
    with looking(browser, address) as page:
        yield page


def drop(page, *files):
    """Drop files, (name, bytes), from outside onto the page."""
    held = [[name, base64.b64encode(data).decode()] for name, data in files]
    transfer = page.evaluate_handle(
        """(held) => {
          const transfer = new DataTransfer();
          for (const [name, text] of held) {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            transfer.items.add(new File([bytes], name));
          }
          return transfer;
        }""",
        held,
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})


def shown(page, panel=0):
    """Class name -> probability of a column, once it waits for nothing."""
    element = page.locator(".panel").nth(panel)
    sync_api.expect(element.locator(".shares")).to_be_visible()
    sync_api.expect(element).not_to_have_class(re.compile("waiting"))
    data = element.locator(".shares data")
    return {
        one.get_attribute("data-class"): float(one.get_attribute("value")) for one in data.all()
    }


def choose(page, index=0):
    page.locator("#list li").nth(index).click()
    return shown(page)


def choose_red(page):
    """The image of the fixture ``file``."""
    page.select_option("#class", "red")
    sync_api.expect(page.locator("#count")).to_have_text("6 of 6 images")
    return choose(page)


def phrases(page, name):
    return page.locator(f'.class[data-class="{name}"] textarea')


def made_with(run, file, drop=(), add=()):
    """What explain.py's --drop and --add give."""
    explanation = explain(load_run(run), [file], drop, add)
    return dict(zip(explanation.classnames, explanation.probabilities[0].tolist(), strict=True))


@pytest.fixture
def file(toy_run, run):
    """A test image's file."""
    return run.parent.parent / "data" / "toy" / "test" / "red" / "0.png"


def test_the_token_leaves_the_address(page, address):
    assert "token" in address and urlsplit(page.url).path == "/" and not urlsplit(page.url).query
    assert page.evaluate("document.cookie") == ""  # no script reads it
    sync_api.expect(page.locator(".device")).to_contain_text("Not a medical device")
    sync_api.expect(page.locator(".device")).to_be_in_viewport()


def test_a_dropped_image_has_the_probabilities_of_predict(page, run, file):
    """Digit for digit; two more are read, and one that is no image is told of."""
    other = io.BytesIO()
    Image.new("RGB", (50, 30), (0, 0, 200)).save(other, "JPEG")
    drop(
        page, ("x.png", file.read_bytes()), ("notes.txt", b"no image"), ("b.jpg", other.getvalue())
    )

    sync_api.expect(page.locator("#list li")).to_have_count(2)
    sync_api.expect(page.locator("#failed")).to_contain_text("notes.txt")
    found = shown(page)
    assert found == predicted([run], file)[0]
    best = max(found, key=found.get)
    sync_api.expect(page.locator(".said strong")).to_have_text(best)
    sync_api.expect(page.locator("#said")).to_contain_text(f"predicted {best}")


def test_an_image_of_a_split_says_whether_it_is_correct(page, run, file):
    found = choose_red(page)

    assert found == predicted([run], file)[0]
    correct = max(found, key=found.get) == "red"
    sync_api.expect(page.locator(".found")).to_contain_text("Correct" if correct else "Incorrect")
    sync_api.expect(page.locator("#neighbours li")).to_have_count(6)
    page.select_option("#outcome", "correct" if correct else "incorrect")
    sync_api.expect(page.locator("#list li").first).to_contain_text("0.png")
    page.select_option("#outcome", "incorrect" if correct else "correct")
    sync_api.expect(page.locator('#list li[title="test/red/0.png"]')).to_have_count(0)


def test_a_heat_map_is_toggled_over_the_image(page):
    choose(page)
    button, heat = page.locator(".fall button").first, page.locator("#heat")
    button.click()
    sync_api.expect(heat).to_be_visible()
    sync_api.expect(button).to_have_attribute("aria-pressed", "true")
    heat.evaluate("image => image.decode()")
    assert heat.evaluate("image => image.naturalWidth") > 0
    boxes = [page.locator(place).bounding_box() for place in ("#image", "#heat")]
    assert boxes[0] == boxes[1]
    sync_api.expect(page.locator("#heat-name")).to_contain_text("Heat map of")
    button.click()
    sync_api.expect(heat).to_be_hidden()
    sync_api.expect(button).to_have_attribute("aria-pressed", "false")
    phrases(page, "red").nth(0).fill(" a dark red disc ")
    page.locator('.fall button[data-map="a dark red disc"]').click()
    sync_api.expect(heat).to_be_visible()


def test_another_run_or_another_set_of_symptoms_has_its_own_heat_map(page):
    """And its own similar images: both belong to what the left column reads."""

    def twice(route):
        about = route.fetch().json()
        about["runs"].append(about["runs"][0] | {"id": "1", "name": "another"})
        route.fulfill(json=about)

    page.route("**/api/about*", twice)
    page.reload()
    choose(page)
    heat = page.locator("#heat")
    for select, value in (("Symptoms, left column", "trained"), ("Run, left column", "1")):
        page.locator(".panel").first.locator(".fall button").first.click()
        sync_api.expect(heat).to_be_visible()
        page.get_by_label(select).select_option(value)
        sync_api.expect(heat).to_be_hidden()
        shown(page)
    with page.expect_request(re.compile(r"api/neighbours\?run=0")):
        page.get_by_label("Run, left column").select_option("0")


def test_an_edited_phrase_answers_as_explain_does(page, run, file):
    """Typing in place is --drop and --add; a phrase switched off is --drop."""
    before = choose_red(page)
    old = phrases(page, "red").nth(0).input_value()
    phrases(page, "red").nth(0).press_sequentially(" and typed in haste", delay=5)
    phrases(page, "red").nth(0).fill("a dark red disc")

    wanted = made_with(run, file, drop=[old], add=[("red", "a dark red disc")])
    wait_for(page, wanted)
    page.locator('.class[data-class="red"] .phrases input[type="checkbox"]').nth(1).uncheck()
    gone = phrases(page, "red").nth(1).input_value()
    wait_for(page, made_with(run, file, [old, gone], [("red", "a dark red disc")]))

    page.click("#undo")
    wait_for(page, wanted)
    page.click("#reset")
    wait_for(page, before)
    assert before == predicted([run], file)[0] and wanted != before


def wait_for(page, wanted, panel=0):
    """The column shows these probabilities, digit for digit."""
    best, value = next(iter(wanted.items()))
    data = page.locator(".panel").nth(panel).locator(f'.shares data[data-class="{best}"]')
    sync_api.expect(data).to_have_attribute("value", json.dumps(value))
    assert shown(page, panel) == wanted


def test_a_phrase_is_added_and_weighed(page, run, file):
    before = choose_red(page)
    page.locator('.class[data-class="blue"]').get_by_text("Add a phrase").click()
    page.keyboard.type("a blue-white veil")
    wait_for(page, made_with(run, file, add=[("blue", "a blue-white veil")]))
    page.locator('.class[data-class="blue"] input[type="range"]').last.fill("0")
    sync_api.expect(page.locator("#changes")).to_contain_text("1 with another weight")
    sync_api.expect(page.locator(".panel")).not_to_have_class(re.compile("waiting"))
    assert shown(page) != before


def test_two_symptom_sets_side_by_side(page, run, file):
    trained = choose_red(page)
    page.check("#compare")
    phrases(page, "red").nth(0).fill("a dark red disc")
    sync_api.expect(page.locator("#changes")).to_contain_text("1 added, 1 removed")
    sync_api.expect(page.locator(".panel")).to_have_count(2)
    assert shown(page, 1) == trained
    page.wait_for_timeout(500)
    assert shown(page, 0) != trained and shown(page, 1) == trained


def test_a_new_class_is_read_beside_the_trained_ones(page):
    choose(page)
    evil = '<img src=x onerror="alert(1)"> שלום'
    page.fill("#new-class-name", evil)
    page.click("#new-class button")
    page.keyboard.type("a green leaf <script>alert(2)</script>")
    sync_api.expect(page.locator(".shares li")).to_have_count(3)
    assert list(shown(page)) == ["red", "blue", evil]
    sync_api.expect(page.locator(".class").nth(2).locator("legend bdi")).to_have_text(evil)
    assert page.locator(".class img, .panel img, .panel script, .class script").count() == 0


def test_symptoms_are_saved_downloaded_and_loaded_again(page, folder, tmp_path):
    choose(page)
    phrases(page, "red").nth(0).fill("a dark red disc")
    page.locator('.class[data-class="blue"] .phrases input[type="checkbox"]').nth(0).uncheck()
    page.wait_for_timeout(500)
    edited = shown(page)
    page.fill("#save-name", "by_hand")
    page.click("#save button")
    sync_api.expect(page.locator("#save-result code").first).to_have_text("symptoms/by_hand.json")
    sync_api.expect(page.locator("#save-result .command")).to_contain_text("by_hand.json")
    saved = json.loads((folder / "symptoms" / "by_hand.json").read_text())
    assert "a dark red disc" in str(saved) and "edited by hand" in str(saved)
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.click("#save-result button")
    sync_api.expect(page.locator("#save-result button")).to_contain_text("select the command")
    page.click("#save button")
    sync_api.expect(page.locator("#save-result")).to_contain_text("choose another name")

    with page.expect_download() as download:
        page.click("#download")
    kept = tmp_path / "kept.json"
    download.value.save_as(kept)
    assert download.value.suggested_filename == "by_hand.json"
    assert kept.read_text() == (folder / "symptoms" / "by_hand.json").read_text()

    page.reload()
    page.wait_for_selector("#list li")
    assert choose(page) != edited
    page.set_input_files("#load", kept)
    sync_api.expect(page.locator("#save-result")).to_have_text("Loaded kept.json.")
    page.wait_for_timeout(500)
    assert shown(page) == edited
    page.set_input_files("#load", {"name": "x.json", "mimeType": "", "buffer": b"{broken"})
    sync_api.expect(page.locator("#save-result .bad")).to_be_visible()


def test_what_cannot_be_read_is_said_and_the_old_answer_is_marked(page):
    before = choose(page)
    phrases(page, "red").nth(0).fill("word " * 150)
    sync_api.expect(page.locator(".panel .alert").first).to_contain_text("shorten it")
    sync_api.expect(page.locator(".panel")).to_have_class(re.compile("old"))
    assert page.evaluate(CONTRAST) == []
    page.click("#undo")
    sync_api.expect(page.locator(".panel")).not_to_have_class(re.compile("old"))
    assert shown(page) == before


def test_phrases_are_checked(page):
    page.click("#check")
    sync_api.expect(page.locator("#checked tbody tr")).to_have_count(5)
    sync_api.expect(page.locator("#checked")).to_contain_text(re.compile(r"phrases (are|is) weak"))


def test_nothing_is_sent_to_an_endpoint_before_the_click(page, chat):
    """The dialog shows word for word what is sent, and to whom."""
    before = len(chat.requests)
    page.locator('.class[data-class="red"]').get_by_text("Suggest phrases").click()
    sync_api.expect(page.locator("#dialog-host")).to_have_text(urlsplit(chat.url).netloc)
    sync_api.expect(page.locator("#dialog-send")).to_be_enabled()
    text = page.locator("#dialog-text").text_content()
    assert len(chat.requests) == before and "red" in text

    page.click("#dialog-send")
    sync_api.expect(page.locator("#dialog-found label")).to_have_count(2)
    (sent,) = chat.requests[before:]
    assert sent[1]["messages"] == [{"role": "user", "content": text}]
    page.locator("#dialog-found input").first.check()
    page.click("#dialog-add")
    sync_api.expect(page.locator("#dialog")).to_be_hidden()
    assert "blood" in phrases(page, "red").last.input_value()


def test_a_late_suggestion_is_not_shown_for_another_class(page):
    """The dialog was closed, and opened for another class, before the answer came."""
    held = []
    page.route("**/api/suggest", lambda route: held.append(route))
    for name in ("red", "blue"):
        page.locator(f'.class[data-class="{name}"]').get_by_text("Suggest phrases").click()
        sync_api.expect(page.locator("#dialog-send")).to_be_enabled()
        if name == "red":
            page.click("#dialog-send")
            page.click("#dialog-close")
    with page.expect_response("**/api/suggest"):
        held[0].fulfill(json={"phrases": ["a tomato's skin"]})
    page.wait_for_timeout(200)

    assert page.locator("#dialog-found label").count() == 0
    sync_api.expect(page.locator("#dialog-add")).to_be_hidden()
    sync_api.expect(page.locator("#dialog-result")).to_have_text("")


def test_the_newest_upload_is_chosen_when_the_oldest_go(page, file):
    def one_upload(route):
        about = route.fetch().json()
        about["limits"]["uploads"] = 1
        route.fulfill(json=about)

    page.route("**/api/about*", one_upload)
    page.reload()
    page.wait_for_selector("#list li")
    for name in ("a.png", "b.png"):
        drop(page, (name, file.read_bytes()))
        sync_api.expect(page.locator("#image-name")).to_have_text(name)


def test_a_patient_is_one_of_a_split(page):
    """Another split's patient of the same number is another person."""
    asked = []

    def with_patients(route):
        asked.append(route.request.url)
        route.fulfill(json=route.fetch().json() | {"patients": ["1"]})

    page.route("**/api/images?*", with_patients)
    for select, value in (("#split", "val"), ("#patient", "1"), ("#split", "train")):
        with page.expect_response("**/api/images?*"):
            page.select_option(select, value)

    assert ["patient=1" in url for url in asked] == [False, True, False]


def test_a_remark_that_is_not_saved_waits_at_its_image(page):
    """And what was saved is said beside its own image alone."""
    choose(page)
    page.fill("#note-remark", "not saved yet")
    choose(page, 1)
    sync_api.expect(page.locator("#note-remark")).to_have_value("")
    choose(page)
    sync_api.expect(page.locator("#note-remark")).to_have_value("not saved yet")

    held = []
    page.route("**/api/note", lambda route: held.append(route))
    page.click("#note button")
    choose(page, 1)
    with page.expect_response("**/api/note"):
        held[0].fulfill(json={})
    page.wait_for_timeout(200)
    sync_api.expect(page.locator("#note-result")).to_have_text("")
    choose(page)
    sync_api.expect(page.locator("#note-remark")).to_have_value("")


def test_notes_and_their_agreement(page, folder):
    choose(page)
    page.select_option("#note-label", "red")
    page.fill("#note-remark", "<b>raised</b> נגע")
    page.fill("#note-reader", "A")
    page.click("#note button")
    sync_api.expect(page.locator("#note-result")).to_have_text("Saved.")
    sync_api.expect(page.locator("#agreement")).to_contain_text("1 notes name the class")
    assert "<b>raised</b> נגע" in (folder / "notes.csv").read_text(encoding="utf-8")
    page.click("#notes-count")
    sync_api.expect(page.locator("#notes td").nth(2)).to_have_text("<b>raised</b> נגע")


def test_a_blinded_reading(browser, run, checkout, tmp_path):
    with serving(checkout, tmp_path, str(run), "--blind", "--notes", "n.csv") as address:
        with looking(browser, address) as page:
            sync_api.expect(page.locator("#list li").first).to_have_text("image 1")
            page.locator("#list li").first.click()
            sync_api.expect(page.locator(".panel")).to_contain_text("Blinded reading")
            assert page.locator(".shares").count() == 0
            page.select_option("#note-label", "red")
            page.click("#note button")
            assert set(shown(page)) == {"red", "blue"}
            page.reload()
            page.wait_for_selector("#list li")
            assert set(choose(page)) == {"red", "blue"}


def test_everything_by_keyboard(page):
    """The list by arrows, one stop in the tab order; then the rest, and the focus is seen."""
    page.locator("#patient, #class").first.focus()
    for _ in range(4):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('role')") == "option":
            break
    assert page.evaluate("document.activeElement.getAttribute('role')") == "option"
    page.keyboard.press("Enter")
    shown(page)
    name = page.locator("#image-name").text_content()
    page.keyboard.press("ArrowRight")
    sync_api.expect(page.locator("#image-name")).not_to_have_text(name)
    sync_api.expect(page.locator('#list li[aria-selected="true"]')).to_be_focused()
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    assert page.locator('#list li[tabindex="0"]').count() == 1
    page.keyboard.press("End")
    sync_api.expect(page.locator("#list li").last).to_be_focused()
    shown(page)
    seen = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert {"compare", "note-label", "check", "load", "new-class-name", "save-name"} <= seen
    assert any("Heat map" in one for one in seen)


def test_every_control_has_a_name(page):
    choose(page)
    controls = page.locator("button, input, select, textarea, [role=option], img")
    for control in controls.all():
        name = control.evaluate(
            """(one) => {
              const words = (element) => {  // the options of a select are not its name
                const copy = element.cloneNode(true);
                copy.querySelectorAll("option").forEach((option) => option.remove());
                return copy.textContent.trim();
              };
              return one.getAttribute("aria-label") || one.alt || words(one)
                || [...(one.labels ?? [])].map(words).join("")
                || (one.closest("[role=option]") ? "decoration" : "");
            }"""
        )
        hidden = control.get_attribute("id") == "heat"
        assert name or hidden, control.evaluate("one => one.outerHTML")


CONTRAST = """() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((value) => value / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const rgb = channels(getComputedStyle(element).backgroundColor);
      if (rgb.length < 4 || rgb[3] === 1) return rgb;
    }
    return [255, 255, 255];
  };
  const opacity = (element) =>
    element ? Number(getComputedStyle(element).opacity) * opacity(element.parentElement) : 1;
  const weak = [];
  for (const element of document.querySelectorAll("body *")) {
    const words = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!words || !element.checkVisibility()) continue;
    if (element.closest("button:disabled, .unseen")) continue;
    const [back, share] = [behind(element), opacity(element)];
    const mixed = channels(getComputedStyle(element).color).slice(0, 3)
      .map((value, i) => share * value + (1 - share) * back[i]);
    const [one, two] = [mixed, back].map(light);
    const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    if (ratio < 4.5) weak.push(`${element.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return weak;
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_it_fits_and_is_readable(browser, address, theme, width):
    """No sideways scrolling with long phrases, and the contrast that WCAG asks of level AA."""
    size = {"width": width, "height": 900}
    with looking(browser, address, viewport=size, color_scheme=theme) as page:
        choose(page)
        page.check("#compare")
        phrases(page, "red").nth(0).fill("unbroken" * 25)
        phrases(page, "blue").nth(0).fill("مرحبا " * 8)
        page.wait_for_timeout(500)
        shown(page)
        page.locator(".fall button").first.click()
        sync_api.expect(page.locator("#heat")).to_be_visible()
        page.click("#check")
        sync_api.expect(page.locator("#checked table")).to_be_visible()
        shown(page, 0)
        shown(page, 1)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CONTRAST) == []
        direction = "element => getComputedStyle(element).direction"
        assert phrases(page, "blue").nth(0).evaluate(direction) == "rtl"
        sync_api.expect(page.locator(".device")).to_be_in_viewport()
