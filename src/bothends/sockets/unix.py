"""Names of UNIX sockets, and the files they leave behind.

The file of a UNIX socket outlives its server: close(2) does not remove it, and bind(2) then fails with
EADDRINUSE although no process has the socket open. So a stale file is replaced, a file in use never, and
nothing but a socket is ever removed.

To detect a stale file, connect(2) from a datagram socket, which does not disturb a server: ECONNREFUSED if no
socket has the file, EPROTOTYPE if a socket of another type has it, bound or listening, and success for
another datagram socket. (A stream probe would be accepted as a connection, and would mistake a server between
its bind and its listen for stale.)

Between the probe and the bind, another starting server may do the same and remove our new file. So this
section runs under flock(2) on the directory, which leaves no file behind. The lock is advisory: it excludes
only programs that take it, as every bothends does. The alternative, binding a temporary name and renaming it
over the old one, is atomic for all programs, but the kernel remembers the name that was bound: peers, logs
and ss(8) would show the temporary name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from typing import Final

from bothends.endpoints import Endpoint
from bothends.errors import SystemCallFailed
from bothends.sockets.socket_errors import call_error, hint_for

# sun_path of struct sockaddr_un has 108 bytes, the last of which ends a path (unix(7)).
_SUN_PATH_SIZE: Final = 108

# Any user who can read a directory can hold its lock indefinitely, so the wait is bounded.
_LOCK_TIMEOUT: Final = 1.0  # seconds
_LOCK_RETRY_INTERVAL: Final = 0.01  # seconds


def unix_name(endpoint: Endpoint) -> bytes:
    """Return the name in the kernel's form: a path, NUL and an abstract name, or b"" (autobind, unix(7)).

    Raises OSError ENAMETOOLONG.
    """
    name = endpoint.path.encode("utf-8", "surrogateescape")
    if name == b"@":
        return b""
    if endpoint.is_abstract:
        name = b"\0" + name[1:]
    if len(name) > _SUN_PATH_SIZE - (not endpoint.is_abstract):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return name


def bind_unix(sock: socket.socket, endpoint: Endpoint) -> Callable[[], None] | None:
    """Bind a socket to the name of an endpoint, replacing a stale file.

    Option `mode`: bind(2) creates the file with the mode of the socket's own inode, minus the umask. So
    fchmod(2) on the socket before bind means that the permissions are never wider than requested, and unlike
    changing the umask it does not affect other threads. chmod(2) afterwards restores bits that the umask
    removed.

    Returns: a function that removes the file again, or None for an abstract name.

    Raises SystemCallFailed.
    """
    try:
        name = unix_name(endpoint)
        if not name or name.startswith(b"\0"):
            sock.bind(name)
            return None
        mode = endpoint.number("mode")
        if mode is not None:
            os.fchmod(sock.fileno(), mode)
        try:
            sock.bind(name)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _replace_stale(sock, name, endpoint, error)
        # Absolute, because the working directory may change before the file is removed.
        unlink = _make_unlink(os.path.abspath(name))  # noqa: PTH100 - pathlib does not support bytes
        try:
            if mode is not None and stat.S_IMODE(os.lstat(name).st_mode) != mode:
                os.chmod(name, mode)  # noqa: PTH101
        except OSError:
            unlink()
            raise
    except OSError as error:
        raise call_error("bind", endpoint, error) from error
    return unlink


def make_unlink(endpoint: Endpoint) -> Callable[[], None] | None:
    """Return a function that removes the file of a bound socket; None if the file no longer exists."""
    try:
        return _make_unlink(os.path.abspath(unix_name(endpoint)))  # noqa: PTH100 - pathlib does not support bytes
    except OSError:
        return None


def _replace_stale(sock: socket.socket, name: bytes, endpoint: Endpoint, error: OSError) -> None:
    """Bind a name for which a file exists: replace the file if it is a stale socket.

    Raises SystemCallFailed EADDRINUSE with a hint that describes the file, and OSError.
    """
    with _directory_lock(name) as locked:
        while True:
            try:
                found = os.lstat(name)
            except FileNotFoundError:
                pass
            else:
                if not stat.S_ISSOCK(found.st_mode):
                    hint = "a file of that name exists that is not a socket: it is left alone"
                    raise SystemCallFailed("bind", endpoint.label, errno.EADDRINUSE, hint) from error
                if not _is_stale(name):
                    hint = hint_for("bind", endpoint, errno.EADDRINUSE)
                    raise SystemCallFailed("bind", endpoint.label, errno.EADDRINUSE, hint) from error
                if not locked:
                    hint = "the socket is stale, but its directory cannot be locked: remove the file manually"
                    raise SystemCallFailed("bind", endpoint.label, errno.EADDRINUSE, hint) from error
                os.unlink(name)  # noqa: PTH108
            try:
                sock.bind(name)
            except OSError as bind_error:
                # EADDRINUSE: another server has bound the name meanwhile; the next iteration probes it.
                if bind_error.errno != errno.EADDRINUSE:
                    raise
            else:
                return


def _is_stale(name: bytes) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(name)
        except OSError as error:
            # Any other error means that the socket is in use, or that its state cannot be checked (EACCES).
            return error.errno == errno.ECONNREFUSED
    return False


@contextlib.contextmanager
def _directory_lock(name: bytes) -> Iterator[bool]:
    """Context: lock the directory of a socket. Yields False if _LOCK_TIMEOUT passes without success."""
    try:
        # flock needs only read permission; an unreadable directory is not locked.
        directory = os.open(os.path.dirname(name) or b".", os.O_RDONLY | os.O_DIRECTORY)  # noqa: PTH120
    except OSError:
        yield False
        return
    try:
        yield _lock(directory)
    finally:
        os.close(directory)


def _lock(directory: int) -> bool:
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOCK_RETRY_INTERVAL)
        except OSError:
            return False
        else:
            return True


def _make_unlink(path: bytes) -> Callable[[], None]:
    """Return a function that removes the file, if it is still the same one, in the process that created it.

    Call it before closing the socket: while the socket is open, no other server replaces its file.
    """
    created = os.lstat(path)
    owner = os.getpid()

    def unlink() -> None:
        if os.getpid() != owner:  # a forked child shares the socket, and the parent still serves it
            return
        with contextlib.suppress(OSError):
            found = os.lstat(path)
            if (found.st_dev, found.st_ino) == (created.st_dev, created.st_ino):
                os.unlink(path)  # noqa: PTH108

    return unlink
