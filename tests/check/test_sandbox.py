"""Hostile programs in the sandbox: each is judged in time, and leaves no processes."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bothends.check.sandbox.launcher import SandboxLimits
from bothends.check.sandbox.monitor import ResourceMonitor
from bothends.cli.check.options import REPORT_FORMATS
from tests.check.helpers import BOTHENDS_COMMAND

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
assert refused(lambda: open('/proc/sys/vm/drop_caches', 'wb')), 'the kernel obeys it'
devices = 'fd full null random shm stderr stdin stdout tty urandom zero'
assert not {*os.listdir('/dev')} - {*devices.split()}, 'it has disks'
assert not os.listdir('/run'), 'it reaches services'
server = socket.create_server(('127.0.0.1', int(sys.argv[1])))
while True:
    connection, _ = server.accept()
    with connection:
        for line in connection.makefile('rb'):
            connection.sendall(line.upper())
"""


def check(path: Path, *options: str, argument: str = "{port}") -> subprocess.CompletedProcess[str]:
    """Judge a program in the sandbox. The program's processes are those whose command names `path`."""
    done = subprocess.run(
        [*BOTHENDS_COMMAND, "check", "server", "--sandbox", "--contract", "upper-tcp",
         "--only", "tcp-one-message", *options, "--", "python3", str(path), argument],
        capture_output=True, text=True, timeout=200, check=False, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert "confined in namespaces" in done.stdout, done.stdout + done.stderr
    return done


def leftover_processes(path: Path) -> list[str]:
    """Return the process ids of running processes whose command or working directory names a path."""
    found = [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [
        pid for pid in found if pid != str(os.getpid()) and str(path) in f"{command_of(pid)!r} {cwd_of(pid)}"
    ]


def wait_leftover_processes(path: Path) -> list[str]:
    """As `leftover_processes`, after up to 10 s for the kernel to kill a process namespace."""
    deadline = time.monotonic() + 10
    while (found := leftover_processes(path)) and time.monotonic() < deadline:
        pass
    return found


def command_of(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def cwd_of(pid: str) -> str:
    try:
        return str(Path(f"/proc/{pid}/cwd").readlink())
    except OSError:
        return ""


@functools.cache
def sandbox_unavailable_reason() -> str:
    code = "from bothends.check.sandbox.launcher import enter; enter()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


pytestmark = pytest.mark.skipif(
    bool(sandbox_unavailable_reason()), reason=f"no sandbox here: {sandbox_unavailable_reason()}"
)


def test_sandboxed_server_passes_and_is_confined(tmp_path: Path) -> None:
    path = tmp_path / "server.py"
    path.write_text(
        CONFINEMENT_PROBE.replace("{folder}", str(tmp_path)).replace("{pid}", str(os.getpid())),
        encoding="utf-8",
    )
    done = check(path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "intruder").exists()
    assert not wait_leftover_processes(path)


@pytest.mark.spread("number", "status", "options", one_in=4)
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
        "python3",
        str(path),
    ]
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 30
        while not any(command_of(pid).count(b"\0") == 2 for pid in leftover_processes(path)):
            assert time.monotonic() < deadline
        process.send_signal(number)
        assert process.wait(20) == status
    assert not wait_leftover_processes(path)


@pytest.mark.slow
def test_sandboxed_unix_server_cannot_fill_the_disk(tmp_path: Path) -> None:
    """The folder of its socket, which the checker sees as well, is a small file system in memory."""
    path = tmp_path / "fills.py"
    path.write_text(
        "import os, sys, time\n"
        "with open(f'{sys.argv[1]}/large', 'wb', buffering=0) as file:\n"
        "    try:\n"
        "        while True:\n"
        "            file.write(bytes(1 << 20))\n"
        "    except OSError as error:\n"
        "        print(error, file.tell() >> 20, 'MiB', file=sys.stderr)\n"
        "sys.exit(1)\n",
        encoding="utf-8",
    )
    done = check(path, "--contract", "upper-unix", argument="{dir}")
    assert "No space left on device" in done.stdout
    assert "8 MiB" in done.stdout
    assert not wait_leftover_processes(path)


@pytest.mark.slow
@pytest.mark.timeout(240)  # because its startup timeout is longer on a busy machine
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_program_leaves_no_processes(name: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.py"
    seconds = f"1000.{os.getpid()}"
    path.write_text(HOSTILE[name].replace("'1000'", f"'{seconds}'"), encoding="utf-8")
    done = check(path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAIL" in done.stdout
    assert not wait_leftover_processes(path)
    commands = [command_of(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    assert b"sleep\0%b\0" % seconds.encode() not in commands


def test_program_output_is_escaped_in_every_report(tmp_path: Path) -> None:
    path = tmp_path / "escapes.py"
    path.write_text(ESCAPE_SEQUENCE_SERVER, encoding="utf-8")
    files = {form: tmp_path / form for form in REPORT_FORMATS}
    options = [word for form, file in files.items() for word in ("--report", f"{form}={file}")]
    done = check(path, "--report", "text", "--verbose", *options)
    assert done.returncode == 1
    for form, text in {"stdout": done.stdout, **{f: file.read_text() for f, file in files.items()}}.items():
        assert not set(text) & {chr(code) for code in (*range(10), *range(11, 32), 127, 0x9B)}, form
        assert "0;gone" in text, form
        assert "<script" not in text or form not in ("html", "junit"), form


def test_memory_is_summed_up_without_a_control_group() -> None:
    async def monitored() -> str:
        exceeded: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        limits = SandboxLimits(memory=1 << 20)
        monitor = ResourceMonitor(limits, lambda: [os.getpid()], exceeded.set_result, None)
        try:
            return await asyncio.wait_for(exceeded, 5)
        finally:
            await monitor.stop()

    assert asyncio.run(monitored()) == "over the limit of 1 MiB of memory"
