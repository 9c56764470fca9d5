"""What makes an endpoint sound: each check returns the value in its one spelling, or raises Flaw."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping

from bothends.endpoints.schemes import (
    OPTIONS,
    SCHEMES,
    WRAPPERS,
    InvalidValue,
    OptionRule,
    OptionValue,
    nearest,
    option_rule,
    scheme_rule,
)
from bothends.endpoints.writing import format_value
from bothends.errors import UnknownName


def check_wrappers(scheme: str, wrappers: tuple[str, ...]) -> None:
    """Each wrapper is known, stands once, and wraps a stream."""
    rule = scheme_rule(scheme)
    for wrapper in wrappers:
        if wrapper not in WRAPPERS:
            raise UnknownName("endpoint wrapper", wrapper, nearest(wrapper, WRAPPERS))
        if not rule.wrappable:
            streams = ", ".join(known for known, its in SCHEMES.items() if its.wrappable)
            raise InvalidValue(f"{wrapper} wraps a stream, and {scheme} is none", f"it goes with {streams}")
        if wrappers.count(wrapper) > 1:
            raise InvalidValue(f"{wrapper} twice")


_FIELDS_USED = {
    "host and port": {"host", "port"},
    "path": {"path"},
    "descriptor": {"fd"},
    "name": {"name"},
    "none": set[str](),
}


def check_unused(scheme: str, fields: Mapping[str, object]) -> None:
    """A field that the scheme doesn't use is empty."""
    used = _FIELDS_USED[scheme_rule(scheme).fields]
    for name, value in fields.items():
        if value not in ("", None) and name not in used:
            raise InvalidValue(f"{scheme} has no {name}")


def normalize_host_and_port(scheme: str, host: str, port: int | None) -> tuple[str, int]:
    """The host in its one spelling, and a port within its range."""
    if scheme == "vsock":
        most = 2**32 - 1
        if host and not (is_number(host) and int(host) <= most):
            raise InvalidValue(
                f"the host of vsock is a context id, not {host!r}",
                "1 is this machine, 2 the hypervisor's host",
            )
        host = str(int(host)) if host else ""
    else:
        most = 65535
        host = _normalize_host(host)
    if port is None:
        raise InvalidValue("no port", "0 lets the system pick one when listening")
    if not 0 <= port <= most:
        raise InvalidValue(f"a port is between 0 and {most}, not {port}")
    return host, port


_ASCII_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_ZONE = re.compile(r"[!-$&-.0-~]{1,15}")  # a device name: 15 bytes, no / (dev_valid_name); no % either


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
                f"{host!r} is not an IPv4 address", "four numbers from 0 to 255, no leading zeros"
            ) from None
    try:
        # getaddrinfo encodes a name that isn't ASCII so (RFC 3490); it also bounds each label to 63 bytes.
        encoded = host.encode("idna").decode("ascii")
    except UnicodeError:
        raise InvalidValue(
            f"{host!r} is not a host name", "each part between dots has 1 to 63 characters"
        ) from None
    if not _ASCII_NAME.fullmatch(encoded) or len(encoded) > 253:
        raise InvalidValue(f"{host!r} is not a host name", "letters, digits, hyphens and dots, 253 at most")
    return host


def _normalize_ipv6(host: str) -> str:
    address, percent, zone = host.partition("%")
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        raise InvalidValue(f"{address!r} is not an IPv6 address", "for example ::1") from None
    if percent and not _ZONE.fullmatch(zone):
        raise InvalidValue(f"{zone!r} is not the name of an interface", "for example fe80::1%eth0")
    mapped = parsed.ipv4_mapped
    return (f"::ffff:{mapped}" if mapped else str(parsed)) + percent + zone


def is_ipv6(text: str) -> bool:
    """An IPv6 address without brackets and without a zone."""
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text


def normalize_path(scheme: str, path: str) -> str:
    """A UNIX path that can be encoded, in its one spelling."""
    if not path:
        raise InvalidValue(
            "no path", f"for example {scheme}:///run/a.sock, or {scheme}://@name for an abstract name"
        )
    if "\0" in path and not path.startswith("@"):
        raise InvalidValue("a path cannot hold a NUL byte")
    try:
        # Two spellings of one byte string become one: escapes that together form UTF-8 are decoded.
        return path.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise InvalidValue("a character that has no bytes (a lone surrogate)") from None


def check_name(name: str) -> None:
    """A name that systemd can give to a descriptor."""
    # systemd.socket(5), FileDescriptorName=: 255 ASCII characters, no control characters, no colon.
    if not re.fullmatch(r"[ -9;-~]{1,255}", name):
        raise InvalidValue(
            f"{name!r} is not a descriptor name of systemd", "1 to 255 ASCII characters, none of them a colon"
        )


def normalize_options(
    scheme: str,
    host: str,
    options: Iterable[tuple[str, OptionValue]] | Mapping[str, OptionValue],
    wrappers: tuple[str, ...] = (),
) -> tuple[tuple[str, OptionValue], ...]:
    """The options, each within its range and none twice, in the order of OPTIONS."""
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
        least, most, got = (format_value(name, number) for number in (rule.minimum, rule.maximum, value))
        raise InvalidValue(f"option {name} is between {least} and {most}, not {got}", rule.meaning)
    return value


def _normalize_networks(name: str, rule: OptionRule, value: OptionValue) -> str:
    if not isinstance(value, str) or not rule.minimum <= len(value) <= rule.maximum:
        raise InvalidValue(f"option {name} is a list of networks, not {value!r}", rule.meaning)
    found: dict[str, None] = {}
    for written in value.split(","):
        try:
            network = ipaddress.ip_network(written, strict=False)
        except ValueError:
            raise InvalidValue(
                f"option {name} is a list of networks, and {written!r} is none", rule.meaning
            ) from None
        if str(network.network_address) != str(ipaddress.ip_address(written.partition("/")[0])):
            raise InvalidValue(
                f"option {name}: {written} has bits beyond its prefix", f"the network is {network}"
            )
        found[str(network) if network.num_addresses > 1 else str(network.network_address)] = None
    return ",".join(found)


def _check_family(host: str, options: Mapping[str, OptionValue]) -> None:
    family = options.get("family")
    if family not in (None, 4, 6):
        raise InvalidValue("option family is 4 or 6")
    literal = 6 if ":" in host else 4 if re.fullmatch(r"[0-9.]+", host) else None
    if family is not None and literal not in (None, family):
        raise InvalidValue(f"{host} is no IPv{family} address, and family={family} asks for one")
    if "v6only" in options and 4 in (family, literal):
        raise InvalidValue("option v6only is about IPv6, and this endpoint is IPv4")


def is_number(text: str) -> bool:
    """ASCII digits, and few enough for int(), which refuses thousands of them with a ValueError."""
    return text.isascii() and text.isdigit() and len(text) <= 20
