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

from bothends.engines.acceptor import Door, Newcomer
from bothends.engines.admission import Reception
from bothends.engines.base import Engine
from bothends.engines.blocking import Warden, converse
from bothends.engines.driver import Exchange
from bothends.engines.processes import GRACE, Child, Children, fork
from bothends.errors import errno_text
from bothends.events import Refused, Why


class ChildPerConnection(Engine):
    """Base of the engines that start a process for each connection: fork, and command."""

    patience: ClassVar[float]
    """Seconds between the time when everyone should be gone and the first signal."""

    last_signals: ClassVar[Sequence[int]]
    """What whoever is still there is sent then, one after another."""

    leads_group: ClassVar[bool] = False
    """Each child leads a process group, all of which is meant."""

    @abstractmethod
    def start(self, newcomer: Newcomer, door: Door, children: Children) -> Child | None:
        """Start the process of a connection, which is closed here afterwards. None: it could not be, for
        a reason of its own, which has been told.

        Raises:
            OSError: it could not be, for want of something.
        """

    def ended(self, newcomer: Newcomer, child: Child) -> None:
        """The process of a connection has ended."""

    def run(self) -> None:
        """Serve until told to stop."""
        reception = Reception(self.job)
        with Door(self.job, reception) as door:
            children = Children(door.watch, self.job.observe)
            for newcomer in door.newcomers():
                self._welcome(newcomer, door, children, reception)
            if not door.wait_until(lambda: not children, self.patience):
                for number in self.last_signals:
                    children.signal(number, groups=self.leads_group)
                    children.wait(None if number == signal.SIGKILL else GRACE)

    def _welcome(self, newcomer: Newcomer, door: Door, children: Children, reception: Reception) -> None:
        def leave(child: Child) -> None:
            self.ended(newcomer, child)
            reception.left(newcomer.peer)

        # The peer sees the end of the connection when its last descriptor is closed: ours goes first.
        with newcomer.connection:
            try:
                child = self.start(newcomer, door, children)
            except OSError as error:
                reception.left(newcomer.peer)
                reception.strain(error.errno or errno.EAGAIN)
                if self.job.observe is not None:
                    reason = f"no process for it: {errno_text(error.errno or 0)}"
                    self.job.observe(Refused(newcomer.peer.address, reason, Why.PROCESS))
                return
        reception.relieve()
        if child is None:
            reception.left(newcomer.peer)
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
    patience = GRACE
    last_signals = (signal.SIGKILL,)

    def start(self, newcomer: Newcomer, door: Door, children: Children) -> Child:
        """Fork."""

        def talk() -> None:
            job = self.job
            children.forget()
            door.leave_to_parent()
            job.stop.disown()
            with Warden(job.stop, job.limits) as warden:
                exchange = Exchange(job, newcomer.listener, newcomer.peer)
                converse(newcomer.connection, exchange, job.limits, warden)

        return fork("connection", talk)
