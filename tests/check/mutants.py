"""The mutants: programs that are right but for one mistake, each with the cases that must fail for it.

They lie in `mutations/`, a folder for each language, a file for each suite, as changes to a robust starter;
in C and Java only those mistakes that are others there than in Python:

    == the case that must fail: what the mistake is
    contract: another contract than upper-tcp or upper-udp (one of CONTRACTS below)
    engine: another engine than the starter's first
    due: other cases that the same mistake may rightly fail
    -lines of the starter
    +lines that stand in their place

An empty line divides two changes of one mutant, and two mutants.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Final

from bothends.check.contract import Contract, load, parse
from bothends.starters.writing import LANGUAGES, Starter, make_starter

MUTATIONS_DIR: Final = Path(__file__).parent / "mutations"
SUITES: Final = {  # role, transport
    "tcp": ("server", "tcp"),
    "udp": ("server", "udp"),
    "client": ("client", "tcp"),
    "udp-client": ("client", "udp"),
}
_LINE_FRAMING: Final = 'transport = "tcp"\nframing = "lines"\n'
_UPPER_ANSWER: Final = '[answer]\nservice = "upper"\n'
CONTRACTS: Final = {
    "once": f"{_LINE_FRAMING}persistent = false\n{_UPPER_ANSWER}",
    "prints": f"{_LINE_FRAMING}prints = true\n{_UPPER_ANSWER}",
    "half": f"{_LINE_FRAMING}{_UPPER_ANSWER}[client]\nseveral = true\nhalf_closes = true",
}


@dataclass(frozen=True)
class Mutant:
    """One mistake: what it is, the case that shows it, and what is replaced by what."""

    language: str
    suite: str
    case: str
    mistake: str
    headers: dict[str, str]
    edits: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.language}-{self.case}"

    @property
    def role(self) -> str:
        """ "server" or "client"."""
        return SUITES[self.suite][0]

    @property
    def also_fails(self) -> list[str]:
        """The other cases that it may fail."""
        return self.headers.get("due", "").split()

    @property
    def contract(self) -> Contract:
        """The contract that it is judged by."""
        if name := self.headers.get("contract"):
            return parse(CONTRACTS[name], "mutants.py", name, Path())
        return load(f"upper-{SUITES[self.suite][1]}")

    def mutated_starter(self) -> Starter:
        """The starter with the mistake in it."""
        role, transport = SUITES[self.suite]
        made = make_starter(role, self.language, transport, engine=self.headers.get("engine"))
        text = f"\n{made.text}"
        for old, new in self.edits:
            count = text.count(f"\n{old}")
            assert count == 1, f"{self}: these lines stand {count} times in the starter:\n{old}"
            text = text.replace(f"\n{old}", f"\n{new}")
        return replace(made, text=text[1:])


def read_mutants(language: str, suite: str) -> Iterator[Mutant]:
    """The mutants of one file."""
    text = (MUTATIONS_DIR / language / f"{suite}.txt").read_text(encoding="utf-8")
    for part in f"\n{text}".split("\n== ")[1:]:
        lines = part.splitlines()
        case, _, mistake = lines[0].partition(": ")
        heads = dict(line.split(": ", 1) for line in takewhile(lambda line: line[:1] not in "-+", lines[1:]))
        changes = "\n".join(lines[1 + len(heads) :]).split("\n\n")
        edits = tuple(parse_edit(change.splitlines()) for change in changes if change)
        yield Mutant(language, suite, case, mistake, heads, edits)


def parse_edit(lines: list[str]) -> tuple[str, str]:
    """What is replaced by what."""
    old, new = ("".join(f"{line[1:]}\n" for line in lines if line[:1] == sign) for sign in "-+")
    return old, new


MUTANTS: Final = tuple(
    mutant for suite in SUITES for name in LANGUAGES for mutant in read_mutants(name, suite)
)
