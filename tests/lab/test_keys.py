"""A walk through the lab with keys only, from writing a program to a lesson."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from tests.lab.visiting import LONG, Visit
from tests.tools import needs_tool

pytestmark = [needs_tool("chromium"), needs_tool("strace")]
MAX_STEPS = 60  # more than there are elements with focus
HAS_FOCUS = "element => element.contains(document.activeElement)"


def go(visit: Visit, to: Locator, key: str = "Tab") -> None:
    """Move the focus to an element, or into it. In an editor Tab indents, and moves on after Escape."""
    keyboard = visit.page.keyboard
    for _ in range(MAX_STEPS):
        if to.evaluate(HAS_FOCUS):
            return
        if visit.page.evaluate("document.activeElement.closest('.CodeMirror') !== null"):
            keyboard.press("Escape")
        keyboard.press(key)
    raise AssertionError(f"{to} is not reached with {key}")


@pytest.mark.slow
def test_everything_is_done_with_keys_only(visit: Visit) -> None:
    page, keyboard = visit.page, visit.page.keyboard
    state = page.locator("#state")

    # Write and run.
    go(visit, page.locator(".program.client .CodeMirror"))
    keyboard.press("Control+End")
    keyboard.insert_text("\nprint('written with keys')\n")
    keyboard.press("Control+Enter")
    expect(state).to_have_text(re.compile("^ended after"), timeout=LONG)
    expect(page.locator(".program.client .screen")).to_contain_text("written with keys")

    # Step, from the editor and in the timeline.
    now = page.locator("#picture .rows li.now")
    keyboard.press("Alt+ArrowDown")
    expect(now).to_have_count(1)
    first = now.inner_text()
    go(visit, page.locator("#picture .rows ol"))
    keyboard.press("ArrowDown")
    expect(now).not_to_have_text(first)
    keyboard.press("End")
    expect(now).to_contain_text("exit status 0")

    # Judge, until there is a verdict, and open it.
    go(visit, page.locator("#views"), "Shift+Tab")
    keyboard.press("ArrowRight")
    keyboard.press("ArrowRight")
    expect(page.locator("#tab-judge")).to_have_attribute("aria-selected", "true")
    judge = page.locator(".judge button.main")
    expect(judge).to_be_enabled()
    go(visit, judge)
    keyboard.press("Enter")
    verdict = page.locator(".case:is(.PASS, .FAIL)")
    expect(verdict.first).to_be_visible(timeout=LONG)
    go(visit, page.locator(".judge .toolbar button", has_text="Stop"), "Shift+Tab")
    keyboard.press("Enter")
    expect(state).to_have_text(re.compile("stopped|judged"), timeout=LONG)
    go(visit, verdict.first.locator("summary"))
    keyboard.press("Enter")
    expect(verdict.first.locator("dl")).to_be_visible()

    # The first lesson.
    go(visit, page.locator("#views"), "Shift+Tab")
    keyboard.press("End")
    entry = page.locator(".lesson-entry").first
    expect(entry).to_be_visible()
    go(visit, entry)
    keyboard.press("Enter")
    expect(page.locator("#lesson h2")).to_be_focused()
    keyboard.press("Control+Enter")
    expect(page.locator("#lesson .check:is(.passed, .failed)").first).to_be_visible(timeout=LONG)
    go(visit, page.locator("#lesson .remove"))
    keyboard.press("Enter")
    expect(page.locator("#tab-lessons")).to_be_focused()
    assert visit.problems == []
