"""Endpoints: where to talk, as a URL and as a value.

    tcp://127.0.0.1:12000    tcp://[::1]:12000    tcp://:12000       unix:///run/a.sock    unix://@name
    udp://:12000             vsock://2:1234       fd://3             systemd://name        stdio:
    proxyprotocol+tcp://:12000                    tcp://:12000?backlog=128&reuseport=1

How this file works:

1. Two literal tables, `SCHEMES` and `OPTIONS`, say all that is allowed. Reading, writing, checking and
   the errors that name the nearest known word are made from them.
2. An `Endpoint` checks and normalises itself when it is made, however it is made. So every endpoint that
   exists can be written, and `Endpoint.parse(str(e)) == e` for each.
3. An endpoint has no role: the verb listens or connects.
4. Nothing here asks the system: no names are resolved, no services database is read, no file is looked at.

Rank 0: imports `errors` and the standard library's pure parts.

Sources: RFC 3986 (URIs), RFC 6874 (zone identifiers in URIs), unix(7), vsock(7).
"""

from bothends.endpoints.address import Address
from bothends.endpoints.endpoint import Endpoint
from bothends.endpoints.schemes import OPTIONS, SCHEMES, WRAPPERS, OptionRule, OptionValue, SchemeRule
from bothends.endpoints.words import endpoints_from_args

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
