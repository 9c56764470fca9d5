"""`bothends ping` as a program: UDP to test peers, ICMP with and without permission."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bothends.cli.ping import summary_lines
from bothends.client.ping import RttStatistics, Summary
from tests.client import peers
from tests.client.peers import TIMEOUT

PING = [sys.executable, "-m", "bothends", "ping"]
ENVIRONMENT = {**os.environ, "NO_COLOR": "1"}
NOBODY_UID = 65534


def ping(*words: str, prefix: Sequence[str] = (), **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, *PING, *words],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=TIMEOUT,
        check=False,
        **options,
    )


# UDP


def reply_on_second(replies: Callable[[bytes, bytes], list[bytes]]) -> peers.DatagramHandler:
    """Send no reply to the first datagram, all replies on the second, then echo.

    So the order of the replies does not depend on timing.
    """
    received: list[bytes] = []

    def handle(data: bytes) -> list[bytes]:
        received.append(data)
        if len(received) == 2:
            return replies(received[0], received[1])
        return [data] if len(received) > 2 else []

    return handle


def test_echo_service() -> None:
    with peers.udp_peer(lambda data: [data]) as endpoint:
        done = ping("--udp", "127.0.0.1", str(endpoint.port), "-c", "3", "-i", "0.01")
    assert done.returncode == 0
    *lines, counts, times = done.stdout.splitlines()
    assert [line.split(" time=")[0] for line in lines] == [
        f"56 bytes from 127.0.0.1: seq={number} ttl=64" for number in (1, 2, 3)
    ]
    assert counts == "127.0.0.1: 3 sent, 3 received, 0 lost (0%), 0 duplicates, 0 reordered"
    assert times.startswith("round trips in ms: min ")
    assert [word.split()[0] for word in times.removeprefix("round trips in ms: ").split(", ")] == [
        "min",
        "median",
        "mean",
        "max",
        "mdev",
    ]
    assert done.stderr == "ping 127.0.0.1: 56 bytes, UDP datagrams\n"


def test_endpoint_selects_udp_and_quiet_shows_summary() -> None:
    with peers.udp_peer(lambda data: [data]) as endpoint:
        done = ping(str(endpoint), "-c", "2", "-i", "0.01", "-q", "-s", "1000", "-t", "7")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2


def test_json() -> None:
    with peers.udp_peer(reply_on_second(lambda one, two: [one, one[:-1], two])) as endpoint:
        done = ping(str(endpoint), "-c", "2", "-i", "0.01", "-W", "15", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    *events, summary = map(json.loads, done.stdout.splitlines())
    assert {
        key: events[0][key] for key in ("event", "seq", "bytes", "address", "duplicate", "corrupted")
    } == {
        "event": "reply",
        "seq": 1,
        "bytes": 56,
        "address": "127.0.0.1",
        "duplicate": False,
        "corrupted": None,
    }
    assert (events[1]["duplicate"], events[1]["corrupted"]) == (True, "received 55 bytes of 56")
    assert (summary["event"], summary["sent"], summary["intact"], summary["loss"]) == ("summary", 2, 2, 0)
    assert set(summary["time_ms"]) == {"min", "median", "mean", "max", "mdev"}


def test_reply_marks_are_shown() -> None:
    with peers.udp_peer(reply_on_second(lambda one, two: [b"oh", two, one, one])) as endpoint:
        done = ping(str(endpoint), "-c", "3", "-i", "0.01", "-W", "15")
    assert "56 bytes from 127.0.0.1: seq=1" in done.stdout
    assert "(reordered)\n" in done.stdout
    assert "2 bytes from 127.0.0.1: matches no probe\n" in done.stdout
    assert "(duplicate)\n" in done.stdout
    assert "3 sent, 3 received, 0 lost (0%), 1 duplicate, 1 reordered, 1 stray\n" in done.stdout


def test_closed_port() -> None:
    done = ping("--udp", "127.0.0.1", str(peers.closed_port(socket.SOCK_DGRAM)), "-c", "2", "-i", "0.01")
    words = "destination unreachable: no socket is bound to the port [ECONNREFUSED]"
    assert done.stdout.splitlines() == [
        f"from 127.0.0.1: seq=1 {words}",
        f"from 127.0.0.1: seq=2 {words}",
        "127.0.0.1: 2 sent, 0 received, 2 lost (100%), 0 duplicates, 0 reordered, 2 errors",
    ]
    assert done.returncode == 1


def test_no_reply_exits_1() -> None:
    with peers.udp_peer(lambda data: []) as endpoint:
        done = ping(str(endpoint), "-c", "1", "-W", "0.05")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == "seq=1 no reply within 0.05 s"


def test_only_corrupted_replies_exit_1() -> None:
    with peers.udp_peer(lambda data: [data[:-1] + b"?"]) as endpoint:
        done = ping(str(endpoint), "-c", "1")
    assert done.returncode == 1
    assert "(corrupted: byte 55 is 0x3f, not 0x37)" in done.stdout


@pytest.mark.parametrize(("replies", "status"), [(True, 0), (False, 1)])
def test_interrupt_prints_summary(replies: bool, status: int) -> None:
    with (
        peers.udp_peer(lambda data: [data] if replies else []) as endpoint,
        subprocess.Popen(
            # A reply within 10 ms would be much to ask of a busy machine.
            [*PING, str(endpoint), "-i", "0.01", "-W", str(TIMEOUT) if replies else "0.01"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        ) as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == status
    assert " sent, " in out
    assert "Traceback" not in err


@pytest.mark.spread("words", "message", one_in=3)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "missing argument"),
        (
            ("127.0.0.1", "80"),
            "expected one host: ICMP has no ports; for UDP, try bothends ping --udp 127.0.0.1 80",
        ),
        (("tcp://127.0.0.1:80",), "echo service on udp://"),
        (("--udp", "127.0.0.1"), "no port"),
        (("--udp", ":7", ":8"), "expected one endpoint"),
        (("--udp", ":7", "-s", "15"), "at least 16 bytes"),
        (("127.0.0.1", "-s", "65508"), "0<=x<=65507"),
        (("127.0.0.1", "-i", "0"), "invalid value for '-i'"),
        (("127.0.0.1", "-4", "-t", "0"), "invalid value for '-t'"),
        (("::1", "-4"), "::1 is an IPv6 address"),
        (("a b",), "is not a host name"),
    ],
)
def test_usage_errors_are_one_line(words: tuple[str, ...], message: str) -> None:
    done = ping(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_summary_singular_and_plural() -> None:
    summary = Summary(
        1000, 999, 998, 1, 0, 1, 0, 2, 1, 0, 0, RttStatistics(0.001, 0.002, 0.003, 0.004, 0.0005)
    )
    assert summary_lines("::1", summary) == [
        "::1: 1,000 sent, 999 received (2 late), 1 lost (0.1%), 1 duplicate, 0 reordered, 1 corrupted",
        "round trips in ms: min 1.000, median 2.000, mean 3.000, max 4.000, mdev 0.500",
    ]


# ICMP


@functools.cache
def in_network_namespace() -> list[str]:
    """Return a prefix that runs a command as root in a new network namespace; empty if not permitted."""
    found = shutil.which("unshare")
    if found is None:
        return []
    for flags in (["--net"], ["--user", "--map-root-user", "--net"]):
        command = [found, *flags]
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    return []


needs_own_network = pytest.mark.skipif(
    not in_network_namespace(), reason="network namespaces are not permitted"
)


@pytest.mark.spread("kind", "version", one_in=2)
@needs_own_network
@pytest.mark.parametrize("kind", ["ping", "raw"])
@pytest.mark.parametrize("version", [4, 6])
def test_icmp_duplicate_and_corrupted_replies(version: int, kind: str) -> None:
    host = Path(__file__).parent.parent / "client" / "icmp_host.py"
    before = [*in_network_namespace(), sys.executable, str(host), str(version), kind]
    done = ping("-c", "8", "-i", "0.02", "-W", "1", "--json", prefix=before)
    assert (done.returncode, done.stderr) == (0, "")
    *events, summary = map(json.loads, done.stdout.splitlines())
    seen = [(each["event"], each["seq"]) for each in events]
    assert seen.count(("reply", 2)) == 2
    assert seen.index(("reply", 4)) < seen.index(("reply", 3))
    assert [each["reordered"] for each in events if each["seq"] == 3] == [True]
    (corrupted,) = [each for each in events if each["seq"] == 5]
    assert corrupted["corrupted"] == "byte 40 is 0x21, not 0x28"
    (failed,) = [each for each in events if each["seq"] == 6]
    assert failed["event"] == "error"
    assert failed["words"].startswith("destination unreachable: the last router cannot reach the host")
    assert failed["errno"] == "EHOSTUNREACH"
    assert failed["address"] == summary["address"] == ("127.0.0.1" if version == 4 else "::1")
    assert ("lost", 7) in seen
    names = ("sent", "received", "intact", "lost", "duplicates", "reordered", "corrupted", "errors", "late")
    assert [summary[each] for each in names] == [8, 6, 5, 2, 1, 1, 1, 1, 0]
    assert all(0 <= each["time_ms"] < 1000 for each in events if each["event"] == "reply")


def test_icmp_not_permitted_exits_69() -> None:
    """An ordinary user in a new network namespace, where net.ipv4.ping_group_range is empty at first."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() == 0 and setpriv and in_network_namespace():
        user = [setpriv, f"--reuid={NOBODY_UID}", f"--regid={NOBODY_UID}", "--clear-groups"]
        done = ping("127.0.0.1", "-c", "1", prefix=[*in_network_namespace(), *user])
    elif os.geteuid() != 0:
        done = ping("127.0.0.1", "-c", "1")
        if done.returncode != 69:
            pytest.skip("this machine permits ping sockets")
    else:
        pytest.skip("setpriv or network namespaces are missing")
    assert (done.returncode, done.stdout) == (69, "")
    assert "ping sockets fail with EACCES (Permission denied), raw sockets with EPERM" in done.stderr
    assert "bothends ping --udp 127.0.0.1 PORT" in done.stderr
    assert done.stderr.count("\n") == 1
