"""read_table on real sockets of every family, of this process and of others."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bothends.errors import SystemCallFailed
from bothends.socket_table import SocketEntry, owners, proc_net, read_table, sock_diag
from bothends.socket_table.entry import EntryAddress
from tests.sockets.tools import needs_ipv6, needs_vsock

LOOPBACK = "127.0.0.1"


def entry_of(sock: socket.socket) -> SocketEntry:
    """Return the entry of a socket of this process."""
    inode = os.fstat(sock.fileno()).st_ino
    (found,) = (row for row in read_table([os.getpid()]).sockets if row.inode == inode)
    return found


@contextlib.contextmanager
def connected_pair(family: int, address: str) -> Iterator[tuple[socket.socket, socket.socket, socket.socket]]:
    """Yield a listener, a client, and its accepted connection."""
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        listener.listen(7)
        with socket.socket(family) as client:
            client.connect(listener.getsockname())
            accepted, _ = listener.accept()
            with accepted:
                yield listener, client, accepted


@pytest.mark.parametrize(
    ("family", "address", "kind"),
    [
        (socket.AF_INET, LOOPBACK, "tcp"),
        pytest.param(socket.AF_INET6, "::1", "tcp6", marks=needs_ipv6),
    ],
)
def test_tcp_listener_and_connection(family: int, address: str, kind: str) -> None:
    with connected_pair(family, address) as (listener, client, accepted):
        client.sendall(b"12345")
        port, client_port = listener.getsockname()[1], client.getsockname()[1]
        listening, one, other = entry_of(listener), entry_of(client), entry_of(accepted)
    assert (listening.kind, listening.state, listening.local) == (kind, "LISTEN", EntryAddress(address, port))
    assert (listening.recv_queue, listening.send_queue, listening.tcp) == (0, 7, None)
    assert (one.state, one.local, one.peer) == (
        "ESTABLISHED",
        EntryAddress(address, client_port),
        EntryAddress(address, port),
    )
    assert (other.local, other.peer) == (one.peer, one.local)
    assert other.recv_queue == 5
    assert one.tcp is not None
    assert one.tcp.rtt > 0
    assert one.tcp.cwnd >= 1
    assert one.tcp.congestion
    assert one.tcp.retransmissions == 0


def test_listener_queue_shows_accept_backlog() -> None:
    with (
        socket.create_server((LOOPBACK, 0), backlog=3) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        row = entry_of(listener)
    assert (row.recv_queue, row.send_queue) == (1, 3)


def test_tcp_half_close_states_and_shutdown() -> None:
    with connected_pair(socket.AF_INET, LOOPBACK) as (_, client, accepted):
        client.shutdown(socket.SHUT_WR)
        assert accepted.recv(1) == b""
        deadline = time.monotonic() + 10  # the FIN's acknowledgement may be delayed (RFC 1122, 4.2.3.2)
        while (half := entry_of(client)).state == "FIN-WAIT-1" and time.monotonic() < deadline:
            pass
        other = entry_of(accepted)
    assert (half.state, half.shutdown) == ("FIN-WAIT-2", "write")
    assert other.state == "CLOSE-WAIT"


def test_udp_bound_and_connected() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as other:
        one.bind((LOOPBACK, 0))
        other.connect(one.getsockname())
        other.send(b"datagram")
        bound, connected = entry_of(one), entry_of(other)
    assert (bound.kind, bound.type, bound.state) == ("udp", "dgram", "UNCONNECTED")
    assert bound.recv_queue is not None
    assert bound.recv_queue >= 8  # the kernel counts its overhead too
    assert connected.state == "CONNECTED"
    assert connected.peer == bound.local


@pytest.mark.parametrize(
    ("kind", "name"), [(socket.SOCK_STREAM, "stream"), (socket.SOCK_SEQPACKET, "seqpacket")]
)
def test_unix_listener_and_connection(kind: int, name: str, tmp_path: Path) -> None:
    path = os.path.relpath(tmp_path / "s")  # sun_path has room for 108 bytes
    with socket.socket(socket.AF_UNIX, kind) as listener, socket.socket(socket.AF_UNIX, kind) as client:
        listener.bind(path)
        listener.listen(5)
        client.connect(path)
        waiting = entry_of(listener)
        accepted, _ = listener.accept()
        with accepted:
            accepted.send(b"123")
            one, other = entry_of(client), entry_of(accepted)
    assert (waiting.kind, waiting.state, waiting.local.host) == (f"unix {name}", "LISTEN", path)
    assert (waiting.recv_queue, waiting.send_queue) == (1, 5)
    assert one.state == "CONNECTED"
    assert one.recv_queue == 3
    assert (one.local.host, one.peer.host) == ("", path)
    assert (one.peer_inode, other.peer_inode) == (other.inode, one.inode)


def test_unix_datagram_name_is_escaped() -> None:
    name = b"\0bothends-%d\0\x1b[31m\xff" % os.getpid()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name)
        row = entry_of(sock)
        (proc_entry,) = (each for each in proc_net.read() if each.inode == row.inode)
    assert row.kind == "unix dgram"
    assert row.local.host == f"@bothends-{os.getpid()}\\x00\\x1b[31m\\xff"
    assert proc_entry.local.host == row.local.host.replace("\\x00", "@")


@needs_vsock
def test_vsock_listener() -> None:
    with socket.socket(socket.AF_VSOCK) as sock:
        try:
            sock.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        except OSError as error:
            pytest.skip(f"no VSOCK port available: {error}")
        sock.listen()
        port = sock.getsockname()[1]
        row = entry_of(sock)
    assert (row.kind, row.local.port) == ("vsock stream", port)


def test_unbound_socket_is_listed() -> None:
    with socket.socket() as sock:
        row = entry_of(sock)
    assert (row.kind, row.state, row.local) == ("tcp", "CLOSED", EntryAddress("0.0.0.0"))


def test_only_non_default_options_are_shown() -> None:
    with socket.socket() as plain, socket.socket() as sock:
        plain.bind((LOOPBACK, 0))
        sock.bind((LOOPBACK, 0))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 1, 500_000))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
        sock.setblocking(False)
        assert entry_of(plain).options == {}
        assert entry_of(sock).options == {
            "nodelay": "1",
            "linger": "3",
            "rcvtimeo": "1.5",
            "rcvbuf": "20000",  # the kernel doubles it: socket(7)
            "nonblock": "1",
        }


def test_owners_of_duplicated_descriptor() -> None:
    with socket.create_server((LOOPBACK, 0)) as sock:
        copy = os.dup(sock.fileno())
        found = {(each.pid, each.fd) for each in entry_of(sock).owners}
        expected = {(os.getpid(), sock.fileno()), (os.getpid(), copy)}
        os.close(copy)
    assert found == expected


def test_owner_name_is_escaped() -> None:
    program = (
        "import socket, sys\n"
        "open('/proc/self/comm', 'wb').write(b'\\x1b]0;x\\x07\\xff')\n"
        "s = socket.create_server(('127.0.0.1', 0))\n"
        "print(s.getsockname()[1], flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        (row,) = read_table([child.pid]).sockets
        child.communicate()
    assert row.local.port == port
    assert [each.name for each in row.owners] == ["\\x1b]0;x\\x07\\xff"]


def test_time_wait_has_no_owner() -> None:
    with connected_pair(socket.AF_INET, LOOPBACK) as (_, client, accepted):
        ends = EntryAddress(*client.getsockname()), EntryAddress(*client.getpeername())
        client.close()
        assert accepted.recv(1) == b""
    # The kernel enters TIME-WAIT only with the last acknowledgement.
    deadline = time.monotonic() + 10
    while True:
        found = [row for row in read_table().sockets if (row.local, row.peer) == ends]
        if [row.state for row in found] == ["TIME-WAIT"] or time.monotonic() > deadline:
            break
    assert [(row.state, row.inode, row.owners, row.tcp) for row in found] == [("TIME-WAIT", 0, [], None)]


def test_proc_net_matches_sock_diag() -> None:
    with (
        connected_pair(socket.AF_INET, LOOPBACK) as (_, client, accepted),
        socket.socket(type=socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind((LOOPBACK, 0))
        client.sendall(b"12345")
        inodes = {os.fstat(sock.fileno()).st_ino for sock in (client, accepted, datagrams)}
        diag = {row.inode: row for row in sock_diag.dump() if row.inode in inodes}
        proc = {row.inode: row for row in proc_net.read() if row.inode in inodes}
    assert len(diag) == 3
    for inode, row in diag.items():
        row.tcp = row.memory = None
        row.shutdown = ""
        assert proc[inode] == row


def test_falls_back_to_proc_net_without_sock_diag(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Iterator[SocketEntry]:
        raise SystemCallFailed("read", "the socket table (sock_diag)", 2)
        yield

    monkeypatch.setattr(sock_diag, "dump", refuse)
    with socket.create_server((LOOPBACK, 0)) as sock:
        table = read_table([os.getpid()])
        inode = os.fstat(sock.fileno()).st_ino
        assert inode in {row.inode for row in table.sockets}
    assert any("ENOENT" in note for note in table.notes)


def test_pids_by_name() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in owners.pids_by_name(Path(sys.executable).name)
        child.communicate(b"\n")
    assert owners.pids_by_name("no-process-of-this-name") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its user")
def test_hidden_processes_are_noted() -> None:
    program = (
        "import sys\n"
        "from bothends.errors import SystemCallFailed\n"
        "from bothends.socket_table import read_table\n"
        "table = read_table()\n"
        "rows = [row for row in table.sockets if row.local.port == int(sys.argv[1])]\n"
        "noted = any('run as root' in note for note in table.notes)\n"
        "print(len(rows), rows[0].owners, rows[0].options, noted)\n"
        f"try: read_table([{os.getpid()}])\n"
        "except SystemCallFailed as error: print(error)\n"
    )
    with socket.create_server((LOOPBACK, 0)) as sock:
        try:
            completed = subprocess.run(
                [sys.executable, "-c", program, str(sock.getsockname()[1])],
                user=65534,
                group=65534,
                extra_groups=[],
                capture_output=True,
                text=True,
                check=False,
            )
        except PermissionError:
            pytest.skip("another user can't run this Python")
    if "No module named" in completed.stderr:
        pytest.skip("another user can't read this checkout")
    failed = f"cannot read the descriptors of process {os.getpid()}: EACCES (Permission denied)"
    assert completed.stdout.splitlines() == [
        "1 [] None True",
        f"{failed}; only its user and root can read them",
    ]


def test_sockets_of_other_network_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import socket, sys\n"
        "sock = socket.create_server(('127.0.0.1', 7))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", program]
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except FileNotFoundError:
        pytest.skip("no unshare(1) here")
    with child:
        assert child.stdout is not None
        if not child.stdout.readline():
            pytest.skip("this system forbids user namespaces")
        table = read_table([child.pid])
        netns = owners.netns_inode(child.pid)
        monkeypatch.setattr(sock_diag, "dump_namespace", refuse_to_enter)
        limited = read_table([child.pid])
        child.communicate()
    for each in (table, limited):
        (row,) = each.sockets
        assert (row.kind, row.state, row.local, row.tcp) == ("tcp", "LISTEN", EntryAddress(LOOPBACK, 7), None)
        assert [owner.pid for owner in row.owners] == [child.pid]
        assert row.netns == netns != owners.netns_inode("self")
    assert any("other network namespaces" in note for note in limited.notes)


def refuse_to_enter(pid: int) -> list[SocketEntry]:
    raise PermissionError(1, f"setns: {pid}")


def test_quiet_time_and_timer_of_unread_data() -> None:
    with connected_pair(socket.AF_INET, LOOPBACK) as (_, client, accepted):
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                client.send(bytes(65536))
        deadline = time.monotonic() + 10
        while (row := entry_of(client)).timer is None or row.timer.kind != "probe":
            assert time.monotonic() < deadline
        other = entry_of(accepted)
    assert row.tcp is not None
    assert row.tcp.notsent
    assert row.tcp.last_data_sent_ms < 10_000
    assert other.memory is not None
    assert other.memory.received >= (other.recv_queue or 0) > 0


def test_dropped_datagrams_are_counted() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock, socket.socket(type=socket.SOCK_DGRAM) as sender:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.bind((LOOPBACK, 0))
        for _ in range(100):
            sender.sendto(bytes(1000), sock.getsockname())
        row = entry_of(sock)
    assert row.memory is not None
    assert 0 < row.memory.drops < 100


def test_table_without_options_duplicates_no_descriptor() -> None:
    with socket.create_server((LOOPBACK, 0)) as sock, socket.socket():  # the second is in no table
        table = read_table([os.getpid()], with_options=False)
        (row,) = (row for row in table.sockets if row.local.port == sock.getsockname()[1])
    assert row.options is None
    assert all(row.local.port or row.family == "unix" for row in table.sockets)
