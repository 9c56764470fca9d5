"""Several servers of one configuration file: a process each, under a supervisor that holds the listeners."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bothends.client.blocking import connect
from bothends.errors import ConnectionLost
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import TIMEOUT, Running, run

SERVE = [*BOTHENDS, "serve"]

PID_SERVICE = """import os
from bothends import message

@message
def who(text: bytes) -> bytes:
    return b"%d VERSION" % os.getpid()
"""

CONFIGURATION = """
[limits]
drain = 20

[[serve]]
name = "who"
service = "who.py"
endpoints = ["tcp://127.0.0.1:0"]
engine = "epoll"
metrics = "unix://FOLDER/who.metrics"

[[serve]]
service = "echo"
endpoints = ["udp://127.0.0.1:0", "unix://FOLDER/echo"]
quiet = true

[[serve]]
exec = "cat"
endpoints = ["unix://FOLDER/cat"]
"""


class Supervised:
    """A running `bothends serve --config`, and the endpoints of its servers."""

    def __init__(self, running: Running, folder: Path) -> None:
        self.running = running
        self.folder = folder
        running.error_line(rb"  from here: +bothends connect unix://.*/cat")
        self.who = self._endpoint("tcp")
        self.echo = self._endpoint("udp")

    def _endpoint(self, scheme: str) -> str:
        shown = rb"  (%s://127\.0\.0\.1:\d+)" % scheme.encode()
        return self.running.error_line(shown)[1].decode()

    def owner(self) -> tuple[int, bytes]:
        """Return the id of the process that answers, and its version of the service."""
        with connect(self.who, timeout=TIMEOUT) as client:
            pid, version = client.request(b"who?").split()
        return int(pid), version


def is_listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def write(folder: Path, version: str = "1", *, more: str = "") -> Path:
    (folder / "who.py").write_text(PID_SERVICE.replace("VERSION", version))
    path = folder / "servers.toml"
    path.write_text(CONFIGURATION.replace("FOLDER", str(folder)) + more)
    return path


@contextlib.contextmanager
def supervised(folder: Path, *, more: str = "") -> Iterator[Supervised]:
    with Running([*SERVE, "--config", str(write(folder, more=more))]) as running:
        yield Supervised(running, folder)


def test_each_server_has_own_process_and_log_prefix(tmp_path: Path) -> None:
    with supervised(tmp_path) as servers:
        pid, version = servers.owner()
        assert (pid != servers.running.process.pid, version) == (True, b"1")
        with connect(servers.echo) as client:
            assert client.request(b"over UDP") == b"over UDP"
        for name in ("echo", "cat"):
            with connect(f"unix://{tmp_path / name}") as client:
                assert client.exchange(b"hello\n") == b"hello\n"
        servers.running.line(rb"\[who\] 127\.0\.0\.1#\d+: who\?")
        servers.running.error_line(rb"\[cat\] unix#1 closed: the service closed .*")
        with connect(f"unix://{tmp_path / 'who.metrics'}") as connection:
            assert b"\nbothends_connections_total 1.0\n" in connection.exchange(
                b"GET /metrics HTTP/1.0\r\n\r\n"
            )
        assert servers.running.stop() == 0
        servers.running.stderr.close()
        assert "[echo]" not in str(servers.running.stderr)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["servers.toml", "who.py"]


def test_dead_server_is_restarted_without_refusing_connections(tmp_path: Path) -> None:
    with supervised(tmp_path) as servers:
        first, _ = servers.owner()
        with connect(servers.who) as client:
            client.request(b"mine")
            os.kill(first, signal.SIGKILL)
            with pytest.raises(ConnectionLost):
                client.request(b"still there?")
        second, _ = servers.owner()  # the connection waited in the accept queue
        assert second != first
        servers.running.error_line(rb"\[who\] server %d killed by signal 9" % first)
        for _ in range(500):  # until the server has closed the last connection
            with connect(f"unix://{tmp_path / 'who.metrics'}") as connection:
                page = connection.exchange(b"GET /metrics HTTP/1.0\r\n\r\n")
            if b"\nbothends_connections_open 0.0\n" in page:
                break
        else:
            pytest.fail(page.decode())
        assert b"\nbothends_connections_total 3.0\n" in page  # of both processes
        assert b'\nbothends_processes_ended_total{role="server"} 1.0\n' in page
        assert servers.running.stop() == 0


def test_sighup_reloads_every_server(tmp_path: Path) -> None:
    with supervised(tmp_path) as servers:
        before = servers.owner()
        write(tmp_path, "2")
        servers.running.process.send_signal(signal.SIGHUP)
        servers.running.error_line(rb"\[who\] reloaded who: .*")
        assert servers.owner() == (before[0], b"2")
        assert servers.running.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_drains_and_second_signal_aborts(number: int, tmp_path: Path) -> None:
    with supervised(tmp_path) as servers, connect(f"unix://{tmp_path / 'cat'}") as client:
        assert client.request(b"a") == b"a"
        # To the whole group, as ^C at a terminal does.
        os.killpg(servers.running.process.pid, number)
        servers.running.error_line(rb"\[cat\] draining: waiting up to 20 s for 1 connection")
        assert client.request(b"still here?") == b"still here?"
        while is_listening(int(servers.who.rpartition(":")[2])):
            pass  # that server has no connections, and closes its listener soon
        os.killpg(servers.running.process.pid, number)
        assert servers.running.wait() == 0
        assert client.receive() == b""


def test_servers_exit_with_supervisor(tmp_path: Path) -> None:
    with supervised(tmp_path) as servers:
        servers.owner()
        servers.running.process.kill()
        servers.running.wait()
        servers.running.stderr.close()  # EOF once the last process that has it open has exited


def test_bind_failure_starts_no_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        more = f'[[serve]]\nservice = "echo"\nendpoints = ["tcp://127.0.0.1:{port}"]\n'
        with Running([*SERVE, "--config", str(write(tmp_path, more=more))]) as running:
            assert running.wait() == 1
            running.error_line(rb"bothends: cannot .*127\.0\.0\.1:%d: EADDRINUSE.*" % port)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["servers.toml", "who.py"]


def test_one_server_is_taken_over(tmp_path: Path) -> None:
    more = f'[[serve]]\nservice = "upper"\nendpoints = ["unix://{tmp_path}/u"]\ntakeover = "desk"\n'
    with supervised(tmp_path, more=more) as servers:
        arguments = ["upper", f"unix://{tmp_path}/u", "--takeover", str(tmp_path / "desk")]
        with connect(f"unix://{tmp_path}/u") as before:
            assert before.request(b"a") == b"A"
            with Running([*SERVE, *arguments]) as new:
                new.error_line(rb"  engine .*")
                assert before.receive() == b""  # drained
                before.close()
                servers.owner()  # the other servers still run
                assert servers.running.stop() == 0
                with connect(f"unix://{tmp_path}/u") as after:
                    assert after.request(b"b") == b"B"
                assert new.stop() == 0
    assert not (tmp_path / "u").exists()


def test_single_server_runs_without_supervisor(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text('[[serve]]\nservice = "upper"\nendpoints = ["tcp://127.0.0.1:0"]\n')
    with Running([*SERVE, "--config", str(tmp_path / "one.toml")]) as server:
        port = int(server.error_line(rb"  tcp://127\.0\.0\.1:(\d+)")[1])
        with connect(f"tcp://127.0.0.1:{port}") as client:
            assert client.request(b"x") == b"X"
        server.line(rb"127\.0\.0\.1#\d+: x")
        assert server.stop() == 0


def test_check_lists_servers_without_binding(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = f'name = "busy"\nservice = "echo"\nendpoints = ["tcp://127.0.0.1:{port}"]\nworkers = 2\n'
        shown = run([*SERVE, "--config", str(write(tmp_path, more=f"[[serve]]\n{busy}")), "--check"]).decode()
    rows = [line.split() for line in shown.splitlines()]
    assert rows[0] == ["name", "endpoints", "engine", "processes", "metrics"]
    assert [(row[0], row[-2]) for row in rows[1:]] == [
        ("who", "1"),
        ("echo", "1"),
        ("cat", "1"),
        ("busy", "2"),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["servers.toml", "who.py"]


@pytest.mark.spread("more", "status", "message", one_in=3)
@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        ("workers = 0", 2, r".*servers\.toml, \[\[serve\]\] 3 \(cat\), key 'workers': .*"),
        ("[serve.tls]\nself_signed = true", 2, r"TLS settings without a tls:// endpoint.*"),
        ("metrics = 'udp://:0'", 2, r"service pages does not support udp://.*"),
        ("service = 'none.py'\nendpoints = ['tcp://:0']", 2, r"service .*there is no file.*"),
        (
            "service = 'chat'\nengine = 'fork'\nendpoints = ['tcp://:0']",
            2,
            r"engine fork does not support .*",
        ),
        ("service = 'upper'\nendpoints = ['tls://:0']", 2, r"tls://:0 needs a certificate.*"),
        (
            "service = 'upper'\nendpoints = ['tls://:0']\ntls = { certificate = 'none.pem' }",
            1,
            r"cannot read .*none\.pem: ENOENT.*",
        ),
    ],
)
def test_check_reports_errors(more: str, status: int, message: str, tmp_path: Path) -> None:
    more = f"[[serve]]\n{more}" if more.startswith("service") else more
    with Running([*SERVE, "--config", str(write(tmp_path, more=more)), "--check"]) as checked:
        assert checked.wait() == status
        checked.error_line(b"bothends: " + message.encode())


@pytest.mark.parametrize("more", [["upper"], ["--workers", "2"], ["--quiet"], ["--exec", "cat"]])
def test_config_rejects_other_options(more: list[str], tmp_path: Path) -> None:
    with Running([*SERVE, "--config", str(write(tmp_path)), *more]) as refused:
        assert refused.wait() == 2
        refused.error_line(rb"bothends: --config and %b cannot be combined: .*" % more[0].encode())


def test_check_without_configuration_file(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    assert b"upper" in run([*SERVE, "upper", f"unix://{path}", "--check"])
    assert not path.exists()
