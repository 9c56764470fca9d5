"""`bothends attack` on real servers: one that holds, and ones with one mistake each that must be found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bothends.osutil.reexec import self_command

UPPER = [*self_command(), "serve", "upper", "tcp://127.0.0.1:{port}", "-q", "--engine", "epoll"]

# A server for one client at a time, with a place for one mistake.
SERVER = """
import os, socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128)
while True:
    client, _ = server.accept()
    try:
        data = client.recv(4096)
        {mistake}
        client.sendall(data.upper())
        client.close()
    except OSError:
        {on_error}
"""
MISTAKES = {
    "garbage": ("data.decode('ascii')", "client.close()", "the server ended"),
    "reset-storm": ("pass", "os._exit(3)", "the server ended: exit status 3"),
    "idle-crowd": ("pass", "client.close()", "got no answer"),
    "half-closes": ("data or leaked.append(client.dup())", "client.close()", "more descriptors"),
}


def attack(*arguments: str, status: int = 0) -> dict[str, Any]:
    """Run the command and return its JSON."""
    command = [*self_command(), "attack", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_server_that_holds_is_held() -> None:
    result = attack("--only", "reset-storm", "--duration", "0.5", "--", *UPPER)
    (outcome,) = result["outcomes"]
    # On a busy machine the latencies are those of the machine.
    assert outcome["hold"] == "held" or outcome["reason"].startswith("p99 of honest requests"), outcome
    assert outcome["counts"]["resets"] > 20
    assert outcome["attacked"]["wrong"] == 0
    assert outcome["server"]["before"]["descriptors"] > 3
    assert outcome["ending"].startswith("exit status 0")
    assert "capitals" in result["compared"]


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_found(name: str, tmp_path: Path) -> None:
    mistake, on_error, reason = MISTAKES[name]
    program = tmp_path / "server.py"
    program.write_text("leaked = []\n" + SERVER.format(mistake=mistake, on_error=on_error), encoding="utf-8")
    command = [sys.executable, str(program), "{port}"]
    status = 0 if name == "half-closes" else 1
    result = attack("--only", name, "--duration", "2.5", "--", *command, status=status)
    (outcome,) = result["outcomes"]
    assert reason in "; ".join([outcome["reason"], *outcome["others"]]), outcome
    assert outcome["hold"] == ("degraded" if name == "half-closes" else "failed")
    assert outcome["meaning"]


@pytest.mark.slow
def test_datagram_server_is_attacked_with_every_size() -> None:
    serve = [*self_command(), "serve", "echo", "udp://127.0.0.1:{port}", "-q"]
    result = attack("udp://127.0.0.1:{port}", "--duration", "0.5", "--", *serve)
    assert [each["attack"] for each in result["outcomes"]] == ["datagram-sizes", "datagram-vanishing"]
    assert result["outcomes"][0]["counts"]["sizes"] > 50


@pytest.mark.slow
def test_interrupt_ends_at_once_and_leaves_nothing_running() -> None:
    command = [*self_command(), "attack", "--only", "idle-crowd", "--duration", "60", "--", *UPPER]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    started: list[int] = []
    while len(started) < 3 and process.poll() is None:  # the reaper, the server and the attacker
        started = [int(word) for word in children.read_text(encoding="ascii").split()]
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "nothing attacked" in output
    assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []


@pytest.mark.spread("arguments", "complaint", one_in=3)
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["192.0.2.1", "80"], "--i-may 192.0.2.1"),
        (["--i-may", "192.0.2.2", "192.0.2.1", "80"], "is not the address 192.0.2.1"),
        (["udp://255.255.255.255:80"], "never attacked"),
        (["udp://[ff02::1]:80"], "never attacked"),
        (["sctp://127.0.0.1:80"], "can't be attacked"),
        (["--only", "resetstorm", "127.0.0.1", "80"], "did you mean 'reset-storm'?"),
        (["--request", r"\q", "127.0.0.1", "80"], r"\q is not an escape"),
        (["--contract", "chargen-tcp", "127.0.0.1", "80"], "without an end"),
        (["--report", "pdf", "127.0.0.1", "80"], "no report format 'pdf'"),
        ([], "no server to attack"),
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], complaint: str) -> None:
    command = [*self_command(), "attack", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
