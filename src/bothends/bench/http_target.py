"""`http://` and `https://` targets: the request to send, and what its response must be. Pure.

One request is repeated. What is compared depends on what is known of the response (`HttpExchange`): its
status always, its length and its body where the first responses show that they stay the same, or where the
user gives them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias
from urllib.parse import quote, urlsplit

from bothends.bench.http_response import STATUSES
from bothends.endpoints import Endpoint
from bothends.errors import UsageError
from bothends.escaping import escape_line

Verify: TypeAlias = Literal["auto", "status", "length", "body"]

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_PATH_SAFE: Final = "/%!$&'()*+,;=:@-._~?"  # RFC 3986: what a path and a query consist of
_STATUS: Final = re.compile(r"([1-5])(xx|[0-9][0-9])", re.IGNORECASE)
_MAX_SHOWN: Final = 5  # expected statuses in a description


@dataclass(frozen=True, slots=True)
class HttpExchange:
    """A request and what its response must be.

    `statuses`: those that are expected. `length`: bytes of the body, None: any. `body`: its bytes, None: any;
    then `length` is theirs.
    """

    url: str
    method: str
    statuses: frozenset[int]
    length: int | None = None
    body: bytes | None = None

    @property
    def has_no_body(self) -> bool:
        """Whether responses have no body, whatever their head says."""
        return self.method == "HEAD"

    def status_table(self) -> bytes:
        """Return a byte for each status below `STATUSES`: 1 if it is expected."""
        return bytes(status in self.statuses for status in range(STATUSES))

    def describe(self) -> str:
        """Describe what is verified: "each answer's status (200) and body (612 bytes, every byte)"."""
        status = f"each answer's status ({describe_statuses(self.statuses)})"
        if self.has_no_body:
            return f"{status}; HEAD has no body"
        if self.body is not None:
            return f"{status} and body ({len(self.body):,} bytes, every byte)"
        if self.length is not None:
            return f"{status} and length ({self.length:,} bytes), but not its bytes"
        return f"{status}, but neither length nor bytes of its body"


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """A parsed URL: where to connect, Host, and the request target."""

    url: str
    endpoint: Endpoint
    authority: str
    path: str


def is_http_url(text: str) -> bool:
    """Whether an argument is a URL of HTTP, rather than an endpoint."""
    return text.lower().startswith(("http://", "https://"))


def parse_url(text: str) -> HttpTarget:
    """Parse an http:// or https:// URL. Raises UsageError."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{escape_line(text)}: {escape_line(str(error))}") from error
    if not parts.hostname:
        raise UsageError(f"{escape_line(text)} has no host; for example http://127.0.0.1:8000/")
    if parts.username is not None:
        raise UsageError("a URL with a user name: give --header 'Authorization: ...' instead")
    if not _VALUE.fullmatch(text) or " " in text:
        raise UsageError(f"{escape_line(text)!r} contains spaces or control characters")
    secure = parts.scheme.lower() == "https"
    host = parts.hostname
    endpoint = Endpoint("tls" if secure else "tcp", host=host, port=port or (443 if secure else 80))
    path = quote(parts.path or "/", safe=_PATH_SAFE)
    if parts.query:
        path += "?" + quote(parts.query, safe=_PATH_SAFE)
    authority = f"[{host}]" if ":" in host else host
    return HttpTarget(text, endpoint, authority if port is None else f"{authority}:{port}", path)


def encode_request(
    target: HttpTarget, method: str, headers: Sequence[str], body: bytes, *, close: bool
) -> bytes:
    """Return the request. `headers` are "Name: value" and replace those that are added; `close` asks for one
    connection for each request. Raises UsageError if a part is invalid.
    """
    if not _TOKEN.fullmatch(method):
        raise UsageError(f"--method {method!r} is not a method of HTTP")
    fields = {"host": ("Host", target.authority), "user-agent": ("User-Agent", "bothends")}
    fields["accept"] = ("Accept", "*/*")
    if body or method in ("POST", "PUT", "PATCH"):
        fields["content-length"] = ("Content-Length", str(len(body)))
    if close:
        fields["connection"] = ("Connection", "close")
    extra = []
    for text in headers:
        name, colon, value = text.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise UsageError(f"--header {text!r} is not of the form 'Name: value'")
        if name.lower() in ("content-length", "transfer-encoding"):
            raise UsageError(f"--header {name}: the length of the request is that of --body")
        fields.pop(name.lower(), None)
        extra.append((name, value.strip()))
    lines = [
        f"{method} {target.path} HTTP/1.1",
        *(f"{n}: {v}" for n, v in [*fields.values(), *extra]),
        "",
        "",
    ]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + body


def parse_statuses(text: str) -> frozenset[int]:
    """Parse `--expect-status`: "200", "200,404", "2xx,3xx". Raises UsageError."""
    statuses: set[int] = set()
    for each in text.split(","):
        found = _STATUS.fullmatch(each.strip())
        if found is None:
            raise UsageError(f"--expect-status {text!r}: give statuses such as 200, or 2xx,304")
        first = 100 * int(found[1])
        statuses |= set(range(first, first + 100)) if found[2].lower() == "xx" else {first + int(found[2])}
    return frozenset(statuses)


def describe_statuses(statuses: frozenset[int]) -> str:
    """Describe statuses as `parse_statuses` reads them: "200", "2xx or 3xx"."""
    left, words = set(statuses), []
    for first in range(100, STATUSES, 100):
        whole = set(range(first, first + 100))
        if whole <= left:
            words.append(f"{first // 100}xx")
            left -= whole
    words += [str(each) for each in sorted(left)]
    return " or ".join(words if len(words) <= _MAX_SHOWN else [*words[:_MAX_SHOWN], "others"])


def expect_like(
    exchange: HttpExchange, seen: Sequence[tuple[int, bytes]], verify: Verify, *, any_status: bool
) -> HttpExchange:
    """Add to an exchange what the first responses, pairs of status and body, show.

    `any_status`: the user gave no status, so that of the first response is expected. "auto" verifies the body
    if all are equal, otherwise their length if that is. An exchange with a body is left as it is.

    Raises UsageError if the user gave none and the first response is an error (400 or more); if a body or
    length is to be verified that changes.
    """
    status = seen[0][0]
    if any_status:
        if status >= 400:
            raise UsageError(
                f"{escape_line(exchange.url)} responded with status {status}; "
                f"if that is right, give --expect-status {status}"
            )
        exchange = replace(exchange, statuses=frozenset({status}))
    bodies = [body for each, body in seen if each in exchange.statuses]
    if exchange.body is not None or exchange.has_no_body or not bodies:
        return exchange
    same_body, same_length = len(set(bodies)) == 1, len({len(each) for each in bodies}) == 1
    if verify == "body" and not same_body:
        raise UsageError(f"--verify body: the first {len(seen)} responses differ; give --expect-body")
    if verify == "length" and not same_length:
        raise UsageError(f"--verify length: the lengths of the first {len(seen)} responses differ")
    if same_body and verify in ("auto", "body"):
        return replace(exchange, body=bodies[0], length=len(bodies[0]))
    return replace(exchange, length=len(bodies[0]) if same_length and verify != "status" else None)
