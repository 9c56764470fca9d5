"""Options of servers, and the TOML configuration file that holds them.

    engine = "epoll"                    # top-level keys apply to every server below

    [limits]
    idle = 60

    [[serve]]
    service = "upper"
    endpoints = ["tcp://:12000", "udp://:12000"]

    [[serve]]
    exec = "sort -u"
    endpoints = ["unix:///run/sort.sock"]
    limits = { connections = 10 }

Rank 3, pure except for reading the file. The keys are the field names of `ServeOptions`, `Limits` and
`TlsSettings`, and values are checked against the types of these fields, so there is no second table to keep
in step. Every error names the file, the table, the key, and the nearest known key.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from bothends import suggest
from bothends.endpoints import Endpoint
from bothends.engines.base import Limits
from bothends.errors import BothendsError, ConfigurationError
from bothends.layers import TlsSettings
from bothends.textfile import parse_toml, read_text

MAX_WORKERS: Final = 512  # limit of `--workers` too


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """The options of one server: from the command line of `bothends serve`, or from a table `[[serve]]`."""

    name: str = ""
    """Name in the log, if there are several servers. Default: `title`."""

    service: str = ""
    """A name listed by `bothends services`, or `file.py:name`, relative to the configuration file."""

    exec: str = ""
    """A command to run for each connection, instead of a service."""

    shell: bool = False
    """Run that command with /bin/sh."""

    endpoints: tuple[Endpoint, ...] = ()

    engine: str | None = None
    workers: int = 1
    limits: Limits = field(default_factory=Limits)
    tls: TlsSettings | None = None

    takeover: Path | None = None
    """Path of a UNIX socket: take over the listeners of the server there, and offer them to the next one."""

    metrics: tuple[Endpoint, ...] = ()
    """Endpoints for metrics and health over HTTP."""

    trace: Path | None = None
    """File to write the events to, as a trace."""

    log: Literal["text", "json"] = "text"
    hex: bool = False
    log_level: Literal["messages", "connections", "problems"] = "messages"
    """The least important events that are logged."""

    quiet: bool = False
    """The same as the level "problems"."""

    @property
    def level(self) -> Literal["messages", "connections", "problems"]:
        """The level of the log: `log_level`, unless `quiet`."""
        return "problems" if self.quiet else self.log_level

    @property
    def title(self) -> str:
        """Name of the server: its `name`, or else its command or service."""
        return self.name or self.exec or self.service.rpartition("/")[2]


# Keys that are not allowed at the top level, because their values differ for each server.
_PER_SERVER_KEYS: Final = frozenset(
    {"name", "service", "exec", "shell", "endpoints", "takeover", "metrics", "trace"}
)


@dataclass(frozen=True, slots=True)
class _Location:
    """A table of the file, for error messages."""

    file: str
    table: str
    folder: Path

    def within(self, key: str) -> _Location:
        return dataclasses.replace(self, table=f"{self.table}, {key}" if self.table else f"[{key}]")

    def error(self, key: str, reason: str, hint: str = "") -> ConfigurationError:
        return ConfigurationError(self.file, self.table, key, reason, hint)


def read(path: Path) -> list[ServeOptions]:
    """Read the servers of a configuration file; there is at least one.

    Raises:
        SystemCallFailed: the file cannot be read.
        ConfigurationError: its contents are invalid.
    """
    return parse(read_text(path), str(path), path.absolute().parent)


def parse(text: str, file: str, folder: Path) -> list[ServeOptions]:
    """Parse the text of a configuration file. Paths in it are relative to `folder`.

    Raises:
        ConfigurationError: the text is invalid.
    """
    document = parse_toml(text, file)
    top = _Location(file, "", folder)
    tables = document.pop("serve", None)
    common = _read_table(ServeOptions, document, top, extra=("serve",), excluded=_PER_SERVER_KEYS)
    if tables is None:
        raise top.error("serve", "there is no table [[serve]]", "add one for each server")
    if not isinstance(tables, list):
        raise top.error("serve", "a single table", "write [[serve]], with two brackets on each side")
    if not tables:
        raise top.error("serve", "empty", "add a table [[serve]] for each server")
    servers = [_read_server(table, common, top, number) for number, table in enumerate(tables, 1)]
    _check_conflicts(servers, top)
    return servers


def _read_server(table: Any, common: dict[str, Any], top: _Location, number: int) -> ServeOptions:
    location = dataclasses.replace(top, table=f"[[serve]] {number}")
    if not isinstance(table, dict):
        raise location.error("", f"must be a table, not {_type_name(table)}")
    name = next((table[key] for key in ("name", "service", "exec") if isinstance(table.get(key), str)), "")
    if name:
        location = dataclasses.replace(location, table=f"[[serve]] {number} ({name})")
    own = _read_table(ServeOptions, table, location)
    for key in ("limits", "tls"):
        if key in common and key in own:
            own[key] = common[key] | own[key]
    values = common | own
    if bool(values.get("service")) == bool(values.get("exec")):
        problem = "both service and exec are given" if values.get("service") else "missing"
        raise location.error("service", problem, "give either service or exec")
    if values.get("exec") and "engine" in own:
        raise location.error("engine", "has no effect with exec, which runs a process for each connection")
    if values.get("exec"):
        values.pop("engine", None)
    elif "shell" in own:
        raise location.error("shell", "has no effect without exec")
    if not values.get("endpoints"):
        raise location.error("endpoints", "missing", 'for example endpoints = ["tcp://:12000"]')
    if "limits" in values:
        values["limits"] = Limits(**values["limits"])
    if "tls" in values:
        # Top-level TLS settings apply only to servers with a tls:// endpoint.
        wanted = "tls" in own or any(
            each.scheme == "tls" for each in (*values["endpoints"], *values.get("metrics", ()))
        )
        values["tls"] = TlsSettings(**values["tls"]) if wanted else None
    if values.get("service"):
        values["service"] = _resolve_service_file(values["service"], location.folder)
    return ServeOptions(**values)


def _resolve_service_file(service: str, folder: Path) -> str:
    """Resolve a service's file relative to the configuration file's folder."""
    path, colon, name = (service, "", "") if service.endswith(".py") else service.rpartition(":")
    if not path or not (path.endswith(".py") or "/" in path):
        return service
    return f"{folder / path}{colon}{name}"


def _check_conflicts(servers: list[ServeOptions], top: _Location) -> None:
    seen: dict[Endpoint, int] = {}
    traces: dict[Path, int] = {}
    for number, options in enumerate(servers, 1):
        if options.trace is not None and traces.setdefault(options.trace, number) != number:
            location = dataclasses.replace(top, table=f"[[serve]] {number} ({options.title})")
            raise location.error("trace", f"server {traces[options.trace]} writes to the same file")
        for endpoint in (*options.endpoints, *options.metrics):
            if endpoint.scheme == "stdio" and len(servers) > 1:
                location = dataclasses.replace(top, table=f"[[serve]] {number} ({options.title})")
                raise location.error("endpoints", "stdio: cannot be used with several servers")
            if endpoint in seen and endpoint.port != 0 and endpoint.scheme != "systemd":
                location = dataclasses.replace(top, table=f"[[serve]] {number} ({options.title})")
                other = "this server" if seen[endpoint] == number else f"server {seen[endpoint]}"
                raise location.error("endpoints", f"{endpoint} is already used by {other}")
            seen[endpoint] = number


def _read_table(
    cls: type[Any],
    table: Mapping[str, Any],
    location: _Location,
    *,
    extra: tuple[str, ...] = (),
    excluded: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Return the fields of a dataclass in a table, checked and converted. Nested tables stay dicts."""
    hints = typing.get_type_hints(cls)
    known = [each.name for each in dataclasses.fields(cls) if each.name not in excluded]
    values = {}
    for key, value in table.items():
        if key in excluded:
            raise location.error(key, "not allowed at the top level", "move it to its [[serve]]")
        if key not in known:
            nearest = suggest.nearest(key, [*known, *extra])
            hint = f"did you mean {nearest!r}?" if nearest else f"known keys: {', '.join([*known, *extra])}"
            raise location.error(key, "unknown key", hint)
        values[key] = _convert(value, hints[key], location, key)
    return values


def _convert(value: Any, hint: Any, location: _Location, key: str) -> Any:
    """Convert a TOML value to a type, given as a type hint. Raises ConfigurationError."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, [each for each in arguments if each is not type(None)], location, key)
    if origin is tuple:
        values = value if isinstance(value, list) else [value]
        return tuple(_convert(each, arguments[0], location, key) for each in values)
    if origin is Literal:
        if value in arguments:
            return value
        nearest = suggest.nearest(str(value), arguments)
        listed = " or ".join(f'"{each}"' for each in arguments)
        hint = f'did you mean "{nearest}"?' if nearest else ""
        raise location.error(key, f"must be {listed}, not {_format_value(value)}", hint)
    if dataclasses.is_dataclass(hint) and hint is not Endpoint:
        if not isinstance(value, dict):
            raise location.error(key, f"must be a table, not {_type_name(value)}")
        return _read_table(typing.cast("type[Any]", hint), value, location.within(key))
    if hint is Endpoint:
        text = _require_type(value, str, location, key)
        try:
            return Endpoint.parse(text)
        except BothendsError as error:
            raise location.error(key, str(error)) from error
    if hint is Path:
        return location.folder / _require_type(value, str, location, key)
    return _convert_scalar(value, hint, location, key)


def _convert_union(value: Any, choices: list[Any], location: _Location, key: str) -> Any:
    if Path in choices:  # str | Path
        return _convert(value, Path, location, key)
    if ipaddress.IPv4Network in choices:
        try:
            return ipaddress.ip_network(_require_type(value, str, location, key), strict=False)
        except ValueError as error:
            raise location.error(key, f"{value!r} is not a network", 'for example "192.0.2.0/24"') from error
    if value == 0 and not isinstance(value, bool) and {int, float} & set(choices):
        return None  # no limit
    return _convert(value, choices[0], location, key)


def _convert_scalar(value: Any, hint: Any, location: _Location, key: str) -> Any:
    if hint is float:
        number = float(_require_type(value, (int, float), location, key))
        if not math.isfinite(number) or number < 0:
            raise location.error(key, f"must be a number of seconds, 0 or more, not {_format_value(value)}")
        return number
    if hint is int:
        maximum = MAX_WORKERS if key == "workers" else None
        if _require_type(value, int, location, key) < 1 or (maximum is not None and value > maximum):
            bounds = f"from 1 to {maximum}" if maximum is not None else "of 1 or more"
            raise location.error(key, f"must be an integer {bounds}, not {value}")
        return value
    return _require_type(value, hint, location, key)


_TYPE_NAMES: Final = {
    str: "a string",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    list: "an array",
    dict: "a table",
}


def _require_type(value: Any, kind: Any, location: _Location, key: str) -> Any:
    # bool is a subclass of int.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = "a number" if isinstance(kind, tuple) else _TYPE_NAMES[kind]
        raise location.error(key, f"must be {wanted}, not {_format_value(value)}")
    return value


def _type_name(value: object) -> str:
    return _TYPE_NAMES.get(type(value), type(value).__name__)


def _format_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    return f'"{value}"' if isinstance(value, str) else _type_name(value)
