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
    Flaw,
    OptionRule,
    OptionValue,
    option_rule,
    scheme_rule,
)

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?(.*)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def fields_of(text: str) -> dict[str, Any]:
    """The fields of the endpoint that `text` writes, not yet checked. Raises Flaw, UnknownName."""
    if _CONTROL.search(text):
        raise Flaw("a control character", "write it as %0A and so on, or take it out")
    url = _URL.fullmatch(text)
    if url is None:
        raise Flaw("no scheme", f"an endpoint is a URL: tcp://{text or ':12000'}")
    scheme, slashes, rest = url.group(1).lower(), url.group(2), url.group(3)
    wrappers, scheme = _peel(scheme)
    if scheme not in SCHEMES and not slashes and is_number(rest.partition("?")[0]):
        raise Flaw("no scheme", f"an endpoint is a URL: tcp://{text}")
    rule = scheme_rule(scheme, "+".join((*wrappers, scheme)))
    if not slashes and rule.fields not in ("path", "none"):
        raise Flaw("'//' is missing", f"{scheme}://{rest}")
    if "#" in rest:
        raise Flaw("an endpoint has no fragment", "a # in a path is written %23")
    location, _, query = rest.partition("?")
    fields: dict[str, Any] = {"scheme": scheme, "wrappers": wrappers}
    fields["options"] = tuple(_options_of(scheme, query, wrappers))
    match rule.fields:
        case "host and port":
            fields["host"], fields["port"] = _host_and_port_of(scheme, location)
        case "path":
            fields["path"] = _unquoted(location)
        case "descriptor":
            fields["fd"] = _number_of(location, "a descriptor")
        case "name":
            fields["name"] = _unquoted(location)
        case "none" if location:
            raise Flaw("nothing follows the scheme", "write stdio:")
    return fields


def _peel(scheme: str) -> tuple[tuple[str, ...], str]:
    wrappers = []
    while (head := scheme.partition("+"))[0] in WRAPPERS:
        wrappers.append(head[0])
        scheme = head[2]
        if not scheme:
            raise Flaw(f"{head[0]} wraps another scheme", f"for example {head[0]}+tcp://:12000")
    return tuple(wrappers), scheme


def _host_and_port_of(scheme: str, location: str) -> tuple[str, int]:
    authority, _, trail = location.partition("/")
    if trail:
        raise Flaw(f"nothing follows the port of a {scheme} endpoint but ?options", f"{scheme}://{authority}")
    if "@" in authority:
        raise Flaw("an endpoint names no user", f"{scheme}://{authority.rpartition('@')[2]}")
    if authority.startswith("["):
        literal, bracket, port_part = authority[1:].partition("]")
        if not bracket:
            raise Flaw("'[' without ']'", f"for example {scheme}://[::1]:12000")
        host = _ipv6_of(literal)
        if port_part and not port_part.startswith(":"):
            raise Flaw("']' is followed by a port", f"{scheme}://[{literal}]:12000")
        shown = f"[{literal}]"
    else:
        host, colon, after = authority.partition(":")
        if ":" in after:
            raise Flaw("an IPv6 address stands in brackets", f"for example {scheme}://[::1]:12000")
        port_part = colon + after
        shown = host
    if port_part in ("", ":"):
        raise Flaw("no port", f"{scheme}://{shown}:12000, or :0 and the system picks one when listening")
    return host, _number_of(port_part[1:], "a port")


def _ipv6_of(literal: str) -> str:
    address, percent, zone = literal.partition("%")
    if percent:
        # RFC 6874 section 2 writes the % of a zone as %25; its section 3 lets a reader take a bare one too.
        zone = _unquoted(zone[2:]) if zone.startswith("25") and len(zone) > 2 else _unquoted(zone)
    if not is_ipv6(address):
        raise Flaw(f"{address!r} is not an IPv6 address", "only IPv6 stands in brackets, for example [::1]")
    return address + percent + zone


def _options_of(scheme: str, query: str, wrappers: tuple[str, ...]) -> Iterable[tuple[str, OptionValue]]:
    for part in query.split("&") if query else ():
        name, equals, written = part.partition("=")
        rule = option_rule(scheme, name, wrappers)
        if not equals and rule.kind == "flag":
            written = "1"
        yield name, _value_of(name, rule, _unquoted(written))


def _value_of(name: str, rule: OptionRule, written: str) -> OptionValue:
    if rule.kind == "flag":
        if written not in ("0", "1"):
            raise Flaw(f"option {name} is 0 or 1, not {written!r}")
        return written == "1"
    if rule.kind in ("word", "networks"):
        return written
    base = 8 if rule.kind == "octal" else 10
    if not is_number(written) or (base == 8 and not set(written) <= set("01234567")):
        raise Flaw(
            f"option {name} is {'an octal' if base == 8 else 'a'} number, not {written!r}", rule.meaning
        )
    return int(written, base)


def _number_of(written: str, what: str) -> int:
    if not is_number(written):
        looked_up = "names from the services database are not looked up" if what == "a port" else ""
        raise Flaw(f"{what} is a number, not {written!r}", looked_up)
    return int(written)


def _unquoted(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise Flaw("'%' is followed by two hexadecimal digits", "a % itself is written %25")
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise Flaw("a character that has no bytes (a lone surrogate)") from None
    return unquote_to_bytes(raw).decode("utf-8", "surrogateescape")
