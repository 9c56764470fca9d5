"""The line that each thread of a Python program is at, from py-spy if it is installed.

`py-spy dump --nonblocking` reads the memory of the process with process_vm_readv(2) and neither stops it nor
attaches to it. Without a pause the stack may change while it is read; a blocked thread's does not.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Final

from bothends.escaping import escape_text

_TIMEOUT: Final = 0.5  # seconds for all processes of a report: each takes about 30 ms
_MAX_PROCESSES: Final = 4  # of one report
_MAX_OUTPUT: Final = 1 << 20  # bytes of one dump: 2,000 threads
_MAX_MAPS: Final = 1 << 18  # bytes of /proc/PID/maps: the libraries of a program
_MAX_TEXT: Final = 100  # characters of a line's description


def find_py_spy() -> str | None:
    """Return the path of py-spy, beside this Python or in PATH; None if it is not installed."""
    return shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")


def read_lines(pids: Iterable[int]) -> dict[int, str]:
    """Return thread id -> `client.py:3 in main()`, escaped, for the Python programs among these processes.

    Takes at most half a second. Processes that are not readable in this time, or to this user, have no lines.
    """
    program = find_py_spy()
    found: dict[int, str] = {}
    if program is None:
        return found
    chosen = [pid for pid in pids if pid > 0 and is_python(pid)][:_MAX_PROCESSES]
    deadline = time.monotonic() + _TIMEOUT
    with contextlib.ExitStack() as stack:
        running = []
        for pid in chosen:
            output = stack.enter_context(tempfile.TemporaryFile())
            command = [program, "dump", "--nonblocking", "--json", "--pid", str(pid)]
            with contextlib.suppress(OSError):
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL
                )
                running.append((stack.enter_context(process), output))
                stack.callback(process.kill)
        for process, output in running:
            found |= _collect(process, output, deadline)
    return found


def _collect(process: subprocess.Popen[bytes], output: IO[bytes], deadline: float) -> dict[int, str]:
    try:
        if process.wait(max(0.0, deadline - time.monotonic())) != 0:
            return {}
        output.seek(0)
        return parse_dump(json.loads(output.read(_MAX_OUTPUT)))
    except (subprocess.TimeoutExpired, OSError, ValueError, RecursionError):  # gone, not permitted, too long
        return {}


def is_python(pid: int) -> bool:
    """Whether a process runs Python: its program, or a library that it has loaded."""
    try:
        if "python" in os.readlink(f"/proc/{pid}/exe").rpartition("/")[2]:  # noqa: PTH115
            return True
        with Path(f"/proc/{pid}/maps").open("rb") as maps:
            return b"/libpython" in maps.read(_MAX_MAPS)
    except OSError:
        return False


def parse_dump(threads: Any) -> dict[int, str]:
    """Return the innermost line of each thread of a py-spy dump, outside of the standard library if possible.

    Raises ValueError if it is not in the format.
    """
    found = {}
    try:
        for thread in threads:
            frames = thread["frames"]
            if not frames or thread["os_thread_id"] is None:
                continue
            own = [frame for frame in frames if not _is_library(frame["filename"])]
            frame = (own or frames)[0]
            name = Path(frame["filename"]).name
            where = "" if frame["name"] == "<module>" else f" in {frame['name']}()"
            text = f"{name}:{int(frame['line'])}{where}"
            found[int(thread["os_thread_id"])] = escape_text(text[:_MAX_TEXT])
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"py-spy's dump has another format: {error!r}") from error
    return found


def _is_library(filename: str) -> bool:
    """Whether a file belongs to the standard library or an installed package, not to the program."""
    return "/lib/python" in filename or "/site-packages/" in filename or filename.startswith("<frozen")
