"""Hostile programs in the sandbox: each is judged in time, and leaves no processes."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bothends.cli.check.command import REPORT_FORMATS
from tests.check.helpers import BOTHENDS_COMMAND
from tests.tools import needs_tool

# A grandchild in a new session, with an empty environment and no descriptors; recognised by its sleep time.
DETACHING_SERVER = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 100)
        os.execve('/bin/sleep', ['sleep', '1000'], {})
    os._exit(0)
time.sleep(0.3)
"""
DISK_FILLER = """
import os, sys, time
number = 0
while True:
    number += 1
    try:
        with open(f"{os.environ['TMPDIR']}/{number}", 'wb') as file:
            while True:
                file.write(bytes(1 << 20))
    except OSError:
        time.sleep(0.01)
"""
# What each does before it listens, or instead.
HOSTILE = {
    "fork bomb": "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n",
    "memory": "chunks = []\nwhile True:\n    chunks.append(bytearray(b'x') * (32 << 20))\n",
    "endless printer": "import sys\nwhile True:\n    sys.stdout.write('spam ' * 10000)\n",
    "kills its parent": "import os\nos.kill(os.getppid(), 9)\nos.kill(-1, 9)\n",
    "ignores SIGTERM": "import signal, time\nsignal.signal(15, signal.SIG_IGN)\ntime.sleep(1000)\n",
    "leaves its session": DETACHING_SERVER,
    "fills the disk": DISK_FILLER,
    "closes its output": "import os, time\nos.close(1)\nos.close(2)\ntime.sleep(1000)\n",
}
ESCAPE_SEQUENCE_SERVER = r"""
import socket, sys
evil = '\x1b]0;gone\x07\x1b[2J\r\x9b1m</script><script>alert(1)</script>'
print(evil, file=sys.stderr, flush=True)
server = socket.create_server(('127.0.0.1', int(sys.argv[1])))
while True:
    connection, _ = server.accept()
    connection.sendall(evil.encode('latin-1'))
    connection.close()
"""
CONFINEMENT_PROBE = """
import errno, os, socket, sys
def refused(what, number=None):
    try:
        what()
    except OSError as error:
        return number is None or error.errno == number
    return False
def write(path, size=1):
    with open(path, 'wb') as file:
        for _ in range(size):
            file.write(bytes(1 << 20))
            file.flush()
assert refused(lambda: write('{folder}/intruder'), errno.EROFS), 'it could write'
assert refused(lambda: write(os.environ['TMPDIR'] + '/large', 100)), 'it could fill the disk'
os.unlink(os.environ['TMPDIR'] + '/large')
write(os.environ['TMPDIR'] + '/small')
assert refused(lambda: socket.create_connection(('192.0.2.1', 80), 5), errno.ENETUNREACH), 'it has a network'
assert refused(lambda: os.kill({pid}, 0)), 'it sees other processes'
assert refused(lambda: os.chroot('/'), errno.EPERM), 'it has capabilities'
assert refused(lambda: open('/proc/sys/vm/drop_caches', 'wb'), errno.EROFS), 'the kernel obeys it'
devices = 'core fd full null ptmx pts random shm stderr stdin stdout tty urandom zero'
assert not {*os.listdir('/dev')} - {*devices.split()}, 'it has disks'
assert not os.listdir('/run'), 'it reaches services'
server = socket.create_server(('127.0.0.1', int(sys.argv[1])))
while True:
    connection, _ = server.accept()
    with connection:
        for line in connection.makefile('rb'):
            connection.sendall(line.upper())
"""


def check(
    path: Path, tag: str, backend: str, *options: str, argument: str = "{port}"
) -> subprocess.CompletedProcess[str]:
    """Judge a program in the sandbox. `tag` is in the environment of all its processes."""
    hidden = {"PATH": "/nowhere"} if backend == NAMESPACES else {}
    done = subprocess.run(
        [*BOTHENDS_COMMAND, "check", "server", "--sandbox", "--contract", "upper-tcp",
         "--only", "tcp-one-message", *options, "--", sys.executable, str(path), argument],
        capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, **hidden, "HOSTILE_TAG": tag, "NO_COLOR": "1"},
    )  # fmt: skip
    assert f"confined {backend}" in done.stdout, done.stdout + done.stderr
    return done


def leftover_processes(tag: str) -> list[str]:
    """Return the process ids of running processes with this tag."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"HOSTILE_TAG={tag}".encode() in (entry / "environ").read_bytes():
                found.append(entry.name)
        except OSError:
            continue
    return found


def wait_leftover_processes(tag: str) -> list[str]:
    """As `leftover_processes`, after up to 10 s for the kernel to kill a process namespace."""
    deadline = time.monotonic() + 10
    while (found := leftover_processes(tag)) and time.monotonic() < deadline:
        pass
    return found


def command_of(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@functools.cache
def sandbox_unavailable_reason() -> str:
    code = "from bothends.check.sandbox.launcher import enter; enter()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


pytestmark = pytest.mark.skipif(
    bool(sandbox_unavailable_reason()), reason=f"no sandbox here: {sandbox_unavailable_reason()}"
)
NAMESPACES = "in user namespaces"
both_backends = pytest.mark.parametrize(
    "backend", [NAMESPACES, pytest.param("by bubblewrap", marks=needs_tool("bwrap"))]
)


@both_backends
def test_sandboxed_server_passes_and_is_confined(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "server.py"
    path.write_text(
        CONFINEMENT_PROBE.replace("{folder}", str(tmp_path)).replace("{pid}", str(os.getpid())),
        encoding="utf-8",
    )
    tag = f"good {os.getpid()}"
    done = check(path, tag, backend)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "intruder").exists()
    assert not wait_leftover_processes(tag)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)]
)
@pytest.mark.parametrize("options", [[], ["--sandbox"]])
def test_check_on_signal_ends_all_child_processes(
    options: list[str], number: signal.Signals, status: int, tmp_path: Path
) -> None:
    path = tmp_path / "silent.py"
    path.write_text("import time\nprint('here', flush=True)\ntime.sleep(1000)\n", encoding="utf-8")
    command = [
        *BOTHENDS_COMMAND,
        "check",
        "server",
        *options,
        "--contract",
        "upper-tcp",
        "--",
        sys.executable,
        str(path),
    ]
    tag = f"signal {options} {number} {os.getpid()}"
    with subprocess.Popen(command, env={**os.environ, "HOSTILE_TAG": tag}) as process:
        deadline = time.monotonic() + 30
        while b"%b\0%b\0" % (sys.executable.encode(), bytes(path)) not in map(
            command_of, leftover_processes(tag)
        ):
            assert time.monotonic() < deadline
        process.send_signal(number)
        assert process.wait(20) == status
    assert not wait_leftover_processes(tag)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signal_during_sandbox_probe_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    bubblewrap = tmp_path / "bin" / "bwrap"
    bubblewrap.parent.mkdir()
    bubblewrap.write_text(
        f"#!/bin/sh\necho started > {tmp_path}/started\nexec /bin/sleep 1000\n", encoding="utf-8"
    )
    bubblewrap.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    tag = f"probe {number} {os.getpid()}"
    environment = {"PATH": str(bubblewrap.parent), "TMPDIR": str(tmp_path / "tmp"), "HOSTILE_TAG": tag}
    command = [
        *BOTHENDS_COMMAND,
        "check",
        "server",
        "--sandbox",
        "--contract",
        "upper-tcp",
        "--",
        sys.executable,
    ]
    with subprocess.Popen(command, env={**os.environ, **environment}) as process:
        deadline = time.monotonic() + 30
        while not (tmp_path / "started").exists():
            assert time.monotonic() < deadline
        process.send_signal(number)
        assert process.wait(20) == 128 + number
    assert not wait_leftover_processes(tag)
    assert not [*(tmp_path / "tmp").iterdir()]


@both_backends
def test_sandboxed_program_exceeding_disk_limit_is_killed(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "fills.py"
    path.write_text(DISK_FILLER.replace("os.environ['TMPDIR']", "sys.argv[1]"), encoding="utf-8")
    options = ("--contract", "upper-unix")
    done = check(path, f"disk {os.getpid()}", backend, *options, argument="{dir}")
    assert "killed by the checker: over the limit of 64 MiB on disk" in done.stdout
    assert not wait_leftover_processes(f"disk {os.getpid()}")


@pytest.mark.slow
@pytest.mark.timeout(240)  # because its startup timeout is longer on a busy machine
@both_backends
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_program_leaves_no_processes(name: str, backend: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.py"
    seconds = f"1000.{os.getpid()}"
    path.write_text(HOSTILE[name].replace("'1000'", f"'{seconds}'"), encoding="utf-8")
    tag = f"{name} {os.getpid()}"
    done = check(path, tag, backend)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAIL" in done.stdout
    assert not wait_leftover_processes(tag)
    commands = [command_of(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    assert b"sleep\0%b\0" % seconds.encode() not in commands


def test_program_output_is_escaped_in_every_report(tmp_path: Path) -> None:
    path = tmp_path / "escapes.py"
    path.write_text(ESCAPE_SEQUENCE_SERVER, encoding="utf-8")
    files = {form: tmp_path / form for form in REPORT_FORMATS}
    options = [word for form, file in files.items() for word in ("--report", f"{form}={file}")]
    done = check(path, f"escapes {os.getpid()}", NAMESPACES, "--report", "text", "--verbose", *options)
    assert done.returncode == 1
    for form, text in {"stdout": done.stdout, **{f: file.read_text() for f, file in files.items()}}.items():
        assert not set(text) & {chr(code) for code in (*range(10), *range(11, 32), 127, 0x9B)}, form
        assert "0;gone" in text, form
        assert "<script" not in text or form not in ("html", "junit"), form
