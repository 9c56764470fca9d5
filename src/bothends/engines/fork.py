"""Engine `fork`: a process for each connection.

    parent:         poll(listeners, children) -> accept() -> fork() -> close() -> poll(...)
    each child:     close(listeners) -> recv() -> send() -> recv() -> ... -> _exit()

The processes share nothing: a conversation may crash, leak memory or be killed without affecting the others.
The costs: a copy of the process for each connection (its page tables, and each page that either process
writes to), and no conversation sees the state of another.
"""

from __future__ import annotations

import errno
import signal
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from bothends.engines.acceptor import AcceptedConnection, Acceptor
from bothends.engines.admission import AdmissionControl
from bothends.engines.base import Engine
from bothends.engines.blocking import Watchdog, run_conversation
from bothends.engines.processes import KILL_GRACE, Child, ChildSet, fork
from bothends.errors import errno_text
from bothends.events import ConnectionRejected, RejectReason


class ChildPerConnection(Engine):
    """Base of the engines that start a process for each connection: `fork` and `command`."""

    kill_delay: ClassVar[float]
    """Seconds from the drain timeout, or an abort, to the first termination signal."""

    termination_signals: ClassVar[Sequence[int]]
    """The signals that the remaining children are sent, KILL_GRACE seconds apart."""

    kill_group: ClassVar[bool] = False
    """Send the signals to the process group that each child leads."""

    @abstractmethod
    def start_child(
        self, accepted: AcceptedConnection, acceptor: Acceptor, children: ChildSet
    ) -> Child | None:
        """Start the process of a connection. The caller then closes this process's copy of the connection.

        Returns: None if the process could not be started because of an error of its own, which the engine has
            reported as an event.

        Raises:
            OSError: a resource is exhausted: processes, memory, descriptors.
        """

    def child_exited(self, accepted: AcceptedConnection, child: Child) -> None:
        """Called when the process of a connection has exited."""

    def run(self) -> None:
        """Serve until asked to stop."""
        admission = AdmissionControl(self.context)
        with Acceptor(self.context, admission) as acceptor:
            children = ChildSet(acceptor.poll_loop, self.context.observe)
            for accepted in acceptor.accepted():
                self._handle_accepted(accepted, acceptor, children, admission)
            drain = self.context.limits.drain
            if not acceptor.poll_loop.run_until(lambda: not children, drain=drain, grace=self.kill_delay):
                for number in self.termination_signals:
                    children.signal(number, groups=self.kill_group)
                    children.wait(None if number == signal.SIGKILL else KILL_GRACE)

    def _handle_accepted(
        self,
        accepted: AcceptedConnection,
        acceptor: Acceptor,
        children: ChildSet,
        admission: AdmissionControl,
    ) -> None:
        def on_exit(child: Child) -> None:
            self.child_exited(accepted, child)
            admission.release(accepted.peer)

        # The kernel sends FIN when the last descriptor of a connection is closed, so close this one early.
        with accepted.connection:
            try:
                child = self.start_child(accepted, acceptor, children)
            except OSError as error:
                admission.release(accepted.peer)
                admission.pause(error.errno or errno.EAGAIN)
                if self.context.observe is not None:
                    reason = f"cannot start a process: {errno_text(error.errno or 0)}"
                    self.context.observe(
                        ConnectionRejected(accepted.peer.address, reason, RejectReason.PROCESS)
                    )
                return
        admission.resume()
        if child is None:
            admission.release(accepted.peer)
        else:
            children.add(child, on_exit)


class ForkEngine(ChildPerConnection):
    """A process for each connection, which blocks in recv() and send().

    Do not call `run` in a process with other threads: see `processes.py`, fact 4. The events of a
    conversation are emitted in its process, so the observer must work after fork().
    """

    name = "fork"
    summary = "a process for each connection, which blocks in recv() and send()"
    datagrams = False
    why_not: ClassVar = {
        "datagrams": "a datagram has no connection to hand to a process: use prefork, or an engine that "
        "waits for readiness",
        "supports_push": "its connections are in different processes, which share nothing, so a push cannot "
        "reach them",
    }

    # Each child applies the drain timeout itself, so only a hung child is still running then.
    kill_delay = KILL_GRACE
    termination_signals = (signal.SIGKILL,)

    def start_child(self, accepted: AcceptedConnection, acceptor: Acceptor, children: ChildSet) -> Child:
        def serve() -> None:
            context = self.context
            children.close_in_child()
            acceptor.close_in_child()
            context.stop.detach_in_child()
            with Watchdog(context.stop, context.limits) as watchdog:
                run_conversation(context, accepted, watchdog)

        return fork("connection", serve)
