"""The cause of a failure comes from its evidence, and one cause is one failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothends.check.case import Verdict
from bothends.check.contract import load, parse
from bothends.check.evidence import explain_crash, explain_reply, find_crash
from bothends.check.subjects import own_network
from bothends.sockets.free_port import free_port
from tests.check.helpers import failed_cases, format_failures, judge, write_server_script

ECHO = """
import socket, sys, threading
def serve(connection):
    with connection, connection.makefile("rwb") as stream:
        {first}
        while data := {read}:
            stream.write({reply})
            stream.flush()
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=100)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
DATAGRAM_ECHO = """
import socket, sys
sock = socket.socket(type=socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", int(sys.argv[1])))
while True:
    data, sender = sock.recvfrom(65535)
    sock.sendto({reply}, {to})
"""
ONCE = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=100)
while True:
    connection, _ = listener.accept()
    data = connection.recv(1024).decode()
    connection.sendall(data.upper().encode())
    connection.close()
"""


@pytest.mark.spread("first", "read", "reply", "cause", one_in=6)
@pytest.mark.parametrize(
    ("first", "read", "reply", "cause"),
    [
        (
            "stream.write(b'HI\\n'); stream.flush()",
            "stream.read1()",
            "data",
            'sends "HI\\n" (3 bytes) before',
        ),
        ("", "stream.readline()", "data", "waits for a newline at the end of a message"),
        ("", "stream.read()", "data", "waits for the client's EOF before it replies"),
        ("", "stream.read1()", "str(data).encode()", "sends str() of bytes"),
        ("", "stream.read1()", "b'echo: ' + data", 'sends the reply with "echo: " (6 bytes) before it'),
        ("", "stream.read1()", "data.upper()", "sends the right letters in the wrong case"),
        ("", "stream.read1()", "data + bytes(20)", "sends NUL bytes after the reply"),
    ],
)
def test_first_case_says_why(first: str, read: str, reply: str, cause: str, tmp_path: Path) -> None:
    text = ECHO.replace("{first}", first or "pass").replace("{read}", read).replace("{reply}", reply)
    result = judge(write_server_script(tmp_path, text), "echo-tcp", "tcp-silent-client", timeout=0.3)
    assert failed_cases(result) == {"tcp-one-message"}, format_failures(result)
    assert result.outcomes[0].likely_cause.startswith(cause)
    assert result.max_points == 2


@pytest.mark.skipif(not own_network.is_available(), reason="no network namespaces for this user")
def test_reply_to_another_port_is_seen(tmp_path: Path) -> None:
    port = free_port()
    text = DATAGRAM_ECHO.replace("{reply}", "data.upper()").replace("{to}", "(sender[0], 12001)")
    command = write_server_script(tmp_path, text.replace("int(sys.argv[1])", str(port)))[:-1]
    result = judge(command, "upper-udp", "udp-one-message", timeout=0.3)
    assert result.outcomes[0].likely_cause.startswith("replies to port 12001, not to the port from which")


def test_datagram_without_capitals_is_seen(tmp_path: Path) -> None:
    text = DATAGRAM_ECHO.replace("{reply}", "data").replace("{to}", "sender")
    result = judge(write_server_script(tmp_path, text), "upper-udp", "udp-one-message")
    assert result.outcomes[0].likely_cause == "sends the message back unchanged"


@pytest.mark.slow
def test_same_exception_is_one_failure(tmp_path: Path) -> None:
    # Both a reset in the middle and one before accept() end it at recv().
    only = ("tcp-reset", "tcp-reset-before-accept", "tcp-binary", "tcp-half-close")
    result = judge(write_server_script(tmp_path, ONCE), "upper-tcp-once", *only)
    by_case = {each.case: each for each in result.outcomes}
    assert failed_cases(result) == {"tcp-binary", "tcp-reset-before-accept"}, format_failures(result)
    assert by_case["tcp-binary"].likely_cause.startswith("UnicodeDecodeError at line 6 of program.py")
    crash = "ConnectionResetError at line 6 of program.py"
    assert by_case["tcp-reset-before-accept"].likely_cause == f"{crash} is not handled"
    again = judge(write_server_script(tmp_path, ONCE.replace("upper", "lower")), "upper-tcp-once", *only)
    assert (again.points, again.max_points) == (0, result.max_points)


JOINED = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=100)
while True:
    connection, _ = listener.accept()
    with connection, connection.makefile("rwb") as stream:
        line = stream.readline().decode("ascii")
        stream.write(line.upper().encode())
"""


def test_exception_in_a_thread_is_the_cause_of_its_connection(tmp_path: Path) -> None:
    text = ECHO.replace("{first}", "pass").replace("{read}", "stream.read1()")
    text = text.replace("{reply}", "data.decode('ascii').encode()")
    result = judge(write_server_script(tmp_path, text), "echo-tcp", "tcp-binary", "tcp-split-character")
    assert failed_cases(result) == {"tcp-binary"}, format_failures(result)
    assert result.outcomes[1].likely_cause.startswith(
        "UnicodeDecodeError at line 7 of program.py is not handled"
    )
    assert result.outcomes[2].detail.startswith("not asked again: UnicodeDecodeError at line 7")


def test_joined_failures_lose_their_points(tmp_path: Path) -> None:
    contract = parse(
        'transport = "tcp"\nframing = "lines"\npersistent = false\n[answer]\nservice = "upper"\n',
        "c.toml", "c", tmp_path,
    )  # fmt: skip
    only = ("tcp-binary", "tcp-split-character")
    result = judge(write_server_script(tmp_path, JOINED), contract, *only)
    verdicts = {each.case: each.verdict for each in result.outcomes}
    assert failed_cases(result) == {"tcp-binary"}, format_failures(result)
    assert verdicts["tcp-split-character"] is Verdict.SKIP
    assert (result.points, result.max_points) == (1, 3)
    assert result.outcomes[-1].detail.startswith(
        "not asked again: UnicodeDecodeError at line 7 of program.py"
    )


@pytest.mark.spread("backlog", "verdict", "contract", one_in=3)
@pytest.mark.parametrize(
    ("backlog", "verdict"), [(1, "FAIL"), (5, "NON-STRICT"), (20, "NON-STRICT"), (128, "PASS")]
)
@pytest.mark.parametrize("contract", ["daytime-tcp", "upper-tcp-once"])
def test_backlog_is_counted(contract: str, backlog: int, verdict: str, tmp_path: Path) -> None:
    reply = "b'12:00:01\\r\\n'" if contract == "daytime-tcp" else "connection.recv(1024).upper()"
    text = ONCE.replace("connection.recv(1024).decode()", reply).replace("data.upper().encode()", "data")
    text = text.replace("backlog=100", f"backlog={backlog}")
    result = judge(write_server_script(tmp_path, text), contract, "tcp-burst")
    outcome = result.outcomes[-1]
    assert outcome.verdict == verdict, format_failures(result)
    if verdict != "PASS":
        # One more if the server had accepted a connection before it was stopped.
        held = [f"held {backlog + n} of 64 (listen() was called with {backlog})" for n in (1, 2)]
        assert any(text in outcome.summary for text in held), outcome.summary
    if verdict == "FAIL":
        assert outcome.likely_cause == "a backlog of 1"


@pytest.mark.parametrize(("size", "verdict"), [(1024, "NON-STRICT"), (65_536, "PASS"), (512, "FAIL")])
def test_unread_data_without_framing(size: int, verdict: str, tmp_path: Path) -> None:
    text = ONCE.replace("connection.recv(1024).decode()", f"connection.recv({size})")
    text = text.replace("data.upper().encode()", "data.upper()")
    result = judge(write_server_script(tmp_path, text), "upper-tcp-once", "tcp-close-unread")
    outcome = result.outcomes[-1]
    assert outcome.verdict == verdict, format_failures(result)
    if verdict == "FAIL":
        assert outcome.happened.startswith("it replies to the first 512 bytes of 1,000 only")


MINIMAL_HTTP = """
import socket, sys
from pathlib import Path
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=100)
while True:
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as stream:
        path = stream.readline().split()[1].decode()
        while stream.readline().strip():
            pass
        file = Path(sys.argv[2] + path)
        status = b"200 OK" if file.is_file() else b"404 Not Found"
        body = file.read_bytes() if file.is_file() else b""
        connection.sendall(b"HTTP/1.0 " + status + b"{end}" + body)
"""


@pytest.mark.spread("end", "passes", one_in=3)
@pytest.mark.parametrize(
    ("end", "passes"),
    [
        ("\\r\\n\\r\\n", True),
        ("\\r\\nServer: x\\r\\n\\r\\n", True),
        ("\\r\\n", False),
        ("\\r\\nServer: x\\r\\n", False),
        ("\\r\\n\\r\\n\\r\\n", False),
    ],
)
def test_minimal_http_reply_is_legal(end: str, passes: bool, tmp_path: Path) -> None:
    text = MINIMAL_HTTP.replace("{end}", end)
    command = [*write_server_script(tmp_path, text), "{dir}"]
    result = judge(command, "http-file", "tcp-half-close", timeout=0.5)
    assert result.failed != passes, format_failures(result)


@pytest.mark.slow
def test_lossy_server_is_no_fault_if_the_contract_says_so(tmp_path: Path) -> None:
    text = DATAGRAM_ECHO.replace("import socket, sys", "import random, socket, sys\nrandom.seed(5)")
    text = text.replace("    sock.sendto", "    if random.random() < 0.4:\n        continue\n    sock.sendto")
    command = write_server_script(tmp_path, text.replace("{reply}", "data.upper()").replace("{to}", "sender"))
    lossy = parse('transport = "udp"\nloss = 0.4\n[answer]\nservice = "upper"\n', "c.toml", "c", tmp_path)
    result = judge(command, lossy)
    assert not result.failed, format_failures(result)
    assert result.counts[Verdict.NON_STRICT] == 0
    wrong = write_server_script(tmp_path, DATAGRAM_ECHO.replace("{reply}", "data").replace("{to}", "sender"))
    assert failed_cases(judge(wrong, lossy, "udp-two-quick")) == {"udp-one-message"}
    never = write_server_script(
        tmp_path, text.replace("{reply}", "data").replace("< 0.4", "< 2").replace("{to}", "sender")
    )
    assert failed_cases(judge(never, lossy, "udp-two-quick", timeout=0.3)) == {"udp-one-message"}


TRACES = {
    "UnicodeDecodeError at line 10 of server.py": b"""Traceback (most recent call last):
  File "/tmp/x/server.py", line 10, in <module>
    sentence = sock.recv(1024).decode()
  File "/usr/lib/python3.11/codecs.py", line 3, in decode
UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 13: invalid start byte
""",
    "SocketException at line 17 of TCPServer.java": b"""Exception in thread "main" java.net.SocketException: x
\tat java.base/sun.nio.ch.NioSocketImpl.implRead(NioSocketImpl.java:328)
\tat TCPServer.main(TCPServer.java:17)
""",
    "TypeError: x is not a function at line 4 of server.js": b"""/home/u/server.js:4
  x();
TypeError: x is not a function
    at Server.<anonymous> (/home/u/server.js:4:3)
    at Server.emit (node:events:513:28)
""",
    "a panic at line 12 of main.rs": b"thread 'main' panicked at src/main.rs:12:34:\ncalled unwrap()",
    "a panic at line 9 of main.go": b"panic: oops\n\ngoroutine 1:\nmain.main()\n\t/tmp/main.go:9 +0x1d\n",
    "": b"all is well",
}


@pytest.mark.parametrize("crash", TRACES)
def test_crash_is_found_with_its_place(crash: str) -> None:
    assert find_crash(b"ready\n" + TRACES[crash]) == crash


def test_crash_text_is_escaped() -> None:
    trace = TRACES["UnicodeDecodeError at line 10 of server.py"].replace(b"server", b"\x1b[2Jserver")
    assert find_crash(trace) == r"UnicodeDecodeError at line 10 of \x1b[2Jserver.py"
    assert explain_crash("gaierror at line 3 of a.py").endswith("is not known here")


def test_explained_reply() -> None:
    assert (
        explain_reply(b"ABC\n", b"ABC", b"abc\n", b"abc")
        == 'sends the reply without "\\n" (1 byte) at its end'
    )
    assert explain_reply(b"ABC\n", b"ABC\r\n", b"abc\n", b"abc").startswith('ends the reply with "\\r\\n"')
    assert explain_reply(b"ABC\n", b"AB", b"abc\n", b"abc").startswith("sends a part of the reply only")
    assert explain_reply(b"ABC\n", b"xyz", b"abc\n", b"abc") == ""
    assert load("upper-tcp").loss == 0
