"""The commands of the documentation, compared with the output on the pages; and relative links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages import Page
from tests.tools import needs_tool

ROOT = Path(__file__).resolve().parent.parent
QUICK = ["README.md", "docs/tutorial/first-server.md", "docs/how-to/add-a-service.md"]
PAGES = [
    *QUICK,
    "docs/reference/endpoints.md",
    "docs/reference/services.md",
    "docs/reference/command-line.md",
    "docs/how-to/lecture.md",
    "docs/explanation/native.md",
    "docs/explanation/sockets.md",
]


def pages() -> Iterator[object]:
    """Yield a parameter for each page, skipped if a program that it uses is missing."""
    for name in PAGES:
        used = "$ curl" in (ROOT / name).read_text(encoding="utf-8")
        marks = [needs_tool("curl")] * used + [pytest.mark.slow] * (name not in QUICK)
        yield pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", list(pages()))
def test_page(name: str, tmp_path: Path) -> None:
    Page(ROOT / name, tmp_path).run()


def test_relative_links_resolve() -> None:
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/*.md"),
    ]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken
