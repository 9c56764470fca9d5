"""The suite for clients on UDP and UNIX datagram sockets: the table of its cases."""

from __future__ import annotations

from typing import Final

from bothends.check.case import Case
from bothends.check.subjects.client_under_test import ClientContext
from bothends.check.suites import datagram_client_stimuli as stimuli

CASES: Final[tuple[Case[ClientContext], ...]] = (
    Case(
        id="udp-client-one-message",
        stimulus="one datagram, and its reply",
        expectation="the client prints the reply, and exits with status 0",
        why="All other cases build on this one.",
        likely_cause="prints the whole buffer, or nothing",
        run=stimuli.one_message,
    ),
    Case(
        id="udp-client-lost",
        stimulus="the reply is lost",
        expectation="the client sends the request again, or reports that there was no reply",
        why="Datagrams are lost without an error.",
        likely_cause="waits forever",
        run=stimuli.lost_reply,
    ),
    Case(
        id="udp-client-silent",
        stimulus="a server that never replies, however often the client asks",
        expectation="the client gives up within the contract's time limit, with a status other than 0",
        why="The number of retransmissions must be limited.",
        likely_cause="waits, or retransmits, forever",
        run=stimuli.silent_server,
    ),
    Case(
        id="udp-client-refused",
        stimulus="a port without a socket",
        expectation="the client exits with a status other than 0",
        why="A connected socket reports ECONNREFUSED; on any other socket, the client gets no error.",
        likely_cause="waits forever",
        run=stimuli.port_unreachable,
        requires=("UDP",),
    ),
    Case(
        id="udp-client-twice",
        stimulus="the first reply arrives twice, then the client sends a second message",
        expectation="the second message gets its own reply",
        why="A datagram may be delayed or duplicated.",
        likely_cause="treats the next datagram as the reply",
        run=stimuli.duplicate_reply,
        requires=("several messages", "exact replies"),
    ),
    Case(
        id="udp-client-late",
        stimulus="the client retransmits, both requests get a reply, then the client sends a second message",
        expectation="the second message gets its own reply",
        why="A retransmission may get two replies, if the first was only delayed.",
        likely_cause="treats the next datagram as the reply",
        run=stimuli.late_reply,
        requires=("several messages", "exact replies"),
    ),
    Case(
        id="udp-client-stranger",
        stimulus="a datagram from another sender arrives before the reply",
        expectation="the client ignores it",
        why="Anyone can send to any port; a connected socket receives only from its peer (udp(7)).",
        likely_cause="does not check the sender",
        run=stimuli.reply_from_stranger,
        requires=("UDP",),
    ),
)
