"""What bytes say in a well-known protocol, and which bytes are not named."""

from __future__ import annotations

import random
import ssl

import pytest

from bothends.trace.protocols import table
from bothends.trace.protocols.table import PROTOCOLS, said

DNS_QUERY = bytes.fromhex("1234010000010000000000000765 78616d706c65036f72670000010001".replace(" ", ""))
DNS_REPLY = (
    bytes.fromhex("1234818000010001000000000765 78616d706c65036f72670000010001".replace(" ", ""))
    + bytes.fromhex("c00c000100010000003c0004")
    + bytes([192, 0, 2, 7])
)
NO_SUCH_NAME = DNS_QUERY[:2] + b"\x81\x83" + DNS_QUERY[4:]


def client_hello(name: str) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    session = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


SAYINGS = [
    (b"GET /index.html HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 GET /index.html"),
    (b"CONNECT example.org:443 HTTP/1.0\r\n\r\n", "HTTP/1.0 CONNECT example.org:443"),
    (b"HTTP/1.1 404 Not Found\r\n\r\n", "HTTP/1.1 404 Not Found"),
    (b"HTTP/1.0 204\r\n\r\n", "HTTP/1.0 204"),
    (b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n", "RESP GET key"),
    (b"*4\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n$2\r\nNX\r\n", "RESP SET a b …"),
    (b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n", "RESP PING"),
    (b"$5\r\nhello\r\n", "RESP bulk string of 5 bytes"),
    (b"$-1\r\n", "RESP null"),
    (b"-WRONGTYPE Operation against a key\r\n", "RESP -WRONGTYPE Operation against a key"),
    (b"EHLO client.example.org\r\n", "SMTP EHLO client.example.org"),
    (b"MAIL FROM:<a@example.org> SIZE=100\r\n", "SMTP MAIL FROM:<a@example.org> SIZE=100"),
    (b"220 mail.example.org ESMTP Postfix\r\n", "SMTP 220 greeting"),
    (b"250-mail.example.org\r\n250-PIPELINING\r\n250 SIZE 100\r\n", "SMTP 250 extensions"),
    (DNS_QUERY, "DNS query A example.org"),
    (DNS_REPLY, "DNS reply A example.org: 192.0.2.7"),
    (len(DNS_QUERY).to_bytes(2, "big") + DNS_QUERY, "DNS query A example.org"),
    (NO_SUCH_NAME, "DNS reply A example.org: NXDOMAIN"),
    (bytes.fromhex("15030300020228"), "TLS Alert handshake_failure"),
    (bytes.fromhex("1503010002012d"), "TLS Alert certificate_expired"),
    (bytes.fromhex("1703030013") + bytes(19), "TLS Application Data 19 bytes"),
    (bytes.fromhex("17030300fa"), "TLS header: Application Data 250 bytes"),
    (
        bytes.fromhex("140303000101" "1703030004") + b"abcd",
        "TLS ChangeCipherSpec, Application Data 4 bytes",
    ),
    (
        bytes.fromhex("140303000101" "1603030028") + bytes(40),
        "TLS ChangeCipherSpec, Handshake 40 bytes",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("data", "text"), SAYINGS, ids=[text for _, text in SAYINGS])
def test_said_of_a_well_known_protocol_is_its_message(data: bytes, text: str) -> None:
    assert said(data, len(data)).text == text


def test_said_of_client_hello_names_the_server() -> None:
    hello = client_hello("mail.example.org")
    assert said(hello, len(hello)).text == "TLS ClientHello for mail.example.org"


def test_said_of_large_records_needs_their_beginning_only() -> None:
    data = bytes.fromhex("1703034000") + bytes(16384)
    assert said(data[:4096], len(data)).text == "TLS Application Data 16384 bytes"


def test_said_of_many_records_counts_those_that_are_not_shown() -> None:
    data = (bytes.fromhex("1703030001") + b"x") * 5
    assert said(data, len(data)).text.endswith("Application Data 1 bytes and 2 more")


OTHERS = [
    b"", b"GET", b"GET /", b"GET / HTTP/2.0\r\n", b"GETS / HTTP/1.1\r\n", b"HTTP/1.1 999 x\r\n",
    b"+OK\r\n", b"-ERR unknown\r\n", b":5\r\n", b"*2\r\n$3\r\nGET\r\nkey\r\n", b"$5\r\nhell\r\n",
    b"*1\r\n$3\r\n\0\1\2\r\n", b"*2\r\nnot a bulk string\r\n", b"220 ftp.example.org FTP server\r\n",
    b"250 OK\r\n", b"HELO\r\n", b"DATA\r\n", b"QUIT\r\n", b"USER anonymous\r\n",
    DNS_QUERY + b"x", DNS_QUERY[:-1], DNS_QUERY[:4] + b"\0\2" + DNS_QUERY[6:],
    bytes.fromhex("17030300fa00"), bytes.fromhex("170203000100"), bytes.fromhex("1703030000"),
    bytes.fromhex("18030300010000"), bytes.fromhex("1703034900") + bytes(100), b"\x16\x03hello",
]  # fmt: skip


@pytest.mark.parametrize("data", OTHERS, ids=repr)
def test_said_of_other_bytes_is_nothing(data: bytes) -> None:
    assert said(data, len(data)).text in (
        "",
        "TLS Application Data 250 bytes",  # a record that goes on in the next call
    )
    if data != bytes.fromhex("17030300fa00"):
        assert said(data, len(data)).text == ""


def test_said_of_random_and_of_mutated_bytes_never_fails() -> None:
    random_numbers = random.Random(17)
    seeds = [data for data, _ in SAYINGS] + [client_hello("example.org")]
    named = 0
    for _ in range(3000):
        data = random_numbers.randbytes(random_numbers.randrange(80))
        named += bool(said(data, len(data)).text)
        mutated = bytearray(random_numbers.choice(seeds))
        for _ in range(random_numbers.randrange(1, 4)):
            mutated[random_numbers.randrange(len(mutated))] = random_numbers.randrange(256)
        cut = bytes(mutated[: random_numbers.randrange(len(mutated) + 1)])
        assert said(cut, len(cut)).text.isprintable()
    assert named == 0


def test_said_of_text_protocols_is_in_their_bytes() -> None:
    assert {name for name, each in PROTOCOLS.items() if each.is_text} == {"HTTP/1", "SMTP"}
    assert table.said(b"GET / HTTP/1.1\r\n\r\n", 18).is_text
