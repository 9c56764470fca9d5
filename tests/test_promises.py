"""docs/explanation/promises.md: each promise names tests, and each of them exists."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/explanation/promises.md"
CONTRACT = "src/bothends/testing/"
TEST = re.compile(r"`((?:tests|contract)/[\w/]+\.py)::(test_\w+)`")


def promises() -> list[tuple[str, str]]:
    """Return the rows of the tables: the promise, and the cell with its tests."""
    rows = [
        line.split("|")[1:3] for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:2] == "| "
    ]
    return [(promise.strip(), tests) for promise, tests in rows if promise.strip() != "promise"]


@functools.cache
def existing_tests(path: str) -> frozenset[str]:
    """Return the names of the tests in a file that nothing skips unconditionally."""
    file = ROOT / (CONTRACT + path if path.startswith("contract/") else path)
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            marks = " ".join(ast.unparse(each) for each in node.decorator_list)
            if "mark.skip(" not in marks and "xfail" not in marks:
                found.add(node.name)
    return frozenset(found)


def test_page_has_its_sections() -> None:
    titles = re.findall(r"^## (.*)", PAGE.read_text(encoding="utf-8"), re.M)
    assert {"A server that stops (SIGTERM, ^C)", "Limits", "What is not promised"} <= set(titles)
    assert len(promises()) > 40


@pytest.mark.parametrize(("promise", "tests"), promises())
def test_promise_is_held_by_tests_that_exist(promise: str, tests: str) -> None:
    named = TEST.findall(tests)
    assert named, f"no test holds: {promise}"
    assert TEST.sub("", tests).strip(" ,") == "", "only tests stand in the second column"
    for path, name in named:
        assert name in existing_tests(path), f"{path} has no {name}"
