"""strace's output, as it comes: text in, lines out. Pure; `calls.py` says what they mean.

Facts, measured on strace 6.1:

1. `-f` gives one stream for all processes, each line with `PID TIME` in front. When another process's line
   comes between, a call is cut in two, `... <unfinished ...>` and `<... name resumed>...`; threads do it too.
   A line's time is when the call began; a resumed line's own time is when it ended.
2. strace writes what it knows of a call before it lets the kernel do it. So the beginning of a call that
   waits stands in the stream without its end: `Parser.begun` gives it, and a picture can show who waits.
   But where a line ends at a whole number of `BLOCK`s, strace's buffer was full, and more is to come.
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

from bothends.trace.model import KEPT

# What a picture of sockets needs. `?` stands before what some architectures lack.
CALLS: Final = (
    "%network,read,write,readv,writev,?sendfile,splice,close,?close_range,dup,?dup2,dup3,fcntl,ioctl,"
    "?poll,ppoll,?select,pselect6,?epoll_create,epoll_create1,?epoll_wait,epoll_pwait,?epoll_pwait2,epoll_ctl,"
    "clone,clone3,?fork,?vfork,execve,?execveat,wait4,waitid,rt_sigaction,exit_group,?io_uring_setup,?io_uring_enter"
)
OPTIONS: Final = (
    "-f", "-q", "--timestamps=format:unix,precision:ns", "--syscall-times=ns", "-yy", "-xx",
    "-s", str(KEPT), "-a", "1", "-e", f"trace={CALLS}",
)  # fmt: skip

# A line longer than this is not strace's: vectors of a thousand strings of KEPT bytes stay below.
LONGEST: Final = 64 << 20
BLOCK: Final = 4096  # bytes: the buffer that the C library gives to a pipe


@dataclass(frozen=True, slots=True)
class Began:
    """A call has begun: `text` is what is known of its arguments."""

    pid: int
    at: int
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
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
    words: str = ""


@dataclass(frozen=True, slots=True)
class Signalled:
    """A signal came. `details` as strace shows them."""

    pid: int
    at: int
    signal: str
    details: str


@dataclass(frozen=True, slots=True)
class Left:
    """A thread is gone: with an exit status, or by a signal. Both empty: another took its place (execve)."""

    pid: int
    at: int
    status: int | None = None
    signal: str = ""


Line: TypeAlias = Began | Ended | Signalled | Left

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
_NEVER: Final = re.compile(
    r"(?P<text>.*?)(?: <unfinished \.\.\.>)?\) += \?(?: <(?:unavailable|[\d.]+)>)?$", re.DOTALL
)
_LEFT: Final = re.compile(
    r"\+\+\+ (?:exited with (\d+)|killed by (\w+)(?: \(core dumped\))?|superseded .*) \+\+\+$"
)
_SIGNAL: Final = re.compile(r"--- (SIG\w+) (\{.*\}) ---$|--- stopped by (SIG\w+) ---$", re.DOTALL)

# Reads and writes of files, which are most of what a starting program does: told by the label before
# anything else is looked at. A path is in hexadecimal (fact 3), a socket's label is not.
_OF_A_FILE: Final = re.compile(
    r"(?:read|write|readv|writev|close|ioctl|fcntl)\((?:[3-9]|\d\d+)<\\x(?!73\\x6f\\x63\\x6b\\x65\\x74\\x3a)"
)


class Parser:
    """The lines of one strace, fed as they come.

    `unknown` counts lines that could not be understood; `odd` keeps the first few.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._open: dict[int, Began] = {}
        self._shown: tuple[int, int] | None = None
        self.unknown = 0
        self.odd: list[str] = []

    def feed(self, data: bytes) -> Iterator[Line]:
        """The lines that these bytes complete."""
        lines = (self._rest + data).split(b"\n") if self._rest else data.split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LONGEST:
            self._complain(self._rest)
            self._rest = b""
        return self._lines(lines)

    def end(self) -> Iterator[Line]:
        """The stream is over: what was still waiting for the end of its line."""
        rest, self._rest = self._rest, b""
        return self._lines([rest] if rest else [])

    def begun(self) -> Began | None:
        """The call that stands at the end of the stream, begun and not ended. Each is given once."""
        if not self._rest or len(self._rest) > 4 * KEPT + 1024:
            return None
        if len(self._rest) % BLOCK == 0 or self._rest.count(b'"') % 2:
            return None
        head = _HEAD.match(self._rest.decode("ascii", "replace"))
        call = _CALL.match(head[4]) if head else None
        if head is None or call is None or _OF_A_FILE.match(head[4]):
            return None
        began = Began(int(head[1]), _time(head), call[1], call[2])
        if self._shown == (began.pid, began.at):
            return None
        self._shown = (began.pid, began.at)
        return began

    def _lines(self, lines: Iterable[bytes]) -> Iterator[Line]:
        for each in lines:
            line = self._line(each.decode("ascii", "replace"))
            if line is not None:
                yield line

    def _line(self, text: str) -> Line | None:
        head = _HEAD.match(text)
        if head is None:
            if text.strip():
                self._complain(text.encode())
            return None
        pid, at, rest = int(head[1]), _time(head), head[4]
        if _OF_A_FILE.match(rest) and not rest.endswith("<unfinished ...>"):
            return None
        if rest.startswith("<..."):
            return self._resumed(pid, at, rest)
        if found := _CALL.match(rest):
            name, inner = found[1], found[2]
            if _UNFINISHED.search(inner):
                began = Began(pid, at, name, _UNFINISHED.sub("", inner))
                self._open[pid] = began
                return None if _OF_A_FILE.match(rest) else began
            return self._ended(pid, at, name, inner, None)
        return self._other(pid, at, rest)

    def _resumed(self, pid: int, at: int, rest: str) -> Line | None:
        found, began = _RESUMED.match(rest), self._open.pop(pid, None)
        if found is None or began is None or began.name != found[1]:
            self._complain(rest.encode())  # its first half was before our time
            return None
        if _OF_A_FILE.match(f"{began.name}({began.text}"):
            return None
        return self._ended(pid, began.at, began.name, began.text + found[2], at)

    def _ended(self, pid: int, at: int, name: str, inner: str, until: int | None) -> Line | None:
        if never := _NEVER.match(inner):
            return Ended(pid, at, name, never["text"], None, None)
        found = _RETURN.match(inner)
        if found is None:
            self._complain(f"{name}({inner}".encode())
            return None
        lasted, result = found["lasted"], found["result"]
        if lasted is not None and lasted != "unavailable":
            seconds, _, fraction = lasted.partition(".")
            until = at + int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9])
        value = None if result == "?" else int(result, 0)
        return Ended(
            pid, at, name, found["text"], until, value,
            (found["label"] or "")[1:-1], found["error"] or "", found["words"] or "",
        )  # fmt: skip

    def _other(self, pid: int, at: int, rest: str) -> Line | None:
        if left := _LEFT.match(rest):
            self._open.pop(pid, None)
            return Left(pid, at, int(left[1]) if left[1] else None, left[2] or "")
        if found := _SIGNAL.match(rest):
            return Signalled(pid, at, found[1] or found[3], found[2] or "")
        self._complain(rest.encode())
        return None

    def _complain(self, text: bytes) -> None:
        self.unknown += 1
        if len(self.odd) < 10:
            self.odd.append(text[:200].decode("ascii", "replace"))


def _time(head: re.Match[str]) -> int:
    return int(head[2]) * 1_000_000_000 + int(head[3])
