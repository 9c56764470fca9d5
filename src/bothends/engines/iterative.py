"""Engine `iterative`: one connection after another, in one thread, as the first server in every textbook.

    poll(listeners) -> accept() -> recv() -> send() -> recv() -> ... -> close() -> poll(listeners)

While it serves one peer, the next ones wait in the accept queue: they are connected, but get no answer. One
idle peer blocks all others, which only an idle timeout can prevent. Datagrams are answered between two
connections. It needs one thread and one descriptor for the current connection, and shares no state.
"""

from __future__ import annotations

from typing import ClassVar

from bothends.engines.acceptor import Acceptor
from bothends.engines.admission import AdmissionControl
from bothends.engines.base import Engine
from bothends.engines.blocking import Watchdog, run_conversation


class IterativeEngine(Engine):
    """Serves one connection after another; recv() and send() block everything else.

    `limits.when_full` has no effect: while a peer is served, this engine accepts no connections, so they wait
    in the accept queue. A service that never returns cannot be stopped, because it runs in the thread of
    `run`.
    """

    name = "iterative"
    summary = "one connection after another: recv() and send() block everything else"
    concurrent = False
    rejects_when_full = False
    why_not: ClassVar = {
        "supports_push": "it serves one connection at a time, so the others would receive a push only when "
        "their turn has come",
        "rejects_when_full": "while it serves one connection, it accepts no other",
        "concurrent": "it serves the next connection when the current one is closed",
    }

    def run(self) -> None:
        """Serve until asked to stop."""
        context = self.context
        admission = AdmissionControl(context, max_connections=1)
        with (
            Acceptor(context, admission, one_at_a_time=True) as acceptor,
            Watchdog(context.stop, context.limits, on_drain=acceptor.close_listeners_now) as watchdog,
        ):
            for accepted in acceptor.accepted():
                run_conversation(context, accepted, watchdog)
                admission.release(accepted.peer)
