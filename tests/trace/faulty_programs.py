"""Programs with one mistake each, and the same programs without it.

Each is a Python program with both ends: `serve(handler)` runs a handler for a client in a thread, and returns
the port and the thread. `wrong` and `right` are the parts in which the two programs differ.
"""

from __future__ import annotations

from typing import Final, NamedTuple

COMMON: Final = """
import errno, os, select, signal, struct, threading, time
from socket import *

def listener(backlog=5, host="127.0.0.1"):
    s = socket()
    s.bind((host, 0))
    s.listen(backlog)
    return s

def serve(handler):
    s = listener()
    def run():
        connection, _ = s.accept()
        handler(connection)
    thread = threading.Thread(target=run)
    thread.start()
    return s.getsockname()[1], thread

def read_all(s):
    data = b""
    while more := s.recv(1 << 20):
        data += more
    return data
"""


class FaultyProgram(NamedTuple):
    """A rule, the two parts that differ, and the source that both programs share."""

    rule: str
    wrong: str
    right: str
    common: str = ""


FAULTY_PROGRAMS: Final = (
    FaultyProgram(
        "one-recv-per-message",
        "message = c.recv(5); c.close()",
        "message = b''\n    while len(message) < 12: message += c.recv(5)\n    c.close()",
        """
def handler(c):
    {program}
port, thread = serve(handler)
s = create_connection(("127.0.0.1", port))
s.send(b"hello, world")
thread.join()
s.close()
""",
    ),
    FaultyProgram(
        "short-send",
        "s.send(data)",
        "s.setblocking(True); s.sendall(data)",
        """
gate = threading.Event()
def handler(c):
    gate.wait()
    read_all(c)
    c.close()
port, thread = serve(handler)
s = create_connection(("127.0.0.1", port))
s.setblocking(False)
data = b"x" * 8_000_000
threading.Timer(0.05, gate.set).start()
{program}
s.close()
thread.join()
""",
    ),
    FaultyProgram(
        "two-sends-one-read",
        "s.send(b'one\\n'); s.send(b'two\\n'); is_sent.set(); s.recv(100)",
        "s.send(b'one\\n'); is_sent.set(); s.recv(100); s.send(b'two\\n')",
        """
is_sent = threading.Event()
def handler(c):
    is_sent.wait()
    while message := c.recv(1024):
        c.send(b"received\\n")
    c.close()
port, thread = serve(handler)
s = create_connection(("127.0.0.1", port))
s.settimeout(0.5)
try:
    {program}
    s.recv(100)
except TimeoutError:
    pass
s.close()
thread.join()
""",
    ),
    FaultyProgram(
        "truncated-datagram",
        "s.recvfrom(10)",
        "s.recvfrom(65535)",
        """
s = socket(AF_INET, SOCK_DGRAM)
s.bind(("127.0.0.1", 0))
c = socket(AF_INET, SOCK_DGRAM)
c.sendto(b"sixteen bytes...", s.getsockname())
{program}
""",
    ),
    FaultyProgram(
        "swapped-port",
        "port = ntohs(port)",
        "pass",
        """
s = listener()
port = s.getsockname()[1]
while port % 257 == 0 or port & 255 < 8:  # a palindrome, or a swapped port that may be in use
    s = listener()
    port = s.getsockname()[1]
{program}
c = socket()
try:
    c.connect(("127.0.0.1", port))
except ConnectionRefusedError:
    pass
""",
    ),
    FaultyProgram(
        "closed-with-unread-data",
        "c.close()",
        "read_all(c); c.close()",
        """
def handler(c):
    c.recv(4)
    {program}
port, thread = serve(handler)
s = create_connection(("127.0.0.1", port))
s.send(b"more than four bytes")
try:
    s.shutdown(SHUT_WR)
except OSError:  # ENOTCONN: the RST has come
    pass
thread.join()
try:
    s.recv(100)
except ConnectionResetError:
    pass
s.close()
""",
    ),
    FaultyProgram(
        "eof-ignored",
        "for _ in range(5): c.recv(100)",
        "while c.recv(100): pass",
        """
def handler(c):
    {program}
    c.close()
port, thread = serve(handler)
s = create_connection(("127.0.0.1", port))
s.send(b"bye")
s.close()
thread.join()
""",
    ),
    FaultyProgram(
        "idle-client",
        "handler(c)",
        "threading.Thread(target=handler, args=(c,)).start()",
        """
s = listener()
def handler(c):
    c.send(c.recv(100))
    c.close()
def run():
    for _ in range(2):
        c, _ = s.accept()
        {program}
thread = threading.Thread(target=run)
thread.start()
idle = create_connection(s.getsockname())
busy = create_connection(s.getsockname())
busy.send(b"quick")
select.select([busy], [], [], 1.4)
idle.send(b"at last")
idle.recv(100)
busy.recv(100)
thread.join()
idle.close()
busy.close()
""",
    ),
    FaultyProgram(
        "port-in-use",
        "pass",
        "second.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)",
        """
s = socket()
s.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
s.bind(("127.0.0.1", 0))
s.listen(5)
address = s.getsockname()
c = create_connection(address)
d, _ = s.accept()
d.close()
c.recv(1)
c.close()
s.close()
second = socket()
{program}
try:
    second.bind(address)
except OSError:
    pass
""",
    ),
    FaultyProgram(
        "refused-too-early",
        "connect_refused(); s.listen(5)",
        "s.listen(5); connect_refused()",
        """
s = socket()
s.bind(("127.0.0.1", 0))
def connect_refused():
    try:
        create_connection(s.getsockname()).close()
    except ConnectionRefusedError:
        pass
{program}
""",
    ),
    FaultyProgram(
        "refused-elsewhere",
        "host = '127.0.0.2'",
        "host = '127.0.0.1'",
        """
s = listener()
{program}
try:
    create_connection((host, s.getsockname()[1])).close()
except ConnectionRefusedError:
    pass
""",
    ),
    FaultyProgram(
        "write-after-close",
        "s.send(b'a'); select.select([s], [], [], 5); s.send(b'b')",
        "try: s.send(b'a'); select.select([s], [], [], 5); s.send(b'b')\n    except OSError: pass",
        """
def handler(c):
    c.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    c.close()
port, thread = serve(handler)
s = create_connection(("127.0.0.1", port))
thread.join()
if True:
    {program}
""",
    ),
    FaultyProgram(
        "busy-loop",
        "for _ in range(100):\n    try: s.recv(10)\n    except BlockingIOError: pass",
        "select.select([s], [], [], 0.05)",
        """
a, s = socketpair()
s.setblocking(False)
{program}
""",
    ),
    FaultyProgram(
        "children-not-waited-for",
        "pass",
        "os.waitpid(child, 0)",
        """
s = listener()
c = create_connection(s.getsockname())
child = os.fork()
if child == 0:
    os._exit(0)
{program}
select.select([c], [], [], 0.6)
""",
    ),
    FaultyProgram(
        "never-closed",
        "pass",
        "d.close()",
        """
s = listener()
c = create_connection(s.getsockname())
d, _ = s.accept()
c.close()
d.recv(10)
{program}
select.select([s], [], [], 1.2)
os._exit(0)
""",
    ),
    FaultyProgram(
        "unanswered-datagram",
        "s.recvfrom(100)",
        "s.sendto(*s.recvfrom(100))",
        """
s = socket(AF_INET, SOCK_DGRAM)
s.bind(("127.0.0.1", 0))
c = socket(AF_INET, SOCK_DGRAM)
c.sendto(b"are you there?", s.getsockname())
{program}
c.settimeout(0.5)
try:
    c.recvfrom(100)
except TimeoutError:
    pass
""",
    ),
    FaultyProgram(
        "nagle-delayed-ack",
        "pass",
        "s.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)",
        """
def handler(c):
    c.send(b"x")
    for _ in range(20):
        c.recv(4, MSG_WAITALL)
        c.send(b"y")
    c.close()
port, thread = serve(handler)
s = create_connection(("127.0.0.1", port))
s.recv(1)
{program}
for _ in range(20):
    s.send(b"ab")
    s.send(b"cd")
    s.recv(1)
thread.join()
""",
    ),
    FaultyProgram(
        "backlog-overflow",
        "s.listen(0)",
        "s.listen(10)",
        """
s = socket()
s.bind(("127.0.0.1", 0))
{program}
clients = []
for _ in range(4):
    c = socket()
    c.setblocking(False)
    c.connect_ex(s.getsockname())
    clients.append(c)
select.select([], [], [], 2.2)
""",
    ),
)


class PathCase(NamedTuple):
    """A rule, a wire that triggers it, one that does not, and two programs. `evidence_text` is evidence."""

    rule: str
    wire: str
    good_wire: str
    server: str
    client: str
    wrong: str = "pass"
    right: str = "pass"
    evidence_text: str = ""


_COUNTING_SERVER: Final = """
import select, socket
with socket.create_server(("10.0.0.1", 7000)) as listener, listener.accept()[0] as connection:
    {program}
    received = 0
    while data := connection.recv(65536):
        received += len(data)
    connection.sendall(b"%d" % received)
"""
_SENDING_CLIENT: Final = """
import socket
with socket.create_connection(("10.0.0.1", 7000)) as connection:
    connection.settimeout(%s)
    connection.sendall(bytes(%d))
    connection.shutdown(socket.SHUT_WR)
    try:
        connection.recv(100)
    except TimeoutError:
        pass
"""

PATH_CASES: Final = (
    PathCase(
        "retransmission",
        "loss=up:20%,seed=2",
        "delay=1ms",
        _COUNTING_SERVER,
        _SENDING_CLIENT % ("None", 30_000),
    ),
    PathCase(
        "spurious-retransmission",
        "delay=550ms",
        "delay=1ms",
        _COUNTING_SERVER,
        _SENDING_CLIENT % ("None", 100),
        evidence_text="SYN",
    ),
    PathCase(
        "zero-window",
        "delay=1ms",
        "delay=1ms",
        _COUNTING_SERVER,
        _SENDING_CLIENT % ("None", 8_000_000),
        "select.select([], [], [], 1.5)",
    ),
    PathCase(
        "delayed-ack",
        "delay=1ms",
        "delay=1ms",
        """
import socket
with socket.create_server(("10.0.0.1", 7000)) as listener, listener.accept()[0] as connection:
    connection.send(b"x")
    for _ in range(20):
        connection.recv(4, socket.MSG_WAITALL)
        connection.send(b"y")
""",
        """
import socket
with socket.create_connection(("10.0.0.1", 7000)) as connection:
    connection.recv(1)
    {program}
    for _ in range(20):
        connection.send(b"ab")
        connection.send(b"cd")
        connection.recv(1)
""",
        "pass",
        "connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)",
    ),
    PathCase(
        "mtu-black-hole", "mtu=1300,no-icmp", "mtu=1300", _COUNTING_SERVER, _SENDING_CLIENT % ("2", 3000)
    ),
    PathCase(
        "peer-vanished",
        "blackhole,at=2s",
        "delay=1ms",
        """
import socket
with socket.create_server(("10.0.0.1", 7000)) as listener, listener.accept()[0] as connection:
    while data := connection.recv(10):
        connection.sendall(data)
""",
        """
import socket, time
with socket.create_connection(("10.0.0.1", 7000)) as connection:
    connection.settimeout(3)
    try:
        for _ in range(10):
            connection.sendall(b"x")
            connection.recv(1)
            time.sleep(0.4)
    except TimeoutError:
        pass
""",
    ),
)
"""The rules about the path: each on a bad path, and on a good path or with correct programs."""
