r"""Parse the arguments of a call as strace prints them with `-yy -xx`. Pure.

    sendto(4<TCP:[127.0.0.1:5000->127.0.0.1:12000]>, "\x68\x69", 2, 0, NULL, 0)
           a descriptor and its label                 the data

Nothing here raises for text that is cut off: the arguments of an unfinished call may end anywhere.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from bothends.escaping import escape
from bothends.trace.model import DATA_LIMIT, Message, SocketAddress, SocketFamily, SocketKind

# The arguments of socket().
FAMILIES: Final[dict[str, SocketFamily]] = {
    "AF_INET": "inet",
    "AF_INET6": "inet6",
    "AF_UNIX": "unix",
    "AF_LOCAL": "unix",
    "AF_NETLINK": "netlink",
}
KINDS: Final[dict[str, SocketKind]] = {
    "SOCK_STREAM": "stream",
    "SOCK_DGRAM": "datagram",
    "SOCK_SEQPACKET": "seqpacket",
    "SOCK_RAW": "raw",
}

_TOKEN: Final = re.compile(r'"[^"]*"?|[\[({]|[\])}]|,')
_STRING: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(?:\.\.\.)?')
_INET: Final = re.compile(r'sin_port=htons\((\d+)\), sin_addr=inet_addr\("([^"]*)"\)')
_INET6: Final = re.compile(r'sin6_port=htons\((\d+)\),.*?inet_pton\(AF_INET6, "([^"]*)"')
_UNIX: Final = re.compile(r'sa_family=AF_UNIX(?:, sun_path=(@?)"([^"]*)")?')
_DESCRIPTOR: Final = re.compile(r"(-?\d+)(?:<(.*)>)?$", re.DOTALL)
_IN_SET: Final = re.compile(r"(\d+)<([^<>]*)>")
_PIPE: Final = re.compile(rb"pipe:\[(\d+)\]")
_SOCKET_IN_SET: Final = re.compile(r"(?<![\w.])(\d+)<([A-Z][\w-]*:\[.*?\])>")
_POLLFD: Final = re.compile(r"\{fd=(\d+)(?:<([^{}]*?)>)?, r?events=([\w|]*)")
_MEMBER: Final = re.compile(r"(?<![\w.])(\d+)(?:<([A-Z][\w-]*:\[.*?\]|[^<>]*(?:<[^<>]*>)?)>)?(?=[\s\]]|$)")
_EPOLL_EVENT: Final = re.compile(r"\{events=([\w|]*), data=(?:\{[^{}]*?u64=(\w+)\}|(\w+))\}")
_TIME: Final = re.compile(r"\{tv_sec=(\d+), tv_(n|u)sec=(\d+)\}")
_LABEL: Final = re.compile(r"(?P<protocol>[A-Z][\w-]*):\[(?P<inner>.*)\]$", re.DOTALL)
_UNIX_LABEL: Final = re.compile(r'(\d+)(?:->(\d+))?(?:,(@?)"([^"]*)")?$')
_IOV_BASE: Final = re.compile(r'iov_base="((?:\\x[0-9a-f]{2})*)"')
_IOV_LEN: Final = re.compile(r"iov_len=(\d+)")
_MESSAGE: Final = re.compile(r"msg_hdr=(.*?)\}, msg_len=(\d+)\}", re.DOTALL)
_HEX_TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})+)"')

_DISPLAY_LIMIT: Final = 160  # characters of one argument on a picture
_TEXT_BYTES: Final = 64  # bytes of a string that are shown


def split_arguments(text: str) -> list[str]:
    """Split the arguments of a call at its commas.

    Strings contain no quotes, because they are in hexadecimal, and commas within an argument are in brackets.
    """
    if not text:
        return []
    found, depth, start = [], 0, 0
    for token in _TOKEN.finditer(text):
        match token[0]:
            case "[" | "(" | "{":
                depth += 1
            case "]" | ")" | "}":
                depth -= 1
            case "," if depth <= 0:
                found.append(text[start : token.start()].strip())
                start = token.end()
    found.append(text[start:].strip())
    return found


def unhex(text: str) -> bytes:
    r"""Decode text like `\x68\x69`. Returns no bytes for other text."""
    try:
        return bytes.fromhex(text.replace("\\x", ""))
    except ValueError:
        return b""


def string_bytes(argument: str) -> bytes:
    """Return the bytes of a string argument; none if it is a pointer."""
    found = _STRING.match(argument)
    return unhex(found[1]) if found else b""


def iovec_bytes(argument: str) -> bytes:
    """Return the bytes of an iovec array or a msghdr, concatenated: the first `DATA_LIMIT` of them."""
    data = b""
    for found in _IOV_BASE.finditer(argument):
        data += unhex(found[1])
        if len(data) >= DATA_LIMIT:
            break
    return data[:DATA_LIMIT]


def iovec_length(argument: str) -> int:
    """Return the total size of the buffers of an iovec array or a msghdr, in bytes."""
    return sum(map(int, _IOV_LEN.findall(argument)))


def mmsg_messages(argument: str) -> tuple[Message, ...]:
    """Return the messages of sendmmsg() or recvmmsg()."""
    return tuple(
        Message(int(found[2]), iovec_bytes(found[1])[: int(found[2])], socket_address(found[1]))
        for found in _MESSAGE.finditer(argument)
    )


def socket_address(argument: str) -> SocketAddress | None:
    """Return the socket address in an argument, or None.

    An IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2) becomes an IPv4 address.
    """
    if found := _INET.search(argument):
        return SocketAddress(_unmap_ipv4(unhex(found[2]).decode("ascii", "replace")), int(found[1]))
    if found := _INET6.search(argument):
        return SocketAddress(_unmap_ipv4(unhex(found[2]).decode("ascii", "replace")), int(found[1]))
    if found := _UNIX.search(argument):
        return SocketAddress((found[1] or "") + escape(unhex(found[2] or "")))
    return None


def descriptor(argument: str) -> tuple[int | None, str]:
    """Return a descriptor's number, or None, and its label, which may be empty."""
    found = _DESCRIPTOR.match(argument)
    return (int(found[1]), found[2] or "") if found else (None, "")


def descriptors_in_set(argument: str) -> list[tuple[int, str]]:
    """Return number and label of each socket in an array of descriptors."""
    return [(int(found[1]), found[2]) for found in _SOCKET_IN_SET.finditer(argument)]


def labelled_set(argument: str) -> list[tuple[int, str]]:
    """Return number and label of each descriptor in an array, as of pipe2()."""
    return [(int(found[1]), found[2]) for found in _IN_SET.finditer(argument)]


def pipe_inode(label: str) -> int:
    """Return the inode in the label of a pipe, "pipe:[4711]"; 0 if it is none."""
    found = _PIPE.fullmatch(unhex(label))
    return int(found[1]) if found is not None else 0


class WaitedDescriptor(NamedTuple):
    """A descriptor in a set of poll() or select(), or in its result: number, label and events."""

    number: int
    label: str
    events: str


def poll_set(argument: str) -> list[WaitedDescriptor]:
    """Return the members of the pollfd array in an argument or in a result of poll()."""
    return [WaitedDescriptor(int(found[1]), found[2] or "", found[3]) for found in _POLLFD.finditer(argument)]


def select_sets(words: Iterable[str]) -> list[WaitedDescriptor]:
    """Return the members of the sets for reading, writing and exceptions, each descriptor once."""
    found: dict[int, WaitedDescriptor] = {}
    for word, event in zip(words, ("POLLIN", "POLLOUT", "POLLPRI"), strict=False):
        for member in _MEMBER.finditer(word) if word.startswith("[") else ():
            number = int(member[1])
            events = f"{found[number].events}|{event}" if number in found else event
            found[number] = WaitedDescriptor(number, member[2] or "", events)
    return list(found.values())


def select_result(text: str) -> list[WaitedDescriptor]:
    """Return the descriptors that select() reported ready: `in [4 5], out [6], left {...}`."""
    sets = {}
    for name in ("in", "out", "except"):
        found = re.search(rf"(?:^|, ){name} (\[[^{{}}]*?\](?=, |$))", text)
        sets[name] = found[1] if found else ""
    return select_sets(sets.values())


def epoll_events(argument: str) -> list[tuple[str, int]]:
    """Return the events and the data (as u64) of each struct epoll_event in an argument."""
    return [(found[1], int(found[2] or found[3], 0)) for found in _EPOLL_EVENT.finditer(argument)]


def time_limit(argument: str) -> int | None:
    """Return the nanoseconds of a struct timespec or timeval, or of milliseconds; None for no limit."""
    if found := _TIME.search(argument):
        return int(found[1]) * 1_000_000_000 + int(found[3]) * (1 if found[2] == "n" else 1000)
    return int(argument) * 1_000_000 if argument.isdigit() else None


class SocketLabel(NamedTuple):
    """The socket that a descriptor refers to, as strace labels it."""

    family: SocketFamily
    kind: SocketKind
    inode: int = 0
    peer_inode: int = 0
    local: SocketAddress | None = None
    peer: SocketAddress | None = None


def parse_label(text: str) -> SocketLabel | None:
    """Parse a label. Returns None if it is not a socket's.

    It may be out of date: a UDP socket's label may show the address it was bound to, but not its peer.
    """
    found = _LABEL.match(text)
    if found is None:
        return SocketLabel("other", "stream") if unhex(text).startswith(b"socket:") else None
    protocol, inner = found["protocol"], found["inner"]
    if protocol.startswith("UNIX"):
        kind: SocketKind = {"UNIX-DGRAM": "datagram", "UNIX-SEQPACKET": "seqpacket"}.get(protocol, "stream")  # type: ignore[assignment]
        unix = _UNIX_LABEL.match(inner)
        if unix is None:
            return SocketLabel("unix", kind)
        local = SocketAddress((unix[3] or "") + escape(unhex(unix[4]))) if unix[4] is not None else None
        return SocketLabel("unix", kind, int(unix[1]), int(unix[2] or 0), local)
    if protocol.startswith(("TCP", "UDP")):
        family: SocketFamily = "inet6" if protocol.endswith("v6") else "inet"
        kind = "stream" if protocol.startswith("TCP") else "datagram"
        if inner.isdigit():
            return SocketLabel(family, kind, int(inner))
        here, _, there = inner.partition("->")
        return SocketLabel(family, kind, local=_label_address(here), peer=_label_address(there))
    return SocketLabel("netlink" if protocol == "NETLINK" else "other", "datagram")


def display_text(argument: str) -> str:
    """Return an argument for display: without labels, with text instead of hexadecimal, and truncated."""
    if len(argument) > 8 * _TEXT_BYTES:
        argument = _shorten_strings(argument)
    if argument[:1].isdigit() and "<" in argument:
        return descriptor(argument)[0].__str__() if _DESCRIPTOR.match(argument) else argument[:_DISPLAY_LIMIT]
    text = _SOCKET_IN_SET.sub(r"\1", argument)
    return _truncate(_HEX_TEXT.sub(_text_of_hex, text))


def _shorten_strings(argument: str) -> str:
    """Return an argument with one byte more of each string than is shown, and without what is never shown."""
    parts = argument[: 8 * DATA_LIMIT].split('"')  # there are no quotes within strings
    parts[1::2] = [each[: 4 * (_TEXT_BYTES + 1)] for each in parts[1::2]]
    return '"'.join(parts)


def data_text(data: bytes, *, is_cut: bool = False) -> str:
    """Return how `display_text` shows the bytes of a string argument, of which strace shows a part only."""
    text = _data_text(data[: _TEXT_BYTES + 1])
    return _truncate(text + "...") if is_cut else text


def _text_of_hex(found: re.Match[str]) -> str:
    shown = 4 * _TEXT_BYTES
    return _quoted(unhex(found[1][:shown]), is_truncated=len(found[1]) > shown)


@functools.lru_cache(maxsize=8192)  # each is shown when it is sent, when it is received, and in files
def _data_text(data: bytes) -> str:
    return _truncate(_quoted(data[:_TEXT_BYTES], is_truncated=len(data) > _TEXT_BYTES))


def _truncate(text: str) -> str:
    return text if len(text) <= _DISPLAY_LIMIT else text[: _DISPLAY_LIMIT - 1] + "…"


def _quoted(data: bytes, *, is_truncated: bool) -> str:
    return f'"{escape(data)}{"…" if is_truncated else ""}"'


def _label_address(text: str) -> SocketAddress | None:
    host, _, port = text.rpartition(":")
    return SocketAddress(_unmap_ipv4(host.strip("[]")), int(port)) if port.isdigit() else None


def _unmap_ipv4(host: str) -> str:
    return host[7:] if host.startswith("::ffff:") and "." in host else host
