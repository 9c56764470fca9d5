"""What programs read and write with OpenSSL's libssl, before it is encrypted: uprobes, for root.

    libssl ──> uprobes ──> ring buffer ──> `_bpf.TlsProbes` ──> TlsSource.read() ──> TlsRecord

1. The probes in native/bpf/tls.bpf.c are attached to files: to the system's libssl before the first program
   starts, to other copies (in a container, in an environment of Python's, within an executable) when a
   process is found to map one. /proc/PID/maps is read soon after a process has started another program, and
   less and less often later.
2. A process is traced from its creation, if bothends or a traced process created it. Others are added.
3. A library without these functions is not seen: Go, Java, GnuTLS, NSS, and programs that use OpenSSL's
   BIO_f_ssl, which calls neither SSL_read nor SSL_write. What is not seen is said (`tls_calls.py`).
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from bothends.errors import Unavailable
from bothends.trace.capture.schedule import LookSchedule

# In the order of enum tls_function in native/bpf/tls_records.h.
FUNCTIONS: Final = ("SSL_read", "SSL_read_ex", "SSL_write", "SSL_write_ex", "SSL_set_fd", "")
TLS_READS: Final = frozenset({"SSL_read", "SSL_read_ex"})
TLS_WRITES: Final = frozenset({"SSL_write", "SSL_write_ex"})
TLS_CALLS: Final = TLS_READS | TLS_WRITES

MAX_FILES: Final = 10_000  # that are remembered
_SYSTEM_LIBRARIES: Final = (
    "/usr/lib/libssl.so*", "/usr/lib/*/libssl.so*", "/usr/lib64/libssl.so*", "/usr/local/lib*/libssl.so*",
    "/lib/*/libssl.so*", "/lib64/libssl.so*",
)  # fmt: skip
# A line of /proc/PID/maps (proc(5)) with an executable mapping of a file: device, inode, path.
_MAPPING: Final = re.compile(rb"[0-9a-f]+-[0-9a-f]+ ..x. [0-9a-f]+ ([0-9a-f:]+) (\d+) +(/.*)")
_LIBRARY: Final = re.compile(rb"[^/]*(ssl|libnode|conscrypt)[^/]*\Z")


class TlsRecord(NamedTuple):
    """A call of a function of libssl that has moved data. Times in nanoseconds; `ssl` identifies the session.

    `size` is the number of bytes, `data` the first of them. Of SSL_set_fd, `size` is the descriptor.
    """

    function: str
    process: int  # pid
    thread: int
    at: int
    until: int
    ssl: int
    size: int
    data: bytes


def _open_probes() -> Any:
    try:
        module = importlib.import_module("bothends.trace.capture._bpf")
    except ImportError as error:
        raise Unavailable(
            "see",
            "TLS in plain text",
            reason="bothends was built without eBPF",
            hint="install clang, libbpf-dev, libelf-dev and zlib1g-dev, and install bothends again",
        ) from error
    try:
        return module.TlsProbes()
    except OSError as error:
        is_denied = error.errno in (errno.EPERM, errno.EACCES)
        hint = "run as root" if is_denied else "it needs Linux 6.1 with uprobes and BTF"
        raise Unavailable("see", "TLS in plain text", error.errno or 0, hint) from error


class TlsSource:
    """The probes, and what they have seen. Close it, or use it in a with statement.

    `attached` are the files with probes.

    Raises:
        Unavailable: missing privilege, an older kernel, or an extension that was not built.
    """

    def __init__(self) -> None:
        self._probes = _open_probes()
        self._known: dict[tuple[bytes, bytes], None] = {}  # device and inode of the files that were looked at
        self._schedule = LookSchedule()
        self.attached: list[str] = []
        for path in _system_libraries():
            self.attach(path)

    def __enter__(self) -> TlsSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the probes. Idempotent."""
        self._probes.close()

    def fileno(self) -> int:
        """Return the descriptor that is readable when there are new records."""
        return int(self._probes.fileno())

    def attach(self, path: str) -> bool:
        """Attach to a file, if it has functions of libssl. Returns whether it has."""
        with contextlib.suppress(OSError):  # not an ELF file, or it is gone
            if self._probes.attach(path):
                self.attached.append(path)
                return True
        return False

    def attach_program(self, path: str) -> None:
        """Attach to an executable that is about to be started, if libssl is linked into it."""
        with contextlib.suppress(OSError):
            status = Path(path).stat()
            if self._is_new(_device_text(status.st_dev), b"%d" % status.st_ino):
                self.attach(path)

    @contextlib.contextmanager
    def spawning(self) -> Iterator[None]:
        """Trace the processes that this thread starts."""
        self._probes.spawn(True)
        try:
            yield
        finally:
            self._probes.spawn(False)

    def look(self, pids: Iterable[int], started: Iterable[int] = ()) -> float:
        """Trace these processes, and look for the libraries that they map, as far as it is time to.

        `started` are those that have started another program since.

        Returns: seconds until the next look.
        """
        for pid in started:
            self._schedule.restart(pid)
        wanted = list(pids)
        for pid in wanted:
            if not self._schedule.knows(pid):
                with contextlib.suppress(OSError):  # too many
                    self._probes.follow(pid)
        due, delay = self._schedule.due(wanted)
        for pid in due:
            self._attach_libraries(pid)
        return delay

    def _attach_libraries(self, pid: int) -> None:
        try:
            maps = Path(f"/proc/{pid}/maps").read_bytes()
            program = os.fsencode(Path(f"/proc/{pid}/exe").readlink())
        except OSError:
            return  # it has exited
        for line in maps.splitlines():
            found = _MAPPING.match(line)
            if found is None or not (found[3] == program or _LIBRARY.search(found[3])):
                continue
            if self._is_new(found[1], found[2]):
                self.attach(f"/proc/{pid}/root" + os.fsdecode(found[3]))

    def _is_new(self, device: bytes, inode: bytes) -> bool:
        if (device, inode) in self._known or len(self._known) > MAX_FILES:
            return False
        self._known[device, inode] = None
        return True

    def read(self) -> list[TlsRecord]:
        """Return what has been seen since the last call. Never blocks."""
        found = []
        for number, *fields in self._probes.read():
            record = TlsRecord(FUNCTIONS[number], *fields)
            if record.function:
                found.append(record)
            else:
                self._schedule.restart(record.process)
        return found

    def count_lost(self) -> int:
        """Return how many records are missing."""
        return int(self._probes.count_lost())


def _device_text(device: int) -> bytes:
    return b"%02x:%02x" % (os.major(device), os.minor(device))


def _system_libraries() -> list[str]:
    """Return the files of libssl of this system, each once."""
    found: dict[tuple[int, int], str] = {}
    for pattern in _SYSTEM_LIBRARIES:
        for path in sorted(Path("/").glob(pattern[1:])):
            with contextlib.suppress(OSError):
                status = path.stat()
                found.setdefault((status.st_dev, status.st_ino), str(path))
    return list(found.values())
