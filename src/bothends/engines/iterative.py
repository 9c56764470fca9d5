"""Engine `iterative`: one after another, in one thread, as the first server in every textbook.

    poll(listeners) -> accept() -> recv() -> send() -> recv() -> ... -> close() -> poll(listeners)

While it talks to one peer, the next ones wait in the listener's queue: connected, as far as they can
tell, and without an answer. One idle peer keeps out everybody; an idle limit is the only remedy.
Datagrams are answered between two connections. What it needs is one thread and one descriptor for
whoever is served, and nothing is ever shared.
"""

from __future__ import annotations

from typing import ClassVar

from bothends.engines.acceptor import Acceptor
from bothends.engines.admission import AdmissionControl
from bothends.engines.base import Engine
from bothends.engines.blocking import Watchdog, run_conversation
from bothends.engines.driver import ConversationDriver


class IterativeEngine(Engine):
    """Serves one connection after another; recv() and send() block everything else.

    `limits.when_full` means nothing here: while a peer is served, nobody looks at newcomers, so they
    wait in the queue. And a service that never returns is not to be stopped, there being no other
    thread that `run` could return in.
    """

    name = "iterative"
    summary = "one connection after another: recv() and send() block everything else"
    concurrent = False
    rejects_when_full = False
    why_not: ClassVar = {
        "posts": "it looks at one connection at a time: the others would get what is posted to them "
        "only when their turn has come",
        "turns_away": "while it serves one, it looks at no newcomer",
        "concurrent": "the next connection is served when this one is over",
    }

    def run(self) -> None:
        """Serve until told to stop."""
        context = self.context
        reception = AdmissionControl(context, max_connections=1)
        with (
            Acceptor(context, reception, one_at_a_time=True) as door,
            Watchdog(context.stop, context.limits, on_drain=door.close_listeners_now) as warden,
        ):
            for connection, peer, listener in door.accepted():
                run_conversation(
                    connection, ConversationDriver(context, listener, peer), context.limits, warden
                )
                reception.release(peer)
