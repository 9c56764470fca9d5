"""Programs of the page are judged, and one case is traced."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.lab.running import Lab, Replies, events_of, program
from tests.tools import needs_tool

pytestmark = [needs_tool("strace")]
UPPER = """\
import socket
listener = socket.create_server(("127.0.0.1", 12000))
while True:
    connection, _ = listener.accept()
    while data := connection.recv(100):
        connection.sendall(data.upper())
    connection.close()
"""
CLIENT = """\
import socket
server = socket.create_connection(("127.0.0.1", 12000))
server.sendall(input().encode())
print(server.recv(100).decode())
"""
ECHO = 'transport = "tcp"\nframing = "lines"\npersistent = true\n[answer]\nservice = "echo"\n'


def judge(lab: Lab, subject: dict[str, str], **request: Any) -> Replies:
    replies: Replies = []
    deadline = time.monotonic() + 90
    with lab.connect() as websocket:
        websocket.send(json.dumps({"type": "judge", "program": subject, **request}))
        while not replies or replies[-1]["type"] not in ("judged", "failed", "ended"):
            replies.append(json.loads(websocket.recv(deadline - time.monotonic())))
    return replies


def verdicts(replies: Replies) -> dict[str, str]:
    return {each["case"]: each["verdict"] for each in replies[-1]["result"]["outcomes"]}


def test_verdicts_come_one_by_one_and_then_the_result(lab: Lab) -> None:
    cases = ["tcp-several-messages", "tcp-reset"]
    replies = judge(lab, program("server", UPPER), name="upper-tcp", cases=cases)
    assert [each["type"] for each in replies] == ["judging", "verdict", "verdict", "verdict", "judged"]
    found = verdicts(replies)
    assert found == {"tcp-one-message": "PASS", "tcp-several-messages": "PASS", "tcp-reset": "FAIL"}
    (failed,) = (each["outcome"] for each in replies if each.get("outcome", {}).get("verdict") == "FAIL")
    assert failed["transcript"]
    assert "ConnectionResetError at line 5 of server.py" in failed["mistake"]


def test_one_case_is_traced_with_lines_packets_and_findings(lab: Lab) -> None:
    replies = judge(lab, program("server", UPPER), name="upper-tcp", case="tcp-reset")
    (outcome,) = (each["outcome"] for each in replies if each["type"] == "verdict")
    assert outcome["verdict"] == "FAIL"
    titles = {each["title"]: each.get("line") for each in events_of(replies)}
    assert titles["listen(3, 128)"] == 2
    assert any(
        title.startswith("recv") and "ECONNRESET" in title and line == 5 for title, line in titles.items()
    )
    assert "RST ACK" in titles
    assert "exited-on-reset" in [each["rule"] for each in replies[-1]["findings"]]
    rows = [row for each in replies if each["type"] == "rows" for row in each["rows"]]
    assert next(each["cells"][1] for each in rows if each.get("header")) == [1, "checker", "lane"]
    said = [text for each in rows for lane, text, _ in each["cells"] if lane == 1]
    assert said.index("client 1: connects") < said.index("client 1: resets (RST)")
    arrows = [(each["arrow"][:2], each["arrow"][2]) for each in rows if "arrow" in each]
    assert ([1, 0], "SYN") in arrows
    assert ([0, 1], "SYN ACK") in arrows


@pytest.mark.slow
def test_case_of_a_client_is_traced_where_it_connects(lab: Lab) -> None:
    replies = judge(lab, program("client", CLIENT), name="upper-tcp", case="client-one-message")
    titles = [each["title"] for each in events_of(replies)]
    assert any(each.startswith("connect(3, 127.0.0.1:12000") for each in titles)
    assert any(each.startswith("SYN") for each in titles)


@pytest.mark.slow
def test_server_that_does_not_start_is_traced_too(lab: Lab) -> None:
    text = "import socket\nsocket.create_server(('127.0.0.1', 12000))\nraise SystemExit(3)\n"
    replies = judge(lab, program("server", text), name="upper-tcp")
    assert verdicts(replies)["tcp-one-message"] == "FAIL"
    replies = judge(lab, program("server", text), name="upper-tcp", case="tcp-one-message")
    assert any("exit status 3" in each for each in replies[-1]["notes"])
    assert any(each["title"].startswith("listen(3") for each in events_of(replies))


def test_contract_is_written_on_the_page(lab: Lab) -> None:
    cases = ["tcp-several-messages"]
    replies = judge(lab, program("server", UPPER), text=ECHO, cases=cases)
    assert verdicts(replies)["tcp-one-message"] == "FAIL"
    replies = judge(lab, program("server", UPPER.replace("data.upper()", "data")), text=ECHO, cases=cases)
    assert set(verdicts(replies).values()) == {"PASS"}


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"name": "../contracts/upper-tcp.toml"}, "built-in"),
        ({"name": "/etc/passwd"}, "built-in"),
        ({"name": "none"}, "none"),
        ({"text": "transport = "}, "invalid TOML"),
        ({"text": ECHO.replace('service = "echo"', 'function = "os:system"')}, "not in a Python file"),
        ({"text": ECHO.replace('service = "echo"', 'function = "/tmp/a.py:reply"')}, "code"),
        ({"text": "functions = 'a.py'\n" + ECHO}, "code"),
        ({"name": "upper-tcp", "case": "none"}, "none"),
        ({"name": "upper-tcp", "cases": ["udp-one-message"]}, "udp"),
    ],
    ids=str,
)
def test_what_is_no_contract_is_refused(lab: Lab, request_: dict[str, Any], reason: str) -> None:
    replies = judge(lab, program("server", UPPER), **request_)
    assert replies[-1]["type"] == "failed"
    assert reason in replies[-1]["text"]


@pytest.mark.slow
def test_judging_is_stopped(lab: Lab) -> None:
    with lab.connect() as websocket:
        websocket.send(
            json.dumps({"type": "judge", "program": program("server", UPPER), "name": "upper-tcp"})
        )
        while json.loads(websocket.recv(30))["type"] != "verdict":
            pass
        websocket.send('{"type": "stop"}')
        began = time.monotonic()
        while (reply := json.loads(websocket.recv(30)))["type"] not in ("judged", "failed"):
            pass
        assert reply == {"type": "judged", "result": None}
        assert time.monotonic() - began < 10


def test_contracts_are_listed_and_shown_by_name(lab: Lab) -> None:
    cookie = {"Cookie": lab.cookie}
    found = {each["name"]: each for each in json.loads(lab.get("/contracts", cookie)[2])}
    assert found["upper-tcp"]["roles"] == ["server", "client"]
    assert found["chargen-tcp"]["roles"] == ["server"]
    assert 'service = "upper"' in lab.get("/contracts/upper-tcp", cookie)[2]
    for path in ("/contracts/none", "/contracts/..%2f__init__.py", "/contracts/upper-tcp.toml"):
        assert lab.get(path, cookie)[0] == 404
