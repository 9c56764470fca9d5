"""A hundred thousand connections, half of them reset, leave nothing of the native engine's behind.

What is counted: Python's blocks, references to what every connection refers to, descriptors, and memory.
Under `make sanitize` the same run is a look at every access.
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
from bothends.engines.native import NativeEngine, NativeOnEpoll, NativeOnRing
from bothends.osutil import process_info
from bothends.server import Server
from bothends.services.base import Conversation, Peer

MANY = 100_000
WARM = 5_000
WITHIN = 30.0

# One after another, from many addresses; what happens to each is drawn.
CALLERS = """
import random, socket, struct, sys
port, many, seed = map(int, sys.argv[1:])
chance = random.Random(seed)
reset = struct.pack("ii", 1, 0)
for number in range(many):
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        caller.bind((f"127.0.{seed}.{1 + number % 250}", 0))
        caller.connect(("127.0.0.1", port))
        what = chance.random()
        if what > 0.1:
            caller.send(b"x" * chance.choice([1, 64, 5000]))
        if what > 0.4:
            caller.recv(8192)
        if what > 0.8:
            caller.shutdown(socket.SHUT_WR)
            while caller.recv(8192):
                pass
        if what % 0.1 < 0.05:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
"""


class Counted(Conversation):
    """Echoes, and counts who has come and gone."""

    told: ClassVar[Counter[str]] = Counter()

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.told["opened"] += 1

    def receive(self, data: bytes) -> bytes:
        self.done = len(data) == 64  # some are closed by us
        return data

    def closed(self) -> None:
        self.told["closed"] += 1


def call(endpoint: Endpoint, many: int) -> None:
    """So many connections, from two processes."""
    callers = [
        subprocess.Popen([sys.executable, "-c", CALLERS, str(endpoint.port), str(many // 2), str(seed)])
        for seed in (1, 2)
    ]
    for caller in callers:
        assert caller.wait() == 0


def settled() -> tuple[int, int, int, int, int]:
    """Blocks, references to the classes, descriptors, and resident bytes, when everybody has left."""
    until = time.monotonic() + WITHIN
    while Counted.told["opened"] != Counted.told["closed"]:
        assert time.monotonic() < until, Counted.told
        threading.Event().wait(0.01)
    gc.collect()
    (own,) = [each for each in process_info.family(os.getpid()) if each.pid == os.getpid()]
    return (
        sys.getallocatedblocks(),
        sys.getrefcount(Counted),
        sys.getrefcount(Address) + sys.getrefcount(Peer),
        len(process_info.descriptors(os.getpid())),
        own.rss,
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", [NativeOnRing, NativeOnEpoll])
def test_nothing_is_left_of_a_hundred_thousand(engine: type[NativeEngine]) -> None:
    if (reason := engine.missing()) is not None:
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            Server(Counted, ["tcp://127.0.0.1:0"], engine=engine, limits=Limits(linger=0.5, idle=10))
        )
        call(server.endpoints[0], WARM)
        before = settled()
        call(server.endpoints[0], MANY)
        after = settled()
    assert Counted.told["opened"] >= MANY
    blocks, own, shared, descriptors, memory = (
        late - early for early, late in zip(before, after, strict=True)
    )
    assert blocks < 1000
    assert own <= 2
    assert shared <= 2
    assert descriptors <= 0
    # AddressSanitizer keeps what was freed, for a while, to see who uses it.
    assert memory < 16 * 1024 * 1024 or "asan" in os.environ.get("LD_PRELOAD", "")
