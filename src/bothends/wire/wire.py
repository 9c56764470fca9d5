"""A wire's life, seen from outside: open it, run the commands, stop it.

    with Wire(plan, specs, seed=7) as wire:
        status = wire.run()

Everything of it is in namespaces that die with their first process (`supervisor.py`), and what we hold are
descriptors: so whatever ends us, nothing is left.

Each packet is read from the port of the host that sent it, goes through `Link`, and is written to another's.
The loop looks at the clock once for each wake-up, and reads up to 64 packets of a port before it looks at
the next. While there is no toxic and nobody observes, hosts may leave segmentation to us, and frames go on as
they come.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self

from bothends.errors import BothendsError, ConnectionLost, SystemCallFailed, TimeoutExpired, Unavailable
from bothends.osutil import namespaces
from bothends.toxics.placement import PlacedToxic
from bothends.wire import interfaces, offload, supervisor
from bothends.wire.attach import bind_attach_socket
from bothends.wire.plan import Topology
from bothends.wire.switch import Observer, Outgoing, Switch

_BATCH: Final = 64  # packets of one port before the others have their turn
_MAX_FRAME_SIZE: Final = 66 * 1024  # bytes of a packet, and what is before it
_LISTEN_TIMEOUT: Final = (
    5.0  # seconds in which a server should listen; then the next host's command starts anyway
)
_DRAIN_TIMEOUT: Final = 10.0  # seconds for what was sent to arrive, after the last command has ended
_EXIT_TIMEOUT: Final = 0.2  # seconds for servers to end by themselves, once all has arrived
_TERM_TIMEOUT: Final = 2.0  # seconds from SIGTERM to SIGKILL
_SETUP_TIMEOUT: Final = 20.0  # seconds to make all hosts: a fraction of one, unless the machine is very busy
_POLL_INTERVAL: Final = 0.05  # seconds after which whoever carries asks whether to go on
_ETHERTYPES: Final = {4: b"\x08\x00", 6: b"\x86\xdd"}


class Port(Protocol):
    """Where a host's packets come out, and others' go in."""

    header_size: int
    """Bytes of a frame before its packet."""

    def fileno(self) -> int:
        """For select(2)."""

    def read_frame(self) -> bytes:
        """The next frame (`offload.py`). Raises BlockingIOError if there is none, OSError if it is down."""

    def write_frame(self, frame: bytes) -> None:
        """Give it a frame of another host's. Raises OSError: its interface is down, or its queue full."""

    def write_packet(self, packet: bytes) -> None:
        """Give the host a packet. Raises OSError as `give`."""

    def close(self) -> None:
        """Let go of it."""


class TunPort:
    """The descriptor of a TUN device: a read is a frame."""

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
    """A packet socket on our end of a veth pair: frames have an Ethernet header, and each host its own."""

    header_size = offload.HEADER_SIZE + 14

    def __init__(self, sock: socket.socket, address: bytes) -> None:
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
    """Hosts, their commands, and the link between them. Use it as a context; one thread, and no other.

    `tell` hears a line about what happens; `clock` gives seconds. `veth`: True uses no TUN device, None only
    where there is none to be opened.
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.topology = topology
        self.switch = Switch(topology, toxics, seed=seed, icmp=icmp, observe=observe)
        self.undelivered = 0
        """Packets that a host could not take: its interface was down, or its queue full."""
        self._notify = notify
        self._veth = not os.access(interfaces.TUN, os.R_OK | os.W_OK) if veth is None else veth
        self._clock = clock
        self._holder = 0
        self._control: socket.socket | None = None
        self._ports: list[Port] = []
        self._exit_statuses: dict[int, int] = {}
        self._listening: set[int] = set()
        self._drained = False
        self._all_processes_gone = False
        self._supervisor_gone = False
        self._timers: list[tuple[float, Callable[[], object]]] = []
        self._fast_forwarding = False

    @property
    def device_kind(self) -> str:
        """How packets come to us, in words."""
        return "veth" if self._veth else "TUN"

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Make the hosts. To be called while there is one thread only: it forks.

        Raises Unavailable where the system forbids namespaces or has no devices for them.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_SETUP_TIMEOUT)
        sys.stdout.flush()
        sys.stderr.flush()
        door = bind_attach_socket()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, supervisor.BLOCKED_SIGNALS)
        keeper = os.fork()
        if keeper == 0:
            try:
                ours.close()
                supervisor.run_holder(self.topology, theirs, door, veth=self._veth)
            finally:
                os._exit(1)
        theirs.close()
        if door is not None:
            door.close()
        self._holder, self._control = keeper, ours
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._await_setup(ours)
        except BaseException:
            self.close()
            raise

    def run(self, *, time_limit: float = math.inf) -> int:
        """Run the commands: each starts when the one before it listens; all end with the last host's.

        The status of that command; 128 and the signal's number where one has ended it. Raises TimeLimit
        after `limit` seconds, SystemRefused if what is inside has gone.
        """
        self.switch.begin(self._clock())
        if time_limit < math.inf:
            self.call_at(self._clock() + time_limit, lambda: self._time_out(time_limit))
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
            self._forward_until(self._clock() + _LISTEN_TIMEOUT, functools.partial(self._is_ready, index))
            if not self._is_ready(index):
                self._notify(f"{host.name} listens to nobody after {_LISTEN_TIMEOUT:g} s; going on")
        self._forward_until(math.inf, lambda: main in self._exit_statuses)
        self.start_drain()
        self._forward_until(math.inf, lambda: self._drained)
        if not self._all_exited():
            self._forward_until(self._clock() + _EXIT_TIMEOUT, self._all_exited)

    def forward(self, should_continue: Callable[[], bool]) -> None:
        """Instead of `run`: carry packets as long as it is said to, while somebody else, in another thread,
        starts commands (`start`), asks what they came to (`status`) and signals them.

        Raises SystemRefused, ConnectionLost if what is inside has gone.
        """
        self.switch.begin(self._clock())
        while should_continue():
            self._forward_until(self._clock() + _POLL_INTERVAL, lambda: not should_continue())

    def start(self, host: int, argv: Sequence[str], *, with_stdin: bool, output: int | None = None) -> None:
        """Run a command in a host; `output` is the descriptor of its standard output, None for ours."""
        self._send({"start": host, "words": list(argv), "keyboard": with_stdin, "output": output})

    def status(self, host: int) -> int | None:
        """What the host's command has left with, as Popen.returncode has it; None while it runs."""
        return self._exit_statuses.get(host)

    def signal(self, number: int, processes: Sequence[int] = ()) -> None:
        """Signal processes by the numbers that they have inside; all of them by default."""
        if processes:
            self._send({"signal_only": number, "processes": list(processes)})
        else:
            self._send({"signal": number})

    def start_drain(self) -> None:
        """Begin to look whether all that was sent has arrived: then `is_drained`."""
        self._send({"drain": _DRAIN_TIMEOUT})

    @property
    def is_drained(self) -> bool:
        """Whether all that was sent has arrived, as was found since `drain`, or waited for long enough."""
        return self._drained

    def stop(self) -> None:
        """End what still runs: SIGTERM, and after two seconds SIGKILL."""
        if self._supervisor_gone:
            return
        with contextlib.suppress(BothendsError):
            self._send({"signal": int(signal.SIGTERM)})
            self._forward_until(self._clock() + _TERM_TIMEOUT, lambda: self._all_processes_gone)

    def call_at(self, when: float, callback: Callable[[], object]) -> None:
        """Call something while running, once the clock shows this."""
        self._timers.append((when, callback))
        self._timers.sort(key=lambda each: each[0])

    def set_interface(self, host: int, *, up: bool) -> None:
        """Turn all interfaces of a host up or down, as if a cable were plugged in or out."""
        for each in self.topology.hosts[host].interfaces:
            self._send({"interface": each.name, "host": host, "up": up})
        self._notify(f"{self.topology.hosts[host].name} is {'up' if up else 'down'}")

    def add_toxic(self, placed: PlacedToxic) -> None:
        """A toxic comes. Raises ToxicError."""
        self._deliver(self.switch.add_toxic(placed, self._clock()))
        self._update_fast_path()

    def remove_toxic(self, name: str) -> None:
        """A toxic goes; what it held leaves."""
        self._deliver(self.switch.remove_toxic(name, self._clock()))
        self._update_fast_path()

    def close(self) -> None:
        """Let all of it go. When this returns, no process of it is left."""
        if self._control is not None:
            self._control.close()
            self._control = None
        for port in self._ports:
            port.close()
        self._ports.clear()
        if self._holder:
            # It ends with the supervisor, which ends by the end of the socket, and takes all others along.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._holder, 0)
            self._holder = 0

    def _await_setup(self, control: socket.socket) -> None:
        while True:
            try:
                told = supervisor.receive(control)
            except TimeoutError as error:
                raise TimeoutExpired("hosts of our own", "making them", _SETUP_TIMEOUT) from error
            if told is None:
                raise Unavailable("make", "hosts of our own", reason="what makes them was ended")
            message, descriptors = told
            match message:
                case {"unshared": bool() as in_user_namespace}:
                    try:
                        if in_user_namespace:
                            namespaces.write_id_maps(self._holder)
                    except OSError as error:
                        raise namespaces.unavailable_error(error.errno or 0) from error
                    supervisor.send(control, {"go": True})
                case {"refused": int() as number}:
                    raise namespaces.unavailable_error(number)
                case {"failed": int() as number, "doing": str() as doing}:
                    hint = namespaces.unavailable_reason(number)
                    raise Unavailable("make", f"hosts of our own ({doing or 'devices'})", number, hint)
                case {"made": list() as addresses, "named": bool() as named}:
                    if not named:
                        self._notify("/etc/hosts can't be replaced: hosts are known by their addresses only")
                    for descriptor, address in zip(descriptors, addresses, strict=True):
                        self._ports.append(_open_port(descriptor, str(address)))
                    self._update_fast_path()
                    return

    def _is_ready(self, host: int) -> bool:
        return host in self._listening or host in self._exit_statuses

    def _all_exited(self) -> bool:
        return all(
            index in self._exit_statuses
            for index, host in enumerate(self.topology.hosts)
            if host.command.argv
        )

    def _time_out(self, limit: float) -> None:
        raise TimeoutExpired("wire", "waiting for the last command to end", limit)

    def _send(self, message: dict[str, Any]) -> None:
        try:
            if self._control is None:  # closed by whoever carries, in another thread
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            supervisor.send(self._control, message)
        except OSError as error:
            raise SystemCallFailed("talk to", "what runs the hosts", error.errno or 0) from error

    def _receive(self) -> None:
        assert self._control is not None
        told = supervisor.receive(self._control)
        if told is None:
            self._supervisor_gone = True
            raise ConnectionLost("what runs the hosts", "carrying packets")
        match told[0]:
            case {"ended": int() as host, "status": int() as status}:
                self._exit_statuses[host] = status
            case {"listens": int() as host}:
                self._listening.add(host)
            case {"drained": _}:
                self._drained = True
            case {"alone": _}:
                self._all_processes_gone = True

    def _forward_until(self, deadline: float, condition: Callable[[], bool]) -> None:
        """Carry packets until it is enough, or the clock shows `until`."""
        control, ports, link, clock = self._control, self._ports, self.switch, self._clock
        assert control is not None
        waited: list[socket.socket | Port] = [control, *ports]
        while not condition():
            now = clock()
            if now >= deadline:
                return
            while self._timers and self._timers[0][0] <= now:
                self._timers.pop(0)[1]()
            due = link.due
            if due <= now:
                self._deliver(link.advance(now))
                due = link.due
            soonest = min(deadline, due, self._timers[0][0] if self._timers else math.inf)
            # select(2) takes microseconds, epoll(7) rounds up to milliseconds: here they count.
            patience = None if soonest == math.inf else max(0.0, soonest - now)
            ready, _, _ = select.select(waited, [], [], patience)
            now = clock()
            for each in ready:
                if isinstance(each, socket.socket):
                    self._receive()
                else:
                    self._read_port(ports.index(each), now)

    def _update_fast_path(self) -> None:
        """Whether frames may go on as they come. Hosts then leave to us what would be needless work."""
        is_straight = self.switch.can_fast_forward and self.topology.mtu >= interfaces.HOST_MTU
        if is_straight == self._fast_forwarding:
            return
        self._fast_forwarding = is_straight
        if self._veth:
            self._send({"offload": is_straight})
            return
        for port in self._ports:
            with contextlib.suppress(OSError):  # then they go on doing it themselves
                interfaces.set_tun_offload(port.fileno(), on=is_straight)

    def _read_port(self, number: int, now: float) -> None:
        """What a port has, up to a limit."""
        port, receive, deliver = self._ports[number], self.switch.receive, self._deliver
        try:
            if self._fast_forwarding:
                for _ in range(_BATCH):
                    self._fast_forward(now, number, port.read_frame(), port.header_size)
                return
            take, head, packets_of = port.read_frame, port.header_size, offload.segment_frame
            for _ in range(_BATCH):
                for packet in packets_of(take(), head):
                    deliver(receive(now, number, packet))
        except OSError:  # nothing is there; or its interface is down: ENETDOWN, once
            return

    def _fast_forward(self, now: float, number: int, frame: bytes, head: int) -> None:
        receiver = self.switch.fast_forward(number, frame, head)
        if receiver < 0:
            for packet in offload.segment_frame(frame, head):
                self._deliver(self.switch.receive(now, number, packet))
            return
        try:
            self._ports[receiver].write_frame(frame)
        except OSError:
            self.undelivered += offload.segmented_sizes(frame, head)[0]

    def _deliver(self, outgoing: Sequence[Outgoing]) -> None:
        for number, packet in outgoing:
            try:
                self._ports[number].write_packet(packet)
            except OSError:
                self.undelivered += 1


def _open_port(descriptor: int, address: str) -> Port:
    """A descriptor that was handed out: a packet socket has its host's hardware address with it."""
    if not address:
        return TunPort(descriptor)
    return FramePort(socket.socket(fileno=descriptor), bytes.fromhex(address))
