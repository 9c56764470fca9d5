"""`--wire` and `--host`: `serve`, `connect` and `bench` in a host of a running wire, and of a new one."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bothends.osutil import process_info
from bothends.wire import attach
from tests.cli.terminals import terminal
from tests.cli.test_prompt import CTRL_D, PROMPT
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import ENVIRONMENT, TIMEOUT, Running, run
from tests.wire.hosts import BOTHENDS as LINE
from tests.wire.hosts import needs_hosts

pytestmark = needs_hosts

ECHO = f"{LINE} serve -q echo tcp://:12000 2> /dev/null"
NOBODY_UID = 65534


def cli_error(*arguments: str, status: int = 2) -> str:
    """Run an invalid command line; return its single error line."""
    done = subprocess.run(
        [*BOTHENDS, *arguments], capture_output=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT,
        env=ENVIRONMENT, check=False, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.fixture
def wire() -> Iterator[Running]:
    """Run a wire with an echo server, and a client that does nothing."""
    hosts = ["--host", f"server={ECHO}", "--host", "client=echo ready; exec sleep 600"]
    with Running([*BOTHENDS, "wire", "-q", *hosts]) as running:
        running.text(rb"ready")
        yield running


def host_of(host: str, wire: Running) -> str:
    return f"{host}@{wire.process.pid}"


def test_connect_in_host_of_running_wire(wire: Running) -> None:
    client = ["--host", host_of("client", wire)]
    assert run([*BOTHENDS, "connect", *client, "--send", "hello", "tcp://server:12000"]) == b"hello\n"
    assert run([*BOTHENDS, "connect", *client, "10.0.0.1", "12000"], b"a pipe\n") == b"a pipe\n"
    measured = run(
        [*BOTHENDS, "bench", *client, "--duration", "0.2", "--warmup", "0", "--json", "tcp://server:12000"]
    )
    assert json.loads(measured)["entries"][0]["target"] == "tcp://server:12000"


def test_serve_in_host_of_running_wire(wire: Running) -> None:
    with Running(
        [*BOTHENDS, "serve", "--host", host_of("client", wire), "upper", "tcp://10.0.0.2:80"]
    ) as server:
        server.error_line(rb"  engine .*")
        client = [
            *BOTHENDS,
            "connect",
            "--host",
            host_of("server", wire),
            "--send",
            "hello",
            "tcp://client:80",
        ]
        assert run(client) == b"HELLO\n"
        server.process.send_signal(signal.SIGTERM)  # which is forwarded
        assert server.wait() == 0
        assert "upper  answers" in str(server.stderr)


def test_prompt_in_host_of_running_wire(wire: Running, tmp_path: Path) -> None:
    with terminal(
        "connect", "--host", host_of("client", wire), "tcp://server:12000", state=tmp_path
    ) as screen:
        screen.expect(PROMPT)
        screen.type("hello\r")
        screen.expect("> hello\r\n")
        screen.expect("hello\r\n")
        screen.expect(PROMPT)
        screen.type(CTRL_D)
        screen.expect("the peer closed the connection")
        assert screen.wait() == 0


def child_pids(process: int) -> list[int]:
    """Return the PIDs of a process's children."""
    return [each.pid for each in process_info.all_processes() if each.parent == process]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_process_in_host_ends_with_wire_and_with_parent(wire: Running) -> None:
    serve = [*BOTHENDS, "serve", "--host", host_of("client", wire), "echo", "tcp://:7001"]
    with Running(serve) as server:
        server.error_line(rb"  engine .*")
        (inside,) = child_pids(server.process.pid)
        server.process.kill()
        server.wait()
        wait_until(lambda: process_info.read_process(inside) is None)
    with Running(serve) as server:
        server.error_line(rb"  engine .*")
        wire.process.kill()
        assert server.wait() == 128 + signal.SIGKILL
        assert f"in wire {wire.process.pid} is when the wire ends" in str(server.stderr)
    assert wire.process.pid not in attach.running_wires()


def test_unknown_host_is_rejected(wire: Running) -> None:
    error = cli_error("connect", "--host", host_of("router", wire), "tcp://server:12000")
    assert f"{wire.process.pid}: server, client" in error
    assert "no running wire 1 of yours" in cli_error("connect", "--host", "client@1", "tcp://server:12000")


def test_ambiguous_host_name_is_rejected(wire: Running) -> None:
    name = f"h{os.getpid()}"
    hosts = ["--host", "other=true", "--host", f"{name}=echo ready; exec sleep 600"]
    with (
        Running([*BOTHENDS, "wire", "-q", *hosts]) as one,
        Running([*BOTHENDS, "wire", "-q", *hosts]) as other,
    ):
        one.text(rb"ready")
        other.text(rb"ready")
        error = cli_error("connect", "--host", name, "tcp://other:1")
        assert f"{name}@{one.process.pid}" in error
        assert f"{name}@{other.process.pid}" in error
        assert run([*BOTHENDS, "connect", "--host", host_of(name, one), "--resolve", name])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to switch users")
def test_other_user_cannot_enter_wire(wire: Running) -> None:
    program = f"""
import socket
from bothends.osutil import namespaces
from bothends.wire import attach
import bothends.wire.attach
os = bothends.wire.attach.os
pid = {wire.process.pid}
assert pid in attach.running_wires()
assert attach._request_namespaces(pid) is None  # another user's
os.geteuid = lambda: 0
found = attach._request_namespaces(pid)
for each in found._descriptors:
    try:
        namespaces.enter(each)
    except PermissionError:
        print("EPERM")
"""
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], user=NOBODY_UID, group=NOBODY_UID, extra_groups=[], cwd="/",
            capture_output=True, check=True, text=True, timeout=TIMEOUT,
        )  # fmt: skip
    except PermissionError:
        pytest.skip("other users cannot run this checkout")
    assert done.stdout.split() == ["EPERM"] * 5


def test_new_wire_for_connect_bench_and_serve() -> None:
    server, wire = ["--host", f"server={ECHO}"], ["--wire", "delay=20ms,seed=3"]
    assert (
        run([*BOTHENDS, "connect", *wire, *server, "--send", "--wire", "tcp://server:12000"]) == b"--wire\n"
    )
    bench = ["bench", "--duration", "0.3", "--warmup", "0", "--json", *wire, *server, "tcp://server:12000"]
    measured = json.loads(run([*BOTHENDS, *bench]))
    assert measured["command"] == shlex.join(["bothends", *bench])
    assert measured["entries"][0]["rounds"][0]["uncorrected"]["mean_us"] >= 40_000  # 20 ms in each direction
    client = f"client={LINE} connect --send hello tcp://server:12000; hostname"
    assert run([*BOTHENDS, "serve", "-q", *wire, "--host", client, "upper", "tcp://:12000"]).startswith(
        b"HELLO\n"
    )


def test_new_wire_host_name_and_exit_status() -> None:
    words = ["connect", "--wire", "mtu=1400", "--host", f"server={ECHO}", "--host", "me"]
    assert b"10.0.0.2" in run([*BOTHENDS, *words, "--resolve", "me"])
    done = subprocess.run(
        [*BOTHENDS, *words, "tcp://server:1"],
        capture_output=True,
        check=False,
        env=ENVIRONMENT,
        timeout=TIMEOUT,
    )
    assert done.returncode == 1
    assert b"ECONNREFUSED" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--wire", "delay=1ms"], "--wire needs another host"),
        (["--wire", "delay=much", "--host", "a=true"], "much"),
        (["--wire", "delay=1ms", "--host", "a=true", "--host", "client=true"], "two hosts have this name"),
        (["--host", "a=true"], "without --wire"),
        (["--host", "a", "--host", "b"], "without --wire"),
        (["--host", "a@here"], "a@1234"),
    ],
)
def test_usage_errors(arguments: list[str], message: str) -> None:
    assert message in cli_error("connect", *arguments, "tcp://server:1")


@pytest.mark.parametrize(("setting", "wanted"), [("mtu=9000", "68 to 1500"), ("seed=x", "a number")])
def test_invalid_wire_setting_error_names_range(setting: str, wanted: str) -> None:
    words = ["connect", "--wire", setting, "--host", "server=true", "tcp://server:12000"]
    assert f"--wire: {setting}: expected {wanted}" in cli_error(*words)
