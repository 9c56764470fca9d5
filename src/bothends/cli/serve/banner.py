"""The banner of `bothends serve`: endpoints, engine, and the command lines to connect with."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator

from bothends.cli.serve.runtime import ServerRuntime
from bothends.cli.terminal import note, styled
from bothends.endpoints import Endpoint
from bothends.layers import trusted_networks
from bothends.sockets import local_addresses, port_note

_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
_LOCAL_LABEL = "from here:"
_REMOTE_LABEL = "from another machine:"


def show(runtime: ServerRuntime) -> None:
    """Print the banner of a bound server on stderr."""
    server, command = runtime.server, runtime.options.exec
    name = shlex.quote(command) if command else server.service.name
    summary = "a process for each connection" if command else server.service.summary
    note(f"{styled(name, 'strong', sys.stderr)}  {summary}", "")
    endpoints = list(dict.fromkeys(server.endpoints))
    for endpoint in endpoints:
        note(f"  {styled(str(endpoint), 'good', sys.stderr)}{_interfaces_note(endpoint)}", "")
    workers = f", {server.workers} processes" if server.workers > 1 else ""
    backend = f"; here {info}" if (info := server.engine.backend_info()) else ""
    note(f"  engine {server.engine.name}{workers}: {server.engine.summary}{backend}")
    if server.tls_fingerprint:
        origin = ", generated for this run" if server.tls and server.tls.self_signed else ""
        note(f"  TLS 1.2 and 1.3; certificate{origin}: SHA-256 {server.tls_fingerprint}")
        if server.tls and server.tls.client_ca:
            note(f"  clients must present a certificate issued by {server.tls.client_ca}")
    for endpoint in runtime.metrics_endpoints:
        note(f"  {_metrics_urls(endpoint)}")
    for endpoint in endpoints:
        if "proxyprotocol" in endpoint.wrappers:
            networks = (
                str(each).removesuffix("/32").removesuffix("/128") for each in trusted_networks(endpoint)
            )
            note(f"  every connection starts with a PROXY header, trusted from {', '.join(networks)} only")
        hint = port_note(endpoint)
        if hint:
            note(f"  note: {hint}", "warning")
    self_signed = server.tls is not None and server.tls.self_signed
    commands = list(_connect_commands(endpoints, server.tls_fingerprint if self_signed else ""))
    width = max((len(label) for label, _ in commands), default=0)
    for label, command_line in commands:
        note(f"  {label:{width}}  {command_line}")


def _metrics_urls(endpoint: Endpoint) -> str:
    """Return the URLs of metrics and health, or the endpoint if no URL can name it."""
    if endpoint.scheme not in ("tcp", "tls") or endpoint.wrappers:
        return f"metrics and health: GET /metrics and /health at {endpoint}"
    scheme = "https" if endpoint.scheme == "tls" else "http"
    host = "localhost" if _is_wildcard(endpoint) else endpoint.host
    where = f"{scheme}://{f'[{host}]' if ':' in host else host}:{endpoint.port}"
    return f"metrics {where}/metrics, health {where}/health"


def _interfaces_note(endpoint: Endpoint) -> str:
    if not _is_wildcard(endpoint):
        return ""
    return "  every interface: " + ", ".join(local_addresses())


def _connect_commands(endpoints: list[Endpoint], fingerprint: str) -> Iterator[tuple[str, str]]:
    """Yield command lines that connect to the server, each with a label for where to run it."""
    address = next((each for each in local_addresses() if _is_routable(each)), None)
    for endpoint in endpoints:
        if endpoint.scheme in ("stdio", "fd", "systemd"):
            continue
        if _is_wildcard(endpoint):
            yield _LOCAL_LABEL, _connect_command(endpoint, "127.0.0.1", fingerprint)
            if address is not None and not endpoint.wrappers:
                yield _REMOTE_LABEL, _connect_command(endpoint, address, fingerprint)
        elif endpoint.host and not endpoint.host.startswith("127.") and endpoint.host not in _LOOPBACK_HOSTS:
            yield _REMOTE_LABEL, _connect_command(endpoint, endpoint.host, fingerprint)
        else:
            yield _LOCAL_LABEL, _connect_command(endpoint, endpoint.host, fingerprint)


def _connect_command(endpoint: Endpoint, host: str, fingerprint: str) -> str:
    scheme, wrappers = endpoint.scheme, endpoint.wrappers
    target = Endpoint(scheme, host=host, port=endpoint.port, path=endpoint.path, wrappers=wrappers)
    line = f"bothends connect {shlex.quote(str(target))}"
    return f"{line} --tls-fingerprint {fingerprint}" if fingerprint and endpoint.scheme == "tls" else line


def _is_wildcard(endpoint: Endpoint) -> bool:
    return endpoint.port is not None and endpoint.scheme != "vsock" and endpoint.host in ("", "0.0.0.0", "::")


def _is_routable(address: str) -> bool:
    return not address.startswith(("127.", "::1", "fe80:")) and "%" not in address
