"""The suites: a literal table, and the choice of the suite for a contract."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Final, Literal

from bothends import suggest
from bothends.check.case import Case
from bothends.check.contract import Contract
from bothends.check.scenes.client_cases import client_cases
from bothends.check.scenes.server_cases import server_cases
from bothends.errors import UnknownName, UsageError

# Name -> the module with its CASES, and a summary.
SUITES: Final[dict[str, tuple[str, str]]] = {
    "tcp": ("bothends.check.suites.stream_server_table", "servers on TCP and UNIX streams"),
    "udp": ("bothends.check.suites.datagram_server_table", "servers on UDP and UNIX datagram sockets"),
    "client": ("bothends.check.suites.stream_client_table", "clients on TCP and UNIX streams"),
    "udp-client": ("bothends.check.suites.datagram_client_table", "clients on UDP and UNIX datagram sockets"),
    "proxy": ("bothends.check.suites.proxies.stream_table", "proxies of TCP streams"),
    "udp-proxy": ("bothends.check.suites.proxies.datagram_table", "proxies of UDP datagrams"),
}


def cases(suite: str, contract: Contract | None = None) -> tuple[Case[Any], ...]:
    """Return the cases of a suite, with those of the contract's scenes.

    Without `[answer]`, a contract has those of its scenes only.

    Raises:
        UnknownName: there is no such suite.
    """
    if suite not in SUITES:
        nearest = suggest.nearest(suite, SUITES)
        raise UnknownName("suite", suite, nearest, f"use {', '.join(SUITES)}")
    found: tuple[Case[Any], ...] = importlib.import_module(SUITES[suite][0]).CASES
    if contract is None or not contract.scene:
        return found
    return (*(found if contract.has_answer else ()), *_scene_cases(suite, contract))


def _scene_cases(suite: str, contract: Contract) -> tuple[Case[Any], ...]:
    return server_cases(contract) if suite in ("tcp", "udp") else client_cases(contract)


def suite_for(contract: Contract, role: Literal["server", "client"]) -> str:
    """Return the name of the suite for a server or a client under a contract.

    Raises:
        UnknownName: the contract names an unknown case.
        UsageError: the contract is for servers only.
    """
    for name in (*contract.relax, *contract.leave_out, *contract.weights):
        find_case(name, contract)
    if role == "client" and contract.endless:
        raise UsageError(
            f"{contract.name} is for servers only: its reply never ends, so no client would exit"
        )
    return _suite_name(contract, role)


def check_selection(contract: Contract, suite: str, only: Sequence[str]) -> None:
    """Check that cases belong to a suite under a contract.

    Raises:
        UnknownName: there is no such case.
        UsageError: it belongs to another suite, or needs what the contract does not have.
    """
    known = {case.id for case in cases(suite, contract)}
    for case_id in only:
        if case_id in known:
            continue
        other, _ = find_case(case_id, contract)
        if other == suite:
            raise UsageError(f"{case_id} needs [answer] in the contract, which has scenes only")
        raise UsageError(f"{case_id} is a case of suite {other!r}, and {suite!r} is asked for")


def _suite_name(contract: Contract, role: Literal["server", "client"]) -> str:
    if role == "server":
        return "udp" if contract.is_datagram else "tcp"
    return "udp-client" if contract.is_datagram else "client"


def find_case(case_id: str, contract: Contract | None = None) -> tuple[str, Case[Any]]:
    """Return the suite's name and the case with this id, from any suite or the contract's scenes.

    Raises:
        UnknownName: there is no such case.
    """
    by_id = {case.id: (suite, case) for suite in SUITES for case in cases(suite)}
    if contract is not None:
        role: Literal["server", "client"]
        for role in ("client", "server"):
            suite = _suite_name(contract, role)
            by_id |= {case.id: (suite, case) for case in _scene_cases(suite, contract)}
    if case_id not in by_id:
        nearest = suggest.nearest(case_id, by_id)
        raise UnknownName("case", case_id, nearest, "`bothends check list` lists them")
    return by_id[case_id]
