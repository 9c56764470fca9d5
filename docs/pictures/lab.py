"""Take docs/pictures/lab.webp of a real run in the lab: both ends wait, and the page says for what.

    .venv/bin/python docs/pictures/lab.py

It needs strace, Chromium, Playwright and Pillow.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import Page, sync_playwright

PICTURE: Final = Path(__file__).parent / "lab.webp"
SIZE: Final = (1180, 900)
FRAME: Final = 900  # milliseconds


def main() -> None:
    """Run the beginning "Both ends wait", and save the frames."""
    command = [sys.executable, "-m", "bothends", "lab", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as lab:
        try:
            assert lab.stdout is not None
            address = next(found[0] for line in lab.stdout if (found := re.search(r"http://\S+", line)))
            frames = visit(address)
        finally:
            lab.terminate()
    durations = [FRAME] * (len(frames) - 1) + [5000]
    frames[0].save(
        PICTURE, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=60, method=6
    )


def visit(address: str) -> list[Image.Image]:
    """Open the lab in a browser, and return the pictures."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"] * (os.getuid() == 0)
        )
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
        page.goto(address)
        return take(page)


def take(page: Page) -> list[Image.Image]:
    """Choose the programs, run them, and return a picture of each stage."""
    page.wait_for_selector("#state:text-is('ready')")
    page.select_option("#begin", label="Both ends wait: name the cause")
    frames = [shot(page)]
    page.click("#run")
    for _ in range(7):
        page.wait_for_timeout(FRAME)
        frames.append(shot(page))
    page.click("#stop")
    page.wait_for_timeout(1500)
    return [*frames, shot(page)]


def shot(page: Page) -> Image.Image:
    """Return a picture of the page."""
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


if __name__ == "__main__":
    main()
