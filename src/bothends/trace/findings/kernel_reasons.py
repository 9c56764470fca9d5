"""Confirm findings with the kernel's own reasons. Pure.

1. An event of the kernel at a socket or a packet of a finding shows what a rule infers from calls and
   packets.
2. Without events, a counter of the machine that grew during the run makes a finding likelier, and no more.
3. No finding rests on the kernel's events alone: they need root, and findings should not depend on that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, NamedTuple

from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.model import KernelEvent, KernelEventKind
from bothends.trace.rendering.kernel_text import reason_text

MAX_EVIDENCE: Final = 2  # events of the kernel in a finding


class Confirmation(NamedTuple):
    """The events of the kernel that confirm a finding; or a counter, which confirms it less.

    `proves`: such an event shows what the finding infers. `is_count`: the counter says how often, so it is
    added to a finding that is certain, too.
    """

    kind: KernelEventKind
    reasons: frozenset[str]
    counter: str = ""
    counted: str = ""
    proves: bool = True
    is_count: bool = False


_NO_PORT: Final = Confirmation("drop", frozenset({"NO_SOCKET"}), proves=False)
_REFUSED: Final = Confirmation("reset-sent", frozenset({"NO_SOCKET"}), proves=False)

# What confirms the findings of a rule.
CONFIRMATIONS: Final[dict[str, Confirmation]] = {
    "receive-buffer-full": Confirmation(
        "drop",
        frozenset({"SOCKET_RCVBUFF", "PROTO_MEM"}),
        "UdpRcvbufErrors",
        "datagrams dropped because a receive buffer was full",
    ),
    "backlog-overflow": Confirmation(
        "drop",
        frozenset({"TCP_LISTEN_OVERFLOW"}),
        "TcpExtListenOverflows",
        "packets dropped because an accept queue was full",
        is_count=True,
    ),
    "closed-with-unread-data": Confirmation(
        "reset-sent",
        frozenset({"TCP_ABORT_ON_CLOSE"}),
        "TcpExtTCPAbortOnClose",
        "connections reset because they were closed with unread data",
    ),
    "linger-zero": Confirmation("reset-sent", frozenset({"TCP_ABORT_ON_LINGER", "TCP_ABORT_ON_CLOSE"})),
    "write-after-close": Confirmation(
        "reset-sent", frozenset({"TCP_ABORT_ON_DATA", "TCP_ABORT_ON_CLOSE", "NO_SOCKET"}), proves=False
    ),
    "udp-port-unreachable": _NO_PORT,
    "udp-receiver-gone": _NO_PORT,
    "udp-too-early": _NO_PORT,
    "udp-wrong-address": _NO_PORT,
    "udp-other-port": _NO_PORT,
    "refused": _REFUSED,
    "refused-too-early": _REFUSED,
    "refused-after-close": _REFUSED,
    "refused-elsewhere": _REFUSED,
    "refused-other-port": _REFUSED,
}


def confirm(finding: Finding, trace_index: TraceIndex) -> Finding:
    """Add the kernel's reason to a finding, where it gave one."""
    confirmation = CONFIRMATIONS.get(finding.rule)
    if confirmation is None:
        return finding
    events = [
        each
        for each in _events_of(finding, trace_index)
        if each.kind == confirmation.kind and each.reason in confirmation.reasons
    ]
    if events:
        certain = {"certainty": "seen", "basis": ""} if confirmation.proves else {}
        evidence = (*finding.evidence, *(each.number for each in events[:MAX_EVIDENCE]))
        text = f"{finding.text} {_sentence(events)}"
        return replace(finding, text=text, evidence=evidence, **certain)  # type: ignore[arg-type]
    count = trace_index.trace.counters.get(confirmation.counter, 0)
    counted = f"on this machine the kernel counted {count:,} {confirmation.counted} ({confirmation.counter})"
    if count and confirmation.is_count and finding.certainty == "seen":
        return replace(finding, text=f"{finding.text} During the run, {counted}.")
    if not count or finding.certainty == "seen":
        return finding
    return replace(finding, basis="; ".join(filter(None, (finding.basis, counted))))


def _sentence(events: list[KernelEvent]) -> str:
    reason, count = Counter(map(reason_text, events)).most_common(1)[0]
    if events[0].kind == "reset-sent":
        return f"The kernel sent the RST because {reason}."
    what = "datagram" if events[0].protocol == "udp" else "segment"
    packets = f"the {what}" if count == 1 else f"{count:,} {what}s"
    return f"The kernel dropped {packets}: {reason}."


def _events_of(finding: Finding, trace_index: TraceIndex) -> Iterator[KernelEvent]:
    """Return the events of the kernel that concern the packets or the sockets of a finding."""
    packets, sockets = set(finding.evidence), set(finding.sockets)
    for number in finding.evidence:
        call = trace_index.trace.event(number)
        socket = getattr(call, "socket", None)
        if isinstance(socket, int):
            sockets.add(socket)
    for event in trace_index.kernel_events:
        if event.packet in packets or event.socket in sockets:
            yield event
