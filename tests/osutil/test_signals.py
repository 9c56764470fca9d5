"""Every signal interrupts a blocking system call, whenever it arrives."""

from __future__ import annotations

import subprocess
import sys

import pytest

# The kernel may deliver a signal to any thread. Delivery to a thread other than Python's main thread is like
# delivery just before the system call: Python records the signal, and the call is not interrupted.
PROGRAM = """
import os, select, signal, sys, threading
from bothends.osutil.signals import handle_signals

class Server:
    is_draining = False
    reader, writer = os.pipe()
    def drain(self):
        self.is_draining = True
        os.write(self.writer, b"drain ")
    def abort(self):
        os.write(self.writer, b"abort ")
    def reload(self):
        os.write(self.writer, b"reload ")

def arguments():
    # Of the system call that the main thread is in: proc(5).
    with open(f"/proc/self/task/{os.getpid()}/syscall") as call:
        return [int(each, 16) for each in call.read().split()[1:]]

def signal_this_thread(number):
    while not any(10_000 < argument <= 20_000 for argument in arguments()):
        pass  # until the main thread waits: the rest of its timeout is among the arguments
    signal.pthread_kill(threading.get_ident(), number)

def wait():
    poller = select.epoll()
    poller.register(server.reader, select.EPOLLIN)
    if not poller.poll(20):
        sys.exit("not interrupted")
    return os.read(server.reader, 100).decode()

server = Server()
with handle_signals(server):
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        thread = threading.Thread(target=signal_this_thread, args=(number,))
        thread.start()
        print(wait(), end="", flush=True)
        thread.join()
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, threading.active_count(), signal.set_wakeup_fd(-1))
"""


@pytest.mark.parametrize("_time", range(5))
def test_signal_before_wait_is_handled(_time: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=40, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("reload drain abort True 1 -1\n", "", 0)
