"""`bothends impair list | add | toxic | toggle | remove`: control a running proxy through its API."""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from bothends.cli import terminal
from bothends.endpoints import endpoints_from_args
from bothends.errors import BothendsError, SystemCallFailed, UsageError
from bothends.escaping import escape_line

_MAX_TOKEN: Final = 1024  # characters
_TIMEOUT: Final = 10.0  # seconds, for each response
_HELP: Final = {"help_option_names": ["-h", "--help"]}


@dataclass(eq=False, repr=False)
class ApiRequestFailed(BothendsError):
    """A request to the API failed.

    Fields: `operation`, `reason` (the API's error text), `status` (of HTTP; 0 without a response).
    """

    operation: str
    reason: str
    status: int

    def __str__(self) -> str:
        return f"cannot {self.operation}: {self.reason}"


def token_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add `--api-token-file`."""
    return click.option(
        "--api-token-file",
        metavar="FILE",
        type=click.Path(),
        help="File with the API's token. Required where other hosts can reach the API.",
    )(command)


def read_token(path: str | None) -> str:
    """Return the token in a file; "" without one.

    Raises SystemCallFailed if it cannot be read, UsageError if others can read it, or it has no token.
    """
    if path is None:
        return ""
    try:
        with Path(path).open(encoding="utf-8") as file:
            found = os.fstat(file.fileno())
            token = file.read(_MAX_TOKEN + 1).strip()
    except OSError as error:
        hint = f"create it: (umask 077; openssl rand -hex 16 > {path})" if error.errno == errno.ENOENT else ""
        raise SystemCallFailed("read", path, error.errno or 0, hint) from error
    except UnicodeDecodeError:
        token = ""
    if stat.S_ISREG(found.st_mode) and found.st_mode & 0o077:
        raise UsageError(f"other users can read the token in {path}; try chmod 600 {path}")
    if not 16 <= len(token) <= _MAX_TOKEN or not token.isascii() or not re.fullmatch(r"[!-~]+", token):
        raise UsageError(f"{path} must have a token of 16 to {_MAX_TOKEN} visible ASCII characters")
    return token


def _api_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--api",
        metavar="ENDPOINT",
        default="tcp://127.0.0.1:8474",
        show_default=True,
        help="The API's endpoint.",
    )(token_option(command))


@click.command("list", context_settings=_HELP)
@click.argument("name", default="")
@_api_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as the API returns it.")
def list_(name: str, api: str, api_token_file: str | None, as_json: bool) -> None:
    """List the proxies and their toxics, or proxy NAME only."""
    if name:
        path = f"/proxies/{quote(name, safe='')}"
        proxies = {name: _call_api((api, api_token_file), "GET", path, operation=f"show proxy {name}")}
    else:
        proxies = _call_api((api, api_token_file), "GET", "/proxies", operation="list the proxies")
    if as_json:
        terminal.show_json(proxies, indent=2)
        return
    rows = []
    for proxy in proxies.values():
        state = "listening" if proxy["enabled"] else "disabled"
        rows.append((proxy["name"], proxy["listen"], proxy["upstream"], state, ""))
        rows += [("", "", "", "", _format_toxic(toxic)) for toxic in proxy["toxics"]]
    terminal.table(("name", "listen", "upstream", "state", "toxics"), rows)


@click.command(context_settings=_HELP)
@click.argument("name")
@click.argument("args", metavar="LISTEN UPSTREAM", nargs=-1, required=True)
@_api_option
@click.option("--framing", metavar="HOW", help="Split streams into messages: lines, u16 or u32.")
def add(name: str, args: tuple[str, ...], api: str, api_token_file: str | None, framing: str | None) -> None:
    """Add a proxy named NAME."""
    endpoints = endpoints_from_args(args)
    if len(endpoints) != 2:
        raise click.UsageError("expected two endpoints, LISTEN and UPSTREAM")
    body = {"name": name, "listen": str(endpoints[0]), "upstream": str(endpoints[1]), "framing": framing}
    proxy = _call_api((api, api_token_file), "POST", "/proxies", body, operation=f"add proxy {name}")
    terminal.show(escape_line(f"{proxy['name']}: {proxy['listen']} -> {proxy['upstream']}"))


@click.command(context_settings=_HELP)
@click.argument("name")
@click.argument("kind", metavar="TYPE")
@click.argument("text", metavar="[SHORT]", default="")
@_api_option
def toxic(name: str, kind: str, text: str, api: str, api_token_file: str | None) -> None:
    """Add a toxic of TYPE to proxy NAME, or update it.

    SHORT is the value of the toxic's option: `bothends impair toxic db latency down:50ms±10ms`.
    """
    from bothends.impair.api import toxic_to_json
    from bothends.impair.scenario import parse_toxic

    for scheduled in parse_toxic(kind.replace("-", "_"), text):
        if scheduled.at or scheduled.duration is not None:
            raise UsageError("`at` and `for` are for `bothends impair` only; here, use `impair remove` later")
        spec = toxic_to_json(scheduled.placed)
        path = f"/proxies/{quote(name, safe='')}/toxics"
        operation = f"add {spec['name']} to {name}"
        try:
            result = _call_api((api, api_token_file), "POST", path, spec, operation=operation)
        except ApiRequestFailed as error:
            if error.status != 409:
                raise
            path += f"/{quote(spec['name'], safe='')}"  # it exists: update it
            result = _call_api((api, api_token_file), "POST", path, spec, operation=operation)
        terminal.show(escape_line(_format_toxic(result)))


@click.command(context_settings=_HELP)
@click.argument("name")
@click.argument("toxic_name", metavar="[TOXIC]", default="")
@_api_option
def remove(name: str, toxic_name: str, api: str, api_token_file: str | None) -> None:
    """Remove proxy NAME, or one of its toxics."""
    path = f"/proxies/{quote(name, safe='')}"
    if toxic_name:
        path += f"/toxics/{quote(toxic_name, safe='')}"
    _call_api((api, api_token_file), "DELETE", path, operation=f"remove {toxic_name or name}")


@click.command(context_settings=_HELP)
@click.argument("name")
@_api_option
def toggle(name: str, api: str, api_token_file: str | None) -> None:
    """Disable proxy NAME, which aborts its connections and closes its port, or enable it again."""
    path, operation = f"/proxies/{quote(name, safe='')}", f"toggle {name}"
    access = (api, api_token_file)
    proxy = _call_api(access, "GET", path, operation=operation)
    changed = _call_api(access, "PATCH", path, {"enabled": not proxy["enabled"]}, operation=operation)
    state = "listening" if changed["enabled"] else "disabled"
    terminal.show(escape_line(f"{changed['name']}: {changed['listen']} {state}"))


VERBS: Final[dict[str, click.Command]] = {
    "list": list_,
    "inspect": list_,
    "add": add,
    "toxic": toxic,
    "toggle": toggle,
    "remove": remove,
}


def _format_toxic(toxic: dict[str, Any]) -> str:
    attributes = " ".join(f"{name}={value}" for name, value in toxic["attributes"].items())
    toxicity = f" toxicity={toxic['toxicity']:g}" if toxic["toxicity"] != 1 else ""
    return f"{toxic['name']} {attributes}{toxicity}".rstrip()


def _call_api(
    api: tuple[str, str | None], method: str, path: str, body: Any = None, *, operation: str
) -> Any:
    """Send a request to the API, given by its endpoint and the file of its token. Returns the JSON value."""
    endpoint = endpoints_from_args([api[0]])[0]
    fields = {"Content-Type": "application/json"}
    if token := read_token(api[1]):
        fields["Authorization"] = f"Bearer {token}"
    if endpoint.scheme != "tcp":
        raise UsageError(f"the API is reached over tcp:// only, not {endpoint.scheme}://")
    connection = http.client.HTTPConnection(endpoint.host or "127.0.0.1", endpoint.port, timeout=_TIMEOUT)
    try:
        encoded = None if body is None else json.dumps(body)
        connection.request(method, path, encoded, fields)
        response = connection.getresponse()
        data = response.read()
    except TimeoutError as error:
        raise ApiRequestFailed(
            operation, f"no response from {endpoint.label} within {_TIMEOUT:g} s", 0
        ) from error
    except http.client.HTTPException as error:
        raise ApiRequestFailed(operation, f"{endpoint.label} does not speak HTTP", 0) from error
    except OSError as error:
        hint = "is `bothends impair` running? Use --api to give the endpoint of its API"
        if isinstance(error, socket.gaierror):
            raise ApiRequestFailed(operation, f"{endpoint.label}: {error.strerror}; {hint}", 0) from error
        raise SystemCallFailed("connect to", endpoint.label, error.errno or 0, hint) from error
    finally:
        connection.close()
    try:
        value = json.loads(data) if data else None
    except ValueError as error:
        raise ApiRequestFailed(
            operation, f"{endpoint.label} is not the API of a proxy", response.status
        ) from error
    if response.status >= 400:
        reason = (value.get("hint") or value.get("error", "")) if isinstance(value, dict) else ""
        raise ApiRequestFailed(operation, str(reason) or f"status {response.status}", response.status)
    return value
