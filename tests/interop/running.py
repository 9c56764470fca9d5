"""Programs that run in the background: started, watched for what they say, and always ended."""

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
TIMEOUT = 20.0  # seconds: longer than anything here may take; only what is broken waits for it

# What is compared are bytes, so no program may choose its encoding by where it runs.
ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1", "NO_COLOR": "1"}


def run(command: Sequence[str], stdin: bytes = b"", *, status: int = 0) -> bytes:
    """Run a program to its end; what it showed. `said` is its standard input, `status` how it must leave."""
    done = subprocess.run(
        command, input=stdin, capture_output=True, timeout=TIMEOUT, env=ENVIRONMENT, check=False
    )
    assert done.returncode == status, f"{command} left with {done.returncode}:\n{done.stderr.decode()}"
    return done.stdout


class Running:
    """A program that runs until it is told otherwise. Use it as a context: it and all its children end."""

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
        """Wait for a line of standard output that is this and nothing else."""
        return self._wait_for(self.stdout, repr(pattern), re.compile(b"^%b\n" % pattern, re.MULTILINE).search)

    def text(self, pattern: bytes) -> re.Match[bytes]:
        """Wait for this anywhere in standard output."""
        return self._wait_for(self.stdout, repr(pattern), re.compile(pattern).search)

    def error_line(self, pattern: bytes) -> re.Match[bytes]:
        """Wait for a line of standard error that is this and nothing else."""
        return self._wait_for(self.stderr, repr(pattern), re.compile(b"^%b\n" % pattern, re.MULTILINE).search)

    def nth_error_line(self, pattern: bytes, number: int) -> None:
        """Wait until standard error has this line so many times."""
        lines = re.compile(b"^%b\n" % pattern, re.MULTILINE)
        self._wait_for(
            self.stderr,
            f"{pattern!r} {number} times",
            lambda data: True if len(lines.findall(data)) >= number else None,
        )

    def wait_for_output(self, what: str, predicate: Callable[[bytes], T | None]) -> T:
        """Wait until `look` finds something in all of standard output, and give it."""
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
        """Wait until it ends of its own accord; what it leaves with."""
        return self.process.wait(TIMEOUT)

    def stop(self) -> int:
        """Ask it to end, as `kill` does; what it leaves with."""
        self.process.terminate()
        return self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it and its children have ended
            pass
        self.process.wait(TIMEOUT)
        self.close_input()
        self.stdout.close()
        self.stderr.close()

    def _wait_for(self, collected: _OutputCollector, what: str, predicate: Callable[[bytes], T | None]) -> T:
        found = collected.wait(predicate)
        assert found is not None, (
            f"{self.command} never said {what}, but\n{self.stdout}\nand on standard error\n{self.stderr}"
        )
        return found


class _OutputCollector:
    """Everything that a pipe gives, read by a thread, so that whoever writes it never waits."""

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
