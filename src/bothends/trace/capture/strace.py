"""Parse the output of strace incrementally: bytes in, lines out. Pure; `calls.py` interprets the lines.

What strace does, measured on strace 6.1, and what follows:

1. `-f` writes one stream for all processes, each line with the prefix `PID TIME`. If a line of another
   process or thread intervenes, a call is split in two: `... <unfinished ...>` and `<... name resumed>...`.
   The time of a line is when the call started; that of a resumed line is when it ended.
2. strace writes the name and arguments of a call before the kernel executes it. So the start of a blocking
   call is in the stream without its end: `StraceParser.unfinished_call` returns it, and a picture can show a
   blocked process at once. But if the text ends at a multiple of `STDIO_BUFFER`, strace's buffer was full,
   and more of the line follows.
3. With `-xx` all strings are in hexadecimal, so no byte from a peer can look like strace's syntax. Addresses
   and paths are in hexadecimal, too.
4. With `--pidns-translation`, a process id of another PID namespace has a comment with its id in strace's:
   `3 /* 5823 in strace's PID NS */`. Lines begin with the latter, so it replaces the former. wait4() and
   siginfo have no comment: the children that a process has created are known from its clone().
5. `name(...) = ?` is a call that never returned; `<detached ...>` ends the line of a call during which strace
   detached from the process. `<unavailable>` is an unknown duration.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from bothends.trace.model import DATA_LIMIT

# The calls that a picture of sockets needs. `?` marks calls that some architectures lack.
TRACED_CALLS: Final = (
    "%network,read,write,readv,writev,?sendfile,splice,close,?close_range,dup,?dup2,dup3,fcntl,ioctl,"
    "?poll,ppoll,?select,pselect6,?epoll_create,epoll_create1,?epoll_wait,epoll_pwait,?epoll_pwait2,epoll_ctl,"
    "nanosleep,clock_nanosleep,?restart_syscall,"
    "?pipe,pipe2,clone,clone3,?fork,?vfork,execve,?execveat,wait4,waitid,rt_sigaction,exit_group,?io_uring_setup,?io_uring_enter"
)
OPTIONS: Final = (
    "-f", "-q", "--pidns-translation", "--timestamps=format:unix,precision:ns", "--syscall-times=ns",
    "-yy", "-xx", "-s", str(DATA_LIMIT), "-a", "1", "-e", f"trace={TRACED_CALLS}",
)  # fmt: skip

MAX_LINE: Final = 64 << 20  # bytes: a vector of a thousand strings of DATA_LIMIT bytes is shorter
_MAX_TRANSLATED: Final = 100_000  # ids
STDIO_BUFFER: Final = 4096  # bytes: the buffer that the C library gives to a pipe


@dataclass(slots=True)
class CallStarted:
    """A call has started. `text` holds the arguments known so far."""

    pid: int
    at: int
    name: str
    text: str


@dataclass(slots=True)
class CallEnded:
    """A call that started at `at` and ended at `until` (None if strace doesn't know).

    `result` is None if it never returned. `result_text` is the text in parentheses after the result, and
    `label` the label of a returned descriptor.
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


@dataclass(slots=True)
class DataMoved:
    """A send or a receive on a socket's descriptor that has ended without an error: most lines are such.

    It is a `CallEnded` whose arguments are parsed already, as far as they are the usual ones: no address and
    no vector. `rest` are the arguments after the data, as text; before them "..." if the data are cut.
    """

    pid: int
    at: int
    name: str
    descriptor: int
    label: str
    data: bytes
    rest: str
    result: int
    until: int

    def as_call(self) -> CallEnded:
        """Return the line in its general form."""
        shown = "".join(f"\\x{byte:02x}" for byte in self.data)
        text = f'{self.descriptor}<{self.label}>, "{shown}"{self.rest}'
        return CallEnded(self.pid, self.at, self.name, text, self.until, self.result)


@dataclass(slots=True)
class SignalDelivered:
    """A signal was delivered. `details` are as strace prints them."""

    pid: int
    at: int
    signal: str
    details: str


@dataclass(slots=True)
class ThreadExited:
    """A thread has exited with a status, or a signal killed it. Neither: another thread called execve()."""

    pid: int
    at: int
    status: int | None = None
    signal: str = ""


@dataclass(slots=True)
class CallsLost:
    """Calls of any program are missing before this: the source was read too slowly. strace loses none."""

    pid: int
    at: int
    count: int


Line: TypeAlias = CallsLost | CallStarted | CallEnded | DataMoved | SignalDelivered | ThreadExited

_HEAD: Final = re.compile(r"(\d+) +(\d+)\.(\d{9}) (.*)", re.DOTALL)
# A line of `DataMoved`. A label has no quotes and no blanks; nor has the data, which is in hexadecimal.
_DATA_MOVED: Final = re.compile(
    rb"(\d+) +(\d+)\.(\d{9}) (sendto|recvfrom|read|write)\((\d+)<([A-Z][A-Za-z0-9-]*:\[[^\" ]*\])>, "
    rb"\"((?:\\x[0-9a-f]{2})*)\"((?:\.\.\.)?, \d+(?:, (?:0|MSG_[A-Z_|]+)(?:, NULL, (?:0|NULL))?)?)"
    rb"\) = (\d+) <(\d+)\.(\d{9})>"
)
_CALL: Final = re.compile(r"(\w+)\((.*)", re.DOTALL)
_RESUMED: Final = re.compile(r"<\.\.\. (\w+) resumed>(.*)", re.DOTALL)
_UNFINISHED: Final = re.compile(r" ?<(?:unfinished|detached) \.\.\.>$")
_RETURN: Final = re.compile(
    r"""(?P<text>.*)\)\ +=\ (?P<result>0x[0-9a-f]+|0[0-7]+|0|-?[1-9]\d*|\?)
        (?P<label><.*?>)?                       # the label of a returned descriptor
        (?:\ (?P<error>E[A-Z0-9_]+)\ \(.*?\))?
        (?:\ \((?P<result_text>.*)\))?
        (?:\ <(?P<duration>\d+\.\d+|unavailable)>)?$""",
    re.VERBOSE | re.DOTALL,
)
# A search from the start would take a millisecond for 4 KB of data.
_MAX_END: Final = 20  # characters of " <unfinished ...>"
_MAX_RESULT: Final = 100  # characters of "= ?" and the duration after it, which has at most 30
_NEVER_RETURNED: Final = re.compile(
    r"(?P<text>.*?)(?: <unfinished \.\.\.>)?\) += \?(?: <(?:unavailable|[\d.]+)>)?$", re.DOTALL
)
_EXITED: Final = re.compile(
    r"\+\+\+ (?:exited with (\d+)|killed by (\w+)(?: \(core dumped\))?|superseded .*) \+\+\+$"
)
_LOST: Final = re.compile(r"\+\+\+ (\d+) calls lost \+\+\+$")
_TRANSLATED: Final = re.compile(r"(\d+) /\* (\d+) in strace's PID NS \*/")
_SIGNAL: Final = re.compile(r"--- (SIG\w+) (\{.*\}) ---$|--- stopped by (SIG\w+) ---$", re.DOTALL)

_CALL_NAMES: Final = ("sendto", "recvfrom", "read", "write")  # in the order of native/trace/lines.c
_NAMES: Final = {name.encode(): name for name in _CALL_NAMES}

# Calls on files, which are most calls of a starting program: recognized by the label, before anything else is
# parsed. A path is in hexadecimal (fact 3), a socket's label is not. `socket:` and `pipe:` are no paths.
_FILE_CALL: Final = re.compile(
    r"(?:read|write|readv|writev|close|ioctl|fcntl)\((?:[3-9]|\d\d+)<\\x(?!73\\x6f\\x63\\x6b\\x65\\x74\\x3a|70\\x69\\x70\\x65\\x3a)"
)


class StraceParser:
    """Parses the output of one strace process, as it is read.

    `unparsed_count` is the number of lines with unknown syntax; `unparsed_samples` are the first ten.
    `inner_ids` are the ids of processes and threads in their own PID namespace, by those in strace's, as far
    as strace has told (fact 4).

    Args:
        from_exec: leave out everything before the first execve() that succeeds.
    """

    def __init__(self, *, from_exec: bool = False) -> None:
        self.inner_ids: dict[int, int] = {}
        # By the process that created it, 0 for any, and the id in its own namespace.
        self._outer_ids: dict[tuple[int, int], int] = {}
        self._translated: set[int] = set()  # processes that have created others in their namespace
        self._waits_for_exec = from_exec
        self._buffer = b""
        self._unfinished: dict[int, CallStarted] = {}
        self._last_unfinished: tuple[int, int] | None = None
        self.unparsed_count = 0
        self.unparsed_samples: list[str] = []

    def feed(self, data: bytes) -> Iterator[Line]:
        """Return the lines that these bytes complete."""
        data = self._buffer + data if self._buffer else data
        end = data.rfind(b"\n") + 1
        self._buffer = data[end:]
        data = data[: max(end - 1, 0)]
        if len(self._buffer) > MAX_LINE:
            self._record_unparsed(self._buffer)
            self._buffer = b""
        return self._parse_lines(_split_lines(data)) if end else iter(())

    def feed_eof(self) -> Iterator[Line]:
        """Return the incomplete last line, if any: the stream has ended."""
        rest, self._buffer = self._buffer, b""
        return self._parse_lines(_split_lines(rest) if rest else [])

    def take_rest(self) -> bytes:
        """Return the start of a line that is not complete, and forget it."""
        rest, self._buffer = self._buffer, b""
        return rest

    def unfinished_call(self) -> CallStarted | None:
        """Return the unfinished call at the end of the stream, or None. Each call is returned once."""
        if not self._buffer or len(self._buffer) > 4 * DATA_LIMIT + 1024 or self._waits_for_exec:
            return None
        if len(self._buffer) % STDIO_BUFFER == 0 or self._buffer.count(b'"') % 2:
            return None
        head = _HEAD.match(self._buffer.decode("ascii", "replace"))
        call = _CALL.match(head[4]) if head else None
        if head is None or call is None or _FILE_CALL.match(head[4]):
            return None
        started = CallStarted(int(head[1]), _timestamp(head), call[1], call[2])
        if self._last_unfinished == (started.pid, started.at):
            return None
        self._last_unfinished = (started.pid, started.at)
        return started

    def _parse_lines(self, lines: Iterable[bytes | DataMoved]) -> Iterator[Line]:
        for each in lines:
            if type(each) is DataMoved:
                if not self._waits_for_exec:
                    yield each
                continue
            assert isinstance(each, bytes)
            line = self._parse_line(each.decode("ascii", "replace"))
            if self._waits_for_exec and isinstance(line, CallEnded):
                self._waits_for_exec = line.name not in ("execve", "execveat") or line.result != 0
            if line is not None and (not self._waits_for_exec or isinstance(line, ThreadExited)):
                yield line

    def _parse_line(self, text: str) -> Line | None:
        head = _HEAD.match(text)
        if head is None:
            if text.strip():
                self._record_unparsed(text.encode())
            return None
        pid, at, rest = int(head[1]), _timestamp(head), head[4]
        if "PID NS" in rest:
            rest = _TRANSLATED.sub(lambda found: self._translate(pid, found), rest)
        if _FILE_CALL.match(rest) and not rest.endswith("<unfinished ...>"):
            return None
        if rest.startswith("<..."):
            return self._parse_resumed(pid, at, rest)
        if found := _CALL.match(rest):
            name, inner = found[1], found[2]
            if inner.endswith(" ...>") and (end := _UNFINISHED.search(inner, max(len(inner) - _MAX_END, 0))):
                started = CallStarted(pid, at, name, inner[: end.start()])
                self._unfinished[pid] = started
                return None if _FILE_CALL.match(rest) else started
            return self._parse_ended(pid, at, name, inner, None)
        return self._parse_exit_or_signal(pid, at, rest)

    def _translate(self, pid: int, found: re.Match[str]) -> str:
        if len(self.inner_ids) < _MAX_TRANSLATED:
            inner, outer = int(found[1]), int(found[2])
            self.inner_ids[outer] = inner
            self._outer_ids[pid, inner] = self._outer_ids[0, inner] = outer
            self._translated.add(pid)
        return found[2]

    def _outer_id(self, pid: int, inner: int) -> int:
        """Return the id of a child process that a process has waited for, in strace's namespace."""
        found = self._outer_ids.get((pid, inner))
        if found is None and (pid in self._translated or pid in self.inner_ids):
            found = self._outer_ids.get((0, inner))  # another thread has created it
        return inner if found is None else found

    def _parse_resumed(self, pid: int, at: int, rest: str) -> Line | None:
        found, started = _RESUMED.match(rest), self._unfinished.pop(pid, None)
        if found is None or started is None or started.name != found[1]:
            self._record_unparsed(rest.encode())  # the call started before strace attached
            return None
        if _FILE_CALL.match(f"{started.name}({started.text}"):
            return None
        return self._parse_ended(pid, started.at, started.name, started.text + found[2], at)

    def _parse_ended(self, pid: int, at: int, name: str, inner: str, until: int | None) -> Line | None:
        if "= ?" in inner[-_MAX_RESULT:] and (never := _NEVER_RETURNED.match(inner)):
            return CallEnded(pid, at, name, never["text"], None, None)
        found = _RETURN.match(inner)
        if found is None:
            self._record_unparsed(f"{name}({inner}".encode())
            return None
        duration, result = found["duration"], found["result"]
        if duration is not None and duration != "unavailable":
            seconds, _, fraction = duration.partition(".")
            until = at + int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9])
        value = None if result == "?" else int(result, _base_of(result))
        if name == "wait4" and value is not None and value > 0 and self._outer_ids:
            value = self._outer_id(pid, value)
        return CallEnded(
            pid, at, name, found["text"], until, value,
            (found["label"] or "")[1:-1], found["error"] or "", found["result_text"] or "",
        )  # fmt: skip

    def _parse_exit_or_signal(self, pid: int, at: int, rest: str) -> Line | None:
        if found := _EXITED.match(rest):
            self._unfinished.pop(pid, None)
            return ThreadExited(pid, at, int(found[1]) if found[1] else None, found[2] or "")
        if found := _SIGNAL.match(rest):
            return SignalDelivered(pid, at, found[1] or found[3], found[2] or "")
        if found := _LOST.match(rest):
            return CallsLost(pid, at, int(found[1]))
        self._record_unparsed(rest.encode())
        return None

    def _record_unparsed(self, text: bytes) -> None:
        self.unparsed_count += 1
        if len(self.unparsed_samples) < 10:
            self.unparsed_samples.append(text[:200].decode("ascii", "replace"))


def _timestamp(head: re.Match[str]) -> int:
    return int(head[2]) * 1_000_000_000 + int(head[3])


def _base_of(result: str) -> int:
    """Return the base of a result: strace prints addresses in hexadecimal, and that of umask(2) in octal."""
    if result.startswith("0x"):
        return 16
    return 8 if result.startswith("0") else 10


def split_lines_in_python(data: bytes) -> Iterator[bytes | DataMoved]:
    """Return each line, parsed if it is a usual send or receive. native/trace/lines.c does the same."""
    match = _DATA_MOVED.fullmatch
    for each in data.split(b"\n"):
        found = match(each)
        if found is None:
            yield each
            continue
        pid, seconds, fraction, name, number, label, moved, rest, result, whole, part = found.groups()
        at = int(seconds + fraction)
        yield DataMoved(
            int(pid), at, _NAMES[name], int(number), label.decode("ascii", "replace"),
            bytes.fromhex(moved.replace(b"\\x", b"").decode()), rest.decode(), int(result),
            at + int(whole + part),
        )  # fmt: skip


def _split_lines_in_c(data: bytes) -> list[bytes | DataMoved]:
    return _pipeline.parse_lines(data, DataMoved, _CALL_NAMES)


try:
    from bothends.trace import _pipeline
except ImportError:
    _split_lines: Callable[[bytes], Iterable[bytes | DataMoved]] = split_lines_in_python
else:
    _split_lines = _split_lines_in_c
