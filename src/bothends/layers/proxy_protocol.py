"""The PROXY protocol: a header in which a proxy says for whom it calls. Versions 1 and 2.

The specification is HAProxy's doc/proxy-protocol.txt, whose sections are named below.

1. `read_header` is a pure function of what has arrived: a header and its size, or that more must come.
2. It is strict and guesses nothing. Who may send a header could name any address in it, so it is read
   from trusted senders only; and from a trusted sender, what has no header is refused as well, for "the
   receiver MUST be configured to only receive the protocol" (section 2): if it were optional, whoever
   can reach the port through the proxy could write one.
3. `encode` writes what `read_header` reads.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from bothends.endpoints import Address
from bothends.errors import HandshakeFailed
from bothends.escaping import escape
from bothends.layers.base import Open, Wrapping
from bothends.services.base import Conversation, Peer, Post, nowhere

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

# Whom to believe unless told otherwise: this machine.
LOOPBACK: Final[tuple[Network, ...]] = (
    ipaddress.IPv4Network("127.0.0.0/8"),
    ipaddress.IPv6Network("::1/128"),
)

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"  # section 2.2
_V1_START: Final = b"PROXY "
_V1_LONGEST: Final = 107  # bytes with CR LF: the worst case of section 2.1
_V2_FIXED: Final = 16

# What follows the first 16 bytes may have 65,535 bytes. Addresses take 216 at most, and the extensions
# that proxies send (names, a client's certificate) a few thousand.
V2_MOST: Final = 16 * 1024

_SHOWN: Final = 24  # bytes of what came instead of a header

# Extensions that are looked into (section 2.2, PP2_TYPE_*, PP2_SUBTYPE_*).
ALPN: Final = 0x01
AUTHORITY: Final = 0x02
CRC32C: Final = 0x03
SSL: Final = 0x20
_SSL_VERSION: Final = 0x21
_SSL_CN: Final = 0x22


class BadHeader(Exception):
    """It is no header, or a wrong one; the text says in what."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a proxy said. `source` and `destination` are None where it speaks for itself (LOCAL, a health
    check) or doesn't know (UNKNOWN, UNSPEC): then the connection's own addresses hold. `extensions` are
    type and value of each, in order (version 2).
    """

    version: int
    source: Address | None = None
    destination: Address | None = None
    extensions: tuple[tuple[int, bytes], ...] = ()

    @property
    def words(self) -> str:
        """For a log: the version, and what the proxy agreed with the client, if it says so."""
        found = [f"PROXY v{self.version}" + ("" if self.source else " for itself")]
        for kind, value in self.extensions:
            if kind == AUTHORITY:
                found.append(f"authority {_text(value)}")
            elif kind == ALPN:
                found.append(f"ALPN {_text(value)}")
            elif kind == SSL and len(value) >= 5 and value[0] & 1:
                found += _ssl_words(value)
        return ", ".join(found)


def _ssl_words(value: bytes) -> list[str]:
    """What the proxy's own TLS came to (section 2.2.6): flags, the verify field, extensions of its own."""
    try:
        inner = dict(_extensions(value[5:]))
    except BadHeader:
        return []
    found = [_text(inner.get(_SSL_VERSION, b"TLS")).replace("TLSv", "TLS ") + " at the proxy"]
    if _SSL_CN in inner:
        # The verify field is 0 for a certificate that was shown and found good.
        good = struct.unpack_from("!I", value, 1)[0] == 0
        found.append(f"client CN={_text(inner[_SSL_CN])}{'' if good else ' (not verified)'}")
    return found


def read_header(data: bytes) -> tuple[Header, int] | None:
    """The header at the beginning of `data` and its size in bytes, or None while more must come.

    Never asks for more than 16 + V2_MOST bytes. Raises BadHeader, as early as that is certain.
    """
    if data[: len(_V1_START)] == _V1_START[: len(data)]:
        return _read_v1(data)
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _read_v2(data)
    raise BadHeader(f"no PROXY header: it began with {_shown(data[:_SHOWN])}")


# Version 1, a line (section 2.1) -----------------------------------------------------------------


def _read_v1(data: bytes) -> tuple[Header, int] | None:
    line, newline, _ = data[:_V1_LONGEST].partition(b"\n")
    if not newline:
        if len(data) >= _V1_LONGEST:
            raise BadHeader(f"a PROXY line of more than {_V1_LONGEST} bytes")
        return None
    if not line.endswith(b"\r"):
        raise BadHeader("a PROXY line that ends without CR")
    size = len(line) + 1
    words = line[:-1].decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return Header(1), size  # whatever follows is to be ignored
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise BadHeader(f"a PROXY line that says {_shown(line[:-1])}")
    source, destination = (
        _v1_address(words[1], host, port) for host, port in ((words[2], words[4]), (words[3], words[5]))
    )
    return Header(1, source, destination), size


def _v1_address(protocol: str, host: str, port: str) -> Address:
    if not re.fullmatch(r"0|[1-9][0-9]{0,4}", port) or int(port) > 65535:
        raise BadHeader(f"a PROXY line with port {_shown(port.encode('latin-1'))}")
    try:
        if protocol == "TCP4":
            return Address("inet", str(ipaddress.IPv4Address(host)), int(port))
        if "%" not in host:
            return _inet6(ipaddress.IPv6Address(host), int(port))
    except ValueError:
        pass
    raise BadHeader(f"a PROXY line in which {_shown(host.encode('latin-1'))} is no {protocol} address")


def _inet6(address: ipaddress.IPv6Address, port: int) -> Address:
    if address.ipv4_mapped is not None:
        return Address("inet", str(address.ipv4_mapped), port)
    return Address("inet6", str(address), port)


# Version 2, binary (section 2.2) -----------------------------------------------------------------


def _read_v2(data: bytes) -> tuple[Header, int] | None:
    if len(data) > 12 and data[12] not in (0x20, 0x21):
        raise BadHeader(f"a PROXY v2 header with version and command 0x{data[12]:02x}")
    if len(data) < _V2_FIXED:
        return None
    local, kind, length = data[12] == 0x20, data[13], int.from_bytes(data[14:16], "big")
    if length > V2_MOST:
        raise BadHeader(f"a PROXY v2 header of {length} bytes, and the limit is {V2_MOST}")
    # LOCAL discards all that follows, the family included; for the others an unknown one is invalid.
    if not local and (kind >> 4 > 3 or kind & 15 > 2):
        raise BadHeader(f"a PROXY v2 header with family and protocol 0x{kind:02x}")
    size = _V2_FIXED + length
    if len(data) < size:
        return None
    if local or not (kind >> 4 and kind & 15):
        return Header(2), size
    family = kind >> 4
    block = {1: 12, 2: 36, 3: 216}[family]
    if length < block:
        raise BadHeader(f"a PROXY v2 header with {length} bytes for addresses of {block}")
    extensions = _extensions(data[_V2_FIXED + block : size])
    _check_sum(data[:size], _V2_FIXED + block, extensions)
    if kind & 15 == 2:
        # For a client that came in datagrams, which this stream can't be: "falls back to the UNSPEC mode".
        return Header(2, extensions=extensions), size
    source, destination = _v2_addresses(family, data[_V2_FIXED : _V2_FIXED + block])
    return Header(2, source, destination, extensions), size


def _v2_addresses(family: int, block: bytes) -> tuple[Address, Address]:
    if family == 3:
        return _unix(block[:108]), _unix(block[108:])
    half = (len(block) - 4) // 2
    ports = struct.unpack("!HH", block[-4:])
    hosts = (block[:half], block[half : 2 * half])
    if family == 1:
        found = [Address("inet", str(ipaddress.IPv4Address(h)), p) for h, p in zip(hosts, ports, strict=True)]
    else:
        found = [_inet6(ipaddress.IPv6Address(h), p) for h, p in zip(hosts, ports, strict=True)]
    return found[0], found[1]


def _unix(name: bytes) -> Address:
    """sun_path as in unix(7): a path up to the first NUL, or NUL and an abstract name, or nothing."""
    if name.startswith(b"\0"):
        rest = name[1:].rstrip(b"\0")
        text = b"@" + rest if rest else b""
    else:
        text = name.partition(b"\0")[0]
    return Address("unix", text.decode("utf-8", "surrogateescape"))


def _extensions(data: bytes) -> tuple[tuple[int, bytes], ...]:
    found = []
    while data:
        if len(data) < 3 or len(data) < (end := 3 + int.from_bytes(data[1:3], "big")):
            raise BadHeader("a PROXY v2 header with an extension that is cut off")
        found.append((data[0], data[3:end]))
        data = data[end:]
    return tuple(found)


def _check_sum(header: bytes, start: int, extensions: Sequence[tuple[int, bytes]]) -> None:
    """If it has a checksum, it is right (section 2.2.3)."""
    for kind, value in extensions:
        if kind == CRC32C:
            zeroed = header[: start + 3] + bytes(len(value)) + header[start + 3 + len(value) :]
            if value != crc32c(zeroed).to_bytes(4, "big"):
                raise BadHeader("a PROXY v2 header whose checksum is wrong")
        start += 3 + len(value)


def crc32c(data: bytes) -> int:
    """The checksum of RFC 4960, appendix B (Castagnoli's polynomial, reflected)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _crc_of(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC_TABLE: Final = tuple(map(_crc_of, range(256)))


def _shown(data: bytes) -> str:
    return f'"{escape(data)}"'


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


# Writing -----------------------------------------------------------------------------------------


def encode(
    version: int,
    source: Address | None,
    destination: Address | None,
    *,
    extensions: Sequence[tuple[int, bytes]] = (),
    checksum: bool = False,
) -> bytes:
    """The header of this version (1 or 2), to be sent before anything else.

    Without addresses, or with some that the version can't write, it says that the sender speaks for
    itself (UNKNOWN in version 1, LOCAL in version 2). An IPv4 address beside an IPv6 one is written as a
    mapped one. `extensions` and `checksum` (CRC32C) are for version 2.
    """
    if version not in (1, 2):
        raise ValueError(f"version {version} of the PROXY protocol")
    families = {each.family if each is not None else "none" for each in (source, destination)}
    known = None if source is None or destination is None else (source, destination)
    ips = known is not None and families <= {"inet", "inet6"}
    if version == 1:
        if known is None or not ips:
            return b"PROXY UNKNOWN\r\n"
        name = "TCP4" if families == {"inet"} else "TCP6"
        hosts = [f"::ffff:{e.host}" if (e.family, name) == ("inet", "TCP6") else _bare(e) for e in known]
        return f"PROXY {name} {hosts[0]} {hosts[1]} {known[0].port} {known[1].port}\r\n".encode()
    if known is None or not (ips or families == {"unix"}):
        command, kind, block = 0x20, 0x00, b""
    else:
        command = 0x21
        if families == {"unix"}:
            kind, block = 0x31, b"".join(_sun_path(each) for each in known)
        else:
            kind = 0x11 if families == {"inet"} else 0x21
            block = b"".join(_packed(each, kind) for each in known)
            block += struct.pack("!HH", known[0].port, known[1].port)
    wanted = [*extensions, (CRC32C, bytes(4))] if checksum else extensions
    tail = b"".join(struct.pack("!BH", number, len(value)) + value for number, value in wanted)
    header = SIGNATURE + struct.pack("!BBH", command, kind, len(block) + len(tail)) + block + tail
    return header[:-4] + crc32c(header).to_bytes(4, "big") if checksum else header


def _bare(address: Address) -> str:
    return address.host.partition("%")[0]  # a zone means nothing to anybody else


def _packed(address: Address, kind: int) -> bytes:
    packed = ipaddress.ip_address(_bare(address)).packed
    return packed if kind == 0x11 or len(packed) == 16 else b"\0" * 10 + b"\xff\xff" + packed


def _sun_path(address: Address) -> bytes:
    name = address.host.encode("utf-8", "surrogateescape")
    return (b"\0" + name[1:] if name.startswith(b"@") else name)[:108].ljust(108, b"\0")


# On a connection ---------------------------------------------------------------------------------


class ProxyLayer:
    """Reads the header of each connection, from trusted senders.

    `trusted`: the networks whose headers are believed. Peers on UNIX sockets are believed: who may connect
    to one is said by its file.
    """

    def __init__(self, trusted: Sequence[Network] = LOOPBACK) -> None:
        self.trusted = tuple(trusted)

    def trusts(self, address: Address) -> bool:
        """Whether a header from this address is believed."""
        if address.family == "unix":
            return True
        if address.family not in ("inet", "inet6"):
            return False
        try:
            ip = ipaddress.ip_address(_bare(address))
        except ValueError:
            return False
        return any(ip in network for network in self.trusted)

    def wrap(self, open_inner: Open) -> Open:
        """An opener whose conversations begin with a header; `open_inner` is then given whom it names."""

        def open_wrapped(peer: Peer, post: Post) -> Conversation:
            return ProxyConversation(self, open_inner, peer, post)

        return open_wrapped


class ProxyConversation(Wrapping):
    """A header, then the inner conversation as it is."""

    def __init__(self, layer: ProxyLayer, open_inner: Open, peer: Peer, post: Post) -> None:
        super().__init__(open_inner, peer)
        self._layer = layer
        self._post_out = post
        self._header = b""
        self._said = b""

    def start(self) -> bytes:
        if not self._layer.trusts(self._who.address):
            self._refuse("it is not in a network whose PROXY header is believed")
        return b""

    def receive(self, data: bytes) -> bytes:
        if self._inner is None:
            self._header += data
            try:
                found = read_header(self._header)
            except BadHeader as bad:
                self._refuse(str(bad))
                return b""
            if found is None:
                return b""
            header, size = found
            data, self._header = self._header[size:], b""
            self._accept(header)
        if data and self._inner is not None and not self.done:
            self._hear(data)
            self._ask(self._inner.receive, data)
        return self._flush()

    def end(self) -> bytes:
        if self._inner is None:
            if self._header:
                self._refuse("it closed the connection in the middle of its PROXY header")
            self._give_up(None)
            return b""
        self._ask(self._inner.end)
        return self._flush()

    def leave(self) -> bytes:
        if self._inner is None:
            self._give_up(None)
            return b""
        self._ask(self._inner.leave)
        return self._flush()

    def more(self) -> bytes:
        if self._inner is not None:
            self._ask(self._inner.more)
        return self._flush()

    def _accept(self, header: Header) -> None:
        who = self._who
        if header.source is not None and header.destination is not None:
            who = replace(who, address=header.source, local=header.destination)
        self.true_peer = who
        self._agreed = header.words
        self._begin(who, nowhere if self._post_out is nowhere else self._post)
        if self._inner is not None and self._inner.passed is not None:
            self.passed = self._inner.passed  # it tells itself what passes

    def _refuse(self, reason: str) -> None:
        self._give_up(HandshakeFailed(str(self._who.address), reason))

    def _tells(self) -> bool:
        return self._inner is None or self._inner.passed is None

    def _hear(self, data: bytes) -> None:
        if self.passed is not None and self._tells():
            self.passed.append((True, data))

    def _say(self, data: bytes) -> None:
        if data and self.passed is not None and self._tells():
            self.passed.append((False, data))
        self._said += data

    def _flush(self) -> bytes:
        said, self._said = self._said, b""
        return said

    def _post(self, data: bytes) -> None:
        if self.passed is not None and self._tells():
            self.passed.append((False, data))
        self._post_out(data)
