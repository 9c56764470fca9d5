"""The sockets of the running programs, and none of another program."""

from __future__ import annotations

import json
import socket

import pytest

from tests.lab.running import Lab, pair
from tests.tools import needs_tool

pytestmark = [needs_tool("strace")]
SERVER = """\
import socket, time
listener = socket.create_server(("127.0.0.1", 12000))
connection, _ = listener.accept()
time.sleep(60)
"""
CLIENT = """\
import socket
server = socket.create_connection(("127.0.0.1", 12000))
server.sendall(b"12345")
print("sent")
server.recv(100)
"""


@pytest.mark.parametrize("path", [None, {"delay": 5}], ids=["loopback", "wire"])
def test_sockets_and_waits_of_the_run_only(lab: Lab, path: dict[str, float] | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, lab.connect() as websocket:
        start = {"type": "start", "programs": pair(SERVER, CLIENT), "time_limit": 20, "path": path}
        websocket.send(json.dumps(start))
        while "sent" not in (reply := json.loads(websocket.recv(20))).get("text", ""):
            assert reply["type"] not in ("failed", "ended")
        unread = ""
        while unread != "5":
            websocket.send('{"type": "look"}')
            while (reply := json.loads(websocket.recv(20)))["type"] != "looked":
                assert reply["type"] not in ("failed", "ended")
            by_state = {(each[1], each[4]): each for each in reply["sockets"]}
            if ("ESTABLISHED", "127.0.0.1:12000") in by_state:
                unread = by_state["ESTABLISHED", "127.0.0.1:12000"][2]
        ends = {end for each in reply["sockets"] for end in each[4:6] if end != "-"}
        assert all("12000" in f"{each[4]} {each[5]}" for each in reply["sockets"])
        assert not any(str(other.getsockname()[1]) in end or lab.host in end for end in ends)
        text = "\n".join(line for _, line in reply["lines"])
        assert "client.py" in text
        assert "waits in recv(3)" in text
        assert "bothends" not in text
        websocket.send('{"type": "stop"}')


def test_nothing_runs_and_nothing_is_shown(lab: Lab) -> None:
    with lab.connect() as websocket:
        websocket.send('{"type": "look"}')
        websocket.send("{")
        assert json.loads(websocket.recv(10))["type"] == "failed"
