"""Replies of the process of a run, on its standard output: a line each."""

from __future__ import annotations

import os
import threading

from bothends.lab.messages import Reply, encode


class ReplyWriter:
    """Writes replies to the server. Safe from every thread, because one write(2) has one line at most."""

    def __init__(self) -> None:
        self._descriptor = os.dup(1)
        os.dup2(2, 1)  # nothing else may write there
        self._lock = threading.Lock()

    def send(self, reply: Reply) -> None:
        """Write a reply. If the server is gone, this process ends."""
        data = memoryview(encode(reply) + b"\n")
        with self._lock:
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BrokenPipeError:
                    os._exit(1)
