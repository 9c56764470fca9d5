"""The parser of strace's output, and the decoder: each form of a line, recordings, and arbitrary input."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.trace.capture.calls import ACCEPTING, ON_SOCKETS, RECEIVING, SENDING, CallDecoder
from bothends.trace.capture.descriptors import SocketRegistry
from bothends.trace.capture.strace import (
    CallEnded,
    CallStarted,
    Line,
    SignalDelivered,
    StraceParser,
    ThreadExited,
)
from bothends.trace.model import Call, Point, SocketAddress, Trace
from bothends.trace.rendering import explain

HERE = Path(__file__).parent / "recordings"
RECORDINGS = sorted(HERE.glob("*.strace"))
AT = 1795255220_976349485
STAMP = "1795255220.976349485"


def parse_lines(text: str) -> list[Line]:
    parser = StraceParser()
    found = list(parser.feed(text.encode())) + list(parser.feed_eof())
    assert parser.unparsed_samples == []
    return found


def decode_points(text: bytes) -> tuple[Trace, list[Point]]:
    trace, parser = Trace(), StraceParser()
    reader = CallDecoder(trace, SocketRegistry(), itertools.count(1), "program")
    points = [*reader.decode(parser.feed(text)), *reader.decode(parser.feed_eof()), *reader.finish()]
    return trace, points


def one_call(*lines: str) -> Call:
    _, points = decode_points("".join(f"7 {STAMP} {line}\n" for line in lines).encode())
    return [point.event for point in points if isinstance(point.event, Call)][-1]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("close(3<TCP:[1]>) = 0 <0.000013520>", CallEnded(7, AT, "close", "3<TCP:[1]>", AT + 13520, 0)),
        (
            "connect(3<TCP:[1]>, 0x7ff, 16) = -1 ECONNREFUSED (Connection refused) <0.1>",
            CallEnded(7, AT, "connect", "3<TCP:[1]>, 0x7ff, 16", AT + 100_000_000, -1, "", "ECONNREFUSED"),
        ),
        (
            "accept(3<TCP:[1]>, NULL, NULL) = 4<TCP:[127.0.0.1:1->127.0.0.1:2]> <0.000000001>",
            CallEnded(7, AT, "accept", "3<TCP:[1]>, NULL, NULL", AT + 1, 4, "TCP:[127.0.0.1:1->127.0.0.1:2]"),
        ),
        (
            "poll([{fd=3<TCP:[1]>, events=POLLIN}], 1, 10) = 0 (Timeout) <0.000000002>",
            CallEnded(7, AT, "poll", "[{fd=3<TCP:[1]>, events=POLLIN}], 1, 10", AT + 2, 0, "", "", "Timeout"),
        ),
        ("umask(022) = 077 <0.000000003>", CallEnded(7, AT, "umask", "022", AT + 3, 0o77)),  # in octal
        ("exit_group(0) = ?", CallEnded(7, AT, "exit_group", "0", None, None)),
        (
            "accept(3<TCP:[1]>, <unfinished ...>) = ?",
            CallEnded(7, AT, "accept", "3<TCP:[1]>,", None, None),
        ),
        (
            "read(3<TCP:[1]>, 0x7ff, 5) = ? ERESTARTSYS (To be restarted if SA_RESTART is set) <0.000000003>",
            CallEnded(7, AT, "read", "3<TCP:[1]>, 0x7ff, 5", AT + 3, None, "", "ERESTARTSYS"),
        ),
        ("--- SIGPIPE {si_signo=SIGPIPE} ---", SignalDelivered(7, AT, "SIGPIPE", "{si_signo=SIGPIPE}")),
        ("+++ exited with 3 +++", ThreadExited(7, AT, 3)),
        ("+++ killed by SIGSEGV (core dumped) +++", ThreadExited(7, AT, None, "SIGSEGV")),
        ("+++ superseded by execve in pid 9 +++", ThreadExited(7, AT)),
    ],
)  # fmt: skip
def test_parser_single_line(text: str, line: Line) -> None:
    assert parse_lines(f"7 {STAMP} {text}\n") == [line]


def test_parser_unfinished_and_resumed_call_spans_both_lines() -> None:
    began, other, ended = parse_lines(
        f"7 {STAMP} read(4<TCP:[1]>,  <unfinished ...>\n"
        "8 1795255220.976349999 close(5<UDP:[2]>) = 0 <0.000000001>\n"
        '7 1795255221.000000000 <... read resumed>"\\x68", 10) = 1 <0.000000009>\n'
    )
    assert isinstance(began, CallStarted)
    assert other.pid == 8
    assert ended == CallEnded(7, AT, "read", '4<TCP:[1]>, "\\x68", 10', AT + 9, 1)


def test_parser_resumed_call_without_duration_ends_at_line_time() -> None:
    *_, ended = parse_lines(
        f"7 {STAMP} accept(4<TCP:[1]>, <unfinished ...>\n"
        "7 1795255221.000000000 <... accept resumed>NULL, NULL) = 5 <unavailable>\n"
    )
    assert isinstance(ended, CallEnded)
    assert ended.until == 1795255221_000000000


def test_parser_detached_process_in_call_gives_call_started() -> None:
    (began,) = parse_lines(f"7 {STAMP} accept4(3<TCP:[0.0.0.0:80]>,  <detached ...>")
    assert began == CallStarted(7, AT, "accept4", "3<TCP:[0.0.0.0:80]>, ")


def test_parser_blocked_call_is_reported_before_it_ends() -> None:
    parser = StraceParser()
    assert list(parser.feed(f"7 {STAMP} accept4(3<TCP:[0.0.0.0:80]>, ".encode())) == []
    assert parser.unfinished_call() == CallStarted(7, AT, "accept4", "3<TCP:[0.0.0.0:80]>, ")
    assert parser.unfinished_call() is None
    (ended,) = parser.feed(b"NULL, NULL) = -1 EINTR (Interrupted system call) <0.000000001>\n")
    assert isinstance(ended, CallEnded)
    assert ended.error == "EINTR"


def test_parser_full_stdio_buffer_is_no_blocked_call_whatever_it_ends_with() -> None:
    """Without a string that is cut, only the length shows that more of the line follows."""
    line = f"7 {STAMP} ppoll([" + ", ".join(f"{{fd={n}<TCP:[{n}]>, events=POLLIN}}" for n in range(3, 400))
    data = line.encode()
    parser = StraceParser()
    for start in range(0, 3 * 4096, 4096):
        assert list(parser.feed(data[start : start + 4096])) == []
        assert parser.unfinished_call() is None
    assert list(parser.feed(data[3 * 4096 :])) == []
    began = parser.unfinished_call()
    assert began is not None
    assert began.text == line.partition("ppoll(")[2]


def test_parser_partially_written_call_start_is_not_reported() -> None:
    data = "\\x68" * 1024
    line = f'7 {STAMP} sendto(4<UDP:[2]>, "{data}", 1024, 0, NULL, 0'.encode()
    parser = StraceParser()
    for piece in (line[:100], line[100:4096]):  # a partial read; a full stdio buffer
        assert list(parser.feed(piece)) == []
        assert parser.unfinished_call() is None
    assert list(parser.feed(line[4096:])) == []
    began = parser.unfinished_call()
    assert began is not None
    assert began.text.endswith(", 1024, 0, NULL, 0")


def test_decoder_value_result_length_and_truncated_string() -> None:
    call = one_call(
        'recvfrom(3<UDP:[1]>, "\\x61\\x62"..., 2, MSG_TRUNC, {sa_family=AF_INET6, sin6_port=htons(9), '
        'sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "'
        + "".join(f"\\x{byte:02x}" for byte in b"::ffff:1.2.3.4")
        + '", &sin6_addr), sin6_scope_id=0}, [128 => 28]) = 2 <0.000000001>'
    )
    assert (call.data, call.size, call.address) == (b"ab", 2, SocketAddress("1.2.3.4", 9))


def test_decoder_accept_without_address_takes_peer_from_label() -> None:
    trace, _ = decode_points(
        f"7 {STAMP} accept4(3<TCP:[0.0.0.0:80]>, NULL, NULL, SOCK_CLOEXEC|SOCK_NONBLOCK) "
        "= 4<TCP:[127.0.0.1:80->127.0.0.1:999]> <0.000000001>\n".encode()
    )
    accepted = trace.sockets[2]
    assert (accepted.local, accepted.peer, accepted.accepted_from) == (
        SocketAddress("127.0.0.1", 80),
        SocketAddress("127.0.0.1", 999),
        1,
    )
    assert not accepted.blocks


def test_decoder_child_lines_before_fork_returns_are_attributed() -> None:
    trace, points = decode_points(
        f"7 {STAMP} socket(AF_INET, SOCK_STREAM, IPPROTO_IP) = 3<TCP:[5]> <0.000000001>\n"
        f"7 {STAMP} fork( <unfinished ...>\n"
        f"8 {STAMP} close(3<TCP:[5]>) = 0 <0.000000001>\n"
        f"7 {STAMP} <... fork resumed>) = 8 <0.000000001>\n".encode()
    )
    child = next(each for each in trace.processes.values() if each.pid == 8)
    assert trace.processes[child.parent or 0].pid == 7
    closes = [point for point in points if isinstance(point.event, Call) and point.event.name == "close"]
    assert len(closes) == 2
    assert len(trace.sockets) == 1  # parent and child share it


def test_decoder_exec_closes_cloexec_descriptors_only() -> None:
    text = "".join(
        f"7 {STAMP} {line} <0.000000001>\n"
        for line in (
            "socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, IPPROTO_IP) = 3<TCP:[5]>",
            "dup2(3<TCP:[5]>, 9) = 9<TCP:[5]>",
            'execve("\\x61", ["\\x61"], 0x7ff /* 9 vars */) = 0',
            'write(9<TCP:[1.1.1.1:1->2.2.2.2:2]>, "\\x61", 1) = 1',
            'write(3<\\x61>, "\\x61", 1) = 1',
        )
    )
    trace, points = decode_points(text.encode())
    writes = [
        point.event for point in points if isinstance(point.event, Call) and point.event.name == "write"
    ]
    assert {each.descriptor for each in writes} == {9}
    assert {each.socket for each in writes} == {1}
    assert trace.sockets[1].peer == SocketAddress("2.2.2.2", 2)


def test_decoder_descriptor_reused_before_close_returns() -> None:
    first, second = (f"4<TCP:[1.1.1.1:80->2.2.2.2:{port}]>" for port in (1, 2))
    text = (
        f"7 {STAMP} clone(flags=CLONE_VM|CLONE_FILES|CLONE_THREAD) = 8 <0.000000001>\n"
        f"7 {STAMP} accept(3<TCP:[1.1.1.1:80]>, NULL, NULL) = {first} <0.000000001>\n"
        f"8 1795255220.976349997 close({first} <unfinished ...>\n"
        f"7 1795255220.976349998 accept(3<TCP:[1.1.1.1:80]>, NULL, NULL) = {second} <0.000000001>\n"
        "8 1795255220.976349999 <... close resumed>) = 0 <0.000000001>\n"
        "7 1795255221.000000000 close(4<TCP:[1.1.1.1:80]>) = 0 <0.000000001>\n"
    )
    _, points = decode_points(text.encode())
    calls = [each.event for each in points if each.is_end and isinstance(each.event, Call)]
    one, other = (each.created_id for each in calls if each.name == "accept")
    assert [each.socket for each in calls if each.name == "close"] == [one, other]


def ended_calls(text: str) -> list[Call]:
    _, points = decode_points(text.encode())
    return [point.event for point in points if point.is_end and isinstance(point.event, Call)]


CONNECTED = "<TCP:[127.0.0.1:1->127.0.0.1:2]>"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            (
                f"poll([{{fd=4{CONNECTED}, events=POLLIN}}, {{fd=0<\\x2f>, events=POLLIN}}], 2, 50) = 1 "
                "([{fd=4, revents=POLLIN|POLLHUP}])"
            ),
            (("POLLIN",), (0,), ("POLLIN|POLLHUP",), 50_000_000),
        ),
        (
            (
                f"pselect6(5, [0<\\x2f<char 1:3>> 4{CONNECTED}], [4{CONNECTED}], NULL, "
                "{tv_sec=1, tv_nsec=5}, NULL) = 1 (out [4], left {tv_sec=0, tv_nsec=9})"
            ),
            (("POLLIN|POLLOUT",), (0,), ("POLLOUT",), 1_000_000_005),
        ),
        (
            "epoll_wait(9<\\x61>, [{events=EPOLLIN|EPOLLRDHUP, data={u32=7, u64=77}}], 4, -1) = 1",
            (("EPOLLIN|EPOLLET",), (0,), ("EPOLLIN|EPOLLRDHUP",), None),
        ),
        (
            "epoll_wait(9<\\x61>, [{events=EPOLLIN, data=0x4d}], 4, -1) = 1",  # newer strace
            (("EPOLLIN|EPOLLET",), (0,), ("EPOLLIN",), None),
        ),
    ],
    ids=["poll", "select", "epoll", "epoll-data-in-hexadecimal"],
)
def test_decoder_ready_sets_and_time_limits(call: str, expected: tuple[object, ...]) -> None:
    *_, waited = ended_calls(
        f"7 {STAMP} epoll_create1(0) = 9<\\x61> <0.000000001>\n"
        f"7 {STAMP} getsockopt(4{CONNECTED}, SOL_SOCKET, SO_ERROR, [0], [4]) = 0 <0.000000001>\n"
        f"7 {STAMP} epoll_ctl(9<\\x61>, EPOLL_CTL_ADD, 4{CONNECTED}, "
        "{events=EPOLLIN|EPOLLET, data={u32=77, u64=77}}) = 0 <0.000000001>\n"
        f"7 {STAMP} epoll_ctl(9<\\x61>, EPOLL_CTL_ADD, 0<\\x2f>, "
        "{events=EPOLLIN, data={u32=0, u64=0}}) = 0 <0.000000001>\n"
        f"7 {STAMP} {call} <0.000000001>\n"
    )
    assert waited.sockets == waited.ready == (1,)
    found = waited.wanted_events, waited.descriptors_waited, waited.ready_events, waited.timeout_ns
    assert found == expected


@pytest.mark.parametrize(
    ("signal", "errors"), [("SIGCHLD", [""]), ("SIGQUIT", [""]), ("SIGALRM", ["ERESTARTSYS", ""])]
)
def test_decoder_restarted_call_is_one_call_unless_its_signal_is_drawn(
    signal: str, errors: list[str]
) -> None:
    calls = ended_calls(
        f"7 {STAMP} recvfrom(4{CONNECTED}, 0x7ffc, 9, 0, NULL, NULL) = ? ERESTARTSYS (Restart) <0.1>\n"
        f"7 1795255221.000000000 --- {signal} {{si_signo={signal}}} ---\n"
        f'7 1795255222.000000000 recvfrom(4{CONNECTED}, "\\x68", 9, 0, NULL, NULL) = 1 <0.000000001>\n'
    )
    assert [call.error for call in calls] == errors
    assert calls[-1].data == b"h"
    assert calls[0].at == AT


def test_decoder_holders_follow_fork_dup_and_close() -> None:
    trace, _ = decode_points(
        b"7 1.000000000 socket(AF_INET, SOCK_STREAM, 0) = 3<TCP:[5]> <0.000000001>\n"
        b"7 2.000000000 dup(3<TCP:[5]>) = 5<TCP:[5]> <0.000000001>\n"
        b"7 3.000000000 clone(child_stack=NULL, flags=SIGCHLD) = 8 <0.000000001>\n"
        b"8 4.000000000 close(3<TCP:[5]>) = 0 <0.000000001>\n"
        b"7 5.000000000 close_range(3, 4294967295, 0) = 0 <0.000000001>\n"
        b"8 6.000000000 +++ exited with 0 +++\n"
    )
    seconds = 1_000_000_000
    held = [trace.holders_at(1, at * seconds + seconds // 2) for at in range(1, 7)]
    assert held == [{1: {3}}, {1: {3, 5}}, {1: {3, 5}, 2: {3, 5}}, {1: {3, 5}, 2: {5}}, {2: {5}}, {}]
    assert trace.holders == {}


def test_decoder_io_uring_adds_note() -> None:
    trace, points = decode_points(f"7 {STAMP} io_uring_setup(8, 0x7ff) = 5<\\x61> <0.000000001>\n".encode())
    assert trace.processes[1].uses_io_uring
    assert "io_uring" in str([point.event for point in points])
    assert trace.notes == ["process 7 uses io_uring, which strace can't see: calls made that way are missing"]


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_decoder_recording_has_every_call(path: Path) -> None:
    text = path.read_text()
    parser = StraceParser()
    assert list(parser.feed(text.encode()))
    # `record.py` may have omitted the first line of a call.
    assert [line for line in parser.unparsed_samples if "resumed>" not in line] == []
    _, points = decode_points(text.encode())
    ended = [each.event for each in points if each.is_end and isinstance(each.event, Call)]
    for name in sorted(SENDING | RECEIVING | ACCEPTING | {"bind", "listen", "connect", "shutdown"}):
        # in strace's log: calls on sockets that started, and those that never ended
        started = re.findall(rf" {name}\(\d+<(?:TCP|UDP|UNIX|NETLINK).*", text)
        never = [line for line in started if re.search(r"= \?$", line)]
        decoded = [call for call in ended if call.name == name]
        at_the_end = [line for line in started if line.endswith("<unfinished ...>")]
        assert len(started) - len(never) - len(at_the_end) <= len(decoded) <= len(started), name


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_parser_recording_is_independent_of_chunking(path: Path) -> None:
    text = path.read_bytes()
    whole = list(StraceParser().feed(text))
    for size in (1, 7, 1000):
        parser = StraceParser()
        pieces = (text[start : start + size] for start in range(0, len(text), size))
        assert [line for piece in pieces for line in parser.feed(piece)] == whole


def test_decoder_recorded_select_server_waits_on_its_sockets() -> None:
    """select() reports the accept, each message and EOF, and the server handles each."""
    trace, points = decode_points((HERE / "c-select-server.strace").read_bytes())
    calls = [each.event for each in points if each.is_end and isinstance(each.event, Call)]
    waits = [each for each in calls if each.name == "pselect6"]
    (accepted,) = [each for each in calls if each.name == "accept"]
    listener, connection = accepted.socket, accepted.created_id
    assert trace.sockets[listener or 0].is_listener
    assert [each.sockets for each in waits] == [
        (listener,),
        (listener, connection),
        (listener, connection),
        (listener,),
    ]
    assert [each.result for each in waits] == [1, 1, 1, None]
    after = [calls[calls.index(each) + 1] for each in waits[:-1]]
    assert [(each.name, each.socket, each.data) for each in after] == [
        ("accept", listener, b""),
        ("recvfrom", connection, b"hello\n"),
        ("recvfrom", connection, b""),
    ]


def test_recordings_cover_every_language_and_server_type() -> None:
    names = {path.stem.rpartition("-")[0] for path in RECORDINGS}
    assert names == {"c-fork", "c-select", "java", "node", "python", "python-threads"}


def test_explain_covers_every_socket_call() -> None:
    assert ON_SOCKETS - set(explain.CALLS) - {"send", "recv"} == set()


SYNTAX = st.lists(
    st.sampled_from(
        [
            *(
                "7 ",
                "8 ",
                f"{STAMP} ",
                "read(",
                "sendto(",
                "accept4(",
                "clone(",
                ", ",
                "[{",
                "}]",
                "= ",
                "-1 ",
            ),
            *("3<TCP:[1]>", "4<TCP:[1.1.1.1:1->2.2.2.2:2]>", '"\\x61\\x62"', '"..."...', "EAGAIN ", "(x)"),
            *(
                ") = 5 ",
                "<0.1>",
                " <unfinished ...>",
                "<... read resumed>",
                "<... clone resumed>",
                ") = 8 <0.1>",
            ),
            *("+++ exited with 0 +++", "--- SIGINT {} ---", "\n", "iov_len=99999999999", "\x00", "é"),
            '{sa_family=AF_INET, sin_port=htons(99999), sin_addr=inet_addr("\\x7a")}',
        ]
    ),
    max_size=40,
)


def test_decoder_pid_reused_by_processes_of_unknown_parents() -> None:
    exits = "".join(f"8 {STAMP} +++ exited with {status} +++\n" for status in (1, 2))
    trace, points = decode_points(f"7 {STAMP} a() = 0 <0.1>\n{exits}".encode())
    assert [each.status for each in trace.processes.values() if each.pid == 8] == [1, 2]
    assert points


def test_decoder_child_of_a_process_of_unknown_parent() -> None:
    trace, _ = decode_points(
        f"7 {STAMP} a() = 0 <0.1>\n6 {STAMP} clone() = 9 <0.1>\n9 {STAMP} b() = 0 <0.1>\n".encode()
    )
    assert {each.pid: each.parent for each in trace.processes.values()} == {7: None, 6: None, 9: 2}


@given(SYNTAX)
def test_parser_accepts_any_mix_of_strace_syntax(parts: list[str]) -> None:
    trace, points = decode_points("".join(parts).encode())
    for point in points:
        if isinstance(point.event, Call):
            explain.explain_call(point.event, trace)
            explain.named_arguments(point.event)


@given(st.binary(max_size=300))
def test_parser_accepts_any_bytes(data: bytes) -> None:
    decode_points(f"7 {STAMP} read(".encode() + data)
    decode_points(data)


def test_ids_of_another_pid_namespace_are_those_of_strace() -> None:
    parser = StraceParser()
    lines = [
        *parser.feed(
            b"5796 1.000000000 clone(child_stack=NULL, flags=SIGCHLD <unfinished ...>\n"
            b"5796 1.000000100 <... clone resumed>, child_tidptr=0x7fc2) = 4 /* 5827 in strace's PID NS */\n"
            b"5796 1.000000200 wait4(-1, NULL, 0, NULL) = 4 <0.000000100>\n"
        )
    ]
    ends = [each for each in lines if isinstance(each, CallEnded)]
    assert [each.result for each in ends] == [5827, 5827]
    assert parser.inner_ids == {5827: 4}
    assert parser.unparsed_count == 0


def test_everything_before_the_program_is_left_out() -> None:
    parser = StraceParser(from_exec=True)
    assert [*parser.feed(b'7 1.000000000 read(5<UNIX:[1->2]>, "\\x31", 1) = 1 <0.000000100>\n')] == []
    assert [
        *parser.feed(b'7 1.000000100 execve("\\x61", [], 0x1) = -1 ENOENT (No such file) <0.000000100>\n')
    ] == []
    assert [*parser.feed(b"7 1.000000200 close(5")] == []
    assert parser.unfinished_call() is None
    lines = [
        *parser.feed(
            b') = 0\n7 1.000000300 execve("\\x62", [], 0x1) = 0 <0.000000100>\n7 1.000000400 socket('
        )
    ]
    assert [getattr(each, "name", "") for each in lines] == ["execve"]
    started = parser.unfinished_call()
    assert started is not None
    assert started.name == "socket"
