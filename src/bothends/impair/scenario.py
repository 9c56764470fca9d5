"""Schedules of toxics: parse them from the command line or a file, and add and remove the toxics in time.

On the command line: `[up:|down:]SHORT[,NAME=VALUE...]`, with attributes of the toxic and of its placement:

    50ms±10ms,distribution=normal,at=5s,for=3s,toxicity=50%,clients=10.0.0.0/8+192.0.2.0/24,name=slow

In a scenario file (TOML):

    seed = 7

    [[proxy]]
    name = "db"
    listen = "tcp://127.0.0.1:12001"
    upstream = "tcp://127.0.0.1:12000"

    [[toxic]]
    type = "latency"
    stream = "downstream"           # default: both directions
    latency = "50ms"
    at = "5s"                       # from the start of the run; default: at once
    for = "3s"                      # default: until the end of the run
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from bothends import suggest
from bothends.errors import BothendsError, ConfigurationError, ToxicError
from bothends.impair.api import ApiError, parse_networks, parse_proxies, parse_proxy
from bothends.impair.proxies import ProxyCollection, ProxyConfig
from bothends.impair.proxy import Proxy, check_placement
from bothends.osutil.event_loop import EventLoop, Timer
from bothends.textfile import parse_json, parse_toml, read_text
from bothends.toxics import registry
from bothends.toxics.attributes import (
    Rule,
    Value,
    from_json,
    parse_attributes,
    parse_duration,
    parse_value,
    rules_of,
)
from bothends.toxics.base import Toxic
from bothends.toxics.placement import DIRECTIONS, Direction, PlacedToxic

T = TypeVar("T")

_DIRECTION_PREFIXES: Final[Mapping[str, tuple[Direction, ...]]] = {
    "up": ("upstream",),
    "down": ("downstream",),
}
_PLACEMENT_KEYS: Final = ("name", "at", "for", "toxicity", "clients")
_TOXICITY_RULE: Final = Rule("share", "", maximum=1)


@dataclass(frozen=True, slots=True)
class ScheduledToxic:
    """A toxic to add `at` seconds after the start, for `duration` seconds (None: until the end).

    `proxy` is the name of a proxy; "" means the only one.
    """

    placed: PlacedToxic
    proxy: str = ""
    at: float = 0.0
    duration: float | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """The contents of a scenario file. `duration` in seconds."""

    proxies: tuple[ProxyConfig, ...] = ()
    scheduled: tuple[ScheduledToxic, ...] = ()
    seed: int | None = None
    duration: float | None = None


def parse_toxic(kind: str, text: str) -> Iterator[ScheduledToxic]:
    """Parse the command-line form of a toxic. Yields one per direction. Raises ToxicError, UnknownName."""
    toxic = registry.load(kind)
    prefix, colon, rest = text.partition(":")
    directions = _DIRECTION_PREFIXES.get(prefix, DIRECTIONS) if colon else DIRECTIONS
    attributes: list[str] = []
    placement: dict[str, Any] = {}
    for part in (rest if len(directions) == 1 else text).split(","):
        name, equals, value = part.partition("=")
        if equals and name in _PLACEMENT_KEYS and name not in rules_of(toxic):
            placement[name] = value.split("+") if name == "clients" else value
        elif part:
            attributes.append(part)
    yield from _schedule_directions(parse_attributes(toxic, ",".join(attributes)), directions, placement)


def read_scenario(path: Path) -> Scenario:
    """Read a scenario (TOML), or a configuration file of Toxiproxy (a name that ends in .json).

    Raises SystemCallFailed, ConfigurationError.
    """
    text = read_text(path)
    try:
        if path.suffix == ".json":
            return Scenario(tuple(parse_proxies(parse_json(text, str(path)))))
        return _parse_scenario(parse_toml(text, str(path)), str(path))
    except ApiError as error:
        raise ConfigurationError(str(path), "", "", _error_text(error)) from error
    except ConfigurationError:
        raise
    except BothendsError as error:
        raise ConfigurationError(str(path), "", "", str(error)) from error


def _parse_scenario(document: dict[str, Any], file: str) -> Scenario:
    _reject_unknown_keys(document, ("seed", "for", "proxy", "toxic"), file, "")
    seed = document.get("seed")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise ConfigurationError(file, "", "seed", "must be a whole number")
    proxies = []
    for number, table in enumerate(_tables(document, "proxy", file), 1):
        where = f"[[proxy]] {number}"
        _reject_unknown_keys(table, ("name", "listen", "upstream", "enabled", "framing"), file, where)
        proxies.append(_with_location(file, where, partial(parse_proxy, table, "")))
    scheduled: list[ScheduledToxic] = []
    for number, table in enumerate(_tables(document, "toxic", file), 1):
        scheduled += _with_location(file, f"[[toxic]] {number}", partial(_parse_toxic_table, table))
    duration = _parse_seconds(document.get("for"), "for") if "for" in document else None
    return Scenario(tuple(proxies), tuple(with_unique_names(scheduled)), seed, duration)


def _parse_toxic_table(table: Mapping[str, Any]) -> list[ScheduledToxic]:
    attributes = dict(table)
    kind = attributes.pop("type", "")
    toxic = registry.load(str(kind))
    rules = rules_of(toxic)
    placement: dict[str, Any] = {
        key: attributes.pop(key) for key in _PLACEMENT_KEYS if key in attributes and key not in rules
    }
    stream = attributes.pop("stream", None)
    if stream not in (None, *DIRECTIONS):
        raise ToxicError(toxic.type, "stream must be upstream or downstream; omit it for both directions")
    proxy = str(attributes.pop("proxy", ""))
    values: dict[str, Value] = {}
    for name, value in attributes.items():
        rule = rules.get(name)
        values[name] = parse_value(toxic, name, rule, value) if rule and isinstance(value, str) else value
    directions: Sequence[Direction] = DIRECTIONS if stream is None else (stream,)
    return [
        replace(each, proxy=proxy)
        for each in _schedule_directions(from_json(toxic, values), directions, placement)
    ]


def _schedule_directions(
    toxic: Toxic, directions: Sequence[Direction], placement: Mapping[str, Any]
) -> Iterator[ScheduledToxic]:
    toxicity: Any = placement.get("toxicity", 1.0)
    if isinstance(toxicity, str):
        toxicity = parse_value(type(toxic), "toxicity", _TOXICITY_RULE, toxicity)
    if isinstance(toxicity, bool) or not isinstance(toxicity, int | float) or not 0 <= toxicity <= 1:
        raise ToxicError(toxic.type, "toxicity must be a share such as 50% or 0.5")
    clients = placement.get("clients", [])
    networks = parse_networks(clients if isinstance(clients, list) else [clients])
    at = _parse_seconds(placement["at"], "at") if "at" in placement else 0.0
    duration = _parse_seconds(placement["for"], "for") if "for" in placement else None
    for direction in directions:
        name = str(placement.get("name", ""))
        if not name or len(directions) > 1:
            name = f"{name or toxic.type}_{direction}"
        spec = PlacedToxic(name, direction, toxic, float(toxicity), networks)
        yield ScheduledToxic(spec, at=at, duration=duration)


def with_unique_names(scheduled: Iterable[ScheduledToxic]) -> Iterator[ScheduledToxic]:
    """Yield the same toxics, with a number appended to each name already taken: `latency_upstream_2`."""
    taken: set[tuple[str, str]] = set()
    for each in scheduled:
        name, number = each.placed.name, 1
        while (each.proxy, name) in taken:
            number += 1
            name = f"{each.placed.name}_{number}"
        taken.add((each.proxy, name))
        yield replace(each, placed=replace(each.placed, name=name))


def check_placements(scheduled: Iterable[ScheduledToxic], proxies: Iterable[Proxy]) -> None:
    """Raise ToxicError if the medium of a proxy does not support a toxic scheduled on it."""
    by_name = {proxy.name: proxy for proxy in proxies}
    for each in scheduled:
        check_placement(each.placed, _find_proxy(each, by_name).medium)


class ToxicScheduler:
    """Adds and removes the toxics of a scenario in time."""

    def __init__(
        self, loop: EventLoop, proxies: ProxyCollection, scheduled: Sequence[ScheduledToxic]
    ) -> None:
        """Add the toxics due at once, and start timers for the others. Raises ToxicError."""
        check_placements(scheduled, proxies)
        self._timers: list[Timer] = []
        by_name = {proxy.name: proxy for proxy in proxies}
        for each in scheduled:
            proxy = _find_proxy(each, by_name)
            if each.at:
                self._timers.append(loop.call_later(each.at, partial(_start, proxy, each)))
            else:
                proxy.add_toxic(each.placed)
            if each.duration is not None:
                until = each.at + each.duration
                self._timers.append(loop.call_later(until, partial(_stop, proxy, each)))

    def close(self) -> None:
        """Cancel the timers."""
        for timer in self._timers:
            timer.cancel()


def _start(proxy: Proxy, scheduled: ScheduledToxic) -> None:
    if proxy.find_toxic(scheduled.placed.name) is None:  # the API may already have added it
        proxy.add_toxic(scheduled.placed)


def _stop(proxy: Proxy, scheduled: ScheduledToxic) -> None:
    if proxy.find_toxic(scheduled.placed.name) is not None:
        proxy.remove_toxic(scheduled.placed.name)


def _find_proxy(scheduled: ScheduledToxic, by_name: Mapping[str, Proxy]) -> Proxy:
    if not scheduled.proxy and len(by_name) == 1:
        return next(iter(by_name.values()))
    if scheduled.proxy in by_name:
        return by_name[scheduled.proxy]
    known = ", ".join(by_name) or "none"
    reason = f"unknown proxy {scheduled.proxy!r}" if scheduled.proxy else "no proxy given"
    raise ToxicError(scheduled.placed.name, reason, f"known proxies: {known}")


def _parse_seconds(given: Any, key: str) -> float:
    seconds = parse_duration(given) if isinstance(given, str) else given
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        raise ToxicError(key, f"must be a time such as 5s, not {given!r}")
    return float(seconds)


def _tables(document: Mapping[str, Any], key: str, file: str) -> list[dict[str, Any]]:
    tables = document.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise ConfigurationError(file, "", key, "not an array of tables", f"write [[{key}]]")
    return tables


def _reject_unknown_keys(table: Mapping[str, Any], known: Sequence[str], file: str, where: str) -> None:
    for key in table:
        if key not in known:
            nearest = suggest.nearest(key, known)
            hint = f"did you mean {nearest!r}?" if nearest else "known: " + ", ".join(known)
            raise ConfigurationError(file, where, key, "unknown key", hint)


def _with_location(file: str, where: str, parse: Callable[[], T]) -> T:
    """Call `parse`, and add the location in the file to its errors. Raises ConfigurationError."""
    try:
        return parse()
    except ApiError as error:
        raise ConfigurationError(file, where, "", _error_text(error)) from error
    except BothendsError as error:
        raise ConfigurationError(file, where, "", str(error)) from error


def _error_text(error: ApiError) -> str:
    """Return the text of an API error without its prefix, because a file is not a request."""
    return error.text.removeprefix("bad request body: ")
