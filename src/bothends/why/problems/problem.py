"""A problem as a value, with its evidence. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict

from bothends.socket_table import SocketEntry


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that keeps programs from making progress, or soon will.

    `kind` is the name of the kind, as users see it. `text`: one or more sentences. `seen`: the evidence as
    it was read. `inferred`: what does not follow from the evidence alone, and from what it was concluded; ""
    if nothing. `remedy`: what ends it, "" if the text says so. `seconds`: how long it has lasted at least, if
    known. `is_wrong` is False for information, which does not affect the exit status. `pids`, `ports` and
    `inodes` say what it concerns.
    """

    kind: str
    text: str
    seen: str
    inferred: str = ""
    remedy: str = ""
    seconds: float | None = None
    is_wrong: bool = True
    pids: frozenset[int] = frozenset()
    ports: frozenset[int] = frozenset()
    inodes: frozenset[int] = frozenset()

    @property
    def certainty(self) -> str:
        """`seen`, or `inferred` if a part of it is a conclusion."""
        return "inferred" if self.inferred else "seen"


class Concerned(TypedDict):
    """The fields of a problem that say what it concerns."""

    pids: frozenset[int]
    ports: frozenset[int]
    inodes: frozenset[int]


def concerns(entries: Iterable[SocketEntry]) -> Concerned:
    """Return the fields `pids`, `ports` and `inodes` of a problem with these sockets."""
    found = list(entries)
    return Concerned(
        pids=frozenset(owner.pid for entry in found for owner in entry.owners),
        ports=frozenset(port for entry in found for port in (entry.local.port, entry.peer.port) if port > 0),
        inodes=frozenset(entry.inode for entry in found if entry.inode),
    )
