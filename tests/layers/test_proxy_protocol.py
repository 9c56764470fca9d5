"""The PROXY protocol: valid and invalid headers, trust, and layers inside."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.endpoints import Address
from bothends.errors import HandshakeFailed
from bothends.layers import ProxyLayer, TlsLayer, encode_header
from bothends.layers.proxy_protocol import (
    ALPN,
    AUTHORITY,
    CRC32C,
    SIGNATURE,
    SSL,
    V2_MAX_LENGTH,
    ProxyHeader,
    ProxyHeaderError,
    crc32c,
    parse_header,
)
from bothends.services.base import Conversation, Peer, discard_push
from bothends.testing.tls_client import SansIoTlsClient
from tests.layers.keys import CertificateFiles
from tests.layers.sans_io_peer import InMemoryExchange, RecordingConversation

LOCAL = Address("inet", "127.0.0.1", 12000)
TRUSTED_PEER = Peer(Address("inet", "127.0.0.1", 5000), LOCAL, connection=9)
UNTRUSTED_PEER = Peer(Address("inet", "192.0.2.66", 5000), LOCAL, connection=9)
IPV4_PAIR = (Address("inet", "203.0.113.9", 56324), Address("inet", "198.51.100.1", 443))
IPV6_PAIR = (Address("inet6", "2001:db8::9", 56324), Address("inet6", "2001:db8::1", 443))
UNIX_PAIR = (Address("unix", "/run/a.sock"), Address("unix", "@abstract"))


def v2(command: int, kind: int, body: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, kind, len(body) if length is None else length) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


IPV4_BLOCK = bytes([203, 0, 113, 9, 198, 51, 100, 1]) + struct.pack("!HH", 56324, 443)


# Parsing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"PROXY TCP4 203.0.113.9 198.51.100.1 56324 443\r\n", ProxyHeader(1, *IPV4_PAIR)),
        (b"PROXY TCP6 2001:db8::9 2001:db8::1 56324 443\r\n", ProxyHeader(1, *IPV6_PAIR)),
        (b"PROXY TCP6 2001:DB8:0::9 2001:0db8::1 56324 443\r\n", ProxyHeader(1, *IPV6_PAIR)),
        (b"PROXY TCP6 ::ffff:203.0.113.9 ::ffff:198.51.100.1 56324 443\r\n", ProxyHeader(1, *IPV4_PAIR)),
        (b"PROXY UNKNOWN\r\n", ProxyHeader(1)),
        (b"PROXY UNKNOWN ffff::1 anything \xff at all\r\n", ProxyHeader(1)),
        (v2(0x21, 0x11, IPV4_BLOCK), ProxyHeader(2, *IPV4_PAIR)),
        (v2(0x20, 0x00, b""), ProxyHeader(2)),
        (v2(0x20, 0xFF, b"skipped"), ProxyHeader(2)),
        (v2(0x21, 0x00, b"ignored"), ProxyHeader(2)),
        (v2(0x21, 0x01, b""), ProxyHeader(2)),
        (v2(0x21, 0x12, IPV4_BLOCK), ProxyHeader(2)),
        (v2(0x21, 0x11, IPV4_BLOCK + tlv(0x04, b"")), ProxyHeader(2, *IPV4_PAIR, ((0x04, b""),))),
    ],
)
@pytest.mark.parametrize("rest", [b"", b"rest", b"\r\nPROXY TCP4"])
def test_parse_header_valid(data: bytes, expected: ProxyHeader, rest: bytes) -> None:
    assert parse_header(data + rest) == (expected, len(data))
    for end in range(len(data)):
        assert parse_header(data[:end]) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"G", 'no PROXY header: it began with "G"'),
        (b"PROXZ", "no PROXY header"),
        (b"proxy TCP4", "no PROXY header"),
        (b"\r\n\r\n\0\r\nQUIX", "no PROXY header"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", "without CR before LF"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "invalid PROXY line"),
        (b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", "invalid PROXY line"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", "invalid PROXY line"),
        (b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", "invalid PROXY line"),
        (b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", "invalid PROXY line"),
        (b"PROXY UNKNOWNS\r\n", "invalid PROXY line"),
        (b"PROXY \r\n", "invalid PROXY line"),
        (b"PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n", 'invalid TCP4 address "1.2.3.04"'),
        (b"PROXY TCP4 ::1 1.2.3.4 1 2\r\n", 'invalid TCP4 address "::1"'),
        (b"PROXY TCP6 1.2.3.4 ::1 1 2\r\n", 'invalid TCP6 address "1.2.3.4"'),
        (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", 'invalid TCP6 address "fe80::1%eth0"'),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", 'invalid port "01"'),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", "invalid port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", "invalid port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 -2\r\n", "invalid port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 \xb2 2\r\n", "invalid port"),
        (b"PROXY UNKNOWN" + b"x" * 94, "longer than 107 bytes"),
        (SIGNATURE + b"\x22", "version and command 0x22"),
        (SIGNATURE + b"\x11", "version and command 0x11"),
        (v2(0x21, 0x41, IPV4_BLOCK), "family and protocol 0x41"),
        (v2(0x21, 0x13, IPV4_BLOCK), "family and protocol 0x13"),
        (v2(0x21, 0x11, IPV4_BLOCK[:-1]), "11 bytes for 12 bytes of addresses"),
        (v2(0x21, 0x21, IPV4_BLOCK), "12 bytes for 36 bytes of addresses"),
        (v2(0x21, 0x31, IPV4_BLOCK), "12 bytes for 216 bytes of addresses"),
        (v2(0x21, 0x11, IPV4_BLOCK + b"\x04"), "a truncated extension"),
        (v2(0x21, 0x11, IPV4_BLOCK + b"\x04\0\x02x"), "a truncated extension"),
        (v2(0x20, 0x00, b"", V2_MAX_LENGTH + 1), f"the limit is {V2_MAX_LENGTH}"),
        (v2(0x21, 0x11, IPV4_BLOCK + tlv(CRC32C, b"\0\0\0\0")), "wrong checksum"),
        (v2(0x21, 0x11, IPV4_BLOCK + tlv(CRC32C, b"")), "wrong checksum"),
    ],
)
def test_parse_header_invalid_raises(data: bytes, message: str) -> None:
    with pytest.raises(ProxyHeaderError) as caught:
        parse_header(data)
    assert message in str(caught.value)


def test_parse_v1_header_of_max_size() -> None:
    max_line = b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"
    assert parse_header(max_line) == (ProxyHeader(1), len(max_line))
    line = b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n"
    assert len(line) == 107
    assert parse_header(line) == (ProxyHeader(1), 107)


def test_crc32c_matches_rfc_3720() -> None:
    # RFC 3720, appendix B.4.
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_header_description_includes_tlvs() -> None:
    ssl = b"\x05" + struct.pack("!I", 0) + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"alice")
    header = encode_header(2, *IPV4_PAIR, tlvs=[(AUTHORITY, b"example.org"), (ALPN, b"h2"), (SSL, ssl)])
    found = parse_header(header)
    assert found is not None
    assert (
        found[0].description
        == "PROXY v2, authority example.org, ALPN h2, TLS 1.3 at the proxy, client CN=alice"
    )
    for broken in (b"\x01", b"\x01\0\0\0\0\x21\0", b"\0\0\0\0\0"):
        found = parse_header(encode_header(2, *IPV4_PAIR, tlvs=[(SSL, broken)]))
        assert found is not None
        assert found[0].description == "PROXY v2"
    assert ProxyHeader(1).description == "PROXY v1 without addresses"


# Encoding ----------------------------------------------------------------------------------------


def addresses() -> st.SearchStrategy[tuple[Address, Address]]:
    ports = st.integers(0, 65535)
    v4 = st.builds(Address, st.just("inet"), st.ip_addresses(v=4).map(str), ports)
    v6 = st.builds(
        Address,
        st.just("inet6"),
        st.ip_addresses(v=6).filter(lambda ip: ipaddress.IPv6Address(ip).ipv4_mapped is None).map(str),
        ports,
    )
    name = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=80)
    unix = st.builds(Address, st.just("unix"), name.map(lambda text: "/" + text) | name.map("@a".__add__))
    return st.tuples(v4 | v6, v4 | v6) | st.tuples(unix, unix)


@given(addresses(), st.sampled_from([1, 2]), st.booleans(), st.binary(max_size=30))
def test_encode_and_parse_round_trip(
    pair: tuple[Address, Address], version: int, checksum: bool, rest: bytes
) -> None:
    data = encode_header(version, *pair, checksum=checksum and version == 2)
    found = parse_header(data + rest)
    assert found is not None
    header, size = found
    assert size == len(data)
    if version == 1 and pair[0].family == "unix":
        assert header == ProxyHeader(1)
    else:
        assert (header.version, header.source, header.destination) == (version, *pair)


@pytest.mark.parametrize("version", [1, 2])
def test_encode_without_addresses_is_local(version: int) -> None:
    found = parse_header(encode_header(version, None, None))
    assert found is not None
    assert found[0] == ProxyHeader(version)


def test_encode_drops_ipv6_zone() -> None:
    link_local = Address("inet6", "fe80::1%eth0", 1)
    for version in (1, 2):
        found = parse_header(encode_header(version, link_local, link_local))
        assert found is not None
        assert found[0].source == Address("inet6", "fe80::1", 1)


# On a connection ---------------------------------------------------------------------------------


def open_proxy_conversation(peer: Peer, *trusted: str) -> tuple[Conversation, list[RecordingConversation]]:
    inner: list[RecordingConversation] = []

    def open_inner(peer: Peer, push: object) -> RecordingConversation:
        inner.append(RecordingConversation(peer))
        return inner[-1]

    layer = ProxyLayer([ipaddress.ip_network(each) for each in trusted]) if trusted else ProxyLayer()
    return layer.wrap(open_inner)(peer, discard_push), inner


@pytest.mark.parametrize("pair", [IPV4_PAIR, IPV6_PAIR, UNIX_PAIR])
@pytest.mark.parametrize("version", [1, 2])
def test_service_sees_proxied_peer(version: int, pair: tuple[Address, Address]) -> None:
    conversation, inner = open_proxy_conversation(TRUSTED_PEER)
    assert conversation.start() == b""
    data = encode_header(version, *pair)
    for at in range(len(data)):
        assert conversation.handshaking
        assert not inner
        assert conversation.receive(data[at : at + 1]) == b""
    assert not conversation.handshaking
    known = version == 2 or pair is not UNIX_PAIR
    expected = Peer(pair[0], pair[1], connection=9) if known else TRUSTED_PEER
    assert (inner[0].peer, conversation.proxied_peer) == (expected, expected)
    assert conversation.handshake_info == f"PROXY v{version}" + ("" if known else " without addresses")
    assert conversation.receive(b"hello") == b"hello"
    assert list(conversation.inner_traffic or ()) == [(True, b"hello"), (False, b"hello")]
    conversation.end()
    conversation.closed()
    assert (inner[0].end_calls, inner[0].closed_calls) == (1, 1)


def test_data_after_header_goes_to_service() -> None:
    conversation, inner = open_proxy_conversation(TRUSTED_PEER)
    assert conversation.receive(encode_header(1, *IPV4_PAIR) + b"hello") == b"hello"
    assert inner[0].received == b"hello"
    assert list(conversation.inner_traffic or ()) == [(True, b"hello"), (False, b"hello")]


def test_pushed_data_is_forwarded() -> None:
    pushed: list[bytes] = []
    push_functions = []

    class GreetingConversation(RecordingConversation):
        def start(self) -> bytes:
            push_functions.append(self.push)
            return b"hi"

    conversation = ProxyLayer().wrap(GreetingConversation)(TRUSTED_PEER, pushed.append)
    assert conversation.receive(encode_header(2, *IPV4_PAIR)) == b"hi"
    push_functions[0](b"news")
    assert pushed == [b"news"]
    assert list(conversation.inner_traffic or ()) == [(False, b"hi"), (False, b"news")]


@pytest.mark.parametrize(
    ("peer", "trusted", "accepted"),
    [
        (Address("inet", "127.0.0.1", 1), (), True),
        (Address("inet", "127.8.8.8", 1), (), True),
        (Address("inet6", "::1", 1), (), True),
        (Address("unix", ""), (), True),
        (Address("inet", "10.0.0.1", 1), (), False),
        (Address("inet6", "fe80::1%eth0", 1), (), False),
        (Address("vsock", "2", 1), (), False),
        (Address("none"), (), False),
        (Address("inet", "10.1.2.3", 1), ("10.0.0.0/8",), True),
        (Address("inet", "127.0.0.1", 1), ("10.0.0.0/8",), False),
        (Address("inet6", "fe80::1%eth0", 1), ("fe80::/10",), True),
        (Address("inet6", "::1", 1), ("0.0.0.0/0",), False),
    ],
)
def test_header_accepted_only_from_trusted_networks(
    peer: Address, trusted: tuple[str, ...], accepted: bool
) -> None:
    conversation, inner = open_proxy_conversation(Peer(peer, LOCAL), *trusted)
    conversation.start()
    assert conversation.done == (not accepted)
    if not accepted:
        assert isinstance(conversation.failure, HandshakeFailed)
        assert "the sender is not in a network whose PROXY headers are trusted" in str(conversation.failure)
    else:
        conversation.receive(encode_header(2, *IPV4_PAIR))
        assert len(inner) == 1


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 x\r\n", SIGNATURE + b"\x30"])
def test_trusted_peer_without_header_is_rejected(data: bytes) -> None:
    conversation, inner = open_proxy_conversation(TRUSTED_PEER)
    conversation.start()
    assert conversation.receive(data) == b""
    assert conversation.done
    assert isinstance(conversation.failure, HandshakeFailed)
    assert not inner


def test_eof_within_header_fails_and_before_it_does_not() -> None:
    conversation, inner = open_proxy_conversation(TRUSTED_PEER)
    conversation.receive(b"PROXY TC")
    assert conversation.end() == b""
    assert "within its PROXY header" in str(conversation.failure)
    conversation, inner = open_proxy_conversation(TRUSTED_PEER)
    assert conversation.end() == b""
    assert conversation.done
    assert conversation.failure is None
    conversation, inner = open_proxy_conversation(TRUSTED_PEER)
    assert conversation.close() == b""
    assert conversation.done
    assert not inner


def test_service_done_ends_conversation() -> None:
    class ClosingConversation(RecordingConversation):
        def receive(self, data: bytes) -> bytes:
            self.done = True
            return b"bye"

        def produce(self) -> bytes:
            return b"more"

    conversation = ProxyLayer().wrap(ClosingConversation)(TRUSTED_PEER, discard_push)
    assert not conversation.wants_pull
    conversation.receive(encode_header(1, *IPV4_PAIR))
    assert conversation.wants_pull
    assert conversation.produce() == b"more"
    assert conversation.receive(b"x") == b"bye"
    assert conversation.done


def test_tls_inside_proxy_header(keys: CertificateFiles) -> None:
    inner: list[RecordingConversation] = []

    def open_inner(peer: Peer, push: object) -> RecordingConversation:
        inner.append(RecordingConversation(peer))
        return inner[-1]

    server = ProxyLayer().wrap(TlsLayer(keys.server_context()).wrap(open_inner))(TRUSTED_PEER, discard_push)
    server.receive(encode_header(2, *IPV6_PAIR))
    assert server.handshaking
    exchange = InMemoryExchange(server, client := SansIoTlsClient(keys.client_context()))
    exchange.run()
    assert not server.handshaking
    assert server.handshake_info == "PROXY v2, TLS 1.3, SNI example.org"
    assert server.proxied_peer == inner[0].peer == Peer(*IPV6_PAIR, connection=9)
    exchange.send(b"hello")
    exchange.finish()
    assert (client.received, client.close_notify_received, server.done) == (b"hello", True, True)
    assert list(server.inner_traffic or ()) == [(True, b"hello"), (False, b"hello"), (True, b"")]


def test_non_tls_data_inside_proxy_header_fails(keys: CertificateFiles) -> None:
    server = ProxyLayer().wrap(TlsLayer(keys.server_context()).wrap(RecordingConversation))(
        TRUSTED_PEER, discard_push
    )
    server.receive(encode_header(2, *IPV4_PAIR) + b"GET /")
    assert server.done
    assert isinstance(server.failure, HandshakeFailed)
    assert (server.failure.target, server.handshaking) == ("203.0.113.9#56324", True)


# Fuzz --------------------------------------------------------------------------------------------


@st.composite
def mutated_headers(draw: st.DrawFn) -> bytes:
    """Headers with bytes changed, removed and inserted."""
    pair = draw(addresses())
    data = bytearray(encode_header(draw(st.sampled_from([1, 2])), *pair))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["set", "cut", "add"])):
            case "set" if data:
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at : at + draw(st.integers(1, 5))]
            case "add":
                data[at:at] = draw(st.binary(max_size=5))
    return bytes(data)


def chunks(data: bytes, offsets: list[int]) -> list[bytes]:
    offsets = sorted(offset % (len(data) + 1) for offset in offsets)
    cut = [data[a:b] for a, b in zip([0, *offsets], [*offsets, len(data)], strict=True)]
    return [chunk for chunk in cut if chunk]


@given(mutated_headers() | st.binary(max_size=200), st.lists(st.integers(0, 400), max_size=6))
def test_arbitrary_data_from_trusted_peer_parses_or_closes(data: bytes, offsets: list[int]) -> None:
    conversation, inner = open_proxy_conversation(TRUSTED_PEER)
    conversation.start()
    for chunk in chunks(data, offsets):
        if conversation.done:
            break
        conversation.receive(chunk)
    if not inner:
        conversation.end()
        assert conversation.done
        assert conversation.failure is None or isinstance(conversation.failure, HandshakeFailed)
        return
    found = parse_header(data)
    assert found is not None
    header, size = found
    assert inner[0].received == data[size:]
    assert inner[0].peer.address == (header.source or TRUSTED_PEER.address)


@given(mutated_headers(), st.lists(st.integers(0, 400), max_size=6))
def test_untrusted_peer_is_rejected_for_any_data(data: bytes, offsets: list[int]) -> None:
    conversation, inner = open_proxy_conversation(UNTRUSTED_PEER)
    output = conversation.start()
    for chunk in chunks(data, offsets):
        if conversation.done:
            break
        output += conversation.receive(chunk)
    assert output == b""
    assert not inner
    assert conversation.done
    assert conversation.proxied_peer is None
    assert isinstance(conversation.failure, HandshakeFailed)


@given(mutated_headers() | st.binary(max_size=200))
def test_parse_header_is_independent_of_chunking(data: bytes) -> None:
    def outcome(size: int) -> object:
        try:
            return parse_header(data[:size])
        except ProxyHeaderError:
            return "bad"

    final = outcome(len(data))
    for size in range(len(data)):
        early = outcome(size)
        assert early is None or early == final
