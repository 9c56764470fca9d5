"""What a case needs of a contract and of how the server is come by; where that isn't there it is SKIP.

The words stand in the column `asks` of the suites' tables; the reasons are what a report shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bothends.check.case import Case
from bothends.check.contract import Contract
from bothends.check.oracle import Oracle, SilentOracle
from bothends.check.subjects.interfaces import ProgramUnderTest

Requirement = Callable[[Contract, Oracle, ProgramUnderTest], bool]

REQUIREMENTS: Final[dict[str, tuple[Requirement, str]]] = {
    "process": (
        lambda _contract, _answers, target: target.is_spawned,
        "the server isn't ours: it takes one that is started here (a command after --)",
    ),
    "same place": (
        lambda _contract, _answers, target: target.assigns_port or target.fixed_endpoint is not None,
        "the system picks its port, so it can't be started again at the same one",
    ),
    "messages": (
        lambda contract, _answers, _target: not contract.speaks_first,
        "by this contract a client says nothing",
    ),
    "replies": (
        lambda _contract, answers, _target: not isinstance(answers, SilentOracle),
        "by this contract nothing is answered",
    ),
    "any message": (
        lambda contract, answers, _target: answers.accepts_any_message and not contract.speaks_first,
        "the contract has a list of messages, and no others can be asked",
    ),
    "exact replies": (
        lambda _contract, answers, _target: answers.exact_replies,
        "the contract doesn't say to the byte what the reply is",
    ),
    "framing": (
        lambda contract, _answers, _target: contract.framing != "none",
        "the contract has no framing, so nothing says where a message ends",
    ),
    "a length that is open": (
        lambda contract, _answers, _target: contract.framing in ("lines", "length"),
        "by this contract no message can go on for ever",
    ),
    "any cut": (
        lambda contract, answers, _target: (
            contract.framing != "none"
            or (contract.persistent and answers.exact_replies and answers.accepts_any_message)
        ),
        "the contract has no framing: what is sent in two pieces may be two messages",
    ),
    "persistent": (
        lambda contract, _answers, _target: contract.persistent,
        "by this contract a connection carries one exchange",
    ),
    "one exchange": (
        lambda contract, _answers, _target: not contract.persistent,
        "by this contract the client closes first",
    ),
    "bytes": (
        lambda contract, _answers, _target: contract.payload == "bytes",
        "the contract promises text only",
    ),
    "text": (
        lambda contract, _answers, _target: contract.payload != "ascii",
        "the contract promises ASCII only",
    ),
    "prints": (
        lambda contract, _answers, _target: contract.prints,
        "the contract doesn't say that the server prints",
    ),
    "an end": (
        lambda contract, _answers, _target: not contract.endless,
        "by this contract the reply never ends",
    ),
    "several": (
        lambda contract, _answers, _target: contract.client.several,
        "by this contract the client sends one message",
    ),
    "half-closes": (
        lambda contract, _answers, _target: contract.client.half_closes,
        "the contract doesn't ask for it",
    ),
    "an end of the reply": (
        lambda contract, _answers, _target: contract.framing != "none" or not contract.persistent,
        "by this contract nothing says where a reply ends",
    ),
    "TCP": (
        lambda contract, _answers, _target: contract.transport == "tcp",
        "only TCP has this",
    ),
    "UDP": (
        lambda contract, _answers, _target: contract.transport == "udp",
        "only UDP has this",
    ),
}


def skip_reason(
    case: Case, contract: Contract, oracle: Oracle, subject: ProgramUnderTest, thorough: bool
) -> str:
    """Why the case isn't asked; "" if it is."""
    if case.id in contract.leave_out:
        return "the contract leaves it out"
    for name in case.requires:
        able, reason = REQUIREMENTS[name]
        if not able(contract, oracle, subject):
            return reason
    return "takes long or much: only with --thorough" if case.thorough and not thorough else ""
