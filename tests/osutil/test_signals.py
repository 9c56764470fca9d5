"""No signal is slept on, wherever it comes."""

from __future__ import annotations

import subprocess
import sys

import pytest

# The kernel may give a signal to any thread. To another one than Python's main thread it is what one is that
# comes just before the wait: it is noted, and the call that waits is not interrupted.
PROGRAM = """
import os, select, signal, sys, threading
from bothends.osutil.signals import handle_signals

class Life:
    is_draining = False
    told, telling = os.pipe()
    def drain(self):
        self.is_draining = True
        os.write(self.telling, b"drain ")
    def abort(self):
        os.write(self.telling, b"abort ")
    def reload(self):
        os.write(self.telling, b"reload ")

def arguments():
    # Of the system call that the main thread is in: proc(5).
    with open(f"/proc/self/task/{os.getpid()}/syscall") as call:
        return [int(each, 16) for each in call.read().split()[1:]]

def elsewhere(number):
    while not any(10_000 < argument <= 20_000 for argument in arguments()):
        pass  # until the main thread waits: what is left of its limit is among the arguments
    signal.pthread_kill(threading.get_ident(), number)

def wait():
    poller = select.epoll()
    poller.register(life.told, select.EPOLLIN)
    if not poller.poll(20):
        sys.exit("it was slept on")
    return os.read(life.told, 100).decode()

life = Life()
with handle_signals(life):
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        thread = threading.Thread(target=elsewhere, args=(number,))
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
