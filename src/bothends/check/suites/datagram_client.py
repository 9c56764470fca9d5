"""The suite for clients on UDP and UNIX datagram sockets: one row a case."""

from __future__ import annotations

from typing import Final

from bothends.check.case import Case
from bothends.check.suites import client_cases as stimuli

CASES: Final = (
    Case(
        id="udp-client-one-message",
        stimulus="one datagram, and its reply",
        expectation="the reply is shown, the exit status 0",
        why="Everything else builds on it.",
        likely_cause="shows the whole buffer, or none of it",
        run=stimuli.datagram_one_message,
    ),
    Case(
        id="udp-client-lost",
        stimulus="the reply is lost",
        expectation="it asks again, or says that no reply came",
        why="UDP loses datagrams, and tells nobody.",
        likely_cause="waits for ever",
        run=stimuli.datagram_lost_reply,
    ),
    Case(
        id="udp-client-silent",
        stimulus="a server that never answers, however often it is asked",
        expectation="it gives up in the time that the contract says, with an exit status other than 0",
        why="Who asks again must stop some time.",
        likely_cause="waits, or asks, for ever",
        run=stimuli.datagram_silent_server,
    ),
    Case(
        id="udp-client-refused",
        stimulus="a port where nobody is",
        expectation="it ends, with an exit status other than 0",
        why="A connected socket is told (ECONNREFUSED); any other waits in vain.",
        likely_cause="waits for ever",
        run=stimuli.datagram_port_unreachable,
        requires=("UDP",),
    ),
    Case(
        id="udp-client-twice",
        stimulus="the first reply comes twice, then a second message is sent",
        expectation="to the second message its own reply",
        why="A datagram may be delayed or come twice.",
        likely_cause="takes the next datagram that comes for the reply",
        run=stimuli.datagram_duplicate_reply,
        requires=("several", "exact replies"),
    ),
    Case(
        id="udp-client-late",
        stimulus="the reply comes when the client has asked again, so that it has two; then a second message",
        expectation="to the second message its own reply",
        why="Who asks again may be answered twice: the first reply was on its way.",
        likely_cause="takes the next datagram that comes for the reply",
        run=stimuli.datagram_late_reply,
        requires=("several", "exact replies"),
    ),
    Case(
        id="udp-client-stranger",
        stimulus="another's datagram comes before the reply",
        expectation="it is ignored",
        why="Anybody can send to any port; a connected socket takes its peer's only (udp(7)).",
        likely_cause="doesn't look at who sent it",
        run=stimuli.datagram_from_stranger,
        requires=("UDP",),
    ),
)
