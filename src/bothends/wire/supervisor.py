"""The first process inside the namespaces: it creates the hosts and runs their commands.

    bothends ──fork──> holder ──fork──> supervisor (PID 1 inside) ──fork──> a command in each host
        └───────────── messages and descriptors over one UNIX socket ┘

1. unshare(CLONE_NEWPID) applies to the caller's children, so there is a holder between, which only waits.
   When bothends exits, the kernel kills the holder (PR_SET_PDEATHSIG), then the supervisor, then all other
   processes of the PID namespace. EOF on the socket has the same effect.
2. A host is a network namespace that the supervisor holds by a descriptor. A command enters it before it is
   executed, and gets the host's name.
3. The host's socket tables show whether a server listens, and whether all sent data has arrived
   (`socket_activity.py`).
4. ^C at the terminal reaches the commands, as in any pipeline; holder and supervisor ignore it.

No exception may escape into the stack frames that fork() copied: each process ends with os._exit.
"""

from __future__ import annotations

import array
import contextlib
import errno
import functools
import json
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from bothends.escaping import escape_line
from bothends.osutil import namespaces
from bothends.osutil.event_loop import IN, EventLoop
from bothends.osutil.namespaces import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS
from bothends.wire import interfaces
from bothends.wire.attach import send_namespaces
from bothends.wire.netlink import Netlink, open_link_monitor
from bothends.wire.plan import Host, HostCommand, Topology
from bothends.wire.socket_activity import SocketActivity

MAX_MESSAGE_SIZE: Final = 1 << 16  # bytes: a message may contain a command line
_POLL_INTERVAL: Final = 0.01  # seconds between two checks of the hosts' sockets
_MAX_POLL_INTERVAL: Final = 0.3
BLOCKED_SIGNALS: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
"""Signals that the caller blocks during the fork, until the holder ignores them."""

_IGNORED_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)
_IGNORED_TTY_SIGNALS: Final = (signal.SIGTTOU, signal.SIGTTIN)


def send(sock: socket.socket, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
    """Send one message, with descriptors (unix(7), SCM_RIGHTS). Raises OSError."""
    rights = array.array("i", descriptors or [])
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
    sock.sendmsg([json.dumps(message).encode()], ancillary)


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Receive one message and its descriptors. Returns None on EOF. Raises OSError."""
    data, descriptors, _, _ = socket.recv_fds(sock, MAX_MESSAGE_SIZE, 64, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    message: dict[str, Any] = json.loads(data)
    return message, descriptors


def run_holder(
    topology: Topology, control: socket.socket, attach_socket: socket.socket | None, *, veth: bool
) -> NoReturn:
    """Create the namespaces, fork the supervisor and wait for it. Runs in the forked holder process."""
    _ignore_signals()
    try:
        flags = CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS
        try:
            namespaces.unshare(CLONE_NEWUSER | flags)
            in_user_namespace = True
        except OSError:
            if os.geteuid() != 0:
                raise
            namespaces.unshare(flags)  # root needs no user namespace
            in_user_namespace = False
        namespaces.set_parent_death_signal(signal.SIGKILL)
        send(control, {"unshared": in_user_namespace})
        if receive(control) is None:  # EOF: bothends has exited before it wrote the id maps
            os._exit(0)
    except OSError as error:
        with contextlib.suppress(OSError):
            send(control, {"unshare_failed": error.errno})
        os._exit(0)
    supervisor = os.fork()
    if supervisor == 0:
        _supervise(topology, control, attach_socket, veth=veth)
    control.close()
    if attach_socket is not None:
        attach_socket.close()
    while True:
        with contextlib.suppress(InterruptedError):
            os.waitpid(supervisor, 0)
            os._exit(0)


def _supervise(
    topology: Topology, control: socket.socket, attach_socket: socket.socket | None, *, veth: bool
) -> NoReturn:
    try:
        namespaces.set_parent_death_signal(signal.SIGKILL)
        supervisor = _Supervisor(topology, control, attach_socket)
        supervisor.create_hosts(veth=veth)
        supervisor.run()
    except OSError as error:
        with contextlib.suppress(OSError):
            send(control, {"failed": error.errno, "subject": str(error.filename or "")})
    except BaseException as error:  # must not escape into the copied stack frames
        with contextlib.suppress(OSError):
            send(control, {"failed": errno.EIO, "subject": repr(error)[:500]})
    os._exit(0)


def _ignore_signals() -> None:
    for number in (*_IGNORED_SIGNALS, *_IGNORED_TTY_SIGNALS):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED_SIGNALS)


class _Supervisor:
    def __init__(
        self, topology: Topology, control: socket.socket, attach_socket: socket.socket | None
    ) -> None:
        self._topology = topology
        self._control = control
        self._attach_socket = attach_socket
        self._own_namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._host_namespaces: list[int] = []
        self._monitors: list[socket.socket] = []
        self._socket_activity: list[SocketActivity] = []
        self._running: dict[int, int] = {}  # process -> host
        self._awaiting_listener: set[int] = set()  # hosts without a listening socket so far
        self._draining = False
        self._drain_deadline = 0.0
        self._next_check = 0.0  # when to check again whether draining is done
        self._check_interval = _POLL_INTERVAL
        self._terminating = False
        self._disconnected = False

    def create_hosts(self, *, veth: bool) -> None:
        """Create all hosts, and send the descriptors of their ports to bothends."""
        has_hosts_file = self._set_up_mounts()
        descriptors: list[int] = []
        addresses: list[str] = []
        for host in self._topology.hosts:
            self._host_namespaces.append(namespaces.new_network_namespace())
            if not veth:
                for each in host.interfaces:
                    descriptors.append(interfaces.open_tun(each.name))
                    addresses.append("")
            else:
                namespaces.enter_network(self._own_namespace)
                for each in host.interfaces:
                    descriptor, address = self._create_veth(each.name, each.port)
                    descriptors.append(descriptor)
                    addresses.append(address)
                namespaces.enter_network(self._host_namespaces[-1])
            interfaces.set_up(host, self._topology.shape)
            self._monitors.append(open_link_monitor())
            self._socket_activity.append(SocketActivity())
            namespaces.enter_network(self._own_namespace)
        send(self._control, {"created": addresses, "hosts_file": has_hosts_file}, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def _create_veth(self, name: str, port: int) -> tuple[int, str]:
        """Create a veth pair. Returns the wire's packet socket and the Ethernet address of the host's end."""
        wire_end = f"port{port}"
        with Netlink() as netlink:
            netlink.add_veth(wire_end, name, self._host_namespaces[-1])
            netlink.set_link(wire_end, up=True, mtu=interfaces.HOST_MTU)
        interfaces.set_veth_offload(wire_end, on=True)
        sock = interfaces.open_packet_socket(wire_end)
        namespaces.enter_network(self._host_namespaces[-1])
        interfaces.set_veth_offload(name, on=False)
        address = interfaces.hardware_address(name).hex()
        namespaces.enter_network(self._own_namespace)
        return sock.detach(), address

    def _set_up_mounts(self) -> bool:
        """Mount /proc, and /etc/hosts with the hosts' names. Returns whether the latter worked."""
        namespaces.mount("none", "/", "", namespaces.MS_REC | namespaces.MS_PRIVATE)
        flags = namespaces.MS_NOSUID | namespaces.MS_NODEV | namespaces.MS_NOEXEC
        with contextlib.suppress(
            OSError
        ):  # a container that hides parts of /proc forbids another mount of it
            namespaces.mount("proc", "/proc", "proc", flags)
        # The file is in memory: the tmpfs is unmounted once the file is bound, so nothing is left on disk.
        with contextlib.suppress(OSError):
            namespaces.mount("tmpfs", "/tmp", "tmpfs", flags)
            Path("/tmp/hosts").write_text(self._topology.hosts_file, encoding="ascii")
            Path("/tmp/hosts").chmod(0o644)
            namespaces.mount("/tmp/hosts", "/etc/hosts", "", namespaces.MS_BIND)
        with contextlib.suppress(OSError):
            namespaces.unmount("/tmp")
        try:
            return (
                Path("/etc/hosts").read_text(encoding="utf-8", errors="replace") == self._topology.hosts_file
            )
        except OSError:
            return False

    def run(self) -> None:
        """Handle messages, exited processes and changed interfaces until bothends closes the socket."""
        with contextlib.closing(EventLoop()) as loop:
            signal.set_wakeup_fd(loop.wakeup_fd, warn_on_full_buffer=False)
            signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
            loop.watch(self._control.fileno(), IN, self._on_message)
            if self._attach_socket is not None:
                loop.watch(self._attach_socket.fileno(), IN, self._on_attach)
            for host, monitor in enumerate(self._monitors):
                loop.watch(monitor.fileno(), IN, functools.partial(self._on_link_change, host))
            while True:
                polling = self._awaiting_listener or self._draining or self._terminating
                loop.run_once(_POLL_INTERVAL if polling else math.inf)
                if self._disconnected:
                    return
                self._reap()
                self._check_sockets()

    def _on_message(self, _ready: int) -> None:
        received = receive(self._control)
        if received is None:
            self._disconnected = True
        else:
            self._handle(received[0])

    def _on_attach(self, _ready: int) -> None:
        assert self._attach_socket is not None
        names = [host.name for host in self._topology.hosts]
        send_namespaces(self._attach_socket, names, self._host_namespaces)

    def _handle(self, message: dict[str, Any]) -> None:
        match message:
            case {"start": int() as host, **more}:
                command = self._topology.hosts[host].command
                if argv := more.get("argv"):
                    command = HostCommand(command.host, tuple(argv), no_shell=True)
                with_stdin = more.get("with_stdin", host == self._topology.main_host)
                self._start(host, command, with_stdin=with_stdin, output=more.get("output"))
            case {"drain": float() | int() as seconds}:
                self._draining = True
                self._drain_deadline = time.monotonic() + seconds
                self._next_check, self._check_interval = 0.0, _POLL_INTERVAL
            case {"signal": int() as number}:
                self._terminating = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, number)  # all processes of the namespace except this one: kill(2)
            case {"signal_only": int() as number, "processes": list() as processes}:
                for process in processes:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, number)
            case {"interface": str() as name, "host": int() as host, "up": bool() as up}:
                self._set_interface(host, name, up=up)
            case {"offload": bool() as on}:
                for index, each in enumerate(self._topology.hosts):
                    self._run_in_host(index, functools.partial(_set_host_offload, each, on=on))

    def _start(self, index: int, command: HostCommand, *, with_stdin: bool, output: int | None) -> None:
        host = self._topology.hosts[index]
        process = os.fork()
        if process == 0:
            try:
                if output is not None:
                    os.dup2(output, 1)
                self._exec_command(host, command, self._host_namespaces[index], with_stdin=with_stdin)
            except BaseException as error:
                reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else repr(error)
                text = f"bothends: {host.name}: cannot run {command.argv[0]}: {reason}"
                sys.stderr.write(escape_line(text) + "\n")
                sys.stderr.flush()
            os._exit(127)
        self._running[process] = index
        if index != self._topology.main_host:
            self._awaiting_listener.add(index)

    def _exec_command(self, host: Host, command: HostCommand, network: int, *, with_stdin: bool) -> None:
        """Replace this process by a command in a host. Runs in the forked child."""
        namespaces.enter_network(network)
        namespaces.set_host_name(host.name)
        if os.geteuid() != 0:
            namespaces.keep_network_capabilities()
        if not with_stdin:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        signal.set_wakeup_fd(-1)
        for number in (*_IGNORED_SIGNALS, *_IGNORED_TTY_SIGNALS, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        argv = _argv(command)
        os.execvp(argv[0], argv)

    def _reap(self) -> None:
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process == 0:
                return
            host = self._running.pop(process, None)
            if host is not None:  # None for an orphan that this process adopted, as PID 1
                self._awaiting_listener.discard(host)
                send(self._control, {"exited": host, "status": os.waitstatus_to_exitcode(status)})

    def _check_sockets(self) -> None:
        """Report new listeners, and whether all data has arrived and all processes have exited."""
        for host in sorted(self._awaiting_listener):
            if self._socket_activity[host].has_listener():
                self._awaiting_listener.discard(host)
                send(self._control, {"listening": host})
        now = time.monotonic()
        if self._draining and now >= self._next_check:
            if now > self._drain_deadline or not any(
                each.has_unacknowledged() for each in self._socket_activity
            ):
                self._draining = False
                send(self._control, {"drained": True})
            # The check may be expensive, so the interval grows while the data is under way.
            self._next_check = now + self._check_interval
            self._check_interval = min(2 * self._check_interval, _MAX_POLL_INTERVAL)
        if self._terminating:
            try:
                os.kill(-1, 0)
            except ProcessLookupError:
                self._terminating = False
                send(self._control, {"no_processes": True})

    def _run_in_host(self, host: int, action: Callable[[], object]) -> None:
        namespaces.enter_network(self._host_namespaces[host])
        try:
            action()
        finally:
            namespaces.enter_network(self._own_namespace)

    def _set_interface(self, host: int, name: str, *, up: bool) -> None:
        def set_link() -> None:
            with Netlink() as netlink:
                netlink.set_link(name, up=up)

        with contextlib.suppress(OSError):  # a command of that host has removed it
            self._run_in_host(host, set_link)

    def _on_link_change(self, host: int, _ready: int) -> None:
        """Restore the addresses and routes of an interface that has come up."""
        monitor = self._monitors[host]
        with contextlib.suppress(OSError):  # EAGAIN: all is read; ENOBUFS: the kernel dropped some changes
            while monitor.recv(65536):
                pass
        with contextlib.suppress(OSError):  # ENETDOWN: it has gone down
            self._run_in_host(
                host, lambda: interfaces.restore(self._topology.hosts[host], self._topology.shape)
            )


def _set_host_offload(host: Host, *, on: bool) -> None:
    for each in host.interfaces:
        interfaces.set_veth_offload(each.name, on=on)


def _argv(command: HostCommand) -> list[str]:
    """Return the arguments to execute: the command itself, or a shell that runs its command line."""
    return list(command.argv) if command.no_shell else ["/bin/sh", "-c", command.argv[0]]
