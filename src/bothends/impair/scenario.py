"""Which toxics come when, where they go again, and how that is said: in words, or in a file.

In words, as on the command line: `[up:|down:]SHORT[,NAME=VALUE...]`, where beside the toxic's own attributes
stand those of its place:

    50ms±10ms,distribution=normal,at=5s,for=3s,toxicity=50%,clients=10.0.0.0/8+192.0.2.0/24,name=slow

In a file, a scenario in TOML:

    seed = 7

    [[proxy]]
    name = "db"
    listen = "tcp://127.0.0.1:12001"
    upstream = "tcp://127.0.0.1:12000"

    [[toxic]]
    type = "latency"
    stream = "downstream"           # otherwise both
    latency = "50ms"
    at = "5s"                       # from the beginning of the run; otherwise at once
    for = "3s"                      # otherwise to its end
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from bothends.errors import BothendsError, ConfigurationError, ToxicError
from bothends.impair.api import ApiError, networks, proxies_fields, proxy_fields
from bothends.impair.proxies import Proxies, Wanted
from bothends.impair.proxy import Proxy, check_spec
from bothends.osutil.event_loop import Loop, Timer
from bothends.textfile import read_text
from bothends.toxics import registry
from bothends.toxics.attributes import (
    Rule,
    Value,
    from_json,
    from_words,
    read_seconds,
    read_value,
    rules_of,
)
from bothends.toxics.base import Toxic
from bothends.toxics.placement import DIRECTIONS, Direction, Spec

T = TypeVar("T")

_PREFIXES: Final[Mapping[str, tuple[Direction, ...]]] = {"up": ("upstream",), "down": ("downstream",)}
_PLACE: Final = ("name", "at", "for", "toxicity", "clients")
_SHARE: Final = Rule("share", "", most=1)


@dataclass(frozen=True, slots=True)
class Planned:
    """A toxic that is to come: on which proxy ("": the only one), `at` how many seconds, and for how long."""

    spec: Spec
    proxy: str = ""
    at: float = 0.0
    lasts: float | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a file says."""

    proxies: tuple[Wanted, ...] = ()
    planned: tuple[Planned, ...] = ()
    seed: int | None = None
    lasts: float | None = None


def from_text(kind: str, text: str) -> Iterator[Planned]:
    """The toxics that words ask for: one for each direction. Raises ToxicError, UnknownName."""
    toxic = registry.load(kind)
    prefix, colon, rest = text.partition(":")
    directions = _PREFIXES.get(prefix, DIRECTIONS) if colon else DIRECTIONS
    own: list[str] = []
    place: dict[str, Any] = {}
    for part in (rest if len(directions) == 1 else text).split(","):
        name, equals, value = part.partition("=")
        if equals and name in _PLACE and name not in rules_of(toxic):
            place[name] = value.split("+") if name == "clients" else value
        elif part:
            own.append(part)
    yield from _placed(from_words(toxic, ",".join(own)), directions, place)


def read(path: Path) -> Scenario:
    """A scenario in TOML, or a configuration file of Toxiproxy, in JSON.

    Raises SystemRefused, ConfigurationError.
    """
    text = read_text(path)
    try:
        if path.suffix == ".json":
            return Scenario(tuple(proxies_fields(json.loads(text))))
        return _scenario(tomllib.loads(text), str(path))
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise ConfigurationError(str(path), "", "", f"it is no {kind}: {error}") from error
    except ApiError as error:
        raise ConfigurationError(str(path), "", "", _without_body(error)) from error
    except ConfigurationError:
        raise
    except BothendsError as error:
        raise ConfigurationError(str(path), "", "", str(error)) from error


def _scenario(document: dict[str, Any], file: str) -> Scenario:
    _refuse_unknown(document, ("seed", "for", "proxy", "toxic"), file, "")
    seed = document.get("seed")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise ConfigurationError(file, "", "seed", "it is a whole number")
    proxies = []
    for number, table in enumerate(_tables(document, "proxy", file), 1):
        where = f"[[proxy]] {number}"
        _refuse_unknown(table, ("name", "listen", "upstream", "enabled", "framing"), file, where)
        proxies.append(_told(file, where, partial(proxy_fields, table, "")))
    planned: list[Planned] = []
    for number, table in enumerate(_tables(document, "toxic", file), 1):
        planned += _told(file, f"[[toxic]] {number}", partial(_from_table, table))
    lasts = _seconds(document.get("for"), "for") if "for" in document else None
    return Scenario(tuple(proxies), tuple(unique(planned)), seed, lasts)


def _from_table(table: Mapping[str, Any]) -> list[Planned]:
    left = dict(table)
    kind = left.pop("type", "")
    toxic = registry.load(str(kind))
    rules = rules_of(toxic)
    place: dict[str, Any] = {key: left.pop(key) for key in _PLACE if key in left and key not in rules}
    stream = left.pop("stream", None)
    if stream not in (None, *DIRECTIONS):
        raise ToxicError(toxic.type, "stream is upstream or downstream; without it, both")
    proxy = str(left.pop("proxy", ""))
    values: dict[str, Value] = {}
    for name, value in left.items():
        rule = rules.get(name)
        values[name] = read_value(toxic, name, rule, value) if rule and isinstance(value, str) else value
    directions: Sequence[Direction] = DIRECTIONS if stream is None else (stream,)
    return [replace(each, proxy=proxy) for each in _placed(from_json(toxic, values), directions, place)]


def _placed(toxic: Toxic, directions: Sequence[Direction], place: Mapping[str, Any]) -> Iterator[Planned]:
    toxicity: Any = place.get("toxicity", 1.0)
    if isinstance(toxicity, str):
        toxicity = read_value(type(toxic), "toxicity", _SHARE, toxicity)
    if isinstance(toxicity, bool) or not isinstance(toxicity, int | float) or not 0 <= toxicity <= 1:
        raise ToxicError(toxic.type, "toxicity is a share such as 50% or 0.5")
    clients = place.get("clients", [])
    within = networks(clients if isinstance(clients, list) else [clients])
    at = _seconds(place["at"], "at") if "at" in place else 0.0
    lasts = _seconds(place["for"], "for") if "for" in place else None
    for direction in directions:
        name = str(place.get("name", ""))
        if not name or len(directions) > 1:
            name = f"{name or toxic.type}_{direction}"
        spec = Spec(name, direction, toxic, float(toxicity), within)
        yield Planned(spec, at=at, lasts=lasts)


def unique(planned: Iterable[Planned]) -> Iterator[Planned]:
    """The same, with a number behind each name that another has already: `latency_upstream_2`."""
    taken: set[tuple[str, str]] = set()
    for each in planned:
        name, number = each.spec.name, 1
        while (each.proxy, name) in taken:
            number += 1
            name = f"{each.spec.name}_{number}"
        taken.add((each.proxy, name))
        yield replace(each, spec=replace(each.spec, name=name))


def check(planned: Iterable[Planned], proxies: Iterable[Proxy]) -> None:
    """Raises ToxicError where a toxic cannot be on its proxy, now or later."""
    by_name = {proxy.name: proxy for proxy in proxies}
    for each in planned:
        check_spec(each.spec, _proxy(each, by_name).medium)


class Conductor:
    """Has the toxics come and go in time."""

    def __init__(self, loop: Loop, proxies: Proxies, planned: Sequence[Planned]) -> None:
        """Raises ToxicError as `check`."""
        check(planned, proxies)
        self._timers: list[Timer] = []
        by_name = {proxy.name: proxy for proxy in proxies}
        for each in planned:
            proxy = _proxy(each, by_name)
            if each.at:
                self._timers.append(loop.later(each.at, partial(_come, proxy, each)))
            else:
                proxy.add(each.spec)
            if each.lasts is not None:
                until = each.at + each.lasts
                self._timers.append(loop.later(until, partial(_go, proxy, each)))

    def close(self) -> None:
        """Nothing more comes or goes."""
        for timer in self._timers:
            timer.cancel()


def _come(proxy: Proxy, planned: Planned) -> None:
    if proxy.spec(planned.spec.name) is None:  # the API may have been quicker
        proxy.add(planned.spec)


def _go(proxy: Proxy, planned: Planned) -> None:
    if proxy.spec(planned.spec.name) is not None:
        proxy.remove(planned.spec.name)


def _proxy(planned: Planned, by_name: Mapping[str, Proxy]) -> Proxy:
    if not planned.proxy and len(by_name) == 1:
        return next(iter(by_name.values()))
    if planned.proxy in by_name:
        return by_name[planned.proxy]
    known = ", ".join(by_name) or "none"
    which = f"there is no proxy {planned.proxy!r}" if planned.proxy else "say on which proxy"
    raise ToxicError(planned.spec.name, which, f"there is {known}")


def _seconds(given: Any, key: str) -> float:
    seconds = read_seconds(given) if isinstance(given, str) else given
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        raise ToxicError(key, f"it is a time such as 5s, not {given!r}")
    return float(seconds)


def _tables(document: Mapping[str, Any], key: str, file: str) -> list[dict[str, Any]]:
    tables = document.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise ConfigurationError(file, "", key, "it is a single table", f"write [[{key}]]")
    return tables


def _refuse_unknown(table: Mapping[str, Any], known: Sequence[str], file: str, where: str) -> None:
    for key in table:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else "known: " + ", ".join(known)
            raise ConfigurationError(file, where, key, "it is not known", hint)


def _told(file: str, where: str, make: Callable[[], T]) -> T:
    """What `make` gives; an error says where in the file it was met."""
    try:
        return make()
    except ApiError as error:
        raise ConfigurationError(file, where, "", _without_body(error)) from error
    except BothendsError as error:
        raise ConfigurationError(file, where, "", str(error)) from error


def _without_body(error: ApiError) -> str:
    """What the API would answer, of a file: nobody has sent a request."""
    return error.text.removeprefix("bad request body: ")
