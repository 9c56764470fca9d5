"""A submission that takes what it can gets no more than the sandbox promises."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.check.test_sandbox import sandbox_unavailable_reason
from tests.hostile.sandbox.confined import Outcome, run, users

pytestmark = pytest.mark.skipif(
    bool(sandbox_unavailable_reason()), reason=f"no sandbox here: {sandbox_unavailable_reason()}"
)
MEMORY_LIMIT = 256 << 20  # bytes, see confined.py
DISK_LIMIT = 32 << 20
FILES_LIMIT = 2000

# Memory that belongs to no process, because it is not mapped.
MEMFD_HOG = """
import os
files = []
for number in range(48):
    files.append(os.memfd_create("hog"))
    for _ in range(16):
        os.write(files[-1], bytes(1 << 20))
    print(number, flush=True)
"""
SEGMENT_HOG = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
for number in range(48):
    segment = libc.shmget(0, ctypes.c_size_t(16 << 20), 0o1600)
    if segment < 0:
        raise SystemExit(ctypes.get_errno())
    address = libc.shmat(segment, None, 0)
    ctypes.memset(address, 1, 16 << 20)
    libc.shmdt(ctypes.c_void_p(address))
    print(number, flush=True)
"""
# Shared pages that are in no page table any more: discarded, or written by a child that has exited.
DISCARDED_HOG = """
import mmap, os
parts = []
for number in range(48):
    parts.append(mmap.mmap(-1, 16 << 20))
    if number % 2 == 0:
        parts[-1].write(bytes(b"x") * (16 << 20))
        parts[-1].madvise(mmap.MADV_DONTNEED)
    elif os.fork() == 0:
        parts[-1].write(bytes(b"x") * (16 << 20))
        os._exit(0)
    else:
        os.wait()
    print(number, flush=True)
import signal
signal.pause()
"""
SOCKET_HOG = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
sockets = []
total = 0
while total < 768 << 20:
    if KIND == "unix":
        pair = socket.socketpair()
    else:
        pair = socket.create_connection(listener.getsockname()), listener.accept()[0]
    sockets += pair
    for sock in pair:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        sock.setblocking(False)
        try:
            while True:
                total += sock.send(bytes(1 << 16))
        except BlockingIOError:
            pass
import signal
signal.pause()
"""
MESSAGES_HOG = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print(*(ctypes.get_errno() if call() < 0 else 0 for call in (
    lambda: libc.msgget(0, 0o1600), lambda: libc.semget(0, 1, 0o1600))))
"""
MAPPED_HOG = """
import mmap, time
parts = []
while True:
    parts.append(mmap.mmap(-1, 16 << 20))
    parts[-1].write(bytes(b"x") * (16 << 20))
    time.sleep(0.01)
"""
# Files that are open and have no name any more, in every folder that can be written.
UNLINKED_HOG = """
import os
total = 0
files = []
for folder in (".", "/tmp", "/dev/shm", "/var/tmp", "/", "/run", "/etc", "/dev", "/usr", "/proc"):
    try:
        for number in range(200):
            name = f"{folder}/hog"
            files.append(open(name, "wb", buffering=0))
            os.unlink(name)
            for _ in range(8):
                total += files[-1].write(bytes(1 << 20))
    except OSError:
        pass
print(total)
"""
EMPTY_FILES = """
import os
count = 0
for folder in (".", "/tmp", "/dev/shm"):
    try:
        for number in range(20_500):
            open(f"{folder}/empty{number}", "w").close()
            count += 1
    except OSError:
        pass
try:
    with open("large", "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))
except OSError:
    pass
print(count)
"""
LINKS = """
import os
open("large", "wb").write(bytes(8 << 20))
for number in range(100):
    os.link("large", f"link{number}")
"""
SPARSE = """
for number in range(10):
    with open(f"sparse{number}", "wb") as file:
        file.truncate(30 << 20)
        file.write(b"x")
"""
DEEP = """
import os
for _ in range(1500):
    os.mkdir("d")
    os.chdir("d")
"""
SLOW_BURN = """
import os
while True:
    child = os.fork()
    if child == 0:
        for _ in range(2_000_000):
            pass
        os._exit(0)
    os.waitpid(child, 0)
"""
FORK_BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""


def is_killed_for_memory(outcome: Outcome) -> bool:
    return outcome.kill_reason == f"over the limit of {MEMORY_LIMIT >> 20} MiB of memory"


@pytest.mark.parametrize("user", users())
@pytest.mark.parametrize("program", [MEMFD_HOG, SEGMENT_HOG], ids=["memfd", "shmget"])
def test_unmapped_memory_is_counted_or_refused(program: str, user: str, tmp_path: Path) -> None:
    outcome = run(program, tmp_path / "own", user)
    if outcome.counted:
        assert is_killed_for_memory(outcome), outcome
        assert len(outcome.stdout.split()) * (16 << 20) <= MEMORY_LIMIT
    else:
        assert outcome.stdout == "", outcome
        assert outcome.status != 0


@pytest.mark.slow
@pytest.mark.parametrize("user", users())
@pytest.mark.parametrize(
    "program",
    [DISCARDED_HOG, SOCKET_HOG.replace("KIND", "'unix'"), SOCKET_HOG.replace("KIND", "'tcp'")],
    ids=["discarded", "unix", "tcp"],
)
def test_memory_of_the_kernel_is_bounded(program: str, user: str, tmp_path: Path) -> None:
    outcome = run(program, tmp_path / "own", user)
    assert is_killed_for_memory(outcome), outcome


@pytest.mark.parametrize("user", users())
def test_system_v_ipc_is_counted_or_refused(user: str, tmp_path: Path) -> None:
    outcome = run(MESSAGES_HOG, tmp_path / "own", user)
    assert outcome.stdout.split() == (["0", "0"] if outcome.counted else [str(errno.ENOSYS)] * 2), outcome


@pytest.mark.parametrize("user", users())
def test_mapped_memory_is_bounded(user: str, tmp_path: Path) -> None:
    assert is_killed_for_memory(run(MAPPED_HOG, tmp_path / "own", user))


@pytest.mark.parametrize("user", users())
@pytest.mark.parametrize("build", [False, True], ids=["run", "build"])
def test_unlinked_files_count(build: bool, user: str, tmp_path: Path) -> None:
    outcome = run(UNLINKED_HOG, tmp_path / "own", user, build=build)
    assert outcome.status == 0, outcome
    assert (16 << 20) < int(outcome.stdout) <= DISK_LIMIT


@pytest.mark.parametrize("user", users())
def test_many_empty_files_do_not_hide_large_ones(user: str, tmp_path: Path) -> None:
    outcome = run(EMPTY_FILES, tmp_path / "own", user, build=True)
    assert outcome.stdout, outcome
    assert int(outcome.stdout) <= FILES_LIMIT
    assert sum(path.stat().st_size for path in (tmp_path / "own").rglob("*")) <= DISK_LIMIT
    assert len([*(tmp_path / "own").iterdir()]) <= FILES_LIMIT


def test_links_of_a_build_are_bounded_when_copied(tmp_path: Path) -> None:
    outcome = run(LINKS, tmp_path / "own", build=True)
    assert outcome.status == 125
    assert "sandbox: copy the built files: too many files, or files too large" in outcome.stderr


def test_sparse_files_of_a_build_stay_sparse(tmp_path: Path) -> None:
    outcome = run(SPARSE, tmp_path / "own", build=True)
    assert outcome.status == 0, outcome
    found = [path.stat() for path in (tmp_path / "own").glob("sparse*")]
    assert [each.st_size for each in found] == [30 << 20] * 10
    assert sum(each.st_blocks * 512 for each in found) < 1 << 20


def test_deep_folders_of_a_build_are_refused(tmp_path: Path) -> None:
    outcome = run(DEEP, tmp_path / "own", build=True)
    assert outcome.status == 125
    assert "sandbox: copy the built files: more than 64 folders below each other" in outcome.stderr


def test_build_leaves_its_files_to_this_user(tmp_path: Path) -> None:
    program = "import os\nos.mkdir('bin')\nopen('bin/tool', 'w').write('x')\nos.chmod('bin/tool', 0o4755)\n"
    program += "os.symlink('/etc/shadow', 'link')\nos.mkfifo('fifo')\nos.unlink('old')\n"
    own = tmp_path / "own"
    own.mkdir()
    (own / "old").write_text("", encoding="utf-8")
    outcome = run(program, own, build=True)
    assert outcome.status == 0, outcome
    assert (own / "bin" / "tool").stat().st_mode & 0o7777 == 0o755
    assert (own / "bin" / "tool").stat().st_uid == own.stat().st_uid
    assert sorted(path.name for path in own.iterdir()) == ["bin", "hostile.py", "link"]


@pytest.mark.slow
@pytest.mark.parametrize("user", users())
def test_processor_time_of_short_lived_children_counts(user: str, tmp_path: Path) -> None:
    outcome = run(SLOW_BURN, tmp_path / "own", user)
    assert outcome.kill_reason == "over the limit of 5 s of CPU time", outcome


@pytest.mark.parametrize("user", users())
def test_fork_bomb_is_killed(user: str, tmp_path: Path) -> None:
    outcome = run(FORK_BOMB, tmp_path / "own", user)
    assert outcome.kill_reason, outcome
