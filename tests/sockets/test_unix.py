"""UNIX sockets: names, types, permissions, and stale files."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bothends.endpoints import Endpoint
from bothends.errors import EndpointError, SystemCallFailed, TimeoutExpired
from bothends.sockets import Listener, open_connection, open_listeners, prepare_accepted, unix
from tests.sockets.tools import listening

KINDS = ["unix", "unix+dgram", "unix+seqpacket"]


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary working directory, so that relative names are short enough for sun_path."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def create_stale_socket(path: Path, kind: int = socket.SOCK_STREAM) -> None:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(str(path))


def expect_address_in_use(text: str) -> SystemCallFailed:
    with pytest.raises(SystemCallFailed) as caught:
        open_listeners(Endpoint.parse(text))
    assert caught.value.errno == errno.EADDRINUSE
    assert isinstance(caught.value.__cause__, OSError)
    return caught.value


@pytest.mark.parametrize("scheme", KINDS)
@pytest.mark.parametrize("name", ["a.sock", "./sub%20dir/%C3%A9%FF", "@name", "@"])
def test_unix_listener_and_client_exchange(workdir: Path, scheme: str, name: str) -> None:
    (workdir / "sub dir").mkdir()
    name = name.replace("@name", f"@{workdir.name}-{scheme}-{os.getpid()}")
    with listening(f"{scheme}://{name}") as listener:
        assert Endpoint.parse(str(listener.endpoint)) == listener.endpoint
        assert listener.address.to_endpoint(scheme) == listener.endpoint
        assert listener.is_message_oriented == (scheme != "unix")
        with open_connection(listener.endpoint, timeout=5) as client:
            client.send(b"there")
            if scheme == "unix+dgram":
                assert listener.role == "datagrams"
                data, sender = listener.socket.recvfrom(10)
                listener.socket.sendto(data, sender)
            else:
                connection, _ = listener.socket.accept()
                with connection:
                    connection.send(connection.recv(10))
            assert client.recv(10) == b"there"
            assert client.gettimeout() is None
    assert not [path for path in workdir.rglob("*") if path.is_socket()]


def test_socket_file_is_unlinked_after_chdir(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening("unix://a.sock"):
        assert (workdir / "a.sock").is_socket()
        (workdir / "sub").mkdir()
        monkeypatch.chdir(workdir / "sub")
    assert not (workdir / "a.sock").exists()


@pytest.mark.parametrize("scheme", KINDS)
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_stale_socket_file_is_replaced(workdir: Path, scheme: str, kind: int) -> None:
    create_stale_socket(workdir / "a", kind)
    with listening(f"{scheme}://a") as listener, open_connection(listener.endpoint, timeout=5):
        pass
    assert not (workdir / "a").exists()


@pytest.mark.parametrize("scheme", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_live_socket_is_not_replaced_or_connected_to(workdir: Path, scheme: str, other: str) -> None:
    with listening(f"{scheme}://a") as listener:
        assert expect_address_in_use(f"{other}://a").hint == "an open socket has that name"
        listener.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.socket.recv(1) if scheme == "unix+dgram" else listener.socket.accept()
    assert not (workdir / "a").exists()


def test_bound_but_not_listening_socket_counts_as_live(workdir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("a")
        expect_address_in_use("unix://a")


def test_non_socket_file_is_not_replaced(workdir: Path) -> None:
    (workdir / "a").write_text("mine")
    (workdir / "link").symlink_to("stale")
    create_stale_socket(workdir / "stale")
    assert "not a socket: it is left alone" in expect_address_in_use("unix://a").hint
    assert "not a socket: it is left alone" in expect_address_in_use("unix://link").hint
    assert (workdir / "a").read_text() == "mine"
    assert (workdir / "link").is_symlink()


def test_abstract_name_in_use_raises() -> None:
    with listening("unix://@") as listener:
        expect_address_in_use(str(listener.endpoint))


@pytest.mark.parametrize("_attempt", range(10))
def test_concurrent_stale_replacement_has_one_winner(workdir: Path, _attempt: int) -> None:
    create_stale_socket(workdir / "a")
    start = threading.Barrier(8)

    def open_or_errno(_: int) -> Listener | int:
        start.wait()
        try:
            return open_listeners(Endpoint.parse("unix://a"))[0]
        except SystemCallFailed as error:
            return error.errno

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(open_or_errno, range(8)))
    (winner,) = [result for result in results if isinstance(result, Listener)]
    assert results.count(errno.EADDRINUSE) == 7
    with winner, open_connection(winner.endpoint, timeout=5):
        pass


def test_stale_file_is_kept_when_directory_is_locked(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_stale_socket(workdir / "a")
    monkeypatch.setattr(unix, "_LOCK_TIMEOUT", 0)
    directory = os.open(workdir, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(directory, fcntl.LOCK_EX)  # as another server does while it binds
    try:
        assert "remove the file manually" in expect_address_in_use("unix://a").hint
        assert (workdir / "a").is_socket()
    finally:
        os.close(directory)
    with listening("unix://a"):
        pass


def test_close_does_not_unlink_replaced_file(workdir: Path) -> None:
    with listening("unix://a") as one:
        (workdir / "a").rename(workdir / "old")
        with listening("unix://a") as other:
            one.close()
            assert (workdir / "a").is_socket()
            with open_connection(other.endpoint, timeout=5):
                pass


def test_close_in_forked_child_keeps_file(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening("unix://a") as listener:
        monkeypatch.setattr(os, "getpid", lambda: -1)
        listener.close()
    assert (workdir / "a").is_socket()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o777, 0o000])
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_mode_option_sets_permissions(workdir: Path, mode: int, umask: int) -> None:
    before = os.umask(umask)
    try:
        with listening(f"unix://a?mode={mode:o}"):
            assert stat.S_IMODE((workdir / "a").stat().st_mode) == mode
        with listening("unix://a"):
            assert stat.S_IMODE((workdir / "a").stat().st_mode) == 0o777 & ~umask
    finally:
        os.umask(before)


def test_mode_is_set_at_bind_time(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_bind: list[int] = []

    class RecordingSocket(socket.socket):
        def bind(self, address: bytes) -> None:  # type: ignore[override]
            super().bind(address)
            at_bind.append(stat.S_IMODE(os.lstat(address).st_mode))

    endpoint = Endpoint.parse("unix://a?mode=600")
    before = os.umask(0)
    try:
        with RecordingSocket(socket.AF_UNIX) as sock:
            unix.bind_unix(sock, endpoint)
    finally:
        os.umask(before)
    assert at_bind == [0o600]


def test_sun_path_length_limit(workdir: Path) -> None:
    for text in (f"unix://{'a' * 107}", f"unix://@{os.getpid():0107}"):
        with listening(text) as listener, open_connection(listener.endpoint, timeout=5):
            pass
    for text in (f"unix://{'a' * 108}", f"unix://@{'a' * 108}"):
        for open_endpoint in (open_listeners, open_connection):
            with pytest.raises(SystemCallFailed, match="at most 107 bytes") as caught:
                open_endpoint(Endpoint.parse(text))
            assert caught.value.errno == errno.ENAMETOOLONG


def test_bind_error_text(workdir: Path) -> None:
    with pytest.raises(
        SystemCallFailed, match=r"cannot bind unix://no/a: ENOENT .*the directory does not exist"
    ):
        open_listeners(Endpoint.parse("unix://no/a"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_bind_in_unwritable_directory_raises(workdir: Path) -> None:
    workdir.chmod(0o500)
    try:
        with pytest.raises(SystemCallFailed, match=r"EACCES .*the directory must be writable"):
            open_listeners(Endpoint.parse("unix://a"))
    finally:
        workdir.chmod(0o700)


def test_connect_error_texts(workdir: Path) -> None:
    create_stale_socket(workdir / "stale")
    for text, number, hint in (
        ("unix://no", errno.ENOENT, "no such socket file"),
        ("unix://stale", errno.ECONNREFUSED, "left over from one that exited"),
    ):
        with pytest.raises(SystemCallFailed, match=hint) as caught:
            open_connection(Endpoint.parse(text))
        assert caught.value.errno == number
        assert caught.value.__cause__
    with listening("unix+dgram://a"), pytest.raises(SystemCallFailed, match="a UNIX socket of another type"):
        open_connection(Endpoint.parse("unix://a"))
    with pytest.raises(EndpointError, match="connecting needs a name"):
        open_connection(Endpoint.parse("unix://@"))
    with pytest.raises(EndpointError, match="the scheme has no source address"):
        open_connection(Endpoint.parse("unix://a"), source=("127.0.0.1", 0))


@pytest.mark.parametrize("scheme", ["unix", "unix+seqpacket"])
def test_connect_full_accept_queue_times_out(workdir: Path, scheme: str) -> None:
    with listening(f"{scheme}://a?backlog=1") as listener:
        waiting = [open_connection(listener.endpoint, timeout=5) for _ in range(2)]
        try:
            with pytest.raises(TimeoutExpired, match="the accept queue of the listener is full") as caught:
                open_connection(listener.endpoint, timeout=0.01)
            assert caught.value.seconds == 0.01
        finally:
            for sock in waiting:
                sock.close()


@pytest.mark.parametrize("scheme", KINDS)
def test_buffer_options_on_both_ends(workdir: Path, scheme: str) -> None:
    with (
        listening(f"{scheme}://a?sndbuf=20000&rcvbuf=30000") as listener,
        open_connection(listener.endpoint) as client,
    ):
        served = listener.socket
        if scheme != "unix+dgram":
            served, _ = listener.socket.accept()
            prepare_accepted(served, listener.endpoint)
        for sock in (served, client):
            # socket(7): the kernel doubles the size.
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 40000
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 60000
        served.close()
