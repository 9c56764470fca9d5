"""Scenes with servers behind the program, with ports that it tells, and with spaces as padding."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothends.check.case import Verdict
from tests.check.helpers import failed_cases, format_failures, judge, write_server_script
from tests.check.scenes.test_servers import contract, outcome

PROXY_CONTRACT = r"""
transport = "tcp"
framing = "headers"

[[scene]]
name = "twice"
repeat = "beside"
upstreams = ["origin", "other"]
talk = '''
ann> GET http://{origin}/one HTTP/1.0
origin< GET /one HTTP/1.0\nHost: {origin}
origin> HTTP/1.0 200 OK\n\nhello
origin> (closes)
ann< HTTP/1.0 200 OK\n\nhello
ann< (closes)
ann> (connects)
ann> GET http://{other}/{origin_port} HTTP/1.0
other< GET /{origin_port} HTTP/1.0\nHost: {other}
other> HTTP/1.0 404 Not Found\n\nno
other> (closes)
ann< HTTP/1.0 404 Not Found\n\nno
ann< (closes)
ben> GET http://{origin}/two HTTP/1.0
origin< (connects)
origin< GET /two HTTP/1.0
origin> HTTP/1.0 200 OK\n\ntwo
origin> (closes)
ben< HTTP/1.0 200 OK\n\ntwo
ben< (closes)
'''
"""
PROXY = """
import socket, sys, threading
cache = {}
def serve(conn):
    with conn, conn.makefile("rb") as request:
        method, url, version = request.readline().decode().split()
        while request.readline() not in (b"\\r\\n", b""):
            pass
        host, _, path = url.removeprefix("http://").partition("/")
        if CACHES and host in cache:
            conn.sendall(cache[host])
            return
        name, _, port = host.partition(":")
        with socket.create_connection((name, int(port))) as origin:
            origin.sendall(f"{method} /{path} HTTP/1.0\\r\\nHost: HOST\\r\\n\\r\\n".encode())
            reply = b""
            while data := origin.recv(4096):
                reply += data
        cache[host] = reply
        conn.sendall(reply)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128)
while True:
    threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()
"""


def write_proxy(folder: Path, host: str = "{host}", *, caches: bool = False) -> list[str]:
    return write_server_script(folder, PROXY.replace("HOST", host).replace("CACHES", str(caches)))


@pytest.mark.slow
def test_web_proxy_passes_all_variations(tmp_path: Path) -> None:
    result = judge(write_proxy(tmp_path), contract(PROXY_CONTRACT))
    assert not failed_cases(result), format_failures(result)
    assert outcome(result, "scene-twice-crowd").verdict is Verdict.PASS
    assert outcome(result, "scene-twice-interleaved").verdict is Verdict.PASS


@pytest.mark.spread("host", "caches", "expected", "happened", one_in=3)
@pytest.mark.parametrize(
    ("host", "caches", "expected", "happened"),
    [
        ("{host}", False, "", ""),
        ("{name}", False, r"line 2: origin< GET /one HTTP/1.0\nHost: {origin}", 'its Host is "127.0.0.1"'),
        ("{host}", True, "line 15: origin< (connects)", "the server did not connect to origin within"),
    ],
)
def test_web_proxy(host: str, caches: bool, expected: str, happened: str, tmp_path: Path) -> None:
    proxy = write_proxy(tmp_path, host, caches=caches)
    found = outcome(judge(proxy, contract(PROXY_CONTRACT), "scene-twice", timeout=0.5), "scene-twice")
    assert found.verdict is (Verdict.FAIL if expected else Verdict.PASS), found
    assert found.expected == (expected or found.expected)
    assert happened in found.happened


PORTS_CONTRACT = r"""
transport = "tcp"
framing = "lines"

[[scene]]
name = "another port"
clients = { sensor = "udp" }
talk = '''
ann> PORTS
ann< {stream=\d+} {datagrams=\d+}
ann/2> (connects to {stream})
ann/2> hello
ann/2< HELLO
sensor> (connects to {datagrams})
sensor> 21
sensor< 42
'''
"""
PORTS = """
import socket, sys, threading
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
stream = socket.create_server(("127.0.0.1", 0))
udp = socket.socket(type=socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 0))
conn, _ = listener.accept()
conn.recv(100)
conn.sendall(f"{STREAM} {udp.getsockname()[1]}\\n".encode())
second, _ = stream.accept()
second.sendall(second.recv(100).upper())
data, peer = udp.recvfrom(100)
udp.sendto(b"%d" % (2 * int(data)), peer)
conn.recv(100)
"""


@pytest.mark.spread("port", "happened", one_in=2)
@pytest.mark.parametrize(
    ("port", "happened"), [("stream.getsockname()[1]", ""), ("stream.getsockname()[1] * 99", "is not a port")]
)
def test_client_connects_to_the_port_that_the_server_says(port: str, happened: str, tmp_path: Path) -> None:
    server = write_server_script(tmp_path, PORTS.replace("STREAM", port))
    found = outcome(judge(server, contract(PORTS_CONTRACT), "scene-another-port"), "scene-another-port")
    assert found.verdict is (Verdict.FAIL if happened else Verdict.PASS), found
    assert happened in found.happened


PADDED_CONTRACT = r"""
transport = "tcp"
framing = "fixed"
message_bytes = 20
message_padding = " "

[[scene]]
name = "padded"
talk = '''
ann> hello, server
ann< HELLO, SERVER
'''
"""
PADDED = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    data = conn.recv(100)
    assert data == b"hello, server".ljust(20), data
    conn.sendall(data.upper())
"""


def test_padding_with_spaces(tmp_path: Path) -> None:
    result = judge(write_server_script(tmp_path, PADDED), contract(PADDED_CONTRACT), "scene-padded")
    assert outcome(result, "scene-padded").verdict is Verdict.PASS, format_failures(result)
