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

from bothends.errors import BothendsError, ConnectionLost, SystemRefused, TimeLimit, Unavailable
from bothends.osutil import namespaces
from bothends.toxics.placement import Spec
from bothends.wire import interfaces, offload, supervisor
from bothends.wire.attach import open_door
from bothends.wire.plan import Plan
from bothends.wire.switch import Link, Observer, Outgoing

_AT_ONCE: Final = 64  # packets of one port before the others have their turn
_LONGEST: Final = 66 * 1024  # bytes of a packet, and what is before it
_READY: Final = 5.0  # seconds in which a server should listen; then the next host's command starts anyway
_DRAIN: Final = 10.0  # seconds for what was sent to arrive, after the last command has ended
_SETTLE: Final = 0.2  # seconds for servers to end by themselves, once all has arrived
_GRACE: Final = 2.0  # seconds from SIGTERM to SIGKILL
_OPENING: Final = 20.0  # seconds to make all hosts: a fraction of one, unless the machine is very busy
_PIECE: Final = 0.05  # seconds after which whoever carries asks whether to go on
_ETHERNET: Final = {4: b"\x08\x00", 6: b"\x86\xdd"}


class Port(Protocol):
    """Where a host's packets come out, and others' go in."""

    head: int
    """Bytes of a frame before its packet."""

    def fileno(self) -> int:
        """For select(2)."""

    def take(self) -> bytes:
        """The next frame (`offload.py`). Raises BlockingIOError if there is none, OSError if it is down."""

    def give(self, frame: bytes) -> None:
        """Give it a frame of another host's. Raises OSError: its interface is down, or its queue full."""

    def send(self, packet: bytes) -> None:
        """Give the host a packet. Raises OSError as `give`."""

    def close(self) -> None:
        """Let go of it."""


class TunPort:
    """The descriptor of a TUN device: a read is a frame."""

    head = offload.SIZE

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def take(self) -> bytes:
        return os.read(self._descriptor, _LONGEST)

    def give(self, frame: bytes) -> None:
        os.write(self._descriptor, frame)

    def send(self, packet: bytes) -> None:
        os.write(self._descriptor, offload.PLAIN + packet)

    def close(self) -> None:
        os.close(self._descriptor)


class FramePort:
    """A packet socket on our end of a veth pair: frames have an Ethernet header, and each host its own."""

    head = offload.SIZE + 14

    def __init__(self, sock: socket.socket, address: bytes) -> None:
        self._socket = sock
        self._heads = {version: address + bytes(6) + kind for version, kind in _ETHERNET.items()}

    def fileno(self) -> int:
        return self._socket.fileno()

    def take(self) -> bytes:
        return self._socket.recv(_LONGEST)

    def give(self, frame: bytes) -> None:
        head = self._heads[frame[self.head] >> 4]
        self._socket.sendmsg([frame[: offload.SIZE], head, memoryview(frame)[self.head :]])

    def send(self, packet: bytes) -> None:
        self._socket.send(offload.PLAIN + self._heads[packet[0] >> 4] + packet)

    def close(self) -> None:
        self._socket.close()


class Wire:
    """Hosts, their commands, and the link between them. Use it as a context; one thread, and no other.

    `tell` hears a line about what happens; `clock` gives seconds. `veth`: True uses no TUN device, None only
    where there is none to be opened.
    """

    def __init__(
        self,
        plan: Plan,
        specs: Sequence[Spec] = (),
        *,
        seed: int = 0,
        icmp: bool = True,
        observe: Observer | None = None,
        tell: Callable[[str], object] = lambda line: None,
        veth: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan = plan
        self.link = Link(plan, specs, seed=seed, icmp=icmp, observe=observe)
        self.undelivered = 0
        """Packets that a host could not take: its interface was down, or its queue full."""
        self._tell = tell
        self._veth = not os.access(interfaces.TUN, os.R_OK | os.W_OK) if veth is None else veth
        self._clock = clock
        self._keeper = 0
        self._control: socket.socket | None = None
        self._ports: list[Port] = []
        self._ended: dict[int, int] = {}
        self._listening: set[int] = set()
        self._drained = False
        self._alone = False
        self._gone = False
        self._timers: list[tuple[float, Callable[[], object]]] = []
        self._is_straight = False

    @property
    def how(self) -> str:
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
        ours.settimeout(_OPENING)
        sys.stdout.flush()
        sys.stderr.flush()
        door = open_door()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, supervisor.HELD)
        keeper = os.fork()
        if keeper == 0:
            try:
                ours.close()
                supervisor.keep(self.plan, theirs, door, veth=self._veth)
            finally:
                os._exit(1)
        theirs.close()
        if door is not None:
            door.close()
        self._keeper, self._control = keeper, ours
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._welcome(ours)
        except BaseException:
            self.close()
            raise

    def run(self, *, limit: float = math.inf) -> int:
        """Run the commands: each starts when the one before it listens; all end with the last host's.

        The status of that command; 128 and the signal's number where one has ended it. Raises TimeLimit
        after `limit` seconds, SystemRefused if what is inside has gone.
        """
        self.link.begin(self._clock())
        if limit < math.inf:
            self.at(self._clock() + limit, lambda: self._too_long(limit))
        try:
            self._run()
        finally:
            self.stop()
        status = self._ended[self.plan.main]
        return status if status >= 0 else 128 - status

    def _run(self) -> None:
        main = self.plan.main
        for index, host in enumerate(self.plan.hosts):
            if not host.command.words:
                continue
            self._say({"start": index})
            if index == main:
                break
            self._turn(self._clock() + _READY, functools.partial(self._is_ready, index))
            if not self._is_ready(index):
                self._tell(f"{host.name} listens to nobody after {_READY:g} s; going on")
        self._turn(math.inf, lambda: main in self._ended)
        self.drain()
        self._turn(math.inf, lambda: self._drained)
        if not self._all_ended():
            self._turn(self._clock() + _SETTLE, self._all_ended)

    def carry(self, goes_on: Callable[[], bool]) -> None:
        """Instead of `run`: carry packets as long as it is said to, while somebody else, in another thread,
        starts commands (`start`), asks what they came to (`status`) and signals them.

        Raises SystemRefused, ConnectionLost if what is inside has gone.
        """
        self.link.begin(self._clock())
        while goes_on():
            self._turn(self._clock() + _PIECE, lambda: not goes_on())

    def start(self, host: int, words: Sequence[str], *, keyboard: bool, output: int | None = None) -> None:
        """Run a command in a host; `output` is the descriptor of its standard output, None for ours."""
        self._say({"start": host, "words": list(words), "keyboard": keyboard, "output": output})

    def status(self, host: int) -> int | None:
        """What the host's command has left with, as Popen.returncode has it; None while it runs."""
        return self._ended.get(host)

    def signal(self, number: int, processes: Sequence[int] = ()) -> None:
        """Signal processes by the numbers that they have inside; all of them by default."""
        if processes:
            self._say({"signal_only": number, "processes": list(processes)})
        else:
            self._say({"signal": number})

    def drain(self) -> None:
        """Begin to look whether all that was sent has arrived: then `is_drained`."""
        self._say({"drain": _DRAIN})

    @property
    def is_drained(self) -> bool:
        """Whether all that was sent has arrived, as was found since `drain`, or waited for long enough."""
        return self._drained

    def stop(self) -> None:
        """End what still runs: SIGTERM, and after two seconds SIGKILL."""
        if self._gone:
            return
        with contextlib.suppress(BothendsError):
            self._say({"signal": int(signal.SIGTERM)})
            self._turn(self._clock() + _GRACE, lambda: self._alone)

    def at(self, moment: float, call: Callable[[], object]) -> None:
        """Call something while running, once the clock shows this."""
        self._timers.append((moment, call))
        self._timers.sort(key=lambda each: each[0])

    def set_interface(self, host: int, *, up: bool) -> None:
        """Turn all interfaces of a host up or down, as if a cable were plugged in or out."""
        for each in self.plan.hosts[host].interfaces:
            self._say({"interface": each.name, "host": host, "up": up})
        self._tell(f"{self.plan.hosts[host].name} is {'up' if up else 'down'}")

    def add(self, spec: Spec) -> None:
        """A toxic comes. Raises ToxicError."""
        self._deliver(self.link.add(spec, self._clock()))
        self._choose()

    def remove(self, name: str) -> None:
        """A toxic goes; what it held leaves."""
        self._deliver(self.link.remove(name, self._clock()))
        self._choose()

    def close(self) -> None:
        """Let all of it go. When this returns, no process of it is left."""
        if self._control is not None:
            self._control.close()
            self._control = None
        for port in self._ports:
            port.close()
        self._ports.clear()
        if self._keeper:
            # It ends with the supervisor, which ends by the end of the socket, and takes all others along.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._keeper, 0)
            self._keeper = 0

    def _welcome(self, control: socket.socket) -> None:
        while True:
            try:
                told = supervisor.receive(control)
            except TimeoutError as error:
                raise TimeLimit("hosts of our own", "making them", _OPENING) from error
            if told is None:
                raise Unavailable("make", "hosts of our own", reason="what makes them was ended")
            message, descriptors = told
            match message:
                case {"unshared": bool() as in_user_namespace}:
                    try:
                        if in_user_namespace:
                            namespaces.write_maps(self._keeper)
                    except OSError as error:
                        raise namespaces.refused(error.errno or 0) from error
                    supervisor.send(control, {"go": True})
                case {"refused": int() as number}:
                    raise namespaces.refused(number)
                case {"failed": int() as number, "doing": str() as doing}:
                    hint = namespaces.why_not(number)
                    raise Unavailable("make", f"hosts of our own ({doing or 'devices'})", number, hint)
                case {"made": list() as addresses, "named": bool() as named}:
                    if not named:
                        self._tell("/etc/hosts can't be replaced: hosts are known by their addresses only")
                    for descriptor, address in zip(descriptors, addresses, strict=True):
                        self._ports.append(_port(descriptor, str(address)))
                    self._choose()
                    return

    def _is_ready(self, host: int) -> bool:
        return host in self._listening or host in self._ended

    def _all_ended(self) -> bool:
        return all(index in self._ended for index, host in enumerate(self.plan.hosts) if host.command.words)

    def _too_long(self, limit: float) -> None:
        raise TimeLimit("wire", "waiting for the last command to end", limit)

    def _say(self, message: dict[str, Any]) -> None:
        try:
            if self._control is None:  # closed by whoever carries, in another thread
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            supervisor.send(self._control, message)
        except OSError as error:
            raise SystemRefused("talk to", "what runs the hosts", error.errno or 0) from error

    def _hear(self) -> None:
        assert self._control is not None
        told = supervisor.receive(self._control)
        if told is None:
            self._gone = True
            raise ConnectionLost("what runs the hosts", "carrying packets")
        match told[0]:
            case {"ended": int() as host, "status": int() as status}:
                self._ended[host] = status
            case {"listens": int() as host}:
                self._listening.add(host)
            case {"drained": _}:
                self._drained = True
            case {"alone": _}:
                self._alone = True

    def _turn(self, until: float, enough: Callable[[], bool]) -> None:
        """Carry packets until it is enough, or the clock shows `until`."""
        control, ports, link, clock = self._control, self._ports, self.link, self._clock
        assert control is not None
        waited: list[socket.socket | Port] = [control, *ports]
        while not enough():
            now = clock()
            if now >= until:
                return
            while self._timers and self._timers[0][0] <= now:
                self._timers.pop(0)[1]()
            due = link.due
            if due <= now:
                self._deliver(link.advance(now))
                due = link.due
            soonest = min(until, due, self._timers[0][0] if self._timers else math.inf)
            # select(2) takes microseconds, epoll(7) rounds up to milliseconds: here they count.
            patience = None if soonest == math.inf else max(0.0, soonest - now)
            ready, _, _ = select.select(waited, [], [], patience)
            now = clock()
            for each in ready:
                if isinstance(each, socket.socket):
                    self._hear()
                else:
                    self._drain(ports.index(each), now)

    def _choose(self) -> None:
        """Whether frames may go on as they come. Hosts then leave to us what would be needless work."""
        is_straight = self.link.is_clear and self.plan.mtu >= interfaces.HOST_MTU
        if is_straight == self._is_straight:
            return
        self._is_straight = is_straight
        if self._veth:
            self._say({"offload": is_straight})
            return
        for port in self._ports:
            with contextlib.suppress(OSError):  # then they go on doing it themselves
                interfaces.offload_tun(port.fileno(), on=is_straight)

    def _drain(self, number: int, now: float) -> None:
        """What a port has, up to a limit."""
        port, receive, deliver = self._ports[number], self.link.receive, self._deliver
        try:
            if self._is_straight:
                for _ in range(_AT_ONCE):
                    self._pass(now, number, port.take(), port.head)
                return
            take, head, packets_of = port.take, port.head, offload.packets_of
            for _ in range(_AT_ONCE):
                for packet in packets_of(take(), head):
                    deliver(receive(now, number, packet))
        except OSError:  # nothing is there; or its interface is down: ENETDOWN, once
            return

    def _pass(self, now: float, number: int, frame: bytes, head: int) -> None:
        receiver = self.link.straight(number, frame, head)
        if receiver < 0:
            for packet in offload.packets_of(frame, head):
                self._deliver(self.link.receive(now, number, packet))
            return
        try:
            self._ports[receiver].give(frame)
        except OSError:
            self.undelivered += offload.sizes_of(frame, head)[0]

    def _deliver(self, outgoing: Sequence[Outgoing]) -> None:
        for number, packet in outgoing:
            try:
                self._ports[number].send(packet)
            except OSError:
                self.undelivered += 1


def _port(descriptor: int, address: str) -> Port:
    """A descriptor that was handed out: a packet socket has its host's hardware address with it."""
    if not address:
        return TunPort(descriptor)
    return FramePort(socket.socket(fileno=descriptor), bytes.fromhex(address))
