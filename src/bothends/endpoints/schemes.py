"""What an endpoint may hold: two literal tables, and the errors that name the nearest known word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bothends import suggest
from bothends.errors import UnknownName

OptionValue = bool | int | str


@dataclass(frozen=True, slots=True)
class SchemeRule:
    """What a scheme is: `kind` in words, and which `fields` of an endpoint it uses.

    `carries` says what the socket does with bytes: a stream has no boundaries; datagrams and sequenced
    packets keep them; "any" is known only once the descriptor has been looked at. `wrappable`: a wrapper
    may stand before it (only what carries a stream can be wrapped).
    """

    kind: str
    fields: Literal["host and port", "path", "descriptor", "name", "none"]
    socket_type: Literal["stream", "datagrams", "packets", "any"] = "stream"
    wrappable: bool = True


SCHEMES: Mapping[str, SchemeRule] = {
    "tcp": SchemeRule("TCP stream", "host and port"),
    "udp": SchemeRule("UDP datagrams", "host and port", "datagrams", wrappable=False),
    "unix": SchemeRule("UNIX stream", "path"),
    "unix+dgram": SchemeRule("UNIX datagrams", "path", "datagrams", wrappable=False),
    "unix+seqpacket": SchemeRule("UNIX sequenced packets", "path", "packets", wrappable=False),
    "tls": SchemeRule("TLS over TCP", "host and port"),
    "mptcp": SchemeRule("Multipath TCP stream", "host and port"),
    "sctp": SchemeRule("SCTP stream", "host and port"),
    "vsock": SchemeRule("VSOCK stream", "host and port"),
    "fd": SchemeRule("inherited descriptor", "descriptor", "any"),
    "systemd": SchemeRule("socket passed by systemd", "name", "any"),
    "stdio": SchemeRule("standard input and output", "none", wrappable=False),
}

WRAPPERS: tuple[str, ...] = ("proxyprotocol",)

_INET = frozenset({"tcp", "udp", "tls", "mptcp", "sctp"})
_TCP = frozenset({"tcp", "tls", "mptcp"})
_TCP_WITHOUT_MPTCP = frozenset({"tcp", "tls"})
_UNIX = frozenset({"unix", "unix+dgram", "unix+seqpacket"})
_CONNECTION_ORIENTED = _TCP | {"sctp", "unix", "unix+seqpacket", "vsock"}
_INET_AND_UNIX = _INET | _UNIX
_TCP_AND_SCTP = _TCP | {"sctp"}


@dataclass(frozen=True, slots=True)
class OptionRule:
    """What an option takes: the schemes it applies to, the kind and range of its value, and its meaning.

    A flag is 0 or 1; a number is decimal between `least` and `most`, both included; octal is written in
    octal; a word is text of `least` to `most` bytes, networks are a word like 10.0.0.0/8,::1. An option of a
    `wrapper` applies only where that stands before the scheme.
    """

    schemes: frozenset[str]
    kind: Literal["flag", "number", "octal", "word", "networks"]
    meaning: str
    minimum: int = 0
    maximum: int = 2**31 - 1
    wrapper: str = ""


# In the order in which they are written. Defaults are those of `bothends.sockets`, which applies them.
OPTIONS: Mapping[str, OptionRule] = {
    "family": OptionRule(_INET, "number", "4: IPv4 only; 6: IPv6 only; default: both", 4, 6),
    "v6only": OptionRule(_INET, "flag", "an IPv6 listener leaves IPv4 alone; default: 0 for every interface"),
    "reuseaddr": OptionRule(
        _INET, "flag", "bind over connections in TIME_WAIT; default: 1 for listeners, 0 for udp"
    ),
    "reuseport": OptionRule(_INET, "flag", "several sockets share the port, the kernel spreads the peers"),
    "backlog": OptionRule(
        _CONNECTION_ORIENTED, "number", "connections waiting for accept; default: 4096", 1, 65535
    ),
    "mode": OptionRule(_UNIX, "octal", "permissions of the file; default: 777 less the umask", 0, 0o777),
    "nodelay": OptionRule(_TCP, "flag", "send small segments at once (no Nagle); default: 1"),
    "keepalive": OptionRule(_TCP, "flag", "probe a silent peer; default: 0"),
    "linger": OptionRule(_TCP, "number", "seconds that close waits for unsent data; 0 resets", 0, 65535),
    "user_timeout": OptionRule(
        _TCP_WITHOUT_MPTCP, "number", "milliseconds that sent data may stay unacknowledged"
    ),
    "maxseg": OptionRule(_TCP, "number", "bytes of data in a TCP segment at most", 88, 32767),
    "congestion": OptionRule(_TCP, "word", "congestion control algorithm, by the kernel's name", 1, 15),
    "defer_accept": OptionRule(_TCP, "number", "seconds that accept waits for the first data", 1, 65535),
    "ttl": OptionRule(_INET - {"mptcp"}, "number", "hops that a packet may take", 1, 255),
    "tos": OptionRule(_INET, "number", "the type-of-service byte: DSCP times 4, and ECN", 0, 255),
    "mark": OptionRule(_INET, "number", "firewall mark of each packet (needs CAP_NET_ADMIN)", 0, 2**32 - 1),
    "interface": OptionRule(_INET, "word", "only packets of this network interface", 1, 15),
    "broadcast": OptionRule(frozenset({"udp"}), "flag", "may send to broadcast addresses; default: 0"),
    "rcvbuf": OptionRule(
        _INET_AND_UNIX,
        "number",
        "bytes of the receive buffer; the kernel doubles it, up to net.core.rmem_max",
        1,
    ),
    "sndbuf": OptionRule(
        _INET_AND_UNIX,
        "number",
        "bytes of the send buffer; the kernel doubles it, up to net.core.wmem_max",
        1,
    ),
    "trust": OptionRule(
        _TCP_AND_SCTP | {"fd", "systemd"},
        "networks",
        "networks whose PROXY header is believed, as 10.0.0.0/8,::1; default: this machine",
        1,
        1024,
        "proxyprotocol",
    ),
    "header": OptionRule(
        _TCP_AND_SCTP | {"unix", "vsock"},
        "number",
        "version of the PROXY header that is sent: 1 (text) or 2; default: 2",
        1,
        2,
        "proxyprotocol",
    ),
}


class InvalidValue(Exception):
    """Why an endpoint cannot be; its text is added where it is known."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason, hint)
        self.reason = reason
        self.hint = hint


def scheme_rule(scheme: str, written: str = "") -> SchemeRule:
    """The rule of a scheme. Raises UnknownName, which shows `written` where that says more."""
    rule = SCHEMES.get(scheme)
    if rule is None:
        wrappable = [name for name, its in SCHEMES.items() if its.wrappable]
        known = [*SCHEMES, *(f"{wrapper}+{name}" for wrapper in WRAPPERS for name in wrappable)]
        written = written or scheme
        raise UnknownName("endpoint scheme", written, nearest(written, known), "known: " + ", ".join(SCHEMES))
    return rule


def option_rule(scheme: str, name: str, wrappers: Sequence[str] = ()) -> OptionRule:
    """The rule of an option. Raises UnknownName, or Flaw where it does not apply there."""
    rule = OPTIONS.get(name)
    fitting = [
        known
        for known, its in OPTIONS.items()
        if scheme in its.schemes and (not its.wrapper or its.wrapper in wrappers)
    ]
    listed = f"{scheme} takes: " + ", ".join(fitting) if fitting else f"{scheme} takes no options"
    if rule is None:
        raise UnknownName("endpoint option", name, nearest(name, list(OPTIONS)), listed)
    if scheme not in rule.schemes:
        schemes = ", ".join(known for known in SCHEMES if known in rule.schemes)
        raise InvalidValue(f"option {name} does not apply to {scheme}", f"it applies to {schemes}; {listed}")
    if rule.wrapper and rule.wrapper not in wrappers:
        raise InvalidValue(
            f"option {name} belongs to {rule.wrapper}", f"it applies to {rule.wrapper}+{scheme}"
        )
    return rule


def nearest(name: str, known: Sequence[str]) -> str:
    """The known word that is most like `name`, or ""."""
    return suggest.nearest(name.lower(), known)
