"""Names of UNIX sockets, and the files that they leave.

The file of a UNIX socket outlives its server: close(2) does not remove it, and bind(2) then answers
EADDRINUSE although nobody is there. So a stale file is replaced, a live one never, and nothing that isn't
a socket is ever removed.

Who is alive? connect(2) from a datagram socket tells without disturbing anybody: ECONNREFUSED where no
socket has the file, EPROTOTYPE where a socket of another type has it, bound or listening, and success for
another datagram socket. (A stream probe would be accepted as a connection, and would take a server between
its bind and its listen for stale.)

Between finding a file stale and binding, another starter may do the same, and remove what we just made. So
that stretch is done under flock(2) on the directory, which leaves no file behind; it is advisory, so it
keeps apart only those who ask for it, as every bothends does. The alternative, to bind a name of its own
and rename it over the old one, is atomic against everybody, but the kernel remembers the name that was
bound: peers, logs and ss(8) would show that one.
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

# Anyone who may read a directory may lock it for ever: so wait a little, not longer.
_LOCK_TIMEOUT: Final = 1.0  # seconds
_LOCK_RETRY_INTERVAL: Final = 0.01  # seconds


def unix_name(endpoint: Endpoint) -> bytes:
    """The name as the kernel takes it: a path, NUL and an abstract name, or nothing (the kernel picks one).

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
    """Bind a socket to the name of an endpoint; gives what removes the file again, if there is one.

    Option `mode`: bind(2) makes the file with the mode of the socket's own inode, less the umask. So
    fchmod(2) on the socket before bind leaves no moment in which the file is wider than asked, and touches
    no other thread, as changing the umask would. Where the umask took away what was asked for, chmod(2) gives
    it back afterwards.

    Raises SystemRefused.
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
        # The working directory may be another one when the file is removed.
        remove = _make_unlink(os.path.abspath(name))  # noqa: PTH100 - pathlib knows no bytes
        try:
            if mode is not None and stat.S_IMODE(os.lstat(name).st_mode) != mode:
                os.chmod(name, mode)  # noqa: PTH101
        except OSError:
            remove()
            raise
    except OSError as error:
        raise call_error("bind", endpoint, error) from error
    return remove


def make_unlink(endpoint: Endpoint) -> Callable[[], None] | None:
    """What removes the file of a socket that is bound already; None where it has no file any more."""
    try:
        return _make_unlink(os.path.abspath(unix_name(endpoint)))  # noqa: PTH100 - pathlib knows no bytes
    except OSError:
        return None


def _replace_stale(sock: socket.socket, name: bytes, endpoint: Endpoint, error: OSError) -> None:
    """Bind where a file is in the way: replace it if it is a stale socket.

    Raises SystemRefused EADDRINUSE, which says what is there; OSError.
    """
    with _directory_lock(name) as locked:
        while True:
            try:
                found = os.lstat(name)
            except FileNotFoundError:
                pass
            else:
                if not stat.S_ISSOCK(found.st_mode):
                    hint = "there is a file of that name, and no socket: it is left alone"
                    raise SystemCallFailed("bind", endpoint.label, errno.EADDRINUSE, hint) from error
                if not _is_stale(name):
                    hint = hint_for("bind", endpoint, errno.EADDRINUSE)
                    raise SystemCallFailed("bind", endpoint.label, errno.EADDRINUSE, hint) from error
                if not locked:
                    hint = "the socket is stale, but its directory cannot be locked: remove the file by hand"
                    raise SystemCallFailed("bind", endpoint.label, errno.EADDRINUSE, hint) from error
                os.unlink(name)  # noqa: PTH108
            try:
                sock.bind(name)
            except OSError as again:
                # Somebody else came in between, and is alive now, which the next turn finds.
                if again.errno != errno.EADDRINUSE:
                    raise
            else:
                return


def _is_stale(name: bytes) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(name)
        except OSError as error:
            # Everything else means life, or that we may not know (EACCES): then it isn't ours to remove.
            return error.errno == errno.ECONNREFUSED
    return False


@contextlib.contextmanager
def _directory_lock(name: bytes) -> Iterator[bool]:
    """Hold the directory of a socket; False where it can't be had in _LOCK_WAIT."""
    try:
        # Reading is all that flock needs; a directory that we may not read goes without.
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
    """What removes the file, if it is still the one that was made, in the process that made it.

    Call it before the socket is closed: as long as the socket lives, nobody replaces its file.
    """
    made = os.lstat(path)
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() != owner:  # a forked child shares the socket, and the parent still serves there
            return
        with contextlib.suppress(OSError):
            found = os.lstat(path)
            if (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
                os.unlink(path)  # noqa: PTH108

    return remove
