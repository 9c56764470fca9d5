"""What an observer's file says about itself at a limit of its size."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bothends.osutil.observer_file import ObserverFile, divide_lines

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
