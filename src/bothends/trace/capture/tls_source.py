"""What programs read and write with OpenSSL or GnuTLS, before it is encrypted: uprobes, for root.

    libssl, libgnutls ──> uprobes ──> ring buffer ──> `_bpf.TlsProbes` ──> TlsSource.read() ──> TlsRecord

1. The probes in native/bpf/tls.bpf.c are attached to files: to the system's libraries before the first
   program starts, to others (in a container, in an environment of Python's, within an executable) when a
   process is found to map one. /proc/PID/maps is read soon after a process has started another program, and
   less and less often later.
2. A process is traced from its creation, if bothends or a traced process created it. Others are added.
3. What has neither library is not seen: Go, Java, NSS; nor are programs that use OpenSSL's BIO_f_ssl, which
   calls neither SSL_read nor SSL_write. What is not seen is said, and why (`tls_observer.py`).
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
from bothends.trace.model import trim_oldest

# In the order of enum tls_function in native/bpf/tls_records.h.
FUNCTIONS: Final = (
    "SSL_read", "SSL_read_ex", "SSL_write", "SSL_write_ex", "gnutls_record_recv", "gnutls_record_send",
    "SSL_set_fd", "",
)  # fmt: skip
TLS_READS: Final = frozenset({"SSL_read", "SSL_read_ex", "gnutls_record_recv"})
TLS_WRITES: Final = frozenset({"SSL_write", "SSL_write_ex", "gnutls_record_send"})
TLS_CALLS: Final = TLS_READS | TLS_WRITES

MAX_FILES: Final = 10_000  # that are remembered
_SYSTEM_LIBRARIES: Final = tuple(
    f"{folder}/{library}.so*"
    for folder in ("/usr/lib", "/usr/lib/*", "/usr/lib64", "/usr/local/lib*", "/lib/*", "/lib64")
    for library in ("libssl", "libgnutls")
)
# A line of /proc/PID/maps (proc(5)) with an executable mapping of a file: device, inode, path.
_MAPPING: Final = re.compile(rb"[0-9a-f]+-[0-9a-f]+ ..x. [0-9a-f]+ ([0-9a-f:]+) (\d+) +(/.*)")
_LIBRARY: Final = re.compile(rb"[^/]*(ssl|gnutls|libnode|conscrypt)[^/]*\Z")
# A program of Go: the note with its build id, which the linker puts near the start of the file.
_GO_NOTE: Final = b"\x04\0\0\0Go\0\0"
_START_OF_FILE: Final = 8192
# Other implementations of TLS, by the library that has them.
_OTHER_LIBRARIES: Final = {
    b"libjvm.so": "Java has its own TLS",
    b"libnss3.so": "it uses NSS",
    b"libmbedtls.so": "it uses Mbed TLS",
    b"libwolfssl.so": "it uses wolfSSL",
}
NOT_CALLED: Final = "it called no SSL_read() or SSL_write() of OpenSSL, nor those of GnuTLS"


class TlsRecord(NamedTuple):
    """A call of one of `FUNCTIONS` that has moved data. Times in nanoseconds; `ssl` identifies the session.

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
        # Device and inode of the files that were looked at: whether they have functions of these libraries.
        self._known: dict[tuple[bytes, bytes], bool] = {}
        self._reasons: dict[int, str] = {}  # by pid: why its plaintext is not seen
        self._schedule = LookSchedule()
        self.attached: list[str] = []
        for path in _system_libraries():
            self.attach_program(path)

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
        """Attach to a file, if it has functions of libssl or libgnutls. Returns whether it has."""
        with contextlib.suppress(OSError):  # not an ELF file, or it is gone
            if self._probes.attach(path):
                self.attached.append(path)
                return True
        return False

    def attach_program(self, path: str) -> None:
        """Attach to a library, or to an executable about to be started, if it has these functions."""
        with contextlib.suppress(OSError):
            status = Path(path).stat()
            self._attach_once(_device_text(status.st_dev), b"%d" % status.st_ino, path)

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
        has_functions, reason = False, ""
        for line in maps.splitlines():
            found = _MAPPING.match(line)
            if found is None:
                continue
            name = found[3].rpartition(b"/")[2]
            if found[3] == program or _LIBRARY.search(found[3]):
                path = f"/proc/{pid}/root" + os.fsdecode(found[3])
                has_functions |= self._attach_once(found[1], found[2], path)
            for library, text in _OTHER_LIBRARIES.items():
                if name.startswith(library):
                    reason = text
        trim_oldest(self._reasons, MAX_FILES)
        if has_functions:
            self._reasons[pid] = NOT_CALLED
        else:
            self._reasons[pid] = reason or _reason_of_program(pid)

    def why_not_seen(self, pid: int) -> str:
        """Return why the plaintext of a process is not seen, if no record of it came."""
        return self._reasons.get(pid, NOT_CALLED)

    def _attach_once(self, device: bytes, inode: bytes, path: str) -> bool:
        """Attach to a file, unless that was tried before. Returns whether it has these functions."""
        known = self._known.get((device, inode))
        if known is None and len(self._known) <= MAX_FILES:
            known = self._known[device, inode] = self.attach(path)
        return bool(known)

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


def _reason_of_program(pid: int) -> str:
    with contextlib.suppress(OSError), Path(f"/proc/{pid}/exe").open("rb") as file:
        if _GO_NOTE in file.read(_START_OF_FILE):
            return "Go has its own TLS"
    return "it maps neither libssl nor libgnutls"


def _system_libraries() -> list[str]:
    """Return the files of libssl and libgnutls of this system, each once."""
    found: dict[tuple[int, int], str] = {}
    for pattern in _SYSTEM_LIBRARIES:
        for path in sorted(Path("/").glob(pattern[1:])):
            with contextlib.suppress(OSError):
                status = path.stat()
                found.setdefault((status.st_dev, status.st_ino), str(path))
    return list(found.values())
