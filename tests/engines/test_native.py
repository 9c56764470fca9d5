"""The native engine: what it chooses, and what befalls a core in C: dry buffers, full queues, ^C, fork."""

from __future__ import annotations

import collections
import contextlib
import errno
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bothends.endpoints import Endpoint
from bothends.engines import native, registry
from bothends.engines.base import Job, Limits
from bothends.engines.native import NativeEngine, NativeOnEpoll, NativeOnRing, choose_backend
from bothends.engines.shutdown import Stop
from bothends.errors import CannotCarry
from bothends.osutil.process_info import descriptors
from bothends.server import Server
from bothends.services.base import Conversation, Peer, Post, Service
from bothends.sockets import open_listeners
from bothends.testing.clients import Client
from bothends.testing.harness import Harness
from bothends.testing.services import Chat, Echo, pattern
from tests.interop.ours import BOTHENDS
from tests.interop.running import Running
from tests.tools import needs_tool

ROOT = Path(__file__).resolve().parent.parent.parent
ENGINES = [NativeOnRing, NativeOnEpoll]
WITHIN = 10.0
QUIET = 0.3

pytestmark = pytest.mark.skipif(NativeEngine.missing() is not None, reason=str(NativeEngine.missing()))


def wait_for(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < until, "not in time"
        threading.Event().wait(0.005)


@pytest.fixture(params=ENGINES, ids=["io_uring", "epoll"])
def engine(request: pytest.FixtureRequest) -> type[NativeEngine]:
    kind: type[NativeEngine] = request.param
    if (reason := kind.missing()) is not None:
        pytest.skip(reason)
    return kind


@contextlib.contextmanager
def running(
    service: Service | type[Conversation],
    engine: type[NativeEngine],
    url: str = "tcp://127.0.0.1:0",
    limits: Limits | None = None,
) -> Iterator[Server]:
    """A server in a thread of this process, with nobody who observes."""
    with Server(service, [url], engine=engine, limits=limits) as server:
        wait_for(lambda: server._running is not None)
        yield server


def core_of(server: Server) -> Any:
    made = server._running
    assert isinstance(made, NativeEngine)
    wait_for(lambda: made._loop is not None)
    assert made._loop is not None
    return made._loop._core


# What is chosen -----------------------------------------------------------------------------------


def test_best_engine_comes_first() -> None:
    assert registry.preferred().name == "native"


def test_epoll_can_be_forced() -> None:
    assert choose_backend("epoll") == ("epoll", "by epoll, as was asked")


def test_other_words_are_refused() -> None:
    backend, why = choose_backend("kqueue")
    assert backend is None
    assert "'kqueue'" in why


def test_without_the_core_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_native", None)
    for forced in ("", "epoll", "io_uring"):
        backend, why = choose_backend(forced)
        assert backend is None
        assert "without the C core" in why


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EPERM, "forbidden here"),
        (errno.ENOSYS, "not in this kernel"),
        (errno.EINVAL, "too old here"),
        (errno.ENOMEM, "ENOMEM"),
    ],
)
def test_why_there_is_no_ring(monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    monkeypatch.setattr("bothends.engines._native.probe", lambda: number)
    backend, why = choose_backend("")
    assert backend == "epoll"
    assert words in why
    assert choose_backend("io_uring")[0] is None


# A seccomp filter that answers EPERM to io_uring_setup(), as containers have one: struct sock_filter's
# for "load the call's number; is it 425? then EPERM; else allow" (seccomp(2)).
FILTERED = """
import ctypes, os, struct, sys
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
steps = b"".join(struct.pack("HBBI", *each) for each in steps)
room = ctypes.create_string_buffer(steps)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(room)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
if libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(program)), 0, 0) != 0:
    sys.exit(77)
os.execv(sys.executable, [sys.executable, "-m", "bothends", "engines", "--json"])
"""


def test_where_io_uring_is_forbidden_epoll_takes_its_place() -> None:
    done = subprocess.run([sys.executable, "-c", FILTERED], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("no seccomp filters here")
    assert done.returncode == 0, done.stderr
    found = {each["name"]: each for each in json.loads(done.stdout)}["native"]
    assert found["missing"] is None
    assert found["here"].startswith("by epoll, as io_uring is forbidden here")


@needs_tool("cc")
def test_set_up_goes_on_without_a_compiler(tmp_path: Path) -> None:
    """The extension is optional: what is built then is the package without it."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "native", tmp_path / "native")
    (tmp_path / "src" / "bothends" / "engines").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", "out"],
        cwd=tmp_path,
        env={**os.environ, "CC": "no-such-compiler"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("**/*.so"))


def test_busy_polling_is_refused_by_others() -> None:
    with pytest.raises(CannotCarry, match="busy polling"):
        Server(Echo(), ["tcp://127.0.0.1:0"], engine="epoll", limits=Limits(busy_poll=0.001))


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "udp://127.0.0.1:0"])
def test_busy_polling(engine: type[NativeEngine], url: str) -> None:
    with running(Echo(), engine, url, Limits(busy_poll=0.0005)) as server:
        with Client(server.endpoints[0]) as client:
            for number in range(200):
                assert client.ask(b"%d" % number) == b"%d" % number
        spent = time.thread_time()
        assert time.thread_time() - spent < 1


# Dry buffers, full queues ----------------------------------------------------------------------------


def crowd(endpoint: Endpoint, many: int, size: int) -> None:
    """So many clients, all of which send before one of them reads."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(endpoint)) for _ in range(many)]
        for _ in range(3):
            for number, client in enumerate(clients):
                client.say(bytes([number % 256]) * size)
            for number, client in enumerate(clients):
                assert client.hear(size) == bytes([number % 256]) * size


class Dry(NativeOnRing):
    sizes: ClassVar[dict[str, int]] = {"buffers": 2, "buffer_size": 64}


class Cramped(NativeOnRing):
    sizes: ClassVar[dict[str, int]] = {"submissions": 4, "completions": 8}


class Tiny(NativeOnRing):
    sizes: ClassVar[dict[str, int]] = {"submissions": 4, "completions": 4, "buffers": 2, "buffer_size": 256}


needs_ring = pytest.mark.skipif(NativeOnRing.missing() is not None, reason=str(NativeOnRing.missing()))


@needs_ring
def test_buffers_that_run_dry() -> None:
    """The bytes stay in their sockets, and come when a buffer has been given back."""
    with running(Echo(), Dry) as server:
        crowd(server.endpoints[0], 50, 2000)
        assert core_of(server).rearmed > 0


@needs_ring
@pytest.mark.parametrize("kind", [Cramped, Tiny])
def test_full_completion_queue(kind: type[NativeEngine]) -> None:
    """What does not fit is kept by the kernel, or ends a request that goes on by itself, which is renewed.
    Nobody gets another's bytes, and the GIL is given away whenever there is nothing to do."""
    for size in (500, 2000):
        with running(Echo(), kind) as server:
            crowd(server.endpoints[0], 50, size)


@needs_ring
@pytest.mark.parametrize("sizes", [{"buffers": 3}, {"buffers": 0}, {"buffer_size": 0}, {"completions": 0}])
def test_sizes_that_can_not_be(sizes: dict[str, int]) -> None:
    odd = type("Odd", (NativeOnRing,), {"sizes": sizes})
    with pytest.raises(ValueError, match=r"power of two|may be 0"):
        odd(Job(Echo(), [], Stop())).run()


# Failing services --------------------------------------------------------------------------------------


class Moods(Conversation):
    """Does what it is told."""

    def receive(self, data: bytes) -> bytes:
        match data:
            case b"raise":
                raise ValueError(data)
            case b"text":
                return "no bytes"  # type: ignore[return-value]
            case b"array":
                return bytearray(b"an array")  # type: ignore[return-value]
            case b"done":
                self.done = True
        return data


def test_a_handler_that_raises(engine: type[NativeEngine]) -> None:
    """That conversation ends, in good order; the others, and the server, go on."""
    with running(Moods, engine) as server:
        with Client(server.endpoints[0]) as witness:
            assert witness.ask(b"hello") == b"hello"
            for word in (b"raise", b"text"):
                with Client(server.endpoints[0]) as client:
                    assert client.ask(b"first") == b"first"
                    client.say(word)
                    assert client.hear_all() == b""
            assert witness.ask(b"array", 8) == b"an array"
            assert witness.ask(b"done") == b"done"
            assert witness.hear_all() == b""
        wait_for(lambda: core_of(server).connections == 0)


class Interrupting(Conversation):
    """Whoever says "stop" presses ^C."""

    def receive(self, data: bytes) -> bytes:
        if data == b"stop":
            raise KeyboardInterrupt
        return data


def test_interrupted_in_the_middle_of_a_batch(engine: type[NativeEngine]) -> None:
    """^C comes out of `run`, whatever was being done; nothing is left open."""
    before = descriptors(os.getpid())
    stop = Stop()
    (listener,) = open_listeners(Endpoint.parse("tcp://127.0.0.1:0"))
    clients = []
    with listener:
        for number in range(20):
            clients.append(Client(listener.endpoint))
            clients[-1].say(b"stop" if number == 10 else b"word")
        service = native_service(Interrupting)
        with pytest.raises(KeyboardInterrupt):
            engine(Job(service, [listener], stop)).run()
    for client in clients:
        client.hear_end()
        client.close()
    stop.close()
    assert descriptors(os.getpid()) == before


def native_service(kind: type[Conversation]) -> Service:
    from bothends.services.functions import stream

    return stream(kind)


# Fork ----------------------------------------------------------------------------------------------------


class Forking(Service):
    """Forks a child at every message, which does nothing with the server, and waits to be let go."""

    name = "forking"

    def __init__(self) -> None:
        self.children: list[int] = []
        self.hold, self.let_go = os.pipe()
        self.wrong, self.tell = os.pipe()

    def open(self, peer: Peer, post: Post) -> Conversation:
        service = self

        class Forks(Conversation):
            def receive(self, data: bytes) -> bytes:
                pid = os.fork()
                if pid == 0:
                    os.close(service.let_go)
                    service.stop.disown()  # or the pipe that tells the server to stop stays open here
                    try:
                        service.core.run(0.0)
                    except RuntimeError:
                        os.write(service.tell, b"refused")
                    os.read(service.hold, 1)
                    os._exit(0)
                service.children.append(pid)
                return data

        return Forks()

    core: Any
    stop: Stop


def test_fork_after_start(engine: type[NativeEngine]) -> None:
    """A child has all descriptors, and our memory: it may not run the core, and what it holds open keeps
    neither a connection nor the port from being closed by us."""
    service = Forking()
    with running(service, engine) as server:
        service.core, service.stop = core_of(server), server._stop
        endpoint = server.endpoints[0]
        with Client(endpoint) as client:
            assert client.ask(b"one") == b"one"
            assert client.ask(b"two") == b"two"
            client.finish()
            wait_for(lambda: core_of(server).connections == 0)
        with Client(endpoint) as client:
            assert client.ask(b"six") == b"six"
    assert os.read(service.wrong, 7) == b"refused"
    os.close(service.let_go)
    for pid in service.children:
        os.waitpid(pid, 0)
    for descriptor in (service.hold, service.wrong, service.tell):
        os.close(descriptor)


# Resets, descriptors ---------------------------------------------------------------------------------------


def linger(client: Client) -> None:
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_resets_at_any_instant(engine: type[NativeEngine]) -> None:
    """Whoever goes, at whatever point, takes nobody along and leaves nothing behind."""
    chance = random.Random(4)
    with running(Echo(), engine, limits=Limits(unsent=32 * 1024)) as server:
        with Client(server.endpoints[0]) as witness:
            for _ in range(300):
                with Client(server.endpoints[0], rcvbuf=8192) as client:
                    if chance.random() < 0.7:
                        client.push(pattern(chance.choice([1, 1000, 100_000])), within=0)
                    if chance.random() < 0.3:
                        client.finish()
                    if chance.random() < 0.3:
                        client.is_readable(0.01)
                    if chance.random() < 0.8:
                        linger(client)
                if chance.random() < 0.1:
                    assert witness.ask(b"fine") == b"fine"
            wait_for(lambda: core_of(server).connections == 1)
        wait_for(lambda: core_of(server).connections == 0)


@pytest.mark.parametrize("target", ["NativeOnRing", "NativeOnEpoll"])
def test_too_few_descriptors(target: str) -> None:
    """As in the contract, where C accepts: who does not fit waits, at no cost, and comes in when somebody
    leaves. (io_uring keeps to the limit that held when the accept was asked for.)"""
    if getattr(native, target).missing():
        pytest.skip(getattr(native, target).missing())
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(
            Harness(
                f"bothends.engines.native:{target}", Echo, ["tcp://127.0.0.1:0"], observe=False, held=True
            )
        )
        running.spare_descriptors(6)  # three of which the core has itself
        running.go()
        clients = [stack.enter_context(Client(running.endpoints[0])) for _ in range(10)]
        for client in clients:
            client.say(b"hello")
        assert clients[0].hear(5) == b"hello"
        assert running.cpu_over(0.4, enough=0.2) <= 0.2
        waiting = [client for client in clients[1:] if not client.is_readable(0)]
        assert 4 <= len(waiting) <= 9
        for client in clients:
            assert client not in waiting[:-1] or client.is_readable(WITHIN)
            client.close()


def test_time_limits_where_nobody_observes(engine: type[NativeEngine]) -> None:
    """Idle, and life: kept in C as they are by the wheel."""
    for limits in (Limits(idle=0.2, linger=0.1), Limits(life=0.2, linger=0.1)):
        with running(Echo(), engine, limits=limits) as server, Client(server.endpoints[0]) as client:
            began = time.monotonic()
            assert client.ask(b"hello") == b"hello"
            assert client.hear_all() == b""
            assert time.monotonic() - began >= 0.15


# Posts, and what changes while it runs ------------------------------------------------------------


class Posting(Service):
    """Keeps its members' post boxes."""

    name = "posting"
    posts = True

    def __init__(self) -> None:
        self.boxes: list[Post] = []

    def open(self, peer: Peer, post: Post) -> Conversation:
        self.boxes.append(post)
        return Moods()


def test_post_from_another_thread(engine: type[NativeEngine]) -> None:
    """The loop sleeps, and is woken; many small pieces go out in their order."""
    service = Posting()
    with running(service, engine) as server, Client(server.endpoints[0]) as client:
        assert client.ask(b"hello") == b"hello"
        pieces = [b"%d," % number for number in range(500)]
        for piece in pieces:
            service.boxes[0](piece)
        assert client.hear(len(b"".join(pieces))) == b"".join(pieces)


def test_reloaded_into_a_service_that_posts(engine: type[NativeEngine]) -> None:
    """What C may accept depends on the service, and that may be another from one moment to the next."""
    with running(Echo(), engine) as server:
        made = server._running
        assert made is not None
        with Client(server.endpoints[0]) as old:
            assert old.ask(b"echo") == b"echo"
            made.reload(Chat())

            def is_new() -> bool:
                with Client(server.endpoints[0]) as new:
                    new.say(b"hello\n")
                    return new.hear(6) == b"hello\n" and bool(new.is_readable(1)) and new.hear(3) == b"ok\n"

            wait_for(is_new)
            assert old.ask(b"echo") == b"echo"


# Datagrams ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["udp://127.0.0.1:0", "udp://[::1]:0"])
def test_datagrams_of_all_sizes_are_kept_apart(url: str) -> None:
    """Runs of one size are sent as one, and arrive as many; others, empty and largest too, go alone."""
    sizes = [64] * 20 + [0, 64, 64, 30, 64, 1, 1, 1, 0, 0, 9000, 9000, 100, 65_507, 5, *range(1, 20)]
    asked = [pattern(size + number)[number:] for number, size in enumerate(sizes)]
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(Harness("native", Echo, [url], observe=False))
        client = stack.enter_context(Client(running.endpoints[0], rcvbuf=4_000_000))
        with running.frozen():
            for data in asked:
                client.say(data)
        heard = [client.hear_message() for _ in asked]
    assert collections.Counter(heard) == collections.Counter(asked)


def test_datagrams_from_many_at_once() -> None:
    with (
        Harness(
            "bothends.engines.native:NativeEngine", Echo, ["udp://127.0.0.1:0"], observe=False
        ) as running,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(Client(running.endpoints[0])) for _ in range(20)]
        with running.frozen():
            for turn in range(5):
                for number, client in enumerate(clients):
                    client.say(b"%d of %d" % (turn, number))
        for number, client in enumerate(clients):
            heard = {client.hear_message() for _ in range(5)}
            assert heard == {b"%d of %d" % (turn, number) for turn in range(5)}


# Several processes ------------------------------------------------------------------------------------

WHO = """import os
from bothends import message

@message
def who(text: bytes) -> bytes:
    return b"%d" % os.getpid()
"""


@needs_ring
def test_a_worker_that_is_stopped_keeps_no_newcomer(tmp_path: Path) -> None:
    """Of several that accept from one listener, one is woken for a newcomer: it must be one that can run."""
    path = tmp_path / "who.py"
    path.write_text(WHO)
    words = [f"{path}:who", "tcp://127.0.0.1:0", "-q", "--workers", "3", "--engine", "native"]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Running([*BOTHENDS, "serve", *words]))
        endpoint = Endpoint.parse(server.error_line(rb"  (tcp://127\.0\.0\.1:\d+)")[1].decode())
        stopped: list[int] = []
        for _ in range(2):
            for _ in range(10):
                with Client(endpoint) as client:
                    client.say(b"who?\n")
                    pid = int(client.hear_line())
                    assert pid not in stopped
            os.kill(pid, signal.SIGSTOP)
            stack.callback(os.kill, pid, signal.SIGCONT)
            stopped.append(pid)
        with Client(endpoint) as client:
            client.say(b"who?\n")
            assert int(client.hear_line()) not in stopped
