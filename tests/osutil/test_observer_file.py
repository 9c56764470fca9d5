"""What an observer's file says about itself at a limit of its size."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.osutil.observer_file import COLLECTED_BYTES, ObserverFile, divide_lines

SCRIPT = """
import os, resource, sys
from bothends.osutil.observer_file import ObserverFile

def note(count, reason):
    return f"{count} lines are missing: {reason}\\n"

descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600)
file = ObserverFile(descriptor, "log", missing_line=note)
assert file.write("a" * 300 + "\\n")
# Room for the line that reports five missing ones and a short one; none for another report.
size = 301 + len(note(5, "EFBIG (File too large)")) + len("c\\n") + 10
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
for _ in range(5):
    assert not file.write("b" * 300 + "\\n")
assert file.write("c\\n")
for _ in range(3):
    assert not file.write("d" * 20 + "\\n")
print(file.close().hint)
"""


def test_reported_lines_stay_reported_when_room_is_made_for_the_last_report(tmp_path: Path) -> None:
    """The last lines make room for the last report. One of them may report others, which are missing, too."""
    path = tmp_path / "log"
    done = subprocess.run([sys.executable, "-c", SCRIPT, path], capture_output=True, text=True, check=True)
    assert done.stdout == "9 records are missing\n"
    assert path.read_text(encoding="utf-8") == "a" * 300 + "\n9 lines are missing: EFBIG (File too large)\n"


FULL = """
import os, resource, sys
from bothends.osutil.observer_file import ObserverFile

descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600)
file = ObserverFile(descriptor, "log", missing_line=lambda count, _reason: f"{count} missing\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))
assert not file.write("".join(f"line {number}\\n" for number in range(10)))
print(file.close().hint)
"""


def test_lines_that_fit_into_a_full_file_are_written(tmp_path: Path) -> None:
    path = tmp_path / "log"
    done = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True, check=True)
    # Eight lines fit; two of them give way to the line with the number.
    assert (
        path.read_text(encoding="utf-8") == "".join(f"line {number}\n" for number in range(6)) + "4 missing\n"
    )
    assert done.stdout == "4 records are missing\n"


TWO = """
import os, resource, sys
from bothends.osutil.observer_file import ObserverFile

descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600)
file = ObserverFile(descriptor, "log", missing_line=lambda count, _reason: f"{count} missing\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
assert not file.write("short\\n" + "x" * 50 + "\\n")
file.close()
"""


def test_first_of_two_lines_is_written_if_only_it_fits(tmp_path: Path) -> None:
    path = tmp_path / "log"
    subprocess.run([sys.executable, "-c", TWO, path], check=True)
    assert path.read_text(encoding="utf-8") == "short\n1 missing\n"


def test_lines_for_a_reader_are_written_in_parts_that_the_kernel_does_not_mix() -> None:
    writer, reader = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lines = "".join(f"line {number}\n" for number in range(2000))
    with writer, reader:
        file = ObserverFile(os.dup(writer.fileno()), "log", missing_line=lambda *_: "")
        assert file.write(lines)
        assert file.close() is None
        writer.close()
        parts = list(iter(lambda: reader.recv(1 << 20), b""))
    assert b"".join(parts).decode() == lines
    assert all(len(part) <= select.PIPE_BUF and part.endswith(b"\n") for part in parts)


@given(st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"") + b"\n")), st.integers(1, 30))
def test_lines_are_divided_between_lines(lines: list[bytes], size: int) -> None:
    parts = divide_lines(b"".join(lines), size)
    assert b"".join(parts) == b"".join(lines)
    assert all(part.endswith(b"\n") for part in parts)
    assert all(len(part) <= size or part.count(b"\n") == 1 for part in parts)
    # None has room for the first line of the next one.
    following = [part[: part.index(b"\n") + 1] for part in parts[1:]]
    assert all(len(part) + len(line) > size for part, line in zip(parts, following, strict=False))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[tuple[ObserverFile, Path]]:
    path = tmp_path / "log"
    file = ObserverFile(os.open(path, os.O_WRONLY | os.O_CREAT), "log", missing_line=lambda *_: "missing\n")
    yield file, path
    file.close()


def test_lines_are_collected_until_they_are_written_together(log: tuple[ObserverFile, Path]) -> None:
    file, path = log
    calls: list[str] = []
    file.collect(lambda: calls.append(path.read_text(encoding="utf-8")))
    for number in range(3):
        assert file.write(f"line {number}\n")
    assert (calls, path.read_text(encoding="utf-8")) == ([""], "")
    file.write_collected()
    assert path.read_text(encoding="utf-8") == "line 0\nline 1\nline 2\n"
    file.write("more\n")
    assert calls == ["", "line 0\nline 1\nline 2\n"]
    file.stop_collecting()
    file.write("at once\n")
    assert path.read_text(encoding="utf-8").endswith("line 2\nmore\nat once\n")


def test_collected_lines_are_bounded(log: tuple[ObserverFile, Path]) -> None:
    file, path = log
    file.collect()
    for _ in range(COLLECTED_BYTES // 100):
        file.write("x" * 99 + "\n")
    assert path.stat().st_size == 0
    file.write("x" * 99 + "\n")
    assert path.stat().st_size > COLLECTED_BYTES


def test_line_of_another_thread_is_written_at_once_after_the_collected_ones(
    log: tuple[ObserverFile, Path],
) -> None:
    file, path = log
    file.collect()
    file.write("first\n")
    thread = threading.Thread(target=file.write, args=["second\n"])
    thread.start()
    thread.join()
    assert path.read_text(encoding="utf-8") == "first\nsecond\n"


def test_forked_child_neither_collects_nor_writes_what_its_parent_has(log: tuple[ObserverFile, Path]) -> None:
    file, path = log
    file.collect()
    file.write("of the parent\n")
    child = os.fork()
    if child == 0:
        file.write("of the child\n")
        os._exit(0)
    os.waitpid(child, 0)
    assert path.read_text(encoding="utf-8") == "of the child\n"
    file.close()
    assert path.read_text(encoding="utf-8") == "of the child\nof the parent\n"


def test_terminal_gets_each_line_at_once() -> None:
    terminal, end = os.openpty()
    file = ObserverFile(end, "terminal", missing_line=lambda *_: "missing\n")
    file.collect()
    file.write("line\n")
    assert os.read(terminal, 100) == b"line\r\n"
    file.close()
    os.close(terminal)


def test_a_file_is_restarted_after_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "file"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    file = ObserverFile(
        descriptor, "file", missing_line=lambda *_: b"?", first_line="first\n", is_binary=True
    )
    assert file.write(b"a" * 1000, records=1)
    file.restart(len("first\n"))
    assert file.write(b"b", records=1)
    assert file.close() is None
    assert path.read_bytes() == b"first\nb"
