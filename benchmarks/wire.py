"""TCP over a wire, beside a loop of fifteen lines that only copies: `python -m benchmarks.wire`.

Two hosts, a sender in one and a receiver in the other, and this process between them. Each round measures
every way once, in an order that changes; what counts is the median over rounds, and beside it the median of
the ratio to the bare loop in the same round, for a busy machine slows all of them down.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bothends.toxics import registry
from bothends.toxics.attributes import from_words
from bothends.toxics.spec import DIRECTIONS, Spec
from bothends.wire import Command, Wire, plan

PORT = 7000
BARE = "a loop of 15 lines"

WAYS: dict[str, dict[str, str]] = {
    BARE: {},
    "no toxic": {},
    "no toxic, veth": {},
    "latency 5 ms": {"latency": "5ms"},
    "latency 5 ms, loss 0.1 %": {"latency": "5ms", "loss": "0.1%"},
    "latency 5 ms, loss 1 %": {"latency": "5ms", "loss": "1%"},
}


class Bare(Wire):
    """What the others are compared with: nothing is looked at, nothing counted."""

    def _turn(self, until: float, enough: Callable[[], bool]) -> None:
        one, other = (port.fileno() for port in self._ports)
        assert self._control is not None
        to = {one: other, other: one}
        waited: list[socket.socket | int] = [self._control, one, other]
        while not enough() and time.monotonic() < until:
            for each in select.select(waited, [], [], 1)[0]:
                if not isinstance(each, int):
                    self._hear()
                    continue
                with contextlib.suppress(BlockingIOError):
                    for _ in range(64):
                        os.write(to[each], os.read(each, 65536))


def receive() -> None:
    """Take one connection's bytes; show how many megabits came in a second."""
    with socket.create_server(("0.0.0.0", PORT)) as listener:
        connection, _ = listener.accept()
        with connection:
            count = len(connection.recv(1 << 18))
            begun = time.monotonic()
            while data := connection.recv(1 << 18):
                count += len(data)
    print(count * 8 / 1e6 / (time.monotonic() - begun), flush=True)


def send(seconds: float) -> None:
    """Send for so long."""
    data = bytes(1 << 17)
    until = time.monotonic() + seconds
    with socket.create_connection(("10.0.0.1", PORT)) as connection:
        while time.monotonic() < until:
            connection.sendall(data)


def carry(way: str, seconds: float) -> None:
    """One measurement, in a process of its own: the receiver shows its figure."""
    specs = [
        Spec(f"{name}_{direction}", direction, from_words(registry.load(name), text))
        for name, text in WAYS[way].items()
        for direction in DIRECTIONS
    ]
    run = (sys.executable, "-m", "benchmarks.wire")
    hosts = plan(
        [
            Command("server", (*run, "--receive"), plain=True),
            Command("client", (*run, "--send", str(seconds)), plain=True),
        ]
    )
    kind = Bare if way == BARE else Wire
    with kind(hosts, specs, seed=1, veth="veth" in way or None) as wire:
        wire.run()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wire", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1, help="of the order in each round")
    parser.add_argument("--receive", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--send", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--carry", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.receive:
        return receive()
    if asked.send is not None:
        return send(asked.send)
    if asked.carry is not None:
        return carry(asked.carry, asked.seconds)
    measured: dict[str, list[float]] = {way: [] for way in WAYS}
    order = list(WAYS)
    for number in range(asked.rounds):
        random.Random(f"{asked.seed}/{number}").shuffle(order)
        for way in order:
            command = ["-m", "benchmarks.wire", "--carry", way, "--seconds", str(asked.seconds)]
            done = subprocess.run(
                [sys.executable, *command],
                stdout=subprocess.PIPE,
                check=True,
                cwd=Path(__file__).resolve().parents[1],
            )
            measured[way].append(float(done.stdout))
    print("| between two hosts | Mbit/s of TCP | to the loop |\n| --- | --- | --- |")
    for way, figures in measured.items():
        ratios = [figure / bare for figure, bare in zip(figures, measured[BARE], strict=True)]
        print(f"| {way} | {statistics.median(figures):,.0f} | {statistics.median(ratios):.2f} |")
    return None


if __name__ == "__main__":
    main()
