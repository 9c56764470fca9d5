"""Run programs in the background: wait for their output, and always kill them at the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 20.0  # seconds: longer than anything here takes, so only a failure waits for it

# Output is compared as bytes, so its encoding must not depend on the environment.
ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1", "NO_COLOR": "1"}


def run(command: Sequence[str], stdin: bytes = b"", *, status: int = 0) -> bytes:
    """Run a program to its end. Returns its standard output; asserts its exit status."""
    done = subprocess.run(
        command, input=stdin, capture_output=True, timeout=TIMEOUT, env=ENVIRONMENT, check=False
    )
    assert done.returncode == status, f"{command} exited with {done.returncode}:\n{done.stderr.decode()}"
    return done.stdout


class Running:
    """A program in the background. The context manager kills it and all its children."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] = ENVIRONMENT,
        pass_fds: Collection[int] = (),
    ) -> None:
        self.command = list(command)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=cwd,
            env=env,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        self.stdout = _OutputCollector(self.process.stdout)
        self.stderr = _OutputCollector(self.process.stderr)

    def line(self, pattern: bytes) -> re.Match[bytes]:
        """Wait for a line of standard output that matches the pattern completely."""
        return self._wait_for(self.stdout, repr(pattern), re.compile(b"^%b\n" % pattern, re.MULTILINE).search)

    def text(self, pattern: bytes) -> re.Match[bytes]:
        """Wait for a match anywhere in standard output."""
        return self._wait_for(self.stdout, repr(pattern), re.compile(pattern).search)

    def error_line(self, pattern: bytes) -> re.Match[bytes]:
        """Wait for a line of standard error that matches the pattern completely."""
        return self._wait_for(self.stderr, repr(pattern), re.compile(b"^%b\n" % pattern, re.MULTILINE).search)

    def nth_error_line(self, pattern: bytes, number: int) -> None:
        """Wait until standard error has `number` lines that match."""
        lines = re.compile(b"^%b\n" % pattern, re.MULTILINE)
        self._wait_for(
            self.stderr,
            f"{pattern!r} {number} times",
            lambda data: True if len(lines.findall(data)) >= number else None,
        )

    def wait_for_output(self, what: str, predicate: Callable[[bytes], T | None]) -> T:
        """Wait until `predicate` of all standard output is not None. Returns its result."""
        return self._wait_for(self.stdout, what, predicate)

    def write_input(self, data: bytes) -> None:
        """Write to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def close_input(self) -> None:
        """Close its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self) -> int:
        """Wait until the program exits. Returns its exit status."""
        return self.process.wait(TIMEOUT)

    def stop(self) -> int:
        """Send SIGTERM and wait. Returns the exit status."""
        self.process.terminate()
        return self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it and its children have exited
            pass
        self.process.wait(TIMEOUT)
        self.close_input()
        self.stdout.close()
        self.stderr.close()

    def _wait_for(self, collected: _OutputCollector, what: str, predicate: Callable[[bytes], T | None]) -> T:
        found = collected.wait(predicate)
        assert found is not None, (
            f"{self.command} never wrote {what}; stdout:\n{self.stdout}\nstderr:\n{self.stderr}"
        )
        return found


class _OutputCollector:
    """All data of a pipe, read by a thread so that the writer never blocks."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        assert pipe is not None
        self._pipe = pipe
        self._data = b""
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def wait(self, predicate: Callable[[bytes], T | None]) -> T | None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or predicate(self._data) is not None, TIMEOUT)
            return predicate(self._data)

    def close(self) -> None:
        self._thread.join(TIMEOUT)
        self._pipe.close()

    def __str__(self) -> str:
        return self._data.decode("utf-8", "backslashreplace")

    def _collect(self) -> None:
        while data := self._pipe.read(65_536):
            with self._changed:
                self._data += data
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
