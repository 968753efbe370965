"""`pics ui` in a real Chromium, driven with mouse, finger and keyboard."""

from __future__ import annotations

import base64
import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import Browser, Page

from pics_cli.ui.server import Server
from pics_cli.ui.serving import listen

# Where screenshots are kept, in place of the test's temporary folder.
SHOTS = "PICS_UI_SCREENSHOTS"
_DROP = """
([selector, name, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  for (const kind of ["dragover", "drop"])
    document.querySelector(selector).dispatchEvent(
      new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
}
"""


@contextlib.contextmanager
def served(server: Server) -> Iterator[str]:
    """The address of a server that runs in a thread."""
    with listen("127.0.0.1", 0) as listening:
        running = uvicorn.Server(uvicorn.Config(server.app, log_config=None, access_log=False))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            running.should_exit = True
            thread.join(20)


class Film:
    """A page, its screenshots, and what it said and asked for.

    Args:
        browser: see `browser.chromium`.
        address: of the server.
        folder: for the screenshots, unless the environment names another.
        options: of the browser's context, such as `viewport`.
    """

    def __init__(self, browser: Browser, address: str, folder: Path, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.said, self.asked = list[str](), list[str]()
        self.page.on("console", lambda line: self._hear(line.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.address, self.folder = address, Path(os.environ.get(SHOTS) or folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.page.goto(address)
        self.page.wait_for_selector("body[data-ready]")

    def _hear(self, text: str) -> None:
        if "Failed to load resource" not in text:  # of a request that is refused, or a server that is gone
            self.said.append(text)

    def shot(self, name: str, **options: Any) -> None:
        """Take a screenshot."""
        self.page.screenshot(path=self.folder / f"{name}.png", **options)

    def drop(self, selector: str, name: str, data: bytes) -> None:
        """Drop a file."""
        self.page.evaluate(_DROP, [selector, name, base64.b64encode(data).decode()])

    def drag(self, *points: tuple[float, float]) -> None:
        """Press the mouse, move it through points of the screen, release it."""
        mouse = self.page.mouse
        mouse.move(*points[0])
        mouse.down()
        for point in points[1:]:
            mouse.move(*point, steps=4)
        mouse.up()

    def place(self, selector: str, x: float, y: float) -> tuple[float, float]:
        """A point of the screen by shares of an element's sides."""
        box = self.page.locator(selector).first.bounding_box()
        assert box is not None, selector
        return box["x"] + box["width"] * x, box["y"] + box["height"] * y

    def box(self, number: int) -> list[int]:
        """x, y, width, height of an object's box, as its fields show them."""
        fields = self.page.locator(f'#objects li[data-number="{number}"] .place input')
        return [int(fields.nth(k).input_value() or -1) for k in range(4)]

    def until(self, condition: str, argument: Any = None) -> None:
        """Wait until a script says so; Playwright's own way is text to evaluate, which the page's policy forbids."""
        for _ in range(400):
            if self.page.evaluate(condition, argument):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"{condition}: not within 20 s; {self.page.inner_text('#error, #status')}")

    def error(self) -> str:
        """Wait for an error, and what it says."""
        self.page.wait_for_selector("#error:not([hidden])")
        return self.page.inner_text("#error")

    def composite(self) -> None:
        """Click, and wait for the picture."""
        before = self.page.evaluate("document.body.dataset.shown")
        self.page.click("#composite")
        self.until("before => (document.body.dataset.shown ?? null) !== before", before)

    def download(self, selector: str) -> bytes:
        """What a link gives, by clicking it."""
        with self.page.expect_download() as waiting:
            self.page.click(selector)
        return Path(waiting.value.path()).read_bytes()
