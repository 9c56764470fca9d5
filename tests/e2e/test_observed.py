"""Metrics, health and logs of running servers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bothends.client.blocking import connect
from bothends.engines import registry
from bothends.errors import BothendsError
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import TIMEOUT, Running

PID_SERVICE = """import os
from bothends import message

@message
def who(text: bytes) -> bytes:
    return b"%d" % os.getpid()
"""


class MonitoredServer:
    """A running `bothends serve ... --metrics`, its ports and metrics."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.port = int(running.error_line(rb"  tcp://127\.0\.0\.1:(\d+)")[1])
        self.endpoint = f"tcp://127.0.0.1:{self.port}"
        shown = rb"  metrics http://127\.0\.0\.1:(\d+)/metrics, health http://127\.0\.0\.1:\d+/health"
        self.pages_port = int(running.error_line(shown)[1])

    def page(self, path: str) -> tuple[int, str, str]:
        """Return status, media type and body of a page."""
        with connect(f"tcp://127.0.0.1:{self.pages_port}", timeout=TIMEOUT) as connection:
            answer = connection.exchange(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()).decode()
        head, _, body = answer.partition("\r\n\r\n")
        kind = re.search(r"^Content-Type: (.*?)\r?$", head, re.MULTILINE)
        assert kind is not None
        return int(head.split()[1]), kind[1], body

    def metrics(self) -> dict[str, float]:
        status, kind, text = self.page("/metrics")
        assert status == 200
        assert kind.startswith("text/plain; version=")
        return {
            sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def wait_for(self, **expected: float) -> dict[str, float]:
        """Poll until the metrics have these values, because a process may count an event a moment later."""
        for _ in range(1000):
            numbers = self.metrics()
            if all(numbers[f"bothends_{name}"] == number for name, number in expected.items()):
                return numbers
        raise AssertionError(f"expected {expected}, got {numbers}")


@contextlib.contextmanager
def monitored_server(*arguments: str) -> Iterator[MonitoredServer]:
    command = [*BOTHENDS, "serve", *arguments, "tcp://127.0.0.1:0", "--metrics", "tcp://127.0.0.1:0"]
    with Running(command) as running:
        yield MonitoredServer(running)


def is_rejected(port: int) -> bool:
    """Return whether the server closes a new connection at once."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as client:
        try:
            return client.recv(1) == b""
        except ConnectionResetError:
            return True


@pytest.mark.parametrize(
    "options",
    [["--workers", "3"], *(["--engine", name] for name in ("epoll", "fork", "prefork", "iterative"))],
)
def test_every_process_of_a_server_counts(options: list[str]) -> None:
    if "--engine" in options and (reason := registry.load(options[1]).unavailable_reason()):
        pytest.skip(reason)
    with monitored_server("upper", *options) as server:
        assert server.page("/health") == (200, "text/plain; charset=utf-8", "ok\n")
        for number in range(6):
            with connect(server.endpoint) as client:
                assert client.request(b"n%d" % number) == b"N%d" % number
        numbers = server.wait_for(connections_open=0, connections_total=6)
        assert numbers["bothends_reads_total"] == 6
        assert numbers["bothends_received_bytes_total{stream}"] == 6 * len("n0\n")
        assert numbers["bothends_sent_bytes_total{stream}"] == 6 * len("N0\n")
        assert numbers["bothends_connections_closed_total{peer}"] == 6
        assert server.running.stop() == 0


def test_connections_of_killed_worker_count_as_closed(tmp_path: Path) -> None:
    path = tmp_path / "who.py"
    path.write_text(PID_SERVICE)
    with monitored_server(f"{path}:who", "--workers", "2") as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server.endpoint)) for _ in range(8)]
        owners = [int(client.request(b"who?")) for client in clients]
        assert server.metrics()["bothends_connections_open"] == 8
        victim = owners[0]
        os.kill(victim, signal.SIGKILL)
        server.running.nth_error_line(rb"worker %d killed by signal 9" % victim, 1)
        numbers = server.metrics()
        assert numbers["bothends_connections_open"] == 8 - owners.count(victim)
        assert numbers["bothends_connections_closed_total{killed}"] == owners.count(victim)
        assert numbers["bothends_connections_total"] == 8
        assert numbers["bothends_processes_ended_total{worker}"] == 1
        assert server.running.stop() == 0


def test_health_reports_draining() -> None:
    with monitored_server("--exec", "cat", "--drain", "60") as server:
        with connect(server.endpoint) as client:
            assert client.request(b"hello") == b"hello"
            server.running.process.terminate()
            while (page := server.page("/health"))[0] == 200:
                pass
            assert page == (503, "text/plain; charset=utf-8", "draining\n")
            assert server.metrics()["bothends_draining"] == 1
            assert client.request(b"still here?") == b"still here?"
        assert server.running.wait() == 0


def test_reload_is_counted_once_with_workers(tmp_path: Path) -> None:
    path = tmp_path / "who.py"
    path.write_text(PID_SERVICE)
    with monitored_server(f"{path}:who", "--workers", "2") as server:
        server.running.process.send_signal(signal.SIGHUP)
        server.running.nth_error_line(rb"reloaded who: .*", 1)
        assert server.metrics()["bothends_reloads_total{done}"] == 1
        path.write_text("not valid Python")
        server.running.process.send_signal(signal.SIGHUP)
        server.running.nth_error_line(rb"reload failed, .*", 1)
        assert server.metrics()["bothends_reloads_total{failed}"] == 1
        assert server.running.stop() == 0


def test_connection_that_is_closed_for_another_is_counted_as_evicted() -> None:
    limit = ["--max-connections", "2", "--when-full", "evict"]
    with monitored_server("upper", *limit) as server, contextlib.ExitStack() as stack:
        first, second, third = (stack.enter_context(connect(server.endpoint)) for _ in range(3))
        assert third.request(b"third") == b"THIRD"
        assert second.request(b"second") == b"SECOND"
        with pytest.raises(BothendsError):
            first.request(b"first")
        assert server.wait_for(connections_open=2)["bothends_connections_closed_total{evicted}"] == 1
        assert server.running.stop() == 0


def test_hostile_metrics_requests_are_bounded() -> None:
    with monitored_server("upper") as server, contextlib.ExitStack() as stack:
        port = server.pages_port
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(32)]
        assert server.page("/health")[0] == 200  # the first idle one was closed for it
        with pytest.raises(ConnectionResetError):
            idle[0].recv(1)
        with connect(server.endpoint) as client:
            assert client.request(b"busy?") == b"BUSY?"
        flood = idle.pop()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            flood.sendall(b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 10_000)
        flood.settimeout(TIMEOUT)
        assert flood.recv(1024).startswith(b"HTTP/1.1 431 ")
        assert server.running.stop() == 0


def test_metrics_listener_is_taken_over(tmp_path: Path) -> None:
    socket_path = str(tmp_path / "takeover")
    pages = f"unix://{tmp_path / 'metrics'}"
    command = [
        *BOTHENDS,
        "serve",
        "upper",
        "tcp://127.0.0.1:0",
        "--metrics",
        pages,
        "--takeover",
        socket_path,
    ]
    request = b"GET /health HTTP/1.0\r\n\r\n"
    with Running(command) as old:
        old.error_line(rb"  metrics and health: GET /metrics and /health at unix://.*")
        with Running(command) as new:
            new.error_line(rb"  metrics and health: .*")
            assert old.wait() == 0, old.stderr
            with connect(pages) as connection:
                assert connection.exchange(request).endswith(b"\r\n\r\nok\n")
            assert new.stop() == 0
    assert list(tmp_path.iterdir()) == []


def test_metrics_over_tls() -> None:
    arguments = ["tcp://127.0.0.1:0", "--metrics", "tls://127.0.0.1:0", "--tls-self-signed"]
    with Running([*BOTHENDS, "serve", "upper", *arguments]) as server:
        server.error_line(rb"  metrics https://127\.0\.0\.1:\d+/metrics, health https://.*")
        assert server.stop() == 0


def test_json_log_is_only_stdout_output() -> None:
    with Running([*BOTHENDS, "serve", "upper", "tcp://127.0.0.1:0", "--log", "json", "--hex"]) as server:
        port = int(server.error_line(rb"  tcp://127\.0\.0\.1:(\d+)")[1])
        with connect(f"tcp://127.0.0.1:{port}") as client:
            assert client.request(b"h\x1bi") == b"H\x1bI"
        server.text(rb'"event":"closed"')
        assert server.stop() == 0
        server.stdout.close()
        records = [json.loads(line) for line in str(server.stdout).splitlines()]
    events = [record["event"] for record in records]
    assert events[:2] == ["listening", "opened"]
    assert sorted(events[2:4]) == ["received", "sent"]
    assert events[4:] == ["ended", "closed", "draining", "stopped"]
    received = next(record for record in records if record["event"] == "received")
    assert (received["v"], received["text"], received["hex"]) == (1, "h\\x1bi\\n", "681b690a")
    assert received["peer"]["family"] == "inet"


def test_hex_shows_both_directions() -> None:
    with Running([*BOTHENDS, "serve", "upper", "udp://127.0.0.1:0", "--hex"]) as server:
        port = int(server.error_line(rb"  udp://127\.0\.0\.1:(\d+)")[1])
        with connect(f"udp://127.0.0.1:{port}") as client:
            assert client.request(b"hi") == b"HI"
        server.line(rb"127\.0\.0\.1#\d+ <- 00000000  68 69 +\|hi\|")
        server.line(rb"127\.0\.0\.1#\d+ -> 00000000  48 49 +\|HI\|")
        assert server.stop() == 0


def test_rejection_flood_is_throttled_in_log() -> None:
    limit = ["--max-connections", "1", "--when-full", "refuse", "--quiet"]
    with monitored_server("upper", *limit) as server:
        with connect(server.endpoint) as inside:
            assert inside.request(b"in") == b"IN"
            for _ in range(50):
                assert is_rejected(server.port)
        for _ in range(500):  # a connection is counted after it is closed
            if (count := server.metrics()["bothends_connections_refused_total{full}"]) == 50:
                break
        assert count == 50
        assert server.running.stop() == 0
        server.running.stderr.close()
        lines = [line for line in str(server.running.stderr).splitlines() if "refused" in line]
    # On a slow machine it may take longer than a period.
    assert "#" in lines[0]
    assert all("more refused in the last" in line for line in lines[1:])
    assert 1 + sum(int(line.split()[0].replace(",", "")) for line in lines[1:]) == 50
