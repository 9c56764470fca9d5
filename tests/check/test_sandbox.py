"""Hostile programs in the sandbox: each is judged in time, and nothing of it is left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.check.judging import OURS

# What each does before, or in place of, serving; {folder} is one that exists and that it may not write to.
HOSTILE = {
    "fork bomb": "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n",
    "memory": "kept = []\nwhile True:\n    kept.append(bytearray(b'x') * (32 << 20))\n",
    "endless printer": "import sys\nwhile True:\n    sys.stdout.write('spam ' * 10000)\n",
    "kills its parent": "import os\nos.kill(os.getppid(), 9)\nos.kill(-1, 9)\n",
    "ignores SIGTERM": "import signal, time\nsignal.signal(15, signal.SIG_IGN)\ntime.sleep(1000)\n",
    "leaves its session": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)\n",
}
GOOD = """
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
server = socket.create_server(('127.0.0.1', int(sys.argv[1])))
while True:
    connection, _ = server.accept()
    with connection:
        for line in connection.makefile('rb'):
            connection.sendall(line.upper())
"""


def check(path: Path, mark: str) -> subprocess.CompletedProcess[str]:
    """Judge a program in the sandbox; `mark` is in the environment of all that is started."""
    return subprocess.run(
        [*OURS, "check", "server", "--sandbox", "--contract", "upper-tcp", "--only", "tcp-one-message",
         "--", sys.executable, str(path), "{port}"],
        capture_output=True, text=True, timeout=50, check=False,
        env={**os.environ, "HOSTILE_MARK": mark, "NO_COLOR": "1"},
    )  # fmt: skip


def left(mark: str) -> list[str]:
    """What still runs of those that were started with the mark."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"HOSTILE_MARK={mark}".encode() in (entry / "environ").read_bytes():
                found.append(entry.name)
        except OSError:
            continue
    return found


def left_in_time(mark: str) -> list[str]:
    """As `left`, but the kernel is given a moment to end a whole namespace of processes."""
    deadline = time.monotonic() + 10
    while (found := left(mark)) and time.monotonic() < deadline:
        pass
    return found


def command_of(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def unavailable() -> str:
    code = "from bothends.check.sandbox import enter; enter()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


pytestmark = pytest.mark.skipif(bool(unavailable()), reason=f"no sandbox here: {unavailable()}")


def test_a_confined_server_is_judged_and_can_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "server.py"
    path.write_text(
        GOOD.replace("{folder}", str(tmp_path)).replace("{pid}", str(os.getpid())), encoding="utf-8"
    )
    mark = f"good {os.getpid()}"
    done = check(path, mark)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "namespaces of its own" in done.stdout
    assert not (tmp_path / "intruder").exists()
    assert not left_in_time(mark)


@pytest.mark.parametrize("options", [[], ["--sandbox"]])
def test_sigterm_ends_the_check_and_all_that_it_started(options: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mute.py"
    path.write_text("import time\nprint('here', flush=True)\ntime.sleep(1000)\n", encoding="utf-8")
    command = [*OURS, "check", "server", *options, "--contract", "upper-tcp", "--", sys.executable, str(path)]
    mark = f"told {options} {os.getpid()}"
    with subprocess.Popen(command, env={**os.environ, "HOSTILE_MARK": mark}) as process:
        deadline = time.monotonic() + 30
        while not any(str(path).encode() in command_of(pid) for pid in left(mark) if pid != str(process.pid)):
            assert time.monotonic() < deadline
        process.terminate()
        assert process.wait(20) == 130
    assert not left_in_time(mark)


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_ends_in_time_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.py"
    path.write_text(HOSTILE[name], encoding="utf-8")
    mark = f"{name} {os.getpid()}"
    done = check(path, mark)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAIL" in done.stdout
    assert not left_in_time(mark)
