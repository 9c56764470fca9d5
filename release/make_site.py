"""Build the site from the pages of the repository: `make docs`.

1. Pages are copied as they lie here, so that their links hold: README.md, docs, benchmarks, examples and the
   pages beside README.md. What they show comes along.
2. A file of source that a page links to becomes a page with that source. A link to a folder becomes text.
3. Each public module has a page that mkdocstrings makes from its docstrings, and each lesson of the lab one
   with its text and its programs.
4. The navigation is that of the folders; a page's title is its first heading. So a new page needs no entry.
5. Lists that begin right after a line of text get the empty line that Python-Markdown wants. CommonMark,
   which GitHub uses, does not want it.
"""

from __future__ import annotations

import argparse
import logging
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mkdocs.commands.build import build
from mkdocs.config import load_config

from bothends.lab.lessons import Lesson, load_lessons
from docs.reference.make_api import PUBLIC

ROOT = Path(__file__).resolve().parents[1]
# Title -> the folder of a section of the site; within it by title, but for those named in `_FIRST`.
SECTIONS: Final = {
    "Tutorial": "docs/tutorial",
    "How-to": "docs/how-to",
    "Reference": "docs/reference",
    "Explanation": "docs/explanation",
    "Examples": "examples",
    "Figures": "benchmarks",
}
PROJECT: Final = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
_FIRST: Final = (
    "first-server",
    "from-the-slide",
    "trace",
    "judge",
    "command-line",
    "api",
    "sockets",
    "README",
)
_LINK: Final = re.compile(r"(?P<text>!?\[[^]]*\])\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
_LIST: Final = re.compile(r"(?:[-*+]|\d+\.) ")
_LANGUAGES: Final = {".py": "python", ".c": "c", ".h": "c", ".java": "java", ".toml": "toml", ".sh": "sh"}


def collect(target: Path) -> list[Any]:
    """Copy all pages into a folder, which is emptied; return the navigation, as mkdocs.yml has it."""
    shutil.rmtree(target, ignore_errors=True)
    pages = [ROOT / "README.md", *(ROOT / name for name in PROJECT)]
    for folder in SECTIONS.values():
        pages += sorted((ROOT / folder).glob("**/*.md"))
    published = {page for page in pages if page.exists()}
    sources: set[Path] = set()
    pictures: set[Path] = set()
    for page in sorted(published):
        copy = target / page.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = page.read_text(encoding="utf-8")
        text = _with_lists(_with_links(text, page, published, sources, pictures))
        # What is on one page here has pages by module below, which are found by a search.
        hidden = "---\nsearch:\n  exclude: true\n---\n" if page.name == "api.md" else ""
        copy.write_text(hidden + text, encoding="utf-8")
    for picture in pictures:
        copy = target / picture.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, copy)
    shutil.copy(ROOT / "src/bothends/lab/static/icon.svg", target / "icon.svg")
    shutil.copytree(ROOT / "release/site", target / "assets")
    for source in sources:
        _write_source(source, target)
    modules = list(_write_modules(target / "docs/reference/python"))
    lessons = list(_write_lessons(target / "docs/lessons"))
    return _navigation(target, modules, lessons)


def _with_links(text: str, page: Path, published: set[Path], sources: set[Path], pictures: set[Path]) -> str:
    """Return a page with its links to sources and folders changed; add to `sources` and `pictures`."""

    def change(link: re.Match[str]) -> str:
        name = link["target"]
        if "://" in name or name.startswith("mailto:"):
            return link[0]
        target = (page.parent / name).resolve()
        if link["text"].startswith("!") or target.suffix == ".svg":
            pictures.add(target)
            return link[0]
        if target in published:
            return link[0]
        if target.is_dir():
            return link["text"].strip("[]")
        sources.add(target)
        return f"{link['text']}({name}.md)"

    # Not in blocks of code, where brackets and parentheses are something else.
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _LINK.sub(change, part) for part in parts)


def _with_lists(text: str) -> str:
    """Return a page with an empty line before each list and table, and fences with one word only."""
    lines: list[str] = []
    in_code = False
    for line in text.splitlines():
        if line.startswith("```"):
            in_code = not in_code
            line = re.sub(r"^```(\w+) \w+$", r"```\1", line)
        before = lines[-1] if lines else ""
        if not in_code and before and not before.startswith((" ", "#", "|", "<")):
            begins_list = _LIST.match(line) and not _LIST.match(before)
            if begins_list or line.startswith("|"):
                lines.append("")
        lines.append(line)
    return "\n".join(lines) + "\n"


def _write_source(source: Path, target: Path) -> None:
    name = source.relative_to(ROOT)
    page = target / f"{name}.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    language = _LANGUAGES.get(source.suffix, "text")
    text = source.read_text(encoding="utf-8")
    hidden = "---\nsearch:\n  exclude: true\nhide:\n  - navigation\n---\n"
    page.write_text(f"{hidden}# {name}\n\n````{language}\n{text}````\n", encoding="utf-8")


def _write_modules(folder: Path) -> Iterator[tuple[str, Path]]:
    folder.mkdir(parents=True)
    for name in PUBLIC:
        page = folder / f"{name}.md"
        page.write_text(f"# {name}\n\n::: {name}\n", encoding="utf-8")
        yield name, page


def _write_lessons(folder: Path) -> Iterator[tuple[str, Path]]:
    folder.mkdir(parents=True)
    for number, lesson in enumerate(load_lessons().values(), 1):
        title = f"{number}. {lesson.about.title}"
        page = folder / f"{lesson.id}.md"
        page.write_text(f"# {title}\n\n{_lesson_text(lesson)}", encoding="utf-8")
        yield title, page


def _lesson_text(lesson: Lesson) -> str:
    programs = "".join(
        f"`{each.file}` as it is at the beginning:\n\n"
        f"```{_LANGUAGES.get(Path(each.file).suffix, 'text')}\n{each.text.rstrip()}\n```\n\n"
        for each in lesson.programs
    )
    done = "".join(f"- {each.says}\n" for each in lesson.about.check)
    return (
        "After this page you can begin the lesson: start `bothends lab`, choose *Lessons*, and open it.\n"
        f"It takes about {lesson.about.minutes} minutes.\n\n{_with_lists(lesson.text.strip())}\n{programs}"
        f"It is done when:\n\n{done}"
    )


def _navigation(target: Path, modules: list[tuple[str, Path]], lessons: list[tuple[str, Path]]) -> list[Any]:
    navigation: list[Any] = [{"bothends": "README.md"}]
    for title, folder in SECTIONS.items():
        pages = [page for page in (target / folder).glob("**/*.md") if page.suffixes == [".md"]]
        pages = [page for page in pages if "python" not in page.relative_to(target / folder).parts]
        entries: list[Any] = [
            {_title(page): str(page.relative_to(target))} for page in sorted(pages, key=_position)
        ]
        if title == "Reference":
            entries.append({"Python, by module": _entries(target, modules)})
        navigation.append({title: entries})
    navigation.insert(2, {"Lessons": _entries(target, lessons)})
    navigation.append({"Project": [{_title(target / name): name} for name in PROJECT]})
    return navigation


def _entries(target: Path, pages: list[tuple[str, Path]]) -> list[Any]:
    return [{title: str(page.relative_to(target))} for title, page in pages]


def _position(page: Path) -> tuple[int, str]:
    first = _FIRST.index(page.stem) if page.stem in _FIRST else len(_FIRST)
    return first, _title(page).lower()


def _title(page: Path) -> str:
    """Return the first heading of a page, without marks; else the name of its file."""
    found = re.search(r"^# (.+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1].replace("`", "") if found else page.stem.replace("-", " ").capitalize()


def main() -> None:
    """Build the site; exit with 1 at the first warning."""
    parser = argparse.ArgumentParser(description="Build the site.")
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="Folder; emptied. Default: site.")
    parser.add_argument("--pages", type=Path, default=ROOT / "build/site", help="Folder for the pages.")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    navigation = collect(arguments.pages.resolve())
    config = load_config(
        str(ROOT / "mkdocs.yml"),
        docs_dir=str(arguments.pages.resolve()),
        site_dir=str(arguments.out.resolve()),
        nav=navigation,
        strict=True,
    )
    build(config)


if __name__ == "__main__":
    main()
