"""The native engine: its choice of a backend, and the core in C with full queues, ^C, fork() and resets."""

from __future__ import annotations

import collections
import contextlib
import errno
import functools
import gc
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
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bothends.endpoints import Endpoint
from bothends.engines import native, registry
from bothends.engines.base import EngineContext, Limits
from bothends.engines.native import NativeEngine, NativeEpollEngine, NativeUringEngine, choose_backend
from bothends.engines.shutdown import ShutdownFlags
from bothends.errors import UnsupportedCombination
from bothends.osutil.process_info import descriptors
from bothends.server import Server
from bothends.services.base import Conversation, Peer, Push, Service
from bothends.sockets import open_listeners
from bothends.testing.clients import Client
from bothends.testing.harness import Harness
from bothends.testing.services import BroadcastChat, EchoService, Greeting, pattern
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import Running
from tests.tools import needs_tool

ROOT = Path(__file__).resolve().parent.parent.parent
ENGINES = [NativeUringEngine, NativeEpollEngine]
TIMEOUT = 10.0
QUIET = 0.3

pytestmark = pytest.mark.skipif(
    NativeEngine.unavailable_reason() is not None, reason=str(NativeEngine.unavailable_reason())
)


def wait_for(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < until, "not in time"
        threading.Event().wait(0.005)


@pytest.fixture(params=ENGINES, ids=["io_uring", "epoll"])
def engine(request: pytest.FixtureRequest) -> type[NativeEngine]:
    kind: type[NativeEngine] = request.param
    if (reason := kind.unavailable_reason()) is not None:
        pytest.skip(reason)
    return kind


@contextlib.contextmanager
def running(
    service: Service | type[Conversation],
    engine: type[NativeEngine],
    url: str = "tcp://127.0.0.1:0",
    limits: Limits | None = None,
) -> Iterator[Server]:
    """Run a server in a thread of this process, without an observer."""
    with Server(service, [url], engine=engine, limits=limits) as server:
        wait_for(lambda: server._running_engine is not None)
        yield server


def serve_once(engine: type[NativeEngine]) -> None:
    with running(EchoService(), engine) as server, Client(server.endpoints[0]) as client:
        assert client.request(b"hello") == b"hello"


def loops_left_by(engine: type[NativeEngine], monkeypatch: pytest.MonkeyPatch, count: int) -> int:
    """Run servers one after another, and return how many of their loops still exist."""
    loops: list[weakref.ref[native.NativeLoop]] = []

    class CountedLoop(native.NativeLoop):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            loops.append(weakref.ref(self))

    monkeypatch.setattr(native, "NativeLoop", CountedLoop)
    for _ in range(count):
        serve_once(engine)
    gc.collect()
    return sum(each() is not None for each in loops)


def core_of(server: Server) -> Any:
    engine = server._running_engine
    assert isinstance(engine, NativeEngine)
    wait_for(lambda: engine._loop is not None)
    assert engine._loop is not None
    return engine._loop._core


# Choice of the backend ----------------------------------------------------------------------------


def test_preferred_engine_is_native() -> None:
    assert registry.preferred().name == "native"


def test_backend_epoll_can_be_forced() -> None:
    assert choose_backend("epoll") == ("epoll", "by epoll, as requested")


def test_backend_unknown_is_rejected() -> None:
    backend, why = choose_backend("kqueue")
    assert backend is None
    assert "'kqueue'" in why


def test_backend_without_extension_gives_reason(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_backend_probe_errno_gives_reason(monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    monkeypatch.setattr("bothends.engines._native.probe", lambda: number)
    backend, why = choose_backend("")
    assert backend == "epoll"
    assert words in why
    assert choose_backend("io_uring")[0] is None


# A seccomp filter that makes io_uring_setup() fail with EPERM, as in containers. Four struct sock_filter:
# load the number of the system call; compare it with 425; return EPERM; allow (seccomp(2)).
SECCOMP_PROGRAM = """
import ctypes, os, struct, sys
filters = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
filters = b"".join(struct.pack("HBBI", *each) for each in filters)
memory = ctypes.create_string_buffer(filters)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(memory)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
if libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(program)), 0, 0) != 0:
    sys.exit(77)
os.execv(sys.executable, [sys.executable, "-m", "bothends", "engines", "--json"])
"""


def test_backend_falls_back_to_epoll_under_seccomp() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SECCOMP_PROGRAM], capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        pytest.skip("no seccomp filters here")
    assert done.returncode == 0, done.stderr
    found = {each["name"]: each for each in json.loads(done.stdout)}["native"]
    assert found["missing"] is None
    assert found["here"].startswith("by epoll, because io_uring is forbidden here")


@needs_tool("cc")
def test_build_without_compiler_succeeds(tmp_path: Path) -> None:
    """The extension is optional: without a compiler the package is built without it."""
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


def test_busy_poll_unsupported_engine_is_rejected() -> None:
    with pytest.raises(UnsupportedCombination, match="busy polling"):
        Server(EchoService(), ["tcp://127.0.0.1:0"], engine="epoll", limits=Limits(busy_poll=0.001))


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "udp://127.0.0.1:0"])
def test_busy_poll_answers(engine: type[NativeEngine], url: str) -> None:
    with (
        running(EchoService(), engine, url, Limits(busy_poll=0.0005)) as server,
        Client(server.endpoints[0]) as client,
    ):
        for number in range(200):
            assert client.request(b"%d" % number) == b"%d" % number


# Exhausted buffers, full queues ---------------------------------------------------------------------


def request_concurrently(endpoint: Endpoint, count: int, size: int) -> None:
    """Send from `count` clients before any of them reads."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(endpoint)) for _ in range(count)]
        for _ in range(3):
            for number, client in enumerate(clients):
                client.send(bytes([number % 256]) * size)
            for number, client in enumerate(clients):
                assert client.receive_exactly(size) == bytes([number % 256]) * size


class FewBuffers(NativeUringEngine):
    ring_sizes: ClassVar[dict[str, int]] = {"buffers": 2, "buffer_size": 64}


class SmallQueues(NativeUringEngine):
    ring_sizes: ClassVar[dict[str, int]] = {"submissions": 4, "completions": 8}


class SmallRing(NativeUringEngine):
    ring_sizes: ClassVar[dict[str, int]] = {
        "submissions": 4,
        "completions": 4,
        "buffers": 2,
        "buffer_size": 256,
    }


needs_uring = pytest.mark.skipif(
    NativeUringEngine.unavailable_reason() is not None, reason=str(NativeUringEngine.unavailable_reason())
)


@needs_uring
def test_buffer_ring_exhausted_rearms() -> None:
    """Without a free buffer the data stays in the sockets, and is received once a buffer is released."""
    with running(EchoService(), FewBuffers) as server:
        request_concurrently(server.endpoints[0], 50, 2000)
        assert core_of(server).rearmed_receives > 0


# Memory ---------------------------------------------------------------------------------------------


def test_servers_one_after_another_leave_no_loop(
    engine: type[NativeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loops_left_by(engine, monkeypatch, 5) == 0


def test_unclosed_core_is_collected(engine: type[NativeEngine]) -> None:
    descriptors_before = len(descriptors(os.getpid()))
    stop = ShutdownFlags()
    with contextlib.closing(stop):
        listeners = open_listeners(Endpoint.parse("tcp://127.0.0.1:0"))
        loop = native.NativeLoop(
            EngineContext(EchoService(), listeners, stop), engine.backend == "io_uring", {}
        )
        loop._core.watch(stop.draining.fileno(), functools.partial(print, loop), 1, False)
        left = weakref.ref(loop)
        del loop
        gc.collect()
        assert left() is None
        for listener in listeners:
            listener.close()
    assert len(descriptors(os.getpid())) == descriptors_before


NO_MEMORY_PROGRAM = """
import socket, sys
import _testcapi
from bothends.engines import _native, native
from bothends.engines.base import EngineContext, Limits
from bothends.engines.shutdown import ShutdownFlags
from bothends.testing.services import EchoService
from bothends.services.base import Peer
from bothends.testing.streams import PEER
import bothends.endpoints

sockets = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(3)]
service = EchoService()
loop = native.NativeLoop(EngineContext(service, [], ShutdownFlags()), sys.argv[1] == "io_uring", {})
arguments = {}


class Recorder:
    def __init__(self, **named):
        arguments.update(named)

    def stop(self):
        pass


real, native._native = native._native, type("Module", (), {"Core": Recorder})
native.NativeLoop(EngineContext(service, [], ShutdownFlags()), sys.argv[1] == "io_uring", {})
failures = 0
for number in range(1, 120):
    core = None
    ours, theirs = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = ours.detach()
        _testcapi.set_nomemory(number, number + 1)
        try:
            core = real.Core(**arguments)
            core.listen(listener.fileno(), None, False)
            core.watch(sockets[0].fileno(), print, 1, False)
            core.add_datagram_socket(sockets[1].fileno(), PEER.address, None, 1500, False, True)
            core.start_conversation(fd, service.open(PEER, print), PEER)
            theirs.send(b"hello")
            core.run(0.0)
        except MemoryError:
            failures += 1
        finally:
            _testcapi.remove_mem_hooks()
        if core is not None:
            core.close()
    theirs.close()
print("failures", failures)
"""


def test_every_allocation_may_fail(engine: type[NativeEngine]) -> None:
    pytest.importorskip("_testcapi", reason="this Python has no _testcapi")
    done = subprocess.run(
        [sys.executable, "-c", NO_MEMORY_PROGRAM, engine.backend or ""],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) >= 10


@needs_uring
@pytest.mark.parametrize("kind", [SmallQueues, SmallRing])
def test_full_completion_queue(kind: type[NativeEngine]) -> None:
    """Completions that do not fit are kept by the kernel, or end a multishot request, which the core renews.
    No connection gets the bytes of another."""
    for size in (500, 2000):
        with running(EchoService(), kind) as server:
            request_concurrently(server.endpoints[0], 50, size)


@needs_uring
@pytest.mark.parametrize("sizes", [{"buffers": 3}, {"buffers": 0}, {"buffer_size": 0}, {"completions": 0}])
def test_ring_sizes_invalid_raise(sizes: dict[str, int]) -> None:
    engine = type("InvalidRing", (NativeUringEngine,), {"ring_sizes": sizes})
    with pytest.raises(ValueError, match=r"power of two|may be 0"):
        engine(EngineContext(EchoService(), [], ShutdownFlags())).run()


# Failing services --------------------------------------------------------------------------------------


class CommandedConversation(Conversation):
    """Does what its input says; otherwise echoes."""

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


def test_service_error_ends_one_conversation(engine: type[NativeEngine]) -> None:
    """The conversation ends with EOF, and the others continue."""
    with running(CommandedConversation, engine) as server:
        with Client(server.endpoints[0]) as witness:
            assert witness.request(b"hello") == b"hello"
            for word in (b"raise", b"text"):
                with Client(server.endpoints[0]) as client:
                    assert client.request(b"first") == b"first"
                    client.send(word)
                    assert client.receive_until_eof() == b""
            assert witness.request(b"array", 8) == b"an array"
            assert witness.request(b"done") == b"done"
            assert witness.receive_until_eof() == b""
        wait_for(lambda: core_of(server).connections == 0)


class RaisesKeyboardInterrupt(Conversation):
    """Raises KeyboardInterrupt, as ^C does, on the input "stop"."""

    def receive(self, data: bytes) -> bytes:
        if data == b"stop":
            raise KeyboardInterrupt
        return data


def test_keyboard_interrupt_leaves_nothing_open(engine: type[NativeEngine]) -> None:
    """KeyboardInterrupt propagates from `run`, and all descriptors are closed."""
    before = descriptors(os.getpid())
    stop = ShutdownFlags()
    (listener,) = open_listeners(Endpoint.parse("tcp://127.0.0.1:0"))
    clients = []
    with listener:
        for number in range(20):
            clients.append(Client(listener.endpoint))
            clients[-1].send(b"stop" if number == 10 else b"word")
        service = stream_service(RaisesKeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            engine(EngineContext(service, [listener], stop)).run()
    for client in clients:
        client.receive_until_closed()
        client.close()
    stop.close()
    assert descriptors(os.getpid()) == before


def stream_service(kind: type[Conversation]) -> Service:
    from bothends.services.functions import stream

    return stream(kind)


# fork() --------------------------------------------------------------------------------------------------


class ForkingService(Service):
    """Forks a child for every chunk. The child tries to run the core, then waits until the test ends."""

    name = "forking"

    def __init__(self) -> None:
        self.children: list[int] = []
        self.hold, self.release = os.pipe()
        self.result_r, self.result_w = os.pipe()

    def open(self, peer: Peer, push: Push) -> Conversation:
        service = self

        class Forks(Conversation):
            def receive(self, data: bytes) -> bytes:
                pid = os.fork()
                if pid == 0:
                    os.close(service.release)
                    service.stop.detach_in_child()  # or the child keeps the flag from being set
                    try:
                        service.core.run(0.0)
                    except RuntimeError:
                        os.write(service.result_w, b"refused")
                    os.read(service.hold, 1)
                    os._exit(0)
                service.children.append(pid)
                return data

        return Forks()

    core: Any
    stop: ShutdownFlags


def test_fork_after_start(engine: type[NativeEngine]) -> None:
    """A child has copies of all descriptors and of the core. It must not run the core, and its descriptors do
    not prevent the server from closing connections and the port."""
    service = ForkingService()
    with running(service, engine) as server:
        service.core, service.stop = core_of(server), server._stop
        endpoint = server.endpoints[0]
        with Client(endpoint) as client:
            assert client.request(b"one") == b"one"
            assert client.request(b"two") == b"two"
            client.shutdown_write()
            wait_for(lambda: core_of(server).connections == 0)
        with Client(endpoint) as client:
            assert client.request(b"six") == b"six"
    assert os.read(service.result_r, 7) == b"refused"
    os.close(service.release)
    for pid in service.children:
        os.waitpid(pid, 0)
    for descriptor in (service.hold, service.result_r, service.result_w):
        os.close(descriptor)


# Resets, descriptors, time limits ------------------------------------------------------------------------


def set_linger_reset(client: Client) -> None:
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_random_resets_leak_nothing(engine: type[NativeEngine]) -> None:
    """A reset at any point ends one connection only, and leaks nothing."""
    rng = random.Random(4)
    with running(EchoService(), engine, limits=Limits(unsent=32 * 1024)) as server:
        with Client(server.endpoints[0]) as witness:
            for _ in range(300):
                with Client(server.endpoints[0], rcvbuf=8192) as client:
                    if rng.random() < 0.7:
                        client.send_until_blocked(pattern(rng.choice([1, 1000, 100_000])), timeout=0)
                    if rng.random() < 0.3:
                        client.shutdown_write()
                    if rng.random() < 0.3:
                        client.is_readable(0.01)
                    if rng.random() < 0.8:
                        set_linger_reset(client)
                if rng.random() < 0.1:
                    assert witness.request(b"fine") == b"fine"
            wait_for(lambda: core_of(server).connections == 1)
        wait_for(lambda: core_of(server).connections == 0)


@pytest.mark.parametrize("target", ["NativeUringEngine", "NativeEpollEngine"])
def test_descriptor_limit_pauses_accepting(target: str) -> None:
    """As in the contract suite, but accepting in C: connections beyond the limit wait without using CPU time,
    and are accepted when others close. (io_uring uses the limit at the time when the accept was
    submitted.)"""
    if (reason := getattr(native, target).unavailable_reason()) is not None:
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(
            Harness(
                f"bothends.engines.native:{target}",
                EchoService,
                ["tcp://127.0.0.1:0"],
                observe=False,
                start_paused=True,
            )
        )
        running.limit_descriptors(6)  # the core itself needs three of them
        running.resume()
        clients = [stack.enter_context(Client(running.endpoints[0])) for _ in range(10)]
        for client in clients:
            client.send(b"hello")
        assert clients[0].receive_exactly(5) == b"hello"
        assert running.cpu_used(0.4, limit=0.2) <= 0.2
        waiting = [client for client in clients[1:] if not client.is_readable(0)]
        assert 4 <= len(waiting) <= 9
        for client in clients:
            assert client not in waiting[:-1] or client.is_readable(TIMEOUT)
            client.close()


def test_time_limits_without_observer(engine: type[NativeEngine]) -> None:
    """The core applies the idle timeout and the lifetime limit."""
    for limits in (Limits(idle=0.2, linger=0.1), Limits(life=0.2, linger=0.1)):
        with running(EchoService(), engine, limits=limits) as server, Client(server.endpoints[0]) as client:
            began = time.monotonic()
            assert client.request(b"hello") == b"hello"
            assert client.receive_until_eof() == b""
            assert time.monotonic() - began >= 0.15


def test_connection_ends_with_the_peers_eof_after_our_own(engine: type[NativeEngine]) -> None:
    """After our FIN, the peer's EOF ends the connection, and not the linger timeout."""
    with running(Greeting(), engine, limits=Limits(linger=3 * TIMEOUT)) as server:
        with Client(server.endpoints[0]) as client:
            assert client.receive_until_eof() == b"welcome and goodbye\n"
            assert core_of(server).connections == 1
        wait_for(lambda: core_of(server).connections == 0)


def test_event_of_a_descriptor_that_is_not_watched_any_more_is_dropped(engine: type[NativeEngine]) -> None:
    """Its slot may have been reused by then, for another descriptor."""
    called = []
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(contextlib.closing(ShutdownFlags()))
        loop = native.NativeLoop(EngineContext(EchoService(), [], stop), engine.backend == "io_uring", {})
        core: Any = stack.enter_context(contextlib.closing(loop))._core
        pairs = [[stack.enter_context(sock) for sock in socket.socketpair()] for _ in range(3)]
        first, second, quiet = (watched for watched, _ in pairs)

        def callback(name: str, own: socket.socket, other: socket.socket) -> None:
            called.append(name)
            core.unwatch(own.fileno())
            core.unwatch(other.fileno())
            core.watch(quiet.fileno(), lambda _events: called.append("quiet"), 1, False)

        for name, own, other in (("first", first, second), ("second", second, first)):
            core.watch(own.fileno(), lambda _events, each=(name, own, other): callback(*each), 1, False)
        for _, peer in pairs[:2]:
            peer.send(b"x")
        core.run(0.05)
    assert called in (["first"], ["second"])


# Push and reload ----------------------------------------------------------------------------------


class PushService(Service):
    """Records the push function of each conversation."""

    name = "push"
    pushes = True

    def __init__(self) -> None:
        self.push_functions: list[Push] = []

    def open(self, peer: Peer, push: Push) -> Conversation:
        self.push_functions.append(push)
        return CommandedConversation()


def test_push_from_another_thread_wakes_loop(engine: type[NativeEngine]) -> None:
    """A push wakes the sleeping loop, and many small pieces are sent in order."""
    service = PushService()
    with running(service, engine) as server, Client(server.endpoints[0]) as client:
        assert client.request(b"hello") == b"hello"
        pieces = [b"%d," % number for number in range(500)]
        for piece in pieces:
            service.push_functions[0](piece)
        assert client.receive_exactly(len(b"".join(pieces))) == b"".join(pieces)


def test_reload_to_push_service(engine: type[NativeEngine]) -> None:
    """A reload can change whether the core may accept connections."""
    with running(EchoService(), engine) as server:
        running_engine = server._running_engine
        assert running_engine is not None
        with Client(server.endpoints[0]) as old:
            assert old.request(b"echo") == b"echo"
            running_engine.reload(BroadcastChat())

            def is_new() -> bool:
                with Client(server.endpoints[0]) as new:
                    new.send(b"hello\n")
                    return (
                        new.receive_exactly(6) == b"hello\n"
                        and bool(new.is_readable(1))
                        and new.receive_exactly(3) == b"ok\n"
                    )

            wait_for(is_new)
            assert old.request(b"echo") == b"echo"


# Datagrams ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["udp://127.0.0.1:0", "udp://[::1]:0"])
def test_datagram_boundaries_with_gso(url: str) -> None:
    """Replies of equal size are sent together with GSO, and arrive separately; others are sent alone."""
    sizes = [64] * 20 + [0, 64, 64, 30, 64, 1, 1, 1, 0, 0, 9000, 9000, 100, 65_507, 5, *range(1, 20)]
    sent = [pattern(size + number)[number:] for number, size in enumerate(sizes)]
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(Harness("native", EchoService, [url], observe=False))
        client = stack.enter_context(Client(running.endpoints[0], rcvbuf=4_000_000))
        with running.suspended():
            for data in sent:
                client.send(data)
        received = [client.receive_message() for _ in sent]
    assert collections.Counter(received) == collections.Counter(sent)


# In a network namespace of its own, where the loopback interface has the MTU of Ethernet.
MTU_PROGRAM = """
import subprocess, sys, threading
from bothends.server import Server
from bothends.services.base import Peer
from bothends.testing.clients import Client
from bothends.testing.services import EchoService

subprocess.run(["ip", "link", "set", "lo", "up", "mtu", "1500"], check=True)
sent = threading.Event()


class Echo(EchoService):
    def answer(self, data, peer):
        sent.wait()
        return data


messages = [bytes([number]) * 2000 for number in range(20)]
with Server(Echo(), ["udp://127.0.0.1:0"], engine="native") as server:
    with Client(server.endpoints[0], rcvbuf=1_000_000) as client:
        for message in messages:
            client.send(message)
        sent.set()
        assert [client.receive_message() for _ in messages] == messages
"""


@needs_tool("ip")
def test_answers_longer_than_the_mtu_are_sent_one_by_one() -> None:
    """The kernel rejects GSO for segments that are longer than the MTU, but fragments single datagrams."""
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", sys.executable, "-c", MTU_PROGRAM],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare failed" in done.stderr or "unshare: " in done.stderr:
        pytest.skip("no user namespaces here")
    assert done.returncode == 0, done.stderr


def test_datagrams_from_concurrent_clients() -> None:
    with (
        Harness(
            "bothends.engines.native:NativeEngine", EchoService, ["udp://127.0.0.1:0"], observe=False
        ) as running,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(Client(running.endpoints[0])) for _ in range(20)]
        with running.suspended():
            for round_ in range(5):
                for number, client in enumerate(clients):
                    client.send(b"%d of %d" % (round_, number))
        for number, client in enumerate(clients):
            received = {client.receive_message() for _ in range(5)}
            assert received == {b"%d of %d" % (round_, number) for round_ in range(5)}


# Several processes ------------------------------------------------------------------------------------

PID_SERVICE = """import os
from bothends import message

@message
def who(text: bytes) -> bytes:
    return b"%d" % os.getpid()
"""


@needs_uring
def test_stopped_worker_does_not_hold_connections(tmp_path: Path) -> None:
    """A new connection wakes one of several workers, which must be one that can run."""
    path = tmp_path / "who.py"
    path.write_text(PID_SERVICE)
    words = [f"{path}:who", "tcp://127.0.0.1:0", "-q", "--workers", "3", "--engine", "native"]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Running([*BOTHENDS, "serve", *words]))
        endpoint = Endpoint.parse(server.error_line(rb"  (tcp://127\.0\.0\.1:\d+)")[1].decode())
        stopped: list[int] = []
        for _ in range(2):
            for _ in range(10):
                with Client(endpoint) as client:
                    client.send(b"who?\n")
                    pid = int(client.receive_line())
                    assert pid not in stopped
            os.kill(pid, signal.SIGSTOP)
            stack.callback(os.kill, pid, signal.SIGCONT)
            stopped.append(pid)
        with Client(endpoint) as client:
            client.send(b"who?\n")
            assert int(client.receive_line()) not in stopped
