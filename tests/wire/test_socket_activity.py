"""Listening sockets and unacknowledged data of a host."""

from __future__ import annotations

import subprocess
import sys

from tests.wire.hosts import needs_hosts

# Each output line has a state and the results for it. It runs in a host without other sockets.
SCRIPT = """
import socket
from bothends.wire.socket_activity import SocketActivity
activity = SocketActivity()
def show(state):
    print(state, activity.has_listener(), activity.has_unacknowledged(), flush=True)
show("nothing")
datagrams = socket.socket(type=socket.SOCK_DGRAM)
datagrams.bind(("127.0.0.1", 0))
show("datagrams")
datagrams.close()
listener = socket.create_server(("127.0.0.1", 0), backlog=64)
more = [socket.create_server(("::1", 0), family=socket.AF_INET6) for _ in range(200)]
for _ in range(3):
    show("listeners")
client = socket.create_connection(listener.getsockname())
show("connection")
accepted, _ = listener.accept()
client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)  # far more than the window takes
client.setblocking(False)
try:
    while True:
        client.send(bytes(65536))
except BlockingIOError:
    pass
show("unread")
client.close()
show("orphan")
while accepted.recv(1 << 20):
    pass
accepted.close()
"""


@needs_hosts
def test_socket_activity_listeners_and_unacknowledged_data() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bothends", "wire", "-q", "--", sys.executable, "-c", SCRIPT],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "nothing False False",
        "datagrams True False",
        *["listeners True False"] * 3,
        "connection True False",
        "unread True True",
        "orphan True True",
    ], done.stderr
