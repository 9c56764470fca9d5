"""Network namespaces of their own for programs with a fixed port.

In its own namespace each start of a program finds its port free: no connection of an earlier case is left in
TIME-WAIT there (RFC 9293, section 3.4.1), and no other program has the port. So its cases can run at the
same time. A socket belongs to the namespace in which it was created, whatever its process enters later, so
the checker enters the namespace only to create sockets and to start the program (network_namespaces(7)).
Every address is local in it, so that a program may bind, or connect to, an address in its source.

Root may create network namespaces; any other user needs a user namespace for it (user_namespaces(7)).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bothends.errors import BothendsError
from bothends.osutil.namespaces import (
    CLONE_NEWNET,
    CLONE_NEWUSER,
    bring_loopback_up,
    enter_network,
    new_network_namespace,
    unshare,
)
from bothends.wire.netlink import Netlink


class OwnNetwork:
    """A network namespace with only a loopback interface, which has every address.

    Close it when its program has ended.

    Raises:
        OSError: the system does not allow it.
    """

    def __init__(self) -> None:
        with _coming_back():
            self._descriptor = new_network_namespace()
            try:
                bring_loopback_up()
                with Netlink() as netlink:
                    netlink.make_every_address_local("lo")
            except OSError:
                os.close(self._descriptor)
                raise

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be in the namespace in a `with` block, which must not wait: other tasks would be in it, too."""
        with _coming_back():
            enter_network(self._descriptor)
            yield

    def close(self) -> None:
        """Let the kernel remove the namespace with its last process and socket. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextmanager
def entered(network: OwnNetwork | None) -> Iterator[None]:
    """Be in a namespace in a `with` block, or stay where this thread is if there is none."""
    if network is None:
        yield
        return
    with network.entered():
        yield


def is_available() -> bool:
    """Whether this process may create network namespaces."""
    try:
        OwnNetwork().close()
    except OSError:
        return False
    return True


def prepares(preparation: Coroutine[Any, Any, object]) -> bool:
    """Whether a program can be prepared in this network. For a process that runs no event loop."""
    try:
        asyncio.run(preparation)
    except (BothendsError, OSError):
        return False
    return True


def become_able(works: Callable[[], bool]) -> bool:
    """Move this process to a user and a network namespace in which it may create others, unless it may here.

    Only a process with rights over the machine's network namespace can come back to it (setns(2)), so this
    one stays in the new one, with a loopback interface only. Its user and group stay the same, and its other
    groups keep their rights. Call it before any thread is started, because unshare(2) with a user namespace
    requires a single thread. A child process tries it first: where a security module forbids a part of it,
    this process would be left without a user.

    Args:
        works: called in the child process, to see whether what is to be run works there.

    Returns: whether this process may create network namespaces now.
    """
    if is_available():
        return True
    probe = os.fork()
    if probe == 0:
        try:
            _enter_user_namespace()
            os._exit(0 if is_available() and works() else 1)
        finally:
            os._exit(1)
    if os.waitpid(probe, 0)[1] != 0:
        return False
    _enter_user_namespace()
    return True


def _enter_user_namespace() -> None:
    user, group = os.geteuid(), os.getegid()  # unmapped after unshare(2)
    unshare(CLONE_NEWUSER | CLONE_NEWNET)
    maps = {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}
    for name, text in maps.items():
        Path(f"/proc/self/{name}").write_text(text, encoding="ascii")
    bring_loopback_up()


@contextmanager
def _coming_back() -> Iterator[None]:
    """Return to the network namespace of this thread at the end of a `with` block."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        try:
            enter_network(home)
        finally:
            os.close(home)
