"""What the words of a command line mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bothends.endpoints.checking import is_ipv6, is_number
from bothends.endpoints.endpoint import Endpoint
from bothends.endpoints.schemes import scheme_rule
from bothends.errors import EndpointError


def endpoints_from_args(args: Sequence[str], scheme: str = "tcp") -> list[Endpoint]:
    """The endpoints that the words of a command line mean.

    A URL stays as it is. For a scheme with ports: `HOST PORT`, `:PORT`, `HOST:PORT`, `[IPV6]:PORT`, and
    `IPV6 PORT` without brackets. For a UNIX scheme each word is a path. `scheme` is what the words don't say.

    Raises EndpointError, UnknownName.
    """
    endpoints = []
    left = list(args)
    while left:
        word = left.pop(0)
        if "://" in word or word.startswith(_URLS_WITHOUT_SLASHES):
            endpoints.append(Endpoint.parse(word))
        elif scheme_rule(scheme).fields == "path":
            endpoints.append(_naming_error(word, Endpoint, scheme, path=word))
        elif scheme_rule(scheme).fields != "host and port":
            raise EndpointError(word, f"{scheme} takes no words", "give a URL")
        elif (word.startswith(":") and is_number(word[1:])) or _has_port(word):
            endpoints.append(_naming_error(word, Endpoint.parse, f"{scheme}://{word}"))
        elif left and is_number(left[0]):
            port = left.pop(0)
            both = f"{word} {port}"
            host = word[1:-1] if word.startswith("[") and word.endswith("]") else word
            endpoints.append(_naming_error(both, Endpoint, scheme, host=host, port=int(port)))
        elif is_number(word):
            raise EndpointError(word, "a port without a host", f":{word} is every interface")
        elif is_ipv6(word):
            raise EndpointError(word, "a host without a port", f"give a port: {word} 12000")
        else:
            raise EndpointError(word, "no port", f"give a port: {word} 12000, or {scheme}://{word}:12000")
    return endpoints


_URLS_WITHOUT_SLASHES = ("stdio:", "unix:", "unix+dgram:", "unix+seqpacket:")


def _naming_error(text: str, make: Any, *args: Any, **kwargs: Any) -> Endpoint:
    """Make an endpoint; an error shows `text`, which is what the user wrote."""
    try:
        endpoint: Endpoint = make(*args, **kwargs)
    except EndpointError as error:
        raise EndpointError(text, error.reason, error.hint) from None
    return endpoint


def _has_port(word: str) -> bool:
    host, _, port = word.rpartition(":")
    return bool(host) and bool(port) and (":" not in host or (host[0], host[-1]) == ("[", "]"))
