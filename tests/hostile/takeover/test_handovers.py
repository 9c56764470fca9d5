"""Processes at the path of a takeover that are not the old server, or not ours: one clear error each."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bothends.endpoints import Endpoint
from bothends.errors import SystemCallFailed
from bothends.server import Server
from bothends.sockets import Listener, takeover

NOBODY = 65534


@contextlib.contextmanager
def offering(path: Path, offer: Callable[[socket.socket], object]) -> Iterator[None]:
    """Listen at `path`, and call `offer` with the first connection, in a thread."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(10)

        def run() -> None:
            with contextlib.suppress(OSError), listener.accept()[0] as connection:
                offer(connection)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            thread.join()


def descriptors() -> set[str]:
    return {f"{each.name} {each.readlink()}" for each in Path("/proc/self/fd").iterdir() if each.is_symlink()}


def describe(port: int, role: str = "listener") -> list[str]:
    return [f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port}", role]


def garbage(connection: socket.socket) -> None:
    connection.send(b"\xff\x00 not JSON")


def deep(connection: socket.socket) -> None:
    connection.send(b"[" * 100_000)


def number(connection: socket.socket) -> None:
    connection.send(b"17")


def no_descriptor(connection: socket.socket) -> None:
    connection.send(json.dumps([describe(1)]).encode())


def too_many_descriptors(connection: socket.socket) -> None:
    with socket.socket() as sock:
        socket.send_fds(connection, [json.dumps([describe(1)]).encode()], [sock.fileno()] * 253)


def pipe(connection: socket.socket) -> None:
    reader, writer = os.pipe()
    socket.send_fds(connection, [json.dumps([describe(1)]).encode()], [reader])
    os.close(reader)
    os.close(writer)


def not_listening(connection: socket.socket) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        socket.send_fds(connection, [json.dumps([describe(sock.getsockname()[1])]).encode()], [sock.fileno()])


def other_port(connection: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        socket.send_fds(connection, [json.dumps([describe(1)]).encode()], [sock.fileno()])


def bad_endpoint(connection: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        description = ["tcp://[::1", "nonsense://", "listener"]
        socket.send_fds(connection, [json.dumps([description]).encode()], [sock.fileno()])


def bad_role(connection: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        description = describe(sock.getsockname()[1], "king")
        socket.send_fds(connection, [json.dumps([description]).encode()], [sock.fileno()])


def second_is_bad(connection: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        descriptions = [describe(sock.getsockname()[1]), 3]
        socket.send_fds(connection, [json.dumps(descriptions).encode()], [sock.fileno()] * 2)


def too_long(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    connection.send(b" " * 300_000)


OFFERS = [
    garbage, deep, number, no_descriptor, too_many_descriptors, pipe, not_listening, other_port, bad_endpoint,
    bad_role, second_is_bad, too_long,
]  # fmt: skip


@pytest.mark.parametrize("offer", OFFERS)
def test_bad_offer_is_one_error_and_leaks_nothing(
    tmp_path: Path, offer: Callable[[socket.socket], object]
) -> None:
    path = tmp_path / "takeover"
    before = descriptors()
    with offering(path, offer), pytest.raises(SystemCallFailed) as caught:
        takeover.request_listeners(str(path))
    assert "\n" not in str(caught.value)
    assert "Success" not in str(caught.value)
    assert not descriptors() - before


def test_silent_offerer_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "TIMEOUT", 0.1)
    path = tmp_path / "takeover"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(SystemCallFailed, match="has sent nothing"):
            takeover.request_listeners(str(path))


def test_garbage_ends_the_new_server_with_status_1(tmp_path: Path) -> None:
    path = tmp_path / "takeover"
    command = [sys.executable, "-m", "bothends", "serve", "upper", "tcp://127.0.0.1:0"]
    with offering(path, garbage):
        done = subprocess.run(
            [*command, "--takeover", str(path)], capture_output=True, timeout=60, check=False
        )
    assert done.returncode == 1, done.stderr
    assert b"EPROTO" in done.stderr
    assert b"Traceback" not in done.stderr


def test_old_server_serves_on_after_bad_requests(tmp_path: Path) -> None:
    path = tmp_path / "takeover"
    with Server("upper", ["tcp://127.0.0.1:0"], takeover=str(path)) as server:
        port = server.endpoints[0].port or 0
        for answer in (b"", b"garbage", b"x" * 50_000):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
                while client.connect_ex(str(path)):
                    pass  # the server binds it a moment after it listens
                _, received, _, _ = socket.recv_fds(client, 10_000, 10)
                for descriptor in received:
                    os.close(descriptor)
                if answer:
                    client.send(answer)
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(b"still here\n")
            assert client.recv(100) == b"STILL HERE\n"


# Another user ----------------------------------------------------------------------------------------

IMPOSTOR = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that every user can write to."""
    if os.geteuid():
        pytest.skip("needs root, to become another user")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.fixture
def impostor(shared_folder: Path) -> Iterator[Path]:
    """A path in a shared folder, at which a process of another user listens."""
    path = shared_folder / "takeover"
    with subprocess.Popen(
        [sys.executable, "-c", IMPOSTOR, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield path


def test_socket_of_another_user_is_refused(impostor: Path) -> None:
    with pytest.raises(SystemCallFailed, match=r"EACCES.* belongs to user"):
        takeover.request_listeners(str(impostor))


def test_listener_of_another_user_is_refused_although_root_owns_the_file(impostor: Path) -> None:
    os.chown(impostor, 0, 0)
    with pytest.raises(SystemCallFailed, match=r"EACCES.*a process of user .* listens there"):
        takeover.request_listeners(str(impostor))


REQUEST = f"""
import os, socket, sys
os.setuid({NOBODY})
client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
client.connect(sys.argv[1])
print(len(client.recv(1000)))
"""


def test_another_user_is_not_offered_the_listeners(shared_folder: Path) -> None:
    path = shared_folder / "takeover"
    with socket.create_server(("127.0.0.1", 0)) as sock:
        endpoint = Endpoint("tcp", host="127.0.0.1", port=sock.getsockname()[1])
        listeners = [Listener(endpoint, sock, "listener", endpoint)]
        with takeover.serve_handover(str(path), listeners, lambda: None):
            path.chmod(0o777)
            done = subprocess.run(
                [sys.executable, "-c", REQUEST, str(path)], capture_output=True, timeout=30, check=True
            )
    assert done.stdout == b"0\n"
