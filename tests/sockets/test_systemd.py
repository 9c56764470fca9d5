"""Socket activation, notification and the watchdog, with a fake service manager and systemd's tools."""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest

from bothends.client.blocking import connect
from bothends.endpoints import Endpoint
from bothends.errors import Unavailable
from bothends.sockets import open_listeners
from bothends.sockets.systemd import listen_fds, notify, open_activated, watchdog
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import ROOT, TIMEOUT, Running
from tests.tools import find_tool, needs_tool

GUIDE = ROOT / "docs" / "how-to" / "under-systemd.md"

# As systemd does: the sockets become 3, 4, ..., and LISTEN_PID is the process that calls exec.
ACTIVATION_LAUNCHER = """
import os, sys
given = [int(each) for each in sys.argv[1].split(",")]
copies = [os.dup(each) for each in given]
fillers = [os.dup(2) for _ in range(3 + len(given))]
copies = [os.dup(each) for each in copies]  # above all targets, so that dup2 overwrites none of them
for number, descriptor in enumerate(copies):
    os.dup2(descriptor, 3 + number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(given))}
os.execvp(sys.argv[2], sys.argv[2:])
"""


class FakeServiceManager:
    """Start servers with activated sockets, and receive their notifications."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self._notify_socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify_socket.bind(str(self.path))
        self._notify_socket.settimeout(TIMEOUT)
        self.environment = {"NOTIFY_SOCKET": str(self.path)}

    def receive_notification(self) -> list[str]:
        """Return the lines of the next message."""
        return self._notify_socket.recv(4096).decode().split("\n")

    def close(self) -> None:
        self._notify_socket.close()

    @contextlib.contextmanager
    def start_activated(
        self,
        command: Sequence[str],
        sockets: Sequence[socket.socket | IO[str]],
        names: str = "",
        **environment: str,
    ) -> Iterator[Running]:
        numbers = [each.fileno() for each in sockets]
        variables = {**self.environment, **environment} | ({"LISTEN_FDNAMES": names} if names else {})
        launch = [sys.executable, "-c", ACTIVATION_LAUNCHER, ",".join(map(str, numbers)), *command]
        assignments = [f"{name}={value}" for name, value in variables.items()]
        with Running(["env", *assignments, *launch], pass_fds=numbers) as running:
            yield running


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[FakeServiceManager]:
    manager = FakeServiceManager(tmp_path)
    yield manager
    manager.close()


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


# --- socket activation ---


def test_listen_fds_grouped_by_name() -> None:
    given = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "4", "LISTEN_FDNAMES": "web:api:web"}
    assert listen_fds(given) == {"web": [3, 5], "api": [4], "unknown": [6]}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},  # meant for another process
        {"LISTEN_PID": "own", "LISTEN_FDS": "many"},
        {"LISTEN_PID": "own", "LISTEN_FDS": "0"},
        {"LISTEN_PID": "own"},
    ],
)
def test_listen_fds_for_other_process_or_invalid_are_ignored(given: dict[str, str]) -> None:
    given = {name: value.replace("own", str(os.getpid())) for name, value in given.items()}
    assert listen_fds(given) == {}


def test_open_activated_unknown_name_lists_available_names() -> None:
    given = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
    with pytest.raises(Unavailable, match="no socket has this name; there is web"):
        open_activated(Endpoint.parse("systemd://api"), given)
    with pytest.raises(Unavailable, match="systemd passed no sockets to this process"):
        open_activated(Endpoint.parse("systemd://api"), {})


def test_serve_activated_non_socket_fails(tmp_path: Path, manager: FakeServiceManager) -> None:
    path = tmp_path / "file"
    with path.open("w") as file:
        command = [*BOTHENDS, "serve", "upper", "systemd://unknown"]
        with manager.start_activated(command, [file]) as server:
            server.error_line(rb"bothends: .* is a regular file, not a socket")
            assert server.wait() == 2


def test_serve_all_activated_sockets_of_names(manager: FakeServiceManager, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with (
        listener() as web,
        listener() as other,
        socket.socket(type=socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        datagrams.bind(("127.0.0.1", 0))
        unix.bind(str(path))
        unix.listen()
        ports = [each.getsockname()[1] for each in (web, datagrams, other)]
        early = socket.create_connection(("127.0.0.1", ports[0]), timeout=TIMEOUT)
        early.sendall(b"early\n")
        command = [*BOTHENDS, "serve", "upper", "systemd://web", "systemd://api"]
        with (
            manager.start_activated(command, [web, datagrams, unix, other], "web:web:api:spare") as server,
            early,
        ):
            assert early.recv(100) == b"EARLY\n"  # it has waited in the accept queue
            with connect(f"udp://127.0.0.1:{ports[1]}") as client:
                assert client.request(b"a") == b"A"
            with connect(f"unix://{path}") as client:
                assert client.request(b"b") == b"B"
            assert server.stop() == 0
    assert path.exists()  # the manager removes the file


def test_activated_descriptors_are_not_inherited_by_commands(manager: FakeServiceManager) -> None:
    with listener() as web:
        port = web.getsockname()[1]
        command = [*BOTHENDS, "serve", "--exec", "sh -c 'env; ls /proc/self/fd'", "systemd://unknown"]
        with manager.start_activated(command, [web]) as server, connect(f"tcp://127.0.0.1:{port}") as client:
            output = client.receive_all().decode()
            assert server.stop() == 0
    assert "LISTEN_" not in output
    assert len(re.findall(r"^\d+$", output, re.MULTILINE)) == 4  # the standard ones, and the folder itself


# --- notification ---


def test_notify_ready_and_stopping(manager: FakeServiceManager) -> None:
    with listener() as web:
        command = [*BOTHENDS, "serve", "upper", "systemd://unknown"]
        with manager.start_activated(command, [web]) as server:
            assert manager.receive_notification() == ["READY=1", f"MAINPID={server.process.pid}"]
            with connect(f"tcp://127.0.0.1:{web.getsockname()[1]}") as client:
                assert client.request(b"a") == b"A"
            assert server.stop() == 0
            assert manager.receive_notification() == ["STOPPING=1"]


def test_notify_comes_from_supervisor_of_several_servers(manager: FakeServiceManager, tmp_path: Path) -> None:
    path = tmp_path / "servers.toml"
    tables = [f'[[serve]]\nservice = "upper"\nendpoints = ["systemd://{name}"]\n' for name in ("one", "two")]
    path.write_text("".join(tables))
    with listener() as one, listener() as two:
        command = [*BOTHENDS, "serve", "--config", str(path)]
        with manager.start_activated(command, [one, two], "one:two") as server:
            assert manager.receive_notification() == ["READY=1", f"MAINPID={server.process.pid}"]
            for each in (one, two):
                with connect(f"tcp://127.0.0.1:{each.getsockname()[1]}") as client:
                    assert client.request(b"a") == b"A"
            assert server.stop() == 0
            assert manager.receive_notification() == ["STOPPING=1"]


def test_watchdog_keepalives_are_sent(manager: FakeServiceManager) -> None:
    with listener() as web:
        command = [*BOTHENDS, "serve", "upper", "systemd://unknown"]
        with manager.start_activated(command, [web], WATCHDOG_USEC="20000") as server:
            began = time.monotonic()
            received = [manager.receive_notification() for _ in range(4)]
            assert time.monotonic() - began < 5  # 30 ms, on an idle machine
            assert ["READY=1", f"MAINPID={server.process.pid}"] in received
            assert received.count(["WATCHDOG=1"]) == 3
            assert server.stop() == 0


def test_in_process_server_does_not_notify(manager: FakeServiceManager) -> None:
    code = (
        "import bothends\n"
        "from bothends.sockets.systemd import notify\n"
        "with bothends.serve('upper', 'tcp://127.0.0.1:0') as server:\n"
        "    bothends.connect(server.endpoints[0]).close()\n"
        "    notify('STATUS=sent explicitly')\n"
    )
    with Running(["env", f"NOTIFY_SOCKET={manager.path}", sys.executable, "-c", code]) as program:
        assert manager.receive_notification() == ["STATUS=sent explicitly"]
        assert program.wait() == 0


def test_notify_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(b"")  # the kernel chooses a name
        name = receiver.getsockname().decode().replace("\0", "@", 1)
        assert notify("READY=1", "STATUS=here", environment={"NOTIFY_SOCKET": name})
        assert receiver.recv(100) == b"READY=1\nSTATUS=here"


@pytest.mark.parametrize("name", ["", "relative", "vsock:2:1", "/no/such/socket"])
def test_notify_without_receiver_returns_false(name: str) -> None:
    assert not notify("READY=1", environment={"NOTIFY_SOCKET": name})


@pytest.mark.parametrize(
    "settings",
    [{}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}],
)
def test_watchdog_disabled_sends_nothing(manager: FakeServiceManager, settings: dict[str, str]) -> None:
    environment = {**manager.environment, **settings}
    with watchdog(environment):
        assert notify("STATUS=first", environment=environment)
    assert manager.receive_notification() == ["STATUS=first"]


def test_watchdog_sends_keepalives_until_exit(manager: FakeServiceManager) -> None:
    settings = {**manager.environment, "WATCHDOG_USEC": "2000", "WATCHDOG_PID": str(os.getpid())}
    with watchdog(settings):
        assert [manager.receive_notification() for _ in range(3)] == [["WATCHDOG=1"]] * 3


# --- the guide, and systemd itself ---


def guide_units() -> dict[str, str]:
    """Return the unit files of the guide, by name."""
    text = GUIDE.read_text(encoding="utf-8")
    return dict(re.findall(r"`(\w+\.(?:socket|service))`:\n\n```ini\n(.*?)^```", text, re.M | re.S))


def parse_unit(unit: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit)
    return parser


@needs_tool("systemd-analyze")
def test_guide_units_pass_systemd_analyze(tmp_path: Path) -> None:
    found = guide_units()
    assert sorted(found) == ["capitals.service", "capitals.socket"]
    for name, text in found.items():
        (tmp_path / name).write_text(text)
    tool = find_tool("systemd-analyze")
    assert tool is not None
    done = subprocess.run(
        [tool, "verify", "--man=no", *(str(tmp_path / name) for name in found)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
    )
    warnings = [line for line in done.stderr.splitlines() if "capitals" in line]
    assert (done.returncode, warnings) == (0, [])


def test_guide_service_serves_sockets_of_socket_unit(manager: FakeServiceManager, tmp_path: Path) -> None:
    found = guide_units()
    service, opened = parse_unit(found["capitals.service"]), parse_unit(found["capitals.socket"])
    program, *command = shlex.split(service["Service"]["ExecStart"].replace("/run/capitals", str(tmp_path)))
    assert (program, command[0], service["Service"]["Type"]) == ("/usr/bin/env", "bothends", "notify")
    name = opened["Socket"]["FileDescriptorName"]
    with listener() as web, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        usec = str(int(service["Service"]["WatchdogSec"]) * 1_000_000)
        with manager.start_activated(
            [*BOTHENDS, *command[1:]], [web, datagrams], f"{name}:{name}", WATCHDOG_USEC=usec
        ) as server:
            assert manager.receive_notification()[0] == "READY=1"
            for scheme, sock in (("tcp", web), ("udp", datagrams)):
                with connect(f"{scheme}://127.0.0.1:{sock.getsockname()[1]}") as client:
                    assert client.request(b"a") == b"A"
            with connect(f"unix://{tmp_path}/metrics") as client:
                assert client.exchange(b"GET /health HTTP/1.0\r\n\r\n").endswith(b"ok\n")
            server.process.send_signal(signal.SIGHUP)
            server.text(rb'"event":"reloaded"')
            assert server.stop() == 0


@needs_tool("systemd-socket-activate")
@pytest.mark.parametrize("names", [[], ["--fdname=capitals"]])
def test_socket_activation_by_systemd(names: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    tool = find_tool("systemd-socket-activate")
    assert tool is not None
    name = "capitals" if names else "unknown"
    command = [*BOTHENDS, "serve", "upper", f"systemd://{name}"]
    with Running([tool, "-l", str(path), *names, *command]) as server:
        server.error_line(rb"Listening on .*a\.sock as 3\.")
        with connect(f"unix://{path}", timeout=TIMEOUT) as client:  # which starts the server
            assert client.request(b"hello") == b"HELLO"
        with connect(f"unix://{path}") as client:
            assert client.request(b"again") == b"AGAIN"
        assert server.stop() == 0


def test_inherited_socket_becomes_non_inheritable(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "a"))
        sock.listen()
        sock.set_inheritable(True)
        [inherited] = open_listeners(Endpoint.parse(f"fd://{sock.fileno()}"))
        assert not inherited.socket.get_inheritable()
        inherited.close()
        sock.detach()
