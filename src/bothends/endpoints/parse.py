"""Parse URLs and command-line arguments into the fields of an endpoint, and format fields as URL parts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from bothends.endpoints.schemes import (
    OPTIONS,
    SCHEMES,
    WRAPPERS,
    InvalidValue,
    OptionRule,
    OptionValue,
    format_number,
    is_ipv6,
    is_number,
    option_rule,
    scheme_rule,
)
from bothends.errors import EndpointError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?(.*)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PREFIXES_WITHOUT_SLASHES = ("stdio:", "unix:", "unix+dgram:", "unix+seqpacket:")
_PATH_PREFIXES = ("/", "./", "../")  # no host begins with these
_UNIX_SCHEMES = {"tcp": "unix", "udp": "unix+dgram"}  # of a path, by the scheme for other arguments

# The characters that RFC 3986 section 3.3 allows in a path, except % ? #, which are delimiters here.
_PATH_SAFE = "/@:!$&'()*+,;=~"


def parse_url(text: str) -> dict[str, Any]:
    """Return the fields of the endpoint URL `text`, not yet checked. Raises InvalidValue, UnknownName."""
    if _CONTROL.search(text):
        raise InvalidValue("a control character", "percent-encode it (%0A) or remove it")
    url = _URL.fullmatch(text)
    if url is None:
        raise InvalidValue("no scheme", f"an endpoint is a URL: tcp://{text or ':12000'}")
    scheme, slashes, rest = url.group(1).lower(), url.group(2), url.group(3)
    wrappers, scheme = _split_wrappers(scheme)
    if scheme not in SCHEMES and not slashes and is_number(rest.partition("?")[0]):
        raise InvalidValue("no scheme", f"an endpoint is a URL: tcp://{text}")
    rule = scheme_rule(scheme, "+".join((*wrappers, scheme)))
    if not slashes and rule.fields not in ("path", "none"):
        raise InvalidValue("'//' is missing", f"write {scheme}://{rest}")
    if "#" in rest:
        raise InvalidValue("an endpoint has no fragment", "write # in a path as %23")
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
            raise InvalidValue("nothing may follow the scheme", "write stdio:")
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
            f"only ?options may follow the port of a {scheme} endpoint", f"write {scheme}://{authority}"
        )
    if "@" in authority:
        raise InvalidValue("an endpoint has no user name", f"write {scheme}://{authority.rpartition('@')[2]}")
    if authority.startswith("["):
        literal, bracket, port_part = authority[1:].partition("]")
        if not bracket:
            raise InvalidValue("'[' without ']'", f"for example {scheme}://[::1]:12000")
        host = _parse_ipv6(literal)
        if port_part and not port_part.startswith(":"):
            raise InvalidValue("only :PORT may follow ']'", f"for example {scheme}://[{literal}]:12000")
        shown = f"[{literal}]"
    else:
        host, colon, after = authority.partition(":")
        if ":" in after:
            raise InvalidValue("an IPv6 address needs brackets", f"for example {scheme}://[::1]:12000")
        port_part = colon + after
        shown = host
    if port_part in ("", ":"):
        raise InvalidValue(
            "no port",
            f"write {scheme}://{shown}:12000, or :0 to let the kernel choose when listening",
        )
    return host, _parse_number(port_part[1:], "a port")


def _parse_ipv6(literal: str) -> str:
    address, percent, zone = literal.partition("%")
    if percent:
        # RFC 6874 section 2 writes the % before a zone as %25; its section 3 lets parsers accept a bare %.
        zone = _unquote(zone[2:]) if zone.startswith("25") and len(zone) > 2 else _unquote(zone)
    if not is_ipv6(address):
        raise InvalidValue(
            f"{address!r} is not an IPv6 address", "only IPv6 addresses go in brackets, for example [::1]"
        )
    return address + percent + zone


def _parse_options(scheme: str, query: str, wrappers: tuple[str, ...]) -> Iterable[tuple[str, OptionValue]]:
    for part in query.split("&") if query else ():
        name, equals, text = part.partition("=")
        rule = option_rule(scheme, name, wrappers)
        if not equals and rule.kind == "flag":
            text = "1"
        yield name, _parse_value(name, rule, _unquote(text))


def _parse_value(name: str, rule: OptionRule, text: str) -> OptionValue:
    if rule.kind == "flag":
        if text not in ("0", "1"):
            raise InvalidValue(f"option {name} is 0 or 1, not {text!r}")
        return text == "1"
    if rule.kind in ("word", "networks"):
        return text
    base = 8 if rule.kind == "octal" else 10
    if not is_number(text) or (base == 8 and not set(text) <= set("01234567")):
        raise InvalidValue(
            f"option {name} is {'an octal' if base == 8 else 'a'} number, not {text!r}", rule.meaning
        )
    return int(text, base)


def _parse_number(text: str, field: str) -> int:
    if not is_number(text):
        hint = "service names are not looked up here" if field == "a port" else ""
        raise InvalidValue(f"{field} is a number, not {text!r}", hint)
    return int(text)


def _quote(text: str, safe: str = "") -> str:
    """Percent-encode a text that may hold bytes as surrogate escapes (PEP 383)."""
    return quote(text.encode("utf-8", "surrogateescape"), safe=safe)


def _unquote(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise InvalidValue("'%' must be followed by two hexadecimal digits", "write a literal % as %25")
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise InvalidValue("a character that cannot be encoded (a lone surrogate)") from None
    return unquote_to_bytes(raw).decode("utf-8", "surrogateescape")


def parse_args(args: Sequence[str], scheme: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the text and the unchecked fields of each endpoint that command-line arguments name.

    `scheme` applies to arguments that are not URLs; the forms are listed at `endpoints_from_args`.
    Raises EndpointError, UnknownName.
    """
    remaining = list(args)
    while remaining:
        arg = remaining.pop(0)
        if "://" in arg or arg.startswith(_PREFIXES_WITHOUT_SLASHES):
            yield arg, _parse_arg(arg, arg)
        elif scheme_rule(scheme).fields == "path":
            yield arg, {"scheme": scheme, "path": arg}
        elif arg.startswith(_PATH_PREFIXES) and scheme in _UNIX_SCHEMES:
            yield arg, {"scheme": _UNIX_SCHEMES[scheme], "path": arg}
        elif scheme_rule(scheme).fields != "host and port":
            raise EndpointError(arg, f"{scheme} has no short form", "give a URL")
        elif (arg.startswith(":") and is_number(arg[1:])) or _has_port(arg):
            yield arg, _parse_arg(arg, f"{scheme}://{arg}")
        elif remaining and is_number(remaining[0]):
            port = remaining.pop(0)
            host = arg[1:-1] if arg.startswith("[") and arg.endswith("]") else arg
            yield f"{arg} {port}", {"scheme": scheme, "host": host, "port": int(port)}
        elif is_number(arg):
            raise EndpointError(arg, "a port without a host", f"write :{arg} for every interface")
        elif is_ipv6(arg):
            raise EndpointError(arg, "a host without a port", f"give a port: {arg} 12000")
        else:
            raise EndpointError(arg, "no port", f"give a port: {arg} 12000, or {scheme}://{arg}:12000")


def _parse_arg(arg: str, url: str) -> dict[str, Any]:
    """Parse the URL that an argument stands for; errors quote the argument."""
    try:
        return parse_url(url)
    except InvalidValue as error:
        raise EndpointError(arg, error.reason, error.hint) from None


def _has_port(arg: str) -> bool:
    host, _, port = arg.rpartition(":")
    return bool(host) and bool(port) and (":" not in host or (host[0], host[-1]) == ("[", "]"))


def format_value(name: str, value: OptionValue) -> str:
    """Format the value of an option for a URL's query."""
    rule = OPTIONS[name]
    if isinstance(value, str):
        # RFC 3986 section 3.4 allows / : , in a query; lists of networks consist of them.
        return _quote(value, "/:," if rule.kind == "networks" else "")
    return format_number(rule, value)


def format_host(host: str) -> str:
    """Format a host for use before `:PORT`: IPv6 in brackets, % of a zone as %25 (RFC 6874 section 2)."""
    if ":" not in host:
        return host
    address, percent, zone = host.partition("%")
    return f"[{address}{'%25' if percent else ''}{_quote(zone)}]"


def format_path(path: str) -> str:
    """Percent-encode a UNIX path, or "@" and an abstract name."""
    return _quote(path, _PATH_SAFE)


def format_name(name: str) -> str:
    """Percent-encode the name of a systemd:// endpoint."""
    return _quote(name)
