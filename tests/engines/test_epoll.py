"""The poller on epoll: of several that wait for one listener, a connection wakes one."""

from __future__ import annotations

import contextlib
import select
import socket
import threading

import pytest

from bothends.engines.epoll import EpollPoller

WAITING = 4


@pytest.mark.parametrize("shared", [True, False])
def test_connection_wakes_one_of_the_pollers_that_share_a_listener(shared: bool) -> None:
    woken: list[int] = []
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        ready = threading.Barrier(WAITING + 1)

        def wait(number: int) -> None:
            poller = EpollPoller()
            poller.watch(listener.fileno(), select.POLLIN, shared=shared)
            ready.wait()
            if poller.wait(1.0):
                woken.append(number)
            poller.close()

        threads = [threading.Thread(target=wait, args=(number,)) for number in range(WAITING)]
        for thread in threads:
            thread.start()
        ready.wait()
        threading.Event().wait(0.3)  # until all of them are blocked
        stack.enter_context(socket.create_connection(listener.getsockname()))
        for thread in threads:
            thread.join()
    assert len(woken) < WAITING if shared else len(woken) == WAITING
