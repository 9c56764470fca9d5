"""Lines of Python programs: a recorded dump of py-spy, and the tool itself where it is installed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from bothends.why.python_lines import parse_dump
from tests.tools import needs_tool
from tests.why.programs import Programs, find


def frame(filename: str, name: str, line: int) -> dict[str, Any]:
    return {"name": name, "filename": filename, "line": line}


def test_parse_dump_takes_the_innermost_line_of_the_program() -> None:
    library = frame("/usr/lib/python3.11/socket.py", "readinto", 706)
    own = [frame("/srv/client.py", "fetch", 12), frame("/srv/client.py", "<module>", 20)]
    threads = [
        {"os_thread_id": 412, "frames": [library, *own]},
        {"os_thread_id": 413, "frames": [frame("/srv/\x1b.py", "<module>", 3)]},
        {"os_thread_id": 414, "frames": []},
        {"os_thread_id": None, "frames": own},
    ]
    assert parse_dump(threads) == {412: "client.py:12 in fetch()", 413: "\\x1b.py:3"}


@pytest.mark.parametrize("dump", [5, [5], [{"frames": [{}], "os_thread_id": 1}]])
def test_parse_dump_refuses_other_formats(dump: Any) -> None:
    with pytest.raises(ValueError, match="another format"):
        parse_dump(dump)


@pytest.mark.slow
@needs_tool("py-spy")
def test_deadlock_shows_lines(programs: Programs) -> None:
    server, client, _ = programs.pair(
        "connection, _ = listener.accept()\nconnection.recv(1)\n", "connection.recv(1)\n"
    )
    find("deadlock", server)
    command = [sys.executable, "-m", "bothends", "why", str(client)]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "at client.py:4" in completed.stdout
    assert "at server.py:5" in completed.stdout
