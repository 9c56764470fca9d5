"""UNIX sockets: names, types, permissions, and the files that are left behind."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bothends.endpoints import Endpoint
from bothends.errors import EndpointError, SystemRefused, TimeLimit
from bothends.sockets import Listener, open_connection, open_listeners, prepare_accepted, unix
from tests.sockets.tools import listening

KINDS = ["unix", "unix+dgram", "unix+seqpacket"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory, and the working directory: so that names are short enough."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def leave_stale(path: Path, kind: int = socket.SOCK_STREAM) -> None:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(str(path))


def in_use(text: str) -> SystemRefused:
    with pytest.raises(SystemRefused) as caught:
        open_listeners(Endpoint.parse(text))
    assert caught.value.errno == errno.EADDRINUSE
    assert isinstance(caught.value.__cause__, OSError)
    return caught.value


@pytest.mark.parametrize("scheme", KINDS)
@pytest.mark.parametrize("name", ["a.sock", "./sub%20dir/%C3%A9%FF", "@name", "@"])
def test_both_ends_talk(place: Path, scheme: str, name: str) -> None:
    (place / "sub dir").mkdir()
    name = name.replace("@name", f"@{place.name}-{scheme}-{os.getpid()}")
    with listening(f"{scheme}://{name}") as listener:
        assert Endpoint.parse(str(listener.endpoint)) == listener.endpoint
        assert listener.address.endpoint(scheme) == listener.endpoint
        assert listener.has_boundaries == (scheme != "unix")
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
    assert not [path for path in place.rglob("*") if path.is_socket()]


def test_a_file_is_removed_after_a_change_of_directory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening("unix://a.sock"):
        assert (place / "a.sock").is_socket()
        (place / "sub").mkdir()
        monkeypatch.chdir(place / "sub")
    assert not (place / "a.sock").exists()


@pytest.mark.parametrize("scheme", KINDS)
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_stale_file_is_replaced(place: Path, scheme: str, kind: int) -> None:
    leave_stale(place / "a", kind)
    with listening(f"{scheme}://a") as listener, open_connection(listener.endpoint, timeout=5):
        pass
    assert not (place / "a").exists()


@pytest.mark.parametrize("scheme", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_a_live_socket_is_left_alone_and_undisturbed(place: Path, scheme: str, other: str) -> None:
    with listening(f"{scheme}://a") as listener:
        assert in_use(f"{other}://a").hint == "a live socket has that name"
        listener.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.socket.recv(1) if scheme == "unix+dgram" else listener.socket.accept()
    assert not (place / "a").exists()


def test_a_socket_that_is_bound_and_does_not_listen_yet_is_alive(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("a")
        in_use("unix://a")


def test_a_file_that_is_no_socket_is_left_alone(place: Path) -> None:
    (place / "a").write_text("mine")
    (place / "link").symlink_to("stale")
    leave_stale(place / "stale")
    assert "no socket: it is left alone" in in_use("unix://a").hint
    assert "no socket: it is left alone" in in_use("unix://link").hint
    assert (place / "a").read_text() == "mine"
    assert (place / "link").is_symlink()


def test_an_abstract_name_that_is_taken() -> None:
    with listening("unix://@") as listener:
        in_use(str(listener.endpoint))


@pytest.mark.parametrize("_again", range(10))
def test_of_many_that_find_a_stale_file_one_wins_and_is_not_robbed(place: Path, _again: int) -> None:
    leave_stale(place / "a")
    start = threading.Barrier(8)

    def one_of_them(_: int) -> Listener | int:
        start.wait()
        try:
            return open_listeners(Endpoint.parse("unix://a"))[0]
        except SystemRefused as error:
            return error.errno

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one_of_them, range(8)))
    (winner,) = [answer for answer in answers if isinstance(answer, Listener)]
    assert answers.count(errno.EADDRINUSE) == 7
    with winner, open_connection(winner.endpoint, timeout=5):
        pass


def test_a_stale_file_stays_where_the_directory_is_locked(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_stale(place / "a")
    monkeypatch.setattr(unix, "_LOCK_WAIT", 0)
    with unix._directory_lock(b"a") as locked:
        assert locked
        assert "remove the file by hand" in in_use("unix://a").hint
    with listening("unix://a"):
        pass


def test_a_file_that_is_somebody_elses_by_now_is_not_removed(place: Path) -> None:
    with listening("unix://a") as one:
        (place / "a").rename(place / "old")
        with listening("unix://a") as other:
            one.close()
            assert (place / "a").is_socket()
            with open_connection(other.endpoint, timeout=5):
                pass


def test_the_child_of_a_fork_leaves_the_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening("unix://a") as listener:
        monkeypatch.setattr(os, "getpid", lambda: -1)
        listener.close()
    assert (place / "a").is_socket()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o777, 0o000])
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_permissions(place: Path, mode: int, umask: int) -> None:
    before = os.umask(umask)
    try:
        with listening(f"unix://a?mode={mode:o}"):
            assert stat.S_IMODE((place / "a").stat().st_mode) == mode
        with listening("unix://a"):
            assert stat.S_IMODE((place / "a").stat().st_mode) == 0o777 & ~umask
    finally:
        os.umask(before)


def test_the_file_is_never_wider_than_asked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_bind: list[int] = []

    class Looking(socket.socket):
        def bind(self, address: bytes) -> None:  # type: ignore[override]
            super().bind(address)
            at_bind.append(stat.S_IMODE(os.lstat(address).st_mode))

    endpoint = Endpoint.parse("unix://a?mode=600")
    before = os.umask(0)
    try:
        with Looking(socket.AF_UNIX) as sock:
            unix.bind_unix(sock, endpoint)
    finally:
        os.umask(before)
    assert at_bind == [0o600]


def test_a_name_of_the_longest_length(place: Path) -> None:
    for text in (f"unix://{'a' * 107}", f"unix://@{os.getpid():0107}"):
        with listening(text) as listener, open_connection(listener.endpoint, timeout=5):
            pass
    for text in (f"unix://{'a' * 108}", f"unix://@{'a' * 108}"):
        for open_it in (open_listeners, open_connection):
            with pytest.raises(SystemRefused, match="107 bytes at most") as caught:
                open_it(Endpoint.parse(text))
            assert caught.value.errno == errno.ENAMETOOLONG


def test_refusals_of_bind_in_words(place: Path) -> None:
    with pytest.raises(
        SystemRefused, match=r"cannot bind unix://no/a: ENOENT .*the directory does not exist"
    ):
        open_listeners(Endpoint.parse("unix://no/a"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_is_not_writable(place: Path) -> None:
    place.chmod(0o500)
    try:
        with pytest.raises(SystemRefused, match=r"EACCES .*the directory must be writable"):
            open_listeners(Endpoint.parse("unix://a"))
    finally:
        place.chmod(0o700)


def test_refusals_of_connect_in_words(place: Path) -> None:
    leave_stale(place / "stale")
    for text, number, words in (
        ("unix://no", errno.ENOENT, "no such socket file"),
        ("unix://stale", errno.ECONNREFUSED, "left from one that has gone"),
    ):
        with pytest.raises(SystemRefused, match=words) as caught:
            open_connection(Endpoint.parse(text))
        assert caught.value.errno == number
        assert caught.value.__cause__
    with listening("unix+dgram://a"), pytest.raises(SystemRefused, match="a UNIX socket of another type"):
        open_connection(Endpoint.parse("unix://a"))
    with pytest.raises(EndpointError, match="a name is needed to connect to"):
        open_connection(Endpoint.parse("unix://@"))
    with pytest.raises(EndpointError, match="it takes no source address"):
        open_connection(Endpoint.parse("unix://a"), source=("127.0.0.1", 0))


@pytest.mark.parametrize("scheme", ["unix", "unix+seqpacket"])
def test_a_full_queue_and_a_time_limit(place: Path, scheme: str) -> None:
    with listening(f"{scheme}://a?backlog=1") as listener:
        waiting = [open_connection(listener.endpoint, timeout=5) for _ in range(2)]
        try:
            with pytest.raises(TimeLimit, match="the queue of the listener is full") as caught:
                open_connection(listener.endpoint, timeout=0.01)
            assert caught.value.seconds == 0.01
        finally:
            for sock in waiting:
                sock.close()


@pytest.mark.parametrize("scheme", KINDS)
def test_buffers_of_both_ends(place: Path, scheme: str) -> None:
    with (
        listening(f"{scheme}://a?sndbuf=20000&rcvbuf=30000") as listener,
        open_connection(listener.endpoint) as client,
    ):
        served = listener.socket
        if scheme != "unix+dgram":
            served, _ = listener.socket.accept()
            prepare_accepted(served, listener.endpoint)
        for sock in (served, client):
            # socket(7): the kernel doubles what it is given.
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 40000
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 60000
        served.close()
