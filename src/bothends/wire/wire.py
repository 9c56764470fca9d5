"""Open a wire, run commands on its hosts, and forward their packets.

    with Wire(topology, toxics, seed=7) as wire:
        status = wire.run()

All hosts are network namespaces that end with their first process (`supervisor.py`), and this process holds
descriptors only. So nothing is left behind, however this process ends.

Each packet is read from the port of the host that sent it, passes through a `Switch`, and is written to the
port of another host. The loop reads the clock once for each wakeup, and reads up to 64 packets of a port
before it serves the next. Without toxics and observers, hosts may leave segmentation to the wire, and frames
are forwarded unchanged.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self

from bothends.errors import BothendsError, ConnectionLost, SystemCallFailed, TimeoutExpired, Unavailable
from bothends.osutil import namespaces
from bothends.osutil.event_loop import IN, EventLoop
from bothends.toxics.placement import PlacedToxic
from bothends.wire import interfaces, offload, supervisor
from bothends.wire.attach import bind_attach_socket
from bothends.wire.plan import Topology
from bothends.wire.switch import Observer, Outgoing, Switch

_BATCH: Final = 64  # packets of one port before the other ports are served
_MAX_FRAME_SIZE: Final = 66 * 1024  # bytes: a packet and the headers before it
_LISTEN_TIMEOUT: Final = 5.0  # seconds for a server to listen; then the next host's command starts anyway
_DRAIN_TIMEOUT: Final = 10.0  # seconds for sent data to arrive, after the last command has exited
_EXIT_TIMEOUT: Final = 0.2  # seconds for servers to exit by themselves, once all data has arrived
_TERM_TIMEOUT: Final = 2.0  # seconds from SIGTERM to SIGKILL
_SETUP_TIMEOUT: Final = 20.0  # seconds to create all hosts: takes under one, unless the machine is very busy
_POLL_INTERVAL: Final = 0.05  # seconds between two checks of whether to continue, in `forward`
_ETHERTYPES: Final = {4: b"\x08\x00", 6: b"\x86\xdd"}


class Port(Protocol):
    """The wire's end of one host interface."""

    header_size: int
    """Bytes of a frame before its packet."""

    def fileno(self) -> int:
        """Return the descriptor to wait for."""

    def read_frame(self) -> bytes:
        """Return the next frame that the host sent (`offload.py`).

        Raises BlockingIOError if there is none, OSError if the interface is down.
        """

    def write_frame(self, frame: bytes) -> None:
        """Deliver a frame of another host. Raises OSError if the interface is down or its queue is full."""

    def write_packet(self, packet: bytes) -> None:
        """Deliver an IP packet. Raises OSError as `write_frame`."""

    def close(self) -> None:
        """Close the descriptor."""


class TunPort:
    """A TUN device. One read returns one frame."""

    header_size = offload.HEADER_SIZE

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def read_frame(self) -> bytes:
        return os.read(self._descriptor, _MAX_FRAME_SIZE)

    def write_frame(self, frame: bytes) -> None:
        os.write(self._descriptor, frame)

    def write_packet(self, packet: bytes) -> None:
        os.write(self._descriptor, offload.NULL_HEADER + packet)

    def close(self) -> None:
        os.close(self._descriptor)


class FramePort:
    """A packet socket on the wire's end of a veth pair. Frames have an Ethernet header."""

    header_size = offload.HEADER_SIZE + 14

    def __init__(self, sock: socket.socket, address: bytes) -> None:
        """Use a packet socket. `address` is the Ethernet address of the host's end."""
        self._socket = sock
        self._ethernet_headers = {version: address + bytes(6) + kind for version, kind in _ETHERTYPES.items()}

    def fileno(self) -> int:
        return self._socket.fileno()

    def read_frame(self) -> bytes:
        return self._socket.recv(_MAX_FRAME_SIZE)

    def write_frame(self, frame: bytes) -> None:
        head = self._ethernet_headers[frame[self.header_size] >> 4]
        self._socket.sendmsg([frame[: offload.HEADER_SIZE], head, memoryview(frame)[self.header_size :]])

    def write_packet(self, packet: bytes) -> None:
        self._socket.send(offload.NULL_HEADER + self._ethernet_headers[packet[0] >> 4] + packet)

    def close(self) -> None:
        self._socket.close()


class Wire:
    """Hosts, their commands, and the switch between them. A context manager; not thread-safe.

    Args:
        topology: the hosts and their commands.
        toxics: impairments present from the start. ToxicError if the wire cannot apply one.
        seed: of all random decisions.
        icmp: whether undeliverable and too large packets are answered with ICMP errors.
        observe: called with each packet event.
        notify: called with a line of text for each notable event.
        veth: True to use veth pairs; None to use them only if /dev/net/tun cannot be opened.
    """

    def __init__(
        self,
        topology: Topology,
        toxics: Sequence[PlacedToxic] = (),
        *,
        seed: int = 0,
        icmp: bool = True,
        observe: Observer | None = None,
        notify: Callable[[str], object] = lambda line: None,
        veth: bool | None = None,
    ) -> None:
        self.topology = topology
        self.switch = Switch(topology, toxics, seed=seed, icmp=icmp, observe=observe)
        self.undelivered = 0
        """Packets that a host did not take: its interface was down, or its queue was full."""
        self._notify = notify
        self._veth = not os.access(interfaces.TUN, os.R_OK | os.W_OK) if veth is None else veth
        self._holder = 0
        self._control: socket.socket | None = None
        self._loop: EventLoop | None = None
        self._ports: list[Port] = []
        self._exit_statuses: dict[int, int] = {}
        self._listening: set[int] = set()
        self._drained = False
        self._all_processes_gone = False
        self._supervisor_gone = False
        self._fast_forwarding = False

    @property
    def device_kind(self) -> str:
        """The kind of device that connects hosts to the wire: "veth" or "TUN"."""
        return "veth" if self._veth else "TUN"

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Create the hosts. Call this while the process has one thread only, because it forks.

        Raises:
            Unavailable: the system forbids namespaces, or has no devices for them.
        """
        control, child_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.settimeout(_SETUP_TIMEOUT)
        sys.stdout.flush()
        sys.stderr.flush()
        attach_socket = bind_attach_socket()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, supervisor.BLOCKED_SIGNALS)
        holder = os.fork()
        if holder == 0:
            try:
                control.close()
                supervisor.run_holder(self.topology, child_control, attach_socket, veth=self._veth)
            finally:
                os._exit(1)
        child_control.close()
        if attach_socket is not None:
            attach_socket.close()
        self._holder, self._control = holder, control
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._await_setup(control)
            self._watch(control)
        except BaseException:
            self.close()
            raise

    def run(self, *, time_limit: float = math.inf) -> int:
        """Run all commands. Each starts once the one before it listens; all end with the main host's.

        Returns:
            The exit status of the main host's command; 128 and the signal's number if a signal killed it.

        Raises:
            TimeoutExpired: `time_limit` seconds have passed.
            SystemCallFailed, ConnectionLost: the supervisor has exited.
        """
        self.switch.begin(time.monotonic())
        if time_limit < math.inf:
            self.call_at(time.monotonic() + time_limit, lambda: self._time_out(time_limit))
        try:
            self._run()
        finally:
            self.stop()
        status = self._exit_statuses[self.topology.main_host]
        return status if status >= 0 else 128 - status

    def _run(self) -> None:
        main = self.topology.main_host
        for index, host in enumerate(self.topology.hosts):
            if not host.command.argv:
                continue
            self._send({"start": index})
            if index == main:
                break
            is_ready = functools.partial(self._is_ready, index)
            self._forward_until(time.monotonic() + _LISTEN_TIMEOUT, is_ready)
            if not is_ready():
                self._notify(f"{host.name} is not listening after {_LISTEN_TIMEOUT:g} s; continuing")
        self._forward_until(math.inf, lambda: main in self._exit_statuses)
        self.start_drain()
        self._forward_until(math.inf, lambda: self._drained)
        if not self._all_exited():
            self._forward_until(time.monotonic() + _EXIT_TIMEOUT, self._all_exited)

    def forward(self, should_continue: Callable[[], bool]) -> None:
        """Forward packets while `should_continue` returns true. Use this instead of `run`, in a thread.

        Meanwhile another thread may start commands (`start`), read their `status` and signal them.

        Raises:
            SystemCallFailed, ConnectionLost: the supervisor has exited.
        """
        self.switch.begin(time.monotonic())
        while should_continue():
            self._forward_until(time.monotonic() + _POLL_INTERVAL, lambda: not should_continue())

    def start(self, host: int, argv: Sequence[str], *, with_stdin: bool, output: int | None = None) -> None:
        """Run a command in a host. `output` is the descriptor of its standard output; None inherits it."""
        self._send({"start": host, "argv": list(argv), "with_stdin": with_stdin, "output": output})

    def status(self, host: int) -> int | None:
        """Return the exit status of a host's command, as Popen.returncode does; None while it runs."""
        return self._exit_statuses.get(host)

    def signal(self, number: int, processes: Sequence[int] = ()) -> None:
        """Send a signal to processes, by their ids in the wire's PID namespace; to all of them by default."""
        if processes:
            self._send({"signal_only": number, "processes": list(processes)})
        else:
            self._send({"signal": number})

    def start_drain(self) -> None:
        """Start to check whether all sent data has arrived. `is_drained` has the result."""
        self._send({"drain": _DRAIN_TIMEOUT})

    @property
    def is_drained(self) -> bool:
        """Whether all sent data has arrived since `start_drain`, or the drain timeout has passed."""
        return self._drained

    def stop(self) -> None:
        """Terminate all processes that still run: SIGTERM, and SIGKILL on `close`."""
        if self._supervisor_gone:
            return
        with contextlib.suppress(BothendsError):
            self._send({"signal": int(signal.SIGTERM)})
            self._forward_until(time.monotonic() + _TERM_TIMEOUT, lambda: self._all_processes_gone)

    def call_at(self, when: float, callback: Callable[[], object]) -> None:
        """Call `callback` at `when` (monotonic seconds), while the wire runs. Call this on an open wire."""
        assert self._loop is not None
        self._loop.call_at(when, callback)

    def set_interface(self, host: int, *, up: bool) -> None:
        """Turn all interfaces of a host up or down, as if its cable were plugged in or out."""
        for each in self.topology.hosts[host].interfaces:
            self._send({"interface": each.name, "host": host, "up": up})
        self._notify(f"{self.topology.hosts[host].name} is {'up' if up else 'down'}")

    def add_toxic(self, placed: PlacedToxic) -> None:
        """Add a toxic to a running wire. Raises ToxicError."""
        self._deliver(self.switch.add_toxic(placed, time.monotonic()))
        self._update_fast_path()

    def remove_toxic(self, name: str) -> None:
        """Remove a toxic, and deliver the packets that it held."""
        self._deliver(self.switch.remove_toxic(name, time.monotonic()))
        self._update_fast_path()

    def close(self) -> None:
        """Kill all processes of the wire, wait until they are gone, and close all descriptors. Idempotent."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None
        if self._control is not None:
            self._control.close()
            self._control = None
        for port in self._ports:
            port.close()
        self._ports.clear()
        if self._holder:
            # The supervisor exits on EOF, the kernel kills all other processes of its PID namespace, and the
            # holder exits once it has waited for the supervisor.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._holder, 0)
            self._holder = 0

    def _await_setup(self, control: socket.socket) -> None:
        while True:
            try:
                received = supervisor.receive(control)
            except TimeoutError as error:
                raise TimeoutExpired("the wire's hosts", "creating them", _SETUP_TIMEOUT) from error
            if received is None:
                raise Unavailable("create", "the wire's hosts", reason="the supervisor was killed")
            message, descriptors = received
            match message:
                case {"unshared": bool() as in_user_namespace}:
                    try:
                        if in_user_namespace:
                            namespaces.write_id_maps(self._holder)
                    except OSError as error:
                        raise namespaces.unavailable_error(error.errno or 0) from error
                    supervisor.send(control, {"id_maps_written": True})
                case {"unshare_failed": int() as number}:
                    raise namespaces.unavailable_error(number)
                case {"failed": int() as number, "subject": str() as subject}:
                    hint = namespaces.unavailable_reason(number)
                    raise Unavailable("create", f"the wire's hosts ({subject or 'devices'})", number, hint)
                case {"created": list() as addresses, "hosts_file": bool() as has_hosts_file}:
                    if not has_hosts_file:
                        self._notify("cannot replace /etc/hosts; use addresses instead of host names")
                    for descriptor, address in zip(descriptors, addresses, strict=True):
                        self._ports.append(_open_port(descriptor, str(address)))
                    self._update_fast_path()
                    return

    def _watch(self, control: socket.socket) -> None:
        self._loop = EventLoop()  # opened after the fork: the child process must not share its descriptors
        self._loop.watch(control.fileno(), IN, lambda _ready: self._receive())
        for number, port in enumerate(self._ports):
            self._loop.watch(port.fileno(), IN, functools.partial(self._read_port, number))

    def _is_ready(self, host: int) -> bool:
        return host in self._listening or host in self._exit_statuses

    def _all_exited(self) -> bool:
        return all(
            index in self._exit_statuses
            for index, host in enumerate(self.topology.hosts)
            if host.command.argv
        )

    def _time_out(self, limit: float) -> None:
        raise TimeoutExpired("wire", "waiting for the last command to exit", limit)

    def _send(self, message: dict[str, Any]) -> None:
        try:
            if self._control is None:  # closed by the thread that forwards
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            supervisor.send(self._control, message)
        except OSError as error:
            raise SystemCallFailed("send to", "the wire's supervisor", error.errno or 0) from error

    def _receive(self) -> None:
        """Handle one message of the supervisor."""
        assert self._control is not None
        received = supervisor.receive(self._control)
        if received is None:
            self._supervisor_gone = True
            raise ConnectionLost("the wire's supervisor", "forwarding packets")
        match received[0]:
            case {"exited": int() as host, "status": int() as status}:
                self._exit_statuses[host] = status
            case {"listening": int() as host}:
                self._listening.add(host)
            case {"drained": _}:
                self._drained = True
            case {"no_processes": _}:
                self._all_processes_gone = True

    def _forward_until(self, deadline: float, condition: Callable[[], bool]) -> None:
        """Forward packets until `condition` returns true or `deadline` (monotonic seconds) has passed."""
        loop, switch = self._loop, self.switch
        assert loop is not None
        while not condition():
            now = time.monotonic()
            if now >= deadline:
                return
            due = switch.due
            if due <= now:
                self._deliver(switch.advance(now))
                due = switch.due
            loop.run_once(min(deadline, due) - now)

    def _update_fast_path(self) -> None:
        """Forward frames unchanged if nothing looks at packets; hosts then leave segmentation to the wire."""
        enabled = self.switch.can_fast_forward and self.topology.mtu >= interfaces.HOST_MTU
        if enabled == self._fast_forwarding:
            return
        self._fast_forwarding = enabled
        if self._veth:
            self._send({"offload": enabled})
            return
        for port in self._ports:
            with contextlib.suppress(OSError):  # the host continues to segment by itself
                interfaces.set_tun_offload(port.fileno(), on=enabled)

    def _read_port(self, number: int, _ready: int) -> None:
        """Forward the frames of a ready port, up to the batch limit."""
        assert self._loop is not None
        port, now, receive, deliver = self._ports[number], self._loop.now, self.switch.receive, self._deliver
        try:
            if self._fast_forwarding:
                for _ in range(_BATCH):
                    self._fast_forward(now, number, port.read_frame(), port.header_size)
                return
            read_frame, header_size, segment_frame = port.read_frame, port.header_size, offload.segment_frame
            for _ in range(_BATCH):
                for packet in segment_frame(read_frame(), header_size):
                    deliver(receive(now, number, packet))
        except OSError:  # EAGAIN: no more frames; ENETDOWN, once: the interface is down
            return

    def _fast_forward(self, now: float, number: int, frame: bytes, header_size: int) -> None:
        receiver = self.switch.fast_forward(number, frame, header_size)
        if receiver < 0:
            for packet in offload.segment_frame(frame, header_size):
                self._deliver(self.switch.receive(now, number, packet))
            return
        try:
            self._ports[receiver].write_frame(frame)
        except OSError:
            self.undelivered += offload.segmented_sizes(frame, header_size)[0]

    def _deliver(self, outgoing: Sequence[Outgoing]) -> None:
        for number, packet in outgoing:
            try:
                self._ports[number].write_packet(packet)
            except OSError:
                self.undelivered += 1


def _open_port(descriptor: int, address: str) -> Port:
    """Make a port of a descriptor. `address` is the host's Ethernet address, empty for a TUN device."""
    if not address:
        return TunPort(descriptor)
    return FramePort(socket.socket(fileno=descriptor), bytes.fromhex(address))
