"""Submissions as they are handed in: options for the port, several files, other packages, CR LF, Python 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothends.check.batch.build_recipes import find_recipe, with_options
from bothends.check.batch.grading import BatchSettings, JudgedSubmission, judge_all
from bothends.check.evidence import find_cause
from tests.check.helpers import format_failures
from tests.tools import needs_tool

PYTHON = """import socket, sys
sock = socket.socket(type=socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", PORT))
while True:
    data, sender = sock.recvfrom(65535)
    sock.sendto(data.upper(), sender)
"""
PLAIN = PYTHON.replace("PORT", "int(sys.argv[1])")
ARGPARSE = PYTHON.replace("PORT", "args.port").replace("sock = ", """import argparse
parser = argparse.ArgumentParser()
parser.add_argument("-p", "--port", type=int, default=9)
args = parser.parse_args()
sock = """)  # fmt: skip
C_MAIN = """
#include "include.h"
int main(int argc, char **argv) {
    int sock = socket(AF_INET, SOCK_DGRAM, 0), option, port = 9;
    while ((option = getopt(argc, argv, "vp:")) != -1)
        if (option == 'p') port = atoi(optarg);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    bind(sock, (struct sockaddr *)&address, sizeof address);
    for (;;) {
        char data[65536];
        struct sockaddr_in peer;
        socklen_t size = sizeof peer;
        ssize_t n = recvfrom(sock, data, sizeof data, 0, (struct sockaddr *)&peer, &size);
        if (n >= 0) { upper(data, n); sendto(sock, data, n, 0, (struct sockaddr *)&peer, size); }
    }
}
"""
C_OTHER = """
#include "include.h"
void upper(char *data, long size) {
    for (long i = 0; i < size; i++) if (data[i] >= 'a' && data[i] <= 'z') data[i] -= 32;
}
"""
C_HEADER = """
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
void upper(char *data, long size);
"""
JAVA_MAIN = """
package uni.server;
import java.net.*;
import uni.text.Upper;
public class UDPServer {
    public static void main(String[] args) throws Exception {
        DatagramSocket socket = new DatagramSocket(Integer.parseInt(args[0]));
        byte[] buffer = new byte[65535];
        while (true) {
            DatagramPacket packet = new DatagramPacket(buffer, buffer.length);
            socket.receive(packet);
            byte[] data = Upper.of(packet.getData(), packet.getLength());
            socket.send(new DatagramPacket(data, data.length, packet.getSocketAddress()));
        }
    }
}
"""
JAVA_OTHER = """
package uni.text;
public class Upper {
    static int up(int c) { return c >= 'a' && c <= 'z' ? c - 32 : c; }
    public static byte[] of(byte[] data, int size) {
        byte[] result = new byte[size];
        for (int i = 0; i < size; i++) result[i] = (byte) up(data[i]);
        return result;
    }
}
"""
SCRIPT = 'run = "./start.sh {port}"'
CASES: dict[str, tuple[dict[str, str], str]] = {
    "an option": ({"server.py": ARGPARSE}, ""),
    "a BOM": ({"server.py": f"\ufeff{PLAIN}"}, ""),
    "spaces": ({"home work/udp server (final).py": PLAIN}, ""),
    "its host name": ({"server.py": PLAIN.replace('"127.0.0.1"', "socket.gethostname()")}, ""),
    "CR LF after #!": (
        {
            "start.sh": '#!/bin/sh\r\nexec python3 server.py "$1"\r\n',
            "server.py": PLAIN,
            "check.toml": SCRIPT,
        },
        "changed CR LF to LF in start.sh, because of its first line (#!)",
    ),
    "several files in C": ({"src/main.c": C_MAIN, "src/upper.c": C_OTHER, "include/include.h": C_HEADER}, ""),
    "packages in Java": (
        {
            "src/uni/server/UDPServer.java": JAVA_MAIN,
            "src/uni/text/Upper.java": JAVA_OTHER,
            "pom.xml": "<project/>",
        },
        "built with javac: pom.xml needs a network, and is not used",
    ),
}
TOOLS = {"several files in C": "cc", "packages in Java": "javac"}


def judge(folder: Path, files: dict[str, str], out: Path) -> JudgedSubmission:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    settings = BatchSettings("server", "upper-udp", sandbox=False, only=("udp-lengths",))
    [found] = judge_all([folder], settings, out, workers=1)
    return found


@pytest.mark.spread("case", one_in=6)
@pytest.mark.parametrize(
    "case", [pytest.param(each, marks=needs_tool(TOOLS[each]) if each in TOOLS else ()) for each in CASES]
)
def test_submission_is_judged_as_it_is(case: str, tmp_path: Path) -> None:
    files, remark = CASES[case]
    found = judge(tmp_path / "one", files, tmp_path / "out")
    assert not found.result.failed, format_failures(found.result)
    assert found.result.points == 2
    assert found.remark == remark


@needs_tool("cc")
def test_other_files_that_do_not_compile_are_left_out(tmp_path: Path) -> None:
    files = {"server.c": C_MAIN + C_OTHER.replace('#include "include.h"', ""), "include.h": C_HEADER}
    found = judge(tmp_path / "one", files | {"notes.c": "this is not C"}, tmp_path / "out")
    assert not found.result.failed, format_failures(found.result)
    assert "built as C instead" in found.remark


def test_second_program_in_c_is_not_linked(tmp_path: Path) -> None:
    for name, text in {
        "server.c": C_MAIN,
        "client.c": "int main(void) { connect(); }",
        "upper.c": C_OTHER,
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    plan = find_recipe(tmp_path, "server", "udp")
    assert plan.build[0][-4:] == ("./program", "server.c", "upper.c", "-lm")
    assert plan.run == ("./program", "-p", "{port}")


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('p.add_argument("--port")', ("--host", "{host}", "--port", "{port}")),
        ('p.add_argument("-p")', ("{host}", "-p", "{port}")),
        ('getopt(argc, argv, "hp:")', ("{host}", "-p", "{port}")),
        ("int(sys.argv[1])", ("{host}", "{port}")),
    ],
)
def test_options_before_the_arguments(text: str, arguments: tuple[str, ...]) -> None:
    text = text.replace('("--port")', '("--port"); p.add_argument("--host")')
    assert with_options(text, ("{host}", "{port}")) == arguments


def test_python_2_is_named_with_what_to_change(tmp_path: Path) -> None:
    text = PLAIN.replace("while True", "print 'ready'\nwhile True")
    found = judge(tmp_path / "one", {"server.py": text}, tmp_path / "out")
    assert found.result.outcomes[0].likely_cause == (
        "it is written for Python 2, and runs with Python 3: line 4: print(...) needs parentheses"
    )
    assert (found.result.points, found.result.max_points) == (0, 2)


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        (b"env: 'python3\\r': No such file or directory\n", "its first line (#!) ends with CR LF"),
        (
            b"ModuleNotFoundError: No module named 'SocketServer'\n",
            "the module SocketServer has another name",
        ),
        (b"NameError: name 'raw_input' is not defined\n", "raw_input() is now input()"),
        (b"SyntaxError: multiple exception types must be parenthesized", "write `except Error as error`"),
        (b"OSError: [Errno 98] Address already in use", ""),
    ],
)
def test_cause_of_a_program_that_does_not_start(output: bytes, cause: str) -> None:
    found = find_cause(output)[1]
    assert cause in found
    assert bool(cause) == bool(found)
