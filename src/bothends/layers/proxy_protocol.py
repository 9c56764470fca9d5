"""The PROXY protocol: a header in which a proxy names the client of a connection. Versions 1 and 2.

The specification is HAProxy's doc/proxy-protocol.txt, whose sections are cited below.

1. `parse_header` is a pure function of the bytes received so far. It returns a header and its size, or None
   while more bytes are needed.
2. Parsing is strict and guesses nothing. The sender of a header can claim any address, so headers are read
   from trusted senders only. A trusted sender that sends no header is rejected too: "the receiver MUST be
   configured to only receive the protocol" (section 2), because if the header were optional, every client
   that reaches the port through the proxy could send its own.
3. `encode_header` writes the format that `parse_header` reads.
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
from bothends.layers.base import ConversationFactory, LayerConversation
from bothends.services.base import Conversation, Peer, Push, discard_push

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

# The senders trusted by default: this machine.
LOOPBACK_NETWORKS: Final[tuple[Network, ...]] = (
    ipaddress.IPv4Network("127.0.0.0/8"),
    ipaddress.IPv6Network("::1/128"),
)

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"  # section 2.2
_V1_PREFIX: Final = b"PROXY "
_V1_MAX_SIZE: Final = 107  # bytes with CR LF: the worst case of section 2.1
_V2_HEADER_SIZE: Final = 16

# Bytes after the first 16; the format allows 65,535. Addresses take at most 216, and the extensions that
# proxies send (names, a client's certificate) a few thousand.
V2_MAX_LENGTH: Final = 16 * 1024

_EXCERPT_SIZE: Final = 24  # bytes quoted from a stream without a header

# Extensions that are evaluated (section 2.2, PP2_TYPE_*, PP2_SUBTYPE_*).
ALPN: Final = 0x01
AUTHORITY: Final = 0x02
CRC32C: Final = 0x03
SSL: Final = 0x20
_SSL_VERSION: Final = 0x21
_SSL_CN: Final = 0x22


class ProxyHeaderError(Exception):
    """A missing or invalid header; the text gives the reason."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A parsed header.

    `source` and `destination` are None if the proxy connects for itself (LOCAL, a health check) or does not
    know the client (UNKNOWN, UNSPEC); then the addresses of the connection apply. `tlvs` are type and value
    of each extension, in order (version 2).
    """

    version: int
    source: Address | None = None
    destination: Address | None = None
    tlvs: tuple[tuple[int, bytes], ...] = ()

    @property
    def description(self) -> str:
        """The version, and the parameters that the proxy negotiated with the client, as text for a log."""
        found = [f"PROXY v{self.version}" + ("" if self.source else " without addresses")]
        for kind, value in self.tlvs:
            if kind == AUTHORITY:
                found.append(f"authority {_decode(value)}")
            elif kind == ALPN:
                found.append(f"ALPN {_decode(value)}")
            elif kind == SSL and len(value) >= 5 and value[0] & 1:
                found += _describe_ssl(value)
        return ", ".join(found)


def _describe_ssl(value: bytes) -> list[str]:
    """Describe the TLS session at the proxy (section 2.2.6): flags, a verify field, nested extensions."""
    try:
        inner = dict(_parse_tlvs(value[5:]))
    except ProxyHeaderError:
        return []
    found = [_decode(inner.get(_SSL_VERSION, b"TLS")).replace("TLSv", "TLS ") + " at the proxy"]
    if _SSL_CN in inner:
        # The verify field is 0 if the client presented a certificate that the proxy verified.
        verified = struct.unpack_from("!I", value, 1)[0] == 0
        found.append(f"client CN={_decode(inner[_SSL_CN])}{'' if verified else ' (not verified)'}")
    return found


def parse_header(data: bytes) -> tuple[ProxyHeader, int] | None:
    """Parse the header at the start of `data`.

    Returns: the header and its size in bytes, or None while more bytes are needed, which is never beyond
    16 + V2_MAX_LENGTH.

    Raises ProxyHeaderError as soon as the bytes cannot become a valid header.
    """
    if data[: len(_V1_PREFIX)] == _V1_PREFIX[: len(data)]:
        return _parse_v1(data)
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _parse_v2(data)
    raise ProxyHeaderError(f"no PROXY header: it began with {_quote(data[:_EXCERPT_SIZE])}")


# Version 1, a line (section 2.1) -----------------------------------------------------------------


def _parse_v1(data: bytes) -> tuple[ProxyHeader, int] | None:
    line, newline, _ = data[:_V1_MAX_SIZE].partition(b"\n")
    if not newline:
        if len(data) >= _V1_MAX_SIZE:
            raise ProxyHeaderError(f"a PROXY line longer than {_V1_MAX_SIZE} bytes")
        return None
    if not line.endswith(b"\r"):
        raise ProxyHeaderError("a PROXY line without CR before LF")
    size = len(line) + 1
    words = line[:-1].decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return ProxyHeader(1), size  # the rest of the line is ignored
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise ProxyHeaderError(f"invalid PROXY line {_quote(line[:-1])}")
    source, destination = (
        _parse_v1_address(words[1], host, port) for host, port in ((words[2], words[4]), (words[3], words[5]))
    )
    return ProxyHeader(1, source, destination), size


def _parse_v1_address(protocol: str, host: str, port: str) -> Address:
    if not re.fullmatch(r"0|[1-9][0-9]{0,4}", port) or int(port) > 65535:
        raise ProxyHeaderError(f"invalid port {_quote(port.encode('latin-1'))} in a PROXY line")
    try:
        if protocol == "TCP4":
            return Address("inet", str(ipaddress.IPv4Address(host)), int(port))
        if "%" not in host:
            return _inet6(ipaddress.IPv6Address(host), int(port))
    except ValueError:
        pass
    raise ProxyHeaderError(f"invalid {protocol} address {_quote(host.encode('latin-1'))} in a PROXY line")


def _inet6(address: ipaddress.IPv6Address, port: int) -> Address:
    if address.ipv4_mapped is not None:
        return Address("inet", str(address.ipv4_mapped), port)
    return Address("inet6", str(address), port)


# Version 2, binary (section 2.2) -----------------------------------------------------------------


def _parse_v2(data: bytes) -> tuple[ProxyHeader, int] | None:
    if len(data) > 12 and data[12] not in (0x20, 0x21):
        raise ProxyHeaderError(f"unknown version and command 0x{data[12]:02x} in a PROXY v2 header")
    if len(data) < _V2_HEADER_SIZE:
        return None
    local, kind, length = data[12] == 0x20, data[13], int.from_bytes(data[14:16], "big")
    if length > V2_MAX_LENGTH:
        raise ProxyHeaderError(f"a PROXY v2 header of {length} bytes; the limit is {V2_MAX_LENGTH}")
    # For LOCAL everything after the command is ignored; for PROXY an unknown family is an error.
    if not local and (kind >> 4 > 3 or kind & 15 > 2):
        raise ProxyHeaderError(f"unknown family and protocol 0x{kind:02x} in a PROXY v2 header")
    size = _V2_HEADER_SIZE + length
    if len(data) < size:
        return None
    if local or not (kind >> 4 and kind & 15):
        return ProxyHeader(2), size
    family = kind >> 4
    block = {1: 12, 2: 36, 3: 216}[family]
    if length < block:
        raise ProxyHeaderError(f"a PROXY v2 header with {length} bytes for {block} bytes of addresses")
    extensions = _parse_tlvs(data[_V2_HEADER_SIZE + block : size])
    _verify_checksum(data[:size], _V2_HEADER_SIZE + block, extensions)
    if kind & 15 == 2:
        # A datagram client, which does not fit this stream: "falls back to the UNSPEC mode".
        return ProxyHeader(2, tlvs=extensions), size
    source, destination = _parse_v2_addresses(family, data[_V2_HEADER_SIZE : _V2_HEADER_SIZE + block])
    return ProxyHeader(2, source, destination, extensions), size


def _parse_v2_addresses(family: int, block: bytes) -> tuple[Address, Address]:
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
    """Parse a sun_path (unix(7)): a path up to the first NUL, or NUL and an abstract name, or nothing."""
    if name.startswith(b"\0"):
        rest = name[1:].rstrip(b"\0")
        text = b"@" + rest if rest else b""
    else:
        text = name.partition(b"\0")[0]
    return Address("unix", text.decode("utf-8", "surrogateescape"))


def _parse_tlvs(data: bytes) -> tuple[tuple[int, bytes], ...]:
    found = []
    while data:
        if len(data) < 3 or len(data) < (end := 3 + int.from_bytes(data[1:3], "big")):
            raise ProxyHeaderError("a truncated extension in a PROXY v2 header")
        found.append((data[0], data[3:end]))
        data = data[end:]
    return tuple(found)


def _verify_checksum(header: bytes, start: int, tlvs: Sequence[tuple[int, bytes]]) -> None:
    """Verify the checksum, if the header has one (section 2.2.3)."""
    for kind, value in tlvs:
        if kind == CRC32C:
            zeroed = header[: start + 3] + bytes(len(value)) + header[start + 3 + len(value) :]
            if value != crc32c(zeroed).to_bytes(4, "big"):
                raise ProxyHeaderError("wrong checksum in a PROXY v2 header")
        start += 3 + len(value)


def crc32c(data: bytes) -> int:
    """Return the checksum of RFC 4960, appendix B (Castagnoli's polynomial, reflected)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _crc_table_entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC_TABLE: Final = tuple(map(_crc_table_entry, range(256)))


def _quote(data: bytes) -> str:
    return f'"{escape(data)}"'


def _decode(value: bytes) -> str:
    return value.decode("utf-8", "replace")


# Encoding ----------------------------------------------------------------------------------------


def encode_header(
    version: int,
    source: Address | None,
    destination: Address | None,
    *,
    tlvs: Sequence[tuple[int, bytes]] = (),
    checksum: bool = False,
) -> bytes:
    """Encode a header of version 1 or 2, to be sent before any other byte.

    Without addresses, or with addresses that the version cannot represent, the header has none (UNKNOWN in
    version 1, LOCAL in version 2). An IPv4 address beside an IPv6 one is encoded as a mapped address. `tlvs`
    and `checksum` (CRC32C) are for version 2.
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
        hosts = [
            f"::ffff:{e.host}" if (e.family, name) == ("inet", "TCP6") else _without_zone(e) for e in known
        ]
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
    extensions = [*tlvs, (CRC32C, bytes(4))] if checksum else tlvs
    tail = b"".join(struct.pack("!BH", number, len(value)) + value for number, value in extensions)
    header = SIGNATURE + struct.pack("!BBH", command, kind, len(block) + len(tail)) + block + tail
    return header[:-4] + crc32c(header).to_bytes(4, "big") if checksum else header


def _without_zone(address: Address) -> str:
    return address.host.partition("%")[0]  # a zone is meaningless on another host


def _packed(address: Address, kind: int) -> bytes:
    packed = ipaddress.ip_address(_without_zone(address)).packed
    return packed if kind == 0x11 or len(packed) == 16 else b"\0" * 10 + b"\xff\xff" + packed


def _sun_path(address: Address) -> bytes:
    name = address.host.encode("utf-8", "surrogateescape")
    return (b"\0" + name[1:] if name.startswith(b"@") else name)[:108].ljust(108, b"\0")


# On a connection ---------------------------------------------------------------------------------


class ProxyLayer:
    """Read the header of each connection, from trusted senders.

    `trusted`: the networks whose headers are accepted. Peers on UNIX sockets are trusted, because the
    permissions of the socket file control access.
    """

    def __init__(self, trusted: Sequence[Network] = LOOPBACK_NETWORKS) -> None:
        self.trusted = tuple(trusted)

    def trusts(self, address: Address) -> bool:
        """Whether a header from this address is accepted."""
        if address.family == "unix":
            return True
        if address.family not in ("inet", "inet6"):
            return False
        try:
            ip = ipaddress.ip_address(_without_zone(address))
        except ValueError:
            return False
        return any(ip in network for network in self.trusted)

    def wrap(self, open_inner: ConversationFactory) -> ConversationFactory:
        """Return a factory of conversations that read a header; `open_inner` gets the client it names."""

        def open_wrapped(peer: Peer, push: Push) -> Conversation:
            return ProxyConversation(self, open_inner, peer, push)

        return open_wrapped


class ProxyConversation(LayerConversation):
    """A header, then the inner conversation unchanged."""

    def __init__(self, layer: ProxyLayer, open_inner: ConversationFactory, peer: Peer, push: Push) -> None:
        super().__init__(open_inner, peer)
        self._layer = layer
        self._push_out = push
        self._header_buffer = b""
        self._output = b""

    def start(self) -> bytes:
        if not self._layer.trusts(self._peer.address):
            self._reject("the sender is not in a network whose PROXY headers are trusted")
        return b""

    def receive(self, data: bytes) -> bytes:
        if self._inner is None:
            self._header_buffer += data
            try:
                found = parse_header(self._header_buffer)
            except ProxyHeaderError as error:
                self._reject(str(error))
                return b""
            if found is None:
                return b""
            header, size = found
            data, self._header_buffer = self._header_buffer[size:], b""
            self._header_received(header)
        if data and self._inner is not None and not self.done:
            self._record_received(data)
            self._call_inner(self._inner.receive, data)
        return self._flush()

    def end(self) -> bytes:
        if self._inner is None:
            if self._header_buffer:
                self._reject("the peer closed the connection within its PROXY header")
            self._finish(None)
            return b""
        self._call_inner(self._inner.end)
        return self._flush()

    def close(self) -> bytes:
        if self._inner is None:
            self._finish(None)
            return b""
        self._call_inner(self._inner.close)
        return self._flush()

    def produce(self) -> bytes:
        if self._inner is not None:
            self._call_inner(self._inner.produce)
        return self._flush()

    def _header_received(self, header: ProxyHeader) -> None:
        client = self._peer
        if header.source is not None and header.destination is not None:
            client = replace(client, address=header.source, local=header.destination)
        self.proxied_peer = client
        self._own_handshake_info = header.description
        self._start_inner(client, discard_push if self._push_out is discard_push else self._push)
        if self._inner is not None and self._inner.inner_traffic is not None:
            self.inner_traffic = self._inner.inner_traffic  # the inner layer records its decrypted traffic

    def _reject(self, reason: str) -> None:
        self._finish(HandshakeFailed(str(self._peer.address), reason))

    def _records_traffic(self) -> bool:
        return self._inner is None or self._inner.inner_traffic is None

    def _record_received(self, data: bytes) -> None:
        if self.inner_traffic is not None and self._records_traffic():
            self.inner_traffic.append((True, data))

    def _send_inner(self, data: bytes) -> None:
        if data and self.inner_traffic is not None and self._records_traffic():
            self.inner_traffic.append((False, data))
        self._output += data

    def _flush(self) -> bytes:
        output, self._output = self._output, b""
        return output

    def _push(self, data: bytes) -> None:
        if self.inner_traffic is not None and self._records_traffic():
            self.inner_traffic.append((False, data))
        self._push_out(data)
