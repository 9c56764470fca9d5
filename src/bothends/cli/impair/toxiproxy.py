"""What to type instead of a command of Toxiproxy: `toxiproxy-cli create`, `toxiproxy-server -port 8474`.

The verbs and options are those of Toxiproxy's cmd/cli and cmd/server. `list`, `inspect` and `toggle` have the
same names in `bothends impair`, and are not translated.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Final

from bothends.toxics import registry
from bothends.toxics.attributes import rules_of

_ALIASES: Final = {"new": "create", "ls": "list", "ins": "inspect", "tog": "toggle"}
_TOXIC_VERBS: Final = {
    "add": "add",
    "a": "add",
    "update": "update",
    "u": "update",
    "remove": "remove",
    "r": "remove",
    "delete": "remove",
    "d": "remove",
}
_OPTIONS: Final = {  # the long name of each option with a value
    "l": "listen",
    "listen": "listen",
    "u": "upstream",
    "upstream": "upstream",
    "host": "host",
}
_TOXIC_OPTIONS: Final = {
    "n": "toxicName",
    "toxicName": "toxicName",
    "t": "type",
    "type": "type",
    "tox": "toxicity",
    "toxicity": "toxicity",
    "a": "attribute",
    "attribute": "attribute",
    "host": "host",
}
_FLAGS: Final = {"u": "upstream", "upstream": "upstream", "d": "downstream", "downstream": "downstream"}
_SERVER_OPTION: Final = re.compile(
    r"--?(host|port|proxy-metrics|runtime-metrics)(?:=(.*))?|-(config|seed)(?:=(.*))?"
)


def instead_of(args: Sequence[str]) -> str:
    """Return the command of bothends for the arguments of Toxiproxy's; "" if they are not Toxiproxy's."""
    if not args:
        return ""
    verb = _ALIASES.get(args[0], args[0])
    if verb == "toxic" and len(args) > 1 and args[1] in _TOXIC_VERBS:
        return _toxic(_TOXIC_VERBS[args[1]], args[2:])
    if verb in ("create", "delete") or args[0] in _ALIASES:
        return _proxy(verb, args[1:])
    return _server(args)


def _proxy(verb: str, args: Sequence[str]) -> str:
    options, names = _parse(args, _OPTIONS, {})
    name = names[0] if names else "NAME"
    api = _api(options)
    if verb == "create":
        listen, upstream = (options.get(each, [each.upper()])[-1] for each in ("listen", "upstream"))
        return _line("add", name, listen, upstream, *api)
    if verb == "list":
        return _line("list", *api)
    return _line("remove" if verb == "delete" else verb, name, *api)


def _toxic(verb: str, args: Sequence[str]) -> str:
    """Return the command for `toxic VERB`; "" without an option of Toxiproxy's: VERB is a proxy then."""
    options, names = _parse(args, _TOXIC_OPTIONS, _FLAGS)
    if not options.keys() - {"host"}:
        return ""
    name, toxic = names[0] if names else "NAME", options.get("toxicName", [""])[-1]
    api = _api(options)
    if verb == "remove":
        return _line("remove", name, toxic or "TOXIC", *api)
    named, _, direction = toxic.rpartition("_")
    is_default = bool(named) and direction in ("upstream", "downstream")
    kind = options.get("type", [named if is_default else "TYPE"])[-1]
    direction = direction if verb == "update" and is_default else "downstream"
    prefix = "up:" if "upstream" in options or direction == "upstream" else "down:"
    settings = [_with_unit(kind, each) for each in options.get("attribute", []) if "=" in each]
    settings += [f"toxicity={each}" for each in options.get("toxicity", [])[-1:]]
    if toxic and toxic != f"{kind}_{'upstream' if prefix == 'up:' else 'downstream'}":
        settings.append(f"name={toxic}")
    return _line("toxic", name, kind.replace("_", "-"), prefix + ",".join(settings), *api)


def _with_unit(kind: str, setting: str) -> str:
    """Add the unit to a number: `latency=100` is `latency=100ms` on the command line of bothends."""
    name, _, value = setting.partition("=")
    rules = rules_of(registry.load(kind)) if kind in registry.TOXICS else {}
    unit = rules[name].unit if name in rules else ""
    return setting + (unit if unit in ("ms", "us", "KB/s") and value.replace(".", "", 1).isdigit() else "")


def _server(args: Sequence[str]) -> str:
    """Return the command for toxiproxy-server, if an option is its own."""
    given: dict[str, str] = {}
    rest = list(args)
    while rest:
        found = _SERVER_OPTION.fullmatch(rest.pop(0))
        if found is None:
            return ""
        option, value = found[1] or found[3], found[2] if found[1] else found[4]
        is_switch = option.endswith("-metrics")  # ours always has metrics
        given[option] = "" if is_switch else value or (rest.pop(0) if rest else option.upper())
    words = []
    if "host" in given or "port" in given:
        words += ["--api", f"tcp://{given.get('host', '127.0.0.1')}:{given.get('port', '8474')}"]
    for option in ("config", "seed"):
        words += [f"--{option}", given[option]] if option in given else []
    return _line(*words)


def _parse(
    args: Sequence[str], valued: dict[str, str], flags: dict[str, str]
) -> tuple[dict[str, list[str]], list[str]]:
    """Return the options by their long names, and the other arguments, as urfave/cli parses them."""
    options: dict[str, list[str]] = {}
    others = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-"):
            others.append(word)
        elif option in valued:
            options.setdefault(valued[option], []).append(value if equals else rest.pop(0) if rest else "")
        elif option in flags:
            options[flags[option]] = []
    return options, others


def _api(options: dict[str, list[str]]) -> tuple[str, ...]:
    host = options.get("host", [""])[-1].removeprefix("http://").rstrip("/")
    return ("--api", host) if host else ()


def _line(*words: str) -> str:
    return shlex.join(["bothends", "impair", *words])
