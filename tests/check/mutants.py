"""The mutants: programs that are right but for one mistake, each with the cases that must fail for it.

They lie in `mutations/`, a file for each suite, as changes to a robust starter in Python:

    == the case that must fail: what the mistake is
    contract: another contract than upper-tcp or upper-udp (one of CONTRACTS below)
    due: other cases that the same mistake may rightly fail
    -lines of the starter
    +lines that stand in their place

An empty line divides two changes of one mutant, and two mutants.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final

from bothends.check.contract import Contract, load, parse
from bothends.starters.writing import starter

FOLDER: Final = Path(__file__).parent / "mutations"
SUITES: Final = {  # role, transport
    "tcp": ("server", "tcp"),
    "udp": ("server", "udp"),
    "client": ("client", "tcp"),
    "udp-client": ("client", "udp"),
}
_LINES: Final = 'transport = "tcp"\nframing = "lines"\n'
_UPPER: Final = '[answer]\nservice = "upper"\n'
CONTRACTS: Final = {
    "once": f"{_LINES}persistent = false\n{_UPPER}",
    "prints": f"{_LINES}prints = true\n{_UPPER}",
    "half": f"{_LINES}{_UPPER}[client]\nseveral = true\nhalf_closes = true",
}


@dataclass(frozen=True)
class Mutant:
    """One mistake: what it is, the case that shows it, and what is replaced by what."""

    suite: str
    case: str
    mistake: str
    contract: str
    due: tuple[str, ...]
    edits: tuple[tuple[str, str], ...]

    @property
    def role(self) -> str:
        """ "server" or "client"."""
        return SUITES[self.suite][0]

    @property
    def agreed(self) -> Contract:
        """The contract that it is judged by."""
        if self.contract:
            return parse(CONTRACTS[self.contract], "mutants.py", self.contract, Path())
        return load(f"upper-{SUITES[self.suite][1]}")

    def text(self) -> str:
        """The program."""
        role, transport = SUITES[self.suite]
        text = starter(role, "python", transport).text
        for old, new in self.edits:
            count = f"\n{text}".count(f"\n{old}")
            assert count == 1, f"{self.case}: these lines stand {count} times in the starter:\n{old}"
            text = f"\n{text}".replace(f"\n{old}", f"\n{new}")[1:]
        return text


def read(suite: str) -> Iterator[Mutant]:
    """The mutants of one file."""
    text = (FOLDER / f"{suite}.txt").read_text(encoding="utf-8")
    for part in f"\n{text}".split("\n== ")[1:]:
        lines = part.splitlines()
        case, _, mistake = lines[0].partition(": ")
        heads = dict(line.split(": ", 1) for line in takewhile(lambda line: line[:1] not in "-+", lines[1:]))
        changes = "\n".join(lines[1 + len(heads) :]).split("\n\n")
        edits = tuple(edit_of(change.splitlines()) for change in changes if change)
        yield Mutant(
            suite, case, mistake, heads.get("contract", ""), tuple(heads.get("due", "").split()), edits
        )


def edit_of(lines: list[str]) -> tuple[str, str]:
    """What is replaced by what."""
    old, new = ("".join(f"{line[1:]}\n" for line in lines if line[:1] == sign) for sign in "-+")
    return old, new


MUTANTS: Final = tuple(mutant for suite in SUITES for mutant in read(suite))
