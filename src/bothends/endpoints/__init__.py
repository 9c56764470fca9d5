"""Endpoints: transport and address of a socket, as a URL and as a value.

    tcp://127.0.0.1:12000    tcp://[::1]:12000    tcp://:12000       unix:///run/a.sock    unix://@name
    udp://:12000             vsock://2:1234       fd://3             systemd://name        stdio:
    proxyprotocol+tcp://:12000                    tcp://:12000?backlog=128&reuseport=1

How this package works:

1. `schemes.py` holds two literal tables, `SCHEMES` and `OPTIONS`, and the checks of each field. Parsing,
   formatting, checking and the errors that suggest the nearest known name all use these tables.
2. `endpoint.py` holds `Endpoint`. It checks and normalizes its fields whenever it is constructed, so every
   endpoint can be formatted, and `Endpoint.parse(str(e)) == e` for each.
3. `parse.py` turns URLs and command-line arguments into fields, and fields back into URL components.
   `address.py` holds `Address`, the socket address that the kernel returns.
4. An endpoint has no role: `serve` listens on it, `connect` connects to it.
5. Nothing here makes a system call: names are not resolved, and neither files nor the services database
   are read.

Rank 0: imports `errors` and the standard library's pure parts.

Sources: RFC 3986 (URIs), RFC 6874 (zone identifiers in URIs), unix(7), vsock(7).
"""

from bothends.endpoints.address import Address
from bothends.endpoints.endpoint import Endpoint, endpoints_from_args
from bothends.endpoints.schemes import OPTIONS, SCHEMES, WRAPPERS, OptionRule, OptionValue, SchemeRule

__all__ = [
    "OPTIONS",
    "SCHEMES",
    "WRAPPERS",
    "Address",
    "Endpoint",
    "OptionRule",
    "OptionValue",
    "SchemeRule",
    "endpoints_from_args",
]
