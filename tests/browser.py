"""A headless Chromium over a pipe: what a page shows, loads and complains about.

`python -m tests.browser PAGE WIDTH PICTURE [HEADING]` takes a picture of a page, or of the section with a heading; a number in
place of the heading is the height of the picture.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from typing_extensions import Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe")


def find_browser() -> str | None:
    """Path of a Chromium."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Shown(NamedTuple):
    """What came of a page.

    Attributes:
        complaints: errors and warnings of the console, exceptions, failed requests.
        requests: addresses that were asked for, without ``data:``.
        value: of the expression that was evaluated.
        picture: PNG of the page.
    """

    complaints: list[str]
    requests: list[str]
    value: Any
    picture: bytes


class Browser:
    """Speaks the DevTools protocol over file descriptors 3 and 4, so that nothing but Chromium is needed."""

    def __init__(self, program: str) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # The shell moves the pipes to where Chromium expects them; from above, so that neither takes the other's place.
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]
        command = ["bash", "-c", 'exec "$@" 3<&{} 4>&{}'.format(*theirs), "bash", program, *FLAGS]
        self._process = subprocess.Popen(
            [*command, f"--user-data-dir={self._profile.name}", "about:blank"],
            pass_fds=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (theirs_in, theirs_out, *theirs):
            os.close(end)
        self._rest, self._number = b"", 0
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._profile.cleanup()

    def show(self, page: Path, width: int, expression: str = "0", part: str = "", dark: bool = False) -> Shown:
        """Load a page in a window of a width in CSS pixels, evaluate an expression in it, and take a picture.

        Args:
            page: a file.
            width: of the window.
            expression: JavaScript whose value, or what it promises, comes back.
            part: heading of the section that the picture shows, or height of the picture; the whole page by default.
            dark: whether the reader prefers dark colours.
        """
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable", session)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", session, features=[scheme])
        window = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", session, **window)
        self._events.clear()
        self._call("Page.navigate", session, url=page.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            self._events.append(self._read())
        answer = self._call("Runtime.evaluate", session, expression=expression, returnByValue=True, awaitPromise=True)
        place = self._call("Runtime.evaluate", session, expression=f"({_PLACE})({part!r})", returnByValue=True)
        clip = {"x": 0, "width": width, "scale": 1, **place["result"]["value"]}
        shot = self._call("Page.captureScreenshot", session, captureBeyondViewport=True, clip=clip)["data"]
        events, self._events = self._events, []
        self._call("Target.closeTarget", targetId=target)
        requests = [event["params"]["request"]["url"] for event in _of(events, "Network.requestWillBeSent")]
        complaints = [json.dumps(event["params"]) for name in COMPLAINTS for event in _of(events, name)]
        loaded = [url for url in requests if not url.startswith("data:")]
        return Shown(complaints, loaded, answer["result"].get("value"), base64.b64decode(shot))

    def _call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._out, json.dumps({**message, **({"sessionId": session} if session else {})}).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self._events.append(answer)
        if "error" in answer or "exceptionDetails" in answer.get("result", {}):
            raise RuntimeError(f"{method}: {answer}")
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            found = os.read(self._in, 2**16)
            if not found:
                raise RuntimeError("Chromium is gone.")
            self._rest += found
        message, _, self._rest = self._rest.partition(b"\0")
        content: dict[str, Any] = json.loads(message)
        return content


_PLACE = """part => {
    const section = [...document.querySelectorAll("section")].find(one => one.querySelector("h2").textContent === part);
    const box = section?.getBoundingClientRect();
    return box ? {y: box.top, height: box.height + 12} : {y: 0, height: Number(part) || document.body.scrollHeight} }"""
COMPLAINTS = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Network.loadingFailed")


def _of(events: list[dict[str, Any]], method: str) -> list[dict[str, Any]]:
    return [event for event in events if event.get("method") == method]


if __name__ == "__main__":
    page, width, picture, *part = sys.argv[1:]
    with Browser(find_browser() or "chromium") as browser:
        shown = browser.show(Path(page), int(width), part="".join(part))
    Path(picture).write_bytes(shown.picture)
