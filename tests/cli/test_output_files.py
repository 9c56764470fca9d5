"""Notes beside the files of observers."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bothends.cli.output_files import output_files


def test_note_with_text_of_others_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """Bug: a line feed in the name of a proxy begins a line of its own, which looks like another note."""
    with output_files() as files:
        files.notify("proxy a\nbothends: \x1b[2Jforged")
    assert capfd.readouterr().err == "proxy a\\nbothends: \\x1b[2Jforged\n"


STOPPED = """
import os, sys
from bothends.cli.output_files import output_files
from bothends.errors import SystemCallFailed
from bothends.osutil import observer_file

observer_file.CLOSE_TIMEOUT = 0.01
try:
    with output_files() as files:
        files.stream(sys.stderr)
        for _ in range(2):  # only one has room in the pipe, and after it a short line
            files.stream(sys.stdout).write("x" * 3000 + "\\n")
except SystemCallFailed:
    with open(sys.argv[1], "w") as found:
        found.write(os.readlink("/proc/self/fd/2"))
"""


def test_errors_are_not_printed_for_a_stopped_reader_of_both_streams(tmp_path: Path) -> None:
    """Bug: the last error waited for the reader of standard output, which was standard error, too."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    found = tmp_path / "found"
    subprocess.run([sys.executable, "-c", STOPPED, found], stdout=writer, stderr=writer, check=True)
    os.close(reader)
    os.close(writer)
    assert found.read_text(encoding="utf-8") == "/dev/null"
