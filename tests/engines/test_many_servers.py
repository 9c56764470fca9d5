"""Two hundred servers of an engine, one after another in one process, leave nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bothends.engines import registry

SERVERS = 200

PROGRAM = """
import gc, json, os, resource, sys, threading
from bothends.server import Server
from bothends.testing.clients import Client
from bothends.testing.services import EchoService

name, count = sys.argv[1], int(sys.argv[2])


def serve(count):
    for _ in range(count):
        with Server(EchoService(), ["tcp://127.0.0.1:0"], engine=name) as server:
            with Client(server.endpoints[0]) as client:
                assert client.request(b"hello") == b"hello"
                client.shutdown_write()  # `fork` has a copy of the client's socket, so close() sends no FIN
                assert client.receive_end().data == b""


def measure():
    gc.collect()
    with open("/proc/self/statm") as statm:
        resident = int(statm.read().split()[1]) * resource.getpagesize()
    descriptors = len(os.listdir("/proc/self/fd"))
    return resident, sys.getallocatedblocks(), descriptors, threading.active_count()


serve(20)  # so that caches are full
before = measure()
serve(count)
print(json.dumps([late - early for early, late in zip(before, measure())]))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", registry.names())
def test_servers_one_after_another_leave_nothing(name: str) -> None:
    if (reason := registry.load(name).unavailable_reason()) is not None:
        pytest.skip(reason)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, name, str(SERVERS)],
        capture_output=True,
        check=True,
        timeout=280,
    )
    memory, blocks, descriptors, threads = json.loads(done.stdout)
    assert (descriptors, threads) == (0, 0)
    assert blocks < 5 * SERVERS  # an object of a server that is left has more
    assert memory < 2 * 1024 * 1024  # one loop of `native` has a megabyte
