"""Enter a host of a running wire from another process of the same user.

    bothends wire     binds @bothends-wire-PID ──> the supervisor accepts connections on it
    bothends connect  connects, receives descriptors of the namespaces, enters them, forks ──> runs inside

1. The attach socket is a UNIX socket with an abstract name (unix(7)), so no file is left when its process is
   killed. It is bound before the namespaces are created, so it is in the network namespace of its clients.
2. The supervisor sends the descriptors to any client. The kernel checks the permission to use them: only the
   user that created the user namespace, or root, may enter it (user_namespaces(7), setns(2)).
3. Any user may bind such a name. So a client checks the owner of the listening socket (SO_PEERCRED) and
   enters no other user's namespaces.
4. The child process is in the wire's PID namespace, and the kernel kills it when the wire ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from bothends.errors import SystemCallFailed, TopologyError, Unavailable
from bothends.osutil import namespaces

_SOCKET_PREFIX: Final = "bothends-wire-"
_NAMESPACES: Final = ("user", "mnt", "pid")  # in the order of entering; the network namespace comes last
_MAX_REPLY_SIZE: Final = 4096  # bytes: eight host names
_TIMEOUT: Final = 5.0  # seconds: the supervisor is never busy for long
_UCRED: Final = struct.Struct("=3i")  # struct ucred: pid, uid, gid
_FORWARDED_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def bind_attach_socket() -> socket.socket | None:
    """Bind the attach socket of this process's wire. Returns None if the process has one already."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        sock.bind(f"\0{_SOCKET_PREFIX}{os.getpid()}")
        sock.listen()
    except OSError:
        sock.close()
        return None
    return sock


def send_namespaces(attach_socket: socket.socket, names: Sequence[str], networks: Sequence[int]) -> None:
    """Send the namespaces, and the network namespace of each host, to one connecting client.

    Called by the supervisor, inside the namespaces.
    """
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        client, _ = attach_socket.accept()
        stack.enter_context(client)
        own = []
        for kind in _NAMESPACES:
            own.append(os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))
            stack.callback(os.close, own[-1])
        socket.send_fds(client, [json.dumps(list(names)).encode()], [*own, *networks])


@dataclass(slots=True)
class AttachedWire:
    """Descriptors of a running wire's namespaces. A context manager that closes them."""

    pid: int
    hosts: list[str]
    _descriptors: list[int] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()

    def network(self, host: str) -> int:
        """Return the descriptor of the network namespace of a host, for setns(2)."""
        return self._descriptors[len(_NAMESPACES) + self.hosts.index(host)]

    def enter(self, host: str) -> int | None:
        """Fork a child process into a host. Call this while the process has one thread only.

        The parent waits for the child and forwards SIGINT, SIGTERM, SIGHUP and SIGQUIT to it.

        Returns:
            None in the child, which continues in the host. In the parent: the exit status of the child, or
            the negated number of the signal that killed it.

        Raises:
            SystemCallFailed: the kernel does not allow it.
        """
        pairs = zip(_NAMESPACES, self._descriptors, strict=False)
        # A wire of root may have no user namespace of its own. This is checked before entering, because the
        # other /proc does not have this process.
        others = [descriptor for kind, descriptor in pairs if not _is_current_namespace(kind, descriptor)]
        networks = self._descriptors[len(_NAMESPACES) :]
        is_root = os.geteuid() == 0
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # the parent process may have set it to be ignored
        try:
            folder = Path.cwd()
            for descriptor in others:
                namespaces.enter(descriptor)
            namespaces.enter_network(networks[self.hosts.index(host)])
            os.chdir(folder)  # the new mount namespace has it too
        except OSError as error:
            raise SystemCallFailed("enter", f"host {host} of wire {self.pid}", error.errno or 0) from error
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_FORWARDED_SIGNALS, signal.SIGCHLD})
        child = os.fork()
        if child == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            namespaces.set_host_name(host)
            if not is_root:
                namespaces.keep_network_capabilities()
            namespaces.set_parent_death_signal(signal.SIGKILL)
            return None
        return _wait_for_child(child)


def _is_current_namespace(kind: str, descriptor: int) -> bool:
    return Path(f"/proc/self/ns/{kind}").stat().st_ino == os.fstat(descriptor).st_ino


def _wait_for_child(process: int) -> int:
    """Wait for the child and forward signals, which the caller has blocked. Returns its exit status."""
    while True:
        received = signal.sigwaitinfo({*_FORWARDED_SIGNALS, signal.SIGCHLD})
        if received.si_signo == signal.SIGCHLD:
            exited, status = os.waitpid(process, os.WNOHANG)
            if exited:
                return os.waitstatus_to_exitcode(status)
        elif received.si_code <= 0:  # sent by a process; the terminal's own signals reach the child directly
            os.kill(process, received.si_signo)


def find_wire(host: str, pid: int | None = None) -> AttachedWire:
    """Return this user's running wire that has a host of this name.

    Args:
        host: a host name.
        pid: look only at the wire of this process.

    Raises:
        TopologyError: no running wire has the host, or several have it.
        SystemCallFailed: a wire does not answer.
    """
    found: list[AttachedWire] = []
    others: list[str] = []
    for each in running_wires():
        if pid is not None and each != pid:
            continue
        wire = _request_namespaces(each)
        if wire is not None and host in wire.hosts:
            found.append(wire)
        elif wire is not None:
            others.append(f"{each}: {', '.join(wire.hosts)}")
            wire.__exit__()
    if len(found) == 1:
        return found[0]
    for wire in found:
        wire.__exit__()
    if found:
        wires = ", ".join(f"{host}@{wire.pid}" for wire in found)
        raise TopologyError(f"host {host}", "several running wires have it", f"choose one of {wires}")
    hint = f"running wires: {'; '.join(others)}" if others else "start one with bothends wire --host NAME=CMD"
    of = f" {pid}" if pid is not None else ""
    raise TopologyError(f"host {host}", f"no running wire{of} of yours has it", hint)


def running_wires() -> list[int]:
    """Return the ids of all processes that have a running wire, of all users. Raises Unavailable."""
    try:
        table = Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise Unavailable("list", "running wires (/proc/net/unix)", error.errno or 0) from error
    return sorted({int(pid) for pid in re.findall(rf" @{_SOCKET_PREFIX}(\d+)$", table, re.MULTILINE)})


def _request_namespaces(pid: int) -> AttachedWire | None:
    """Request the namespaces of a wire. Returns None if it is another user's, or has just exited."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(_TIMEOUT)
        try:
            sock.connect(f"\0{_SOCKET_PREFIX}{pid}")
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            if _UCRED.unpack(credentials)[1] != os.geteuid():
                return None
            answer, descriptors, _, _ = socket.recv_fds(
                sock, _MAX_REPLY_SIZE, len(_NAMESPACES) + 8, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionRefusedError:
            return None
        except OSError as error:
            raise SystemCallFailed("read", f"the hosts of wire {pid}", error.errno or 0) from error
    return AttachedWire(pid, json.loads(answer), descriptors) if answer else None
