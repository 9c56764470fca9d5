"""systemd integration: socket activation, notification and the watchdog.

Socket activation (sd_listen_fds(3)): the service manager opens the sockets and starts the program with them
as descriptors 3, 4, ..., on the first connection or earlier. So connections wait in the accept queue while
the program starts, restarts or is replaced, and the program needs no privilege for a low port.

    LISTEN_PID      the process that the descriptors are meant for; a child inherits the variables by accident
    LISTEN_FDS      the number of descriptors
    LISTEN_FDNAMES  their names (FileDescriptorName= in systemd.socket(5)), separated by colons

Notification (sd_notify(3)): datagrams of `NAME=value` lines to the UNIX socket in NOTIFY_SOCKET.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Final

from bothends.endpoints import Endpoint
from bothends.errors import Unavailable
from bothends.sockets.inherited import open_inherited
from bothends.sockets.listener import Listener

_LISTEN_FDS_START: Final = 3  # SD_LISTEN_FDS_START


def listen_fds(environment: Mapping[str, str]) -> dict[str, list[int]]:
    """Return the descriptors that the service manager opened for this process, by name."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return {}
    try:
        count = int(environment.get("LISTEN_FDS", "0"))
    except ValueError:
        return {}
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[int]] = {}
    for number in range(count):
        # "unknown" is the default name in sd_listen_fds_with_names(3).
        name = names[number] if number < len(names) and names[number] else "unknown"
        found.setdefault(name, []).append(_LISTEN_FDS_START + number)
    return found


def open_activated(endpoint: Endpoint, environment: Mapping[str, str] = os.environ) -> list[Listener]:
    """Return the sockets that the service manager named `endpoint.name`. It removes their files itself.

    Raises:
        Unavailable: there is no socket of this name.
        EndpointError: a descriptor is not a socket that can be served.
    """
    found = listen_fds(environment)
    descriptors = found.get(endpoint.name)
    if descriptors is None:
        reason = "systemd passed no sockets to this process"
        hint = "start it from a .socket unit, or with systemd-socket-activate"
        if found:
            reason = f"no socket has this name; there is {', '.join(sorted(found))}"
            hint = "see FileDescriptorName= in systemd.socket(5)"
        raise Unavailable("take over", str(endpoint), hint=hint, reason=reason)
    return [open_inherited(descriptor, endpoint) for descriptor in descriptors]


def notify(*lines: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Notify the service manager if it asked for that: "READY=1", "STOPPING=1", "STATUS=...".

    Returns: whether it was sent. Never raises, because a server must not stop for a lost notification.
    """
    name = environment.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect("\0" + name[1:] if name.startswith("@") else name)
            sock.send("\n".join(lines).encode())
    except OSError:
        return False
    return True


@contextlib.contextmanager
def watchdog(environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Context: send keep-alives to the service manager's watchdog, if it asked for them.

    Twice per interval (WATCHDOG_USEC, sd_watchdog_enabled(3)), from a separate thread: a keep-alive shows
    that the process runs and that its interpreter is not stuck.
    """
    pid, limit = environment.get("WATCHDOG_PID"), environment.get("WATCHDOG_USEC", "")
    if not limit.isdigit() or int(limit) == 0 or pid not in (None, str(os.getpid())):
        yield
        return
    stop = threading.Event()

    def send_keepalives() -> None:
        while not stop.wait(int(limit) / 2e6):
            notify("WATCHDOG=1", environment=environment)

    thread = threading.Thread(target=send_keepalives, name="bothends-watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
