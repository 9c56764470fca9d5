"""Standard input and output as one connection.

Under inetd(8) they are a socket already, and it is used as it is. Otherwise (a terminal, pipes, files) one
end of a socket pair takes their place, so that every engine can serve it, and two threads carry the bytes:
regular files can't be waited for with epoll, and putting a terminal into non-blocking mode would change it
for the shell too, with which we share it.

Half-close passes both ways: the end of input shuts down one direction and leaves the other open, and when
the server has finished sending, standard output is closed (/dev/null takes its number, lest the next file
that is opened gets it).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from typing import Final

_READ_SIZE: Final = 65536  # bytes: what a pipe holds (pipe(7))


class StdioRelay:
    """Carries bytes from `source` to one end of a socket pair, and from there to `sink`.

    `far` is the other end, which is served. The threads are daemons: one that waits for a terminal does not
    keep the program alive.
    """

    def __init__(self, source: int = 0, sink: int = 1) -> None:
        self._source = source
        self._sink = sink
        self._relay_socket, self.service_socket = socket.socketpair()
        self._flushed = threading.Event()
        self._lock = threading.Lock()
        self._active_threads = 2
        for work, name in ((self._relay_input, "stdin"), (self._relay_output, "stdout")):
            threading.Thread(target=work, name=f"bothends-{name}", daemon=True).start()

    def wait_flushed(self, timeout: float | None = None) -> bool:
        """Wait until `sink` has all that was sent; False if it took over `timeout` seconds."""
        return self._flushed.wait(timeout)

    def _relay_input(self) -> None:
        # EPIPE: the server has closed, and takes no more. EIO: the terminal has gone.
        with contextlib.suppress(OSError):
            while data := self._read():
                self._relay_socket.sendall(data)
        with contextlib.suppress(OSError):
            self._relay_socket.shutdown(socket.SHUT_WR)
        self._thread_finished()

    def _relay_output(self) -> None:
        try:
            while data := self._relay_socket.recv(_READ_SIZE):
                self._write(data)
        except OSError:
            # EPIPE: nobody reads our output. The server learns it as it would from a peer that has gone.
            with contextlib.suppress(OSError):
                self._relay_socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._sink)
            os.close(nowhere)
        self._flushed.set()
        self._thread_finished()

    def _read(self) -> bytes:
        while True:
            try:
                return os.read(self._source, _READ_SIZE)
            except BlockingIOError:  # whoever shares it made it non-blocking
                _wait_for(self._source, select.POLLIN)

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._sink, left) :]
            except BlockingIOError:
                _wait_for(self._sink, select.POLLOUT)

    def _thread_finished(self) -> None:
        with self._lock:
            self._active_threads -= 1
            if not self._active_threads:
                self._relay_socket.close()


def _wait_for(descriptor: int, events: int) -> None:
    waiting = select.poll()
    waiting.register(descriptor, events)
    waiting.poll()
