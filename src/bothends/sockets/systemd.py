"""What a service manager hands over, and what it wants to be told.

Socket activation (sd_listen_fds(3)): the manager opens the sockets, and starts the program with them
as descriptors 3, 4, ... when someone calls, or before. So connections wait in the kernel's queue
while the program starts, restarts or is replaced, and it needs no privilege for a low port.

    LISTEN_PID      whom the descriptors are meant for: another process has inherited this by accident
    LISTEN_FDS      how many
    LISTEN_FDNAMES  their names (FileDescriptorName= in systemd.socket(5)), with colons between them

Notification (sd_notify(3)): datagrams of `NAME=value` lines to the UNIX socket that NOTIFY_SOCKET names.
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
    """The descriptors that the service manager has opened for this process, by name."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return {}
    try:
        count = int(environment.get("LISTEN_FDS", "0"))
    except ValueError:
        return {}
    given = environment.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[int]] = {}
    for number in range(count):
        name = given[number] if number < len(given) and given[number] else "unknown"  # as the man page has it
        found.setdefault(name, []).append(_LISTEN_FDS_START + number)
    return found


def open_activated(endpoint: Endpoint, environment: Mapping[str, str] = os.environ) -> list[Listener]:
    """The sockets that the service manager calls `endpoint.name`; their files are its own to remove.

    Raises:
        Unavailable: there are none of this name.
        EndpointError: one of them is no socket that can be served.
    """
    found = listen_fds(environment)
    descriptors = found.get(endpoint.name)
    if descriptors is None:
        there = ", ".join(sorted(found))
        reason = f"there is none of this name, but {there}" if found else "this process was handed no sockets"
        hint = (
            "see FileDescriptorName= in systemd.socket(5)"
            if found
            else "systemd or systemd-socket-activate starts it"
        )
        raise Unavailable("take over", str(endpoint), hint=hint, reason=reason)
    return [open_inherited(descriptor, endpoint) for descriptor in descriptors]


def notify(*lines: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell the service manager, if it wants to know: "READY=1", "STOPPING=1", "STATUS=..."; whether told.

    It never fails: a server does not stop because nobody listens to how it is.
    """
    name = environment.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller:
            teller.connect("\0" + name[1:] if name.startswith("@") else name)
            teller.send("\n".join(lines).encode())
    except OSError:
        return False
    return True


@contextlib.contextmanager
def watchdog(environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """While inside, tell the service manager's watchdog that we are alive, if it asked for that.

    Twice as often as it wants it (WATCHDOG_USEC, sd_watchdog_enabled(3)), from a thread of its own: so
    what it sees is that this process runs and its interpreter isn't stuck.
    """
    pid, limit = environment.get("WATCHDOG_PID"), environment.get("WATCHDOG_USEC", "")
    if not limit.isdigit() or int(limit) == 0 or pid not in (None, str(os.getpid())):
        yield
        return
    over = threading.Event()

    def bark() -> None:
        while not over.wait(int(limit) / 2e6):
            notify("WATCHDOG=1", environment=environment)

    thread = threading.Thread(target=bark, name="bothends-watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
