"""`bothends impair list | add | toxic | remove`: what drives one that runs, by its API."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import click

from bothends.cli import terminal
from bothends.endpoints import from_words
from bothends.errors import BothendsError, CallerError, SystemRefused

_PATIENCE: Final = 10.0  # seconds for an answer
_HELP: Final = {"help_option_names": ["-h", "--help"]}


@dataclass(eq=False, repr=False)
class ApiRefused(BothendsError):
    """The API said no. Fields: `doing`, `reason` (its own words), `status` (HTTP's)."""

    doing: str
    reason: str
    status: int

    def __str__(self) -> str:
        return f"cannot {self.doing}: {self.reason}"


def _at(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--api", metavar="ENDPOINT", default="tcp://127.0.0.1:8474", show_default=True, help="Where it is."
    )(command)


@click.command("list", context_settings=_HELP)
@_at
@click.option("--json", "as_json", is_flag=True, help="As the API shows it.")
def list_(api: str, as_json: bool) -> None:
    """List the proxies, and their toxics."""
    proxies = _ask(api, "GET", "/proxies", doing="list the proxies")
    if as_json:
        print(json.dumps(proxies, indent=2))  # noqa: T201
        return
    rows = []
    for proxy in proxies.values():
        state = "listens" if proxy["enabled"] else "disabled"
        rows.append((proxy["name"], proxy["listen"], proxy["upstream"], state, ""))
        rows += [("", "", "", "", _described(toxic)) for toxic in proxy["toxics"]]
    terminal.table(("name", "listen", "upstream", "state", "toxics"), rows)


@click.command(context_settings=_HELP)
@click.argument("name")
@click.argument("words", metavar="LISTEN UPSTREAM", nargs=-1, required=True)
@_at
@click.option("--framing", metavar="HOW", help="Cut streams into messages: lines, u16 or u32.")
def add(name: str, words: tuple[str, ...], api: str, framing: str | None) -> None:
    """Add a proxy called NAME."""
    endpoints = from_words(words)
    if len(endpoints) != 2:
        raise click.UsageError("a proxy has two endpoints: where it listens, and where it leads")
    body = {"name": name, "listen": str(endpoints[0]), "upstream": str(endpoints[1]), "framing": framing}
    proxy = _ask(api, "POST", "/proxies", body, doing=f"add proxy {name}")
    print(f"{proxy['name']}: {proxy['listen']} -> {proxy['upstream']}")  # noqa: T201


@click.command(context_settings=_HELP)
@click.argument("name")
@click.argument("kind", metavar="TYPE")
@click.argument("text", metavar="[SHORT]", default="")
@_at
def toxic(name: str, kind: str, text: str, api: str) -> None:
    """Put a toxic of TYPE on proxy NAME, or change the one that is there.

    SHORT is what stands behind its switch: `bothends impair toxic db latency down:50ms±10ms`.
    """
    from bothends.impair.api import spec_object
    from bothends.impair.scenario import from_text

    for planned in from_text(kind.replace("-", "_"), text):
        if planned.at or planned.lasts is not None:
            raise CallerError("at and for belong to a run: here a toxic comes now, and goes by `remove`")
        spec = spec_object(planned.spec)
        path = f"/proxies/{quote(name, safe='')}/toxics"
        doing = f"put {spec['name']} on {name}"
        try:
            made = _ask(api, "POST", path, spec, doing=doing)
        except ApiRefused as refused:
            if refused.status != 409:
                raise
            made = _ask(api, "POST", f"{path}/{quote(spec['name'], safe='')}", spec, doing=doing)
        print(_described(made))  # noqa: T201


@click.command(context_settings=_HELP)
@click.argument("name")
@click.argument("toxic_name", metavar="[TOXIC]", default="")
@_at
def remove(name: str, toxic_name: str, api: str) -> None:
    """Remove proxy NAME, or one of its toxics."""
    path = f"/proxies/{quote(name, safe='')}"
    if toxic_name:
        path += f"/toxics/{quote(toxic_name, safe='')}"
    _ask(api, "DELETE", path, doing=f"remove {toxic_name or name}")


VERBS: Final[dict[str, click.Command]] = {"list": list_, "add": add, "toxic": toxic, "remove": remove}


def _described(given: dict[str, Any]) -> str:
    attributes = " ".join(f"{name}={value}" for name, value in given["attributes"].items())
    share = f" toxicity={given['toxicity']:g}" if given["toxicity"] != 1 else ""
    return f"{given['name']} {attributes}{share}".rstrip()


def _ask(api: str, method: str, path: str, body: Any = None, *, doing: str) -> Any:
    endpoint = from_words([api])[0]
    if endpoint.scheme != "tcp":
        raise CallerError(f"the API is asked over tcp://, not {endpoint.scheme}://")
    connection = http.client.HTTPConnection(endpoint.host or "127.0.0.1", endpoint.port, timeout=_PATIENCE)
    try:
        encoded = None if body is None else json.dumps(body)
        connection.request(method, path, encoded, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        data = answer.read()
    except TimeoutError as error:
        raise ApiRefused(doing, f"no answer from {endpoint.label} in {_PATIENCE:g} s", 0) from error
    except http.client.HTTPException as error:
        raise ApiRefused(doing, f"{endpoint.label} speaks no HTTP", 0) from error
    except OSError as error:
        hint = "does `bothends impair` run? --api says where its API is"
        if isinstance(error, socket.gaierror):
            raise ApiRefused(doing, f"{endpoint.label}: {error.strerror}; {hint}", 0) from error
        raise SystemRefused("connect to", endpoint.label, error.errno or 0, hint) from error
    finally:
        connection.close()
    try:
        value = json.loads(data) if data else None
    except ValueError as error:
        raise ApiRefused(doing, f"{endpoint.label} is no API of a proxy", answer.status) from error
    if answer.status >= 400:
        reason = value.get("error", "") if isinstance(value, dict) else ""
        raise ApiRefused(doing, str(reason) or f"status {answer.status}", answer.status)
    return value
