"""The endpoint itself."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from bothends.endpoints.checking import (
    check_name,
    check_unused,
    check_wrappers,
    normalize_host_and_port,
    normalize_options,
    normalize_path,
)
from bothends.endpoints.parse import parse_url
from bothends.endpoints.schemes import SCHEMES, InvalidValue, OptionValue, scheme_rule
from bothends.endpoints.writing import format_host, format_name, format_path, format_value
from bothends.errors import EndpointError

_LOCATION_FIELDS = ("host", "port", "path", "fd", "name")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to talk: a transport and an address. Immutable, hashable, compared by value.

    `scheme`    a key of `SCHEMES`.
    `host`      a name or an address; "" means every interface. IPv6 without brackets, in its short form
                (RFC 5952), with the zone if any: "fe80::1%eth0". For vsock the context id in decimal.
    `port`      0 to 65535 (vsock: 0 to 2**32 - 1); 0 lets the system pick. Never None where the scheme has a
                port, always None where it hasn't.
    `path`      of a UNIX socket: "/absolute", "relative" to the working directory, or "@name" for an
                abstract one; "@" alone lets the system pick an abstract name. A file whose name begins with @
                is written "./@name". Bytes that are not UTF-8 are kept as surrogate escapes (PEP 383).
    `fd`        the number of fd://.
    `name`      the name of systemd:// (FileDescriptorName= in systemd.socket(5)).
    `wrappers`  what wraps the stream, outermost first.
    `options`   pairs of name and value, in the order of `OPTIONS`. A mapping may be passed.

    Raises EndpointError for a value that cannot be, UnknownName for an unknown scheme, wrapper or option.
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
                raise InvalidValue("a descriptor is a number from 0 on", "for example fd://3")
            elif fields == "name":
                check_name(self.name)
            options = normalize_options(self.scheme, self.host, self.options, self.wrappers)
            object.__setattr__(self, "options", options)
        except InvalidValue as flaw:
            raise EndpointError(f"{self.scheme}:", flaw.reason, flaw.hint) from None

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read an endpoint from its URL.

        UNIX paths are percent-decoded, and everything between `unix://` and `?` is the path: so
        `unix:///run/a` is absolute and `unix://run/a` is relative to the working directory (a strict RFC 3986
        reading would make "run" a host, which a UNIX socket hasn't). `unix:run/a` is read the same.

        Raises EndpointError, or UnknownName for a scheme or an option that isn't known; nothing else.
        """
        try:
            return cls(**parse_url(text))
        except InvalidValue as flaw:
            raise EndpointError(text, flaw.reason, flaw.hint) from None
        except EndpointError as error:
            raise EndpointError(text, error.reason, error.hint) from None

    def __str__(self) -> str:
        """The URL. `Endpoint.parse` of it gives an equal endpoint."""
        query = "&".join(f"{name}={format_value(name, value)}" for name, value in self.options)
        return self.label + (f"?{query}" if query else "")

    @property
    def label(self) -> str:
        """The URL without its options: for logs and banners."""
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
        """What it is in words: "TCP stream", "UNIX datagrams"."""
        return SCHEMES[self.scheme].kind

    @property
    def is_stream(self) -> bool:
        """Bytes without boundaries. False for fd and systemd, which can be anything until adopted."""
        return SCHEMES[self.scheme].socket_type == "stream"

    @property
    def is_datagram(self) -> bool:
        """Datagrams, without connections. False for fd and systemd, which can be anything until adopted."""
        return SCHEMES[self.scheme].socket_type == "datagrams"

    @property
    def is_message_oriented(self) -> bool:
        """One send is one receive: datagrams and sequenced packets."""
        return SCHEMES[self.scheme].socket_type in ("datagrams", "packets")

    @property
    def is_unix(self) -> bool:
        """A UNIX socket of any type."""
        return SCHEMES[self.scheme].fields == "path"

    @property
    def is_abstract(self) -> bool:
        """A UNIX socket with an abstract name: no file, gone with its last descriptor (unix(7))."""
        return self.path.startswith("@")

    def with_port(self, port: int) -> Endpoint:
        """The same endpoint at another port. Raises EndpointError where there are no ports."""
        return dataclasses.replace(self, port=port)

    def with_host(self, host: str) -> Endpoint:
        """The same endpoint at another host. Raises EndpointError where there are no hosts."""
        return dataclasses.replace(self, host=host)

    def with_options(self, **options: OptionValue | None) -> Endpoint:
        """The same endpoint with these options set; None takes one away.

        Raises EndpointError, UnknownName as for a new endpoint.
        """
        merged: dict[str, Any] = dict(self.options) | options
        kept = tuple((name, value) for name, value in merged.items() if value is not None)
        return dataclasses.replace(self, options=kept)

    def flag(self, name: str, default: bool = False) -> bool:
        """The value of a flag, or `default` where it isn't given."""
        value = self._option(name)
        return default if value is None else bool(value)

    def number(self, name: str) -> int | None:
        """The value of a number or an octal option, or None where it isn't given."""
        value = self._option(name)
        return value if isinstance(value, int) else None

    def word(self, name: str) -> str | None:
        """The value of a word option, or None where it isn't given."""
        value = self._option(name)
        return value if isinstance(value, str) else None

    def _option(self, name: str) -> OptionValue | None:
        for key, value in self.options:
            if key == name:
                return value
        return None
