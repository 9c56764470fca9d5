"""An HTTP/1.1 server that replies with the body of a request.

Mistakes: length-only, keeps-sizes, decimal-sizes, one-recv-chunk, leaves-end, waits-for-body, closes,
text-only, dies-of-length.
"""

from __future__ import annotations

import os

from tests.check.contracts.programs.serving import MISTAKE, Stream, serve


def read_chunks(stream: Stream) -> bytes:
    body = b""
    while True:
        line = stream.line()
        size = int(line, 10 if MISTAKE == "decimal-sizes" else 16)
        if MISTAKE == "keeps-sizes":
            body += line + b"\r\n"
        if MISTAKE == "leaves-end" and not size:
            return body
        if MISTAKE == "one-recv-chunk" and size > len(stream.buffer):
            body += stream.buffer
            stream.buffer = b""
            return body
        body += stream.exactly(size)
        stream.line()
        if not size:
            return body


def read_body(stream: Stream, fields: dict[str, str]) -> bytes:
    if "transfer-encoding" in fields and MISTAKE != "length-only":
        return read_chunks(stream)
    if MISTAKE == "waits-for-body" and "content-length" in fields and int(fields["content-length"]) == 0:
        stream.fill()
    body = stream.exactly(int(fields.get("content-length", "0")))
    return body.splitlines()[0] if MISTAKE == "text-only" and body else body


def handle(stream: Stream) -> None:
    while True:
        head = stream.line(b"\r\n\r\n").decode().splitlines()
        fields = dict(line.split(":", 1) for line in head[1:])
        fields = {name.lower(): value.strip().lower() for name, value in fields.items()}
        try:
            body = read_body(stream, fields)
        except ValueError:
            if MISTAKE == "dies-of-length":
                os._exit(1)
            stream.conn.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            return
        stream.conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        if MISTAKE == "closes" or fields.get("connection") == "close":
            return


serve(handle)
