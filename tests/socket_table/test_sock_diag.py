"""Parse netlink messages: truncated, padded, and from older and newer kernels."""

from __future__ import annotations

import socket
import struct

import pytest

from bothends.socket_table.entry import EntryAddress
from bothends.socket_table.sock_diag import attributes, messages, parse_inet, parse_unix


def build_attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def build_inet_message(family: int, state: int, source: bytes, destination: bytes, *attrs: bytes) -> bytes:
    head = struct.pack("=BBBB", family, state, 0, 0)
    socket_id = struct.pack("!HH16s16s", 8080, 40000, source, destination)
    return head + socket_id + struct.pack("=I8xIIIII", 2, 0, 11, 22, 1000, 4711) + b"".join(attrs)


def test_parse_inet_established_connection() -> None:
    info = bytearray(240)
    struct.pack_into("=I", info, 68, 1500)  # tcpi_rtt
    struct.pack_into("=I", info, 76, 0x7FFFFFFF)  # tcpi_snd_ssthresh: nothing lost yet
    struct.pack_into("=I", info, 80, 10)  # tcpi_snd_cwnd
    struct.pack_into("=I", info, 100, 3)  # tcpi_total_retrans
    struct.pack_into("=Q", info, 120, 1 << 40)  # tcpi_bytes_acked
    attrs = (
        build_attribute(8, b"\x02"),
        build_attribute(2, bytes(info)),
        build_attribute(4, b"cubic\0"),
        build_attribute(99, b"new"),
    )
    row = parse_inet(
        socket.IPPROTO_TCP,
        build_inet_message(socket.AF_INET6, 1, bytes(15) + b"\1", b"\xfe\x80" + bytes(14), *attrs),
    )
    assert (row.kind, row.state, row.uid, row.inode) == ("tcp6", "ESTABLISHED", 1000, 4711)
    assert (row.local, row.peer) == (EntryAddress("::1", 8080, 2), EntryAddress("fe80::", 40000, 2))
    assert (row.recv_queue, row.send_queue, row.shutdown) == (11, 22, "write")
    assert row.tcp is not None
    assert (row.tcp.rtt, row.tcp.cwnd, row.tcp.ssthresh, row.tcp.retransmissions) == (1500, 10, None, 3)
    assert (row.tcp.congestion, row.tcp.bytes_acked) == ("cubic", 1 << 40)


@pytest.mark.parametrize(("size", "known"), [(0, False), (103, False), (104, True), (128, True)])
def test_parse_tcp_info_of_older_kernels(size: int, known: bool) -> None:
    row = parse_inet(
        6, build_inet_message(socket.AF_INET, 1, bytes(16), bytes(16), build_attribute(2, bytes(size)))
    )
    assert (row.tcp is not None) == known
    if row.tcp is not None:
        assert (row.tcp.bytes_acked is not None) == (size == 128)
        assert row.tcp.min_rtt is None


def test_parse_inet_raw_socket_protocol() -> None:
    body = bytearray(build_inet_message(socket.AF_INET, 7, bytes(16), bytes(16)))
    struct.pack_into("!H", body, 4, 1)
    row = parse_inet(255, bytes(body))
    assert (row.kind, row.type, row.state, row.local) == (
        "raw icmp",
        "raw",
        "UNCONNECTED",
        EntryAddress("0.0.0.0", 0, 2),
    )


def test_parse_unix_escapes_names() -> None:
    head = struct.pack("=BBBxI8x", socket.AF_UNIX, socket.SOCK_SEQPACKET, 10, 5)
    for name, shown in ((b"/a\x1b\n\0", "/a\\x1b\\n"), (b"\0a\0b\xff", "@a\\x00b\\xff"), (b"", "")):
        row = parse_unix(head + (build_attribute(0, name) if name else b""))
        assert (row.kind, row.state, row.local.host) == ("unix seqpacket", "LISTEN", shown)
        assert row.recv_queue is None


def test_truncated_messages_and_attributes_stop_parsing() -> None:
    whole = struct.pack("=IHHII", 21, 20, 0, 0, 0) + b"12345" + bytes(3)
    assert list(messages(whole + whole)) == [(20, b"12345")] * 2
    assert list(messages(whole + bytes(16))) == [(20, b"12345")]
    assert list(messages(whole[:10])) == []
    assert attributes(build_attribute(1, b"x") + b"\0\0\0\0") == {1: b"x"}
