"""Handing listeners to a new process, so that a server is replaced and no connection refused.

The kernel counts who holds a listening socket, and goes on queueing connections as long as anyone does.
So the old process sends copies of its descriptors to the new one (SCM_RIGHTS, unix(7)), over a UNIX socket
at a path that both know; the new one serves; and only when it has said so does the old one close its own
and drain. If the new one dies before that, nothing has changed.

    new: connect ──────────────────────────> old: who is it? (SO_PEERCRED: the same user, or root)
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

# The kernel passes 253 descriptors with one message (SCM_MAX_FD).
MAX_DESCRIPTORS: Final = 253

# Both ends are on this machine and do nothing in between: who takes longer has stopped.
TIMEOUT: Final = 10.0

_SERVING: Final = b"serving"
_RELEASED: Final = b"yours"
_UCRED: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid


class ListenerHandover:
    """What the process before us handed over. `claim` what is wanted, then `confirm` or `close`."""

    def __init__(self, connection: socket.socket, listeners: list[Listener]) -> None:
        self._connection = connection
        self._listeners = listeners

    def claim(self, endpoint: Endpoint) -> list[Listener]:
        """The listeners that were opened for this endpoint, now the caller's; [] if there are none."""
        claimed = [each for each in self._listeners if each.requested_endpoint == endpoint]
        self._listeners = [each for each in self._listeners if each.requested_endpoint != endpoint]
        return claimed

    def confirm(self) -> None:
        """We serve now: the old process may leave. What was not claimed is closed.

        Raises SystemRefused when the old process has gone without a word, which does no harm.
        """
        try:
            self._connection.send(_SERVING)
            self._connection.recv(len(_RELEASED))
        except OSError as error:
            raise SystemCallFailed("confirm", "a takeover", error.errno or 0) from error
        finally:
            self.close()

    def close(self) -> None:
        """Give back what was not claimed. The old process goes on, if it wasn't told otherwise."""
        self._connection.close()
        for listener in self._listeners:
            listener.socket.close()
        self._listeners = []


def request_listeners(path: str) -> ListenerHandover | None:
    """Ask whoever serves at `path` for its listeners; None where nobody does.

    Raises SystemRefused where somebody is there who doesn't hand over.
    """
    where = Endpoint("unix+seqpacket", path=path)
    try:
        line = open_connection(where, timeout=TIMEOUT)
    except SystemCallFailed as refused:
        if isinstance(refused.__cause__, FileNotFoundError | ConnectionRefusedError):
            return None
        raise
    line.settimeout(TIMEOUT)
    try:
        data, descriptors, _, _ = socket.recv_fds(line, 64 * 1024, MAX_DESCRIPTORS)
    except OSError as error:
        line.close()
        raise SystemCallFailed("take over from", path, error.errno or 0) from error
    if not data:
        line.close()
        hint = "it serves as another user, or is no server of ours"
        raise SystemCallFailed("take over from", path, 0, hint)
    return ListenerHandover(
        line, [_rebuild_listener(*each) for each in zip(json.loads(data), descriptors, strict=True)]
    )


@contextlib.contextmanager
def serve_handover(
    path: str, listeners: Sequence[Listener], on_handover: Callable[[], None]
) -> Iterator[None]:
    """While inside, hand the listeners to a new process that asks at `path`.

    `on_handover` is called, in a thread of its own, when it serves: time to leave. The files of UNIX
    sockets are then the new process's to remove.

    Raises SystemRefused where the path can't be bound.
    """
    (desk,) = open_listeners(Endpoint("unix+seqpacket", path=path, options=(("mode", 0o600),)))
    ours, theirs = socket.socketpair()
    thread = threading.Thread(
        target=_handover_thread,
        args=(desk, listeners, on_handover, theirs),
        name="bothends-takeover",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        ours.close()
        thread.join()
        theirs.close()
        desk.close()


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
        with contextlib.suppress(OSError), handover_listener.socket.accept()[0] as line:
            line.settimeout(TIMEOUT)
            if _is_trusted_peer(line) and _send_listeners(line, listeners):
                handover_listener.close()  # the path is free, before the heir is told so
                line.send(_RELEASED)
                for listener in listeners:
                    listener.unlink = None
                on_handover()
                return


def _send_listeners(connection: socket.socket, listeners: Sequence[Listener]) -> bool:
    """Send everything; whether the heir serves now."""
    estate = [(str(each.requested_endpoint), str(each.endpoint), each.role) for each in listeners]
    socket.send_fds(connection, [json.dumps(estate).encode()], [each.fileno() for each in listeners])
    return connection.recv(len(_SERVING)) == _SERVING


def _is_trusted_peer(connection: socket.socket) -> bool:
    answer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(answer)
    return uid in (os.geteuid(), 0)


def _rebuild_listener(description: Sequence[str], descriptor: int) -> Listener:
    asked, real, role = description
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    endpoint = Endpoint.parse(real)
    remove = make_unlink(endpoint) if endpoint.is_unix and not endpoint.is_abstract else None
    return Listener(
        endpoint, sock, "datagrams" if role == "datagrams" else "listener", Endpoint.parse(asked), remove
    )
