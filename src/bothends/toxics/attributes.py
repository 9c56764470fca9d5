"""Toxic attributes: declare, parse, validate and format them.

JSON holds plain numbers in the units of Toxiproxy's API. Text (command line, TOML strings) may give a unit:
`50ms`, `1.5s`, `10mbit`, `64KiB`, `10%`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from bothends import suggest
from bothends.errors import ToxicError
from bothends.toxics.base import Toxic

Unit = Literal["ms", "us", "KB/s", "bytes", "count", "share", "word"]
Value = int | float | str

T = TypeVar("T", bound=Toxic)

MAX_VALUE: Final = 1e15
"""Maximum of a number: its sums and products with others are finite, and exact as integers."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The unit and valid values of an attribute.

    `in_toxiproxy`: Toxiproxy has the attribute too, so the API always includes it.
    """

    unit: Unit
    description: str
    minimum: float = 0
    maximum: float = MAX_VALUE
    in_toxiproxy: bool = False
    choices: tuple[str, ...] = ()


def attribute(
    default: Value,
    unit: Unit,
    description: str,
    *,
    minimum: float = 0,
    maximum: float = MAX_VALUE,
    in_toxiproxy: bool = False,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare an attribute: a dataclass field of a toxic.

    The maximum of a "share" is 1. The unit "word" takes one of `choices`.
    """
    maximum = min(maximum, 1) if unit == "share" else maximum
    rule = Rule(unit, description, minimum, maximum, in_toxiproxy, choices)
    return dataclasses.field(default=default, metadata={"rule": rule})


def rules_of(kind: type[Toxic]) -> dict[str, Rule]:
    """Return the rules of a toxic class, by attribute name, in declaration order."""
    return {each.name: each.metadata["rule"] for each in dataclasses.fields(kind)}


def from_json(kind: type[T], given: Mapping[str, Any], base: T | None = None) -> T:
    """Build a toxic from the API's `attributes` object.

    An attribute that is missing or null keeps its value in `base`, or its default without one.
    Raises ToxicError.
    """
    rules = rules_of(kind)
    values: dict[str, Value] = {}
    for name, value in given.items():
        rule = _find_rule(kind, rules, name)
        if value is not None:  # null leaves a field unchanged, as in Go's encoding/json
            values[name] = _validated(kind, name, rule, value)
    return dataclasses.replace(base, **values) if base is not None else kind(**values)


def to_json(toxic: Toxic) -> dict[str, Value]:
    """Return the attributes as the API shows them: Toxiproxy's always, extensions only if not the default."""
    shown = {}
    for each in dataclasses.fields(toxic):
        value = getattr(toxic, each.name)
        if each.metadata["rule"].in_toxiproxy or value != each.default:
            shown[each.name] = value
    return shown


def parse_attributes(kind: type[T], text: str) -> T:
    """Build a toxic from its short form, such as `50ms±10ms,distribution=normal`, or from NAME=VALUE pairs.

    `+-` and `+/-` are accepted for `±`. Raises ToxicError.
    """
    rules = rules_of(kind)
    values: dict[str, Value] = {}
    for index, part in enumerate(text.split(",") if text else ()):
        name, equals, written = part.partition("=")
        if equals:
            rule = _find_rule(kind, rules, name.strip().replace("-", "_"))
            name = name.strip().replace("-", "_")
            values[name] = _validated(kind, name, rule, parse_value(kind, name, rule, written.strip()))
            continue
        heads = re.split(r"±|\+/?-", part.strip())
        if index or len(heads) > len(kind.short_form):
            syntax = "±".join(name.upper() for name in kind.short_form)
            hint = f"use {syntax}[,NAME=VALUE...]" if syntax else "use NAME=VALUE,..."
            raise ToxicError(kind.type, f"unexpected {part!r}", hint)
        for name, written in zip(kind.short_form, heads, strict=False):
            values[name] = _validated(kind, name, rules[name], parse_value(kind, name, rules[name], written))
    return kind(**values)


_SECONDS: Final = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_BYTES: Final = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "k": 1000,
    "kib": 1024,
    "mb": 10**6,
    "m": 10**6,
    "mib": 2**20,
    "gb": 10**9,
    "gib": 2**30,
}
# Bytes per second: "bit" is tc(8)'s unit, KB/s Toxiproxy's.
_RATES: Final = {
    **{f"{prefix}bit": 10**power / 8 for prefix, power in (("", 0), ("k", 3), ("m", 6), ("g", 9))},
    **{f"{unit}/s": size for unit, size in _BYTES.items() if unit},
}
_NUMBER: Final = re.compile(r"([0-9]*\.?[0-9]+(?:e-?[0-9]+)?)\s*([a-zµ%/]*)", re.IGNORECASE)


def parse_duration(text: str) -> float | None:
    """Parse a duration with its unit (50ms, 1.5s, 2m). Returns seconds, or None if `text` is not one."""
    number, unit = _split_unit(text)
    return None if number is None or unit not in _SECONDS else number * _SECONDS[unit]


def parse_value(kind: type[Toxic], name: str, rule: Rule, text: str) -> Value:
    """Parse one attribute. Returns it in the API's unit. Raises ToxicError."""
    if rule.unit == "word":
        return text
    number, unit = _split_unit(text)
    if number is None:
        raise ToxicError(kind.type, f"{name} must be {_expected(rule)}, not {text!r}")
    match rule.unit:
        case "ms" | "us" if unit in _SECONDS:
            return _int_if_whole(number * _SECONDS[unit] * (1e3 if rule.unit == "ms" else 1e6))
        case "KB/s" if unit in _RATES:
            return _int_if_whole(number * _RATES[unit] / 1000)
        case "bytes" if unit in _BYTES:
            return _int_if_whole(number * _BYTES[unit])
        case "share" if unit == "%":
            return number / 100
    if unit or (rule.unit in ("ms", "us", "KB/s") and number):
        raise ToxicError(kind.type, f"{name} must be {_expected(rule)}, not {text!r}")
    return _int_if_whole(number)


def _split_unit(text: str) -> tuple[float | None, str]:
    found = _NUMBER.fullmatch(text.strip())
    return (float(found[1]), found[2].lower()) if found else (None, "")


def _int_if_whole(number: float) -> int | float:
    """Turn a whole float into an int, because clients of the API parse integers."""
    rounded = round(number, 9)
    return int(rounded) if rounded == int(rounded) else rounded


def _find_rule(kind: type[Toxic], rules: Mapping[str, Rule], name: str) -> Rule:
    rule = rules.get(name)
    if rule is None:
        nearest = suggest.nearest(name, rules)
        hint = f"did you mean {nearest}?" if nearest else "known: " + ", ".join(rules)
        raise ToxicError(kind.type, f"unknown attribute {name!r}", hint if rules else "it has no attributes")
    return rule


def _validated(kind: type[Toxic], name: str, rule: Rule, value: Any) -> Value:
    if rule.unit == "word":
        if value not in rule.choices:
            raise ToxicError(kind.type, f"{name} must be {_join_choices(rule.choices)}, not {value!r}")
        return str(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value in (math.inf, -math.inf):
        raise ToxicError(kind.type, f"{name} must be {_expected(rule)}, not {value!r}")
    if value != value:  # not a number
        raise ToxicError(kind.type, f"{name} must be {_expected(rule)}, not {value!r}")
    if not rule.minimum <= value <= rule.maximum:
        upper = "" if rule.maximum == MAX_VALUE > value else f" and at most {rule.maximum:g}"
        raise ToxicError(kind.type, f"{name} must be at least {rule.minimum:g}{upper}, not {value!r:.24}")
    if rule.unit in ("bytes", "count") and value != int(value):
        raise ToxicError(kind.type, f"{name} must be {_expected(rule)}, not {value!r}")
    return int(value) if rule.unit in ("bytes", "count") else value


def _expected(rule: Rule) -> str:
    return {
        "ms": "a time such as 50ms",
        "us": "a time such as 200us",
        "KB/s": "a rate such as 10mbit or 500KB/s",
        "bytes": "a number of bytes such as 64KiB",
        "count": "a whole number",
        "share": "a share such as 10% or 0.1",
        "word": "a word",
    }[rule.unit]


def _join_choices(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " or " + words[-1] if len(words) > 1 else words[0]
