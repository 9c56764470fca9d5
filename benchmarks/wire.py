"""TCP over a wire, beside a loop of fifteen lines that only copies: `python -m benchmarks.wire`.

Two hosts, a sender in one and a receiver in the other, and this process between them. Each round measures
every way once, in an order that changes; what counts is the median over rounds, beside it the median of the
ratio to the bare loop in the same round, for a busy machine slows all of them down, and our processor time
for each packet. Without arguments the page is written, in less than three minutes.

Hosts cut what they send into packets, as for a cable; where nothing looks at packets they leave that to us,
and so they do for one of the loops (`offload`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.priority import raise_priority
from bothends.bench.host_info import host_info
from bothends.toxics import registry
from bothends.toxics.attributes import parse_attributes
from bothends.toxics.placement import DIRECTIONS, PlacedToxic
from bothends.wire import HostCommand, Wire, build_topology

HERE = Path(__file__).resolve().parent
PORT = 7000
MAX_FRAME = 66 * 1024  # bytes of a packet that has not been cut, and of the header before it


@dataclass(frozen=True)
class Variant:
    """How packets are carried."""

    name: str
    toxics: dict[str, str] = field(default_factory=dict, hash=False)
    bare: bool = False
    offload: bool = False
    veth: bool = False
    observed: bool = False


BASELINE = Variant("a loop of 15 lines", bare=True)
VARIANTS = (
    BASELINE,
    Variant("the same, hosts leave segmentation to it", bare=True, offload=True),
    Variant("no toxic", offload=True),
    Variant("no toxic, veth", offload=True, veth=True),
    Variant("no toxic, each packet told to an observer", observed=True),
    Variant("latency 5 ms", {"latency": "5ms"}),
    Variant("latency 5 ms, loss 0.1 %", {"latency": "5ms", "loss": "0.1%"}),
    Variant("latency 5 ms, loss 1 %", {"latency": "5ms", "loss": "1%"}),
    Variant("latency 5 ms, loss 1 %, veth", {"latency": "5ms", "loss": "1%"}, veth=True),
)


class CopyLoop(Wire):
    """What the others are compared with: nothing is looked at, nothing counted."""

    def _forward_until(self, deadline: float, condition: Callable[[], bool]) -> None:
        one, other = (port.fileno() for port in self._ports)
        assert self._control is not None
        to = {one: other, other: one}
        waited: list[socket.socket | int] = [self._control, one, other]
        while not condition() and time.monotonic() < deadline:
            for each in select.select(waited, [], [], 1)[0]:
                if not isinstance(each, int):
                    self._receive()
                    continue
                with contextlib.suppress(BlockingIOError):
                    for _ in range(64):
                        os.write(to[each], os.read(each, MAX_FRAME))


class SegmentedCopyLoop(CopyLoop):
    """The same; hosts cut what they send themselves."""

    def _update_fast_path(self) -> None:
        """They are asked for nothing else."""


def receive() -> None:
    """Take one connection's bytes; show how many came, and in how many seconds."""
    with socket.create_server(("0.0.0.0", PORT)) as listener:
        connection, _ = listener.accept()
        with connection:
            count = len(connection.recv(1 << 18))
            begun = time.monotonic()
            while data := connection.recv(1 << 18):
                count += len(data)
    print(json.dumps([count, time.monotonic() - begun]), flush=True)


def send(seconds: float) -> None:
    """Send for so long."""
    data = bytes(1 << 17)
    until = time.monotonic() + seconds
    with socket.create_connection(("10.0.0.1", PORT)) as connection:
        while time.monotonic() < until:
            connection.sendall(data)


def run_variant(variant: Variant, seconds: float) -> None:
    """One measurement, in a process of its own: the receiver shows its figures, then we show ours."""
    raise_priority()
    specs = [
        PlacedToxic(f"{name}_{direction}", direction, parse_attributes(registry.load(name), text))
        for name, text in variant.toxics.items()
        for direction in DIRECTIONS
    ]
    run = (sys.executable, "-m", "benchmarks.wire")
    hosts = build_topology(
        [
            HostCommand("server", (*run, "--receive"), no_shell=True),
            HostCommand("client", (*run, "--send", str(seconds)), no_shell=True),
        ]
    )
    kind = (CopyLoop if variant.offload else SegmentedCopyLoop) if variant.bare else Wire
    observe = (lambda passage: None) if variant.observed else None
    with kind(hosts, specs, seed=1, veth=variant.veth or None, observe=observe) as wire:
        before = time.process_time()
        wire.run()
        used = time.process_time() - before
    print(json.dumps([used, sum(each.sent for each in wire.switch.links.values())]))


def measure(variant: Variant, seconds: float) -> tuple[float, float]:
    """Megabits of TCP a second, and microseconds of our processor for each packet; without them 0."""
    command = [sys.executable, "-m", "benchmarks.wire", "--carry", variant.name, "--seconds", str(seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=HERE.parent)
    (count, took), (used, packets) = (json.loads(line) for line in done.stdout.splitlines())
    return count * 8 / 1e6 / took, used * 1e6 / packets if packets else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wire", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
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
        return run_variant(next(way for way in VARIANTS if way.name == asked.carry), asked.seconds)
    measured: dict[Variant, list[tuple[float, float]]] = {way: [] for way in VARIANTS}
    for number in range(asked.rounds):
        print(f"round {number + 1} of {asked.rounds}", file=sys.stderr)
        for way in random.Random(f"{asked.seed}/{number}").sample(VARIANTS, len(VARIANTS)):
            measured[way].append(measure(way, asked.seconds))
    here = host_info()
    lines = [
        "# TCP over a wire",
        "",
        f"`python -m benchmarks.wire`: {here['kernel']}, {here['processors']}, {here['python']};",
        f"medians of {asked.rounds} rounds of {asked.seconds:g} s, load average {here['load average']};",
        f"congestion control {here.get('net.ipv4.tcp_congestion_control', 'unknown')}.",
        "",
        "| between two hosts | Mbit/s of TCP | to the loop | our us a packet |",
        "| --- | --- | --- | --- |",
    ]
    for way, figures in measured.items():
        ratio = statistics.median(
            own / loop for (own, _), (loop, _) in zip(figures, measured[BASELINE], strict=True)
        )
        speed, cost = (statistics.median(values) for values in zip(*figures, strict=True))
        lines.append(f"| {way.name} | {speed:,.0f} | {ratio:.2f} | {f'{cost:.2f}' if cost else '-'} |")
    text = "\n".join([*lines, ""])
    if not sys.argv[1:]:
        (HERE / "wire.md").write_text(text, encoding="utf-8")
    print(text)
    return None


if __name__ == "__main__":
    main()
