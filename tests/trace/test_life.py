"""How a run starts and ends: readiness, exit statuses, signals, and no processes that stay behind."""

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
from tests.interop.running import ENVIRONMENT, TIMEOUT, Running
from tests.tools import needs_tool
from tests.trace.running import has_packets
from tests.trace.sources import source_option

TRACE = [sys.executable, "-m", "bothends", "trace"]
PYTHON = f"{sys.executable} -I -S"
SERVER = "import socket; s = socket.create_server(('127.0.0.1', 0)); c, _ = s.accept(); c.recv(9); c.recv(9)"
CLIENT = "import socket; s = socket.create_connection(('127.0.0.1', {port})); s.send(b'here'); s.recv(9)"

pytestmark = [needs_tool("strace")]


def python_one_liner(source: str) -> str:
    return f'{PYTHON} -c "{source}"'


def run_trace(*arguments: str, stdin_bytes: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*TRACE, *arguments],
        input=stdin_bytes,
        capture_output=True,
        timeout=TIMEOUT,
        env=ENVIRONMENT,
        check=False,
    )


@pytest.mark.usefixtures("call_source")
@pytest.mark.spread("call_source", one_in=2)
@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
)
def test_trace_signal_terminates_all_processes(number: signal.Signals, status: int) -> None:
    command = [
        *TRACE,
        *source_option(),
        "--server",
        python_one_liner(SERVER),
        "--client",
        python_one_liner(CLIENT),
        "--calls-only",
    ]
    with Running(command) as running:
        running.text(rb"recvfrom\(\d+, 9\) = 4")
        processes = [each.pid for each in process_info.process_tree(running.process.pid)]
        straces = 2 if source_option()[1] == "strace" else 0
        assert len(processes) == 4 + straces  # bothends, two programs, and the reaper
        running.process.send_signal(number)
        assert running.wait() == status
        assert [
            each for each in processes if (found := process_info.read_process(each)) and not found.is_zombie
        ] == []


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while [each for each in pids if (found := process_info.read_process(each)) and not found.is_zombie]:
        assert time.monotonic() < deadline


# It makes calls all the time, so that strace would get EPIPE; and it leaves its parent and its session.
BUSY_DAEMON = "import os, socket\nif os.fork(): os._exit(0)\nos.setsid()\nprint(os.getpid(), flush=True)\n"
BUSY_DAEMON += "while True: socket.socket().close()"


@pytest.mark.usefixtures("call_source")
@pytest.mark.spread("call_source", one_in=2)
@pytest.mark.parametrize("client", [CLIENT, BUSY_DAEMON], ids=["blocked", "busy-daemon"])
def test_trace_sigkill_leaves_no_processes(client: str) -> None:
    command = [
        *TRACE,
        *source_option(),
        "--server",
        python_one_liner(SERVER),
        "--client",
        python_one_liner(client),
        "--calls-only",
    ]
    with Running(command) as running:
        daemons = []
        if client == BUSY_DAEMON:
            daemons = [int(running.line(rb"(\d+)")[1])]
            running.text(rb"close\(3\)(?s:.*)close\(3\)")
        else:
            running.text(rb"recvfrom\(\d+, 9\) = 4")
        processes = [each.pid for each in process_info.process_tree(running.process.pid)]
        running.process.kill()
        assert running.wait() == -signal.SIGKILL
        wait_until_gone(processes + daemons)


def test_strace_sigkill_terminates_its_programs() -> None:
    command = [
        *TRACE,
        "--with",
        "strace",
        "--server",
        python_one_liner(SERVER),
        "--client",
        python_one_liner(CLIENT),
        "--calls-only",
    ]
    with Running(command) as running:
        running.text(rb"recvfrom\(\d+, 9\) = 4")
        processes = [each.pid for each in process_info.process_tree(running.process.pid)]
        client = next(each for each in processes[1:] if Path(f"/proc/{each}/comm").read_text() == "strace\n")
        os.kill(client, signal.SIGKILL)
        running.error_line(rb"strace of (server|client) was killed, so the program was killed too")
        assert running.wait() in (0, 137)
        assert [
            each for each in processes if (found := process_info.read_process(each)) and not found.is_zombie
        ] == []


@pytest.mark.usefixtures("call_source")
@pytest.mark.spread("call_source", one_in=2)
def test_client_starts_after_listen_and_gets_port() -> None:
    finished = run_trace(
        *source_option(),
        "--server",
        python_one_liner(
            "import time, socket; time.sleep(0.2); s = socket.create_server(('127.0.0.1', 0)); s.accept()"
        ),
        "--client",
        python_one_liner("import socket; socket.create_connection(('127.0.0.1', {port}))"),
    )
    assert finished.returncode == 0, finished.stderr
    assert b"ECONNREFUSED" not in finished.stdout


@pytest.mark.usefixtures("call_source")
@pytest.mark.spread("call_source", one_in=2)
@pytest.mark.parametrize("status", [0, 3])
def test_exit_status_is_the_programs(status: int) -> None:
    assert (
        run_trace(
            *source_option(), "--calls-only", "--", *PYTHON.split(), "-c", f"import os; os._exit({status})"
        ).returncode
        == status
    )


@pytest.mark.usefixtures("call_source")
@pytest.mark.spread("call_source", one_in=2)
def test_exit_status_of_signalled_program_is_128_plus_signal() -> None:
    assert (
        run_trace(
            *source_option(),
            "--calls-only",
            "--",
            *PYTHON.split(),
            "-c",
            "import os; os.kill(os.getpid(), 9)",
        ).returncode
        == 137
    )


@pytest.mark.usefixtures("call_source")
@pytest.mark.spread("call_source", one_in=2)
def test_server_exit_before_listen_is_an_error() -> None:
    finished = run_trace(
        *source_option(),
        "--calls-only",
        "--server",
        python_one_liner("pass"),
        "--client",
        python_one_liner("pass"),
    )
    assert finished.returncode == 1
    assert finished.stderr.decode().splitlines()[-1] == "bothends: server exited before it listened"


def test_pcapng_to_pipe_is_flushed_per_packet() -> None:
    if not has_packets():
        pytest.skip("packets can't be captured here")
    with socket.socket(type=socket.SOCK_DGRAM) as endpoint:
        endpoint.bind(("127.0.0.1", 0))
        url = f"udp://127.0.0.1:{endpoint.getsockname()[1]}"
        with Running([*TRACE, "--endpoint", url, "--pcapng", "-"]) as running:
            running.error_line(rb"packets of udp://.*; press \^C to stop")
            endpoint.sendto(b"flushed datagram", endpoint.getsockname())
            running.text(b"^\x0a\x0d\x0d\x0a(?s:.*)flushed datagram")
            running.process.send_signal(signal.SIGINT)
            assert running.wait() == 0


@pytest.mark.spread("option", one_in=4)
@pytest.mark.parametrize("option", ["--save", "--svg", "--html", "--pcapng"])
def test_output_file_enospc_is_reported(option: str) -> None:
    """A trace is saved while the program runs, and fails before it; a picture is written at the end."""
    finished = run_trace(
        option, "/dev/full", "--calls-only", "--", *PYTHON.split(), "-c", "import socket; socket.socket()"
    )
    message = finished.stderr.decode()
    first, *others = message.splitlines()
    if option == "--save":
        assert (first, others) == ("bothends: cannot write /dev/full: ENOSPC (No space left on device)", [])
    else:
        assert first.startswith("/dev/full: ENOSPC (No space left on device)")
        assert len(others) == 1
        assert others[0].startswith("bothends: cannot write ")
    assert finished.returncode == 1


def test_program_stdout_is_kept_apart_from_json() -> None:
    program = [*PYTHON.split(), "-c", "print('mi' + 'ne')"]
    assert run_trace("--calls-only", "--", *program).stdout == b"mine\n"
    finished = run_trace("--calls-only", "--json", "--", *program)
    assert b"mine\n" in finished.stderr
    assert finished.stdout.startswith(b'{"bothends-trace": 1}\n')
    assert b"mine" not in finished.stdout


@pytest.mark.spread("arguments", "status", "line", one_in=3)
@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (
            ("--json", "--pcapng", "-", "--", "true"),
            2,
            "--json and --pcapng - cannot be combined: both write",
        ),
        ((), 2, "nothing to trace, or too much: give one of SERVER CLIENT, -- COMMAND, --attach"),
        (
            ("--client", "no-such-program"),
            2,
            "command 'no-such-program': program 'no-such-program' not found",
        ),
        (("--only", "sendot", "--open", "x"), 2, "there is no call 'sendot'; did you mean 'sendto'?; --only"),
        (("--client", "'"), 2, 'command "\'": no closing quotation; close each quote, as in a shell'),
        (("--lane", "x"), 2, "--lane takes NAME=COMMAND, but 'x' has no =; see bothends trace --help"),
        (
            ("--endpoint", "unix:///tmp/a"),
            2,
            "endpoint 'unix:///tmp/a': only packets of tcp, udp and tls endpoints",
        ),
        (("--open", "/nowhere/at/all"), 1, "cannot read /nowhere/at/all: ENOENT (No such file or directory)"),
        (
            ("--attach", "999999999"),
            1,
            "cannot trace process 999999999: ESRCH (No such process); ps -e lists",
        ),
    ],
)
def test_usage_error_prints_one_line(arguments: tuple[str, ...], status: int, line: str) -> None:
    finished = run_trace(*arguments)
    (message,) = finished.stderr.decode().splitlines()
    assert message.startswith(f"bothends: {line}")
    assert finished.returncode == status


def test_missing_strace_names_package(tmp_path: Path) -> None:
    finished = subprocess.run(
        [*TRACE, "--with", "strace", "--", sys.executable],
        capture_output=True,
        env={**ENVIRONMENT, "PATH": str(tmp_path)},
        check=False,
    )
    assert finished.returncode == 69
    assert (
        finished.stderr.decode()
        == "bothends: cannot trace programs: strace isn't installed; apt install strace\n"
    )


def test_process_that_is_traced_already() -> None:
    source = "import socket; a, b = socket.socketpair(); print(1, flush=True); a.recv(1)"
    with Running([*PYTHON.split(), "-c", source]) as program:
        program.text(rb"1")
        attach = [*TRACE, "--with", "strace", "--attach", str(program.process.pid), "--calls-only"]
        with Running(attach) as first:
            first.text(rb"recvfrom\(\d+\) waits")
            second = subprocess.run(attach, capture_output=True, env=ENVIRONMENT, check=False)
    assert second.returncode == 69
    last = second.stderr.decode().splitlines()[-1]
    start = f"bothends: cannot trace process {program.process.pid}: strace cannot attach to it; end process "
    assert last.startswith(start)
    assert last.endswith(", which traces it already")
    assert b"made no call" not in second.stderr


@pytest.mark.usefixtures("call_source")
@pytest.mark.spread("call_source", one_in=2)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_attached_process_survives_end_of_trace(number: signal.Signals, status: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = f"import socket; s = socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))\n"
        source += "while s.recv(100): s.send(b'answer')"
        with Running([*PYTHON.split(), "-c", source]) as program:
            connection, _ = server.accept()
            with (
                connection,
                Running(
                    [*TRACE, *source_option(), "--attach", str(program.process.pid), "--calls-only"]
                ) as running,
            ):
                running.text(rb"recvfrom\(\d+\) waits")
                connection.send(b"question")
                assert connection.recv(100) == b"answer"
                running.text(rb'= 8 "question"')
                processes = [each.pid for each in process_info.process_tree(running.process.pid)]
                running.process.send_signal(number)
                assert running.wait() == status
                assert str(running.stderr) == ""
                wait_until_gone(processes)
                connection.send(b"still there?")
                assert connection.recv(100) == b"answer"
            assert program.wait() == 0


def test_missing_cap_net_raw_falls_back_to_calls_only() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can drop the privilege")
    command = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw", *TRACE]
    finished = subprocess.run(
        [*command, "--", *PYTHON.split(), "-c", "pass"], capture_output=True, env=ENVIRONMENT, check=False
    )
    assert finished.returncode == 0
    message = finished.stderr.decode()
    assert message.startswith(
        "calls only: cannot see packets: EPERM (Operation not permitted); run as root, or with --wire '', "
    )
    assert "setcap" not in message
    assert message.splitlines()[1:] == [
        f"{Path(sys.executable).name} made no call on a socket (TCP, UDP or UNIX); its exit status is 0"
    ]
