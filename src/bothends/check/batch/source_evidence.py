"""What the text of a program says about its transport and its role: the calls that it makes on sockets.

A name is a weaker sign than a call, because "server.py" may be the TCP server of a folder with two.

    socket.socket(socket.AF_INET, socket.SOCK_DGRAM) ... .bind(...)  ->  udp, server
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MAX_SIZE: Final = 2 << 20  # bytes of a file that are searched

_COMMENTS: Final = {
    # Each ends at the end of the text at the latest, so that no text takes quadratic time.
    ".py": re.compile(rb'(?m)(^|[ \t])#.*$|^[ \t]*("""|\'\'\')[\s\S]*?(?:\2|\Z)'),
    "": re.compile(rb"(?m)(^|[\s;{}])//.*$|/\*[\s\S]*?(?:\*/|\Z)"),
}

# Python; C; Java; Node.js; Go and Rust
_UDP: Final = re.compile(
    rb"SOCK_DGRAM|UDPServer|DatagramRequestHandler|create_datagram_endpoint|\brecvfrom\b|\bsendto\b"
    rb"|Datagram(Socket|Packet|Channel)|\bdgram\b|ListenUDP|DialUDP|ListenPacket|['\"]udp[46]?['\"]|UdpSocket"
)
_TCP: Final = re.compile(
    rb"SOCK_STREAM|TCPServer|HTTPServer|StreamRequestHandler|create_server\(|create_connection\(|start_server\("
    rb"|open_connection\(|\bsocket\(\s*((socket\.)?AF_INET6?\s*)?\)|ServerSocket|new\s+Socket\s*\("
    rb"|SocketChannel|\bnet\.(createServer|createConnection|connect|Socket)\b"
    rb"|['\"](node:)?net['\"]|['\"]tcp[46]?['\"]|TcpListener|TcpStream"
)
_UNIX: Final = re.compile(
    rb"[AP]F_(UNIX|LOCAL)|Unix(Listener|Stream|Datagram|DomainSocketAddress|StreamServer|DatagramServer)"
    rb"|start_unix_server|open_unix_connection|['\"]unix(gram)?['\"]"
)
_INTERNET: Final = re.compile(
    rb"[AP]F_INET|INADDR_ANY|getaddrinfo|InetSocketAddress|['\"](tcp|udp)[46]?['\"]"
)
_SERVER: Final = re.compile(
    rb"\b(accept4?|listen|bind)\s*\(|serve_forever|(TCP|UDP|HTTP)Server\b|create_server\(|start_server\("
    rb"|ServerSocket|new\s+DatagramSocket\s*\(\s*[^\s)]|createServer|\bListen(UDP|TCP|Packet)?\s*\(|TcpListener"
)
_CLIENT: Final = re.compile(
    rb"\bconnect(_ex)?\s*\(|create_connection\(|createConnection|open_connection\("
    rb"|(?<!Server)SocketChannel\.open\s*\(|new\s+Socket\s*\(\s*[^\s)]|new\s+DatagramSocket\s*\(\s*\)|\bDial(UDP|TCP|Timeout)?\s*\("
)
_SENDS: Final = re.compile(rb"\bsendto\b|\.send\s*\(")
_ELF: Final = b"\x7fELF"


@dataclass(frozen=True, slots=True)
class SourceEvidence:
    """What a program seems to be: its `transports` ("tcp", "udp", "unix") and `roles` ("server", "client").

    Both are empty if nothing is known.
    """

    transports: frozenset[str]
    roles: frozenset[str]

    def transport_rank(self, transport: str) -> int:
        """Return 0 if it speaks the transport of a contract, 1 if that is unknown, 2 if it speaks another."""
        return _rank(transport.partition("+")[0], self.transports)

    def role_rank(self, role: str) -> int:
        """Return 0 if it has this role only, 1 if it has both or none is known, 2 if it has the other."""
        return 1 if len(self.roles) == 2 else _rank(role, self.roles)


def find_evidence(*paths: Path) -> SourceEvidence:
    """Return the evidence in the files of a program: sources, or an executable (elf(5)).

    Raises:
        OSError: a file cannot be read.
    """
    texts = []
    for path in paths:
        with path.open("rb") as file:
            text = file.read(_MAX_SIZE)
        texts.append(_symbols(text) if text.startswith(_ELF) else _without_comments(text, path.suffix))
    return _judge_text(b"\n".join(texts))


def _judge_text(text: bytes) -> SourceEvidence:
    if _UNIX.search(text) and not _INTERNET.search(text):
        transports = {"unix"}
    else:
        transports = {name for name, pattern in (("tcp", _TCP), ("udp", _UDP)) if pattern.search(text)}
    roles = {name for name, pattern in (("server", _SERVER), ("client", _CLIENT)) if pattern.search(text)}
    if not roles and transports and _SENDS.search(text):
        roles = {"client"}  # a datagram client needs neither connect() nor bind()
    return SourceEvidence(frozenset(transports), frozenset(roles))


def _without_comments(text: bytes, suffix: str) -> bytes:
    return _COMMENTS.get(suffix, _COMMENTS[""]).sub(b" ", text)


def _symbols(program: bytes) -> bytes:
    """Return the calls of a dynamically linked program, as its table of symbols names them, as source."""
    names = [b"accept", b"accept4", b"listen", b"bind", b"connect", b"recvfrom", b"sendto"]
    found = [name for name in names if b"\0" + name + b"\0" in program]
    calls = b" ".join(name + b"(" for name in found)
    stream = {b"accept", b"accept4", b"listen"} & {*found} or (b"connect" in found and b"sendto" not in found)
    return calls + (b" SOCK_STREAM" if stream else b"")


def _rank(wanted: str, found: frozenset[str]) -> int:
    return 1 if not found else 0 if wanted in found else 2
