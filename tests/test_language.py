"""The words of the project: terms that code and prose don't use, each with the one to use instead.

The terms are those of POSIX, the man pages and RFC 9293, and a few of the project's own, which
docs/explanation/design.md lists. A rule here is a term that once stood in the code and made a reader stop.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYTHON: Final = sorted(
    path
    for folder in ("src", "tests", "benchmarks", "examples", "docs")
    for path in (ROOT / folder).rglob("*.py")
    if not {"programs", "faults", "healthy"} & {*path.parts}  # programs as others write them
)
C: Final = sorted(path for path in (ROOT / "native").rglob("*.[ch]"))
PAGES: Final = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])

# Part of an identifier, between underscores or capitals -> what to use instead.
NOT_IN_NAMES: Final = {
    "anew": "again, fresh",
    "deaf": "not_reading",
    "deafen": "stop_listening",
    "heard": "received",
    "hears": "receives",
    "heir": "reaper",
    "knock": "connect",
    "newcomer": "accepted, connection",
    "newcomers": "accepted, connections",
    "nobody": "no_listener, unused (but the user `nobody`)",
    "ours": "the component's name",
    "patience": "timeout",
    "somebody": "the component's name",
    "theirs": "the component's name",
    "told": "received, notified",
    "warden": "watchdog",
    "welcome": "accept",
    "welcomes": "accepts",
    "whoever": "the component's name",
}
# Matches any text with one of these words as a part of an identifier, and most texts without it do not match.
MAY_BE_NAMED: Final = re.compile(rf"(?:(?<![a-z])|(?=[A-Z]))(?i:{'|'.join(NOT_IN_NAMES)})(?![a-z])")
# In docstrings, comments, messages, help and pages -> what to write instead.
NOT_IN_PROSE: Final = {
    r"\banew\b": "again",
    r"\bbut for\b": "except for",
    r"\bbe it\b": "whether",
    r"\bcomings and goings\b": "connections opened and closed",
    r"\bin good order\b": "normally, cleanly",
    r"\blest\b": "so that ... does not",
    r"\bof (its|their|our|his) own accord\b": "by itself",
    r"\bof ours\b": "name the thing",
    r"\bof theirs\b": "name the thing",
    r"\bso many\b": "n, a number of",
    r"\bshould (we|it|they) be\b": "if ... is",
    r"\bwhoever\b": "name the thing: the peer, the caller, the process",
    r"\bwhom\b": "name the thing",
    r"\bturned away\b": "rejected",
    r"(?<!there )\bis no (TCP|UDP|IPv4|IPv6|number|port|address|UTF-8|TOML|JSON)\b": "is not ...",
}
# In source code and its docstrings alone, where a subject is a thing: pages speak of people, too.
NOT_IN_SOURCE: Final = {
    r"\bwho\b": "the client, the server, the process, the caller",
    r"\b(no|some|any|every)body\b(?!\()": "name the thing",
}
# The user `nobody`; and people.
ALLOWED: Final = re.compile(
    r"\b(user|person|people|reader|student|teacher|developer)s? who\b"
    r"|`nobody`|user nobody|\"nobody\"|NOBODY|uid 65534|nobody\("
)


def words_of(identifier: str) -> list[str]:
    """The words of `snake_case`, `CamelCase` and `UPPER_CASE`, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)]


def identifiers(text: str) -> Iterator[tuple[int, str]]:
    """Line and name of each function, class, parameter and variable that a module defines."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg


def python_prose(text: str) -> Iterator[tuple[int, str]]:
    """Line and text of each comment, and of each string of several words."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
        elif token.type == tokenize.STRING and " " in token.string:
            for offset, line in enumerate(token.string.splitlines()):
                yield token.start[0] + offset, line


def c_prose(text: str) -> Iterator[tuple[int, str]]:
    """Line and text of each line with a comment or a string. C has no other words."""
    yield from enumerate(text.splitlines(), start=1)


def may_break(text: str, rules: dict[str, str]) -> bool:
    """Whether a rule matches, exceptions included: one search, to leave out most files and lines."""
    return re.search("|".join(rules), text, re.IGNORECASE) is not None


def faults(lines: Iterator[tuple[int, str]], rules: dict[str, str]) -> list[str]:
    """What these rules object to."""
    return [
        f"line {number}: {found[0]!r}: write {instead}: {line.strip()[:100]}"
        for number, line in lines
        if may_break(line, rules)
        for rule, instead in rules.items()
        if (found := re.search(rule, ALLOWED.sub("", line), re.IGNORECASE))
    ]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_python_uses_the_terms(path: Path) -> None:
    if path == Path(__file__):
        return
    text = path.read_text(encoding="utf-8")
    found = [
        f"line {line}: {name}: use {NOT_IN_NAMES[word]}"
        for line, name in (identifiers(text) if MAY_BE_NAMED.search(text) else ())
        for word in words_of(name)
        if word in NOT_IN_NAMES and not ALLOWED.search(name)
    ]
    rules = NOT_IN_PROSE | NOT_IN_SOURCE if path.is_relative_to(ROOT / "src") else NOT_IN_PROSE
    if may_break(text, rules):
        found += faults(python_prose(text), rules)
    assert not found, f"{relative(path)}:\n" + "\n".join(found)


@pytest.mark.parametrize("path", C, ids=relative)
def test_c_uses_the_terms(path: Path) -> None:
    found = faults(c_prose(path.read_text(encoding="utf-8")), NOT_IN_PROSE | NOT_IN_SOURCE)
    assert not found, f"{relative(path)}:\n" + "\n".join(found)


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_pages_use_the_terms(path: Path) -> None:
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    found = faults(iter(lines), NOT_IN_PROSE)
    assert not found, f"{relative(path)}:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("line", "caught"),
    [
        ("# Whoever calls this", True),
        ("# so many bytes", True),
        ("# for someone who reads", True),
        ("# become the user nobody", False),
        ("# Drop privileges: become `nobody`.", False),
        ("# The caller closes it.", False),
    ],
)
def test_the_rules_themselves(line: str, caught: bool) -> None:
    assert bool(faults(iter([(1, line)]), NOT_IN_PROSE | NOT_IN_SOURCE)) == caught
    assert words_of("newcomerList_of_PEERS") == ["newcomer", "list", "of", "peers"]
