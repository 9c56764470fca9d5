"""A chat server, for the contract `chat`.

Mistakes: to-all, to-first, own-names, drops-on-leave, one-recv.
"""

from __future__ import annotations

import contextlib
import threading

from tests.check.contracts.programs.serving import MISTAKE, Stream, serve

members: dict[Stream, str] = {}
lock = threading.Lock()


def handle(stream: Stream) -> None:
    with lock:
        members[stream] = f"guest{len(members) + 1}"
    try:
        while True:
            line = stream.line(b"\n")
            with lock:
                spread(stream, line)
    finally:
        with lock:
            members.pop(stream, None)
            if MISTAKE == "drops-on-leave":
                members.clear()


def spread(sender: Stream, line: bytes) -> None:
    receivers = [each for each in members if each is not sender or MISTAKE == "to-all"]
    for receiver in receivers[:1] if MISTAKE == "to-first" else receivers:
        name = members[receiver if MISTAKE == "own-names" else sender]
        with contextlib.suppress(OSError):
            receiver.conn.sendall(b"%b: %b\n" % (name.encode(), line))


serve(handle)
