"""Calls on descriptors that are no sockets: on traces made by hand, and what the decoder keeps."""

from __future__ import annotations

import pytest

from bothends.trace.capture.descriptors import DescriptorTable
from bothends.trace.capture.wrong_descriptors import MAX_WRONG, WrongDescriptors
from bothends.trace.findings.base import TraceIndex
from bothends.trace.findings.wrong_descriptors import closed_object_used, not_a_socket
from bothends.trace.model import Call
from tests.trace.test_waits import AT_CLIENT, AT_SERVER, LISTENER, WaitingTrace


@pytest.mark.parametrize(
    ("command", "descriptor", "is_used", "is_found"),
    [
        ('["./server"]', 0, False, True),
        ('["./server"]', 0, True, False),
        ('["./server"]', 5, False, False),
        ('["python3", "server.py"]', 0, False, False),
    ],
)
def test_descriptor_0_in_place_of_an_unused_socket_is_a_comparison(
    command: str, descriptor: int, is_used: bool, is_found: bool
) -> None:
    trace = WaitingTrace()
    trace.trace.processes[1].command = command
    accept = trace.call(1, "accept", 0.1, 0.2, socket=LISTENER, descriptor=3, created_id=AT_SERVER)
    accept.result = 4
    if is_used:
        trace.call(1, "recvfrom", 0.3, 0.4, socket=AT_SERVER, descriptor=4, size=5)
    failed = trace.call(1, "recvfrom", 0.5, 0.6, descriptor=descriptor, error="ENOTSOCK")
    failed.result = -1
    trace.trace.freeze()
    assert any(not_a_socket(TraceIndex(trace.trace))) is is_found


@pytest.mark.parametrize("goes_on", [True, False])
def test_closed_python_socket_is_named_if_its_peer_goes_on(goes_on: bool) -> None:
    trace = WaitingTrace()
    trace.trace.processes[1].command = '["python3", "server.py"]'
    trace.call(1, "close", 0.1, 0.2, socket=AT_SERVER, descriptor=4)
    failed = trace.call(1, "recvfrom", 0.3, 0.4, descriptor=-1, error="EBADF")
    failed.result = -1
    if goes_on:
        trace.call(2, "sendto", 0.5, 0.6, socket=AT_CLIENT, descriptor=3, size=3)
    trace.trace.freeze()
    found = list(closed_object_used(TraceIndex(trace.trace)))
    assert bool(found) is goes_on
    assert not found or "recv() of a closed socket" in found[0].title


@pytest.mark.parametrize(
    ("name", "descriptor", "error", "is_kept"),
    [
        ("recvfrom", 0, "ENOTSOCK", True),
        ("getsockopt", 0, "ENOTSOCK", False),  # programs ask so whether it is a socket
        ("accept4", -1, "EBADF", True),
        ("read", 7, "EBADF", False),
        ("recvfrom", 0, "EAGAIN", False),
    ],
)
def test_call_that_needs_a_socket_and_has_none_is_kept(
    name: str, descriptor: int, error: str, is_kept: bool
) -> None:
    wrong = WrongDescriptors(frozenset({"recvfrom", "accept4", "read"}))
    call = Call(1, 1, 100, name, 0, descriptor=descriptor)
    table = DescriptorTable()
    assert wrong.fill_in(call, error, table) is is_kept
    assert sum(wrong.fill_in(call, error, table) for _ in range(100)) == (MAX_WRONG - 1 if is_kept else 0)
