"""A hundred thousand connections, half of them reset, do not leak in the native engine.

Measured: memory blocks of Python, references to the classes that each connection uses, descriptors, and
resident memory. Under `make sanitize` the same run checks every memory access.
"""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import ClassVar

import pytest

from bothends.endpoints import Address, Endpoint
from bothends.engines.base import Limits
from bothends.engines.native import NativeEngine, NativeEpollEngine, NativeUringEngine
from bothends.osutil import process_info
from bothends.server import Server
from bothends.services.base import Conversation, Peer

CONNECTIONS = 100_000
WARM_UP_CONNECTIONS = 5_000
TIMEOUT = 30.0

# Sequential connections from many addresses, each with random actions: a request in up to three chunks, a
# half-close, a reset. The server ends some of the connections while they send.
CLIENT_PROGRAM = """
import contextlib, random, socket, struct, sys
port, count, seed = map(int, sys.argv[1:])
rng = random.Random(seed)
reset = struct.pack("ii", 1, 0)
for number in range(count):
    with socket.socket() as client:
        client.setsockopt(socket.SOL_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        client.bind((f"127.0.{seed}.{1 + number % 250}", 0))
        client.connect(("127.0.0.1", port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        action = rng.random()
        if action > 0.1:
            data = b"x" * rng.choice([1, 64, 5000])
            cuts = sorted(rng.choices(range(1, len(data) + 1), k=rng.randrange(3)))
            with contextlib.suppress(ConnectionError):
                for begin, end in zip([0, *cuts], [*cuts, len(data)]):
                    client.send(data[begin:end])
        if action > 0.4:
            client.recv(8192)
        if action > 0.8:
            client.shutdown(socket.SHUT_WR)
            while client.recv(8192):
                pass
        if action % 0.1 < 0.05:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
"""


class CountingEcho(Conversation):
    """Echoes, and counts conversations opened and closed."""

    counts: ClassVar[Counter[str]] = Counter()

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.counts["opened"] += 1

    def receive(self, data: bytes) -> bytes:
        self.done = len(data) == 64  # so the server closes some of them
        return data

    def closed(self) -> None:
        self.counts["closed"] += 1


def run_clients(endpoint: Endpoint, count: int) -> None:
    """Open `count` connections from two client processes."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CLIENT_PROGRAM, str(endpoint.port), str(count // 2), str(seed)]
        )
        for seed in (1, 2)
    ]
    for process in processes:
        assert process.wait() == 0


def measure() -> tuple[int, int, int, int, int]:
    """Return the memory blocks, references, descriptors and resident bytes, once all are closed."""
    until = time.monotonic() + TIMEOUT
    while CountingEcho.counts["opened"] != CountingEcho.counts["closed"]:
        assert time.monotonic() < until, CountingEcho.counts
        threading.Event().wait(0.01)
    gc.collect()
    (own,) = [each for each in process_info.process_tree(os.getpid()) if each.pid == os.getpid()]
    return (
        sys.getallocatedblocks(),
        sys.getrefcount(CountingEcho),
        sys.getrefcount(Address) + sys.getrefcount(Peer),
        len(process_info.descriptors(os.getpid())),
        own.rss,
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", [NativeUringEngine, NativeEpollEngine])
def test_hundred_thousand_connections_leak_nothing(engine: type[NativeEngine]) -> None:
    if (reason := engine.unavailable_reason()) is not None:
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            Server(CountingEcho, ["tcp://127.0.0.1:0"], engine=engine, limits=Limits(linger=0.5, idle=10))
        )
        run_clients(server.endpoints[0], WARM_UP_CONNECTIONS)
        before = measure()
        run_clients(server.endpoints[0], CONNECTIONS)
        after = measure()
    assert CountingEcho.counts["opened"] >= CONNECTIONS
    blocks, conversation_refs, shared_refs, descriptors, memory = (
        late - early for early, late in zip(before, after, strict=True)
    )
    assert blocks < 1000
    assert conversation_refs <= 2
    assert shared_refs <= 2
    assert descriptors <= 0
    # AddressSanitizer keeps freed memory for a while, to detect uses after free.
    assert memory < 16 * 1024 * 1024 or "asan" in os.environ.get("LD_PRELOAD", "")
