"""The endpoint: scheme, location, wrappers and options of a socket, as an immutable value."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bothends.endpoints.parse import (
    format_host,
    format_name,
    format_path,
    format_value,
    parse_args,
    parse_url,
)
from bothends.endpoints.schemes import (
    SCHEMES,
    InvalidValue,
    OptionValue,
    check_name,
    check_unused,
    check_wrappers,
    normalize_host_and_port,
    normalize_options,
    normalize_path,
    scheme_rule,
)
from bothends.errors import EndpointError

_LOCATION_FIELDS = ("host", "port", "path", "fd", "name")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A transport and an address. Immutable, hashable, compared by value.

    `scheme`    a key of `SCHEMES`.
    `host`      a name or an address; "" means every interface. IPv6 without brackets, in its short form
                (RFC 5952), with its zone if it has one: "fe80::1%eth0". For vsock the context ID in decimal.
    `port`      0 to 65535 (vsock: 0 to 2**32 - 1); 0 lets the kernel choose. None exactly for schemes without
                ports.
    `path`      of a UNIX socket: "/absolute", "relative" to the working directory, or "@name" for an
                abstract name; "@" alone lets the kernel choose an abstract name. A file whose name begins
                with @ is written "./@name". Bytes that are not UTF-8 are held as surrogate escapes (PEP 383).
    `fd`        the descriptor number of fd://.
    `name`      the name of systemd:// (FileDescriptorName= in systemd.socket(5)).
    `wrappers`  the wrappers around the stream, outermost first.
    `options`   pairs of name and value, in the order of `OPTIONS`. A mapping may be passed.

    Raises EndpointError for an invalid field, UnknownName for an unknown scheme, wrapper or option.
    """

    scheme: str
    host: str = ""
    port: int | None = None
    path: str = ""
    fd: int | None = None
    name: str = ""
    wrappers: tuple[str, ...] = ()
    options: tuple[tuple[str, OptionValue], ...] = ()

    def __post_init__(self) -> None:
        try:
            fields = scheme_rule(self.scheme).fields
            check_wrappers(self.scheme, self.wrappers)
            check_unused(self.scheme, {name: getattr(self, name) for name in _LOCATION_FIELDS})
            if fields == "host and port":
                host, port = normalize_host_and_port(self.scheme, self.host, self.port)
                object.__setattr__(self, "host", host)
                object.__setattr__(self, "port", port)
            elif fields == "path":
                object.__setattr__(self, "path", normalize_path(self.scheme, self.path))
            elif fields == "descriptor" and (self.fd is None or not 0 <= self.fd < 2**31):
                raise InvalidValue("a descriptor is a number between 0 and 2147483647", "for example fd://3")
            elif fields == "name":
                check_name(self.name)
            options = normalize_options(self.scheme, self.host, self.options, self.wrappers)
            object.__setattr__(self, "options", options)
        except InvalidValue as error:
            raise EndpointError(f"{self.scheme}:", error.reason, error.hint) from None

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Parse the URL of an endpoint.

        UNIX paths are percent-decoded, and everything between `unix://` and `?` is the path: so
        `unix:///run/a` is absolute and `unix://run/a` is relative to the working directory. (Under a strict
        reading of RFC 3986 "run" would be a host, but a UNIX socket has no host.) `unix:run/a` equals
        `unix://run/a`.

        Raises EndpointError, or UnknownName for an unknown scheme or option; nothing else.
        """
        try:
            return cls(**parse_url(text))
        except (InvalidValue, EndpointError) as error:
            raise EndpointError(text, error.reason, error.hint) from None

    def __str__(self) -> str:
        """Return the URL. `Endpoint.parse` turns it back into an equal endpoint."""
        query = "&".join(f"{name}={format_value(name, value)}" for name, value in self.options)
        return self.label + (f"?{query}" if query else "")

    @property
    def label(self) -> str:
        """The URL without its options, for logs and banners."""
        start = "+".join((*self.wrappers, self.scheme))
        match SCHEMES[self.scheme].fields:
            case "host and port":
                return f"{start}://{format_host(self.host)}:{self.port}"
            case "path":
                return f"{start}://{format_path(self.path)}"
            case "descriptor":
                return f"{start}://{self.fd}"
            case "name":
                return f"{start}://{format_name(self.name)}"
            case "none":
                return f"{start}:"

    @property
    def kind(self) -> str:
        """The transport in words: "TCP stream", "UNIX datagrams"."""
        return SCHEMES[self.scheme].kind

    @property
    def is_stream(self) -> bool:
        """Whether the socket carries a byte stream. False for fd and systemd, whose type is not known yet."""
        return SCHEMES[self.scheme].socket_type == "stream"

    @property
    def is_datagram(self) -> bool:
        """Whether the socket carries datagrams. False for fd and systemd, whose type is not known yet."""
        return SCHEMES[self.scheme].socket_type == "datagrams"

    @property
    def is_message_oriented(self) -> bool:
        """Whether message boundaries are preserved: datagrams and sequenced packets."""
        return SCHEMES[self.scheme].socket_type in ("datagrams", "packets")

    @property
    def is_unix(self) -> bool:
        """Whether this is a UNIX socket of any type."""
        return SCHEMES[self.scheme].fields == "path"

    @property
    def is_abstract(self) -> bool:
        """Whether this is a UNIX socket with an abstract name: no file, freed on last close (unix(7))."""
        return self.path.startswith("@")

    def with_port(self, port: int) -> Endpoint:
        """Return this endpoint with another port. Raises EndpointError if the scheme has no port."""
        return dataclasses.replace(self, port=port)

    def with_host(self, host: str) -> Endpoint:
        """Return this endpoint with another host. Raises EndpointError if the scheme has no host."""
        return dataclasses.replace(self, host=host)

    def with_options(self, **options: OptionValue | None) -> Endpoint:
        """Return this endpoint with these options set; None removes an option.

        Raises EndpointError, UnknownName as the constructor does.
        """
        merged: dict[str, Any] = dict(self.options) | options
        options_left = tuple((name, value) for name, value in merged.items() if value is not None)
        return dataclasses.replace(self, options=options_left)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return the value of a flag option, or `default` if it is not set."""
        value = self._option(name)
        return default if value is None else bool(value)

    def number(self, name: str) -> int | None:
        """Return the value of a number or octal option, or None if it is not set."""
        value = self._option(name)
        return value if isinstance(value, int) else None

    def word(self, name: str) -> str | None:
        """Return the value of a word option, or None if it is not set."""
        value = self._option(name)
        return value if isinstance(value, str) else None

    def _option(self, name: str) -> OptionValue | None:
        for key, value in self.options:
            if key == name:
                return value
        return None


def endpoints_from_args(args: Sequence[str], scheme: str = "tcp") -> list[Endpoint]:
    """Return the endpoints that command-line arguments name.

    An argument may be a URL. For a scheme with ports it may also be `HOST PORT` (two arguments), `:PORT`,
    `HOST:PORT`, `[IPV6]:PORT`, or `IPV6 PORT` without brackets. For a UNIX scheme each argument is a path;
    so is one that begins with `/`, `./` or `../`, of a stream socket, or of a datagram socket for udp.
    `scheme` applies to arguments that are not URLs.

    Raises EndpointError, UnknownName.
    """
    endpoints = []
    for text, fields in parse_args(args, scheme):
        try:
            endpoints.append(Endpoint(**fields))
        except EndpointError as error:
            raise EndpointError(text, error.reason, error.hint) from None
    return endpoints
