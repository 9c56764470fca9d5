"""A server of files: `file_transfer.py PORT [MISTAKE] FOLDER`.

Mistakes: reads-once, wrong-size, closes-on-error, whole-disk, keeps-parts, one-file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.check.contracts.programs.serving import MISTAKE, Stream, serve

FOLDER = Path(sys.argv[-1])


def handle(stream: Stream) -> None:
    while True:
        command, name, *rest = stream.line(b"\n").decode().split(" ")
        path = FOLDER / name
        allowed = "/" not in name or MISTAKE == "whole-disk"
        if command == "GET":
            if not allowed or not path.is_file():
                stream.conn.sendall(b"ERROR no such file\n")
                if MISTAKE == "closes-on-error":
                    return
                continue
            data = path.read_bytes()
            stream.conn.sendall(b"OK %d\n" % (len(data) + (MISTAKE == "wrong-size")) + data)
        elif command == "PUT":
            size = int(rest[0])
            if MISTAKE == "reads-once":
                stream.fill()
                data, stream.buffer = stream.buffer, b""
            else:
                data = receive(stream, size, path)
            if allowed:
                path.write_bytes(data)
            stream.conn.sendall(b"OK\n" if allowed else b"ERROR not in the folder\n")
        if MISTAKE == "one-file":
            return


def receive(stream: Stream, size: int, path: Path) -> bytes:
    try:
        return stream.exactly(size)
    except EOFError:
        if MISTAKE == "keeps-parts":
            path.write_bytes(stream.buffer)
        raise


serve(handle)
