"""One lab, and one browser, for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.lab.running import Lab, running_lab
from tests.lab.visiting import Visit
from tests.tools import find_tool


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running_lab() as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=find_tool("chromium"), args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: Browser, lab: Lab) -> Iterator[Visit]:
    found = Visit(browser, lab)
    yield found
    found.context.close()
    assert found.problems == []
