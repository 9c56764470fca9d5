"""`trace --wire`: the calls of both ends, and the fate of each packet between them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bothends.trace.capture.packets import FLAGS
from bothends.wire import attach
from tests.cli.test_wire_options import wait_until
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import ENVIRONMENT, TIMEOUT, Running, run
from tests.tools import find_tool, needs_tool
from tests.trace.running import saved_lines
from tests.wire.hosts import needs_hosts
from tests.wire.test_cleanup import holder_and_supervisor

pytestmark = [needs_tool("strace"), needs_hosts]

PYTHON = [sys.executable, "-I", "-S", "-c"]  # without site-packages: it starts in a third of the time

SINK = """
import socket
with socket.create_server(("10.0.0.1", 7000)) as listener:
    with listener.accept()[0] as connection:
        received = 0
        while data := connection.recv(65536):
            received += len(data)
        connection.sendall(b"%d" % received)
"""
SOURCE = """
import socket
with socket.create_connection(("10.0.0.1", 7000)) as connection:
    connection.sendall(bytes(30_000))
    connection.shutdown(socket.SHUT_WR)
    print("received:", int(connection.recv(100)))
"""


def test_lost_packet_is_marked_and_retransmitted(tmp_path: Path) -> None:
    saved = tmp_path / "run.trace"
    ends = ["--server", shlex.join([*PYTHON, SINK]), "--client", shlex.join([*PYTHON, SOURCE])]
    wire = "loss=up:20%,delay=1ms,seed=2"
    shown = run([*BOTHENDS, "trace", "--wire", wire, "--save", str(saved), *ends]).decode()
    assert "received: 30000" in shown
    assert "loss ✗" in shown
    assert "(resent: " in shown
    records = [json.loads(line) for line in saved_lines(saved)]
    packets = {each["packet"]["number"]: each["packet"] for each in records if "packet" in each}
    lost = [each for each in packets.values() if each.get("lost")]
    assert {(each["lost"], each["interface"]) for each in lost} == {("loss", "client")}
    arrived = {
        (each["interface"], each["offset"])
        for each in packets.values()
        if each["size"] and not each.get("lost")
    }
    # Every lost segment with data was retransmitted until it arrived.
    assert {(each["interface"], each["offset"]) for each in lost if each["size"]} <= arrived


def test_invalid_wire_is_one_line() -> None:
    for wire, message in (("lost=5%", "loss"), ("loss=much", "much")):
        done = subprocess.run(
            [*BOTHENDS, "trace", "--wire", wire, "--server", "true", "--client", "true"],
            capture_output=True, timeout=TIMEOUT, env=ENVIRONMENT, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
        assert message in done.stderr.decode()


IN_THE_HOST = """
import os, sys
from bothends.wire import attach
with attach.find_wire("client", int(sys.argv[1])) as inside:
    status = inside.enter("client")
    if status is None:
        os.execvp(sys.argv[2], sys.argv[2:])
sys.exit(status if status >= 0 else 128 - status)
"""
FIELDS = ("ip.src", "tcp.srcport", "tcp.seq_raw", "tcp.ack_raw", "tcp.flags", "tcp.len")


def tshark_packets(capture: Path) -> list[tuple[str, ...]]:
    """Return the segments on the client's interface, in order. The file may still be growing."""
    fields = [word for field in FIELDS for word in ("-e", field)]
    done = subprocess.run(
        [str(find_tool("tshark")), "-n", "-r", str(capture), "-Y", "tcp", "-T", "fields", *fields],
        capture_output=True, timeout=TIMEOUT, check=False, text=True,
    )  # fmt: skip
    return [tuple(line.split("\t")) for line in done.stdout.splitlines()]


def both_fins_seen(seen: list[tuple[str, ...]]) -> bool:
    """Whether both ends have sent a FIN."""
    return {each[0] for each in seen if int(each[4], 16) & 1} == {"10.0.0.1", "10.0.0.2"}


def segment(packet: dict[str, Any]) -> tuple[str, ...]:
    """Return the same fields of a packet in a trace."""
    flags = sum(1 << FLAGS.index(name) for name in packet.get("flags", ()))
    host, port = packet["source"]
    numbers = (port, packet["sequence"], packet.get("acknowledged", 0), f"0x{flags:04x}", packet["size"])
    return (host, *map(str, numbers))


@pytest.mark.slow
@needs_tool("curl")
@needs_tool("tshark")
def test_packets_match_tshark_in_host(tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(bytes(range(256)) * 400)
    (tmp_path / "client.sh").write_text(
        "until [ -e go ]; do sleep 0.02; done\n"
        "curl -s --no-keepalive -o got http://10.0.0.1:8000/page; echo got $?\n"
        "until [ -e stop ]; do sleep 0.02; done\n"
    )
    saved, capture = tmp_path / "run.trace", tmp_path / "seen.pcap"
    serve = shlex.join([sys.executable, "-m", "http.server", "-b", "10.0.0.1", "8000"])
    written = tmp_path / "run.pcapng"
    command = ["trace", "--wire", "loss=5%,delay=1ms,duplicate=5%,seed=3"]
    command += ["--save", str(saved), "--pcapng", str(written)]
    ends = ["--server", serve, "--client", "sh client.sh"]
    with Running([*BOTHENDS, *command, *ends], cwd=tmp_path, env=ENVIRONMENT) as traced:
        wait_until(lambda: traced.process.pid in attach.running_wires())
        # dumpcap is tshark's capture program; it prints "File" once it captures.
        listen = ["dumpcap", "-q", "-i", "eth0", "-f", "tcp", "-w", str(capture)]
        with Running([sys.executable, "-c", IN_THE_HOST, str(traced.process.pid), *listen]) as dumpcap:
            dumpcap.error_line(rb"File: .*")
            (tmp_path / "go").touch()
            traced.text(rb"got 0")
            wait_until(lambda: both_fins_seen(tshark_packets(capture)))
            dumpcap.process.send_signal(signal.SIGINT)
            assert dumpcap.wait() == 0
            (tmp_path / "stop").touch()
        assert traced.wait() == 0
    assert (tmp_path / "got").read_bytes() == (tmp_path / "page").read_bytes()
    records = [json.loads(line) for line in saved_lines(saved)]
    packets = [each["packet"] for each in records if "packet" in each]  # on departure, and on arrival
    found = {each["number"]: each for each in packets}.values()
    departed = [segment(each) for each in found if each["interface"] == "client" and not each.get("made")]
    ended = {each["number"]: each for each in reversed(packets) if each.get("until")}
    received = [
        each for each in reversed(ended.values()) if each["reaches"] == "client" and not each.get("lost")
    ]
    arrived = [segment(each) for each in received]
    assert any(each.get("lost") for each in found)
    seen = tshark_packets(capture)
    assert both_fins_seen(seen)
    # tshark may have been terminated before it saw the segments after the FINs.
    for host, traced_segments in (("10.0.0.2", departed), ("10.0.0.1", arrived)):
        captured = [each for each in seen if each[0] == host]
        assert traced_segments[: len(captured)] == captured
    shown = run([str(find_tool("tshark")), "-r", str(written), "-T", "fields", "-e", "frame.interface_name"])
    assert set(shown.decode().split()) == {"client", "server"}


def test_wire_failure_ends_trace() -> None:
    """The wire's supervisor is killed, and all programs with it: the trace ends with an error."""
    ends = ["--server", shlex.join([*PYTHON, SINK]), "--client", "sleep 600"]
    with Running([*BOTHENDS, "trace", "--wire", "delay=1ms", *ends]) as traced:
        traced.text(rb"listen\(")
        _, supervisor = holder_and_supervisor(traced.process.pid)
        os.kill(supervisor, signal.SIGKILL)
        assert traced.wait() == 1
        assert "the wire's supervisor" in str(traced.stderr)
