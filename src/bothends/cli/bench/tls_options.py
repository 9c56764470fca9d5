"""The options of `bench` for TLS."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from bothends.errors import UsageError

if TYPE_CHECKING:
    from bothends.client.tls import TlsOptions
    from bothends.endpoints import Endpoint

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: Final = (
    click.option(
        "--tls-ca", metavar="FILE", type=click.Path(), help="TLS: trust these CA certificates (PEM)."
    ),
    click.option(
        "--tls-fingerprint", metavar="SHA256", default="", help="TLS: accept only this certificate."
    ),
    click.option(
        "--tls-name", metavar="NAME", default="", help="TLS: host name to send (SNI) and to verify."
    ),
    click.option("--insecure", is_flag=True, help="TLS: skip certificate verification."),
)


def tls_options(function: F) -> F:
    """Add the options for TLS."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def build(endpoint: Endpoint, given: dict[str, Any], target: str, scheme: str) -> TlsOptions | None:
    """Return the options of a connection with TLS; None without TLS.

    Raises UsageError if options for TLS were given without it: `target` is what was typed, `scheme` the one
    that has TLS.
    """
    from bothends.client.tls import TlsOptions

    if endpoint.scheme == "tls":
        return TlsOptions(
            given["tls_ca"], given["tls_fingerprint"], not given["insecure"], name=given["tls_name"]
        )
    if given["tls_ca"] or given["tls_fingerprint"] or given["tls_name"] or given["insecure"]:
        raise UsageError(f"{target} does not speak TLS; {scheme}:// does")
    return None
