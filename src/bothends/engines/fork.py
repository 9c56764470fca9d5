"""Engine `fork`: a process for each connection.

    parent:         poll(listeners, children) -> accept() -> fork() -> close() -> poll(...)
    each child:     close(listeners) -> recv() -> send() -> recv() -> ... -> _exit()

Nothing is shared, so nothing can be corrupted: a conversation may crash, leak or be killed, and the
others don't notice. That costs a copy of the process for each connection (its page tables, and
every page that either of the two writes to), and what one conversation learns, no other ever hears.
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
from bothends.engines.driver import ConversationDriver
from bothends.engines.processes import KILL_GRACE, Child, ChildSet, fork
from bothends.errors import errno_text
from bothends.events import ConnectionRejected, RejectReason


class ChildPerConnection(Engine):
    """Base of the engines that start a process for each connection: fork, and command."""

    kill_delay: ClassVar[float]
    """Seconds between the time when everyone should be gone and the first signal."""

    termination_signals: ClassVar[Sequence[int]]
    """What whoever is still there is sent then, one after another."""

    kill_group: ClassVar[bool] = False
    """Each child leads a process group, all of which is meant."""

    @abstractmethod
    def start_child(
        self, accepted: AcceptedConnection, acceptor: Acceptor, children: ChildSet
    ) -> Child | None:
        """Start the process of a connection, which is closed here afterwards. None: it could not be, for
        a reason of its own, which has been told.

        Raises:
            OSError: it could not be, for want of something.
        """

    def child_exited(self, accepted: AcceptedConnection, child: Child) -> None:
        """The process of a connection has ended."""

    def run(self) -> None:
        """Serve until told to stop."""
        reception = AdmissionControl(self.context)
        with Acceptor(self.context, reception) as door:
            children = ChildSet(door.poll_loop, self.context.observe)
            for newcomer in door.accepted():
                self._handle_accepted(newcomer, door, children, reception)
            if not door.run_until(lambda: not children, self.kill_delay):
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
        def leave(child: Child) -> None:
            self.child_exited(accepted, child)
            admission.release(accepted.peer)

        # The peer sees the end of the connection when its last descriptor is closed: ours goes first.
        with accepted.connection:
            try:
                child = self.start_child(accepted, acceptor, children)
            except OSError as error:
                admission.release(accepted.peer)
                admission.pause(error.errno or errno.EAGAIN)
                if self.context.observe is not None:
                    reason = f"no process for it: {errno_text(error.errno or 0)}"
                    self.context.observe(
                        ConnectionRejected(accepted.peer.address, reason, RejectReason.PROCESS)
                    )
                return
        admission.resume()
        if child is None:
            admission.release(accepted.peer)
        else:
            children.add(child, leave)


class ForkEngine(ChildPerConnection):
    """Gives each connection a process, which blocks in recv() and send().

    `run` must not be called where other threads run: see `processes.py`, fact 4. Events of a
    conversation are told in its process; the observer must be able to stand that.
    """

    name = "fork"
    summary = "a process for each connection, which blocks in recv() and send()"
    datagrams = False
    why_not: ClassVar = {
        "datagrams": "a datagram has no connection to hand to a process: use prefork, or an engine that "
        "waits for readiness",
        "posts": "its connections are in different processes, which share nothing: who posts does not "
        "reach them",
    }

    # The children know the time as well as we do, and cut their conversations off by themselves.
    kill_delay = KILL_GRACE
    termination_signals = (signal.SIGKILL,)

    def start_child(self, accepted: AcceptedConnection, acceptor: Acceptor, children: ChildSet) -> Child:
        """Fork."""

        def talk() -> None:
            context = self.context
            children.close_in_child()
            acceptor.close_in_child()
            context.stop.detach_in_child()
            with Watchdog(context.stop, context.limits) as warden:
                exchange = ConversationDriver(context, accepted.listener, accepted.peer)
                run_conversation(accepted.connection, exchange, context.limits, warden)

        return fork("connection", talk)
