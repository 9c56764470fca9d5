"""Lessons: a folder for each, with a text, programs, something to change and what shows that it works.

    NAME/lesson.md       front matter in TOML between two lines of +++, then Markdown
    NAME/FILE            the text of a program that the front matter names; or FILE.in
    NAME/solution/FILE   the same program when the lesson is done
    NAME.lesson          all of these in one file: each but lesson.md below a line `==> FILE <==`

A lesson is written by the teacher, and believed: its checks and its solution. Its text becomes HTML without
HTML of its own (CommonMark with `html` off), without images, and with links to the web only. A request names
a lesson by its id, which is looked up in a table: it never becomes a path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from bothends.errors import ConfigurationError
from bothends.lab.messages import MAX_PROGRAMS, MAX_SOURCE, MAX_TIME_LIMIT, Program
from bothends.lab.messages import Path as NetworkPath
from bothends.textfile import parse_toml, read_text

BUILT_IN: Final = Path(__file__).with_name("course")
FILE: Final = "lesson.md"
SUFFIX: Final = ".lesson"
MAX_LESSONS: Final = 100
MAX_TEXT: Final = 50_000  # characters of one lesson
_FENCE: Final = "+++"
_HEADING: Final = re.compile(r"^==> (\S+) <==\n", re.M)
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}")

Role = Annotated[str, Meta(pattern=r"\A(server|client)( [2-6])?\Z")]
_Text = Annotated[str, Meta(min_length=1, max_length=500)]
_Count = Annotated[int, Meta(ge=0, le=1_000_000)]


class OutputCheck(Struct, frozen=True, forbid_unknown_fields=True):
    """A program prints a text, or something that a regular expression matches; or it does not (`lacks`)."""

    program: Role
    contains: str = ""
    matches: str = ""
    lacks: str = ""


class ExitCheck(Struct, frozen=True, forbid_unknown_fields=True):
    """A program exits with a status."""

    program: Role
    status: int = 0


class CallCheck(Struct, frozen=True, forbid_unknown_fields=True):
    """A program makes a call, whose line in the timeline contains a text, as often as this: at least once."""

    program: Role
    name: _Text
    contains: str = ""
    at_least: _Count | None = None
    at_most: _Count | None = None

    def allows(self, count: int) -> bool:
        """Whether it may make the call as often as this."""
        least = self.at_least if self.at_least is not None else 1 if self.at_most is None else 0
        return least <= count and (self.at_most is None or count <= self.at_most)


class PacketCheck(Struct, frozen=True, forbid_unknown_fields=True):
    """Packets whose line in the timeline contains a text, such as "RST", are as many as this."""

    contains: _Text
    at_least: _Count = 0
    at_most: _Count = 1_000_000


class ContractCheck(Struct, frozen=True, forbid_unknown_fields=True):
    """A program passes cases of a built-in contract: all, or those in `cases`."""

    program: Role
    name: _Text
    cases: Annotated[list[_Text], Meta(max_length=50)] = []


class LessonCheck(Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that shows that a lesson is done. `says`: what, as a sentence. Exactly one of the others."""

    says: _Text
    output: OutputCheck | None = None
    exits: ExitCheck | None = None
    call: CallCheck | None = None
    packets: PacketCheck | None = None
    without_finding: str | None = None
    ends: Literal[True] | None = None
    contract: ContractCheck | None = None

    @property
    def kinds(self) -> list[str]:
        """The names of its fields that are given, without `says`."""
        return [each for each in self.__struct_fields__ if each != "says" and getattr(self, each) is not None]


class LessonProgram(Struct, frozen=True, forbid_unknown_fields=True):
    """A program of a lesson: its part, its file and its arguments."""

    kind: Literal["server", "client"]
    file: str
    arguments: str = ""


class FrontMatter(Struct, frozen=True, forbid_unknown_fields=True):
    """What stands before the text of a lesson."""

    title: _Text
    program: Annotated[list[LessonProgram], Meta(min_length=1, max_length=MAX_PROGRAMS)]
    check: Annotated[list[LessonCheck], Meta(min_length=1, max_length=20)]
    minutes: Annotated[int, Meta(ge=1, le=120)] = 5
    seconds: Annotated[float, Meta(gt=0, le=MAX_TIME_LIMIT)] = 10.0
    path: NetworkPath | None = None


@dataclass(frozen=True, slots=True)
class Lesson:
    """A lesson. `id`: its name; `text`: Markdown; `solution`: the programs when it is done."""

    id: str
    about: FrontMatter
    text: str
    programs: list[Program]
    solution: list[Program]

    def summary(self) -> dict[str, Any]:
        """Return what a list of lessons shows, for JSON."""
        return {"id": self.id, "title": self.about.title, "minutes": self.about.minutes}

    def page(self) -> dict[str, Any]:
        """Return what the page shows, for JSON. The solution is not in it."""
        return self.summary() | {
            "html": render(self.text),
            "programs": msgspec.to_builtins(self.programs),
            "checks": [each.says for each in self.about.check],
            "seconds": self.about.seconds,
            "path": msgspec.to_builtins(self.about.path),
        }


def load_lessons(folders: Sequence[Path] = (BUILT_IN,)) -> dict[str, Lesson]:
    """Return the lessons of some folders, by id: in the order of the folders, and of the names in each.

    Raises:
        ConfigurationError: a lesson is not valid, or two have the same id.
        SystemCallFailed: a file cannot be read.
    """
    found: dict[str, Lesson] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigurationError(str(folder), "", "", "not a folder with lessons")
        for each in sorted(folder.iterdir()):
            if each.suffix != SUFFIX and not (each / FILE).is_file():
                continue
            lesson = load_lesson(each)
            if lesson.id in found:
                raise ConfigurationError(str(each), "", "", "another lesson has the same name")
            found[lesson.id] = lesson
    if len(found) > MAX_LESSONS:
        raise ConfigurationError(str(folders[-1]), "", "", f"more than {MAX_LESSONS} lessons")
    return found


def load_lesson(place: Path) -> Lesson:
    """Return the lesson in a folder or file. Raises ConfigurationError, SystemCallFailed."""
    name = place.name.removesuffix(SUFFIX)
    if _ID.fullmatch(name) is None:
        raise ConfigurationError(str(place), "", "", "its name may have letters, digits, - and _ only")
    packed: dict[str, str] = {}
    if place.is_dir():
        file, text = str(place / FILE), read_text(place / FILE)
    else:
        file = str(place)
        text, *rest = _HEADING.split(read_text(place))
        packed = dict(zip(rest[::2], rest[1::2], strict=True))

    def find(path: str) -> str | None:
        return read_text(place / path) if (place / path).is_file() else packed.get(path)

    about, text = parse_lesson(text, file)
    programs = [_program(find, "", each, file) for each in about.program]
    solution = [_program(find, "solution/", each, file) for each in about.program]
    return Lesson(name, about, text, programs, solution)


def parse_lesson(text: str, file: str) -> tuple[FrontMatter, str]:
    """Return the front matter and the text of a lesson. Raises ConfigurationError."""
    if len(text) > MAX_TEXT:
        raise ConfigurationError(file, "", "", f"longer than {MAX_TEXT:,} characters")
    lines = text.splitlines()
    if not lines or lines[0].strip() != _FENCE or _FENCE not in (each.strip() for each in lines[1:]):
        raise ConfigurationError(file, "", "", f"it must begin with TOML between two lines of {_FENCE}")
    end = next(number for number, each in enumerate(lines) if number and each.strip() == _FENCE)
    document = parse_toml("\n".join(lines[1:end]), file)
    try:
        about = msgspec.convert(document, FrontMatter)
    except msgspec.ValidationError as error:
        raise ConfigurationError(file, "", "", str(error)) from error
    for number, check in enumerate(about.check, 1):
        _validate(check, f"check {number}", file)
    return about, "\n".join(lines[end + 1 :])


def _validate(check: LessonCheck, table: str, file: str) -> None:
    if len(check.kinds) != 1:
        kinds = ", ".join(each for each in LessonCheck.__struct_fields__ if each != "says")
        raise ConfigurationError(file, table, "", f"it needs exactly one of {kinds}")
    if check.output is not None:
        if not (check.output.contains or check.output.matches or check.output.lacks):
            raise ConfigurationError(file, table, "output", "it needs contains, matches or lacks")
        try:
            re.compile(check.output.matches)
        except re.error as error:
            raise ConfigurationError(file, table, "matches", str(error)) from error
    if check.contract is not None:
        from bothends.check.contract import builtin_names

        if check.contract.name not in builtin_names():
            raise ConfigurationError(file, table, "contract", f"there is none named {check.contract.name!r}")


def _program(find: Callable[[str], str | None], prefix: str, about: LessonProgram, lesson: str) -> Program:
    """Return a program: the one with the prefix if there is one, or else without. Raises ConfigurationError.

    `find` returns the text of a file of the lesson, or None; `lesson` is the file to name in an error.
    """
    try:
        known = Program(about.kind, about.file, "", about.arguments)
        msgspec.convert(msgspec.to_builtins(known), Program)  # which checks the name
    except msgspec.ValidationError as error:
        raise ConfigurationError(lesson, "program", about.file, str(error)) from error
    for path in (f"{place}{about.file}{suffix}" for place in (prefix, "") for suffix in ("", ".in")):
        if (text := find(path)) is not None:
            if len(text) > MAX_SOURCE:
                raise ConfigurationError(lesson, "", path, f"longer than {MAX_SOURCE:,} characters")
            known.text = text
            return known
    raise ConfigurationError(lesson, "", about.file, "no such file")


def render(text: str) -> str:
    """Return Markdown as HTML, in which nothing of the text is HTML, an image or a link into the lab."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image"])
    parser.validateLink = _is_web_link  # type: ignore[method-assign]
    parser.add_render_rule("link_open", _open_link)
    return str(parser.render(text))


def _is_web_link(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)  # http:/page would be one of the lab


def _open_link(self: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    """Open links in a page of their own, which has no access to this one. An empty one is none."""
    if not tokens[index].attrGet("href"):
        tokens[index].attrs = {}
        return str(self.renderToken(tokens, index, options, env))
    tokens[index].attrSet("target", "_blank")
    tokens[index].attrSet("rel", "noopener noreferrer")
    return str(self.renderToken(tokens, index, options, env))


def load_own_lessons(folder: Path | None) -> dict[str, Lesson]:
    """Return the built-in lessons, and those of a folder. Raises BothendsError."""
    return load_lessons([BUILT_IN, *([folder] if folder is not None else [])])
