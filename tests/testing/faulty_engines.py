"""Engines with one mistake each: a right one, given a job that is bent. The suite has to catch them all."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable

from bothends.engines import admission
from bothends.engines.base import Job
from bothends.engines.epoll import EpollEngine
from bothends.engines.shutdown import Stop
from bothends.events import Cause, Closed, Event
from bothends.services.base import Conversation, Peer, Post, Service


class BentService(Service):
    """Passes everything on. Subclasses bend one thing."""

    def __init__(self, inner: Service) -> None:
        self.inner = inner
        self.posts = inner.posts

    def open(self, peer: Peer, post: Post) -> Conversation:
        return self.inner.open(peer, post)

    def answer(self, datagram: bytes, peer: Peer) -> bytes | None:
        return self.inner.answer(datagram, peer)


class BentConversation(Conversation):
    def __init__(self, inner: Conversation) -> None:
        self.inner = inner

    def said(self, data: bytes) -> bytes:
        self.done, self.failure = self.inner.done, self.inner.failure
        return data

    def start(self) -> bytes:
        return self.said(self.inner.start())

    def receive(self, data: bytes) -> bytes:
        return self.said(self.inner.receive(data))

    def end(self) -> bytes:
        return self.said(self.inner.end())

    def closed(self) -> None:
        self.inner.closed()


class Bent(EpollEngine):
    """A right engine, but for what `bend` does to its job."""

    def __init__(self, job: Job) -> None:
        super().__init__(self.bend(job))

    def bend(self, job: Job) -> Job:
        return job


class ClosesOnHalfClose(Bent):
    def bend(self, job: Job) -> Job:
        class Deaf(BentConversation):
            def end(self) -> bytes:
                self.done = True
                return b""

        class Hasty(BentService):
            def open(self, peer: Peer, post: Post) -> Conversation:
                return Deaf(self.inner.open(peer, post))

        return dataclasses.replace(job, service=Hasty(job.service))


class OneReadIsOneMessage(Bent):
    def bend(self, job: Job) -> Job:
        class Naive(BentConversation):
            def receive(self, data: bytes) -> bytes:
                return data.strip().upper() + b"\n"

        class NaiveService(BentService):
            def open(self, peer: Peer, post: Post) -> Conversation:
                return Naive(self.inner.open(peer, post))

        return dataclasses.replace(job, service=NaiveService(job.service))


class SharesOneConversation(Bent):
    def bend(self, job: Job) -> Job:
        class Shared(BentService):
            shared: Conversation | None = None

            def open(self, peer: Peer, post: Post) -> Conversation:
                self.shared = self.shared or self.inner.open(peer, post)
                return self.shared

        return dataclasses.replace(job, service=Shared(job.service))


class DiesOfMistakes(Bent):
    def bend(self, job: Job) -> Job:
        class Fatal(BentConversation):
            def receive(self, data: bytes) -> bytes:
                try:
                    return super().receive(data)
                except Exception as error:
                    raise SystemExit(3) from error

        class FatalService(BentService):
            def open(self, peer: Peer, post: Post) -> Conversation:
                return Fatal(self.inner.open(peer, post))

        return dataclasses.replace(job, service=FatalService(job.service))


class QueuesWithoutBound(Bent):
    def bend(self, job: Job) -> Job:
        return dataclasses.replace(job, limits=dataclasses.replace(job.limits, unsent=1 << 40))


class DoesNotLinger(Bent):
    def bend(self, job: Job) -> Job:
        return dataclasses.replace(job, limits=dataclasses.replace(job.limits, linger=0.0))


class KnowsNoIdleLimit(Bent):
    def bend(self, job: Job) -> Job:
        return dataclasses.replace(job, limits=dataclasses.replace(job.limits, idle=None))


class KnowsNoConnectionLimit(Bent):
    def bend(self, job: Job) -> Job:
        return dataclasses.replace(job, limits=dataclasses.replace(job.limits, connections=None))


class IgnoresDrain(Bent):
    def bend(self, job: Job) -> Job:
        return dataclasses.replace(job, stop=Stop())


class LiesAboutTheCause(Bent):
    def bend(self, job: Job) -> Job:
        def bent(event: Event) -> None:
            if isinstance(event, Closed):
                event = dataclasses.replace(event, cause=Cause.PEER)
            observe(event)

        observe: Callable[[Event], None] = job.observe or (lambda _event: None)
        return dataclasses.replace(job, observe=bent)


class SpinsOnEmfile(Bent):
    def run(self) -> None:
        admission.STRAIN_PAUSE = 0.0  # type: ignore[misc]
        super().run()


class SpinsWhenIdle(Bent):
    def run(self) -> None:
        parent = os.getpid()
        if os.fork() == 0:
            while os.getppid() == parent:
                pass
            os._exit(0)
        super().run()


class DropsEmptyDatagrams(Bent):
    def bend(self, job: Job) -> Job:
        class Dropping(BentService):
            def answer(self, datagram: bytes, peer: Peer) -> bytes | None:
                return super().answer(datagram, peer) if datagram else None

        return dataclasses.replace(job, service=Dropping(job.service))


class PostsWhenSpokenTo(Bent):
    def bend(self, job: Job) -> Job:
        class Late(BentConversation):
            def __init__(self, service: Service, peer: Peer) -> None:
                self.waiting: list[bytes] = []
                super().__init__(service.open(peer, self.waiting.append))

            def receive(self, data: bytes) -> bytes:
                late, self.waiting[:] = b"".join(self.waiting), []
                return late + super().receive(data)

        class LateService(BentService):
            def open(self, peer: Peer, post: Post) -> Conversation:
                return Late(self.inner, peer)

        return dataclasses.replace(job, service=LateService(job.service))


class LeavesADescriptor(Bent):
    def run(self) -> None:
        super().run()
        os.dup(0)


class LeavesAProcess(Bent):
    def run(self) -> None:
        super().run()
        reader, _writer = os.pipe()
        if os.fork() == 0:
            with contextlib.suppress(OSError):
                os.read(reader, 1)  # it holds the other end itself, so this never comes back
            os._exit(0)
        os.close(reader)
        os.close(_writer)


class Chatters(Bent):
    def run(self) -> None:
        super().run()
        print("bye", file=sys.stderr)
