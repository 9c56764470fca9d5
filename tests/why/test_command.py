"""The command line of `bothends why`: exit status, JSON, repetition, and errors that name the argument."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bothends.errors import EndpointError
from bothends.osutil.process_info import children
from bothends.why.explain import Subject, parse_subject
from tests.why.programs import TIMEOUT, Programs, find, settle

COMMAND = [sys.executable, "-m", "bothends", "why"]
DEADLOCK = ("connection, _ = listener.accept()\nconnection.recv(1)\n", "connection.recv(1)\n")


def why(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)


def why_until(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command until it prints a text: on a busy machine, a thread may just have run."""
    deadline = time.monotonic() + TIMEOUT
    while text not in (completed := why(*arguments)).stdout:
        assert time.monotonic() < deadline, completed
    return completed


@pytest.mark.slow
def test_hung_pair_by_pid_port_and_endpoint(programs: Programs) -> None:
    server, client, port = programs.pair(*DEADLOCK)
    find("deadlock", server)
    for argument in (f":{port}", f"tcp://127.0.0.1:{port}", f"localhost:{port}", str(client)):
        completed = why_until("deadlock: Each end waits for the other", argument)
        assert completed.returncode == 1, completed
    assert f"client.py[{client}] waits in recv(3) for data on tcp" in completed.stdout
    assert f"This leads back to client.py[{client}], above." in completed.stdout


@pytest.mark.slow
def test_shell_that_waits_for_a_client(programs: Programs, tmp_path: Path) -> None:
    server, _, port = programs.pair(*DEADLOCK)
    find("deadlock", server)
    code = f"import socket; socket.create_connection(('127.0.0.1', {port})).recv(1)"
    with subprocess.Popen(["sh", "-c", f'{sys.executable} -c "{code}"; true']) as shell:
        try:
            completed = why_until("accept queue", str(shell.pid))
            (child,) = children(shell.pid, shell.pid)
        finally:
            os.kill(children(shell.pid, shell.pid)[0], signal.SIGKILL)
    assert f"[{shell.pid}] waits for a child process to exit" in completed.stdout
    assert f"[{child}] waits in recv(3) for data on tcp" in completed.stdout


@pytest.mark.slow
def test_json(programs: Programs) -> None:
    server, client, port = programs.pair(*DEADLOCK)
    find("deadlock", server)
    completed = why("--json", str(client))
    assert completed.returncode == 1
    report = json.loads(completed.stdout)
    (problem,) = [each for each in report["problems"] if each["kind"] == "deadlock"]
    assert problem["pids"] == sorted([server, client])
    assert port in problem["ports"]
    assert problem["seconds"] >= 0.5
    assert (problem["certainty"], problem["level"], report["wrong"]) == ("seen", "problem", True)


@pytest.mark.slow
def test_healthy_process(programs: Programs) -> None:
    pid, _ = programs.start("idle.py", "import socket\nprint(socket.socket(), flush=True)\ninput()\n")
    settle(0.5, pid)
    completed = why(str(pid))
    assert completed.returncode == 0
    assert f"idle.py[{pid}] waits in read(0) for a pipe" in completed.stdout


@pytest.mark.slow
def test_watch_repeats_until_interrupted(programs: Programs) -> None:
    server, client, _ = programs.pair(*DEADLOCK)
    find("deadlock", server)
    with subprocess.Popen(
        [*COMMAND, "--json", "--watch", str(client)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        reports = [json.loads(process.stdout.readline()) for _ in range(2)]
        while "deadlock" not in {each["kind"] for each in reports[-1]["problems"]} and len(reports) < 10:
            reports.append(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 0
    assert reports[1]["time"] > reports[0]["time"]
    assert "deadlock" in {each["kind"] for each in reports[-1]["problems"]}


def test_no_such_process() -> None:
    completed = why("999999999")
    assert (completed.returncode, completed.stdout) == (2, "")
    assert completed.stderr == "bothends: there is no process '999999999'; ps -e lists them\n"


def test_port_without_a_socket() -> None:
    with socket.socket() as sock:  # bound and not listening: no other program gets the port
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    completed = why(f"127.0.0.1:{port}")
    assert completed.returncode == 1
    assert f"No tcp socket of this machine has address 127.0.0.1:{port}." in completed.stdout


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("412", Subject("412", pids=(412,))),
        (":80", Subject(":80", port=80)),
        ("127.0.0.1:80", Subject("127.0.0.1:80", protocol="tcp", host="127.0.0.1", port=80)),
        ("udp://[::1]:53", Subject("udp://[::1]:53", protocol="udp", host="::1", port=53)),
        ("tls://:443", Subject("tls://:443", protocol="tcp", port=443)),
        ("unix:/run/a.sock", Subject("unix:/run/a.sock", path="/run/a.sock")),
    ],
)
def test_parse_subject(text: str, subject: Subject) -> None:
    assert parse_subject(text) == subject


@pytest.mark.parametrize("text", ["example.com:80", "fd://3", "nonsense", ":0"])
def test_parse_subject_refuses(text: str) -> None:
    with pytest.raises(EndpointError):
        parse_subject(text)
    assert why(text).returncode == 2


@pytest.mark.slow
def test_names_of_other_programs_are_escaped(programs: Programs) -> None:
    pid, _ = programs.start(
        "\x1b]0;x\x07.py", "import socket\none = socket.socket()\nprint(1, flush=True)\ninput()\n"
    )
    settle(0.5, pid)
    completed = why(str(pid))
    assert "\x1b" not in completed.stdout
    assert f"\\x1b]0;x\\x07.py[{pid}]" in completed.stdout


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its user")
def test_ordinary_user_gets_a_note_about_root(programs: Programs) -> None:
    server, _, port = programs.pair(*DEADLOCK)
    find("deadlock", server)
    # All modules are imported before the change, because another user may not be able to read them.
    code = (
        "import os, sys\n"
        "import encodings.ascii\n"
        "from bothends.cli import why\n"
        "import bothends.why.python_lines\n"
        "from bothends.cli.main import run\n"
        "run(['why', '--help'])\n"
        "print('as nobody', flush=True)\n"
        "os.setgroups([]), os.setgid(65534), os.setuid(65534)\n"
        "sys.exit(run(['why', sys.argv[1]]))\n"
    )
    completed = subprocess.run(
        [sys.executable, "-c", code, f":{port}"], capture_output=True, text=True, check=False
    )
    shown = completed.stdout.partition("as nobody")[2]
    assert completed.returncode == 0, completed
    assert "no visible process" in shown
    assert completed.stderr.count("run as root") == 1


@pytest.mark.slow
def test_nothing_is_traced_or_stopped(programs: Programs) -> None:
    server, client, _ = programs.pair(*DEADLOCK)
    find("deadlock", server)
    for pid in (server, client):
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        assert "TracerPid:\t0" in status
        assert "State:\tS" in status
