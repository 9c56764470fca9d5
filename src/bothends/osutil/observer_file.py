"""`ObserverFile`: lines that an observer writes, whose failure must not hurt what it observes. Rank 1.

1. A write never raises and never waits for a reader. A regular file is written at once. A pipe, a socket or a
   terminal is written without blocking, through a queue of at most QUEUE_BYTES, which a thread empties when
   the reader reads again. O_NONBLOCK belongs to the open file description (open(2)), which standard output
   shares with other programs; so a pipe is opened again under /proc/self/fd, and a socket gets MSG_DONTWAIT.
2. A regular file never ends within a line, or a record in binary: write(2) may be short on a full disk, and
   the part is then truncated away.
3. Lines that could not be written are counted. The next line that can be written follows a line with their
   number; at the end, the last lines of a full file give way to it.
4. The first failure is reported once. `close` returns the error to report at the end.
5. The thread of an event loop may collect lines, and write those of an iteration together (`collect`).
6. The processes of a server share one file after a fork: the counters are in shared memory, and from then on
   a lock on the file (fcntl(2)) orders the writes. The kernel releases it if its process dies.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import select
import socket
import stat
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from bothends.errors import SystemCallFailed, errno_text

QUEUE_BYTES: Final = 256 << 10  # of lines for a reader that does not read, in each process
COLLECTED_BYTES: Final = 32 << 10  # of lines that are collected, at most
CLOSE_TIMEOUT: Final = 1.0  # seconds that `close` waits for a slow reader
_MAX_CUT: Final = 64 << 10  # bytes at the end of a file among which the last lines are looked for
_WAIT: Final = 1000  # milliseconds between two looks of the thread whether it is still needed

# Shared between processes: all missing lines, those of them that no line of the file has reported yet, the
# errno of the last failure, queued lines, where the lines written without a gap start and end, and where the
# last line that reports missing ones is, and their number.
_COUNTERS: Final = struct.Struct("=8Q")


class ObserverFile:
    """Writes lines to a descriptor. Thread-safe, and usable by forked children.

    Args:
        descriptor: open for writing.
        name: of the file, in messages.
        missing_line: returns the line for the file, with its newline, that says that `count` lines are
            missing there, and why. Bytes for a file in binary.
        report: called once, with a message, when a line after `first_line` cannot be written.
        first_line: written at once, with its newline. Without it the file is of no use.
        is_shared: other processes write to the file too, after a fork.
        owns_descriptor: whether `close` closes the descriptor.
        queue_bytes: what a reader that does not read may leave unread, in each process.
        is_binary: it has no lines, so none gives way to the number of missing ones.

    Raises:
        SystemCallFailed: `first_line` cannot be written. The file is then closed.
    """

    def __init__(
        self,
        descriptor: int,
        name: str,
        *,
        missing_line: Callable[[int, str], str | bytes],
        report: Callable[[str], object] | None = None,
        first_line: str = "",
        is_shared: bool = False,
        owns_descriptor: bool = True,
        queue_bytes: int = QUEUE_BYTES,
        is_binary: bool = False,
    ) -> None:
        self.name = name
        self._report: Callable[[str], object] | None = None
        self._descriptor = descriptor
        self._missing_line = missing_line
        self._may_be_shared = is_shared
        self._is_shared = False  # until the first fork
        self._queue_bytes = queue_bytes
        self._is_binary = is_binary
        self._owned = [descriptor] if owns_descriptor else []
        self._is_regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._socket: socket.socket | None = None
        self._nonblocking = descriptor if self._is_regular else self._open_nonblocking()
        self._shared = mmap.mmap(-1, _COUNTERS.size)
        # Copies of the shared counters, valid while the lock is held.
        self._missing = self._unreported = self._errno = self._queued = self._start = self._end = 0
        self._note_start = self._note_lines = 0
        self._depth = 0
        self._reset_in_child()
        os.register_at_fork(before=self._before_fork, after_in_child=self._reset_in_child)
        if first_line and not self.write(first_line):
            number = self._errno
            self.close()
            raise SystemCallFailed("write", name, number)
        self._report = report

    @property
    def missing(self) -> int:
        """Lines that could not be written, by all processes."""
        with self.locked():
            return self._missing

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._descriptor

    def flush(self) -> None:
        """Do nothing: lines are passed on at once, or wait for a reader."""

    def write(self, text: str | bytes, *, records: int | None = None) -> bool:
        """Write whole lines.

        Of several lines those are written for which there is room; with `records`, all or none.

        Args:
            text: the lines, or records in binary.
            records: how many records are missing if this fails; default: the number of lines.

        Returns: whether they are written, or queued for a slow reader.
        """
        if self._collector == threading.get_ident():
            if self._on_first is not None and not self._collected:
                self._on_first()
            self._collected.append(
                text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace")
            )
            self._collected_size += len(text)
            if self._collected_size >= COLLECTED_BYTES:
                self.write_collected()
            return True
        self.write_collected()
        return self._write_now(text, records)

    def restart(self, size: int) -> None:
        """Remove what a regular file has after its first `size` bytes: other data takes its place.

        What was missing in it counts no longer, but is not reported twice. No other process writes to it.
        """
        with self.locked(), contextlib.suppress(OSError):
            if self._missing:
                self._report = None
            os.ftruncate(self._descriptor, size)
            os.lseek(self._descriptor, size, os.SEEK_SET)
            self._missing = self._unreported = self._errno = self._note_lines = self._note_start = 0
            self._start, self._end = 0, size

    def collect(self, on_first: Callable[[], object] | None = None) -> None:
        """Keep the lines that this thread writes, until `write_collected`. Has no effect for a terminal.

        `on_first` is called for the first of them.
        """
        if not self.isatty():
            self._on_first, self._collector = on_first, threading.get_ident()

    def stop_collecting(self) -> None:
        """Write what is collected, and from now on each line at once."""
        self._collector = 0
        self.write_collected()

    def write_collected(self) -> None:
        """Write what is collected."""
        if not self._collected:
            return
        with self._lock:
            lines = [self._collected.popleft() for _ in range(len(self._collected))]
            self._collected_size = 0
            self._write_now(b"".join(lines), None)

    def _write_now(self, text: str | bytes, records: int | None) -> bool:
        data = text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace")
        count = data.count(b"\n") if records is None else records
        divides = records is None and count > 1 and not self._is_binary
        # By hand, not by the context managers below, which take as long as write(2).
        self._acquire()
        before = self._missing
        try:
            if divides:
                return self._write_lines(data)
            return self._write_regular(data, count) if self._is_regular else self._write_queued(data, count)
        finally:
            self._release_and_report(before)

    def _write_lines(self, data: bytes) -> bool:
        """Write lines: a regular file's together, or one by one if it is full; others in parts.

        The kernel does not mix writes of several processes to a pipe up to PIPE_BUF bytes (pipe(7)).
        """
        if not self._is_regular:
            parts = divide_lines(data, select.PIPE_BUF)
            return all([self._write_queued(part, part.count(b"\n")) for part in parts])  # noqa: C419
        if self._append_noted(data):
            return True
        return all([self._write_regular(line, 1) for line in divide_lines(data, 1)])  # noqa: C419

    def wait_for_reader(self, timeout: float) -> None:
        """Wait until a slow reader has read everything, or has read nothing for `timeout` seconds."""
        while left := self._queue_size:
            self._wait_writable(int(1000 * timeout))
            with self._reporting():
                self._drain()
            if self._queue_size == left:
                return

    def close(self) -> SystemCallFailed | None:
        """Wait for a slow reader, for at most a second; write the number of missing lines, and close.

        Returns: an error if lines are missing, which the caller reports.
        """
        self.stop_collecting()
        deadline = time.monotonic() + CLOSE_TIMEOUT
        while (left := deadline - time.monotonic()) > 0 and self._queue:
            self._wait_writable(int(1000 * left))
            with self.locked():
                self._drain()
        with self.locked():
            if self._queued:  # also those of children, which have exited
                self._count_missing(self._queued, errno.EAGAIN)
                self._queued = 0
                self._clear_queue()
            self._write_missing_line()
            missing, number = self._missing, self._errno
        if self._socket is not None:
            self._socket.close()
        for descriptor in self._owned:
            os.close(descriptor)
        self._owned = []
        if not missing:
            return None
        lines = "1 record is" if missing == 1 else f"{missing:,} records are"
        hint = f"{lines} missing" + (": its reader does not read" if number == errno.EAGAIN else "")
        return SystemCallFailed("write everything to", self.name, number, hint)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock between threads and that between processes. Reentrant."""
        self._acquire()
        try:
            yield
        finally:
            self._release()

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Hold the lock, and report the first failure when it is free again."""
        self._acquire()
        before = self._missing
        try:
            yield
        finally:
            self._release_and_report(before)

    def _acquire(self) -> None:
        self._lock.acquire()
        if not self._depth:
            self._lock_file(fcntl.LOCK_EX)
            (
                self._missing, self._unreported, self._errno, self._queued, self._start, self._end,
                self._note_start, self._note_lines,
            ) = _COUNTERS.unpack(self._shared)  # fmt: skip
        self._depth += 1

    def _release(self) -> None:
        self._depth -= 1
        if not self._depth:
            _COUNTERS.pack_into(
                self._shared, 0, self._missing, self._unreported, self._errno, self._queued, self._start,
                self._end, self._note_start, self._note_lines,
            )  # fmt: skip
            self._lock_file(fcntl.LOCK_UN)
        self._lock.release()

    def _release_and_report(self, missing_before: int) -> None:
        is_first, number = not missing_before and self._missing > 0, self._errno
        self._release()
        if is_first and self._report is not None:
            self._report(f"{self.name}: {_reason(number)}; what cannot be written is counted and left out")

    def _lock_file(self, operation: int) -> None:
        if self._is_shared:
            try:
                fcntl.lockf(self._descriptor, operation)
            except OSError:
                pass  # ENOLCK, or a file system without locks

    def _before_fork(self) -> None:
        with self._lock:  # not while another thread writes
            self._is_shared = self._may_be_shared

    def _reset_in_child(self) -> None:
        self._lock = threading.RLock()  # a thread of the parent may have held it during fork()
        self._depth = 0
        self._queue: deque[tuple[bytes, int]] = deque()  # lines, records; the parent writes its own
        self._queue_size = 0  # bytes
        self._collected: deque[bytes] = deque()  # the parent writes its own
        self._collected_size = self._collector = 0  # bytes; the thread that collects
        self._on_first = None
        self._thread: threading.Thread | None = None

    # Regular files

    def _write_regular(self, data: bytes, records: int) -> bool:
        if self._append_noted(data):
            return True
        self._count_missing(records, self._errno)
        return False

    def _append_noted(self, data: bytes) -> bool:
        """Append data, after the number of missing lines if there are any: as a whole, or nothing."""
        note = self._note() if self._unreported else b""
        if not self._append(note + data):
            return False
        if note:
            self._note_start, self._note_lines = self._end - len(note + data), self._unreported
            self._unreported = 0
        return True

    def _append(self, data: bytes) -> bool:
        """Append data as a whole, or nothing."""
        done = 0
        try:
            while done < len(data):
                done += os.write(self._descriptor, data[done:])
            end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
            if end - done != self._end:  # the first one, or another program has written in between
                self._start = end - done
            self._end = end
            return True
        except OSError as error:
            self._errno = error.errno or 0
            if done:
                self._cut(done)
            return False

    def _cut(self, size: int) -> None:
        """Remove the last `size` bytes that were written, unless another program has written after them."""
        with contextlib.suppress(OSError):
            end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
            if os.fstat(self._descriptor).st_size == end:
                os.ftruncate(self._descriptor, end - size)
                os.lseek(self._descriptor, end - size, os.SEEK_SET)

    def _write_missing_line(self) -> None:
        if not self._unreported:
            return
        if not self._is_regular:
            self._write_queued(b"", 0)
            return
        number = self._errno
        if not self._append(self._note()):
            self._errno = number
            if not self._is_binary:
                self._cut_lines(len(self._note()) + 1)  # one more digit
                self._append(self._note())

    def _cut_lines(self, size: int) -> None:
        """Remove the last lines of at least `size` bytes, but none of another program, nor the first one."""
        with contextlib.suppress(OSError):
            if os.lseek(self._descriptor, 0, os.SEEK_CUR) != self._end:
                return
            reader = os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                start = max(self._start, self._end - _MAX_CUT)
                tail = os.pread(reader, self._end - start, start)
            finally:
                os.close(reader)
            kept = tail.rfind(b"\n", 0, max(0, len(tail) - size)) + 1
            if kept:
                self._cut(len(tail) - kept)
                self._end -= len(tail) - kept
                self._count_missing(tail.count(b"\n", kept), self._errno)
                if self._note_lines and self._end <= self._note_start:  # report its lines again
                    self._missing -= 1  # the note is none of the missing lines
                    self._unreported += self._note_lines - 1
                    self._note_lines = 0

    def _note(self) -> bytes:
        note = self._missing_line(self._unreported, _reason(self._errno))
        return note if isinstance(note, bytes) else note.encode()

    def _count_missing(self, lines: int, number: int) -> None:
        self._missing += lines
        self._unreported += lines
        self._errno = number

    # Pipes, sockets and devices

    def _open_nonblocking(self) -> int:
        """Return a descriptor whose writes do not block, or the given one if there is none."""
        mode = os.fstat(self._descriptor).st_mode
        with contextlib.suppress(OSError):  # ENXIO: no reader; EACCES; no /proc
            if stat.S_ISSOCK(mode):
                self._socket = socket.socket(fileno=os.dup(self._descriptor))
            elif stat.S_ISFIFO(mode) or os.isatty(self._descriptor):
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
                descriptor = os.open(f"/proc/self/fd/{self._descriptor}", flags)
                self._owned.append(descriptor)
                return descriptor
        return self._descriptor

    def _write_queued(self, data: bytes, records: int) -> bool:
        """Write or queue lines, after the number of missing ones if there is room again."""
        self._drain()
        if self._unreported and self._queue_size < self._queue_bytes // 2:
            self._enqueue(self._note(), 1)
            unreported, self._unreported = self._unreported, 0
            if not self._drain():
                self._missing -= 1  # the note is none of the missing lines
                self._unreported += unreported - 1
        if self._queue_size + len(data) > self._queue_bytes:
            self._count_missing(records, errno.EAGAIN)
            return False
        if data:
            self._enqueue(data, records)
        before = self._missing
        self._drain()
        if self._queue and self._thread is None:
            self._thread = threading.Thread(target=self._drain_in_thread, name="bothends-log", daemon=True)
            self._thread.start()
        return self._missing == before

    def _enqueue(self, data: bytes, records: int) -> None:
        self._queue.append((data, records))
        self._queue_size += len(data)
        self._queued += records

    def _clear_queue(self) -> None:
        self._queue.clear()
        self._queue_size = 0

    def _drain(self) -> bool:
        """Write as much of the queue as possible now. Returns whether there was no error."""
        try:
            while self._queue:
                data, records = self._queue[0]
                done = self._send(data)
                self._queue_size -= done
                if done < len(data):
                    self._queue[0] = data[done:], records
                else:
                    self._queue.popleft()
                    self._queued -= records
        except BlockingIOError:
            return True
        except OSError as error:  # EPIPE: the reader has closed it
            lost = sum(records for _, records in self._queue)
            self._queued -= lost
            self._clear_queue()
            self._count_missing(lost, error.errno or 0)
            return False
        return True

    def _send(self, data: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if self._nonblocking == self._descriptor:
            # Without O_NONBLOCK only a write of at most PIPE_BUF bytes to a writable pipe does not block.
            data = data[: select.PIPE_BUF]
            if not self._wait_writable(0):
                raise BlockingIOError
        return os.write(self._nonblocking, data)

    def _wait_writable(self, milliseconds: int) -> bool:
        poller = select.poll()
        poller.register(self._nonblocking, select.POLLOUT)
        return bool(poller.poll(milliseconds))

    def _drain_in_thread(self) -> None:
        while True:
            self._wait_writable(_WAIT)
            with self._reporting():
                self._drain()
                if is_done := not self._queue:
                    self._thread = None
                    if self._unreported:
                        self._write_queued(b"", 0)
            if is_done:
                return


def divide_lines(data: bytes, size: int) -> list[bytes]:
    """Divide whole lines into parts of whole lines, of at most `size` bytes where a line is not longer."""
    parts: list[bytes] = []
    start = 0
    while start < len(data):
        end = data.rfind(b"\n", start, start + size) + 1 or data.find(b"\n", start) + 1 or len(data)
        parts.append(data[start:end])
        start = end
    return parts


def _reason(number: int) -> str:
    return "its reader does not read" if number == errno.EAGAIN else errno_text(number)
