"""What is to be served, as values: from a command line or from a file in TOML.

    engine = "epoll"                    # what stands on top holds for every server below

    [limits]
    idle = 60

    [[serve]]
    service = "upper"
    endpoints = ["tcp://:12000", "udp://:12000"]

    [[serve]]
    exec = "sort -u"
    endpoints = ["unix:///run/sort.sock"]
    limits = { connections = 10 }

Rank 3, pure but for reading the file. The keys are the names of the fields of `ServeOptions`, `Limits` and
`TlsSettings`, and their types are what is checked: there is no other table that could differ from them.
Every error says in which file, in which table and at which key, and names the nearest known key.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import math
import tomllib
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
from bothends.textfile import read_text

# As many as `--workers` takes.
MAX_WORKERS: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """One server: what `bothends serve` is told, by its command line or by a table `[[serve]]`."""

    name: str = ""
    """What it is called in the log, where there are several. By default after its service."""

    service: str = ""
    """A name of `bothends services`, or `file.py:name`; the file is looked for beside the configuration."""

    exec: str = ""
    """Or a command, which is run for each connection."""

    shell: bool = False
    """Whether /bin/sh reads that command."""

    endpoints: tuple[Endpoint, ...] = ()

    engine: str | None = None
    workers: int = 1
    limits: Limits = field(default_factory=Limits)
    tls: TlsSettings | None = None

    takeover: Path | None = None
    """A UNIX socket: take over the listeners of the server there, and offer ours to the next."""

    metrics: tuple[Endpoint, ...] = ()
    """Where metrics and health are shown."""

    trace: Path | None = None
    """Where what happens is written as a trace."""

    log: Literal["text", "json"] = "text"
    hex: bool = False
    quiet: bool = False

    @property
    def title(self) -> str:
        """What it is called."""
        return self.name or self.exec or self.service.rpartition("/")[2]


# What belongs to one server: said for all of them it would be wrong for all but one.
_PER_SERVER_KEYS: Final = frozenset(
    {"name", "service", "exec", "shell", "endpoints", "takeover", "metrics", "trace"}
)


@dataclass(frozen=True, slots=True)
class _Location:
    """Where we are in the file."""

    file: str
    table: str
    folder: Path

    def within(self, key: str) -> _Location:
        return dataclasses.replace(self, table=f"{self.table}, {key}" if self.table else f"[{key}]")

    def error(self, key: str, reason: str, hint: str = "") -> ConfigurationError:
        return ConfigurationError(self.file, self.table, key, reason, hint)


def read(path: Path) -> list[ServeOptions]:
    """The servers of a configuration file, one at least.

    Raises:
        SystemRefused: the file can't be read.
        ConfigurationError: something in it can't be understood.
    """
    return parse(read_text(path), str(path), path.absolute().parent)


def parse(text: str, file: str, folder: Path) -> list[ServeOptions]:
    """As `read`, of the text. Paths in it are relative to `folder`.

    Raises:
        ConfigurationError: something in it can't be understood.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(file, "", "", f"it is no TOML: {error}", "see https://toml.io") from error
    top = _Location(file, "", folder)
    tables = document.pop("serve", None)
    common = _read_table(ServeOptions, document, top, extra=("serve",), excluded=_PER_SERVER_KEYS)
    if tables is None:
        raise top.error("serve", "there is no table [[serve]], so nothing to serve", "one for each server")
    if not isinstance(tables, list):
        raise top.error("serve", "it is a single table", "write [[serve]], with two brackets on each side")
    if not tables:
        raise top.error("serve", "it is empty, so there is nothing to serve")
    found = [_read_server(table, common, top, number) for number, table in enumerate(tables, 1)]
    _check_conflicts(found, top)
    return found


def _read_server(table: Any, common: dict[str, Any], top: _Location, number: int) -> ServeOptions:
    place = dataclasses.replace(top, table=f"[[serve]] {number}")
    if not isinstance(table, dict):
        raise place.error("", f"it should be a table, not {_type_name(table)}")
    name = next((table[key] for key in ("name", "service", "exec") if isinstance(table.get(key), str)), "")
    if name:
        place = dataclasses.replace(place, table=f"[[serve]] {number} ({name})")
    own = _read_table(ServeOptions, table, place)
    for key in ("limits", "tls"):
        if key in common and key in own:
            own[key] = common[key] | own[key]
    values = common | own
    if bool(values.get("service")) == bool(values.get("exec")):
        reason = "either a service or a command (exec), and not both"
        raise place.error(
            "service", reason if values.get("service") else f"what to serve is missing: {reason}"
        )
    if values.get("exec") and "engine" in own:
        raise place.error("engine", "exec runs a process for each connection: there is no engine to choose")
    if values.get("exec"):
        values.pop("engine", None)
    elif "shell" in own:
        raise place.error("shell", "it says who reads a command, and there is none (exec)")
    if not values.get("endpoints"):
        raise place.error(
            "endpoints", "where to serve is missing", 'endpoints = ["tcp://:12000"], for example'
        )
    if "limits" in values:
        values["limits"] = Limits(**values["limits"])
    if "tls" in values:
        # What is said for all of them is for those that have a use for it.
        wanted = "tls" in own or any(
            each.scheme == "tls" for each in (*values["endpoints"], *values.get("metrics", ()))
        )
        values["tls"] = TlsSettings(**values["tls"]) if wanted else None
    if values.get("service"):
        values["service"] = _resolve_service_file(values["service"], place.folder)
    return ServeOptions(**values)


def _resolve_service_file(service: str, folder: Path) -> str:
    """A service's file, which is looked for beside the configuration."""
    place, colon, name = (service, "", "") if service.endswith(".py") else service.rpartition(":")
    if not place or not (place.endswith(".py") or "/" in place):
        return service
    return f"{folder / place}{colon}{name}"


def _check_conflicts(servers: list[ServeOptions], top: _Location) -> None:
    seen: dict[Endpoint, int] = {}
    traces: dict[Path, int] = {}
    for number, options in enumerate(servers, 1):
        if options.trace is not None and traces.setdefault(options.trace, number) != number:
            place = dataclasses.replace(top, table=f"[[serve]] {number} ({options.title})")
            raise place.error("trace", f"server {traces[options.trace]} writes this file already")
        for endpoint in (*options.endpoints, *options.metrics):
            if endpoint.scheme == "stdio" and len(servers) > 1:
                place = dataclasses.replace(top, table=f"[[serve]] {number} ({options.title})")
                raise place.error("endpoints", "stdio: is for a server that is alone")
            if endpoint in seen and endpoint.port != 0 and endpoint.scheme != "systemd":
                place = dataclasses.replace(top, table=f"[[serve]] {number} ({options.title})")
                whose = "the same server" if seen[endpoint] == number else f"server {seen[endpoint]}"
                raise place.error("endpoints", f"{endpoint} is taken already, by {whose}")
            seen[endpoint] = number


def _read_table(
    cls: type[Any],
    table: Mapping[str, Any],
    location: _Location,
    *,
    extra: tuple[str, ...] = (),
    excluded: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """The fields of a dataclass that a table gives, checked and converted. Tables in it stay dicts."""
    hints = typing.get_type_hints(cls)
    known = [each.name for each in dataclasses.fields(cls) if each.name not in excluded]
    values = {}
    for key, value in table.items():
        if key in excluded:
            raise location.error(key, "it belongs to one server", "write it under its [[serve]]")
        if key not in known:
            nearest = suggest.nearest(key, [*known, *extra])
            hint = f"did you mean {nearest!r}?" if nearest else f"known are {', '.join([*known, *extra])}"
            raise location.error(key, "there is no such key", hint)
        values[key] = _convert(value, hints[key], location, key)
    return values


def _convert(value: Any, hint: Any, location: _Location, key: str) -> Any:
    """A value of TOML as a value of this type."""
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
        raise location.error(
            key, f"it should be {listed}, not {_format_value(value)}", f'"{nearest}"?' if nearest else ""
        )
    if dataclasses.is_dataclass(hint) and hint is not Endpoint:
        if not isinstance(value, dict):
            raise location.error(key, f"it should be a table, not {_type_name(value)}")
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
            raise location.error(key, f"{value!r} is no network", '"192.0.2.0/24", for example') from error
    if value == 0 and not isinstance(value, bool) and {int, float} & set(choices):
        return None  # no limit
    return _convert(value, choices[0], location, key)


def _convert_scalar(value: Any, hint: Any, location: _Location, key: str) -> Any:
    if hint is float:
        number = float(_require_type(value, (int, float), location, key))
        if not math.isfinite(number) or number < 0:
            raise location.error(
                key, f"it should be a number of seconds, 0 or more, not {_format_value(value)}"
            )
        return number
    if hint is int:
        most = MAX_WORKERS if key == "workers" else None
        if _require_type(value, int, location, key) < 1 or (most is not None and value > most):
            bounds = f"from 1 to {most}" if most is not None else "of 1 or more"
            raise location.error(key, f"it should be a whole number {bounds}, not {value}")
        return value
    return _require_type(value, hint, location, key)


_TYPE_NAMES: Final = {
    str: "text in quotes",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "an array",
    dict: "a table",
}


def _require_type(value: Any, kind: Any, location: _Location, key: str) -> Any:
    # To Python, true is a number.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = "a number" if isinstance(kind, tuple) else _TYPE_NAMES[kind]
        raise location.error(key, f"it should be {wanted}, not {_format_value(value)}")
    return value


def _type_name(value: object) -> str:
    return _TYPE_NAMES.get(type(value), type(value).__name__)


def _format_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    return f'"{value}"' if isinstance(value, str) else _type_name(value)
