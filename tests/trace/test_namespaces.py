"""Programs in PID and network namespaces, and packets whose addresses NAT has changed."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from bothends.socket_table.owners import netns_inode, netns_name
from bothends.trace.capture.packets import RawPacket, parse_packet
from bothends.trace.capture.schedule import LOOKS, LookSchedule
from bothends.trace.capture.sightings import HOLD, SightingJoiner
from bothends.trace.capture.strace import CallEnded, StraceParser
from bothends.trace.correlation.correlator import Correlator
from bothends.trace.correlation.timeline import Timeline
from bothends.trace.model import (
    Call,
    Packet,
    Point,
    Socket,
    SocketAddress,
    Trace,
    TracedProcess,
)
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import ENVIRONMENT, TIMEOUT
from tests.tools import find_tool, needs_tool
from tests.trace.running import python_command, read_saved
from tests.trace.sources import source_option

pytestmark = pytest.mark.spread("call_source", one_in=2)

# Joining sightings -----------------------------------------------------------------------------------

CLIENT, SERVER, GATEWAY = ("10.8.0.2", 40000), ("10.9.0.2", 7000), ("10.8.0.1", 80)


def tcp_packet(
    source: tuple[str, int],
    destination: tuple[str, int],
    *,
    sequence: int = 1,
    data: bytes = b"hello",
    ttl: int = 64,
) -> bytes:
    length = 40 + len(data)
    ip = bytes((0x45, 0)) + length.to_bytes(2, "big") + (sequence % 65536).to_bytes(2, "big")
    ip += bytes((0x40, 0, ttl, 6)) + ttl.to_bytes(2, "big")
    ip += socket.inet_aton(source[0]) + socket.inet_aton(destination[0])
    tcp = source[1].to_bytes(2, "big") + destination[1].to_bytes(2, "big") + sequence.to_bytes(4, "big")
    tcp += bytes((0, 0, 0, 9, 0x50, 0x18, 1, 0)) + ttl.to_bytes(2, "big") + bytes(2)
    return ip + tcp + data


def sighting(at: int, interface: str, data: bytes) -> RawPacket:
    return RawPacket(at * 1_000_000, interface, data)


def test_packet_seen_in_two_namespaces_is_sent_in_one_and_arrives_in_the_other() -> None:
    joiner = SightingJoiner()
    data, arrived = tcp_packet(CLIENT, SERVER), tcp_packet(CLIENT, SERVER, ttl=63)
    joiner.add([(sighting(1, "eth0 in a", data), 1), (sighting(2, "veth", data), 0)])
    joiner.add([(sighting(3, "eth0 in b", arrived), 2)])
    assert joiner.take(0) == []
    assert joiner.has_waiting()
    found = joiner.take(10_000_000)
    assert not joiner.has_waiting()
    assert [(each.at // 1_000_000, each.interface) for each in found] == [(1, "eth0 in a"), (3, "eth0 in b")]
    events = [each.transit for each in found]
    assert [each.event for each in events if each] == ["sent", "arrived"]
    assert {(each.number, each.reaches, each.arrived_as) for each in events if each} == {
        (1, "eth0 in b", b"")
    }


def test_packet_seen_in_one_namespace_is_one_packet() -> None:
    joiner = SightingJoiner()
    data = tcp_packet(CLIENT, SERVER)
    joiner.add([(sighting(1, "eth0", data), 0), (sighting(2, "bridge", data), 0)])
    assert joiner.take(10_000_000) == [sighting(1, "eth0", data)]


def test_translated_packet_has_the_addresses_that_it_arrives_with() -> None:
    joiner = SightingJoiner()
    sent, arrived = tcp_packet(CLIENT, GATEWAY), tcp_packet(("10.9.0.1", 40000), SERVER, ttl=63)
    joiner.add([(sighting(1, "eth0 in a", sent), 1), (sighting(2, "eth0 in b", arrived), 2)])
    first, last = joiner.take(10_000_000)
    assert first.transit is not None
    assert first.transit.arrived_as == arrived
    assert last.transit is not None
    assert last.transit.arrived_as == b""


def test_different_packets_are_not_joined() -> None:
    joiner = SightingJoiner()
    different = [
        tcp_packet(CLIENT, SERVER),
        tcp_packet(CLIENT, SERVER, sequence=2),
        tcp_packet(CLIENT, SERVER, data=b"jello"),
        b"\x45" + bytes(10),
    ]
    joiner.add((sighting(at, "eth0", data), at) for at, data in enumerate(different))
    assert [each.data for each in joiner.take(1 << 62)] == different


def test_same_bytes_at_one_interface_are_two_packets() -> None:
    joiner = SightingJoiner()
    data = tcp_packet(CLIENT, SERVER)
    joiner.add([(sighting(at, "eth0 in a", data), 1) for at in (1, 2)])
    joiner.add([(sighting(at, "eth0 in b", data), 2) for at in (3, 4)])
    found = joiner.take(1 << 62)
    assert [each.at // 1_000_000 for each in found] == [1, 2, 3, 4]
    numbers = [each.transit.number for each in found if each.transit]
    assert numbers[:2] == numbers[2:]
    assert len(set(numbers)) == 2


def test_late_sighting_of_a_packet_that_was_passed_on_is_left_out() -> None:
    joiner = SightingJoiner()
    data = tcp_packet(CLIENT, SERVER)
    joiner.add([(sighting(1, "eth0 in a", data), 1)])
    assert len(joiner.take(HOLD)) == 1
    joiner.add([(sighting(90, "eth0 in b", data), 2)])
    assert joiner.take(1 << 62) == []


def test_looks_become_rare_and_begin_again_with_another_program() -> None:
    now = [0.0]
    schedule = LookSchedule(lambda: now[0])
    looks = []
    for step in range(5000):
        now[0] = step / 1000
        due, delay = schedule.due([4711])
        assert delay >= 0
        looks += [now[0]] * len(due)
    assert looks[: len(LOOKS)] == [pytest.approx(each, abs=0.002) for each in LOOKS]
    assert len(looks) == len(LOOKS) + 1
    schedule.restart(4711)
    assert schedule.due([4711])[0] == [4711]
    assert schedule.knows(4711)
    now[0] += 10
    schedule.due([])
    schedule.due([])
    assert not schedule.knows(4711)


# PID namespaces --------------------------------------------------------------------------------------


def test_ids_of_another_pid_namespace_are_translated_for_the_process_that_waits() -> None:
    parser = StraceParser()
    clone = "clone(child_stack=NULL, flags=SIGCHLD) = 2"
    lines = (
        f"100 1.000000000 {clone} /* 5823 in strace's PID NS */ <0.000010000>\n"
        f"200 2.000000000 {clone} /* 6001 in strace's PID NS */ <0.000010000>\n"
        "100 3.000000000 wait4(-1, NULL, 0, NULL) = 2 <0.000010000>\n"
        "200 3.100000000 wait4(-1, NULL, 0, NULL) = 2 <0.000010000>\n"
        "300 4.000000000 wait4(-1, NULL, 0, NULL) = 2 <0.000010000>\n"
    )
    found = [line for line in parser.feed(lines.encode()) if isinstance(line, CallEnded)]
    assert [line.result for line in found] == [5823, 6001, 5823, 6001, 2]
    assert parser.inner_ids == {5823: 2, 6001: 2}


FORKING: Final = """
import os, socket
listener = socket.create_server(("127.0.0.1", 0))
if os.fork() == 0:
    with socket.create_connection(listener.getsockname()) as client:
        client.sendall(b"hello")
        client.recv(10)
    os._exit(0)
connection, _ = listener.accept()
connection.sendall(connection.recv(10).upper())
connection.close()
os.wait()
"""


def traced(folder: Path, *words: str, status: int = 0) -> tuple[Trace, str]:
    """Run `bothends trace`. Returns the saved trace, and what was printed."""
    saved = folder / "run.trace"
    command = [*BOTHENDS, "trace", *source_option(), "--width", "130", "--save", str(saved), *words]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, env=ENVIRONMENT, check=False)
    assert done.returncode == status, done.stdout.decode() + done.stderr.decode()
    return read_saved(saved), (done.stdout + done.stderr).decode()


@needs_tool("unshare")
@pytest.mark.skipif(os.geteuid() != 0, reason="it needs root")
def test_forked_child_in_a_pid_namespace_is_matched_to_its_clone(call_source: str, tmp_path: Path) -> None:
    command = ["unshare", "--pid", "--fork", "--mount-proc", *python_command(FORKING)]
    trace, _ = traced(tmp_path, "--calls-only", "--", *command)
    calls = [event for event in trace.events() if isinstance(event, Call)]
    processes = [each for each in trace.processes.values() if each.role]
    assert [each.role for each in processes] == ["unshare", "unshare/2"]
    assert processes[1].parent == processes[0].number
    assert processes[1].pid > 100  # not 2, as in its namespace
    fork = next(
        call for call in calls if call.name.startswith("clone") and call.process == processes[0].number
    )
    reaped = next(call for call in calls if call.name == "wait4" and call.process == processes[0].number)
    assert fork.created_id == reaped.created_id == processes[1].pid
    connected, accepted = (
        next(
            at
            for at, point in enumerate(trace.points)
            if point.is_end == is_end and is_call(point.event, name, process.number)
        )
        for name, process, is_end in (("connect", processes[1], False), ("accept4", processes[0], True))
    )
    assert connected < accepted


def is_call(event: object, name: str, process: int) -> bool:
    return isinstance(event, Call) and event.name == name and event.process == process


# Network namespaces ----------------------------------------------------------------------------------

ECHO: Final = """
import socket
with socket.create_server(("0.0.0.0", 7000)) as listener, listener.accept()[0] as connection:
    connection.sendall(connection.recv(100).upper())
    connection.recv(100)
"""
ASK: Final = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    connection.sendall(b"hello")
    connection.recv(100)
"""


class Namespaces:
    """Network namespaces with a name each: client and server, each with an address, a router between them."""

    def __init__(self) -> None:
        self.suffix = f"{os.getpid() % 100000}"
        self.client, self.server, self.router = (f"be{each}{self.suffix}" for each in "csr")

    def create(self, *, translates: bool) -> None:
        ends = ((self.client, "c", "10.8.0"), (self.server, "s", "10.9.0"))
        for name in (self.client, self.server, self.router):
            self.ip(f"netns add {name}")
        for name, letter, network in ends:
            there, here = f"be{letter}{self.suffix}", f"br{letter}{self.suffix}"
            self.ip(f"link add {there} netns {name} type veth peer name {here} netns {self.router}")
            self.ip(f"-n {name} addr add {network}.2/24 dev {there}")
            self.ip(f"-n {name} link set {there} up")
            self.ip(f"-n {name} route add default via {network}.1")
            self.ip(f"-n {self.router} addr add {network}.1/24 dev {here}")
            self.ip(f"-n {self.router} link set {here} up")
        inside = f"netns exec {self.router}"
        self.ip(f"{inside} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'")
        if translates:
            rules = f"""table ip nat {{
                chain first {{
                    type nat hook prerouting priority -100; tcp dport 80 dnat to 10.9.0.2:7000;
                }}
                chain last {{
                    type nat hook postrouting priority 100; oifname "brs{self.suffix}" masquerade;
                }}
            }}
            """
            command = ["ip", "netns", "exec", self.router, find_tool("nft") or "", "-f", "-"]
            done = subprocess.run(
                command, input=rules.encode(), capture_output=True, timeout=TIMEOUT, check=False
            )
            if done.returncode:
                pytest.skip(f"the kernel has no NAT: {done.stderr.decode()}")

    def ip(self, words: str) -> None:
        done = subprocess.run(["ip", *shlex.split(words)], capture_output=True, timeout=TIMEOUT, check=False)
        if done.returncode:
            pytest.skip(f"ip {words}: {done.stderr.decode()}")

    def remove(self) -> None:
        for name in (self.client, self.server, self.router):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=TIMEOUT, check=False)

    def run(self, folder: Path, address: str, port: int) -> tuple[Trace, str]:
        server = ["ip", "netns", "exec", self.server, *python_command(ECHO)]
        client = ["ip", "netns", "exec", self.client, *python_command(ASK), address, str(port)]
        return traced(folder, "--server", shlex.join(server), "--client", shlex.join(client))


@contextlib.contextmanager
def namespaces(*, translates: bool) -> Iterator[Namespaces]:
    found = Namespaces()
    try:
        found.create(translates=translates)
        yield found
    finally:
        found.remove()


ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="it needs root")


def check_conversation(trace: Trace, names: Namespaces) -> list[Packet]:
    """Check that a request and its answer are joined from end to end. Returns the packets with data."""
    by_role = {each.role: each for each in trace.processes.values() if each.role}
    assert by_role["server"].namespace == names.server
    assert by_role["client"].namespace in (names.client, "")  # it may have exited before it was found
    where = {"server": names.server, "client": names.client}
    packets = [event for event in trace.events() if isinstance(event, Packet)]
    assert not [each for each in packets if each.resent]
    assert sum("SYN" in each.flags for each in packets) == 2
    request, answer = (each for each in packets if each.size)
    for packet, sends, receives in ((request, "client", "server"), (answer, "server", "client")):
        assert packet.interface.endswith(f" in {where[sends]}")
        assert packet.reaches.endswith(f" in {where[receives]}")
        assert packet.until is not None
        assert packet.at <= packet.until
        causes = [trace.event(link.cause) for link in trace.causes_of(packet.number)]
        assert [is_call(each, "sendto", by_role[sends].number) for each in causes] == [True]
        effects = [trace.event(link.effect) for link in trace.effects_of(packet.number)]
        assert [is_call(each, "recvfrom", by_role[receives].number) for each in effects] == [True]
    return [request, answer]


@ROOT_ONLY
@needs_tool("ip")
def test_packets_between_network_namespaces_are_captured_where_they_are_sent_and_arrive(
    call_source: str, tmp_path: Path
) -> None:
    with namespaces(translates=False) as names:
        trace, text = names.run(tmp_path, "10.9.0.2", 7000)
        check_conversation(trace, names)
        assert f" in {names.server}" in text
        if find_tool("tshark"):
            packets = tmp_path / "run.pcapng"
            saved = str(tmp_path / "run.trace")
            subprocess.run([*BOTHENDS, "trace", "--open", saved, "--pcapng", str(packets)], check=True)
            fields = ["-T", "fields", "-e", "frame.interface_name"]
            done = subprocess.run(["tshark", "-r", str(packets), *fields], capture_output=True, check=True)
            assert set(done.stdout.decode().splitlines()) == {
                f"bec{names.suffix} in {names.client}", f"bes{names.suffix} in {names.server}"
            }  # fmt: skip


@ROOT_ONLY
@needs_tool("ip")
@needs_tool("nft")
def test_connection_through_nat_is_joined(call_source: str, tmp_path: Path) -> None:
    with namespaces(translates=True) as names:
        trace, _ = names.run(tmp_path, "10.8.0.1", 80)
        request, answer = check_conversation(trace, names)
        assert (str(request.destination), answer.source.host) == ("10.8.0.1:80", "10.9.0.2")
        (translation,) = trace.translations.items()
        assert [str(each) for each in translation[0]][1] == "10.9.0.2:7000"
        assert str(translation[1][1]) == "10.8.0.1:80"
        rows = subprocess.run(
            [*BOTHENDS, "query", str(tmp_path / "run.trace")], capture_output=True, check=True
        ).stdout.decode()
        assert "→ 10.8.0.1:80" in rows
        assert "10.9.0.1" not in rows


LISTENING: Final = "import socket; s = socket.create_server(('127.0.0.1', 7001)); print(flush=True); input()"


@ROOT_ONLY
@needs_tool("unshare")
@needs_tool("ip")
def test_sockets_of_another_network_namespace_are_shown_with_its_name() -> None:
    ready = f"ip link set lo up; exec {shlex.join(python_command(LISTENING))}"
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", ready], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        inode = netns_inode(process.pid)
        assert inode not in (0, netns_inode("self"))
        assert netns_name(inode) == f"net:[{inode}]"
        command = [*BOTHENDS, "sockets", str(process.pid)]
        table = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=True).stdout.decode()
        listed = subprocess.run([*command, "--json"], capture_output=True, timeout=TIMEOUT, check=True).stdout
        process.communicate(b"\n")
    assert f"in net:[{inode}]" in table
    assert [each["namespace"] for each in json.loads(listed)] == [f"net:[{inode}]"]


@pytest.mark.parametrize(
    ("interface", "listener"), [("veth in a", 1), ("veth in b", 2), ("lo in b", 2), ("lo", 1)]
)
def test_listener_of_the_namespace_in_which_a_packet_arrives_gets_it(interface: str, listener: int) -> None:
    trace = Trace()
    correlator = Correlator(trace, Timeline())
    for number, namespace in ((1, "a"), (2, "b")):
        trace.processes[number] = TracedProcess(number, number, f"server {number}", namespace=namespace)
        socket = Socket(number, "inet", "stream", local=SocketAddress("0.0.0.0", 7000), is_listener=True)
        trace.sockets[number] = socket
        correlator.add(
            Point(Call(number, number, number, "listen", number, number, socket=number), is_end=True)
        )
    if interface == "lo":
        trace.processes[1].namespace = ""
    packet = parse_packet(tcp_packet(CLIENT, SERVER), 9, 9, "eth0 in c" if " in " in interface else "lo")
    assert packet is not None
    if interface.startswith("lo"):
        packet.interface = interface
    else:
        packet.reaches = interface
    _, receiver = correlator.sockets_of(packet)
    assert receiver is trace.sockets[listener]
