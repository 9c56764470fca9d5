"""Runs over the WebSocket: what a page shows of programs, of a hang, of errors, of hostile programs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from bothends.lab.beginnings import beginnings
from bothends.lab.sources import _problems
from bothends.osutil.process_info import children, descendants
from tests.lab.running import (
    CAPITALS_CLIENT,
    CAPITALS_SERVER,
    Lab,
    events_of,
    exit_of,
    output_of,
    pair,
    program,
    run,
    running_lab,
)
from tests.tools import needs_tool

pytestmark = [needs_tool("strace")]


def test_pair_of_python_programs_is_run_and_seen(lab: Lab) -> None:
    with lab.connect() as websocket:

        def on_reply(reply: dict[str, Any]) -> None:
            if reply["type"] == "output" and "say: " in reply["text"]:
                websocket.send(json.dumps({"type": "input", "program": 1, "text": "hallo\n"}))

        replies = run(websocket, pair(CAPITALS_SERVER, CAPITALS_CLIENT), on_reply)
    assert output_of(replies, 1) == "say: hallo\nreply b'HALLO'\n"
    assert exit_of(replies, 0) == exit_of(replies, 1) == "exit status 0"
    assert replies[-1]["reason"] == ""
    lines = {(each["program"], each["line"], each["title"]) for each in events_of(replies) if "line" in each}
    assert (1, 3, 'sendto(3, "hallo", 5) = 5') in lines
    assert (0, 4, 'sendto(4, "HALLO", 5) = 5') in lines
    assert (0, 2, "listen(3, 128)") in lines
    arrows = [
        row["arrow"][2]
        for each in replies
        if each["type"] == "rows"
        for row in each["rows"]
        if "arrow" in row
    ]
    assert arrows[:2] == ["SYN", "SYN ACK"]
    rows = next(at for at, each in enumerate(replies) if each["type"] == "rows")
    assert rows < next(at for at, each in enumerate(replies) if each["type"] == "exited")


def test_trace_starts_with_the_program_which_sees_no_tracer(lab: Lab) -> None:
    text = (
        "import os, socket\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "print(sorted(name for name in os.listdir('/proc') if name.isdigit()))\n"
        "print(os.getpid(), os.environ.get('PYTHONPATH'), [name for name in os.environ if 'BOTH' in name])\n"
        "print([open(f'/proc/self/status').read().split('TracerPid:')[1].split()[0]])\n"
    )
    with lab.connect() as websocket:
        replies = run(websocket, [program("client", text)])
    assert output_of(replies, 0) == "['1', '2']\n2 None []\n['0']\n"
    assert events_of(replies)[0]["title"].startswith("socket(AF_INET")


def test_two_ends_that_wait_are_explained_while_they_wait(lab: Lab) -> None:
    hang = beginnings()["groups"][0]["sets"][1]["programs"]
    with lab.connect() as websocket:

        def on_reply(reply: dict[str, Any]) -> None:
            if reply["type"] == "waits" and reply["sentences"]:
                websocket.send('{"type": "stop"}')

        replies = run(websocket, hang, on_reply)
    waits = next(each["sentences"] for each in replies if each["type"] == "waits")
    assert waits[0].startswith("Deadlock: each end waits for the other")
    assert replies[-1]["reason"] == "Stop"
    assert replies[-1]["waits"][0].startswith("Deadlock")
    assert replies[-1]["findings"]
    assert exit_of(replies, 0) == "ended with the run"


def test_threads_and_child_processes_have_lines(lab: Lab) -> None:
    text = """\
import os, socket, threading
listener = socket.create_server(("127.0.0.1", 12000))
def connect():
    with socket.create_connection(("127.0.0.1", 12000)) as server:
        server.sendall(b"thread")
thread = threading.Thread(target=connect)
thread.start()
connection, _ = listener.accept()
if os.fork() == 0:
    connection.recv(100)
    os._exit(0)
os.wait()
thread.join()
"""
    with lab.connect() as websocket:
        replies = run(websocket, [program("client", text)])
    lines = {each["title"]: each["line"] for each in events_of(replies) if each.get("line")}
    assert next(line for title, line in lines.items() if title.startswith("sendto(")) == 5
    assert next(line for title, line in lines.items() if title.startswith("recvfrom(")) == 10


C_CLIENT = """\
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int dial(void) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(12000)};
    int s = socket(AF_INET, SOCK_STREAM, 0);
    connect(s, (struct sockaddr *)&to,
            sizeof to);
    return s;
}

int main(void) {
    int s = dial();
    printf("%d\\n", getenv("LD_AUDIT") || getenv("BOTHENDS_LINES"));
    if (fork() == 0) {
        send(s, "child", 5, 0);
        _exit(0);
    }
    wait(NULL);
    FILE *f = fdopen(s, "r+");
    char text[10];
    fputs(fgets(text, 6, f) ? text : "none", stdout);
    return 0;
}
"""


@needs_tool("cc")
def test_calls_of_a_c_program_have_lines_while_they_block_as_well(lab: Lab) -> None:
    programs = [program("server", CAPITALS_SERVER), program("client", C_CLIENT, "client.c")]
    with lab.connect() as websocket:
        replies = run(websocket, programs)
    assert output_of(replies, 1) == "0\nCHILD"
    own = [each for each in events_of(replies) if each.get("line") and each["program"] == 1]
    lines = {each["title"].partition("(")[0]: each["line"] for each in own}
    assert (lines["socket"], lines["connect"], lines["sendto"], lines["read"]) == (10, 11, 20, 26)


JAVA_CLIENT = """\
import java.net.Socket;

public class Client {
    static byte[] message() {
        return "java".getBytes();
    }

    public static void main(String[] args) throws Exception {
        Socket s = new Socket("127.0.0.1", 12000);
        s.getOutputStream().write(
            message());
        Thread t = new Thread(() -> read(s));
        t.start();
        t.join();
    }

    static void read(Socket s) {
        try {
            System.out.println((char) s.getInputStream().read());
        } catch (java.io.IOException e) {
        }
    }
}
"""


@needs_tool("javac")
@needs_tool("cc")
@pytest.mark.slow
def test_calls_of_a_java_program_have_lines(lab: Lab) -> None:
    programs = [program("server", CAPITALS_SERVER), program("client", JAVA_CLIENT, "Client.java")]
    with lab.connect() as websocket:
        replies = run(websocket, programs)
    assert output_of(replies, 1) == "J\n"
    own = [each for each in events_of(replies) if each.get("line") and each["program"] == 1]
    found = {(each["title"].partition("(")[0], each["line"]) for each in own}
    assert ("connect", 9) in found
    assert [each["line"] for each in own if '"java"' in each["title"]] == [10]
    assert [each["line"] for each in own if '"J"' in each["title"]] == [19]


def test_path_delays_packets(lab: Lab) -> None:
    with lab.connect() as websocket:
        replies = run(
            websocket,
            pair(CAPITALS_SERVER, CAPITALS_CLIENT.replace('input("say: ")', '"abc"')),
            path={"delay": 5, "rate": 500, "duplicate": 10},
        )
    assert output_of(replies, 1) == "reply b'ABC'\n"
    parts = {
        row["arrow"][4]
        for each in replies
        if each["type"] == "rows"
        for row in each["rows"]
        if "arrow" in row
    }
    assert {"sent", "arrived"} & parts


@pytest.mark.slow
def test_path_loses_and_delays_the_same_packets_with_the_same_seed(lab: Lab) -> None:
    programs = beginnings()["groups"][0]["sets"][0]["programs"]
    lost = []
    for _ in range(2):
        with lab.connect() as websocket:
            replies = run(websocket, programs, path={"delay": 20, "loss": 10, "seed": 3})
        assert "reply: BOTH ENDS" in output_of(replies, 1)
        arrows = [
            row["arrow"]
            for each in replies
            if each["type"] == "rows"
            for row in each["rows"]
            if "arrow" in row
        ]
        lost.append([arrow[2].partition("(")[0] for arrow in arrows if arrow[4] == "lost"])
        assert all(arrow[5] == "loss" for arrow in arrows if arrow[4] == "lost")
    assert lost[0][:1] == lost[1][:1] != []
    assert any(each["rule"] == "retransmission" for each in replies[-1]["findings"])


@needs_tool("cc")
def test_compiler_errors_stand_at_their_lines(lab: Lab) -> None:
    with lab.connect() as websocket:
        replies = run(websocket, [program("client", "int main(void) {\n  return x;\n}\n", "client.c")])
    built = next(each for each in replies if each["type"] == "built")
    assert not built["succeeded"]
    assert (built["problems"][0]["line"], built["problems"][0]["severity"]) == (2, "error")
    assert "/tmp" not in built["output"]
    assert replies[-1]["reason"] == "a program could not be built"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("client.c:2:10: error: 'x' undeclared", [(2, "error", "'x' undeclared")]),
        ("/tmp/a/client.c:2:10: fatal error: none.h: No such file", [(2, "error", "none.h: No such file")]),
        ("client.c:3:5: warning: unused", [(3, "warning", "unused")]),
        ("client.c:24: undefined reference to `sned'", [(24, "error", "undefined reference to `sned'")]),
        (
            "/usr/bin/ld: client.c:24: undefined reference to `a'",
            [(24, "error", "undefined reference to `a'")],
        ),
        ("Client.java:7: error: cannot find symbol", []),
        ("client.c: In function 'main':", []),
        ("client.c:24: something else", []),
    ],
)
def test_lines_of_compilers_are_problems(line: str, found: list[tuple[int, str, str]]) -> None:
    assert [(each.line, each.severity, each.text) for each in _problems(line, "client.c")] == found


@needs_tool("cc")
@pytest.mark.slow
def test_c_and_java_starters_run(lab: Lab) -> None:
    sets = {each["name"]: each["programs"] for each in beginnings()["groups"][1]["sets"]}
    for name in ("C, TCP, minimal", "Java, TCP, minimal"):
        with lab.connect() as websocket:

            def on_reply(reply: dict[str, Any], to: Any = websocket) -> None:
                if reply["type"] == "rows" and any("connect(" in str(row["cells"]) for row in reply["rows"]):
                    to.send(json.dumps({"type": "input", "program": 1, "text": "abc\n"}))

            replies = run(websocket, sets[name], on_reply)
        assert "ABC" in output_of(replies, 1), name


def test_output_is_escaped_and_bounded(lab: Lab) -> None:
    text = "import sys\nprint('\\x1b[2J<b>', chr(0x202e))\nfor _ in range(6000): print('a' * 60)\n"
    with lab.connect() as websocket:
        replies = run(websocket, [program("client", text)])
    output = output_of(replies, 0)
    assert output.startswith("\\x1b[2J<b> \\u{202e}\n")
    assert output.endswith("(more output is not shown)\n")
    assert len(output) < 300_000
    assert exit_of(replies, 0) == "exit status 0"


@pytest.mark.slow
def test_run_ends_at_its_time_limit(lab: Lab) -> None:
    text = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(100)\n"
    began = time.monotonic()
    with lab.connect() as websocket:
        replies = run(websocket, [program("client", text)], time_limit=0.5)
    assert replies[-1]["reason"] == "the time limit"
    assert exit_of(replies, 0) == "ended with the run"
    assert time.monotonic() - began < 15


def test_fork_bomb_is_bounded_and_ends(lab: Lab) -> None:
    text = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
    with lab.connect() as websocket:
        replies = run(websocket, [program("client", text)], time_limit=10)
        assert "processes" in exit_of(replies, 0)
        again = run(websocket, pair(CAPITALS_SERVER, CAPITALS_CLIENT.replace('input("say: ")', '"abc"')))
    assert output_of(again, 1) == "reply b'ABC'\n"


@pytest.mark.slow
def test_memory_is_bounded(lab: Lab) -> None:
    text = "kept = []\nwhile True:\n    kept.append(bytearray(b'x' * (8 << 20)))\n"
    with lab.connect() as websocket:
        replies = run(websocket, [program("client", text)], time_limit=20)
    assert "memory" in exit_of(replies, 0)


def test_program_sees_no_files_of_the_user_and_no_other_network(lab: Lab) -> None:
    port = int(lab.host.rpartition(":")[2])
    text = (
        "import os, socket\n"
        f"print(os.path.exists({os.path.expanduser('~/.bashrc')!r}), os.path.exists({__file__!r}))\n"  # noqa: PTH111
        f"print(socket.socket().connect_ex(('127.0.0.1', {port})))\n"
        "print(os.getuid(), os.access('.', os.W_OK))\n"
    )
    with lab.connect() as websocket:
        replies = run(websocket, [program("client", text)])
    assert output_of(replies, 0) == "False False\n111\n65534 False\n"


def test_one_run_at_a_time(lab: Lab) -> None:
    with lab.connect() as websocket:
        sleeper = [program("client", "import time\ntime.sleep(100)\n")]
        start = json.dumps({"type": "start", "programs": sleeper, "time_limit": 20})
        websocket.send(start)
        while json.loads(websocket.recv(20))["type"] != "started":
            pass
        websocket.send(start)
        while (reply := json.loads(websocket.recv(20)))["type"] != "failed":
            pass
        assert "a run is going on" in reply["text"]


def is_gone(pids: set[int]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}").exists() and is_alive(pid) for pid in pids):
            return True
        os.sched_yield()
    return False


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@pytest.mark.parametrize(
    "how", ["lab killed", "run killed", pytest.param("page closed", marks=pytest.mark.slow)]
)
def test_programs_end_with_the_page_and_with_the_lab(how: str) -> None:
    text = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up')\ntime.sleep(100)\n"
    )
    with running_lab() as lab, contextlib.ExitStack() as stack:
        websocket = stack.enter_context(lab.connect())
        websocket.send(json.dumps({"type": "start", "programs": [program("client", text)], "time_limit": 60}))
        while "up" not in json.loads(websocket.recv(20)).get("text", ""):
            pass
        own = set(descendants(lab.process.pid))
        programs = {pid for pid in own if b"client.py" in Path(f"/proc/{pid}/cmdline").read_bytes()}
        assert programs
        if how == "page closed":
            websocket.close()
            assert is_gone(programs)
        elif how == "run killed":
            (forker,) = (each for each in children(lab.process.pid, lab.process.pid))
            runs = [each for each in children(forker, forker) if programs & set(descendants(each))]
            below = {pid for each in runs for pid in descendants(each)}
            for each in runs:
                os.kill(each, signal.SIGKILL)
            assert is_gone(below)
        else:
            lab.process.send_signal(signal.SIGKILL)
            assert is_gone(own)
