"""strace's output, as it comes: text in, lines out. Pure; `calls.py` says what they mean.

Facts, measured on strace 6.1:

1. `-f` gives one stream for all processes, each line with `PID TIME` in front. When another process's line
   comes between, a call is cut in two, `... <unfinished ...>` and `<... name resumed>...`; threads do it too.
   A line's time is when the call began; a resumed line's own time is when it ended.
2. strace writes what it knows of a call before it lets the kernel do it. So the beginning of a call that
   waits stands in the stream without its end: `StraceParser.begun` gives it, and a picture can show who waits.
   But where a line ends at a whole number of `STDIO_BUFFER`s, strace's buffer was full, and more is to come.
3. With `-xx` all strings are in hexadecimal, so no byte of a peer's can look like strace's own syntax.
   Addresses and paths are written so too.
4. `name(...) = ?` is a call that never returned; `<detached ...>` ends a line where strace lets go of a
   process in a call. `<unavailable>` stands for a duration that isn't known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from bothends.trace.model import DATA_LIMIT

# What a picture of sockets needs. `?` stands before what some architectures lack.
TRACED_CALLS: Final = (
    "%network,read,write,readv,writev,?sendfile,splice,close,?close_range,dup,?dup2,dup3,fcntl,ioctl,"
    "?poll,ppoll,?select,pselect6,?epoll_create,epoll_create1,?epoll_wait,epoll_pwait,?epoll_pwait2,epoll_ctl,"
    "clone,clone3,?fork,?vfork,execve,?execveat,wait4,waitid,rt_sigaction,exit_group,?io_uring_setup,?io_uring_enter"
)
OPTIONS: Final = (
    "-f", "-q", "--timestamps=format:unix,precision:ns", "--syscall-times=ns", "-yy", "-xx",
    "-s", str(DATA_LIMIT), "-a", "1", "-e", f"trace={TRACED_CALLS}",
)  # fmt: skip

# A line longer than this is not strace's: vectors of a thousand strings of KEPT bytes stay below.
MAX_LINE: Final = 64 << 20
STDIO_BUFFER: Final = 4096  # bytes: the buffer that the C library gives to a pipe


@dataclass(frozen=True, slots=True)
class CallStarted:
    """A call has begun: `text` is what is known of its arguments."""

    pid: int
    at: int
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call from its beginning, `at`, to its end, `until` (None where strace doesn't know it).

    `result` None: it never returned. `words` is what stands in parentheses behind the result, and `label`
    what describes a descriptor that it returned.
    """

    pid: int
    at: int
    name: str
    text: str
    until: int | None
    result: int | None
    label: str = ""
    error: str = ""
    result_text: str = ""


@dataclass(frozen=True, slots=True)
class SignalReceived:
    """A signal came. `details` as strace shows them."""

    pid: int
    at: int
    signal: str
    details: str


@dataclass(frozen=True, slots=True)
class ThreadExited:
    """A thread is gone: with an exit status, or by a signal. Both empty: another took its place (execve)."""

    pid: int
    at: int
    status: int | None = None
    signal: str = ""


Line: TypeAlias = CallStarted | CallEnded | SignalReceived | ThreadExited

_HEAD: Final = re.compile(r"(\d+) +(\d+)\.(\d{9}) (.*)", re.DOTALL)
_CALL: Final = re.compile(r"(\w+)\((.*)", re.DOTALL)
_RESUMED: Final = re.compile(r"<\.\.\. (\w+) resumed>(.*)", re.DOTALL)
_UNFINISHED: Final = re.compile(r" ?<(?:unfinished|detached) \.\.\.>$")
_RETURN: Final = re.compile(
    r"""(?P<text>.*)\)\ +=\ (?P<result>-?\d+|0x[0-9a-f]+|\?)
        (?P<label><.*?>)?                       # what a returned descriptor is
        (?:\ (?P<error>E[A-Z0-9_]+)\ \(.*?\))?
        (?:\ \((?P<words>.*)\))?
        (?:\ <(?P<lasted>\d+\.\d+|unavailable)>)?$""",
    re.VERBOSE | re.DOTALL,
)
_NEVER_RETURNED: Final = re.compile(
    r"(?P<text>.*?)(?: <unfinished \.\.\.>)?\) += \?(?: <(?:unavailable|[\d.]+)>)?$", re.DOTALL
)
_EXITED: Final = re.compile(
    r"\+\+\+ (?:exited with (\d+)|killed by (\w+)(?: \(core dumped\))?|superseded .*) \+\+\+$"
)
_SIGNAL: Final = re.compile(r"--- (SIG\w+) (\{.*\}) ---$|--- stopped by (SIG\w+) ---$", re.DOTALL)

# Reads and writes of files, which are most of what a starting program does: told by the label before
# anything else is looked at. A path is in hexadecimal (fact 3), a socket's label is not.
_FILE_CALL: Final = re.compile(
    r"(?:read|write|readv|writev|close|ioctl|fcntl)\((?:[3-9]|\d\d+)<\\x(?!73\\x6f\\x63\\x6b\\x65\\x74\\x3a)"
)


class StraceParser:
    """The lines of one strace, fed as they come.

    `unknown` counts lines that could not be understood; `odd` keeps the first few.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._unfinished: dict[int, CallStarted] = {}
        self._last_unfinished: tuple[int, int] | None = None
        self.unparsed_count = 0
        self.unparsed_samples: list[str] = []

    def feed(self, data: bytes) -> Iterator[Line]:
        """The lines that these bytes complete."""
        lines = (self._buffer + data).split(b"\n") if self._buffer else data.split(b"\n")
        self._buffer = lines.pop()
        if len(self._buffer) > MAX_LINE:
            self._record_unparsed(self._buffer)
            self._buffer = b""
        return self._parse_lines(lines)

    def feed_eof(self) -> Iterator[Line]:
        """The stream is over: what was still waiting for the end of its line."""
        rest, self._buffer = self._buffer, b""
        return self._parse_lines([rest] if rest else [])

    def unfinished_call(self) -> CallStarted | None:
        """The call that stands at the end of the stream, begun and not ended. Each is given once."""
        if not self._buffer or len(self._buffer) > 4 * DATA_LIMIT + 1024:
            return None
        if len(self._buffer) % STDIO_BUFFER == 0 or self._buffer.count(b'"') % 2:
            return None
        head = _HEAD.match(self._buffer.decode("ascii", "replace"))
        call = _CALL.match(head[4]) if head else None
        if head is None or call is None or _FILE_CALL.match(head[4]):
            return None
        began = CallStarted(int(head[1]), _timestamp(head), call[1], call[2])
        if self._last_unfinished == (began.pid, began.at):
            return None
        self._last_unfinished = (began.pid, began.at)
        return began

    def _parse_lines(self, lines: Iterable[bytes]) -> Iterator[Line]:
        for each in lines:
            line = self._parse_line(each.decode("ascii", "replace"))
            if line is not None:
                yield line

    def _parse_line(self, text: str) -> Line | None:
        head = _HEAD.match(text)
        if head is None:
            if text.strip():
                self._record_unparsed(text.encode())
            return None
        pid, at, rest = int(head[1]), _timestamp(head), head[4]
        if _FILE_CALL.match(rest) and not rest.endswith("<unfinished ...>"):
            return None
        if rest.startswith("<..."):
            return self._parse_resumed(pid, at, rest)
        if found := _CALL.match(rest):
            name, inner = found[1], found[2]
            if _UNFINISHED.search(inner):
                began = CallStarted(pid, at, name, _UNFINISHED.sub("", inner))
                self._unfinished[pid] = began
                return None if _FILE_CALL.match(rest) else began
            return self._parse_ended(pid, at, name, inner, None)
        return self._parse_exit_or_signal(pid, at, rest)

    def _parse_resumed(self, pid: int, at: int, rest: str) -> Line | None:
        found, began = _RESUMED.match(rest), self._unfinished.pop(pid, None)
        if found is None or began is None or began.name != found[1]:
            self._record_unparsed(rest.encode())  # its first half was before our time
            return None
        if _FILE_CALL.match(f"{began.name}({began.text}"):
            return None
        return self._parse_ended(pid, began.at, began.name, began.text + found[2], at)

    def _parse_ended(self, pid: int, at: int, name: str, inner: str, until: int | None) -> Line | None:
        if never := _NEVER_RETURNED.match(inner):
            return CallEnded(pid, at, name, never["text"], None, None)
        found = _RETURN.match(inner)
        if found is None:
            self._record_unparsed(f"{name}({inner}".encode())
            return None
        lasted, result = found["lasted"], found["result"]
        if lasted is not None and lasted != "unavailable":
            seconds, _, fraction = lasted.partition(".")
            until = at + int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9])
        value = None if result == "?" else int(result, 0)
        return CallEnded(
            pid, at, name, found["text"], until, value,
            (found["label"] or "")[1:-1], found["error"] or "", found["words"] or "",
        )  # fmt: skip

    def _parse_exit_or_signal(self, pid: int, at: int, rest: str) -> Line | None:
        if left := _EXITED.match(rest):
            self._unfinished.pop(pid, None)
            return ThreadExited(pid, at, int(left[1]) if left[1] else None, left[2] or "")
        if found := _SIGNAL.match(rest):
            return SignalReceived(pid, at, found[1] or found[3], found[2] or "")
        self._record_unparsed(rest.encode())
        return None

    def _record_unparsed(self, text: bytes) -> None:
        self.unparsed_count += 1
        if len(self.unparsed_samples) < 10:
            self.unparsed_samples.append(text[:200].decode("ascii", "replace"))


def _timestamp(head: re.Match[str]) -> int:
    return int(head[2]) * 1_000_000_000 + int(head[3])
