"""The report's page in a browser without a window: what it shows, how it is used, and that it needs no network."""

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rnnzoo.conformance import reports

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip
SECONDS = 60  # until a browser that does not answer is given up
KEYS = {"Tab": 9, "Enter": 13, " ": 32}

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no chromium on PATH")


class Browser:
    """Chromium, driven by its DevTools protocol: JSON messages over two pipes, each message ended by a zero byte."""

    def __init__(self, profile: Path) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        # Root has no sandbox to give. Chromium reads from descriptor 3 and writes to 4.
        flags = (*FLAGS, f"--user-data-dir={profile}", *(["--no-sandbox"] if os.geteuid() == 0 else []))
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "bash", str(PROGRAM), *flags],
            pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(commands)
        os.close(answers)
        self._received, self._sent, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        """End the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command's answer; events that come before it are kept."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._sent:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + SECONDS
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            received = os.read(self._answers, 1 << 16) if ready else b""
            assert received, f"chromium {'ended' if ready else f'was silent for {SECONDS} seconds'}"
            self._received += received
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)

    def wait(self, method: str) -> None:
        """Until an event of that name has come."""
        while not any(event["method"] == method for event in self.events):
            self.events.append(self._next())

    def open(self, url: str) -> None:
        """Load a page anew, and forget what earlier pages did."""
        for address in ("about:blank", url):
            self.events.clear()
            self.send("Page.navigate", url=address)
            self.wait("Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives; promises are waited for."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """What a person reads in the first such element."""
        return self.value(f"document.querySelector({json.dumps(selector)}).innerText")

    def texts(self, selector: str) -> list[str]:
        """What a person reads in every such element."""
        return self.value(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.innerText)")

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of an element, on whatever lies on top there."""
        element = f"document.querySelector({json.dumps(selector)})"
        place = f"(e => (e.scrollIntoView({{block: 'center'}}), e.getBoundingClientRect().toJSON()))({element})"
        box = self.value(place)
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def press(self, key: str) -> None:
        """Press and release a key, wherever the focus is."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key], **typed)
        self.settle()

    def type(self, text: str) -> None:
        """Text into the element that has the focus."""
        self.send("Input.insertText", text=text)
        self.settle()

    def choose(self, selector: str, option: str) -> None:
        """Choose an option of a menu: the menu itself is a window of the system, which no window shows here."""
        self.value(
            f"(e => {{ e.value = {json.dumps(option)}; e.dispatchEvent(new Event('change')); }})"
            f"(document.querySelector({json.dumps(selector)}))"
        )
        self.settle()

    def settle(self) -> None:
        """Until the events that are on their way (`hashchange`, `toggle`) have been handled and drawn."""
        self.value("new Promise(done => setTimeout(() => requestAnimationFrame(() => setTimeout(done)), 0))")

    def requests(self) -> list[str]:
        """Every address that the page asked for."""
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """Errors and everything that was written to the console."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(prefix="rnnzoo-chromium-", ignore_cleanup_errors=True) as profile:
        browser = Browser(Path(profile))
        try:
            yield browser
        finally:
            browser.close()


SCRIPT = "<script>document.title = 'owned'</script></script><!-- <img src=x onerror=alert(1)>"
COMMAND = "rnnzoo check --backend torch --item results-float32-worst"
PLACE = {
    "tensor": "outputs", "layer": 0, "direction": "backward", "step": 3, "row": 1, "unit": None,
    "expected": 0.1037, "got": "NaN", "allowed": 2.5e-06,
}  # fmt: skip


def outcome(
    backend: str, check: str, case: str, verdict: str, ratio: float | None = None, **more: Any
) -> dict[str, Any]:
    return {
        "backend": backend, "item": f"{check}-float32-{case}", "check": check, "clause": "4", "dtype": "float32",
        "case": case, "verdict": verdict, "ratio": ratio, "quantity": "outputs", "error": ratio, "allowed": 1.0,
        "seconds": 0.1, "message": "", "divergence": None, "reproduce": None, **more,
    }  # fmt: skip


def report(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    machine = {"python": "3.11.7", "platform": "Linux", "processor": SCRIPT, "cores": 2, "numpy": "2.4.6"}
    checks = [{"name": name, "clause": "3", "title": f"Of {name}."} for name in ("results", "gradients", "weights")]
    return {
        "version": 1, "rnnzoo": "0.1.0", "started": "2026-03-01T10:20:30Z", "seconds": 93.1, "quick": True,
        "arguments": ["--quick"], "machine": machine, "not_checked": ["no tf here"], "checks": checks,
        "backends": [{"name": "torch", "versions": {"torch": "2.13.0"}}, {"name": "numpy", "versions": {}}],
        "outcomes": outcomes,
    }  # fmt: skip


FINE = [
    *(outcome("torch", "results", f"stacked-{index}", "passed", 0.01 + index / 1000) for index in range(60)),
    outcome("numpy", "results", "Bi-one", "passed", 0.5, dtype="float64", clause="10"),
    outcome("numpy", "gradients", "chaotic", "ill-conditioned", message="gain 2.5 over 200 steps"),
    outcome("numpy", "weights", "bits", "passed", allowed=0.0),
    outcome("torch", "weights", "bits", "skipped", message="no such part"),
    outcome("torch", "gradients", "usual", "known failure", 12.0, message="known of old"),
]
FAILED = [
    *FINE,
    outcome("torch", "results", "off", "failed", 3.0, message="outputs: too far"),
    outcome("torch", "results", "worst", "failed", 7e3, message=SCRIPT, divergence=PLACE, reproduce=COMMAND),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Addresses of the pages of a run without failures, one with, and one of nothing."""
    folder = tmp_path_factory.mktemp("reports")
    for name, outcomes in {"fine": FINE, "failed": FAILED, "empty": []}.items():
        reports.write(folder / name, report(outcomes))
    return {path.name: (path / "index.html").as_uri() for path in folder.iterdir()}


@pytest.fixture
def browser(chromium: Browser, pages: dict[str, str]) -> Iterator[Browser]:
    """The browser at the page with failures. Whatever a test does there: no errors, and nothing else is asked for."""
    chromium.open(pages["failed"])
    yield chromium
    assert chromium.complaints() == []
    assert all(url.partition("#")[0] in pages.values() for url in chromium.requests()) and chromium.requests()


def cell(backend: str, check: str) -> str:
    """The selector of a cell of the matrix."""
    return f'#matrix button[aria-label^="{backend}, {check}:"]'


def names(browser: Browser) -> list[str]:
    """The items that are listed."""
    return browser.texts("#list .name")


# --- head and matrix ---


def test_the_title_is_the_verdict(browser: Browser, pages: dict[str, str]) -> None:
    for page, verdict in (("failed", "2 failed"), ("fine", "62 passed, none failed"), ("empty", "Nothing passed")):
        browser.open(pages[page])
        assert browser.value("document.title") == f"{verdict} · rnnzoo check"
        assert browser.text("h1").endswith(verdict)


def test_red_is_for_failures_alone(browser: Browser, pages: dict[str, str]) -> None:
    colour = "(e => getComputedStyle(e).color)(document.querySelector('h1'))"
    pattern = f"getComputedStyle(document.querySelector({json.dumps(cell('torch', 'results'))})).backgroundImage"
    red, stripes = browser.value(colour), browser.value(pattern)
    assert stripes.startswith("repeating-linear-gradient")
    assert len(browser.texts("#matrix .hatch")) == 1
    browser.open(pages["fine"])
    assert browser.value(colour) != red
    assert browser.value(pattern) == "none"
    browser.open(pages["empty"])
    assert browser.value(colour) == red


def test_a_cell_tells_counts_and_the_worst_error(browser: Browser) -> None:
    assert browser.text(cell("torch", "results")).split() == ["✕", "2", "failed", "7000", "✓", "60"]
    assert browser.text(cell("numpy", "results")).split() == ["0.5", "✓", "1"]
    assert browser.text(cell("numpy", "weights")).split() == ["exact", "✓", "1"]
    assert browser.text(cell("numpy", "gradients")).split() == ["no", "verdict", "≈", "1"]
    assert browser.text(cell("torch", "gradients")).split() == ["no", "verdict", "‡", "1"]
    label = browser.value(f"document.querySelector({json.dumps(cell('torch', 'results'))}).ariaLabel")
    assert label == "torch, results: 2 failed, 60 passed; worst error/bound: 7000"


def test_a_cell_is_the_darker_the_nearer_to_the_bound(browser: Browser) -> None:
    levels = [
        float(browser.value(f"document.querySelector({json.dumps(cell(*place))}).style.getPropertyValue('--level')"))
        for place in (("numpy", "weights"), ("numpy", "results"), ("torch", "results"))
    ]
    assert levels[0] == 0 and 0 < levels[1] < 1 and levels[2] == 1


def test_a_click_on_a_cell_lists_its_items_and_a_second_one_all(browser: Browser) -> None:
    browser.click(cell("numpy", "results"))
    assert names(browser) == ["results-float32-Bi-one"]
    assert browser.value(f"document.querySelector({json.dumps(cell('numpy', 'results'))}).ariaPressed") == "true"
    assert browser.text("#shown").startswith("1 of 67 items")
    browser.click(cell("numpy", "results"))
    assert browser.text("#shown").startswith("67 of 67 items")


# --- filters, list, address ---


def test_the_list_begins_with_failures_and_goes_down_by_error(browser: Browser) -> None:
    assert names(browser)[:4] == [
        "results-float32-worst", "results-float32-off", "gradients-float32-usual", "results-float32-Bi-one",
    ]  # fmt: skip
    assert len(names(browser)) == 50
    browser.click("#next")
    assert names(browser)[-3:] == ["gradients-float32-chaotic", "weights-float32-bits", "weights-float32-bits"]
    assert browser.text("#page") == "page 2 of 2"
    assert browser.value("document.querySelector('#next').disabled")


def test_each_filter_narrows_the_list(browser: Browser) -> None:
    for menu, option, count in (
        ("backend", "numpy", 3), ("check", "gradients", 2), ("clause", "10", 1), ("dtype", "float64", 1),
        ("verdict", "known failure", 1),
    ):  # fmt: skip
        browser.choose(f"#by-{menu}", option)
        assert browser.text("#shown").startswith(f"{count} of 67 items"), menu
        browser.click("#reset")
    assert browser.text("#shown").startswith("67 of 67 items")


def test_the_search_finds_parts_of_names_in_any_case(browser: Browser) -> None:
    browser.click("#by-search")
    browser.type("bI-O")
    assert names(browser) == ["results-float32-Bi-one"]
    browser.type(" nowhere")
    assert names(browser) == [] and browser.text("#shown").startswith("0 of 67 items")


def test_the_address_keeps_filters_search_and_page(browser: Browser, pages: dict[str, str]) -> None:
    browser.choose("#by-backend", "torch")
    browser.click("#by-search")
    browser.type("float32")
    browser.click("#next")
    address, shown = browser.value("location.href"), names(browser)
    assert 0 < len(shown) < 50
    browser.open(address)
    assert names(browser) == shown
    assert browser.value("[controls.backend.value, controls.search.value]") == ["torch", "float32"]
    browser.open(f"{pages['failed']}#backend=nobody&page=x&surplus=%3Cb%3E")
    assert names(browser) == []


def test_the_way_back_leads_to_the_filters_before(browser: Browser) -> None:
    browser.click(cell("numpy", "results"))
    browser.click(cell("numpy", "gradients"))
    browser.value("new Promise(done => (addEventListener('hashchange', done, {once: true}), history.back()))")
    browser.settle()
    assert names(browser) == ["results-float32-Bi-one"]


def test_the_histogram_counts_what_is_listed_and_was_judged(browser: Browser) -> None:
    counts = "[...document.querySelectorAll('#bars > div')].map(e => Number(e.title.split(': ')[1]))"
    assert sum(browser.value(counts)) == 63 and browser.value(counts)[-1] == 2
    assert "63 items" in browser.text("#quantiles") and "worst 7000" in browser.text("#quantiles")
    browser.click(cell("numpy", "results"))
    assert sum(browser.value(counts)) == 1 and browser.value(counts)[-1] == 0
    browser.click(cell("numpy", "gradients"))
    assert sum(browser.value(counts)) == 0


# --- details ---


def test_details_show_message_divergence_and_command(browser: Browser) -> None:
    browser.click("#list .item:first-child > summary")
    divergence = dict(line.split("\t") for line in browser.text(".facts:has(caption)").splitlines()[1:])
    expected = {key: str(value) for key, value in PLACE.items() if value is not None}
    assert divergence == {**expected, "allowed": "2.5e-6"}
    assert browser.text(".command code") == COMMAND
    browser.click("#list .item:nth-child(2) > summary")
    assert browser.texts("#list .message")[1] == "outputs: too far"


def test_a_failure_says_why_before_it_is_opened(browser: Browser) -> None:
    first, second, *others = browser.texts("#list .item > summary")
    assert SCRIPT in first and "outputs: too far" in second
    assert browser.texts("#list .why") == [SCRIPT, "outputs: too far"] and others


def test_markup_in_the_data_is_shown_as_text(browser: Browser) -> None:
    browser.click("#list .item:first-child > summary")
    assert browser.text("#list .message") == SCRIPT
    assert SCRIPT in browser.text("#machine")
    assert browser.value("document.title").startswith("2 failed")
    assert browser.value("document.querySelectorAll('main script, img').length") == 0


def test_the_command_is_copied(browser: Browser) -> None:
    browser.send("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    browser.click("#list .item:first-child > summary")
    browser.click(".copy")
    assert browser.text(".copy") == "Copied"
    assert browser.value("navigator.clipboard.readText()") == COMMAND


def test_a_command_that_must_not_be_copied_is_selected(browser: Browser) -> None:
    browser.value("navigator.clipboard.writeText = () => Promise.reject(new Error('no permission'))")
    browser.click("#list .item:first-child > summary")
    browser.click(".copy")
    assert (browser.text(".copy"), browser.value("getSelection().toString()")) == ("Selected", COMMAND)


def test_versions_machine_and_what_was_left_out_are_told(browser: Browser) -> None:
    told = browser.text("#machine")
    for text in ("torch 2.13.0", "3.11.7", "rnnzoo check --quick", "Not checked: no tf here"):
        assert text in told


def test_the_page_forbids_itself_to_load_anything(chromium: Browser, pages: dict[str, str]) -> None:
    chromium.open(pages["fine"])
    refused = """new Promise(done => {
        addEventListener("securitypolicyviolation", event => done(event.effectiveDirective));
        document.body.append(Object.assign(new Image(), {src: "other.png"}));
        setTimeout(done, 2000, "nothing");
    })"""
    assert chromium.value(refused) == "img-src"


# --- ways of looking ---


def test_the_keyboard_reaches_cells_and_details(browser: Browser) -> None:
    browser.value(f"document.querySelector({json.dumps(cell('numpy', 'results'))}).focus()")
    browser.press("Enter")
    assert names(browser) == ["results-float32-Bi-one"]
    for _ in range(8):  # from the heading over the five menus, the search and the button to the first item
        browser.press("Tab")
    browser.press(" ")
    assert browser.value("document.querySelector('.item').open && document.querySelector('.detail') !== null")


def test_dark_is_dark_and_light_is_light(browser: Browser) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        background = browser.value("getComputedStyle(document.body).backgroundColor")
        seen[scheme] = sum(int(part) for part in background.strip("rgb()").split(","))
    browser.send("Emulation.setEmulatedMedia", features=[])
    assert seen["light"] > 600 and seen["dark"] < 150


def test_a_phone_scrolls_the_page_downwards_only(browser: Browser) -> None:
    browser.send("Emulation.setDeviceMetricsOverride", width=360, height=700, deviceScaleFactor=2, mobile=True)
    browser.click("#list .item:first-child > summary")
    width = browser.value("document.documentElement.scrollWidth")
    browser.send("Emulation.clearDeviceMetricsOverride")
    assert width == 360
