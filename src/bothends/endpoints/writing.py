"""From an endpoint to its URL."""

from __future__ import annotations

from urllib.parse import quote

from bothends.endpoints.schemes import OPTIONS, OptionValue

# RFC 3986 section 3.3: what may stand in a path as it is. Left out: % ? # which have a meaning, and space.
_PATH_SAFE = "/@:!$&'()*+,;=~"


def format_value(name: str, value: OptionValue) -> str:
    """The value of an option as a query holds it."""
    if isinstance(value, str):
        # RFC 3986 section 3.4 lets all of these stand in a query; networks are made of them.
        return quote(value, safe="/:," if OPTIONS[name].kind == "networks" else "")
    return f"{value:o}" if OPTIONS[name].kind == "octal" else str(int(value))


def format_host(host: str) -> str:
    """A host as it stands before `:PORT`: IPv6 in brackets, the % of its zone as %25 (RFC 6874 section 2)."""
    if ":" not in host:
        return host
    address, percent, zone = host.partition("%")
    return f"[{address}{'%25' if percent else ''}{quote(zone, safe='')}]"


def format_path(path: str) -> str:
    """A UNIX path, or "@" and an abstract name, percent-encoded."""
    return quote(path.encode("utf-8", "surrogateescape"), safe=_PATH_SAFE)


def format_name(name: str) -> str:
    """The name of a systemd:// endpoint, percent-encoded."""
    return quote(name, safe="")
