"""Engines with one bug each: a correct engine with a modified context. The suite must detect each bug."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable
from typing import cast

from bothends.engines import admission, connection_state, nonblocking
from bothends.engines.base import EngineContext
from bothends.engines.epoll import EpollEngine
from bothends.engines.shutdown import ShutdownFlags
from bothends.events import Closed, CloseReason, Event
from bothends.services.base import Conversation, Peer, Push, Service


class FaultyService(Service):
    """Forwards all calls. Subclasses change one of them."""

    def __init__(self, inner: Service) -> None:
        self.inner = inner
        self.pushes = inner.pushes

    def open(self, peer: Peer, push: Push) -> Conversation:
        return self.inner.open(peer, push)

    def answer(self, datagram: bytes, peer: Peer) -> bytes | None:
        return self.inner.answer(datagram, peer)


class FaultyConversation(Conversation):
    def __init__(self, inner: Conversation) -> None:
        self.inner = inner

    def copy_state(self, data: bytes) -> bytes:
        self.done, self.failure = self.inner.done, self.inner.failure
        return data

    def start(self) -> bytes:
        return self.copy_state(self.inner.start())

    def receive(self, data: bytes) -> bytes:
        return self.copy_state(self.inner.receive(data))

    def end(self) -> bytes:
        return self.copy_state(self.inner.end())

    def closed(self) -> None:
        self.inner.closed()


class FaultyEngine(EpollEngine):
    """A correct engine, with a context that `modify` may change."""

    def __init__(self, context: EngineContext) -> None:
        super().__init__(self.modify(context))

    def modify(self, context: EngineContext) -> EngineContext:
        return context


class ClosesOnHalfClose(FaultyEngine):
    def modify(self, context: EngineContext) -> EngineContext:
        class DoneAtEof(FaultyConversation):
            def end(self) -> bytes:
                self.done = True
                return b""

        class DoneAtEofService(FaultyService):
            def open(self, peer: Peer, push: Push) -> Conversation:
                return DoneAtEof(self.inner.open(peer, push))

        return dataclasses.replace(context, service=DoneAtEofService(context.service))


class OneReadIsOneMessage(FaultyEngine):
    def modify(self, context: EngineContext) -> EngineContext:
        class Naive(FaultyConversation):
            def receive(self, data: bytes) -> bytes:
                return data.strip().upper() + b"\n"

        class NaiveService(FaultyService):
            def open(self, peer: Peer, push: Push) -> Conversation:
                return Naive(self.inner.open(peer, push))

        return dataclasses.replace(context, service=NaiveService(context.service))


class SharesOneConversation(FaultyEngine):
    def modify(self, context: EngineContext) -> EngineContext:
        class Shared(FaultyService):
            shared: Conversation | None = None

            def open(self, peer: Peer, push: Push) -> Conversation:
                self.shared = self.shared or self.inner.open(peer, push)
                return self.shared

        return dataclasses.replace(context, service=Shared(context.service))


class ExitsOnServiceError(FaultyEngine):
    def modify(self, context: EngineContext) -> EngineContext:
        class Fatal(FaultyConversation):
            def receive(self, data: bytes) -> bytes:
                try:
                    return super().receive(data)
                except Exception as error:
                    raise SystemExit(3) from error

        class FatalService(FaultyService):
            def open(self, peer: Peer, push: Push) -> Conversation:
                return Fatal(self.inner.open(peer, push))

        return dataclasses.replace(context, service=FatalService(context.service))


class QueuesWithoutBound(FaultyEngine):
    def modify(self, context: EngineContext) -> EngineContext:
        return dataclasses.replace(context, limits=dataclasses.replace(context.limits, unsent=1 << 40))


class DoesNotLinger(FaultyEngine):
    def modify(self, context: EngineContext) -> EngineContext:
        return dataclasses.replace(context, limits=dataclasses.replace(context.limits, linger=0.0))


class IgnoresIdleLimit(FaultyEngine):
    def modify(self, context: EngineContext) -> EngineContext:
        return dataclasses.replace(context, limits=dataclasses.replace(context.limits, idle=None))


class IgnoresConnectionLimit(FaultyEngine):
    def modify(self, context: EngineContext) -> EngineContext:
        return dataclasses.replace(context, limits=dataclasses.replace(context.limits, connections=None))


class IgnoresDrain(FaultyEngine):
    def modify(self, context: EngineContext) -> EngineContext:
        return dataclasses.replace(context, stop=ShutdownFlags())


class NeverResets(FaultyEngine):
    def run(self) -> None:
        vars(nonblocking)["reset_on_close"] = id  # does nothing
        super().run()


class AlwaysResets(FaultyEngine):
    def run(self) -> None:
        for key, (state, action) in list(connection_state.TRANSITIONS.items()):
            if action is connection_state.Action.CLOSE:
                table = cast(dict[object, object], connection_state.TRANSITIONS)
                table[key] = state, connection_state.Action.RESET
        super().run()


class ReportsWrongCause(FaultyEngine):
    def modify(self, context: EngineContext) -> EngineContext:
        def observe_wrong_cause(event: Event) -> None:
            if isinstance(event, Closed):
                event = dataclasses.replace(event, cause=CloseReason.PEER)
            observe(event)

        observe: Callable[[Event], None] = context.observe or (lambda _event: None)
        return dataclasses.replace(context, observe=observe_wrong_cause)


class SpinsOnEmfile(FaultyEngine):
    def run(self) -> None:
        admission.ACCEPT_PAUSE = 0.0  # type: ignore[misc]
        super().run()


class SpinsWhenIdle(FaultyEngine):
    def run(self) -> None:
        parent = os.getpid()
        if os.fork() == 0:
            while os.getppid() == parent:
                pass
            os._exit(0)
        super().run()


class DropsEmptyDatagrams(FaultyEngine):
    def modify(self, context: EngineContext) -> EngineContext:
        class Dropping(FaultyService):
            def answer(self, datagram: bytes, peer: Peer) -> bytes | None:
                return super().answer(datagram, peer) if datagram else None

        return dataclasses.replace(context, service=Dropping(context.service))


class PushesOnlyOnReceive(FaultyEngine):
    def modify(self, context: EngineContext) -> EngineContext:
        class Late(FaultyConversation):
            def __init__(self, service: Service, peer: Peer) -> None:
                self.waiting: list[bytes] = []
                super().__init__(service.open(peer, self.waiting.append))

            def receive(self, data: bytes) -> bytes:
                late, self.waiting[:] = b"".join(self.waiting), []
                return late + super().receive(data)

        class LateService(FaultyService):
            def open(self, peer: Peer, push: Push) -> Conversation:
                return Late(self.inner, peer)

        return dataclasses.replace(context, service=LateService(context.service))


class LeaksDescriptor(FaultyEngine):
    def run(self) -> None:
        super().run()
        os.dup(0)


class LeaksProcess(FaultyEngine):
    def run(self) -> None:
        super().run()
        reader, _writer = os.pipe()
        if os.fork() == 0:
            with contextlib.suppress(OSError):
                os.read(reader, 1)  # never returns, because this process holds the write end
            os._exit(0)
        os.close(reader)
        os.close(_writer)


class PrintsToStderr(FaultyEngine):
    def run(self) -> None:
        super().run()
        print("bye", file=sys.stderr)
