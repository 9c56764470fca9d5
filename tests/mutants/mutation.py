"""A mutation of the project's source: one edit, and the tests that should fail because of it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]

FACTS_HEADER: Final = "What the kernel does"
_FACT: Final = re.compile(r"^(?: \*)? ?(\d+)\. ", re.MULTILINE)


class StaleMutation(Exception):
    """A mutation does not fit the source: its text is not found exactly once."""


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """One edit of one file.

    `name`        unique, as `engines-restart-pause-grows-only`.
    `file`        relative to the root.
    `old`, `new`  exact text, found once in the file, and its replacement.
    `breaks`      what the mutant does wrong, as its user sees it.
    `tests`       files or node ids, separated by white space: at least one test of them should fail.
    `slow`        the tests named include slow ones.
    `facts`       numbers of the facts below `What the kernel does` in this file that the code follows from.
    """

    name: str
    file: str
    old: str
    new: str
    breaks: str
    tests: str
    slow: bool = False
    facts: tuple[int, ...] = ()

    @property
    def package(self) -> str:
        """The package or module right below `bothends`; `native` for C."""
        parts = Path(self.file).parts
        return parts[0] if parts[0] == "native" else Path(parts[2]).stem

    @property
    def is_native(self) -> bool:
        """Whether the extensions must be built again."""
        return self.package == "native"

    def apply(self, text: str) -> str:
        """Return the text of the file with the edit. Raises StaleMutation."""
        if (count := text.count(self.old)) != 1:
            raise StaleMutation(f"{self.name}: the text is found {count} times in {self.file}, not once")
        return text.replace(self.old, self.new)


def stated_facts(text: str) -> set[int]:
    """Return the numbers of the facts that a file states below `What the kernel does`; none without it."""
    _, header, rest = text.partition(FACTS_HEADER)
    paragraphs = re.split(r"\n(?: \*)?\n", rest, maxsplit=2)
    if not header or len(paragraphs) < 2:
        return set()
    return {int(number) for number in _FACT.findall(paragraphs[1])}
