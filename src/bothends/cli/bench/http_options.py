"""The options of `bench` for http:// and https:// targets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from bothends.errors import SystemCallFailed, UsageError

if TYPE_CHECKING:
    from bothends.bench.http_target import HttpExchange, HttpTarget
    from bothends.bench.workload import Workload
    from bothends.client.tls import TlsOptions

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: Final = (
    click.option("-X", "--method", metavar="NAME", help="HTTP: method. Default: GET, with --body POST."),
    click.option(
        "-H",
        "--header",
        "headers",
        metavar="'NAME: VALUE'",
        multiple=True,
        help="HTTP: header field of the request; may be repeated.",
    ),
    click.option("--body", metavar="TEXT|@FILE", help="HTTP: body of the request."),
    click.option(
        "--expect-status",
        metavar="STATUS,...",
        help="HTTP: expected statuses, such as 200 or 2xx. Default: that of the first response.",
    ),
    click.option("--expect-body", metavar="TEXT|@FILE", help="HTTP: expected body, compared byte for byte."),
    click.option(
        "--verify",
        type=click.Choice(["auto", "status", "length", "body"]),
        default="auto",
        help="HTTP: what of each response is compared with the first ones; auto: all that is equal in those.",
    ),
)


def http_options(function: F) -> F:
    """Add the options for HTTP."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def check_unused(given: dict[str, Any]) -> None:
    """Raise UsageError if an option for HTTP was given for another target."""
    for name in ("method", "headers", "body", "expect_status", "expect_body"):
        if given[name] not in (None, ()):
            option = "--header" if name == "headers" else "--" + name.replace("_", "-")
            raise UsageError(f"{option} is for http:// and https:// targets")
    if given["verify"] != "auto":
        raise UsageError("--verify is for http:// and https:// targets; all bytes of others are compared")


def check_unsupported(given: dict[str, Any]) -> None:
    """Raise UsageError if an option was given that HTTP has no use for."""
    if given["script"] is not None:
        raise UsageError("--script is not for http:// targets; use --method, --header and --body")
    if given["expect"] != "auto":
        raise UsageError("--expect is not for http:// targets; use --expect-body")


def build_exchange(
    target: HttpTarget, tls: TlsOptions | None, given: dict[str, Any]
) -> tuple[Workload, HttpExchange]:
    """Return the request, and what its responses must be: unless the options say so, asks the server.

    Raises UsageError, and BothendsError if the server cannot be asked.
    """
    from bothends.bench import http_target
    from bothends.bench.generators.http_probe import probe
    from bothends.bench.workload import Workload

    body = _content(given["body"]) if given["body"] is not None else b""
    method = given["method"] or ("POST" if given["body"] is not None else "GET")
    request = http_target.encode_request(target, method, given["headers"], body, close=given["reconnect"])
    expected = _content(given["expect_body"]) if given["expect_body"] is not None else None
    status = given["expect_status"]
    exchange = http_target.HttpExchange(
        target.url,
        method,
        http_target.parse_statuses(status) if status is not None else frozenset(),
        len(expected) if expected is not None else None,
        expected,
    )
    if status is None or (expected is None and given["verify"] != "status" and not exchange.has_no_body):
        seen = probe(target.endpoint, exchange, request, tls=tls, timeout=max(given["timeout"], 1.0))
        exchange = http_target.expect_like(exchange, seen, given["verify"], any_status=status is None)
    return Workload("http", (request,), (b"",)), exchange


def _content(text: str) -> bytes:
    """Return the bytes that `TEXT` or `@FILE` names."""
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise SystemCallFailed("read", text[1:], error.errno or 0) from error
