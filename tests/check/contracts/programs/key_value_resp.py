"""A key-value store that speaks RESP.

Mistakes: never-stores, first-key-only, empty-for-missing, own-store, splits-values, closes-on-unknown,
one-recv, first-only, one-client, short-values, forgets-count.
"""

from __future__ import annotations

from tests.check.contracts.programs.serving import MISTAKE, Stream, serve

shared: dict[bytes, bytes] = {}


def bulk(value: bytes | None) -> bytes:
    if value is None:
        return b"$0\r\n\r\n" if MISTAKE == "empty-for-missing" else b"$-1\r\n"
    return b"$%d\r\n%b\r\n" % (len(value), value)


def read_command(stream: Stream) -> list[bytes]:
    words = []
    for _ in range(int(stream.line()[1:])):
        size = int(stream.line()[1:])
        if MISTAKE == "short-values" and size > 4096:  # what one recv() gave
            words.append(stream.exactly(4096))
            stream.buffer = b""
            continue
        words.append(stream.line() if MISTAKE == "splits-values" else stream.exactly(size + 2)[:-2])
    return words


def execute(store: dict[bytes, bytes], command: bytes, words: list[bytes]) -> bytes:
    if command == b"PING":
        return bulk(words[0]) if words else b"+PONG\r\n"
    if command == b"ECHO":
        return bulk(words[0])
    if command == b"SET":
        if MISTAKE != "never-stores":
            store[words[0]] = words[1]
        return b"+OK\r\n"
    if command == b"GET":
        key = next(iter(store), b"") if MISTAKE == "first-key-only" else words[0]
        return bulk(store.get(key))
    if command == b"DEL":
        return b":%d\r\n" % sum(store.pop(key, None) is not None for key in words)
    if command == b"INCR":
        try:
            number = int(store.get(words[0], b"0")) + 1
        except ValueError:
            return b"-ERR value is not an integer\r\n"
        if MISTAKE != "forgets-count":
            store[words[0]] = b"%d" % number
        return b":%d\r\n" % number
    if MISTAKE == "closes-on-unknown":
        raise EOFError
    return b"-ERR unknown command\r\n"


def handle(stream: Stream) -> None:
    store = {} if MISTAKE == "own-store" else shared
    while True:
        command, *words = read_command(stream)
        stream.conn.sendall(execute(store, command.upper(), words))


serve(handle)
