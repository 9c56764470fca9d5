"""How a run begins and ends: readiness, exit statuses, signals, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bothends.osutil import process_info
from tests.interop.running import ENVIRONMENT, PATIENCE, Running
from tests.tools import needs_tool
from tests.trace.running import has_packets

TRACE = [sys.executable, "-m", "bothends", "trace"]
PYTHON = f"{sys.executable} -I -S"
SERVER = "import socket; s = socket.create_server(('127.0.0.1', 0)); c, _ = s.accept(); c.recv(9); c.recv(9)"
CLIENT = "import socket; s = socket.create_connection(('127.0.0.1', {port})); s.send(b'here'); s.recv(9)"

pytestmark = [needs_tool("strace")]


def shell_word(source: str) -> str:
    return f'{PYTHON} -c "{source}"'


def done(*arguments: str, said: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*TRACE, *arguments], input=said, capture_output=True, timeout=PATIENCE, env=ENVIRONMENT, check=False
    )


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_everything(number: signal.Signals, status: int) -> None:
    command = [*TRACE, "--server", shell_word(SERVER), "--client", shell_word(CLIENT), "--calls-only"]
    with Running(command) as running:
        running.text(rb"recvfrom\(\d+, 9\) = 4")
        # The shells and straces between us and the programs too.
        ours = [each.pid for each in process_info.family(running.process.pid)]
        assert len(ours) == 6  # itself, two straces, two programs, and the heir
        running.process.send_signal(number)
        assert running.end() == status
        assert [each for each in ours if (found := process_info.look(each)) and not found.is_zombie] == []


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + PATIENCE
    while [each for each in pids if (found := process_info.look(each)) and not found.is_zombie]:
        assert time.monotonic() < deadline


# It talks all the time, so that strace would meet a broken pipe; and it leaves its parent and its session.
RESTLESS = "import os, socket\nif os.fork(): os._exit(0)\nos.setsid()\nprint(os.getpid(), flush=True)\n"
RESTLESS += "while True: socket.socket().close()"


@pytest.mark.parametrize("client", [CLIENT, RESTLESS], ids=["waits", "restless"])
def test_it_is_killed(client: str) -> None:
    command = [*TRACE, "--server", shell_word(SERVER), "--client", shell_word(client), "--calls-only"]
    with Running(command) as running:
        strays = []
        if client == RESTLESS:
            strays = [int(running.line(rb"(\d+)")[1])]
            running.text(rb"close\(3\)(?s:.*)close\(3\)")
        else:
            running.text(rb"recvfrom\(\d+, 9\) = 4")
        ours = [each.pid for each in process_info.family(running.process.pid)]
        running.process.kill()
        assert running.end() == -signal.SIGKILL
        wait_until_gone(ours + strays)


def test_strace_is_killed() -> None:
    command = [*TRACE, "--server", shell_word(SERVER), "--client", shell_word(CLIENT), "--calls-only"]
    with Running(command) as running:
        running.text(rb"recvfrom\(\d+, 9\) = 4")
        ours = [each.pid for each in process_info.family(running.process.pid)]
        client = next(each for each in ours[1:] if Path(f"/proc/{each}/comm").read_text() == "strace\n")
        os.kill(client, signal.SIGKILL)
        running.error_line(rb"strace of (server|client) was killed; what it traced was ended too")
        assert running.end() in (0, 137)
        assert [each for each in ours if (found := process_info.look(each)) and not found.is_zombie] == []


def test_the_client_starts_when_the_server_listens_and_may_say_its_port() -> None:
    finished = done(
        "--server",
        shell_word(
            "import time, socket; time.sleep(0.2); s = socket.create_server(('127.0.0.1', 0)); s.accept()"
        ),
        "--client",
        shell_word("import socket; socket.create_connection(('127.0.0.1', {port}))"),
    )
    assert finished.returncode == 0, finished.stderr
    assert b"ECONNREFUSED" not in finished.stdout


@pytest.mark.parametrize("status", [0, 3])
def test_it_leaves_with_what_the_program_left_with(status: int) -> None:
    assert (
        done("--calls-only", "--", *PYTHON.split(), "-c", f"import os; os._exit({status})").returncode
        == status
    )


def test_a_program_that_a_signal_ended() -> None:
    assert (
        done("--calls-only", "--", *PYTHON.split(), "-c", "import os; os.kill(os.getpid(), 9)").returncode
        == 137
    )


def test_a_server_that_never_listens() -> None:
    finished = done("--calls-only", "--server", shell_word("pass"), "--client", shell_word("pass"))
    assert finished.returncode == 1
    assert finished.stderr.decode().splitlines()[-1] == "bothends: server ended before it listened"


def test_packets_are_written_to_a_pipe_as_they_come() -> None:
    if not has_packets():
        pytest.skip("packets can't be captured here")
    with socket.socket(type=socket.SOCK_DGRAM) as ours:
        ours.bind(("127.0.0.1", 0))
        url = f"udp://127.0.0.1:{ours.getsockname()[1]}"
        with Running([*TRACE, "--endpoint", url, "--pcapng", "-"]) as running:
            running.error_line(rb"packets of udp://.*; \^C ends it")
            ours.sendto(b"what is seen at once", ours.getsockname())
            running.text(b"^\x0a\x0d\x0d\x0a(?s:.*)what is seen at once")
            running.process.send_signal(signal.SIGINT)
            assert running.end() == 0


@pytest.mark.parametrize("option", ["--save", "--svg", "--html", "--pcapng"])
def test_a_full_disk_is_one_line(option: str) -> None:
    finished = done(
        option, "/dev/full", "--calls-only", "--", *PYTHON.split(), "-c", "import socket; socket.socket()"
    )
    said = finished.stderr.decode()
    assert said == "bothends: cannot write /dev/full: ENOSPC (No space left on device)\n"
    assert finished.returncode == 1


def test_what_a_program_prints_stays_its_own_and_json_has_standard_output_to_itself() -> None:
    program = [*PYTHON.split(), "-c", "print('mi' + 'ne')"]
    assert done("--calls-only", "--", *program).stdout == b"mine\n"
    finished = done("--calls-only", "--json", "--", *program)
    assert b"mine\n" in finished.stderr
    assert finished.stdout.startswith(b'{"bothends-trace": 1}\n')
    assert b"mine" not in finished.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (("--json", "--pcapng", "-", "--", "true"), 2, "--json and --pcapng - don't go together: both go"),
        ((), 2, "what is to be traced? -- COMMAND, --server and --client, --attach PID, --endpoint URL, or"),
        (
            ("--client", "no-such-program"),
            2,
            "command 'no-such-program': there is no program 'no-such-program'",
        ),
        (("--only", "sendot", "--open", "x"), 2, "there is no call 'sendot'; did you mean 'sendto'?; --only"),
        (("--client", "'"), 2, 'command "\'": no closing quotation; quotes come in pairs, as in a shell'),
        (("--lane", "x"), 2, "--lane takes NAME=COMMAND, and 'x' has no =; see bothends trace --help"),
        (
            ("--endpoint", "unix:///tmp/a"),
            2,
            "endpoint 'unix:///tmp/a': only packets of tcp, udp and tls with",
        ),
        (("--open", "/nowhere/at/all"), 1, "cannot read /nowhere/at/all: ENOENT (No such file or directory)"),
        (
            ("--attach", "999999999"),
            1,
            "cannot trace process 999999999: ESRCH (No such process); ps -e lists",
        ),
    ],
)
def test_bad_input_gets_one_line(arguments: tuple[str, ...], status: int, line: str) -> None:
    finished = done(*arguments)
    (said,) = finished.stderr.decode().splitlines()
    assert said.startswith(f"bothends: {line}")
    assert finished.returncode == status


def test_without_strace_it_says_what_to_install(tmp_path: Path) -> None:
    finished = subprocess.run(
        [*TRACE, "--", sys.executable],
        capture_output=True,
        env={**ENVIRONMENT, "PATH": str(tmp_path)},
        check=False,
    )
    assert finished.returncode == 69
    assert (
        finished.stderr.decode()
        == "bothends: cannot trace programs: strace isn't installed; apt install strace\n"
    )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_process_that_runs_already_is_let_go(number: signal.Signals, status: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = f"import socket; s = socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))\n"
        source += "while s.recv(100): s.send(b'answer')"
        with Running([*PYTHON.split(), "-c", source]) as program:
            connection, _ = server.accept()
            with (
                connection,
                Running([*TRACE, "--attach", str(program.process.pid), "--calls-only"]) as running,
            ):
                running.text(rb"recvfrom\(\d+\) waits")
                connection.send(b"question")
                assert connection.recv(100) == b"answer"
                running.text(rb'= 8 "question"')
                ours = [each.pid for each in process_info.family(running.process.pid)]
                running.process.send_signal(number)
                assert running.end() == status
                assert str(running.complained) == ""
                wait_until_gone(ours)
                connection.send(b"still there?")
                assert connection.recv(100) == b"answer"
            assert program.end() == 0


def test_it_says_what_it_lacks_where_packets_are_not_permitted() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can do without a privilege on purpose")
    command = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw", *TRACE]
    finished = subprocess.run(
        [*command, "--", *PYTHON.split(), "-c", "pass"], capture_output=True, env=ENVIRONMENT, check=False
    )
    assert finished.returncode == 0
    said = finished.stderr.decode()
    assert said.startswith(
        "calls only: cannot see packets: EPERM (Operation not permitted); run as root, or: sudo setcap"
    )
    assert said.count("\n") == 1
