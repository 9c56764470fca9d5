"""Which thread of a process a sentence about a wait names, if several are blocked."""

from __future__ import annotations

from tests.trace.test_waits import AT_CLIENT, AT_SERVER, LISTENER, WaitingTrace, hello

FIRST, HELPER = 102, 109  # threads of the client; the first has the number of its process


def waiting_server() -> WaitingTrace:
    """The client has sent five bytes, and the server has answered and waits for more."""
    trace = WaitingTrace()
    hello(trace)
    trace.call(1, "sendto", 0.4, 0.5, socket=AT_SERVER, descriptor=4, size=5, requested=5, data=b"HELLO")
    trace.call(1, "recvfrom", 0.6, socket=AT_SERVER, descriptor=4, requested=100)
    return trace


def test_the_first_thread_runs_beside_a_helper_that_waits() -> None:
    """Node.js has a thread that waits for an eventfd; the loop computes, and is in no call."""
    trace = waiting_server()
    trace.blocked(2, "epoll_wait", 0.1, thread=HELPER, descriptors_waited=(10,))
    assert "The client runs, and is in no call that blocks." in trace.text()


def test_the_first_thread_may_have_exited() -> None:
    trace = waiting_server()
    trace.trace.thread_exits[FIRST] = 1
    trace.blocked(2, "epoll_wait", 0.1, thread=HELPER, descriptors_waited=(10,))
    assert "The client waits for input from descriptor 10" in trace.text()


def test_accept_explains_more_than_an_eventfd() -> None:
    trace = WaitingTrace()
    trace.call(2, "sendto", 0.1, 0.2, socket=AT_CLIENT, descriptor=3, size=5, requested=5, data=b"hello")
    trace.call(2, "recvfrom", 0.3, socket=AT_CLIENT, descriptor=3, requested=100)
    trace.blocked(1, "epoll_wait", 0.1, thread=HELPER, descriptors_waited=(5,))
    trace.call(1, "accept", 0.3, socket=LISTENER, descriptor=6)
    text = trace.text()
    assert "The server waits in accept(6) for a new connection" in text
    assert "descriptor 5" not in text


def test_idle_threads_of_one_pool_are_named_once() -> None:
    trace = waiting_server()
    trace.trace.thread_exits[FIRST] = 1
    for thread in range(HELPER, HELPER + 4):
        trace.blocked(2, "futex", 0.1, thread=thread)
    assert trace.text().count("waits for a lock of another thread") == 1
