"""The reference pages list every scheme, option, service, engine and environment variable, and no other."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bothends.cli.main import VERBS
from bothends.endpoints.schemes import OPTIONS, SCHEMES, WRAPPERS, OptionRule, SchemeRule
from bothends.engines import registry as engines
from bothends.services import registry as services

# Names on the page for groups of schemes.
GROUPS = {
    "IP": {"tcp", "udp", "tls", "mptcp", "sctp"},
    "TCP": {"tcp", "tls", "mptcp"},
    "UNIX": {"unix", "unix+dgram", "unix+seqpacket"},
}

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"


def section_of(page: str, title: str) -> str:
    """Return the text between a second-level heading and the next one."""
    text = (REFERENCE / page).read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/reference/{page} has no section {title!r}"
    return found[1]


def rows_of(page: str, title: str) -> list[list[str]]:
    """Return the cells of a section's first table, without its header."""
    table = re.search(r"(?:^\|.*\n)+", section_of(page, title), re.MULTILINE)
    assert table, f"docs/reference/{page} has no table under {title!r}"
    return [[cell.strip() for cell in row.strip("|").split(" |")] for row in table[0].splitlines()[2:]]


def value_range(name: str, rule: OptionRule) -> str:
    match rule.kind:
        case "number" if name in ("family", "header"):
            return f"{rule.minimum} or {rule.maximum}"
        case "flag":
            return "0 or 1"
        case "octal":
            return f"octal, {rule.minimum:o} to {rule.maximum:o}"
        case "number":
            return f"{rule.minimum:,} to {rule.maximum:,}"
        case "word":
            return f"a word, {rule.minimum:,} to {rule.maximum:,} characters"
        case "networks":
            return f"networks, {rule.minimum:,} to {rule.maximum:,} characters"


def scheme_row(name: str, rule: SchemeRule) -> list[str]:
    return [f"`{name}`", rule.kind, rule.fields, rule.socket_type, "yes" if rule.wrappable else "-"]


def option_row(name: str, rule: OptionRule) -> list[str]:
    remaining, words = set(rule.schemes), []
    for group, members in GROUPS.items():
        if members <= remaining:
            remaining -= members
            words.append(group)
    words += [scheme for scheme in SCHEMES if scheme in remaining]
    return [f"`{name}`", value_range(name, rule), ", ".join(words), rule.meaning]


def test_endpoints_page_lists_every_scheme() -> None:
    shown = [row[:5] for row in rows_of("endpoints.md", "Schemes")]
    assert shown == [scheme_row(*each) for each in SCHEMES.items()]


def test_endpoints_page_lists_every_option() -> None:
    shown = rows_of("endpoints.md", "Options")
    assert shown == [option_row(*each) for each in OPTIONS.items() if not each[1].wrapper]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_endpoints_page_lists_every_option_of_wrapper(wrapper: str) -> None:
    shown = rows_of("endpoints.md", f"The wrapper {wrapper}")
    assert shown == [option_row(*each) for each in OPTIONS.items() if each[1].wrapper == wrapper]


def test_services_page_lists_every_service() -> None:
    shown = {row[0]: row[1:] for row in rows_of("services.md", "The list")}
    assert list(shown) == [f"`{name}`" for name in services.BUILT_IN]
    for name in services.BUILT_IN:
        service = services.load(name)
        stream, datagram, limit = shown[f"`{name}`"][:3]
        assert (stream != "-", datagram != "-") == (service.streams, service.datagrams), name
        rate = service.answers_per_second
        assert limit == ("-" if rate is None or not service.datagrams else f"{rate:,.0f}"), name


def test_command_line_page_lists_every_engine() -> None:
    expected = []
    for name in engines.names():
        engine = engines.load(name)
        abilities = ("yes" if able else "-" for able in (engine.datagrams, engine.supports_push))
        expected.append([f"`{name}`", engine.summary, *abilities])
    assert rows_of("command-line.md", "engines") == expected


def option_names(verb: str) -> Iterator[str]:
    """Yield the options of a verb and its subcommands, each once."""
    module, _, attribute = VERBS[verb][0].partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    subcommands: list[click.Command] = getattr(command, "subcommands", list)()  # such as `bench engines`
    commands = command.commands.values() if isinstance(command, click.Group) else [command, *subcommands]
    found = [parameter for each in commands for parameter in each.params]
    # An option of several commands of a group has one row.
    yield from sorted({
        name
        for parameter in found
        if isinstance(parameter, click.Option) and not parameter.hidden
        for name in (*parameter.opts, *parameter.secondary_opts)
    })  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_command_line_page_lists_every_option(verb: str) -> None:
    text = section_of("command-line.md", verb)
    cells = re.findall(r"^\| (`-.*?) \|", text, re.MULTILINE)
    shown = re.findall(r"`(--?[a-zA-Z0-9-]+)", " ".join(cells))
    assert sorted(shown) == sorted(option_names(verb)), f"docs/reference/command-line.md, section {verb}"


def test_command_line_page_lists_every_environment_variable() -> None:
    source = Path(__file__).resolve().parent.parent / "src" / "bothends"
    code = "\n".join(path.read_text(encoding="utf-8") for path in source.rglob("*.py"))
    read = set(re.findall(r'environ(?:ment)?\.get\("(\w+)"', code))
    read |= set(re.findall(r'"(\w+)" in os\.environ', code))
    shown = {
        name for row in rows_of("command-line.md", "Environment") for name in re.findall(r"`(\w+)`", row[0])
    }
    assert "NO_COLOR" in read
    assert shown >= read
