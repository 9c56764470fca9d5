"""What is said to be wrong, and what is not yet, or not any more."""

from __future__ import annotations

import dataclasses
import os
import socket
from typing import Any

import pytest

from bothends.osutil.blocked_calls import BlockedCall, CallKind, DescriptorWait, Need
from bothends.socket_table.entry import EntryAddress, SocketEntry, SocketOwner, TcpInfo
from bothends.why import Snapshot, make_report
from bothends.why.model import ObservedProcess, ObservedThread
from tests.why.programs import find


@pytest.mark.parametrize(
    ("open_files", "limit", "reported"),
    [(900, 1000, True), (899, 1000, False), (57, 64, True), (56, 64, False), (1_000_000, 1_048_576, True)],
)
def test_descriptors_are_nearly_exhausted(open_files: int, limit: int, reported: bool) -> None:
    process = ObservedProcess(5, "server.py", open_files=open_files, file_limit=limit)
    problems = make_report(Snapshot(processes={5: process})).problems
    assert [problem.kind for problem in problems] == (["exhaustion"] if reported else [])


def test_dropped_datagrams_of_the_past_are_information() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as receiver, socket.socket(type=socket.SOCK_DGRAM) as sender:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        receiver.bind(("127.0.0.1", 0))
        for _ in range(200):
            sender.sendto(bytes(1000), receiver.getsockname())
        here = receiver.getsockname()[1]
        full = find("drops", os.getpid(), condition=lambda problem: f":{here}" in problem.text)
        receiver.setblocking(False)
        try:
            while receiver.recv(1000):
                pass
        except BlockingIOError:
            pass
        emptied = find("drops", os.getpid(), condition=lambda problem: f":{here}" in problem.text)
    assert (full.is_wrong, emptied.is_wrong) == (True, False)
    assert "It is not full now" in emptied.text


@pytest.mark.parametrize(("waits", "reported"), [(False, ["close-wait"]), (True, [])])
def test_connection_that_the_peer_closed_leaks_unless_a_thread_waits_for_it(
    waits: bool, reported: list[str]
) -> None:
    zeros: dict[str, Any] = {
        each.name: 0 for each in dataclasses.fields(TcpInfo) if each.default is dataclasses.MISSING
    }
    ends = EntryAddress("10.0.0.1", 80), EntryAddress("10.0.0.2", 5000)
    entry = SocketEntry("inet", "stream", "tcp", "CLOSE-WAIT", *ends, 77, send_queue=0)
    entry = dataclasses.replace(
        entry, tcp=TcpInfo(**zeros, last_ack_received_ms=90_000), owners=[SocketOwner(5, "server.py", 4)]
    )
    call = BlockedCall("recv", CallKind.DESCRIPTORS, (DescriptorWait(4, Need.DATA, 77),)) if waits else None
    thread = ObservedThread(5, 5, "python", "S", call)
    processes = {5: ObservedProcess(5, "server.py", [thread])}
    problems = make_report(Snapshot([entry], processes)).problems
    assert [each.kind for each in problems if each.kind == "close-wait"] == reported
