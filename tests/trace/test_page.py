"""The page of a trace in a real browser: light and dark, wide and narrow, by mouse and by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from bothends.trace.findings import run_rules
from bothends.trace.rendering.html import render_page
from bothends.trace.rendering.layout import rows_of
from tests.tools import find_tool, needs_tool
from tests.trace.test_trace_file import hostile_trace

pytestmark = [needs_tool("chromium")]

# The contrast of each text colour with each background (WCAG 2.2, relative luminance).
CONTRAST = """() => {
  const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((each) => Number(each) / 255)
    .map((each) => each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
    .reduce((sum, each, index) => sum + each * [0.2126, 0.7152, 0.0722][index], 0);
  const probe = document.body.appendChild(document.createElement("span"));
  const resolved = (name) => {
    probe.style.color = `var(${name})`;
    return light(getComputedStyle(probe).color);
  };
  const found = {};
  for (const background of ["--background", "--panel", "--related", "--selected"])
    for (const text of ["--text", "--muted", "--data", "--open", "--end", "--reset", "--state", "--note"]) {
      const [a, b] = [resolved(text), resolved(background)].sort((x, y) => y - x);
      found[`${text} on ${background}`] = (a + 0.05) / (b + 0.05);
    }
  return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=find_tool("chromium"), args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trace = hostile_trace()
    path = tmp_path_factory.mktemp("page") / "run.html"
    path.write_text(render_page(trace, rows_of(trace), run_rules(trace)), encoding="utf-8")
    return path


def open_page(browser: Browser, file: Path, width: int, scheme: str) -> tuple[Page, list[str]]:
    opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    problems: list[str] = []
    opened.on("console", lambda message: problems.append(message.text))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("dialog", lambda dialog: problems.append(dialog.message))
    opened.on(
        "request", lambda request: problems.append(request.url) if "run.html" not in request.url else None
    )
    opened.goto(file.as_uri())
    return opened, problems


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (390, "dark"),
        pytest.param(390, "light", marks=pytest.mark.slow),
        pytest.param(1280, "dark", marks=pytest.mark.slow),
        pytest.param(1280, "light", marks=pytest.mark.slow),
    ],
)
def test_html_page_highlights_and_explains_related_rows(
    browser: Browser, file: Path, width: int, scheme: str
) -> None:
    opened, problems = open_page(browser, file, width, scheme)
    opened.locator(".arrow").hover()
    assert opened.locator(".selected").count() == 1
    assert opened.locator(".related").count() >= 2  # the call that sent it, and the one that received it
    opened.locator(".row", has_text="sendto(3").first.click()
    details = opened.locator("aside").inner_text()
    assert "ssize_t sendto(int sockfd" in details
    assert "s.sendto(data, address)" in details
    assert "</script><script>alert(1)" in details  # as text, not as an element
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert problems == []


def test_html_page_keyboard_navigation(browser: Browser, file: Path) -> None:
    opened, problems = open_page(browser, file, 1280, "light")
    opened.keyboard.press("Tab")
    titles = []
    for _ in range(3):
        titles.append(opened.locator("aside h2").inner_text())
        opened.keyboard.press("ArrowDown")
    assert len(set(titles)) == 3
    opened.keyboard.press("Home")
    assert opened.locator("aside h2").inner_text() == titles[0]
    assert problems == []


def test_html_page_small_screen_keeps_selected_row_visible(browser: Browser, file: Path) -> None:
    opened, _ = open_page(browser, file, 390, "light")
    opened.set_viewport_size({"width": 390, "height": 340})
    opened.keyboard.press("Tab")
    for _ in range(opened.locator(".row[data-event]").count()):
        opened.keyboard.press("ArrowDown")
        row, panel = opened.locator(".row:focus").bounding_box(), opened.locator("aside").bounding_box()
        assert row is not None
        assert panel is not None
        assert 0 <= row["y"] < row["y"] + row["height"] <= panel["y"]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_html_page_contrast_meets_wcag(browser: Browser, file: Path, scheme: str) -> None:
    opened, _ = open_page(browser, file, 1280, scheme)
    ratios = opened.evaluate(CONTRAST)
    # WCAG 2.2, success criterion 1.4.3
    assert {pair: ratio for pair, ratio in ratios.items() if ratio < 4.5} == {}
