"""What cases require of the contract and of the program; without it, a case is SKIP.

The names are those in a case's `requires`; the reasons are shown in reports.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from bothends.check.case import Case
from bothends.check.contract import Contract
from bothends.check.oracle import Oracle, SilentOracle
from bothends.check.subjects.interfaces import ProgramUnderTest

Requirement = Callable[[Contract, Oracle, ProgramUnderTest[Any]], bool]

# Name -> the test, and the reason to skip the case if it fails.
REQUIREMENTS: Final[dict[str, tuple[Requirement, str]]] = {
    "process": (
        lambda _contract, _oracle, subject: subject.is_spawned,
        "the server was not started by this command (give its command after --)",
    ),
    "fixed endpoint": (
        lambda _contract, _oracle, subject: subject.assigns_port or subject.fixed_endpoint is not None,
        "the system picks the server's port, so it cannot be restarted on the same one",
    ),
    "messages": (
        lambda contract, _oracle, _subject: not contract.speaks_first,
        "the contract's clients send nothing",
    ),
    "replies": (
        lambda _contract, oracle, _subject: not isinstance(oracle, SilentOracle),
        "the contract's servers never reply",
    ),
    "any message": (
        lambda contract, oracle, _subject: oracle.accepts_any_message and not contract.speaks_first,
        "the contract allows a fixed list of messages only",
    ),
    "exact replies": (
        lambda _contract, oracle, _subject: oracle.exact_replies,
        "the contract does not define exact replies",
    ),
    "framing": (
        lambda contract, _oracle, _subject: contract.framing != "none",
        "the contract has no framing, so messages have no boundaries",
    ),
    "unbounded messages": (
        lambda contract, _oracle, _subject: contract.framing in ("lines", "length"),
        "the contract's framing does not allow messages of unlimited length",
    ),
    "splittable messages": (
        lambda contract, oracle, _subject: (
            contract.framing != "none"
            or (contract.persistent and oracle.exact_replies and oracle.accepts_any_message)
        ),
        "the contract has no framing: data sent in two pieces may be two messages",
    ),
    "persistent": (
        lambda contract, _oracle, _subject: contract.persistent,
        "the contract allows one exchange per connection",
    ),
    "one exchange": (
        lambda contract, _oracle, _subject: not contract.persistent,
        "by the contract, the client closes first",
    ),
    "bytes": (
        lambda contract, _oracle, _subject: contract.payload == "bytes",
        "the contract's messages are text",
    ),
    "text": (
        lambda contract, _oracle, _subject: contract.payload != "ascii",
        "the contract's messages are ASCII",
    ),
    "prints": (
        lambda contract, _oracle, _subject: contract.prints,
        "the contract does not require the server to print",
    ),
    "finite reply": (
        lambda contract, _oracle, _subject: not contract.endless,
        "the contract's replies never end",
    ),
    "several messages": (
        lambda contract, _oracle, _subject: contract.client.several,
        "the contract's clients send one message",
    ),
    "half-close": (
        lambda contract, _oracle, _subject: contract.client.half_closes,
        "the contract does not require a half-close",
    ),
    "delimited reply": (
        lambda contract, _oracle, _subject: contract.framing != "none" or not contract.persistent,
        "the contract does not define where a reply ends",
    ),
    "TCP": (
        lambda contract, _oracle, _subject: contract.transport == "tcp",
        "applies to TCP only",
    ),
    "UDP": (
        lambda contract, _oracle, _subject: contract.transport == "udp",
        "applies to UDP only",
    ),
}


def skip_reason(
    case: Case[Any], contract: Contract, oracle: Oracle, subject: ProgramUnderTest[Any], thorough: bool
) -> str:
    """Return why a case is skipped, or "" if it is to run."""
    if case.id in contract.leave_out:
        return "the contract leaves it out"
    for name in case.requires:
        is_met, reason = REQUIREMENTS[name]
        if not is_met(contract, oracle, subject):
            return reason
    return (
        "takes long or needs many resources: only with --thorough" if case.thorough and not thorough else ""
    )
