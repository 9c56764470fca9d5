"""A WebSocket server that sends each message back.

Mistakes: wrong-accept, masks, no-pong, echoes-fragments, short-lengths, no-close-frame, stays-open, any-text,
takes-unmasked, swaps-length, any-request.
"""

from __future__ import annotations

import base64
import hashlib

from tests.check.contracts.programs.serving import MISTAKE, Stream, serve

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Closed(Exception):
    """The connection ends with this status."""


def send(stream: Stream, opcode: int, data: bytes) -> None:
    masked = 0x80 if MISTAKE == "masks" else 0
    order = "little" if MISTAKE == "swaps-length" else "big"
    if len(data) < 126:
        size = bytes([masked | len(data)])
    elif len(data) < 65536:
        size = bytes([masked | 126]) + len(data).to_bytes(2, order)  # type: ignore[arg-type]
    else:
        size = bytes([masked | 127]) + len(data).to_bytes(8, order)  # type: ignore[arg-type]
    stream.conn.sendall(bytes([opcode]) + size + (bytes(4) if masked else b"") + data)


def receive(stream: Stream) -> tuple[int, bytes]:
    head = stream.exactly(2)
    size = head[1] & 0x7F
    if size > 125 and MISTAKE != "short-lengths":
        size = int.from_bytes(stream.exactly(2 if size == 126 else 8), "big")
    if head[1] & 0x80:
        mask = stream.exactly(4)
    elif MISTAKE == "takes-unmasked":
        mask = bytes(4)
    else:
        raise Closed(1002)
    data = stream.exactly(size)
    return head[0], bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


def talk(stream: Stream) -> None:
    message, kind = b"", 0
    while True:
        first, data = receive(stream)
        opcode = first & 0x0F
        if opcode == 9:
            if MISTAKE != "no-pong":
                send(stream, 0x8A, data)
        elif opcode == 8:
            raise Closed(1000)
        elif opcode < 8:
            kind = opcode or kind
            message += data
            if first & 0x80 or MISTAKE == "echoes-fragments":
                if kind == 1 and MISTAKE != "any-text":
                    try:
                        message.decode()
                    except UnicodeDecodeError:
                        raise Closed(1007) from None
                send(stream, 0x80 | kind, message)
                message = b""


def handle(stream: Stream) -> None:
    lines = stream.line(b"\r\n\r\n").decode().splitlines()[1:]
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    key = fields.get("sec-websocket-key")
    if key is None and MISTAKE == "any-request":
        key = "none"
    if key is None:
        stream.conn.sendall(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")
        return
    digest = hashlib.sha1(key.encode() + (b"" if MISTAKE == "wrong-accept" else GUID)).digest()
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    stream.conn.sendall(head + b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n")
    try:
        talk(stream)
    except Closed as closed:
        if MISTAKE != "no-close-frame":
            send(stream, 0x88, closed.args[0].to_bytes(2, "big"))
        if MISTAKE == "stays-open":
            stream.exactly(1)


serve(handle)
