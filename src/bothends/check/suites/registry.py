"""Which suites there are: a literal table, and the way from a contract to its suite."""

from __future__ import annotations

import importlib
from typing import Final, Literal

from bothends import suggest
from bothends.check.case import Case
from bothends.check.contract import Contract
from bothends.errors import UnknownName, UsageError

# Name -> module whose CASES it is, and one line.
SUITES: Final[dict[str, tuple[str, str]]] = {
    "tcp": ("bothends.check.suites.stream_server", "servers on TCP and UNIX streams"),
    "udp": ("bothends.check.suites.datagram_server", "servers on UDP and UNIX datagram sockets"),
    "client": ("bothends.check.suites.stream_client", "clients on TCP and UNIX streams"),
    "udp-client": ("bothends.check.suites.datagram_client", "clients on UDP and UNIX datagram sockets"),
}


def cases(suite: str) -> tuple[Case, ...]:
    """The cases of a suite. Raises UnknownName."""
    if suite not in SUITES:
        nearest = suggest.nearest(suite, SUITES)
        raise UnknownName("suite", suite, nearest, f"there are {', '.join(SUITES)}")
    found: tuple[Case, ...] = importlib.import_module(SUITES[suite][0]).CASES
    return found


def suite_for(contract: Contract, role: Literal["server", "client"]) -> str:
    """The suite that judges a server or a client under this contract.

    Raises:
        UnknownName: the contract names a case that there isn't.
        CallerError: no client can be judged by it.
    """
    for name in (*contract.relax, *contract.leave_out, *contract.weights):
        find_case(name)
    if role == "server":
        return "udp" if contract.is_datagram else "tcp"
    if contract.endless:
        raise UsageError(
            f"by {contract.name} the reply never ends, so no client is ever done: it is for servers"
        )
    return "udp-client" if contract.is_datagram else "client"


def find_case(case_id: str) -> tuple[str, Case]:
    """A case of any suite, and the suite. Raises UnknownName."""
    every = {case.id: (suite, case) for suite in SUITES for case in cases(suite)}
    if case_id not in every:
        nearest = suggest.nearest(case_id, every)
        raise UnknownName("case", case_id, nearest, "`bothends check list` lists them")
    return every[case_id]
