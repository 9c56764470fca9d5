"""How findings refer to programs: by what their command line begins with."""

from __future__ import annotations

import pytest

from bothends.trace.findings.base import TraceIndex
from bothends.trace.findings.endpoints import INTERPRETERS, runs
from bothends.trace.model import Trace, TracedProcess


def index_of(command: str) -> TraceIndex:
    trace = Trace()
    trace.processes[1] = TracedProcess(1, 100, "server", command)
    return TraceIndex(trace)


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ('["python3", "server.py"]', "python"),
        ('["/opt/my app/bin/python3.11", "-X", "dev", "server.py"]', "python"),
        ("/usr/bin/python3 server.py", "python"),
        ('["node", "server.js"]', "node"),
        ('["/usr/lib/jvm/bin/java", "-cp", ".", "Server"]', "java"),
        ("java", "java"),
    ],
)
def test_program_is_known_by_its_name_without_path_and_version(command: str, program: str) -> None:
    index = index_of(command)
    assert runs(index, 1, program)
    assert runs(index, 1, *INTERPRETERS)
    assert not runs(index, 1, *{"python", "node", "java"} - {program})


@pytest.mark.parametrize("command", ["", '["./server", "python3"]', '["/home/node/server"]', "./nodes 8000"])
def test_other_programs_are_compiled(command: str) -> None:
    assert not runs(index_of(command), 1, *INTERPRETERS)
