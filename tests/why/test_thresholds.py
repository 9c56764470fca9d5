"""What is said to be wrong, and what is not yet, or not any more."""

from __future__ import annotations

import os
import socket

import pytest

from bothends.why import Snapshot, make_report
from bothends.why.model import ObservedProcess
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
