"""Toxiproxy's HTTP API, version 2.

Sans-IO: a request in, a response out; `api_server.py` has the sockets. Paths, bodies, status codes and error
bodies are Toxiproxy's, so its clients work unchanged. Extensions, which a Toxiproxy client does not see
unless it uses them:

1. `listen` and `upstream` may be any endpoint (`udp://:0`). TCP is shown without its scheme.
2. Additional toxics, and additional attributes, which are shown if they are not the default.
3. A toxic may have `clients`: networks whose connections it applies to. A proxy may have a `framing`.
4. An error may have a `hint`: what to try.

A client gets no rights of this process that it does not have itself: every user of this machine can reach
the API on loopback, and the process may be root's. So UNIX sockets, privileged ports and marks are for the
start (command line, configuration), unless `ApiAccess.allow` has them; inherited descriptors always are. Web
pages in a browser are no clients (`http1.check_browser`).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import ipaddress
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from bothends.endpoints import Endpoint, endpoints_from_args
from bothends.errors import BothendsError, SystemCallFailed, ToxicError, UnknownName, UsageError
from bothends.escaping import escape_controls
from bothends.http1 import BadRequest, HttpRequest, HttpResponse, check_browser
from bothends.impair.proxies import (
    MAX_PROXIES,
    ProxyCollection,
    ProxyConfig,
    ProxyExists,
    check_name,
    listens_at,
    update_proxy,
)
from bothends.impair.proxy import Proxy
from bothends.impair.sockets import FRAMINGS
from bothends.sockets import ResolveError
from bothends.sockets.resolve import resolve
from bothends.toxics import registry
from bothends.toxics.attributes import from_json, to_json
from bothends.toxics.placement import DIRECTIONS, Direction, IpNetwork, PlacedToxic

TOXIPROXY_VERSION: Final = "2.12.0"
"""The version of Toxiproxy that the API reports, because some clients check it."""

DEFAULT_PORT: Final = 8474
"""Toxiproxy's default port."""

_DEFAULT_LISTEN: Final = "127.0.0.1:0"


ALLOWED: Final = ("unix", "privileged")
"""What `ApiAccess.allow` may contain: UNIX sockets; ports that need a privilege to bind, and marks."""

_FIRST_UNPRIVILEGED_PORT: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


@dataclass(frozen=True, slots=True)
class ApiAccess:
    """The permissions of the API's clients.

    Attributes:
        token: what each request must have, as `Authorization: Bearer` or as the password of Basic
            authentication; "" for none.
        hosts: names of the server in Host, in addition to localhost and all addresses; None for any name,
            where no browser can connect. Not checked with a token.
        allow: of ALLOWED.
    """

    token: str = ""
    hosts: frozenset[str] | None = frozenset()
    allow: frozenset[str] = frozenset()


class ApiError(Exception):
    """A request that failed: the status and text of Toxiproxy's error response."""

    def __init__(self, status: HTTPStatus, text: str, hint: str = "") -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text
        self.hint = hint

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of the response."""
        shown = {"error": self.text, "status": self.status.value}
        return shown | ({"hint": self.hint} if self.hint else {})


def error_response(status: HTTPStatus, text: str) -> HttpResponse:
    """Build an error response in Toxiproxy's format."""
    return HttpResponse(status, _encode(ApiError(status, text).to_json()))


def to_api_error(error: Exception) -> ApiError:
    """Return the response to an exception of a request. Raises an exception that is a bug again."""
    match error:
        case ApiError():
            return error
        case BadRequest():
            return ApiError(error.status, error.reason)
        case ProxyExists():
            return ApiError(HTTPStatus.CONFLICT, "proxy already exists")
        case UsageError():
            return ApiError(HTTPStatus.BAD_REQUEST, f"bad request body: {error}")
        case BothendsError():
            return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
    raise error


class Api:
    """Handles API requests."""

    def __init__(self, proxies: ProxyCollection, version: str, access: ApiAccess | None = None) -> None:
        self.access = access or ApiAccess()
        self._proxies = proxies
        self._version = version

    def handle(self, request: HttpRequest) -> HttpResponse:
        """Execute a request and return the response."""
        if request.fields.get("user-agent", "").startswith("Mozilla/"):
            # As in Toxiproxy: web pages in a browser must not reach the API.
            return HttpResponse(
                HTTPStatus.FORBIDDEN, b"User agent not allowed\n", "text/plain; charset=utf-8"
            )
        if self.access.token and not _has_token(request, self.access.token):
            response = error_response(HTTPStatus.UNAUTHORIZED, "the API needs its token")
            return HttpResponse(
                response.status, response.body, fields=('WWW-Authenticate: Bearer realm="API"',)
            )
        path = [unquote(part) for part in request.path.split("/") if part]
        try:
            check_browser(request, None if self.access.token else self.access.hosts)
            return self._route(request.method, path, request.body)
        except (ApiError, BadRequest, BothendsError) as error:
            failed = to_api_error(error)
            return HttpResponse(failed.status, _encode(failed.to_json()))

    def _route(self, method: str, path: list[str], body: bytes) -> HttpResponse:
        known: dict[str, Callable[[], HttpResponse]]
        match path:
            case ["version"]:
                known = {"GET": self._show_version}
            case ["metrics"]:
                known = {"GET": self._metrics}
            case ["reset"]:
                known = {"POST": self._reset}
            case ["populate"]:
                known = {"POST": lambda: self._populate(body)}
            case ["proxies"]:
                known = {"GET": self._list_proxies, "POST": lambda: self._create(body)}
            case ["proxies", name]:
                known = {
                    "GET": lambda: _ok(proxy_to_json(self._find_proxy(name))),
                    "POST": lambda: self._update(self._find_proxy(name), body),
                    "PATCH": lambda: self._update(self._find_proxy(name), body),
                    "DELETE": lambda: self._delete(self._find_proxy(name)),
                }
            case ["proxies", name, "toxics"]:
                known = {
                    "GET": lambda: _ok(toxics_to_json(self._find_proxy(name))),
                    "POST": lambda: _add_toxic(self._find_proxy(name), body),
                }
            case ["proxies", name, "toxics", toxic]:
                known = {
                    "GET": lambda: _ok(toxic_to_json(_find_toxic(self._find_proxy(name), toxic))),
                    "POST": lambda: _update_toxic(self._find_proxy(name), toxic, body),
                    "PATCH": lambda: _update_toxic(self._find_proxy(name), toxic, body),
                    "DELETE": lambda: _remove_toxic(self._find_proxy(name), toxic),
                }
            case _:
                raise ApiError(HTTPStatus.NOT_FOUND, "404 page not found")
        if method == "HEAD":
            method = "GET"
        if method not in known:
            raise ApiError(HTTPStatus.METHOD_NOT_ALLOWED, "method not allowed: " + ", ".join(known))
        return known[method]()

    # Proxies ------------------------------------------------------------------------------------------

    def _find_proxy(self, name: str) -> Proxy:
        proxy = self._proxies.get(name)
        if proxy is None:
            raise ApiError(HTTPStatus.NOT_FOUND, "proxy not found")
        return proxy

    def _list_proxies(self) -> HttpResponse:
        return _ok({proxy.name: proxy_to_json(proxy) for proxy in self._proxies})

    def _create(self, body: bytes) -> HttpResponse:
        config = parse_proxy(_parse_object(body), "")
        self._check_allowed(config.listen, config.upstream)
        proxy = self._proxies.create(config)
        with listen_errors_of_go(config.listen):
            self._proxies.add(proxy, enabled=config.enabled)
        return HttpResponse(HTTPStatus.CREATED, _encode(proxy_to_json(proxy)))

    def _populate(self, body: bytes) -> HttpResponse:
        """Add or replace proxies in order, up to the first that fails; the response has those before it.

        A list that reaches for more than a client may have changes nothing.
        """
        done: list[Proxy] = []
        failed: ApiError | None = None
        try:
            for config in self._parse_allowed(parse_proxy_list(_parse_json(body))):
                if not isinstance(config, ProxyConfig):
                    raise config
                with listen_errors_of_go(config.listen):
                    done.append(self._proxies.add_or_replace(config))
        except (ApiError, BothendsError) as error:
            failed = to_api_error(error)
        shown = {} if failed is None else failed.to_json()
        # As Go encodes an empty list that was never filled.
        shown["proxies"] = [proxy_to_json(each) for each in done] or None
        return HttpResponse(HTTPStatus.CREATED if failed is None else failed.status, _encode(shown))

    def _parse_allowed(self, given: list[dict[str, Any]]) -> list[ProxyConfig | Exception]:
        """Parse the proxies of a list. An invalid one becomes its error. Raises ApiError if not allowed."""
        parsed: list[ProxyConfig | Exception] = []
        for number, each in enumerate(given, 1):
            try:
                parsed.append(config := parse_proxy(each, f" at proxy {number}"))
            except (ApiError, BothendsError) as error:
                parsed.append(error)
            else:
                self._check_allowed(config.listen, config.upstream, self._proxies.get(config.name))
        return parsed

    def _update(self, proxy: Proxy, body: bytes) -> HttpResponse:
        given = _parse_object(body)
        listen = parse_listen(given["listen"]) if _has_field(given, "listen", str) else proxy.listen
        upstream = parse_endpoint(given["upstream"]) if _has_field(given, "upstream", str) else proxy.upstream
        enabled = given["enabled"] if _has_field(given, "enabled", bool) else proxy.enabled
        self._check_allowed(listen, upstream, proxy)
        with listen_errors_of_go(listen):
            update_proxy(proxy, listen, upstream, enabled=enabled)
        return _ok(proxy_to_json(proxy))

    def _delete(self, proxy: Proxy) -> HttpResponse:
        self._proxies.remove(proxy)
        return HttpResponse(HTTPStatus.NO_CONTENT)

    def _reset(self) -> HttpResponse:
        for proxy in self._proxies:
            with listen_errors_of_go(proxy.listen):
                proxy.enable()
            proxy.remove_all_toxics()
        return HttpResponse(HTTPStatus.NO_CONTENT)

    def _check_allowed(self, listen: Endpoint, upstream: Endpoint, old: Proxy | None = None) -> None:
        """Raise ApiError for endpoints that a client may not use. Those that the proxy has already stay."""
        if old is None or not listens_at(old, listen):
            _check_endpoint(listen, self.access.allow, is_listen=True)
        if old is None or old.upstream != upstream:
            _check_endpoint(upstream, self.access.allow, is_listen=False)

    # Version and metrics ------------------------------------------------------------------------------

    def _show_version(self) -> HttpResponse:
        body = f'{{"version": "{TOXIPROXY_VERSION}"}}\n'.encode()
        server = (f"Server: bothends/{self._version}",)
        return HttpResponse(HTTPStatus.OK, body, "application/json;charset=utf-8", server)

    def _metrics(self) -> HttpResponse:
        text = "".join(f"{line}\n" for line in _metric_lines(self._proxies))
        data = text.encode(errors="backslashreplace")
        return HttpResponse(HTTPStatus.OK, data, "text/plain; version=0.0.4; charset=utf-8")


def _has_token(request: HttpRequest, token: str) -> bool:
    kind, _, given = request.fields.get("authorization", "").partition(" ")
    candidates = [given.strip()] if kind.lower() == "bearer" else []
    if kind.lower() == "basic":
        try:
            # Clients that are given http://TOKEN@host:port send it as user or as password.
            candidates = base64.b64decode(given, validate=True).decode("latin-1").split(":", 1)
        except (binascii.Error, ValueError):
            return False
    return any(hmac.compare_digest(each.encode(), token.encode()) for each in candidates)


def _check_endpoint(endpoint: Endpoint, allow: frozenset[str], *, is_listen: bool) -> None:
    """Raise ApiError if a client of the API may not have a proxy to or from an endpoint."""
    problem = ""
    if endpoint.scheme in ("fd", "systemd", "stdio"):
        problem = f"{endpoint.scheme}: endpoints belong to the process; give them when it starts"
    elif endpoint.is_unix and "unix" not in allow:
        problem = "UNIX sockets are not allowed through the API; start impair with --api-allow unix"
    elif "privileged" not in allow and (
        endpoint.number("mark") is not None or (is_listen and 0 < (endpoint.port or 0) < _unprivileged_port())
    ):
        problem = (
            "ports and options that need a privilege are not allowed through the API; "
            "start impair with --api-allow privileged"
        )
    if problem:
        raise ApiError(HTTPStatus.FORBIDDEN, problem)


def _unprivileged_port() -> int:
    """Return the first port that every user may bind (ip(7))."""
    try:
        return int(_FIRST_UNPRIVILEGED_PORT.read_text())
    except (OSError, ValueError):
        return 1024


# Values and their JSON --------------------------------------------------------------------------------


def parse_endpoint(text: str) -> Endpoint:
    """Parse Toxiproxy's `host:port`, or any endpoint. Raises EndpointError, UnknownName."""
    address = text or _DEFAULT_LISTEN
    endpoint = endpoints_from_args([address])[0]
    # In Go, and in the examples of Toxiproxy's documentation, [::] is the wildcard of both address families.
    return endpoint.with_host("") if "://" not in address and endpoint.host == "::" else endpoint


def parse_listen(text: str) -> Endpoint:
    """Parse `listen` as `parse_endpoint` does. Raises ApiError in Go's words if there is no port."""
    try:
        return parse_endpoint(text)
    except BothendsError as error:
        if ":" in text or "/" in text:
            raise
        reason = f"listen tcp: address {text}: missing port in address"
        raise ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, reason, str(error)) from error


@contextlib.contextmanager
def listen_errors_of_go(listen: Endpoint) -> Iterator[None]:
    """Raise ApiError in Go's words for a TCP address that cannot be bound; our message becomes its hint."""
    try:
        yield
    except SystemCallFailed as error:
        if listen.scheme != "tcp":
            raise
        if isinstance(error, ResolveError):
            reason = f"listen tcp: lookup {listen.host}: no such host"
        elif error.operation in ("bind", "listen on"):
            address = format_endpoint(_first_address(listen)) if listen.host else f":{listen.port}"
            text = os.strerror(error.errno)
            reason = f"listen tcp {address}: bind: {text[:1].lower()}{text[1:]}"
        else:
            raise
        raise ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, reason, str(error)) from error


def _first_address(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint with the address that Go would choose for a name: IPv4 if there is one."""
    addresses = [str(each.sockaddr[0]) for each in resolve(endpoint)]
    return endpoint.with_host(next((each for each in addresses if ":" not in each), addresses[0]))


def format_endpoint(endpoint: Endpoint) -> str:
    """Format an endpoint for `parse_endpoint`: TCP without its scheme."""
    if endpoint.scheme != "tcp" or endpoint.options:
        return str(endpoint)
    return endpoint.label.removeprefix("tcp://") if endpoint.host else f"[::]:{endpoint.port}"


def format_listen(proxy: Proxy) -> str:
    """Format where a proxy listens; a name as its address, once it has listened, as in Go."""
    bound = proxy.bound
    is_tcp = bound is not None and bound.scheme == "tcp" and bound.host
    return format_endpoint(bound if bound is not None and is_tcp else proxy.listen)


def proxy_to_json(proxy: Proxy) -> dict[str, Any]:
    """Return the JSON object of a proxy and its toxics."""
    shown = {
        "name": proxy.name,
        "listen": format_listen(proxy),
        "upstream": format_endpoint(proxy.upstream),
        "enabled": proxy.enabled,
        "toxics": toxics_to_json(proxy),
    }
    return shown | ({"framing": proxy.framing_name} if proxy.framing_name else {})


def toxics_to_json(proxy: Proxy) -> list[dict[str, Any]]:
    """Return the JSON objects of a proxy's toxics, those of upstream first."""
    ordered = sorted(proxy.toxics, key=lambda each: DIRECTIONS.index(each.direction))
    return [toxic_to_json(each) for each in ordered]


def toxic_to_json(placed: PlacedToxic) -> dict[str, Any]:
    """Return the JSON object of a toxic."""
    toxicity = int(placed.toxicity) if placed.toxicity in (0, 1) else placed.toxicity
    shown = {
        "attributes": to_json(placed.toxic),
        "name": placed.name,
        "type": placed.toxic.type,
        "stream": placed.direction,
        "toxicity": toxicity,
    }
    return shown | ({"clients": [str(each) for each in placed.clients]} if placed.clients else {})


def parse_proxy_list(given: Any) -> list[dict[str, Any]]:
    """Check the form of a list of proxies, before any is created. Raises ApiError."""
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise ApiError(HTTPStatus.BAD_REQUEST, "bad request body: not a list of proxies")
    if len(given) > MAX_PROXIES:
        raise ApiError(HTTPStatus.BAD_REQUEST, f"bad request body: more than {MAX_PROXIES:,} proxies")
    for number, each in enumerate(given, 1):
        _check_required(each, f" at proxy {number}")
    for name, count in Counter(each["name"] for each in given).items():
        if count > 1:
            raise ApiError(HTTPStatus.BAD_REQUEST, f"bad request body: duplicate proxy {name!r}")
    return given


def parse_proxies(given: Any) -> list[ProxyConfig]:
    """Parse the proxies of a configuration file. Raises ApiError, BothendsError."""
    numbered = enumerate(parse_proxy_list(given), 1)
    return [parse_proxy(each, f" at proxy {number}") for number, each in numbered]


def _check_required(given: Mapping[str, Any], where: str) -> None:
    for key in ("name", "upstream"):
        if not _has_field(given, key, str) or not given[key]:
            raise ApiError(HTTPStatus.BAD_REQUEST, f"missing required field: {key}{where}")


def parse_proxy(given: Mapping[str, Any], where: str) -> ProxyConfig:
    """Parse one proxy. `where` is appended to the message of an error. Raises ApiError, BothendsError."""
    _check_required(given, where)
    check_name(given["name"], f"the name of a proxy{where}")
    listen = given["listen"] if _has_field(given, "listen", str) else ""
    enabled = given["enabled"] if _has_field(given, "enabled", bool) else True
    framing = given["framing"] if _has_field(given, "framing", str) else ""
    if framing and framing not in FRAMINGS:
        known = ", ".join(FRAMINGS)
        raise ApiError(HTTPStatus.BAD_REQUEST, f"bad request body: framing must be one of {known}{where}")
    return ProxyConfig(
        given["name"], parse_listen(listen), parse_endpoint(given["upstream"]), enabled, framing
    )


def _add_toxic(proxy: Proxy, body: bytes) -> HttpResponse:
    given = _parse_object(body)
    kind = given["type"] if _has_field(given, "type", str) else ""
    direction = given["stream"].lower() if _has_field(given, "stream", str) else ""
    direction = direction or "downstream"
    if direction not in DIRECTIONS:
        text = "stream was invalid, can be either upstream or downstream"
        raise ApiError(HTTPStatus.BAD_REQUEST, text)
    name = given["name"] if _has_field(given, "name", str) and given["name"] else f"{kind}_{direction}"
    check_name(name, "the name of a toxic")
    try:
        toxic = registry.load(kind)
    except UnknownName as error:
        raise ApiError(HTTPStatus.BAD_REQUEST, "invalid toxic type", str(error)) from error
    if proxy.find_toxic(name) is not None:
        raise ApiError(HTTPStatus.CONFLICT, "toxic already exists")
    attributes = given["attributes"] if _has_field(given, "attributes", dict) else {}
    stream: Direction = "upstream" if direction == "upstream" else "downstream"
    spec = PlacedToxic(
        name, stream, from_json(toxic, attributes), _parse_toxicity(given, 1.0), _parse_clients(given, ())
    )
    proxy.add_toxic(spec)
    return _ok(toxic_to_json(spec))


def _update_toxic(proxy: Proxy, name: str, body: bytes) -> HttpResponse:
    old = _find_toxic(proxy, name)
    given = _parse_object(body)
    attributes = given["attributes"] if _has_field(given, "attributes", dict) else {}
    toxic = from_json(type(old.toxic), attributes, old.toxic)
    spec = PlacedToxic(
        name, old.direction, toxic, _parse_toxicity(given, old.toxicity), _parse_clients(given, old.clients)
    )
    proxy.update_toxic(spec)
    return _ok(toxic_to_json(spec))


def _remove_toxic(proxy: Proxy, name: str) -> HttpResponse:
    _find_toxic(proxy, name)
    proxy.remove_toxic(name)
    return HttpResponse(HTTPStatus.NO_CONTENT)


def _find_toxic(proxy: Proxy, name: str) -> PlacedToxic:
    spec = proxy.find_toxic(name)
    if spec is None:
        raise ApiError(HTTPStatus.NOT_FOUND, "toxic not found")
    return spec


def _parse_toxicity(given: Mapping[str, Any], default: float) -> float:
    value = given.get("toxicity")
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ToxicError("toxicity", "must be a number from 0 to 1")
    return float(value)


def _parse_clients(given: Mapping[str, Any], default: tuple[IpNetwork, ...]) -> tuple[IpNetwork, ...]:
    if not _has_field(given, "clients", list):
        return default
    return parse_networks(given["clients"])


def parse_networks(texts: list[Any]) -> tuple[IpNetwork, ...]:
    """Parse networks such as 10.0.0.0/8. Raises ToxicError."""
    try:
        return tuple(ipaddress.ip_network(str(each), strict=False) for each in texts)
    except ValueError as error:
        raise ToxicError("clients", f"must be a list of networks: {error}") from error


def _has_field(given: Mapping[str, Any], key: str, kind: type[object]) -> bool:
    """Whether a field is present and not null. Raises ApiError if it has another type than `kind`."""
    value = given.get(key)
    if value is None:
        return False
    if not isinstance(value, kind):
        raise ApiError(HTTPStatus.BAD_REQUEST, f"bad request body: {key} is not {_TYPE_NAMES[kind]}")
    return True


_TYPE_NAMES: Final[dict[type[object], str]] = {
    str: "a string",
    bool: "a boolean",
    dict: "an object",
    list: "a list",
}


def _parse_object(body: bytes) -> dict[str, Any]:
    given = _parse_json(body)
    if not isinstance(given, dict):
        raise ApiError(HTTPStatus.BAD_REQUEST, "bad request body: not a JSON object")
    return given


def _parse_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(HTTPStatus.BAD_REQUEST, f"bad request body: {error}") from error


def _ok(value: Any) -> HttpResponse:
    return HttpResponse(HTTPStatus.OK, _encode(value))


def _encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


# Metrics ----------------------------------------------------------------------------------------------

_TRAFFIC: Final = (
    ("received", "Bytes received from the client (upstream) or the server (downstream)"),
    ("sent", "Bytes sent to the server (upstream) or the client (downstream)"),
)


def _metric_lines(proxies: ProxyCollection) -> list[str]:
    """Return the metrics in Prometheus' text format. The first two families are Toxiproxy's."""
    lines = []
    for counter, description in _TRAFFIC:
        name = f"toxiproxy_proxy_{counter}_bytes_total"
        lines += [f"# HELP {name} {description}.", f"# TYPE {name} counter"]
        for proxy in proxies:
            for direction in DIRECTIONS:
                labels = {
                    "direction": direction,
                    "listener": format_listen(proxy),
                    "proxy": proxy.name,
                    "upstream": format_endpoint(proxy.upstream),
                }
                lines.append(f"{name}{_labels(labels)} {getattr(proxy.traffic(direction), counter)}")
    lines += [
        "# HELP bothends_impair_connections Open connections or datagram sessions.",
        "# TYPE bothends_impair_connections gauge",
    ]
    for proxy in proxies:
        labels = {"proxy": proxy.name}
        lines.append(f"bothends_impair_connections{_labels(labels)} {len(proxy.flows)}")
    lines += [
        "# HELP bothends_impair_toxic_total Messages, or chunks of a stream, by the effect of a toxic.",
        "# TYPE bothends_impair_toxic_total counter",
    ]
    for proxy in proxies:
        for toxic, counters in proxy.toxic_counters.items():
            for effect, count in asdict(counters).items():
                if not count and effect != "seen":
                    continue
                labels = {"proxy": proxy.name, "toxic": toxic, "did": effect}
                lines.append(f"bothends_impair_toxic_total{_labels(labels)} {count}")
    return lines


def _labels(labels: Mapping[str, str]) -> str:
    escaped = (
        (name, escape_controls(value).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n"))
        for name, value in labels.items()
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"
