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
from bothends.errors import SystemRefused
from bothends.sockets.connecting import open_connection
from bothends.sockets.listener import Listener
from bothends.sockets.listening import open_listeners
from bothends.sockets.unix import remover

# The kernel passes 253 descriptors with one message (SCM_MAX_FD).
MOST: Final = 253

# Both ends are on this machine and do nothing in between: who takes longer has stopped.
PATIENCE: Final = 10.0

_SERVING: Final = b"serving"
_YOURS: Final = b"yours"
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Inheritance:
    """What the process before us handed over. `claim` what is wanted, then `confirm` or `close`."""

    def __init__(self, line: socket.socket, listeners: list[Listener]) -> None:
        self._line = line
        self._listeners = listeners

    def claim(self, endpoint: Endpoint) -> list[Listener]:
        """The listeners that were opened for this endpoint, now the caller's; [] if there are none."""
        claimed = [each for each in self._listeners if each.asked == endpoint]
        self._listeners = [each for each in self._listeners if each.asked != endpoint]
        return claimed

    def confirm(self) -> None:
        """We serve now: the old process may leave. What was not claimed is closed.

        Raises SystemRefused when the old process has gone without a word, which does no harm.
        """
        try:
            self._line.send(_SERVING)
            self._line.recv(len(_YOURS))
        except OSError as error:
            raise SystemRefused("confirm", "a takeover", error.errno or 0) from error
        finally:
            self.close()

    def close(self) -> None:
        """Give back what was not claimed. The old process goes on, if it wasn't told otherwise."""
        self._line.close()
        for listener in self._listeners:
            listener.socket.close()
        self._listeners = []


def take_over(path: str) -> Inheritance | None:
    """Ask whoever serves at `path` for its listeners; None where nobody does.

    Raises SystemRefused where somebody is there who doesn't hand over.
    """
    where = Endpoint("unix+seqpacket", path=path)
    try:
        line = open_connection(where, timeout=PATIENCE)
    except SystemRefused as refused:
        if isinstance(refused.__cause__, FileNotFoundError | ConnectionRefusedError):
            return None
        raise
    line.settimeout(PATIENCE)
    try:
        data, descriptors, _, _ = socket.recv_fds(line, 64 * 1024, MOST)
    except OSError as error:
        line.close()
        raise SystemRefused("take over from", path, error.errno or 0) from error
    if not data:
        line.close()
        hint = "it serves as another user, or is no server of ours"
        raise SystemRefused("take over from", path, 0, hint)
    return Inheritance(line, [_revived(*each) for each in zip(json.loads(data), descriptors, strict=True)])


@contextlib.contextmanager
def offering(path: str, listeners: Sequence[Listener], on_taken: Callable[[], None]) -> Iterator[None]:
    """While inside, hand the listeners to a new process that asks at `path`.

    `on_taken` is called, in a thread of its own, when it serves: time to leave. The files of UNIX
    sockets are then the new process's to remove.

    Raises SystemRefused where the path can't be bound.
    """
    (desk,) = open_listeners(Endpoint("unix+seqpacket", path=path, options=(("mode", 0o600),)))
    ours, theirs = socket.socketpair()
    thread = threading.Thread(
        target=_serve_heirs, args=(desk, listeners, on_taken, theirs), name="bothends-takeover", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        ours.close()
        thread.join()
        theirs.close()
        desk.close()


def _serve_heirs(
    desk: Listener, listeners: Sequence[Listener], on_taken: Callable[[], None], over: socket.socket
) -> None:
    import select

    poller = select.poll()
    poller.register(desk.socket, select.POLLIN)
    poller.register(over, select.POLLIN)
    while over.fileno() not in dict(poller.poll()):
        with contextlib.suppress(OSError), desk.socket.accept()[0] as line:
            line.settimeout(PATIENCE)
            if _is_one_of_us(line) and _hand_over(line, listeners):
                desk.close()  # the path is free, before the heir is told so
                line.send(_YOURS)
                for listener in listeners:
                    listener.remove = None
                on_taken()
                return


def _hand_over(line: socket.socket, listeners: Sequence[Listener]) -> bool:
    """Send everything; whether the heir serves now."""
    estate = [(str(each.asked), str(each.endpoint), each.role) for each in listeners]
    socket.send_fds(line, [json.dumps(estate).encode()], [each.fileno() for each in listeners])
    return line.recv(len(_SERVING)) == _SERVING


def _is_one_of_us(line: socket.socket) -> bool:
    answer = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(answer)
    return uid in (os.geteuid(), 0)


def _revived(described: Sequence[str], descriptor: int) -> Listener:
    asked, real, role = described
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    endpoint = Endpoint.parse(real)
    remove = remover(endpoint) if endpoint.is_unix and not endpoint.is_abstract else None
    return Listener(
        endpoint, sock, "datagrams" if role == "datagrams" else "listener", Endpoint.parse(asked), remove
    )
