"""Mutants: robust starters with one mistake each, and the cases that must fail because of it.

They are edits of a robust starter in `mutations/`, or of a forwarder in `proxies/programs/` for the suites of
proxies, with a folder for each language and a file for each suite.
C and Java have only mistakes that are made in another way than in Python:

    == CASE: MISTAKE          the case that must fail, and the mistake
    contract: NAME            a contract other than upper-tcp or upper-udp (one of CONTRACTS below)
    engine: NAME              an engine other than the starter's default
    due: CASE...              other cases that may fail because of the same mistake; may be repeated
    -lines of the starter
    +lines that replace them

An empty line separates two edits of a mutant, and two mutants.
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
FORWARDERS_DIR: Final = Path(__file__).parent / "proxies" / "programs"
SUITES: Final = {  # role, transport
    "tcp": ("server", "tcp"),
    "udp": ("server", "udp"),
    "client": ("client", "tcp"),
    "udp-client": ("client", "udp"),
    "proxy": ("proxy", "tcp"),
    "udp-proxy": ("proxy", "udp"),
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
    """A starter with one mistake, and the case that must fail. `edits`: pairs of old and new lines."""

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
        """ "server", "client" or "proxy"."""
        return SUITES[self.suite][0]

    @property
    def also_fails(self) -> list[str]:
        """The other cases that may fail."""
        return self.headers.get("due", "").split()

    @property
    def contract(self) -> Contract:
        """The contract to judge it by."""
        if name := self.headers.get("contract"):
            return parse(CONTRACTS[name], "mutants.py", name, Path())
        return load(f"upper-{SUITES[self.suite][1]}")

    def mutated_starter(self) -> Starter:
        """Return the starter with the mistake in it."""
        role, transport = SUITES[self.suite]
        if role == "proxy":
            starter = forwarder("datagrams" if transport == "udp" else self.headers.get("engine", "threads"))
        else:
            starter = make_starter(role, self.language, transport, engine=self.headers.get("engine"))
        text = f"\n{starter.text}"
        for old, new in self.edits:
            count = text.count(f"\n{old}")
            assert count == 1, f"{self}: these lines occur {count} times in the starter:\n{old}"
            text = text.replace(f"\n{old}", f"\n{new}")
        return replace(starter, text=text[1:])


def forwarder(name: str) -> Starter:
    """Return a forwarder without mistakes: "threads", "events" or "datagrams"."""
    path = FORWARDERS_DIR / f"forwarder_{name}.py"
    words = ("python3", path.name, "{port}", "{upstream_host}", "{upstream_port}")
    return Starter(path.name, path.read_text(encoding="utf-8"), (), words)


def read_mutants(language: str, suite: str) -> Iterator[Mutant]:
    """Yield the mutants of one file."""
    path = MUTATIONS_DIR / language / f"{suite}.txt"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for part in f"\n{text}".split("\n== ")[1:]:
        lines = part.splitlines()
        case, _, mistake = lines[0].partition(": ")
        headers: dict[str, str] = {}
        header_lines = list(takewhile(lambda line: line[:1] not in "-+", lines[1:]))
        for line in header_lines:
            name, _, value = line.partition(": ")
            headers[name] = f"{headers[name]} {value}" if name in headers else value
        changes = "\n".join(lines[1 + len(header_lines) :]).split("\n\n")
        edits = tuple(parse_edit(change.splitlines()) for change in changes if change)
        yield Mutant(language, suite, case, mistake, headers, edits)


def parse_edit(lines: list[str]) -> tuple[str, str]:
    """Return the removed lines and the added lines."""
    old, new = ("".join(f"{line[1:]}\n" for line in lines if line[:1] == sign) for sign in "-+")
    return old, new


MUTANTS: Final = tuple(
    mutant for suite in SUITES for name in LANGUAGES for mutant in read_mutants(name, suite)
)
