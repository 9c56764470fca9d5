"""A page of the lab in a real browser."""

from __future__ import annotations

import re
from typing import Any, Final

from playwright.sync_api import Browser, Page, expect

from tests.lab.running import TIMEOUT, Lab

LONG: Final = TIMEOUT * 1000  # milliseconds


class Visit:
    """A page of the lab, and what went wrong on it."""

    def __init__(self, browser: Browser, lab: Lab, width: int = 1280, scheme: Any = "light") -> None:
        self.lab = lab
        self.context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            permissions=["clipboard-read", "clipboard-write"],
        )
        self.context.set_default_timeout(LONG)
        self.problems: list[str] = []
        self.weight = 0
        self.page = self.open(lab.address)

    def open(self, address: str) -> Page:
        page = self.context.new_page()
        page.on("console", lambda message: self.problems.append(message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("dialog", lambda dialog: self.problems.append(dialog.message))
        page.on("response", self._on_response)
        page.goto(address)
        expect(page.locator("#state")).to_have_text("ready", timeout=LONG)
        return page

    def _on_response(self, response: Any) -> None:
        if response.request.resource_type != "websocket":
            self.weight += len(response.body())
        if not response.url.removeprefix("blob:").startswith(f"http://{self.lab.host}/"):
            self.problems.append(response.url)

    def write(self, number: int, text: str, file: str = "") -> None:
        """Replace the text of a program, as by pasting."""
        if file:
            self.page.locator(".file").nth(number).fill(file)
        self.page.locator(".program").nth(number).locator(".CodeMirror").click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(text)

    def run(self) -> None:
        self.page.click("#run")
        expect(self.page.locator("#state")).to_have_text(re.compile("^ended|fail|could not"), timeout=LONG)

    def screen(self, number: int) -> str:
        return self.page.locator(".screen pre").nth(number).inner_text()
