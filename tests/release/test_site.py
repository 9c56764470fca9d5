"""The site: each page says what it is for, links and anchors exist, and nothing comes from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.tools import find_tool, needs_tool

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("**/*.md"))
LINK = re.compile(r"\]\(([^)#\s]*)#([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_page_says_at_its_top_what_one_can_do_after_it(page: Path) -> None:
    title, empty, line = page.read_text(encoding="utf-8").splitlines()[:3]
    assert title.startswith("# ")
    assert empty == ""
    assert line.startswith("After this page you "), line


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


def test_anchors_of_links_exist() -> None:
    broken = []
    for page in [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]:
        for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
            other = (page.parent / target).resolve() if target else page
            if "://" not in target and other.suffix == ".md" and anchor not in anchors(other):
                broken.append(f"{page.relative_to(ROOT)}: {target}#{anchor}")
    assert not broken


def test_pictures_and_lessons_come_along(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    from release.make_site import collect

    (lessons,) = (each["Lessons"] for each in collect(tmp_path / "pages") if "Lessons" in each)
    assert len(lessons) >= 12
    assert all((tmp_path / "pages" / page).is_file() for each in lessons for page in each.values())
    for page in (tmp_path / "pages").glob("**/*.md"):
        for name in re.findall(r"!\[[^]]*\]\(([^)\s]+)\)", CODE.sub("", page.read_text(encoding="utf-8"))):
            assert (page.parent / name).is_file(), (page, name)


class Links(HTMLParser):
    """Collects the links of a page (`links`), what it loads (`loaded`), and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.anchors.add(given["id"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if "src" in given:
            self.loaded.append(given["src"])
        if tag == "link" and given.get("rel") in ("stylesheet", "icon"):
            self.loaded.append(given["href"])


def broken_links(site: Path) -> Iterator[str]:
    """Yield each link to a file or an anchor that is not in the site."""
    pages = {page: Links(page.read_text(encoding="utf-8")) for page in site.glob("**/*.html")}
    assert len(pages) > 80
    for page, content in pages.items():
        if page.name == "404.html":  # its links are those of the root of a server
            continue
        for link in (*content.links, *content.loaded):
            if re.match(r"https?:|mailto:|data:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / unquote(path)).resolve() if path not in ("", ".") else page
            if not target.exists():
                yield f"{page.relative_to(site)}: {link}"
            elif anchor and target in pages and unquote(anchor) not in pages[target].anchors:
                yield f"{page.relative_to(site)}: {link} has no such anchor"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "release.make_site", "--out", "site", "--pages", "pages"]
    paths = {"--out": folder / "site", "--pages": folder / "pages"}
    for option, path in paths.items():
        command[command.index(option) + 1] = str(path)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return paths["--out"]


@pytest.mark.slow
@pytest.mark.timeout(180)
class TestBuilt:
    def test_links_are_not_broken(self, site: Path) -> None:
        assert list(broken_links(site)) == []

    def test_nothing_is_loaded_from_elsewhere(self, site: Path) -> None:
        loaded = {
            each
            for page in site.glob("**/*.html")
            for each in Links(page.read_text(encoding="utf-8")).loaded
            if "//" in each
        }
        assert not loaded
        for sheet in site.glob("**/*.css"):
            assert not re.search(r"@import|url\(['\"]?https?:", sheet.read_text(encoding="utf-8")), sheet

    @needs_tool("chromium")
    def test_search_finds_words_without_a_server(self, site: Path) -> None:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as player:
            browser = player.chromium.launch(executable_path=find_tool("chromium"), args=["--no-sandbox"])
            page = browser.new_page()
            requests: list[str] = []
            page.on("request", lambda request: requests.append(request.url))
            page.goto((site / "index.html").as_uri())
            page.fill("input.md-search__input", "accept queue")
            page.wait_for_selector(".md-search-result__item")
            assert "matching documents" in page.inner_text(".md-search-result__meta")
            browser.close()
        assert not [url for url in requests if not url.startswith(("file:", "data:", "blob:"))]
