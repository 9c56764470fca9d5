"""From a URL to the fields of an endpoint."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from bothends.endpoints.checking import is_ipv6, is_number
from bothends.endpoints.schemes import (
    SCHEMES,
    WRAPPERS,
    InvalidValue,
    OptionRule,
    OptionValue,
    option_rule,
    scheme_rule,
)

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?(.*)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def parse_url(text: str) -> dict[str, Any]:
    """The fields of the endpoint that `text` writes, not yet checked. Raises Flaw, UnknownName."""
    if _CONTROL.search(text):
        raise InvalidValue("a control character", "write it as %0A and so on, or take it out")
    url = _URL.fullmatch(text)
    if url is None:
        raise InvalidValue("no scheme", f"an endpoint is a URL: tcp://{text or ':12000'}")
    scheme, slashes, rest = url.group(1).lower(), url.group(2), url.group(3)
    wrappers, scheme = _split_wrappers(scheme)
    if scheme not in SCHEMES and not slashes and is_number(rest.partition("?")[0]):
        raise InvalidValue("no scheme", f"an endpoint is a URL: tcp://{text}")
    rule = scheme_rule(scheme, "+".join((*wrappers, scheme)))
    if not slashes and rule.fields not in ("path", "none"):
        raise InvalidValue("'//' is missing", f"{scheme}://{rest}")
    if "#" in rest:
        raise InvalidValue("an endpoint has no fragment", "a # in a path is written %23")
    location, _, query = rest.partition("?")
    fields: dict[str, Any] = {"scheme": scheme, "wrappers": wrappers}
    fields["options"] = tuple(_parse_options(scheme, query, wrappers))
    match rule.fields:
        case "host and port":
            fields["host"], fields["port"] = _parse_host_and_port(scheme, location)
        case "path":
            fields["path"] = _unquote(location)
        case "descriptor":
            fields["fd"] = _parse_number(location, "a descriptor")
        case "name":
            fields["name"] = _unquote(location)
        case "none" if location:
            raise InvalidValue("nothing follows the scheme", "write stdio:")
    return fields


def _split_wrappers(scheme: str) -> tuple[tuple[str, ...], str]:
    wrappers = []
    while (head := scheme.partition("+"))[0] in WRAPPERS:
        wrappers.append(head[0])
        scheme = head[2]
        if not scheme:
            raise InvalidValue(f"{head[0]} wraps another scheme", f"for example {head[0]}+tcp://:12000")
    return tuple(wrappers), scheme


def _parse_host_and_port(scheme: str, location: str) -> tuple[str, int]:
    authority, _, trail = location.partition("/")
    if trail:
        raise InvalidValue(
            f"nothing follows the port of a {scheme} endpoint but ?options", f"{scheme}://{authority}"
        )
    if "@" in authority:
        raise InvalidValue("an endpoint names no user", f"{scheme}://{authority.rpartition('@')[2]}")
    if authority.startswith("["):
        literal, bracket, port_part = authority[1:].partition("]")
        if not bracket:
            raise InvalidValue("'[' without ']'", f"for example {scheme}://[::1]:12000")
        host = _parse_ipv6(literal)
        if port_part and not port_part.startswith(":"):
            raise InvalidValue("']' is followed by a port", f"{scheme}://[{literal}]:12000")
        shown = f"[{literal}]"
    else:
        host, colon, after = authority.partition(":")
        if ":" in after:
            raise InvalidValue("an IPv6 address stands in brackets", f"for example {scheme}://[::1]:12000")
        port_part = colon + after
        shown = host
    if port_part in ("", ":"):
        raise InvalidValue(
            "no port", f"{scheme}://{shown}:12000, or :0 and the system picks one when listening"
        )
    return host, _parse_number(port_part[1:], "a port")


def _parse_ipv6(literal: str) -> str:
    address, percent, zone = literal.partition("%")
    if percent:
        # RFC 6874 section 2 writes the % of a zone as %25; its section 3 lets a reader take a bare one too.
        zone = _unquote(zone[2:]) if zone.startswith("25") and len(zone) > 2 else _unquote(zone)
    if not is_ipv6(address):
        raise InvalidValue(
            f"{address!r} is not an IPv6 address", "only IPv6 stands in brackets, for example [::1]"
        )
    return address + percent + zone


def _parse_options(scheme: str, query: str, wrappers: tuple[str, ...]) -> Iterable[tuple[str, OptionValue]]:
    for part in query.split("&") if query else ():
        name, equals, written = part.partition("=")
        rule = option_rule(scheme, name, wrappers)
        if not equals and rule.kind == "flag":
            written = "1"
        yield name, _parse_value(name, rule, _unquote(written))


def _parse_value(name: str, rule: OptionRule, written: str) -> OptionValue:
    if rule.kind == "flag":
        if written not in ("0", "1"):
            raise InvalidValue(f"option {name} is 0 or 1, not {written!r}")
        return written == "1"
    if rule.kind in ("word", "networks"):
        return written
    base = 8 if rule.kind == "octal" else 10
    if not is_number(written) or (base == 8 and not set(written) <= set("01234567")):
        raise InvalidValue(
            f"option {name} is {'an octal' if base == 8 else 'a'} number, not {written!r}", rule.meaning
        )
    return int(written, base)


def _parse_number(written: str, what: str) -> int:
    if not is_number(written):
        looked_up = "names from the services database are not looked up" if what == "a port" else ""
        raise InvalidValue(f"{what} is a number, not {written!r}", looked_up)
    return int(written)


def _unquote(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise InvalidValue("'%' is followed by two hexadecimal digits", "a % itself is written %25")
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise InvalidValue("a character that has no bytes (a lone surrogate)") from None
    return unquote_to_bytes(raw).decode("utf-8", "surrogateescape")
