"""Where the lab listens, which hosts can reach it, and the thread in which the state of a class is saved."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bothends.lab import server
from bothends.lab.classroom import Classroom
from bothends.sockets.listening import open_listeners
from tests.sockets.tools import needs_ipv6
from tests.tools import needs_tool


def ports(host: str) -> dict[str, int]:
    """Return the addresses that the lab listens on, each with its port."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(each) for each in server.listen(0, host)]
        for each in found:
            assert each.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return {each.socket.getsockname()[0]: each.socket.getsockname()[1] for each in found}


def test_ordinary_lab_listens_on_one_address() -> None:
    assert list(ports("127.0.0.1")) == ["127.0.0.1"]


@needs_ipv6
@pytest.mark.parametrize("host", ["", "::"])
def test_every_address_is_ipv6_and_ipv4(host: str) -> None:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(each) for each in server.listen(0, host)]
        port = found[0].endpoint.port
        for address in ("127.0.0.1", "::1"):
            stack.enter_context(socket.create_connection((address, port), 5.0))


def test_each_address_of_a_name_is_served_on_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_arguments: object, **_options: object) -> list[object]:
        return [(2, 1, 6, "", ("127.0.0.2", 0)), (2, 1, 6, "", ("127.0.0.3", 0))]

    whole = open_listeners
    monkeypatch.setattr(
        "bothends.lab.server.open_listeners", lambda endpoint: whole(endpoint, resolver=resolve)
    )
    found = ports("lab.example.org")
    assert list(found) == ["127.0.0.2", "127.0.0.3"]
    assert len(set(found.values())) == 1


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
        ("127.example.com", False), ("", False), ("0.0.0.0", False), ("192.0.2.7", False), ("::", False),
    ],
)  # fmt: skip
def test_reach_is_known_by_address_not_by_the_start_of_a_name(host: str, is_local: bool) -> None:
    assert server.LabOptions(host).is_local is is_local


def test_class_is_saved_outside_the_thread_of_the_students(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SAVE_INTERVAL", 0)
    threads = []

    async def main(room: Classroom) -> None:
        saved = asyncio.Event()
        loop = asyncio.get_running_loop()

        def save(whole: Callable[[], None] = room.save) -> None:
            threads.append(threading.current_thread())
            whole()
            loop.call_soon_threadsafe(saved.set)

        monkeypatch.setattr(room, "save", save)
        lab = server.Lab(1, options=server.LabOptions(classroom=room))
        saving = asyncio.create_task(lab._keep_saving())
        await asyncio.wait_for(saved.wait(), 10.0)
        saving.cancel()

    room = Classroom.open(tmp_path)
    room.admit(room.join_token, None)
    asyncio.run(main(room))
    assert threading.main_thread() not in threads
    assert (tmp_path / "class.json").exists()
    monkeypatch.undo()
    room.close()


@needs_tool("strace")
def test_full_disk_ends_the_lab_with_one_line() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bothends", "lab", "--no-browser"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=50,
            check=False,
        )
    assert done.stderr == "bothends: cannot write to standard output: ENOSPC (No space left on device)\n"
    assert done.returncode == 1
