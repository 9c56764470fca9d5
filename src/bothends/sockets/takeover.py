"""Hand listeners over to a new process, so that a server can be replaced without refusing a connection.

The kernel counts the references to a listening socket and keeps queueing connections while any process holds
one. So the old process sends copies of its descriptors to the new one (SCM_RIGHTS, unix(7)), over a UNIX
socket at a path that both know; the new process serves and confirms it; then the old process closes
its own descriptors and drains. If the new process exits before that, nothing has changed.

    new: connect, check the peer ──────────> old: check the peer (SO_PEERCRED: the same user, or root)
         <──── one message: endpoints as JSON, with the descriptors
         serve, then "serving" ────────────> stop listening at the path, then "yours"
         listen at the path <──────────────  drain

Each end trusts only its own user and root: a process of another user would keep a copy of the listener that
it sends, and could accept the clients of the new server. SO_PEERCRED is the user that listened or connected,
whatever has happened to the file since. The owner of the file is checked first, because in a folder that
others can write to, the file may be theirs, and its owner is then told. Everything in a message is checked
before use.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bothends.endpoints import Endpoint
from bothends.errors import BothendsError, SystemCallFailed
from bothends.sockets.connecting import open_connection
from bothends.sockets.listener import Listener
from bothends.sockets.listening import open_listeners
from bothends.sockets.unix import make_unlink

# The kernel passes at most 253 descriptors with one message (SCM_MAX_FD).
MAX_DESCRIPTORS: Final = 253

# Seconds. Both ends are on this machine and do nothing in between, so a slower peer is hung.
TIMEOUT: Final = 10.0

# Bytes: 253 descriptions, each of two endpoints with the longest path (108 bytes) and options.
_MAX_MESSAGE: Final = 256 * 1024

_SERVING: Final = b"serving"
_RELEASED: Final = b"yours"
_UCRED: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid


class ListenerHandover:
    """The listeners received from the previous process.

    Call `claim` for each endpoint, then `confirm` or `close`.
    """

    def __init__(self, connection: socket.socket, listeners: list[Listener]) -> None:
        self._connection = connection
        self._listeners = listeners

    def claim(self, endpoint: Endpoint) -> list[Listener]:
        """Return the listeners opened for this endpoint, which the caller now owns; [] if there are none."""
        claimed = [each for each in self._listeners if each.requested_endpoint == endpoint]
        self._listeners = [each for each in self._listeners if each.requested_endpoint != endpoint]
        return claimed

    def confirm(self) -> None:
        """Report that the new process serves, so that the old one exits. Closes unclaimed listeners.

        Raises SystemCallFailed if the old process has exited already, which is harmless.
        """
        try:
            self._connection.send(_SERVING)
            self._connection.recv(len(_RELEASED))
        except OSError as error:
            raise SystemCallFailed("confirm", "a takeover", error.errno or 0) from error
        finally:
            self.close()

    def close(self) -> None:
        """Close unclaimed listeners. Without `confirm`, the old process continues to serve."""
        self._connection.close()
        for listener in self._listeners:
            listener.socket.close()
        self._listeners = []


def request_listeners(path: str) -> ListenerHandover | None:
    """Request the listeners of the server at `path`. Returns None if no server listens there.

    Raises SystemCallFailed if the server does not hand them over, belongs to another user, or sends anything
    but listeners. It then continues to serve.
    """
    _check_owner(path)
    endpoint = Endpoint("unix+seqpacket", path=path)
    try:
        connection = open_connection(endpoint, timeout=TIMEOUT)
    except SystemCallFailed as error:
        if isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError):
            return None
        raise
    connection.settimeout(TIMEOUT)
    try:
        if not _is_trusted_peer(connection):
            raise _takeover_error(
                path, errno.EACCES, f"a process of {_user_name(_peer_uid(connection))} listens there"
            )
        return ListenerHandover(connection, _receive_listeners(connection, path))
    except TimeoutError as error:
        connection.close()
        hint = f"the process that listens there has sent nothing for {TIMEOUT:g} s"
        raise _takeover_error(path, errno.ETIMEDOUT, hint) from error
    except OSError as error:
        connection.close()
        raise _takeover_error(path, error.errno or errno.EPROTO, "") from error
    except BaseException:
        connection.close()
        raise


def _receive_listeners(connection: socket.socket, path: str) -> list[Listener]:
    data, descriptors, flags, _ = socket.recv_fds(
        connection, _MAX_MESSAGE, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
    )
    listeners: list[Listener] = []
    try:
        if not data and not descriptors:
            hint = "the process that listens there runs as another user, or is not a bothends server"
            raise _takeover_error(path, errno.ECONNRESET, hint)
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ValueError("the message is too long, or has more descriptors than can be opened")
        descriptions = json.loads(data)
        if not isinstance(descriptions, list) or len(descriptions) != len(descriptors):
            raise ValueError("the message and its descriptors do not match")
        for description in descriptions:
            listeners.append(_rebuild_listener(description, descriptors[len(listeners)]))
    except (ValueError, RecursionError, BothendsError, OSError) as error:
        for listener in listeners:
            listener.socket.close()
        for descriptor in descriptors[len(listeners) :]:
            os.close(descriptor)
        if isinstance(error, SystemCallFailed):
            raise
        hint = f"what listens there does not offer the listeners of a bothends server: {error}"
        raise _takeover_error(path, errno.EPROTO, hint) from error
    return listeners


def _takeover_error(path: str, number: int, hint: str) -> SystemCallFailed:
    return SystemCallFailed("take over from", path, number, hint)


def _check_owner(path: str) -> None:
    """Raise SystemCallFailed if the file at `path` is a socket of another user."""
    try:
        found = os.lstat(path)
    except OSError:
        return  # nothing there; connect(2) reports what else is wrong
    if stat.S_ISLNK(found.st_mode) and found.st_uid not in _trusted_uids():
        raise _takeover_error(path, errno.EACCES, f"it is a symbolic link of {_user_name(found.st_uid)}")
    if stat.S_ISSOCK(found.st_mode) and found.st_uid not in _trusted_uids():
        hint = f"the socket belongs to {_user_name(found.st_uid)}; use a folder that only you can write to"
        raise _takeover_error(path, errno.EACCES, hint)


@contextlib.contextmanager
def serve_handover(
    path: str, listeners: Sequence[Listener], on_handover: Callable[[], None]
) -> Iterator[None]:
    """Context: hand the listeners to a new process that requests them at `path`.

    `on_handover` is called, in a separate thread, once the new process serves: this one should then drain and
    exit. From then on the new process removes the files of UNIX sockets.

    Raises SystemCallFailed if the path cannot be bound.
    """
    (handover_listener,) = open_listeners(Endpoint("unix+seqpacket", path=path, options=(("mode", 0o600),)))
    stop, stopped = socket.socketpair()
    thread = threading.Thread(
        target=_handover_thread,
        args=(handover_listener, listeners, on_handover, stopped),
        name="bothends-takeover",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        stop.close()
        thread.join()
        stopped.close()
        handover_listener.close()


def _handover_thread(
    handover_listener: Listener,
    listeners: Sequence[Listener],
    on_handover: Callable[[], None],
    stop: socket.socket,
) -> None:
    import select

    poller = select.poll()
    poller.register(handover_listener.socket, select.POLLIN)
    poller.register(stop, select.POLLIN)
    while stop.fileno() not in dict(poller.poll()):
        with contextlib.suppress(OSError), handover_listener.socket.accept()[0] as connection:
            connection.settimeout(TIMEOUT)
            if _is_trusted_peer(connection) and _send_listeners(connection, listeners):
                handover_listener.close()  # frees the path before the new process binds it
                connection.send(_RELEASED)
                for listener in listeners:
                    listener.unlink = None
                on_handover()
                return


def _send_listeners(connection: socket.socket, listeners: Sequence[Listener]) -> bool:
    """Send all listeners. Returns whether the new process confirmed that it serves."""
    offered = [each for each in listeners if each.role != "connection"]
    descriptions = [(str(each.requested_endpoint), str(each.endpoint), each.role) for each in offered]
    socket.send_fds(connection, [json.dumps(descriptions).encode()], [each.fileno() for each in offered])
    return connection.recv(len(_SERVING)) == _SERVING


def _is_trusted_peer(connection: socket.socket) -> bool:
    return _peer_uid(connection) in _trusted_uids()


def _peer_uid(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(credentials)[1])


def _trusted_uids() -> tuple[int, int]:
    return os.geteuid(), 0


def _user_name(uid: int) -> str:
    import pwd

    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


def _rebuild_listener(description: Any, descriptor: int) -> Listener:
    """Return a received listener, which owns `descriptor`.

    Raises ValueError, BothendsError or OSError if the description is not that of the descriptor, which then
    stays open.
    """
    if not isinstance(description, list) or not all(isinstance(each, str) for each in description):
        raise ValueError("a description is not a list of texts")
    if len(description) != 3:
        raise ValueError("a description does not have three parts")
    requested, bound, role = description
    endpoint, requested_endpoint = Endpoint.parse(bound), Endpoint.parse(requested)
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        raise ValueError(f"the descriptor for {endpoint.label} is not a socket")
    sock = socket.socket(fileno=descriptor)
    try:
        _check_socket(sock, endpoint, role)
    except BaseException:
        sock.detach()
        raise
    unlink = make_unlink(endpoint) if endpoint.is_unix and not endpoint.is_abstract else None
    return Listener(
        endpoint, sock, "datagrams" if role == "datagrams" else "listener", requested_endpoint, unlink
    )


def _check_socket(sock: socket.socket, endpoint: Endpoint, role: str) -> None:
    """Raise ValueError if a socket cannot be the listener of an endpoint."""
    listening = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    if role not in ("listener", "datagrams"):
        raise ValueError(f"{role!r} is not a role")
    if listening != (role == "listener") or (role == "datagrams" and sock.type != socket.SOCK_DGRAM):
        raise ValueError(f"the socket for {endpoint.label} is not listening, or of another type")
    name = sock.getsockname()
    is_unix = sock.family == socket.AF_UNIX
    actual = Path(os.fsdecode(name)) if is_unix and not endpoint.is_abstract else None
    if endpoint.is_unix != is_unix or (actual is not None and actual != Path(endpoint.path)):
        raise ValueError(f"the socket is not bound to {endpoint.label}")
    if endpoint.port is not None and (not isinstance(name, tuple) or endpoint.port not in name):
        raise ValueError(f"the socket is not bound to {endpoint.label}")
