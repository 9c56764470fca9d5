"""`trace --wire`: the calls of both ends, and what became of each packet between them."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

from tests.interop.ours import BOTHENDS
from tests.interop.running import ENVIRONMENT, PATIENCE, run
from tests.tools import needs_tool
from tests.wire.hosts import needs_hosts

pytestmark = [needs_tool("strace"), needs_hosts]

PYTHON = [sys.executable, "-I", "-S", "-c"]  # without site-packages: it starts in a third of the time

SINK = """
import socket
with socket.create_server(("10.0.0.1", 7000)) as welcoming:
    with welcoming.accept()[0] as connection:
        heard = 0
        while data := connection.recv(65536):
            heard += len(data)
        connection.sendall(b"%d" % heard)
"""
SOURCE = """
import socket
with socket.create_connection(("10.0.0.1", 7000)) as connection:
    connection.sendall(bytes(30_000))
    connection.shutdown(socket.SHUT_WR)
    print("heard of", int(connection.recv(100)))
"""


def test_what_is_lost_is_marked_and_sent_again(tmp_path: Path) -> None:
    saved = tmp_path / "run.trace"
    ends = ["--server", shlex.join([*PYTHON, SINK]), "--client", shlex.join([*PYTHON, SOURCE])]
    wire = "loss=up:20%,delay=1ms,seed=2"
    shown = run([*BOTHENDS, "trace", "--wire", wire, "--save", str(saved), *ends]).decode()
    assert "heard of 30000" in shown
    assert "loss ✗" in shown
    assert "(again: " in shown
    records = [json.loads(line) for line in saved.read_text(encoding="utf-8").splitlines()]
    packets = {each["packet"]["number"]: each["packet"] for each in records if "packet" in each}
    lost = [each for each in packets.values() if each.get("lost")]
    assert {(each["lost"], each["interface"]) for each in lost} == {("loss", "client")}
    arrived = {
        (each["interface"], each["offset"])
        for each in packets.values()
        if each["size"] and not each.get("lost")
    }
    # Whatever had data in it went over the wire once more, until it arrived.
    assert {(each["interface"], each["offset"]) for each in lost if each["size"]} <= arrived


def test_a_path_that_makes_no_sense_is_one_clear_line() -> None:
    for wire, said in (("lost=5%", "loss"), ("loss=much", "much")):
        done = subprocess.run(
            [*BOTHENDS, "trace", "--wire", wire, "--server", "true", "--client", "true"],
            capture_output=True, timeout=PATIENCE, env=ENVIRONMENT, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
        assert said in done.stderr.decode()
