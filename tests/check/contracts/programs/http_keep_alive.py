"""An HTTP/1.1 server of two files.

Mistakes: closes, wrong-length, short-length, body-after-head, lf-only, ignores-close, error-without-length,
bad-chunks, drops-rest, ignores-eof.
"""

from __future__ import annotations

import time

from tests.check.contracts.programs.serving import MISTAKE, Stream, serve

FILES = {
    "/index.html": b"<!doctype html><title>check</title><p>hello from the check</p>\n",
    "/notes.txt": b"one\ntwo\n\nthree\n",
}


def read_request(stream: Stream) -> tuple[str, str, str, dict[str, str]]:
    if MISTAKE == "drops-rest":
        stream.buffer = b""
    head = stream.line(b"\r\n\r\n").decode().splitlines()
    method, path, version = head[0].split(" ")
    fields = dict(line.split(":", 1) for line in head[1:])
    return method, path, version, {name.lower(): value.strip().lower() for name, value in fields.items()}


def handle(stream: Stream) -> None:
    while True:
        if MISTAKE == "ignores-eof" and not stream.buffer:
            data = stream.conn.recv(65536)
            while not data:
                time.sleep(0.1)
            stream.buffer += data
        method, path, version, fields = read_request(stream)
        close = fields.get("connection") == "close" or version == "HTTP/1.0"
        body = FILES.get(path)
        status = "200 OK" if body is not None else "404 Not Found"
        head = [f"HTTP/1.1 {status}", "Content-Type: text/html"]
        body = b"<p>not found</p>" if body is None else body
        length = len(body) + {"wrong-length": 7, "short-length": -3}.get(MISTAKE, 0)
        if MISTAKE == "error-without-length" and status != "200 OK":
            pass
        elif path == "/notes.txt" and method == "GET":  # chunks are as right as a length
            head.append("Transfer-Encoding: chunked")
            size = b"%d" if MISTAKE == "bad-chunks" else b"%x"
            body = (size % len(body)) + b"\r\n" + body + b"\r\n0\r\n\r\n"
        else:
            head.append(f"Content-Length: {length}")
        if close:
            head.append("Connection: close")
        end = "\n" if MISTAKE == "lf-only" else "\r\n"
        reply = (end.join(head) + end * 2).encode()
        if method != "HEAD" or MISTAKE == "body-after-head":
            reply += body
        stream.conn.sendall(reply)
        if MISTAKE == "closes" or (close and MISTAKE != "ignores-close"):
            return


serve(handle)
