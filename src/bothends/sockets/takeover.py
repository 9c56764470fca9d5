"""Hand listeners over to a new process, so that a server can be replaced without refusing a connection.

The kernel counts the references to a listening socket and keeps queueing connections while any process holds
one. So the old process sends copies of its descriptors to the new one (SCM_RIGHTS, unix(7)), over a UNIX
socket at a path that both know; the new process serves and confirms it; then the old process closes
its own descriptors and drains. If the new process exits before that, nothing has changed.

    new: connect ──────────────────────────> old: check the peer (SO_PEERCRED: the same user, or root)
         <──── one message: endpoints as JSON, with the descriptors
         serve, then "serving" ────────────> stop listening at the path, then "yours"
         listen at the path <──────────────  drain
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from bothends.endpoints import Endpoint
from bothends.errors import SystemCallFailed
from bothends.sockets.connecting import open_connection
from bothends.sockets.listener import Listener
from bothends.sockets.listening import open_listeners
from bothends.sockets.unix import make_unlink

# The kernel passes at most 253 descriptors with one message (SCM_MAX_FD).
MAX_DESCRIPTORS: Final = 253

# Seconds. Both ends are on this machine and do nothing in between, so a slower peer is hung.
TIMEOUT: Final = 10.0

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

    Raises SystemCallFailed if the server does not hand them over.
    """
    endpoint = Endpoint("unix+seqpacket", path=path)
    try:
        connection = open_connection(endpoint, timeout=TIMEOUT)
    except SystemCallFailed as error:
        if isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError):
            return None
        raise
    connection.settimeout(TIMEOUT)
    try:
        data, descriptors, _, _ = socket.recv_fds(connection, 64 * 1024, MAX_DESCRIPTORS)
    except OSError as error:
        connection.close()
        raise SystemCallFailed("take over from", path, error.errno or 0) from error
    if not data:
        connection.close()
        hint = "the server runs as another user, or is not a bothends server"
        raise SystemCallFailed("take over from", path, 0, hint)
    return ListenerHandover(
        connection,
        [_rebuild_listener(*each) for each in zip(json.loads(data), descriptors, strict=True)],
    )


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
    descriptions = [(str(each.requested_endpoint), str(each.endpoint), each.role) for each in listeners]
    socket.send_fds(connection, [json.dumps(descriptions).encode()], [each.fileno() for each in listeners])
    return connection.recv(len(_SERVING)) == _SERVING


def _is_trusted_peer(connection: socket.socket) -> bool:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(credentials)
    return uid in (os.geteuid(), 0)


def _rebuild_listener(description: Sequence[str], descriptor: int) -> Listener:
    requested, bound, role = description
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    endpoint = Endpoint.parse(bound)
    unlink = make_unlink(endpoint) if endpoint.is_unix and not endpoint.is_abstract else None
    return Listener(
        endpoint, sock, "datagrams" if role == "datagrams" else "listener", Endpoint.parse(requested), unlink
    )
