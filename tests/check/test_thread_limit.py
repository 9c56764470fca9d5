"""The robust Python server in little memory: it refuses clients that it has no thread for, and goes on."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from bothends.sockets.free_port import free_port
from bothends.starters.writing import make_starter

MEMORY: Final = 200_000  # KiB of address space: enough for some threads
CLIENTS: Final = 40
TIMEOUT: Final = 20.0  # seconds


@contextmanager
def limited_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start the robust starter with a limit of its address space."""
    file = folder / "server.py"
    file.write_text(make_starter("server", "python", "tcp").text, encoding="utf-8")
    command = ["sh", "-c", f'ulimit -v {MEMORY}; exec "$@"', "sh", sys.executable, str(file), str(port)]
    with (folder / "errors").open("wb") as errors, subprocess.Popen(command, stderr=errors) as program:
        try:
            yield program
        finally:
            program.kill()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), TIMEOUT)


def connect_at_start(port: int) -> socket.socket:
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        with suppress(ConnectionRefusedError):
            return connect(port)
    return connect(port)


def ask(client: socket.socket) -> bytes:
    """Return the reply to a line, empty if the server has closed the connection."""
    with suppress(ConnectionError):
        client.sendall(b"abc\n")
        return client.recv(64)
    return b""


def test_server_without_memory_for_a_thread_refuses_the_client_and_goes_on(tmp_path: Path) -> None:
    port = free_port()
    with limited_server(tmp_path, port) as program:
        with ExitStack() as stack:
            clients = [stack.enter_context(connect_at_start(port))]
            clients += [stack.enter_context(connect(port)) for _ in range(CLIENTS)]
            assert {ask(each) for each in clients} == {b"ABC\n", b""}
        deadline, reply = time.monotonic() + TIMEOUT, b""
        while not reply and time.monotonic() < deadline:  # the threads of the others end soon
            with connect(port) as client:
                reply = ask(client)
        assert reply == b"ABC\n"
        assert program.poll() is None
    assert b"cannot serve another client: " in (tmp_path / "errors").read_bytes()
