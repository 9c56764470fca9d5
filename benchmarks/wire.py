"""Compare TCP over a wire with a bare copy loop of fifteen lines: `python -m benchmarks.wire`.

A sender and a receiver run in two hosts, with this process between them. Each round measures every variant
once, in an order that changes. Results are the median throughput over rounds, the median of its ratio to the
bare loop in the same round (because a busy machine slows all variants down), and this process's CPU time per
packet. Without arguments it writes wire.md, in less than three minutes.

Hosts segment their data into packets, as for a real cable. If no toxic needs packets, segmentation is left to
the wire (`offload`: as segmentation offload of a NIC), and likewise for one of the loops.
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
MAX_FRAME = 66 * 1024  # bytes of an unsegmented packet and the header before it


@dataclass(frozen=True)
class Variant:
    """A way to carry packets between the hosts."""

    name: str
    toxics: dict[str, str] = field(default_factory=dict, hash=False)
    bare: bool = False
    offload: bool = False
    veth: bool = False
    observed: bool = False


BASELINE = Variant("a loop of 15 lines", bare=True)
VARIANTS = (
    BASELINE,
    Variant("the same, with segmentation offload", bare=True, offload=True),
    Variant("no toxic", offload=True),
    Variant("no toxic, veth", offload=True, veth=True),
    Variant("no toxic, with an observer of each packet", observed=True),
    Variant("latency 5 ms", {"latency": "5ms"}),
    Variant("latency 5 ms, loss 0.1 %", {"latency": "5ms", "loss": "0.1%"}),
    Variant("latency 5 ms, loss 1 %", {"latency": "5ms", "loss": "1%"}),
    Variant("latency 5 ms, loss 1 %, veth", {"latency": "5ms", "loss": "1%"}, veth=True),
)


class CopyLoop(Wire):
    """The baseline: copies packets without inspecting or counting them."""

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
    """The same, with segmentation by the hosts."""

    def _update_fast_path(self) -> None:
        """Do not enable segmentation offload."""


def receive() -> None:
    """Receive from one connection until EOF. Prints the number of bytes and seconds."""
    with socket.create_server(("0.0.0.0", PORT)) as listener:
        connection, _ = listener.accept()
        with connection:
            count = len(connection.recv(1 << 18))
            started = time.monotonic()
            while data := connection.recv(1 << 18):
                count += len(data)
    print(json.dumps([count, time.monotonic() - started]), flush=True)


def send(seconds: float) -> None:
    """Send for a number of seconds."""
    data = bytes(1 << 17)
    until = time.monotonic() + seconds
    with socket.create_connection(("10.0.0.1", PORT)) as connection:
        while time.monotonic() < until:
            connection.sendall(data)


def run_variant(variant: Variant, seconds: float) -> None:
    """Run one measurement, in its own process. The receiver prints its figures first, then this process."""
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
    observe = (lambda event: None) if variant.observed else None
    with kind(hosts, specs, seed=1, veth=variant.veth or None, observe=observe) as wire:
        before = time.process_time()
        wire.run()
        used = time.process_time() - before
    print(json.dumps([used, sum(each.sent for each in wire.switch.links.values())]))


def measure(variant: Variant, seconds: float) -> tuple[float, float]:
    """Return the TCP throughput in Mbit/s, and this process's CPU time per packet in us (0: no packets)."""
    command = [sys.executable, "-m", "benchmarks.wire", "--carry", variant.name, "--seconds", str(seconds)]
    result = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=HERE.parent)
    (count, took), (used, packets) = (json.loads(line) for line in result.stdout.splitlines())
    return count * 8 / 1e6 / took, used * 1e6 / packets if packets else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wire", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--seed", type=int, default=1, help="seed of the order in each round")
    parser.add_argument("--receive", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--send", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--carry", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.receive:
        return receive()
    if arguments.send is not None:
        return send(arguments.send)
    if arguments.carry is not None:
        return run_variant(next(each for each in VARIANTS if each.name == arguments.carry), arguments.seconds)
    measured: dict[Variant, list[tuple[float, float]]] = {variant: [] for variant in VARIANTS}
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
        for variant in random.Random(f"{arguments.seed}/{number}").sample(VARIANTS, len(VARIANTS)):
            measured[variant].append(measure(variant, arguments.seconds))
    host = host_info()
    lines = [
        "# TCP over a wire",
        "",
        f"`python -m benchmarks.wire`: {host['kernel']}, {host['processors']}, {host['python']};",
        f"medians of {arguments.rounds} rounds of {arguments.seconds:g} s;",
        f"load average {host['load average']};",
        f"congestion control {host.get('net.ipv4.tcp_congestion_control', 'unknown')}.",
        "",
        "| variant | Mbit/s of TCP | ratio to the loop | CPU us/packet |",
        "| --- | --- | --- | --- |",
    ]
    for variant, figures in measured.items():
        ratio = statistics.median(
            own / loop for (own, _), (loop, _) in zip(figures, measured[BASELINE], strict=True)
        )
        speed, cost = (statistics.median(values) for values in zip(*figures, strict=True))
        lines.append(f"| {variant.name} | {speed:,.0f} | {ratio:.2f} | {f'{cost:.2f}' if cost else '-'} |")
    text = "\n".join([*lines, ""])
    if not sys.argv[1:]:
        (HERE / "wire.md").write_text(text, encoding="utf-8")
    print(text)
    return None


if __name__ == "__main__":
    main()
