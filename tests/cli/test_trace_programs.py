"""`bothends trace server.py client.py`: programs given as files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from bothends.cli.trace.programs import Programs
from tests.interop.running import ENVIRONMENT, TIMEOUT, Running
from tests.tools import needs_tool
from tests.trace.running import saved_lines

TRACE = [sys.executable, "-m", "bothends", "trace"]

SERVER = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 0)) as listener:
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(connection.recv(100).upper())
"""
CLIENT = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    connection.sendall(b"hello from " + sys.argv[2].encode())
    print(connection.recv(100).decode())
"""
C_CLIENT = """
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[argc - 1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    char reply[100];
    if (connect(fd, (struct sockaddr *)&address, sizeof address) || write(fd, "in c", 4) != 4)
        return 1;
    ssize_t size = read(fd, reply, sizeof reply);
    return printf("%.*s\\n", (int)size, reply) < 0;
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a server, clients, and files that are no programs."""
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "client.py").write_text(CLIENT)
    (tmp_path / "my client.py").write_text(CLIENT)
    (tmp_path / "client.c").write_text(C_CLIENT)
    (tmp_path / "broken.c").write_text("int main(void) { return missing; }\n")
    (tmp_path / "notes.txt").write_text("later\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "ls").write_text("#!/bin/sh\n")
    return tmp_path


def run_trace(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    finished = subprocess.run(
        [*TRACE, *arguments, "--calls-only"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**ENVIRONMENT, "TMPDIR": str(temporary)},
        check=False,
    )
    assert not list(temporary.iterdir()), "built programs were left behind"
    return finished


@needs_tool("strace")
def test_two_files_are_server_and_client(folder: Path) -> None:
    finished = run_trace(folder, "server.py", "client.py {port} one", "my' 'client.py {port} two")
    assert finished.returncode == 0, finished.stderr
    assert "HELLO FROM ONE" in finished.stdout
    assert "HELLO FROM TWO" in finished.stdout
    assert "│ listen(3, " in finished.stdout


@pytest.mark.slow
@needs_tool("strace")
def test_options_take_files_with_arguments(folder: Path) -> None:
    finished = run_trace(folder, "--server", "server.py 0", "--client", "client.py {port} one")
    assert finished.returncode == 0, finished.stderr
    assert "HELLO FROM ONE" in finished.stdout


@needs_tool("strace")
@needs_tool("cc")
def test_c_program_is_compiled_first(folder: Path) -> None:
    finished = run_trace(folder, "server.py", "client.c {port}")
    assert finished.returncode == 0, finished.stderr
    assert "IN C" in finished.stdout


@needs_tool("strace")
@needs_tool("cc")
def test_errors_of_the_compiler_are_shown(folder: Path) -> None:
    finished = run_trace(folder, "server.py", "broken.c")
    assert finished.returncode == 1
    assert "broken.c:1:25: error: " in finished.stderr
    assert finished.stderr.endswith("bothends: cannot build broken.c: cc exited with status 1\n")
    assert not finished.stdout


@needs_tool("strace")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_compiler_leaves_no_files(number: signal.Signals, folder: Path, tmp_path: Path) -> None:
    compiler = folder / "bin" / "cc"
    compiler.parent.mkdir()
    compiler.write_text("#!/bin/sh\necho compiling >&2\nexec sleep 60\n")
    compiler.chmod(0o755)
    temporary = folder / "tmp"
    temporary.mkdir()
    environment = {"PATH": f"{compiler.parent}:{os.environ['PATH']}", "TMPDIR": str(temporary)}
    command = ["env", *(f"{name}={value}" for name, value in environment.items())]
    with Running([*command, *TRACE, str(folder / "server.py"), str(folder / "client.c")]) as running:
        running.error_line(b"compiling")
        assert list(temporary.iterdir())
        running.process.send_signal(number)
        assert running.wait() == 128 + number
    assert not list(temporary.iterdir())


@pytest.mark.spread("arguments", "message", one_in=3)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["server.py", "cleint.py"], "cannot run cleint.py: there is no such file; did you mean client.py?"),
        (["--server", "sever.py 1"], "cannot run sever.py: there is no such file; did you mean server.py?"),
        (
            ["--server", "server.py", "--client", "client"],
            "cannot run client: there is no such command or file; did you mean client.c?",
        ),
        (
            ["notes.txt"],
            "cannot run notes.txt: its suffix is not that of a known language, and its first line ",
        ),
        (["server.py", "notes.txt"], 'quote the command that runs it: "COMMAND notes.txt"'),
        (["folder", "client.py"], "cannot run folder: it is a folder"),
        (["--server", "server.py", "--client", "./folder"], "cannot run ./folder: it is a folder"),
        (
            ["--server", "server.py", "--client", "absent"],
            "program 'absent' not found; no command or file has",
        ),
        (["--server", "server.py | cat", "--client", "absent"], "for shell syntax use sh -c '...'"),
        (
            ["python3", "server.py", "python3", "client.py"],
            "quote each program: 'python3 server.py' 'python3 client.py'; or for one program: -- python3 ",
        ),
        (
            ["server.py", "client.py", "1 2"],
            "quote a program with its arguments: server.py 'client.py '\"'\"'1 2",
        ),
        (["server.py", "client.py", "1"], "or for one program: -- server.py client.py 1"),
    ],
)
@needs_tool("strace")
def test_mistake_is_explained_in_one_line(arguments: list[str], message: str, folder: Path) -> None:
    finished = run_trace(folder, *arguments)
    assert finished.returncode == 2
    assert message in finished.stderr
    assert finished.stderr.count("\n") == 1


@needs_tool("strace")
def test_argument_that_may_be_meant_as_a_program_is_pointed_out(folder: Path) -> None:
    (folder / "hello.py").write_text("")
    finished = run_trace(folder, "hello.py", "cleint")
    assert finished.returncode == 0
    first, second = finished.stderr.splitlines()
    assert first.startswith(
        "one program is traced: hello.py cleint; for a server and a client, give two files, "
    )
    assert second == "hello.py made no call on a socket (TCP, UDP or UNIX); its exit status is 0"


@needs_tool("strace")
def test_sockets_of_the_c_library_are_not_those_of_the_program(folder: Path) -> None:
    (folder / "whoami.py").write_text("import os, pwd\npwd.getpwuid(os.getuid())\n")
    finished = run_trace(folder, "--save", "whoami.trace", "whoami.py")
    assert (finished.returncode, finished.stdout) == (0, "")
    assert finished.stderr == "whoami.py made no call on a socket (TCP, UDP or UNIX); its exit status is 0\n"
    if "nscd" not in "".join(saved_lines(folder / "whoami.trace")):
        pytest.skip("this C library asks no name service cache")
    assert run_trace(folder, "--open", "whoami.trace").stdout.count("nscd") == 0


@needs_tool("strace")
def test_program_without_a_socket_that_a_signal_killed(folder: Path) -> None:
    finished = run_trace(folder, "--", "sh", "-c", "kill -SEGV $$")
    assert finished.returncode == 128 + signal.SIGSEGV
    assert finished.stderr == "sh made no call on a socket (TCP, UDP or UNIX); SIGSEGV killed it\n"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Programs(["server.py", "client.py"]), Programs((), ["server.py"], ["client.py"])),
        (Programs(["server.py", "a.py", "b.py"]), Programs((), ["server.py"], ["a.py", "b.py"])),
        (Programs(["server.py 1", "client.py 1"]), Programs((), ["server.py 1"], ["client.py 1"])),
        (Programs(["server.py"]), Programs(["server.py"])),
        (Programs(["server.py", "1"]), Programs(["server.py", "1"])),
        (Programs(["python3", "client.py"]), Programs(["python3", "client.py"])),
        (Programs(["cat", "server.py", "client.py"]), Programs(["cat", "server.py", "client.py"])),
        (Programs(["client.py"], ["./server"]), Programs((), ["./server"], ["client.py"])),
        (Programs(["server.py"], (), ["./client"]), Programs((), ["server.py"], ["./client"])),
        (
            Programs(["sh -c 'exec ./server'", "client.py 1"]),
            Programs((), ["sh -c 'exec ./server'"], ["client.py 1"]),
        ),
        (Programs(["server.py", "ls"]), Programs((), ["server.py"], ["./ls"])),
        (Programs(["ls", "client.py"]), Programs(["ls", "client.py"])),
        (Programs(["sh -c true"]), Programs(["sh", "-c", "true"])),
        (Programs(["sh", "-c", "true false"]), Programs(["sh", "-c", "true false"])),
        (Programs(["my client.py"]), Programs(["my client.py"])),
        (Programs(), Programs()),
    ],
)
def test_files_become_servers_and_clients(
    given: Programs, expected: Programs, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    found = given.with_files()
    assert [list(each) for each in (found.command, found.servers, found.clients)] == [
        list(each) for each in (expected.command, expected.servers, expected.clients)
    ]


def test_two_files_and_a_word_are_ambiguous() -> None:
    with pytest.raises(click.UsageError, match="quote a program"):
        Programs(["server.py", "client.py", "1"]).with_files()
