"""What cases require of the contract, the run and the program; without it, a case is SKIP. And their points.

The names are those in a case's `requires`; the reasons are shown in reports.

The points that a program can reach depend on the contract and the options of the run, never on the program,
so that marks under one contract can be compared. A case that does not apply to a program, or that this
machine cannot ask, gives its points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from bothends.check.case import Case
from bothends.check.contract import Contract
from bothends.check.oracle import Oracle, SilentOracle
from bothends.check.subjects.interfaces import ProgramUnderTest

_NO_PROCESS: Final = "the server was not started by this command (give its command after --)"

# Name -> the test of the contract, and the reason to skip the case if it fails.
_OF_CONTRACT: Final[dict[str, tuple[Callable[[Contract, Oracle], bool], str]]] = {
    "messages": (
        lambda contract, _oracle: not contract.speaks_first,
        "the contract's clients send nothing",
    ),
    "replies": (
        lambda _contract, oracle: not isinstance(oracle, SilentOracle),
        "the contract's servers never reply",
    ),
    "any message": (
        lambda contract, oracle: oracle.accepts_any_message and not contract.speaks_first,
        "the contract allows a fixed list of messages only",
    ),
    "exact replies": (
        lambda _contract, oracle: oracle.exact_replies,
        "the contract does not define exact replies",
    ),
    "framing": (
        lambda contract, _oracle: contract.framing != "none",
        "the contract has no framing, so messages have no boundaries",
    ),
    "unbounded messages": (
        lambda contract, _oracle: contract.framing in ("lines", "length"),
        "the contract's framing does not allow messages of unlimited length",
    ),
    "splittable messages": (
        lambda contract, oracle: (
            contract.framing != "none"
            or (contract.persistent and oracle.exact_replies and oracle.accepts_any_message)
        ),
        "the contract has no framing: data sent in two pieces may be two messages",
    ),
    "persistent": (
        lambda contract, _oracle: contract.persistent,
        "the contract allows one exchange per connection",
    ),
    "one exchange": (
        lambda contract, _oracle: not contract.persistent,
        "by the contract, the client closes first",
    ),
    "bytes": (
        lambda contract, _oracle: contract.payload == "bytes",
        "the contract's messages are text",
    ),
    "text": (
        lambda contract, _oracle: contract.payload != "ascii",
        "the contract's messages are ASCII",
    ),
    "prints": (
        lambda contract, _oracle: contract.prints,
        "the contract does not require the server to print",
    ),
    "finite reply": (
        lambda contract, _oracle: not contract.endless,
        "the contract's replies never end",
    ),
    "several messages": (
        lambda contract, _oracle: contract.client.several,
        "the contract's clients send one message",
    ),
    "half-close": (
        lambda contract, _oracle: contract.client.half_closes,
        "the contract does not require a half-close",
    ),
    "delimited reply": (
        lambda contract, _oracle: contract.framing != "none" or not contract.persistent,
        "the contract does not define where a reply ends",
    ),
    "TCP": (
        lambda contract, _oracle: contract.transport == "tcp",
        "applies to TCP only",
    ),
    "UDP": (
        lambda contract, _oracle: contract.transport == "udp",
        "applies to UDP only",
    ),
}


# Name -> the test of the program, and the reason to skip the case if it fails.
_OF_PROGRAM: Final[dict[str, tuple[Callable[[ProgramUnderTest[Any]], bool], str]]] = {
    "fixed endpoint": (
        lambda subject: subject.assigns_port or subject.fixed_endpoint is not None,
        "the system picks the server's port, so it cannot be restarted on the same one",
    ),
    "given host": (
        lambda subject: subject.takes_host,
        "the program is not told the server's host",
    ),
}

REQUIREMENTS: Final[dict[str, str]] = {
    "process": _NO_PROCESS,
    **{name: reason for name, (_, reason) in (*_OF_CONTRACT.items(), *_OF_PROGRAM.items())},
}
"""Name -> the reason to skip a case without it."""


def contract_skip_reason(
    case: Case[Any], contract: Contract, oracle: Oracle, *, thorough: bool, spawned: bool = True
) -> str:
    """Return why a case is skipped for every program under a contract, or "" if it is not.

    `thorough`, `spawned`: options of the run: with --thorough, and the checker starts the program.
    """
    if case.id in contract.leave_out:
        return "the contract leaves it out"
    if case.skip:
        return case.skip
    if "process" in case.requires and not spawned:
        return _NO_PROCESS
    for name in case.requires:
        if name in _OF_CONTRACT:
            is_met, reason = _OF_CONTRACT[name]
            if not is_met(contract, oracle):
                return reason
    if case.thorough and not thorough:
        return "takes long or needs many resources: only with --thorough"
    return ""


def program_skip_reason(case: Case[Any], subject: ProgramUnderTest[Any]) -> str:
    """Return why a case does not apply to this program, or "" if it does."""
    for name in case.requires:
        if name in _OF_PROGRAM:
            is_met, reason = _OF_PROGRAM[name]
            if not is_met(subject):
                return reason
    return ""


def possible_points(
    cases: Sequence[Case[Any]], contract: Contract, oracle: Oracle, *, thorough: bool, spawned: bool = True
) -> dict[str, float]:
    """Return the points that any program can reach in each case under a contract, by the case's id."""
    return {
        case.id: 0.0
        if not case.graded or contract_skip_reason(case, contract, oracle, thorough=thorough, spawned=spawned)
        else contract.weight(case.id)
        for case in cases
    }
