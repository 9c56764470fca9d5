"""Wires with real hosts, over TUN devices and veth pairs, as root and as another user."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.interop.running import ENVIRONMENT, ROOT, TIMEOUT
from tests.tools import needs_tool
from tests.wire.hosts import BOTHENDS, needs_hosts, needs_tun, program

pytestmark = needs_hosts

NOBODY = 65534
DEVICE_KINDS = [pytest.param([], marks=needs_tun, id="tun"), pytest.param(["--veth"], id="veth")]


def run_wire(
    *arguments: str, status: int = 0, user: int | None = None, timeout: float = TIMEOUT * 2
) -> subprocess.CompletedProcess[str]:
    """Run `bothends wire` to its end, and check its exit status."""
    done = subprocess.run(
        [sys.executable, "-m", "bothends", "wire", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=ENVIRONMENT,
        cwd=ROOT if user is None else "/",
        check=False,
        **({} if user is None else {"user": user, "group": user, "extra_groups": []}),  # type: ignore[call-overload]
    )
    assert done.returncode == status, f"exited with {done.returncode}:\n{done.stdout}{done.stderr}"
    assert isinstance(done, subprocess.CompletedProcess)
    return done


def two_hosts(server: str, client: str) -> list[str]:
    return ["--host", f"server={server}", "--host", f"client={client}"]


@pytest.mark.parametrize("options", DEVICE_KINDS)
def test_tcp_with_loss_is_retransmitted_and_complete(options: list[str]) -> None:
    arguments = ["--loss", "5%", "--delay", "2ms", "--reorder", "5%", "--seed", "4", *options]
    done = run_wire(
        *arguments, *two_hosts(program("sink.py", 7000), program("source.py", "server", 7000, 1_000_000))
    )
    received = re.search(r"received (\d+) (\w+)", done.stdout)
    sent = re.search(r"sent (\d+) (\w+) (\d+) (\d+)", done.stdout)
    assert received, done.stdout + done.stderr
    assert sent, done.stdout + done.stderr
    assert received.groups() == sent.groups()[:2]
    assert int(sent[3]) > 0  # the kernel's own count: TCP_INFO
    dropped = re.search(r"client -> server: .*loss dropped (\d+)", done.stderr)
    assert dropped
    assert int(dropped[1]) > 0


@pytest.mark.spread("options", one_in=2)
@pytest.mark.parametrize("options", DEVICE_KINDS)
def test_same_seed_loses_same_datagrams(options: list[str], tmp_path: Path) -> None:
    lost = []
    for seed in ("7", "7") if options else ("7", "7", "8"):
        record = tmp_path / "record"
        arguments = ["-q", "--loss", "20%", "--seed", seed, "--record", str(record), *options]
        done = run_wire(
            *arguments, *two_hosts(program("echo.py", 7000), program("probe.py", "server", 7000, 50, 1))
        )
        unanswered = done.stdout.split()
        events = [json.loads(line) for line in record.read_text().splitlines()]
        lost_packets = sorted(
            (each["from"], each["number"], each["toxic"]) for each in events if each["event"] == "lost"
        )
        assert len(unanswered) == len(lost_packets)
        lost.append((unanswered, lost_packets))
    assert lost[0] == lost[1]
    assert lost[0][0]
    assert lost[2:] != lost[:1]


@needs_tool("curl")
def test_curl_and_http_server() -> None:
    serve = f"{sys.executable} -m http.server --bind 10.0.0.1 8000 > /dev/null 2>&1"
    done = run_wire("-q", "--delay", "5ms", *two_hosts(serve, "curl -s http://server:8000/pyproject.toml"))
    assert done.stdout == (ROOT / "pyproject.toml").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")
def test_wire_as_unprivileged_user() -> None:
    try:
        subprocess.run([sys.executable, "-c", "import bothends"], user=NOBODY, check=True, cwd="/")
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("another user can't run this checkout")
    ping = f"{BOTHENDS} ping server -c 1 > /dev/null && id -u && cat /proc/sys/kernel/hostname"
    done = run_wire(
        "-q", *two_hosts(f"{BOTHENDS} serve -q discard tcp://:80 2> /dev/null", ping), user=NOBODY
    )
    assert done.stdout.splitlines() == [str(NOBODY), "client"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_tcp_large_transfer_with_heavy_loss() -> None:
    client = program("source.py", "server", 7000, 100_000_000)
    arguments = ["--loss", "20%", "--reorder", "10%", "--delay", "1ms", "--seed", "5"]
    done = run_wire(*arguments, *two_hosts(program("sink.py", 7000), client), timeout=500)
    received = re.search(r"received (\d+) (\w+)", done.stdout)
    sent = re.search(r"sent (\d+) (\w+)", done.stdout)
    assert received
    assert sent
    assert received.groups() == sent.groups()


def test_line_topology_routes_and_decrements_ttl() -> None:
    ping = f"{BOTHENDS} ping server -c 1 -W 5 %s; "
    commands = (ping * 3) % ("-4", "-6", "-4 -t 1")
    hosts = ["--host", "server", "--host", "router", "--host", f"client={commands} true"]
    done = run_wire("-q", "--line", *hosts)
    assert "64 bytes from 10.0.0.1: seq=1 ttl=63 " in done.stdout
    assert "64 bytes from fd00::1: seq=1 ttl=63 " in done.stdout
    assert "from 10.0.0.2: seq=1 time exceeded" in done.stdout


@pytest.mark.spread("options", one_in=2)
@pytest.mark.parametrize("options", DEVICE_KINDS)
def test_loop_topology_delays_local_traffic(options: list[str]) -> None:
    ping = f"{BOTHENDS} ping -c 1 -W 5 --json %s; "
    commands = (ping * 3) % ("127.0.0.1", "fd00::1", "127.5.5.5")
    done = run_wire("-q", "--delay", "15ms", *options, "--", "sh", "-c", commands)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    trips = [each["time_ms"] for each in events if each["event"] == "reply"]
    assert len(trips) == 3
    assert min(trips) >= 30


@pytest.mark.parametrize("options", DEVICE_KINDS)
def test_tcp_path_mtu_discovery(options: list[str], tmp_path: Path) -> None:
    record = tmp_path / "record"
    done = run_wire(
        *("--mtu", "1300", "--record", str(record), *options),
        *two_hosts(program("sink.py", 7000), program("source.py", "10.0.0.1", 7000, 100_000)),
    )
    sent = re.search(r"sent (\d+) (\w+) (\d+) (\d+)", done.stdout)
    assert sent
    assert 1000 < int(sent[4]) <= 1300 - 40  # the segment's size, without two headers
    events = [json.loads(line) for line in record.read_text().splitlines()]
    assert max(each["bytes"] for each in events if each["event"] == "arrived") <= 1300
    assert "too large for the path" in done.stderr


@pytest.mark.parametrize("options", DEVICE_KINDS)
def test_udp_fragments_are_reassembled(options: list[str]) -> None:
    client = program("fragments.py", "server", 7000, 1400, 20_000)
    done = run_wire("-q", "--mtu", "1000", *options, *two_hosts(program("echo.py", 7000), client))
    assert done.stdout.splitlines() == ["1400 True", "20000 True"]


def test_line_topology_eight_hosts() -> None:
    between = [each for number in range(1, 8) for each in ("--host", f"h{number}")]
    ping = f"{BOTHENDS} ping -4 -c 1 -W 5 h1"
    done = run_wire("-q", "--line", *between, "--host", f"h8={ping}")
    assert "64 bytes from 10.0.0.1: seq=1 ttl=58 " in done.stdout  # six routers


@pytest.mark.spread("options", one_in=2)
@pytest.mark.parametrize("options", DEVICE_KINDS)
def test_interface_down_and_up(options: list[str]) -> None:
    ping = f"{BOTHENDS} ping -c 1 -W 5 server > /dev/null && echo there"
    done = run_wire("--down", "client@0.5s+1s", *options, *two_hosts("", f"{program('flap.py')} && {ping}"))
    assert done.stdout.split() == ["down", "up", "there"]
    assert "client is down\nclient is up\n" in done.stderr


def test_scheduled_toxic_is_added_and_removed(tmp_path: Path) -> None:
    record = tmp_path / "record"
    arguments = ["-q", "--blackhole", "up:at=0ms,for=900ms,name=hole", "--record", str(record)]
    done = run_wire(
        *arguments, *two_hosts(program("sink.py", 7000), program("source.py", "10.0.0.1", 7000, 1000))
    )
    assert "received 1000 " in done.stdout  # TCP retransmitted until the toxic was removed
    events = [json.loads(line) for line in record.read_text().splitlines()]
    from_client = [each for each in events if each["from"] == "client"]
    early = [each for each in from_client if each["at"] < 0.9]
    assert {each["event"] for each in early} <= {"sent", "lost"}
    assert {each["toxic"] for each in from_client if each["event"] == "lost"} <= {"hole"}


@pytest.mark.spread("options", one_in=2)
@pytest.mark.parametrize("options", DEVICE_KINDS)
def test_toxic_added_to_fast_forwarded_stream(options: list[str]) -> None:
    client = program("source.py", "server", 7000, 60_000_000)
    hosts = ["--host", f"server={program('sink.py', 7000)}", "--host", "router", "--host", f"client={client}"]
    done = run_wire("--line", "--loss", "1%,at=20ms,for=200ms", "--seed", "3", *options, *hosts)
    received = re.search(r"received (\d+) (\w+)", done.stdout)
    sent = re.search(r"sent (\d+) (\w+)", done.stdout)
    assert received, done.stdout + done.stderr
    assert sent
    assert received.groups() == sent.groups()
    counted = re.search(r"client -> router: ([\d,]+) packets, ([\d,]+) bytes", done.stderr)
    assert counted
    packets, size = (int(each.replace(",", "")) for each in counted.groups())
    assert 60_000_000 <= size <= 1500 * packets  # no packet is larger than the MTU, on both forwarding paths


def test_udp_segmentation_offload() -> None:
    for options in ([], ["--veth"], ["--delay", "1ms"]):
        done = run_wire(
            *options, *two_hosts(program("echo.py", 7000), program("segments.py", "server", 7000, 1000, 9500))
        )
        assert done.stdout.split() == ["1000"] * 9 + ["500"]
        assert "client -> server: 10 packets, 9,780 bytes" in done.stderr


def test_drain_delivers_data_after_sender_exit() -> None:
    hurry = (
        "import socket; s = socket.create_connection(('server', 7000)); "
        "s.sendall(bytes(50000)); s.close()"  # most of it is still in the kernel's send buffer
    )
    client = f'{sys.executable} -c "{hurry}"'
    done = run_wire("-q", "--delay", "100ms", "--rate", "2mbit", *two_hosts(program("sink.py", 7000), client))
    assert done.stdout.startswith("received 50000 ")


def test_exit_status_is_last_commands() -> None:
    run_wire("-q", *two_hosts("exit 3", "exit 4"), status=4)
    run_wire("-q", "--", "sh", "-c", "kill -9 $$", status=137)
    done = run_wire("-q", "--", "no-such-program", status=127)
    assert done.stderr == "bothends: host: cannot run no-such-program: No such file or directory\n"


def test_time_limit_exit_status() -> None:
    done = run_wire("-q", "--time-limit", "0.3", "--", "sleep", "60", status=124)
    assert done.stderr.startswith("bothends: wire: timed out after 0.3 s")
    run_wire("-q", "--time-limit", str(TIMEOUT), "--", "sh", "-c", "exit 3", status=3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "missing CMD or --host"),
        (["--host", "a=true"], "a wire needs at least two hosts"),
        (["--host", "a=true", "true"], "CMD and --host cannot be combined"),
        (["--host", "a", "--host", "b"], "no host has a command"),
        (["--loss", "200%", "--", "true"], "toxic loss: probability must be at least 0 and at most 1"),
        (["--loss", "up:2%", "--", "true"], "leave out up: and down:"),
        (["--loss", "2%,toxicity=50%", "--", "true"], "toxicity and clients are for impair"),
        (["--down", "c@1s", *two_hosts("true", "true")], "there is no host c"),
        (["--down", "client", *two_hosts("true", "true")], "expected HOST@AT[+TIME]"),
    ],
)
def test_invalid_arguments_report_usage_error(arguments: list[str], words: str) -> None:
    done = run_wire("-q", *arguments, status=2)
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def unshare() -> list[str]:
    """Return a command that runs a shell script in a new user namespace."""
    command = ["unshare", "--user", "--map-root-user"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no unshare(1) here")
    return [*command, "/bin/sh", "-c"]


def test_forbidden_namespaces_report_sysctl(unshare: list[str]) -> None:
    forbid = 'echo 0 > /proc/sys/user/max_%s_namespaces || exit 77; exec "$@"'
    for what in ("user", "net"):
        script = forbid % what
        if what == "user":  # root needs no user namespace, unless it lacks capabilities
            script = forbid.replace("exec", "exec setpriv --bounding-set=-all --inh-caps=-all") % what
        done = subprocess.run(
            [*unshare, script, "sh", sys.executable, "-m", "bothends", "wire", "--", "true"],
            capture_output=True,
            text=True,
            check=False,
            env=ENVIRONMENT,
        )
        if done.returncode == 77:
            pytest.skip("the limits can't be set here")
        assert done.returncode == 69, done.stderr
        assert done.stderr.startswith("bothends: cannot create the wire's hosts")
        assert f"sysctl user.max_{what}_namespaces=10000" in done.stderr


def test_wire_leaves_no_temporary_files() -> None:
    folder = Path(tempfile.gettempdir())
    before = set(folder.iterdir())
    run_wire("-q", *two_hosts("true", "cat /etc/hosts > /dev/null"))
    created = set(folder.iterdir()) - before
    assert not {path for path in created if "hosts" in path.name}
