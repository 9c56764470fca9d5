"""Clients as in a first course on sockets, against bothends servers on every engine."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.interop.bothends_servers import EngineServers
from tests.interop.programs import Programs, needs_compiler
from tests.interop.running import Running, run
from tests.tools import needs_tool

HELLO = b"back to ya client"
REPLY = b"I am server and this is my message"
TIME = rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}"
PROMPT = b"Input lowercase sentence: "


@dataclass(frozen=True)
class ClientRun:
    """One run of a client: its command line, input and expected output.

    `output` is compared byte by byte; with `is_pattern` it is a pattern for all of it. `logged` are the
    expected lines in the server's log, without the client's address. With `bytewise` the client sends byte by
    byte, so the number of reads is random, and only the joined lines of the log are compared.
    """

    service: str
    client: str
    input: bytes
    output: bytes
    logged: tuple[bytes, ...] = ()
    is_pattern: bool = False
    bytewise: bool = False

    def __str__(self) -> str:
        return f"{self.service}-{self.client.partition(' {')[0].replace(' ', '-')}"


CLIENT_RUNS = [
    # C
    ClientRun(
        "upper",
        "tcp_client.c {tcp}",
        b"hello from c\n",
        PROMPT + b"From server: HELLO FROM C\n",
        (b"hello from c",),
    ),
    ClientRun(
        "upper",
        "buffer512_client.c {tcp}",
        b"a big buffer\n",
        b"512 bytes: A BIG BUFFER\n",
        (b"a big buffer [and 500 NULs]",),
    ),
    ClientRun(
        "upper",
        "buffer80_client.c {tcp}",
        b"one of 80\nanother\nexit\n",
        b"To server: From server, 80 bytes: ONE OF 80\n"
        b"To server: From server, 80 bytes: ANOTHER\n"
        b"To server: From server, 80 bytes: EXIT\n"
        b"Client exit.\n",
        (b"one of 80 [and 70 NULs]", b"another [and 72 NULs]", b"exit [and 75 NULs]"),
    ),
    ClientRun(
        "upper",
        "udp_client.c {udp}",
        b"a datagram from c\n",
        PROMPT + b"From server: A DATAGRAM FROM C\n",
        (b"a datagram from c",),
    ),
    ClientRun(
        "upper",
        "udp1024_client.c {udp}",
        b"a padded datagram\n",
        b"1024 bytes: A PADDED DATAGRAM\n",
        (b"a padded datagram [and 1007 NULs]",),
    ),
    ClientRun(
        "upper",
        "unix_client.c {unix}",
        b"through a file\n",
        b"15 bytes: THROUGH A FILE\n",
        (rb"through a file\x00",),
    ),
    ClientRun(
        "upper",
        "unix_dgram_client.c {unix_dgram} {own}",
        b"a datagram through a file\n",
        b"From server: A DATAGRAM THROUGH A FILE\n",
        (b"a datagram through a file",),
    ),
    ClientRun(
        "upper",
        "five_writes.c udp {udp}",
        b"",
        # If several processes read one socket, the order of their answers is random.
        rb"512 bytes: ([A-E])\1{511}\n",
        tuple(letter * 512 for letter in (b"a", b"b", b"c", b"d", b"e")),
        is_pattern=True,
    ),
    ClientRun(
        "hello",
        "tcp_client.c {tcp}",
        b"hello, server\n",
        PROMPT + b"From server: " + HELLO + b"\n\n",
        (b"hello, server",),
    ),
    ClientRun(
        "hello",
        "udp1024_client.c {udp}",
        b"a padded hello\n",
        b"17 bytes: " + HELLO + b"\n",
        (b"a padded hello [and 1010 NULs]",),
    ),
    ClientRun(
        "reply",
        "buffer80_client.c {tcp}",
        b"message one\nmessage two\n",
        b"To server: From server, 35 bytes: %b\n" * 2 % (REPLY, REPLY) + b"To server: Client exit.\n",
        (b"message one [and 68 NULs]", b"message two [and 68 NULs]"),
    ),
    ClientRun(
        "reply",
        "udp_client.c {udp}",
        b"message\n",
        PROMPT + b"From server: " + REPLY + b"\n",
        (b"message",),
    ),
    ClientRun("print", "teller.c tcp {tcp}", b"told by c\n", b"", (b"told by c",)),
    ClientRun("print", "teller.c udp {udp}", b"told\ntwice\n", b"", (b"told", b"twice")),
    ClientRun(
        "clock",
        "udp_client.c {udp}",
        b"time\n",
        PROMPT + b"From server: " + TIME + b"\n",
        (b"time",),
        is_pattern=True,
    ),
    ClientRun(
        "hello",
        "unix_client.c {unix}",
        b"hello, file\n",
        b"18 bytes: " + HELLO + b"\n\n",
        (rb"hello, file\x00",),
    ),
    ClientRun(
        "reply",
        "unix_client.c {unix}",
        b"to a file\n",
        b"35 bytes: " + REPLY + b"\n\n",
        (rb"to a file\x00",),
    ),
    ClientRun(
        "reply",
        "unix_dgram_client.c {unix_dgram} {own}",
        b"to a file\n",
        b"From server: " + REPLY + b"\n",
        (b"to a file",),
    ),
    ClientRun(
        "clock",
        "unix_dgram_client.c {unix_dgram} {own}",
        b"what time\n",
        b"From server: " + TIME + b"\n",
        (b"what time",),
        is_pattern=True,
    ),
    # Java
    ClientRun(
        "upper",
        "LineClient.java {tcp}",
        b"a line from java\n",
        b"FROM SERVER: A LINE FROM JAVA\n",
        (b"a line from java",),
        bytewise=True,
    ),
    ClientRun(
        "upper",
        "OneReadClient.java {tcp}",
        b"one read from java\n",
        b"18 bytes: ONE READ FROM JAVA\n",
        (b"one read from java",),
    ),
    ClientRun(
        "upper",
        "PacketClient.java {udp}",
        b"a packet from java\n",
        b"FROM SERVER: " + b"A PACKET FROM JAVA".ljust(1024, b"\0") + b"\n",
        (b"a packet from java",),
    ),
    # It gets its answer after its first byte, and sends the others to a server that has finished.
    ClientRun("hello", "LineClient.java {tcp}", b"hi\n", b"FROM SERVER: " + HELLO + b"\n"),
    ClientRun(
        "clock",
        "LineClient.java {tcp}",
        b"now?\n",
        b"FROM SERVER: " + TIME + b"\n",
        (b"now?",),
        is_pattern=True,
        bytewise=True,
    ),
    # Python
    ClientRun(
        "upper",
        "tcp_client.py {tcp}",
        "größe\n".encode(),
        PROMPT + "From Server: GRÖSSE\n".encode(),
        ("größe".encode(),),
    ),
    ClientRun("upper", "udp_client.py {udp}", b"python\n", PROMPT + b"PYTHON\n", (b"python",)),
    ClientRun(
        "upper",
        "prompt_client.py -p {port}",
        b"first\n\nsecond\n",
        PROMPT + b"From Server: FIRST\n" + PROMPT * 2 + b"From Server: SECOND\n" + PROMPT,
        (b"first", b"second"),
    ),
    ClientRun("hello", "hello_client.py {tcp}", b"", HELLO + b"\n", (b"hello from client",)),
    ClientRun(
        "reply",
        "prompt_client.py -p {port}",
        b"are you there\nand who\n",
        (PROMPT + b"From Server: " + REPLY + b"\n\n") * 2 + PROMPT,
        (b"are you there", b"and who"),
    ),
    ClientRun("print", "hello_client.py {tcp}", b"", b"", (b"hello from client",)),
    # Its request is an empty datagram.
    ClientRun("clock", "udp_clock_client.py {udp}", b"", TIME + b"\n", (b"",), is_pattern=True),
    ClientRun("clock", "hello_client.py {tcp}", b"", TIME + b"\n", (b"hello from client",), is_pattern=True),
]


@pytest.mark.spread("servers", "exchange", one_in=3)
@pytest.mark.parametrize(
    "exchange",
    [pytest.param(each, id=str(each), marks=needs_compiler(each.client.split()[0])) for each in CLIENT_RUNS],
)
def test_course_client(exchange: ClientRun, servers: EngineServers, programs: Programs) -> None:
    needs_datagrams = "{udp}" in exchange.client or "{unix_dgram}" in exchange.client
    if needs_datagrams and not servers.engine.datagrams:
        pytest.skip(f"engine {servers.engine.name}: {servers.engine.why_not['datagrams']}")
    server = servers[exchange.service]
    program, *arguments = exchange.client.split()
    words = [word for each in arguments for word in each.format(**server.addresses).split()]
    shown = run([*programs.command(program), *words], exchange.input)
    if exchange.is_pattern:
        assert re.fullmatch(exchange.output, shown), shown
    else:
        assert shown == exchange.output
    if exchange.bytewise:
        server.wait_for_output(
            f"{exchange.logged}, in pieces",
            lambda log: b"".join(exchange.logged) in joined_lines(log) or None,
        )
        return
    for each in exchange.logged:
        server.line(b"%b: %b" % (name_of(exchange, server.addresses), re.escape(each)))


@needs_tool("cc")
def test_one_read_returns_any_prefix_of_five_writes(servers: EngineServers, programs: Programs) -> None:
    server = servers["upper"]
    shown = run([*programs.command("five_writes.c"), "tcp", *server.addresses["tcp"].split()])
    size, _, answer = shown.removesuffix(b"\n").partition(b" bytes: ")
    assert 1 <= int(size) == len(answer)
    assert b"".join(letter * 512 for letter in (b"A", b"B", b"C", b"D", b"E")).startswith(answer)


def test_concurrent_clients_are_answered_in_order_of_sending(
    servers: EngineServers, programs: Programs
) -> None:
    if not servers.engine.concurrent:
        pytest.skip(f"engine {servers.engine.name}: {servers.engine.summary}")
    command = [*programs.command("tcp_client.py"), *servers["upper"].addresses["tcp"].split()]
    with ExitStack() as stack:
        clients = [stack.enter_context(Running(command)) for _ in range(4)]
        for client in clients:
            client.text(PROMPT)  # it prompts once it is connected
        for number, client in reversed(list(enumerate(clients))):
            client.write_input(b"client %d\n" % number)
            client.line(PROMPT + b"From Server: CLIENT %d" % number)
            assert client.wait() == 0


def joined_lines(log: bytes) -> list[bytes]:
    """Return the joined lines of each client in the log."""
    joined: dict[bytes, bytes] = {}
    for line in log.splitlines():
        name, _, text = line.partition(b": ")
        joined[name] = joined.get(name, b"") + text
    return list(joined.values())


def name_of(exchange: ClientRun, addresses: dict[str, str]) -> bytes:
    """Return a pattern for the client's name in the log: `IP#port`, or the UNIX socket's name."""
    if "{own}" in exchange.client:
        return re.escape(addresses["own"].encode())
    return rb"unix#\d+" if "{unix}" in exchange.client else rb"127\.0\.0\.1#\d+"
