"""Run the programs of a folder under a trace: the corpus in `tests/trace/faults` and `tests/trace/healthy`.

`tests/trace/faults/README.md` describes the folders.
"""

from __future__ import annotations

import contextlib
import os
import pty
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from bothends.trace.capture.packets import Capture
from bothends.trace.capture.tracees import TracedProgram
from bothends.trace.findings import Finding, evidence_lines, run_rules
from bothends.trace.model import Point, Trace
from bothends.trace.session import TraceSession
from tests.tools import TOOLS, find_tool
from tests.trace.running import PYTHON, has_packets
from tests.trace.sources import open_call_source

CORPUS: Final = Path(__file__).parent
PORTS: Final = 3  # ports given to each program
JAVA: Final = ("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
SERVERS: Final = ("server", "server2", "server3")
CLIENTS: Final = ("cmd", "chat", "client", "client2", "client3")


@dataclass(frozen=True)
class CorpusCase:
    """A folder of the corpus and its `expect.toml`."""

    folder: Path
    rule: str = ""
    text: str = ""  # a part of the title or the text of the first finding
    also: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    runs_until: str = "exit"
    quiet: float = 2.5  # seconds without an event after which a run that hangs is ended
    limit: float = 12.0  # seconds after which such a run is ended even if there are events
    quick: bool = False
    why: str = ""
    commands: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)


def load_cases(kind: str) -> list[Any]:
    """Return the folders of "faults" or "healthy" as parameters; those that are not quick are marked slow."""
    cases = []
    for path in sorted((CORPUS / kind).iterdir()):
        if not path.is_dir() or path.name.startswith(("_", ".")):
            continue
        expect = path / "expect.toml"
        values = tomllib.loads(expect.read_text()) if expect.exists() else {}
        for name in ("also", "needs"):
            values[name] = tuple(values.get(name, ()))
        case = CorpusCase(path, **values)
        marks = () if case.quick else (pytest.mark.slow,)
        cases.append(pytest.param(case, id=path.name, marks=marks))
    return cases


def run_case(
    case: CorpusCase,
    directory: Path,
    wrap: Callable[[str, list[str]], list[str]] = lambda _, command: command,
) -> Trace:
    """Build a copy of the programs in `directory`, and trace them until they exit or hang.

    `wrap` returns the command that runs the program of a role.
    """
    _skip_without(case)
    shutil.copytree(case.folder, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    ports = [str(each) for each in _free_ports(PORTS)]
    names = {"port": ports[0], "port2": ports[1], "port3": ports[2], "python": sys.executable}
    for path in directory.glob("*.conf"):
        path.write_text(_fill_in(path.read_text(), names))
    points: list[Point] = []
    moved = [time.monotonic()]

    def on_point(point: Point) -> None:
        points.append(point)
        moved[0] = time.monotonic()

    with open_call_source() as source:
        session = TraceSession(on_point, bpf=source)
        programs = []
        for role in SERVERS:
            command = _command(case, role, directory, ports, names)
            if command:
                programs.append(session.add_server(role, wrap(role, command)))
        first_port = "{port}" if programs else ports[0]
        for role in CLIENTS:
            command = _command(case, role, directory, [first_port, *ports[1:]], names)
            if command:
                programs.append(
                    session.add_client(role, wrap(role, command), inherit_stdin=not _has_client(session))
                )
        assert programs, f"{case.folder} has no program"
        session.capture = Capture() if has_packets() else None
        finished = threading.Event()
        watcher = threading.Thread(target=_end_when_quiet, args=(session, programs, case, moved, finished))
        with contextlib.chdir(directory), _keyboard(directory / "keyboard.txt"):
            moved[0] = time.monotonic()  # the compilers have run
            watcher.start()
            try:
                session.run()
            finally:
                finished.set()
                watcher.join()
    assert not session.unparsed_lines
    if case.runs_until == "exit":
        assert session.stopped_by is None, f"it did not exit within {case.limit} s"
    return session.trace


def describe(findings: list[Finding], trace: Trace) -> str:
    """Return the findings as text, for the message of a failed test."""
    lines = []
    for finding in findings:
        lines += ["", f"{finding.rule}: {finding.title}", f"  {finding.text}"]
        lines += [f"    {line}" for line in evidence_lines(finding, trace)]
        lines += [f"  then {each.rule}: {each.text}" for each in getattr(finding, "consequences", ())]
    return "\n".join(lines) or "no finding"


def find_all(trace: Trace) -> list[Finding]:
    """Return the findings of a trace, the most likely cause first."""
    return run_rules(trace)


def _skip_without(case: CorpusCase) -> None:
    suffixes = {path.suffix for path in case.folder.iterdir()}
    by_suffix = {".c": "cc", ".java": "javac", ".js": "node", ".sh": "sh"}
    for need in ("strace", *case.needs, *(by_suffix[each] for each in sorted(suffixes & by_suffix.keys()))):
        if need == "packets":
            there = has_packets()
        elif need == "root":
            there = os.geteuid() == 0
        else:
            there = (find_tool(need) if need in TOOLS else shutil.which(need)) is not None
        if not there:
            pytest.skip(f"{need} is not installed" if need not in ("packets", "root") else f"it needs {need}")


def _free_ports(count: int) -> list[int]:
    """Return ports below the ephemeral range that nothing uses, for TCP and UDP."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(10_000, 30_000)
        with contextlib.suppress(OSError):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET6, kind) as probe:
                    probe.bind(("::", port))
            found.append(port)
    return found


def _fill_in(text: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text = text.replace("{" + name + "}", value)
    return text


def _command(
    case: CorpusCase, role: str, directory: Path, ports: list[str], names: dict[str, str]
) -> list[str] | None:
    """Return the command of a program, or None if the folder has no such program. Builds C and Java."""
    if role in case.commands:
        return shlex.split(_fill_in(case.commands[role], names | {"port": ports[0]}))
    if role in case.arguments:
        ports = shlex.split(_fill_in(case.arguments[role], names | {"port": ports[0]}))
    found = [path for path in directory.iterdir() if path.suffix and path.stem.lower() == role]
    for path in found:
        match path.suffix:
            case ".py":
                return [*PYTHON, str(path), *ports]
            case ".js":
                return ["node", str(path), *ports]
            case ".sh":
                return ["sh", str(path), *ports]
            case ".c":
                binary = path.with_suffix("")
                _build(["cc", "-O1", "-w", "-pthread", "-o", str(binary), str(path)])
                return [str(binary), *ports]
            case ".java":
                _build(["javac", "-nowarn", "-d", str(directory), str(path)])
                return [*JAVA, "-cp", str(directory), path.stem, *ports]
    return None


def _build(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _has_client(session: TraceSession) -> bool:
    return any(role in CLIENTS for role in session.roles)


@contextlib.contextmanager
def _keyboard(path: Path) -> Iterator[None]:
    """Make standard input a terminal on which the lines of a file are typed; without the file, /dev/null."""
    original = os.dup(0)
    with contextlib.ExitStack() as stack:
        if path.exists():
            master, slave = pty.openpty()
            stack.callback(os.close, master)
            _disable_echo(slave)
            os.write(master, path.read_bytes())
        else:
            slave = os.open(os.devnull, os.O_RDONLY)
        os.dup2(slave, 0)
        os.close(slave)
        stack.callback(os.close, original)
        stack.callback(os.dup2, original, 0)
        yield


def _disable_echo(descriptor: int) -> None:
    import termios

    attributes = termios.tcgetattr(descriptor)
    attributes[tty.LFLAG] &= ~termios.ECHO
    termios.tcsetattr(descriptor, termios.TCSANOW, attributes)


def _end_when_quiet(
    session: TraceSession,
    programs: list[TracedProgram],
    case: CorpusCase,
    moved: list[float],
    finished: threading.Event,
) -> None:
    """End a run as ^C in a terminal does, when no event has come for a while or the time is over."""
    began = time.monotonic()
    hangs = case.runs_until == "hang"
    limit = case.limit if hangs else max(case.limit, 30.0)
    while not finished.wait(0.05):
        now = time.monotonic()
        if now - began > limit or (hangs and now - moved[0] > case.quiet):
            session.stop(signal.SIGINT)
            for each in programs:
                each.signal(signal.SIGINT)
            return
