"""Standard input and output as one connection.

Under inetd(8) they are a socket already, and it is used directly. Otherwise (a terminal, pipes, files) one
end of a socket pair stands in for them, so that every engine can serve it, and two threads relay the bytes.
Threads, because epoll cannot wait for regular files, and because non-blocking mode of a terminal would also
affect the shell that shares it.

Half-close works in both directions: EOF on input shuts down one direction and leaves the other open, and
when the server shuts down its side, standard output is closed. /dev/null takes its descriptor, because
otherwise the next file to be opened would get that number.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from typing import Final

_READ_SIZE: Final = 65536  # bytes: the capacity of a pipe (pipe(7))


class StdioRelay:
    """Relay bytes from `source` to one end of a socket pair, and from there to `sink`.

    `service_socket` is the other end, which is served. The threads are daemons, so a thread that waits for a
    terminal does not keep the process alive.
    """

    def __init__(self, source: int = 0, sink: int = 1) -> None:
        self._source = source
        self._sink = sink
        self._relay_socket, self.service_socket = socket.socketpair()
        self._flushed = threading.Event()
        self._lock = threading.Lock()
        self._active_threads = 2
        for target, name in ((self._relay_input, "stdin"), (self._relay_output, "stdout")):
            threading.Thread(target=target, name=f"bothends-{name}", daemon=True).start()

    def wait_flushed(self, timeout: float | None = None) -> bool:
        """Wait until everything sent is written to `sink`. Returns False after `timeout` seconds."""
        return self._flushed.wait(timeout)

    def _relay_input(self) -> None:
        # EPIPE: the server has closed the connection. EIO: the terminal has hung up.
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
            # EPIPE: the reader of our output has exited. The server sees it as a disconnected peer.
            with contextlib.suppress(OSError):
                self._relay_socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._sink)
            os.close(null)
        self._flushed.set()
        self._thread_finished()

    def _read(self) -> bytes:
        while True:
            try:
                return os.read(self._source, _READ_SIZE)
            except BlockingIOError:  # a process that shares the file made it non-blocking
                _wait_for(self._source, select.POLLIN)

    def _write(self, data: bytes) -> None:
        remaining = memoryview(data)
        while remaining:
            try:
                remaining = remaining[os.write(self._sink, remaining) :]
            except BlockingIOError:
                _wait_for(self._sink, select.POLLOUT)

    def _thread_finished(self) -> None:
        with self._lock:
            self._active_threads -= 1
            if not self._active_threads:
                self._relay_socket.close()


def _wait_for(descriptor: int, events: int) -> None:
    poller = select.poll()
    poller.register(descriptor, events)
    poller.poll()
