"""The tables of schemes and options, and the checks of an endpoint's fields.

Each check returns the value in its canonical spelling, or raises InvalidValue.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bothends import suggest
from bothends.errors import UnknownName

OptionValue = bool | int | str


@dataclass(frozen=True, slots=True)
class SchemeRule:
    """One scheme: its name in words (`kind`), and the `fields` of an endpoint that it uses.

    `socket_type`: a stream has no message boundaries; datagrams and sequenced packets preserve them; "any" is
    known only once the descriptor has been examined. `wrappable`: a wrapper may precede the scheme, which
    requires a stream.
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
    """One option: the schemes it applies to, the kind and range of its value, and its meaning.

    A flag is 0 or 1. A number is decimal, between `minimum` and `maximum` inclusive; an octal is the same in
    octal. A word is text of `minimum` to `maximum` characters; networks are a word such as 10.0.0.0/8,::1.
    An option with a `wrapper` applies only if that wrapper precedes the scheme.
    """

    schemes: frozenset[str]
    kind: Literal["flag", "number", "octal", "word", "networks"]
    meaning: str
    minimum: int = 0
    maximum: int = 2**31 - 1
    wrapper: str = ""


# In the order in which URLs show them. The defaults are those of `bothends.sockets`, which sets the options.
OPTIONS: Mapping[str, OptionRule] = {
    "family": OptionRule(_INET, "number", "4: IPv4 only; 6: IPv6 only; default: both", 4, 6),
    "v6only": OptionRule(_INET, "flag", "an IPv6 listener accepts no IPv4; default: 0 for every interface"),
    "reuseaddr": OptionRule(
        _INET, "flag", "bind despite connections in TIME_WAIT; default: 1 for listeners, 0 for udp"
    ),
    "reuseport": OptionRule(
        _INET, "flag", "several sockets share the port; the kernel distributes peers among them"
    ),
    "backlog": OptionRule(
        _CONNECTION_ORIENTED, "number", "length of the accept queue; default: 4096", 1, 65535
    ),
    "mode": OptionRule(
        _UNIX, "octal", "permissions of the socket file; default: 777 minus the umask", 0, 0o777
    ),
    "nodelay": OptionRule(_TCP, "flag", "send small segments at once (no Nagle algorithm); default: 1"),
    "keepalive": OptionRule(_TCP, "flag", "probe an idle peer; default: 0"),
    "linger": OptionRule(
        _TCP, "number", "seconds that close() waits for unsent data; 0 sends a reset", 0, 65535
    ),
    "user_timeout": OptionRule(
        _TCP_WITHOUT_MPTCP, "number", "milliseconds that sent data may remain unacknowledged"
    ),
    "maxseg": OptionRule(_TCP, "number", "maximum segment size in bytes", 88, 32767),
    "congestion": OptionRule(_TCP, "word", "the kernel's name of a congestion control algorithm", 1, 15),
    "defer_accept": OptionRule(_TCP, "number", "seconds that accept() waits for the first data", 1, 65535),
    "ttl": OptionRule(_INET - {"mptcp"}, "number", "maximum number of hops of a packet", 1, 255),
    "tos": OptionRule(_INET, "number", "the type-of-service byte: DSCP times 4, plus ECN", 0, 255),
    "mark": OptionRule(_INET, "number", "firewall mark of each packet (needs CAP_NET_ADMIN)", 0, 2**32 - 1),
    "interface": OptionRule(_INET, "word", "send and receive on this network interface only", 1, 15),
    "broadcast": OptionRule(frozenset({"udp"}), "flag", "allow sending to broadcast addresses; default: 0"),
    "rcvbuf": OptionRule(
        _INET_AND_UNIX,
        "number",
        "receive buffer size in bytes; the kernel doubles it, up to net.core.rmem_max",
        1,
    ),
    "sndbuf": OptionRule(
        _INET_AND_UNIX,
        "number",
        "send buffer size in bytes; the kernel doubles it, up to net.core.wmem_max",
        1,
    ),
    "trust": OptionRule(
        _TCP_AND_SCTP | {"fd", "systemd"},
        "networks",
        "networks whose PROXY headers are trusted, such as 10.0.0.0/8,::1; default: this machine",
        1,
        1024,
        "proxyprotocol",
    ),
    "header": OptionRule(
        _TCP_AND_SCTP | {"unix", "vsock"},
        "number",
        "version of the PROXY header to send: 1 (text) or 2; default: 2",
        1,
        2,
        "proxyprotocol",
    ),
}


class InvalidValue(Exception):
    """An invalid field of an endpoint. Callers that know the endpoint's text raise EndpointError instead."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason, hint)
        self.reason = reason
        self.hint = hint


def scheme_rule(scheme: str, text: str = "") -> SchemeRule:
    """Return the rule of a scheme. Raises UnknownName, which quotes `text` if it is given."""
    rule = SCHEMES.get(scheme)
    if rule is None:
        wrappable = [name for name, each in SCHEMES.items() if each.wrappable]
        known = [*SCHEMES, *(f"{wrapper}+{name}" for wrapper in WRAPPERS for name in wrappable)]
        text = text or scheme
        raise UnknownName("endpoint scheme", text, nearest(text, known), "known: " + ", ".join(SCHEMES))
    return rule


def option_rule(scheme: str, name: str, wrappers: Sequence[str] = ()) -> OptionRule:
    """Return the rule of an option.

    Raises UnknownName, or InvalidValue if the option does not apply to the scheme or its wrappers.
    """
    rule = OPTIONS.get(name)
    applicable = [
        option
        for option, each in OPTIONS.items()
        if scheme in each.schemes and (not each.wrapper or each.wrapper in wrappers)
    ]
    listed = f"{scheme} takes: " + ", ".join(applicable) if applicable else f"{scheme} takes no options"
    if rule is None:
        raise UnknownName("endpoint option", name, nearest(name, list(OPTIONS)), listed)
    if scheme not in rule.schemes:
        schemes = ", ".join(known for known in SCHEMES if known in rule.schemes)
        raise InvalidValue(f"option {name} does not apply to {scheme}", f"it applies to {schemes}; {listed}")
    if rule.wrapper and rule.wrapper not in wrappers:
        raise InvalidValue(f"option {name} needs {rule.wrapper}", f"it applies to {rule.wrapper}+{scheme}")
    return rule


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the known word most similar to `name`, or ""."""
    return suggest.nearest(name.lower(), known)


def check_wrappers(scheme: str, wrappers: tuple[str, ...]) -> None:
    """Check that each wrapper is known, given once, and applied to a stream."""
    rule = scheme_rule(scheme)
    for wrapper in wrappers:
        if wrapper not in WRAPPERS:
            raise UnknownName("endpoint wrapper", wrapper, nearest(wrapper, WRAPPERS))
        if not rule.wrappable:
            streams = ", ".join(name for name, each in SCHEMES.items() if each.wrappable)
            raise InvalidValue(f"{wrapper} needs a stream, unlike {scheme}", f"it works with {streams}")
        if wrappers.count(wrapper) > 1:
            raise InvalidValue(f"{wrapper} is given twice")


_FIELDS_USED = {
    "host and port": {"host", "port"},
    "path": {"path"},
    "descriptor": {"fd"},
    "name": {"name"},
    "none": set[str](),
}


def check_unused(scheme: str, fields: Mapping[str, object]) -> None:
    """Check that fields unused by the scheme are empty."""
    used = _FIELDS_USED[scheme_rule(scheme).fields]
    for name, value in fields.items():
        if value not in ("", None) and name not in used:
            raise InvalidValue(f"{scheme} has no {name}")


def normalize_host_and_port(scheme: str, host: str, port: int | None) -> tuple[str, int]:
    """Return the host in its canonical spelling and the port, checked against its range."""
    if scheme == "vsock":
        max_port = 2**32 - 1
        if host and not (is_number(host) and int(host) <= max_port):
            raise InvalidValue(
                f"the host of vsock is a context id, not {host!r}",
                "1 is this machine, 2 the host of a virtual machine",
            )
        host = str(int(host)) if host else ""
    else:
        max_port = 65535
        host = _normalize_host(host)
    if port is None:
        raise InvalidValue("no port", "port 0 lets the kernel choose when listening")
    if not 0 <= port <= max_port:
        raise InvalidValue(f"a port is between 0 and {max_port}, not {port}")
    return host, port


_ASCII_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_ZONE = re.compile(
    r"[!-$&-.0-~]{1,15}"
)  # an interface name: 15 bytes without / (dev_valid_name); no % either


def _normalize_host(host: str) -> str:
    if not host:
        return host
    if ":" in host:
        return _normalize_ipv6(host)
    if host == "*":
        raise InvalidValue("'*' is not a host", "leave the host empty for every interface: tcp://:12000")
    if re.fullmatch(r"[0-9.]+", host):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise InvalidValue(
                f"{host!r} is not an IPv4 address", "it has four numbers from 0 to 255, no leading zeros"
            ) from None
    try:
        # getaddrinfo encodes non-ASCII names the same way (RFC 3490). The codec limits labels to 63 bytes.
        encoded = host.encode("idna").decode("ascii")
    except UnicodeError:
        raise InvalidValue(
            f"{host!r} is not a host name", "each label between dots has 1 to 63 characters"
        ) from None
    if not _ASCII_NAME.fullmatch(encoded) or len(encoded) > 253:
        raise InvalidValue(
            f"{host!r} is not a host name", "letters, digits, hyphens and dots, at most 253 characters"
        )
    return host


def _normalize_ipv6(host: str) -> str:
    address, percent, zone = host.partition("%")
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        raise InvalidValue(f"{address!r} is not an IPv6 address", "for example ::1") from None
    if percent and not _ZONE.fullmatch(zone):
        raise InvalidValue(f"{zone!r} is not an interface name", "for example fe80::1%eth0")
    mapped = parsed.ipv4_mapped
    return (f"::ffff:{mapped}" if mapped else str(parsed)) + percent + zone


def is_ipv6(text: str) -> bool:
    """Whether `text` is an IPv6 address without brackets and without a zone."""
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text


def normalize_path(scheme: str, path: str) -> str:
    """Return a UNIX path in its canonical spelling; check that it can be encoded."""
    if not path:
        raise InvalidValue(
            "no path", f"for example {scheme}:///run/a.sock, or {scheme}://@name for an abstract name"
        )
    if "\0" in path and not path.startswith("@"):
        raise InvalidValue("a path cannot hold a NUL byte")
    try:
        # Surrogate escapes that together form UTF-8 are decoded, because one byte string needs one spelling.
        return path.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise InvalidValue("a character that cannot be encoded (a lone surrogate)") from None


def check_name(name: str) -> None:
    """Check that systemd can give a descriptor this name."""
    # systemd.socket(5), FileDescriptorName=: 255 ASCII characters, no control characters, no colon.
    if not re.fullmatch(r"[ -9;-~]{1,255}", name):
        raise InvalidValue(
            f"{name!r} is not a systemd descriptor name", "1 to 255 printable ASCII characters, no colon"
        )


def normalize_options(
    scheme: str,
    host: str,
    options: Iterable[tuple[str, OptionValue]] | Mapping[str, OptionValue],
    wrappers: tuple[str, ...] = (),
) -> tuple[tuple[str, OptionValue], ...]:
    """Return the options in the order of OPTIONS; check the range of each, and that none is given twice."""
    given: dict[str, OptionValue] = {}
    for name, value in options.items() if isinstance(options, Mapping) else options:
        rule = option_rule(scheme, name, wrappers)
        if name in given:
            raise InvalidValue(f"option {name} is given twice")
        given[name] = _normalize_value(name, rule, value)
    _check_family(host, given)
    return tuple((name, given[name]) for name in OPTIONS if name in given)


def _normalize_value(name: str, rule: OptionRule, value: OptionValue) -> OptionValue:
    if rule.kind == "flag":
        if value not in (0, 1):
            raise InvalidValue(f"option {name} is 0 or 1, not {value!r}")
        return bool(value)
    if rule.kind == "networks":
        return _normalize_networks(name, rule, value)
    if rule.kind == "word":
        if not isinstance(value, str) or not re.fullmatch(r"[!-.0-~]*", value):
            raise InvalidValue(f"option {name} is a word, not {value!r}", rule.meaning)
        if not rule.minimum <= len(value) <= rule.maximum:
            raise InvalidValue(
                f"option {name} has {rule.minimum} to {rule.maximum} characters, not {len(value)}",
                rule.meaning,
            )
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidValue(f"option {name} is a number, not {value!r}", rule.meaning)
    if not rule.minimum <= value <= rule.maximum:
        minimum, maximum, given = (format_number(rule, each) for each in (rule.minimum, rule.maximum, value))
        raise InvalidValue(f"option {name} is between {minimum} and {maximum}, not {given}", rule.meaning)
    return value


def _normalize_networks(name: str, rule: OptionRule, value: OptionValue) -> str:
    if not isinstance(value, str) or not rule.minimum <= len(value) <= rule.maximum:
        raise InvalidValue(f"option {name} is a list of networks, not {value!r}", rule.meaning)
    networks: dict[str, None] = {}
    for text in value.split(","):
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise InvalidValue(
                f"option {name} is a list of networks, and {text!r} is not a network", rule.meaning
            ) from None
        if str(network.network_address) != str(ipaddress.ip_address(text.partition("/")[0])):
            raise InvalidValue(f"option {name}: {text} has host bits set", f"the network is {network}")
        networks[str(network) if network.num_addresses > 1 else str(network.network_address)] = None
    return ",".join(networks)


def format_number(rule: OptionRule, value: int) -> str:
    """Format the value of a flag, number or octal option."""
    return f"{value:o}" if rule.kind == "octal" else str(int(value))


def _check_family(host: str, options: Mapping[str, OptionValue]) -> None:
    family = options.get("family")
    if family not in (None, 4, 6):
        raise InvalidValue("option family is 4 or 6")
    literal = 6 if ":" in host else 4 if re.fullmatch(r"[0-9.]+", host) else None
    if family is not None and literal not in (None, family):
        raise InvalidValue(f"family={family} is given, but {host} is an IPv{literal} address")
    if "v6only" in options and 4 in (family, literal):
        raise InvalidValue("option v6only is for IPv6, and this endpoint is IPv4")


def is_number(text: str) -> bool:
    """Whether `text` is 1 to 20 ASCII digits. int() raises ValueError for thousands of digits."""
    return text.isascii() and text.isdigit() and len(text) <= 20
