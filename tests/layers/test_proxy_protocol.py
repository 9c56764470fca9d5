"""The PROXY header: what is read, what is refused, and that nothing is believed of strangers."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothends.endpoints import Address
from bothends.errors import HandshakeFailed
from bothends.layers import ProxyLayer, TlsLayer, encode
from bothends.layers.proxy_protocol import (
    ALPN,
    AUTHORITY,
    CRC32C,
    SIGNATURE,
    SSL,
    V2_MOST,
    BadHeader,
    Header,
    crc32c,
    read_header,
)
from bothends.services.base import Conversation, Peer, nowhere
from bothends.testing.tls_client import TlsEnd
from tests.layers.keys import Keys
from tests.layers.sans_io_peer import Dialogue, Script

LOCAL = Address("inet", "127.0.0.1", 12000)
FRIEND = Peer(Address("inet", "127.0.0.1", 5000), LOCAL, connection=9)
STRANGER = Peer(Address("inet", "192.0.2.66", 5000), LOCAL, connection=9)
FOUR = (Address("inet", "203.0.113.9", 56324), Address("inet", "198.51.100.1", 443))
SIX = (Address("inet6", "2001:db8::9", 56324), Address("inet6", "2001:db8::1", 443))
UNIX = (Address("unix", "/run/a.sock"), Address("unix", "@abstract"))


def v2(command: int, kind: int, body: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, kind, len(body) if length is None else length) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


BLOCK4 = bytes([203, 0, 113, 9, 198, 51, 100, 1]) + struct.pack("!HH", 56324, 443)


# Reading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"PROXY TCP4 203.0.113.9 198.51.100.1 56324 443\r\n", Header(1, *FOUR)),
        (b"PROXY TCP6 2001:db8::9 2001:db8::1 56324 443\r\n", Header(1, *SIX)),
        (b"PROXY TCP6 2001:DB8:0::9 2001:0db8::1 56324 443\r\n", Header(1, *SIX)),
        (b"PROXY TCP6 ::ffff:203.0.113.9 ::ffff:198.51.100.1 56324 443\r\n", Header(1, *FOUR)),
        (b"PROXY UNKNOWN\r\n", Header(1)),
        (b"PROXY UNKNOWN ffff::1 anything \xff at all\r\n", Header(1)),
        (v2(0x21, 0x11, BLOCK4), Header(2, *FOUR)),
        (v2(0x20, 0x00, b""), Header(2)),
        (v2(0x20, 0xFF, b"skipped"), Header(2)),
        (v2(0x21, 0x00, b"ignored"), Header(2)),
        (v2(0x21, 0x01, b""), Header(2)),
        (v2(0x21, 0x12, BLOCK4), Header(2)),
        (v2(0x21, 0x11, BLOCK4 + tlv(0x04, b"")), Header(2, *FOUR, ((0x04, b""),))),
    ],
)
@pytest.mark.parametrize("rest", [b"", b"rest", b"\r\nPROXY TCP4"])
def test_what_is_read(data: bytes, expected: Header, rest: bytes) -> None:
    assert read_header(data + rest) == (expected, len(data))
    for end in range(len(data)):
        assert read_header(data[:end]) is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"G", 'no PROXY header: it began with "G"'),
        (b"PROXZ", "no PROXY header"),
        (b"proxy TCP4", "no PROXY header"),
        (b"\r\n\r\n\0\r\nQUIX", "no PROXY header"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", "ends without CR"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "a PROXY line that says"),
        (b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", "a PROXY line that says"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", "a PROXY line that says"),
        (b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", "a PROXY line that says"),
        (b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", "a PROXY line that says"),
        (b"PROXY UNKNOWNS\r\n", "a PROXY line that says"),
        (b"PROXY \r\n", "a PROXY line that says"),
        (b"PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n", '"1.2.3.04" is no TCP4 address'),
        (b"PROXY TCP4 ::1 1.2.3.4 1 2\r\n", '"::1" is no TCP4 address'),
        (b"PROXY TCP6 1.2.3.4 ::1 1 2\r\n", '"1.2.3.4" is no TCP6 address'),
        (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "is no TCP6 address"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", 'with port "01"'),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", "with port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", "with port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 -2\r\n", "with port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 \xb2 2\r\n", "with port"),
        (b"PROXY UNKNOWN" + b"x" * 94, "more than 107 bytes"),
        (SIGNATURE + b"\x22", "version and command 0x22"),
        (SIGNATURE + b"\x11", "version and command 0x11"),
        (v2(0x21, 0x41, BLOCK4), "family and protocol 0x41"),
        (v2(0x21, 0x13, BLOCK4), "family and protocol 0x13"),
        (v2(0x21, 0x11, BLOCK4[:-1]), "11 bytes for addresses of 12"),
        (v2(0x21, 0x21, BLOCK4), "12 bytes for addresses of 36"),
        (v2(0x21, 0x31, BLOCK4), "12 bytes for addresses of 216"),
        (v2(0x21, 0x11, BLOCK4 + b"\x04"), "an extension that is cut off"),
        (v2(0x21, 0x11, BLOCK4 + b"\x04\0\x02x"), "an extension that is cut off"),
        (v2(0x20, 0x00, b"", V2_MOST + 1), f"the limit is {V2_MOST}"),
        (v2(0x21, 0x11, BLOCK4 + tlv(CRC32C, b"\0\0\0\0")), "checksum is wrong"),
        (v2(0x21, 0x11, BLOCK4 + tlv(CRC32C, b"")), "checksum is wrong"),
    ],
)
def test_what_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(BadHeader) as caught:
        read_header(data)
    assert words in str(caught.value)


def test_the_longest_line_of_the_specification() -> None:
    longest = b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"
    assert read_header(longest) == (Header(1), len(longest))
    line = b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n"
    assert len(line) == 107
    assert read_header(line) == (Header(1), 107)


def test_the_checksum_of_the_rfc() -> None:
    # RFC 3720, appendix B.4.
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_what_the_proxy_knows_is_put_into_words() -> None:
    ssl = b"\x05" + struct.pack("!I", 0) + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"alice")
    header = encode(2, *FOUR, extensions=[(AUTHORITY, b"example.org"), (ALPN, b"h2"), (SSL, ssl)])
    found = read_header(header)
    assert found is not None
    assert found[0].words == "PROXY v2, authority example.org, ALPN h2, TLS 1.3 at the proxy, client CN=alice"
    for broken in (b"\x01", b"\x01\0\0\0\0\x21\0", b"\0\0\0\0\0"):
        found = read_header(encode(2, *FOUR, extensions=[(SSL, broken)]))
        assert found is not None
        assert found[0].words == "PROXY v2"
    assert Header(1).words == "PROXY v1 for itself"


# Writing -----------------------------------------------------------------------------------------


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
def test_what_is_written_reads_back(
    pair: tuple[Address, Address], version: int, checksum: bool, rest: bytes
) -> None:
    data = encode(version, *pair, checksum=checksum and version == 2)
    found = read_header(data + rest)
    assert found is not None
    header, size = found
    assert size == len(data)
    if version == 1 and pair[0].family == "unix":
        assert header == Header(1)
    else:
        assert (header.version, header.source, header.destination) == (version, *pair)


@pytest.mark.parametrize("version", [1, 2])
def test_who_speaks_for_itself(version: int) -> None:
    found = read_header(encode(version, None, None))
    assert found is not None
    assert found[0] == Header(version)


def test_a_zone_stays_at_home() -> None:
    here = Address("inet6", "fe80::1%eth0", 1)
    for version in (1, 2):
        found = read_header(encode(version, here, here))
        assert found is not None
        assert found[0].source == Address("inet6", "fe80::1", 1)


# On a connection ---------------------------------------------------------------------------------


def opened(peer: Peer, *trusted: str) -> tuple[Conversation, list[Script]]:
    inner: list[Script] = []

    def open_inner(peer: Peer, post: object) -> Script:
        inner.append(Script(peer))
        return inner[-1]

    layer = ProxyLayer([ipaddress.ip_network(each) for each in trusted]) if trusted else ProxyLayer()
    return layer.wrap(open_inner)(peer, nowhere), inner


@pytest.mark.parametrize("pair", [FOUR, SIX, UNIX])
@pytest.mark.parametrize("version", [1, 2])
def test_the_service_is_given_whom_the_proxy_names(version: int, pair: tuple[Address, Address]) -> None:
    conversation, inner = opened(FRIEND)
    assert conversation.start() == b""
    data = encode(version, *pair)
    for at in range(len(data)):
        assert conversation.handshaking
        assert not inner
        assert conversation.receive(data[at : at + 1]) == b""
    assert not conversation.handshaking
    known = version == 2 or pair is not UNIX
    expected = Peer(pair[0], pair[1], connection=9) if known else FRIEND
    assert (inner[0].who, conversation.true_peer) == (expected, expected)
    assert conversation.agreed == f"PROXY v{version}" + ("" if known else " for itself")
    assert conversation.receive(b"hello") == b"hello"
    assert list(conversation.passed or ()) == [(True, b"hello"), (False, b"hello")]
    conversation.end()
    conversation.closed()
    assert (inner[0].ends, inner[0].closes) == (1, 1)


def test_what_comes_with_the_header_belongs_to_the_service() -> None:
    conversation, inner = opened(FRIEND)
    assert conversation.receive(encode(1, *FOUR) + b"hello") == b"hello"
    assert inner[0].heard == b"hello"
    assert list(conversation.passed or ()) == [(True, b"hello"), (False, b"hello")]


def test_posts_pass() -> None:
    posted: list[bytes] = []
    posts = []

    class Chatty(Script):
        def start(self) -> bytes:
            posts.append(self.post)
            return b"hi"

    conversation = ProxyLayer().wrap(Chatty)(FRIEND, posted.append)
    assert conversation.receive(encode(2, *FOUR)) == b"hi"
    posts[0](b"news")
    assert posted == [b"news"]
    assert list(conversation.passed or ()) == [(False, b"hi"), (False, b"news")]


@pytest.mark.parametrize(
    ("peer", "trusted", "believed"),
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
def test_who_is_believed(peer: Address, trusted: tuple[str, ...], believed: bool) -> None:
    conversation, inner = opened(Peer(peer, LOCAL), *trusted)
    conversation.start()
    assert conversation.done == (not believed)
    if not believed:
        assert isinstance(conversation.failure, HandshakeFailed)
        assert "it is not in a network whose PROXY header is believed" in str(conversation.failure)
    else:
        conversation.receive(encode(2, *FOUR))
        assert len(inner) == 1


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 x\r\n", SIGNATURE + b"\x30"])
def test_a_friend_without_a_header_is_refused_too(data: bytes) -> None:
    conversation, inner = opened(FRIEND)
    conversation.start()
    assert conversation.receive(data) == b""
    assert conversation.done
    assert isinstance(conversation.failure, HandshakeFailed)
    assert not inner


def test_an_end_in_the_middle_and_one_before_anything() -> None:
    conversation, inner = opened(FRIEND)
    conversation.receive(b"PROXY TC")
    assert conversation.end() == b""
    assert "in the middle of its PROXY header" in str(conversation.failure)
    conversation, inner = opened(FRIEND)
    assert conversation.end() == b""
    assert conversation.done
    assert conversation.failure is None
    conversation, inner = opened(FRIEND)
    assert conversation.leave() == b""
    assert conversation.done
    assert not inner


def test_the_service_may_end_it() -> None:
    class Once(Script):
        def receive(self, data: bytes) -> bytes:
            self.done = True
            return b"bye"

        def more(self) -> bytes:
            return b"more"

    conversation = ProxyLayer().wrap(Once)(FRIEND, nowhere)
    assert not conversation.pulls
    conversation.receive(encode(1, *FOUR))
    assert conversation.pulls
    assert conversation.more() == b"more"
    assert conversation.receive(b"x") == b"bye"
    assert conversation.done


def test_tls_inside(keys: Keys) -> None:
    inner: list[Script] = []

    def open_inner(peer: Peer, post: object) -> Script:
        inner.append(Script(peer))
        return inner[-1]

    server = ProxyLayer().wrap(TlsLayer(keys.server_side()).wrap(open_inner))(FRIEND, nowhere)
    server.receive(encode(2, *SIX))
    assert server.handshaking
    dialogue = Dialogue(server, client := TlsEnd(keys.client_side()))
    dialogue.run()
    assert not server.handshaking
    assert server.agreed == "PROXY v2, TLS 1.3, SNI example.org"
    assert server.true_peer == inner[0].who == Peer(*SIX, connection=9)
    dialogue.say(b"hello")
    dialogue.finish()
    assert (client.heard, client.ended, server.done) == (b"hello", True, True)
    assert list(server.passed or ()) == [(True, b"hello"), (False, b"hello"), (True, b"")]


def test_tls_inside_without_tls(keys: Keys) -> None:
    server = ProxyLayer().wrap(TlsLayer(keys.server_side()).wrap(Script))(FRIEND, nowhere)
    server.receive(encode(2, *FOUR) + b"GET /")
    assert server.done
    assert isinstance(server.failure, HandshakeFailed)
    assert (server.failure.where, server.handshaking) == ("203.0.113.9#56324", True)


# Fuzz --------------------------------------------------------------------------------------------


@st.composite
def nearly_headers(draw: st.DrawFn) -> bytes:
    """Headers with bytes changed, cut out and put in."""
    pair = draw(addresses())
    data = bytearray(encode(draw(st.sampled_from([1, 2])), *pair))
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


def chunks(data: bytes, places: list[int]) -> list[bytes]:
    places = sorted(place % (len(data) + 1) for place in places)
    cut = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    return [chunk for chunk in cut if chunk]


@given(nearly_headers() | st.binary(max_size=200), st.lists(st.integers(0, 400), max_size=6))
def test_anything_from_a_friend_is_a_header_or_a_clean_close(data: bytes, places: list[int]) -> None:
    conversation, inner = opened(FRIEND)
    conversation.start()
    for chunk in chunks(data, places):
        if conversation.done:
            break
        conversation.receive(chunk)
    if not inner:
        conversation.end()
        assert conversation.done
        assert conversation.failure is None or isinstance(conversation.failure, HandshakeFailed)
        return
    found = read_header(data)
    assert found is not None
    header, size = found
    assert inner[0].heard == data[size:]
    assert inner[0].who.address == (header.source or FRIEND.address)


@given(nearly_headers(), st.lists(st.integers(0, 400), max_size=6))
def test_nothing_from_a_stranger_is_believed(data: bytes, places: list[int]) -> None:
    conversation, inner = opened(STRANGER)
    said = conversation.start()
    for chunk in chunks(data, places):
        if conversation.done:
            break
        said += conversation.receive(chunk)
    assert said == b""
    assert not inner
    assert conversation.done
    assert conversation.true_peer is None
    assert isinstance(conversation.failure, HandshakeFailed)


@given(nearly_headers() | st.binary(max_size=200))
def test_what_is_read_depends_on_the_bytes_not_on_their_cut(data: bytes) -> None:
    def outcome(upto: int) -> object:
        try:
            return read_header(data[:upto])
        except BadHeader:
            return "bad"

    final = outcome(len(data))
    for upto in range(len(data)):
        early = outcome(upto)
        assert early is None or early == final
