"""The door of a running wire: a process that its owner starts elsewhere comes into a host of it.

    bothends wire     binds @bothends-wire-PID ──> the first process inside answers whoever knocks
    bothends connect  knocks, is given descriptors of the namespaces, enters, forks ──> talks, inside

1. The door is a UNIX socket with an abstract name (unix(7)): no file is left when its process is killed. It
   is bound outside, and so belongs to the network from which others come.
2. Whoever knocks is given the descriptors. What they are good for is for the kernel to say: only who has made
   the user namespace, or root, may enter (user_namespaces(7), setns(2)).
3. But who opens may be anybody: so whoever comes looks whose the door is, and enters nobody else's.
4. What entered is in the wire's PID namespace, and goes with the wire.
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
_NAMESPACES: Final = ("user", "mnt", "pid")  # in the order in which they are entered; then the network
_MAX_REPLY_SIZE: Final = 4096  # bytes of an answer: eight names
_TIMEOUT: Final = 5.0  # seconds: whoever opens does nothing else for long
_UCRED: Final = struct.Struct("=3i")  # struct ucred: pid, uid, gid
_FORWARDED_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def bind_attach_socket() -> socket.socket | None:
    """Bind the door of a wire whose process this is; None where it has one already."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        door.bind(f"\0{_SOCKET_PREFIX}{os.getpid()}")
        door.listen()
    except OSError:
        door.close()
        return None
    return door


def send_namespaces(attach_socket: socket.socket, names: Sequence[str], networks: Sequence[int]) -> None:
    """Inside: give whoever knocks the namespaces, and the network of each host."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        guest, _ = attach_socket.accept()
        stack.enter_context(guest)
        own = []
        for kind in _NAMESPACES:
            own.append(os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))
            stack.callback(os.close, own[-1])
        socket.send_fds(guest, [json.dumps(list(names)).encode()], [*own, *networks])


@dataclass(slots=True)
class AttachedWire:
    """What is behind a door: the namespaces of a running wire. Use it as a context; it holds descriptors."""

    pid: int
    hosts: list[str]
    _descriptors: list[int] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()

    def enter(self, host: str) -> int | None:
        """Go into a host. Returns twice, as fork(2): None to the process in the host, which shall go on; and
        its exit status, as wait() has it, to the one that waits for it outside, and passes signals on to it.

        To be called while there is one thread only. Raises SystemRefused.
        """
        pairs = zip(_NAMESPACES, self._descriptors, strict=False)
        # Root may have needed no user namespace. To be asked now: /proc of the other tree doesn't know us.
        others = [descriptor for kind, descriptor in pairs if not _is_current_namespace(kind, descriptor)]
        networks = self._descriptors[len(_NAMESPACES) :]
        is_root = os.geteuid() == 0
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever started us may ignore it: we wait for it
        try:
            folder = Path.cwd()
            for descriptor in others:
                namespaces.enter(descriptor)
            namespaces.enter_network(networks[self.hosts.index(host)])
            os.chdir(folder)  # which the new tree has too
        except OSError as error:
            raise SystemCallFailed("enter", f"host {host} of wire {self.pid}", error.errno or 0) from error
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_FORWARDED_SIGNALS, signal.SIGCHLD})
        inside = os.fork()
        if inside == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            namespaces.set_host_name(host)
            if not is_root:
                namespaces.keep_network_capabilities()
            namespaces.set_parent_death_signal(signal.SIGKILL)
            return None
        return _wait_for_child(inside)


def _is_current_namespace(kind: str, descriptor: int) -> bool:
    return Path(f"/proc/self/ns/{kind}").stat().st_ino == os.fstat(descriptor).st_ino


def _wait_for_child(process: int) -> int:
    """Wait for our child, its signals being blocked here; what it left with."""
    while True:
        told = signal.sigwaitinfo({*_FORWARDED_SIGNALS, signal.SIGCHLD})
        if told.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
        elif told.si_code <= 0:  # from a process; what a terminal sends has reached the child too
            os.kill(process, told.si_signo)


def find_wire(host: str, pid: int | None = None) -> AttachedWire:
    """The running wire of ours that has a host of this name, or that of a process.

    Raises WireError where there is none, or more than one; SystemRefused where it doesn't answer.
    """
    found: list[AttachedWire] = []
    others: list[str] = []
    for each in running_wires():
        if pid is not None and each != pid:
            continue
        inside = _request_namespaces(each)
        if inside is not None and host in inside.hosts:
            found.append(inside)
        elif inside is not None:
            others.append(f"{each}: {', '.join(inside.hosts)}")
            inside.__exit__()
    if len(found) == 1:
        return found[0]
    for inside in found:
        inside.__exit__()
    if found:
        wires = ", ".join(f"{host}@{inside.pid}" for inside in found)
        raise TopologyError(f"host {host}", "several wires that run have one", f"which? {wires}")
    there = (
        f"those that run have: {'; '.join(others)}" if others else "bothends wire --host NAME=CMD makes them"
    )
    of = f" {pid}" if pid is not None else ""
    raise TopologyError(f"host {host}", f"no wire{of} of yours that runs has it", there)


def running_wires() -> list[int]:
    """The processes that have a wire with a door, everybody's."""
    try:
        table = Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise Unavailable("find", "running wires (/proc/net/unix)", error.errno or 0) from error
    return sorted({int(pid) for pid in re.findall(rf" @{_SOCKET_PREFIX}(\d+)$", table, re.MULTILINE)})


def _request_namespaces(pid: int) -> AttachedWire | None:
    """What is behind the door of a process; None if it isn't ours, or has just gone."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as guest:
        guest.settimeout(_TIMEOUT)
        try:
            guest.connect(f"\0{_SOCKET_PREFIX}{pid}")
            credentials = guest.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            if _UCRED.unpack(credentials)[1] != os.geteuid():
                return None
            answer, descriptors, _, _ = socket.recv_fds(
                guest, _MAX_REPLY_SIZE, len(_NAMESPACES) + 8, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionRefusedError:
            return None
        except OSError as error:
            raise SystemCallFailed("ask", f"wire {pid} for its hosts", error.errno or 0) from error
    return AttachedWire(pid, json.loads(answer), descriptors) if answer else None
