"""Inside: the first process of the namespaces makes the hosts, and runs their commands.

    bothends ──fork──> keeper ──fork──> supervisor (PID 1 in there) ──fork──> a command in each host
        └───────────── messages and descriptors over one UNIX socket ┘

1. unshare(CLONE_NEWPID) is for the children of who calls it, so there is a keeper between, which does nothing
   but wait. When bothends dies, so does the keeper (PR_SET_PDEATHSIG), and with it the supervisor, and with
   that the kernel kills all that is in the PID namespace. The end of the socket says the same once more.
2. A host is a network namespace that the supervisor holds by a descriptor. A command enters it before it is
   executed, and gets the host's name.
3. Whether a server is ready, and whether all that was sent has arrived, is seen from the tables of the
   host's own sockets (`socket_activity.py`).
4. ^C at the terminal reaches the commands, as in any pipe; keeper and supervisor ignore it.

Nothing here may raise into what the fork left behind: each process ends with os._exit.
"""

from __future__ import annotations

import array
import contextlib
import errno
import functools
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from bothends.osutil import namespaces
from bothends.osutil.namespaces import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS
from bothends.wire import interfaces
from bothends.wire.attach import send_namespaces
from bothends.wire.netlink import Netlink, open_link_monitor
from bothends.wire.plan import Host, HostCommand, Topology
from bothends.wire.socket_activity import SocketActivity

MAX_MESSAGE_SIZE: Final = 1 << 16  # bytes of a message: a command line may be in it
_POLL_INTERVAL: Final = 0.01  # seconds from one look at a host's sockets to the next
_MAX_POLL_INTERVAL: Final = 0.3
BLOCKED_SIGNALS: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
"""Those that must not arrive between the fork and the keeper's ignoring them: whoever forks blocks them."""

_IGNORED_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)
_IGNORED_TTY_SIGNALS: Final = (signal.SIGTTOU, signal.SIGTTIN)


def send(sock: socket.socket, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
    """One message, with descriptors (unix(7), SCM_RIGHTS). Raises OSError."""
    rights = array.array("i", descriptors or [])
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
    sock.sendmsg([json.dumps(message).encode()], ancillary)


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """One message and its descriptors; None at the end. Raises OSError."""
    data, descriptors, _, _ = socket.recv_fds(sock, MAX_MESSAGE_SIZE, 64, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    message: dict[str, Any] = json.loads(data)
    return message, descriptors


def run_holder(
    topology: Topology, control: socket.socket, attach_socket: socket.socket | None, *, veth: bool
) -> NoReturn:
    """What the keeper does: leave for namespaces of our own, and wait for the supervisor."""
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
        if receive(control) is None:  # our numbers have been written, or nobody is there any more
            os._exit(0)
    except OSError as error:
        with contextlib.suppress(OSError):
            send(control, {"refused": error.errno})
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
            send(control, {"failed": error.errno, "doing": str(error.filename or "")})
    except BaseException as error:  # nothing of ours may go up into what was forked
        with contextlib.suppress(OSError):
            send(control, {"failed": errno.EIO, "doing": repr(error)[:500]})
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
        self._awaiting_listener: set[int] = set()  # hosts that have not been seen to listen
        self._draining = False
        self._deadline = 0.0  # of draining
        self._next_check = 0.0  # when to look again whether it is done
        self._check_interval = _POLL_INTERVAL
        self._terminating = False

    def create_hosts(self, *, veth: bool) -> None:
        """Make all hosts, and hand their descriptors out."""
        named = self._set_up_mounts()
        descriptors: list[int] = []
        ends: list[str] = []
        for host in self._topology.hosts:
            self._host_namespaces.append(namespaces.new_network_namespace())
            if not veth:
                for each in host.interfaces:
                    descriptors.append(interfaces.open_tun(each.name))
                    ends.append("")
            else:
                namespaces.enter_network(self._own_namespace)
                for each in host.interfaces:
                    descriptor, address = self._create_veth(each.name, each.port)
                    descriptors.append(descriptor)
                    ends.append(address)
                namespaces.enter_network(self._host_namespaces[-1])
            interfaces.set_up(host, self._topology.shape)
            self._monitors.append(open_link_monitor())
            self._socket_activity.append(SocketActivity())
            namespaces.enter_network(self._own_namespace)
        send(self._control, {"made": ends, "named": named}, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def _create_veth(self, name: str, port: int) -> tuple[int, str]:
        """One pair: our end's socket, and the address of the host's."""
        ours = f"port{port}"
        with Netlink() as netlink:
            netlink.add_veth(ours, name, self._host_namespaces[-1])
            netlink.set_link(ours, up=True, mtu=interfaces.HOST_MTU)
        interfaces.set_veth_offload(ours, on=True)
        sock = interfaces.open_packet_socket(ours)
        namespaces.enter_network(self._host_namespaces[-1])
        interfaces.set_veth_offload(name, on=False)
        address = interfaces.hardware_address(name).hex()
        namespaces.enter_network(self._own_namespace)
        return sock.detach(), address

    def _set_up_mounts(self) -> bool:
        """Show the processes in here in /proc, and make the hosts known by name; whether they are."""
        namespaces.mount("none", "/", "", namespaces.MS_REC | namespaces.MS_PRIVATE)
        flags = namespaces.MS_NOSUID | namespaces.MS_NODEV | namespaces.MS_NOEXEC
        with contextlib.suppress(OSError):  # a container that hides parts of /proc forbids another one
            namespaces.mount("proc", "/proc", "proc", flags)
        # The file needs no place on a disk: it is in memory, in a mount that goes once the file is bound.
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
        """Do as told, and tell what happens, until nobody is there any more."""
        waker, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        while True:
            patience = (
                _POLL_INTERVAL if self._awaiting_listener or self._draining or self._terminating else None
            )
            waited: list[socket.socket | int] = [self._control, waker, *self._monitors]
            if self._attach_socket is not None:
                waited.append(self._attach_socket)
            ready, _, _ = select.select(waited, [], [], patience)
            if waker in ready:
                os.read(waker, 4096)
            self._reap()
            if self._control in ready:
                told = receive(self._control)
                if told is None:
                    return
                self._handle(told[0])
            if self._attach_socket in ready and self._attach_socket is not None:
                send_namespaces(
                    self._attach_socket, [host.name for host in self._topology.hosts], self._host_namespaces
                )
            for host, monitor in enumerate(self._monitors):
                if monitor in ready:
                    self._restore(host, monitor)
            self._check_sockets()

    def _handle(self, message: dict[str, Any]) -> None:
        match message:
            case {"start": int() as host, **more}:
                words, main = more.get("words"), host == self._topology.main_host
                command = (
                    HostCommand(self._topology.hosts[host].name, tuple(words), no_shell=True)
                    if words
                    else None
                )
                self._start(host, command, with_stdin=more.get("keyboard", main), output=more.get("output"))
            case {"drain": float() | int() as seconds}:
                self._draining = True
                self._deadline = time.monotonic() + seconds
                self._next_check, self._check_interval = 0.0, _POLL_INTERVAL
            case {"signal": int() as number}:
                self._terminating = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, number)  # everyone in here but ourselves: kill(2)
            case {"signal_only": int() as number, "processes": list() as processes}:
                for process in processes:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, number)
            case {"interface": str() as name, "host": int() as host, "up": bool() as up}:
                self._set_interface(host, name, up=up)
            case {"offload": bool() as on}:
                for index, each in enumerate(self._topology.hosts):
                    self._run_in_host(index, functools.partial(_set_host_offload, each, on=on))

    def _start(
        self, index: int, command: HostCommand | None, *, with_stdin: bool, output: int | None
    ) -> None:
        host = self._topology.hosts[index]
        command = command or host.command
        process = os.fork()
        if process == 0:
            try:
                if output is not None:
                    os.dup2(output, 1)
                self._exec_command(host, command, self._host_namespaces[index], with_stdin=with_stdin)
            except BaseException as error:
                what = os.strerror(error.errno or 0) if isinstance(error, OSError) else repr(error)
                sys.stderr.write(f"bothends: {host.name}: cannot run {command.argv[0]}: {what}\n")
                sys.stderr.flush()
            os._exit(127)
        self._running[process] = index
        if index != self._topology.main_host:
            self._awaiting_listener.add(index)

    def _exec_command(self, host: Host, command: HostCommand, network: int, *, with_stdin: bool) -> None:
        """In a process of its own: become a command in a host."""
        namespaces.enter_network(network)
        namespaces.set_host_name(host.name)
        if os.geteuid() != 0:
            namespaces.keep_network_capabilities()
        if not with_stdin:
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
        signal.set_wakeup_fd(-1)
        for number in (*_IGNORED_SIGNALS, *_IGNORED_TTY_SIGNALS, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        words = argv_of(command)
        os.execvp(words[0], words)

    def _reap(self) -> None:
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process == 0:
                return
            host = self._running.pop(process, None)
            if host is not None:  # not an orphan that became our child
                self._awaiting_listener.discard(host)
                send(self._control, {"ended": host, "status": os.waitstatus_to_exitcode(status)})

    def _check_sockets(self) -> None:
        """Tell which hosts listen by now, and whether all has arrived."""
        for host in sorted(self._awaiting_listener):
            if self._socket_activity[host].has_listener():
                self._awaiting_listener.discard(host)
                send(self._control, {"listens": host})
        now = time.monotonic()
        if self._draining and now >= self._next_check:
            if now > self._deadline or not any(
                tables.has_unacknowledged() for tables in self._socket_activity
            ):
                self._draining = False
                send(self._control, {"drained": True})
            # Such a look may be expensive: the longer it takes, the less often.
            self._next_check, self._check_interval = (
                now + self._check_interval,
                min(2 * self._check_interval, _MAX_POLL_INTERVAL),
            )
        if self._terminating:
            try:
                os.kill(-1, 0)
            except ProcessLookupError:
                self._terminating = False
                send(self._control, {"alone": True})

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

    def _restore(self, host: int, monitor: socket.socket) -> None:
        """An interface has changed: one that has come up gets its routes back."""
        with contextlib.suppress(OSError):  # ENOBUFS: so much has changed that some of it was not told
            while monitor.recv(65536):
                pass
        with contextlib.suppress(OSError):  # ENETDOWN: it is down
            self._run_in_host(
                host, lambda: interfaces.restore(self._topology.hosts[host], self._topology.shape)
            )


def _set_host_offload(host: Host, *, on: bool) -> None:
    for each in host.interfaces:
        interfaces.set_veth_offload(each.name, on=on)


def argv_of(command: HostCommand) -> list[str]:
    """What is executed: the words, or for one line a shell that understands it."""
    return list(command.argv) if command.no_shell else ["/bin/sh", "-c", command.argv[0]]
