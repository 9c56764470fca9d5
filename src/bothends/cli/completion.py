"""`bothends completion SHELL`, and the values that a shell completes: services, engines, cases and so on.

The script that `completion` prints makes the shell run `bothends` with `_BOTHENDS_COMPLETE` set and the
command line in COMP_WORDS (click, "Shell Completion"). click knows the verbs, the options and the choices;
`_VALUES` and `_ARGUMENTS` have the names that bothends looks up in its registries.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, TypeAlias

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    shell_complete,
    split_arg_string,
)

from bothends.cli import terminal
from bothends.errors import BothendsError

VARIABLE: Final = "_BOTHENDS_COMPLETE"
_PREFIXES: Final = ("tcp://", "udp://", "tls://", "unix:", "unix+dgram:", "unix+seqpacket:")
Names: TypeAlias = Mapping[str, str] | Iterable[str]  # with or without a line of help
Source: TypeAlias = Callable[[Mapping[str, str]], Names]  # called with the options given so far

# Where the shell puts a script, and what to do with it.
_INSTALL: Final = {
    "bash": 'add to ~/.bashrc:  eval "$(bothends completion bash)"',
    "zsh": 'add to ~/.zshrc, after compinit:  eval "$(bothends completion zsh)"',
    "fish": "bothends completion fish > ~/.config/fish/completions/bothends.fish",
}

# Readline replaces only what follows the last : or =, so the function gets the line and returns what is left.
# A value that is not finished (tcp://, loss=) gets no space; without values, files are completed.
_BASH: Final = """\
%(complete_func)s() {
    local value
    COMPREPLY=()
    while IFS= read -r value; do
        [[ $value == *[:/=,] ]] && compopt -o nospace
        COMPREPLY+=("$value")
    done < <(COMP_WORDS="${COMP_LINE:0:COMP_POINT}" COMP_CWORD="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -o bashdefault -o default -F %(complete_func)s %(prog_name)s
"""


def _services(given: Mapping[str, str]) -> Names:
    from bothends.services import registry

    return registry.names()


def _services_then_endpoints(given: Mapping[str, str]) -> Names:
    if "" not in given and not {"-e", "--exec", "--config"} & given.keys():
        return _services(given)
    return _PREFIXES


def _endpoints(given: Mapping[str, str]) -> Names:
    return _PREFIXES


def _engines(given: Mapping[str, str]) -> Names:
    from bothends.engines import registry

    return registry.names()


def _toxics(given: Mapping[str, str]) -> Names:
    from bothends.toxics.registry import TOXICS

    return TOXICS.keys()


def _toxics_of_wire(given: Mapping[str, str]) -> Names:
    from bothends.cli.wire_options import wire_names

    return (f"{name}=" for name in wire_names())


def _contracts(given: Mapping[str, str]) -> Names:
    from bothends.check import contract

    return contract.builtin_names()


def _cases(given: Mapping[str, str]) -> Names:
    """Return the cases for the contract that is given, or of all suites."""
    from bothends.check import contract
    from bothends.check.suites.registry import SUITES, cases, suite_for

    agreed = contract.load(given["--contract"]) if "--contract" in given else None
    verb = given.get("check", "")
    role: Literal["server", "client"] = "client" if "client" in (verb, given.get("--role")) else "server"
    if verb == "proxy":
        suites = [name for name in SUITES if "proxy" in name]
    else:
        suites = [suite_for(agreed, role)] if agreed else list(SUITES)
    return {case.id: case.stimulus for name in suites for case in cases(name, agreed)}


def _suites(given: Mapping[str, str]) -> Names:
    from bothends.check.suites.registry import SUITES

    return SUITES.keys()


def _attacks(given: Mapping[str, str]) -> Names:
    from bothends.attack.attacks.registry import ATTACKS

    return {attack.id: attack.does for attack in ATTACKS.values()}


def _questions(given: Mapping[str, str]) -> Names:
    from bothends.trace.query import QUESTIONS

    return QUESTIONS if "" in given else ()  # the first argument is a file


def _rules(given: Mapping[str, str]) -> Names:
    from bothends.trace.findings.registry import RULES

    return RULES.keys()


def _reports(given: Mapping[str, str]) -> Names:
    from bothends.cli.check.options import REPORT_FORMATS

    return REPORT_FORMATS


def _of_starters(name: str) -> Source:
    def names(given: Mapping[str, str]) -> Names:
        from bothends.starters import writing

        found: Names = getattr(writing, name)
        return found

    return names


# Option -> its values; before it the verb, where the same option means something else for another one.
_VALUES: Final[Mapping[str, Source]] = {
    "--engine": _engines,
    "--contract": _contracts,
    "--wire": _toxics_of_wire,
    "--toxic": _toxics,
    "--report": _reports,
    "--metrics": _endpoints,
    "--api": _endpoints,
    "--endpoint": _endpoints,
    "--upstream": _endpoints,
    "check --only": _cases,
    "attack --only": _attacks,
    "sockets --only": lambda given: ("tcp", "udp", "unix", "listen"),
    "query --rule": _rules,
    "new --lang": _of_starters("LANGUAGES"),
    "new --transport": _of_starters("TRANSPORTS"),
    "new --service": _of_starters("SERVICES"),
    "new --style": _of_starters("STYLES"),
}

# Verb, of `check` with the verb below it -> its arguments.
_ARGUMENTS: Final[Mapping[str, Source]] = {
    "serve": _services_then_endpoints,
    "connect": _endpoints,
    "impair": _endpoints,
    "bench": _endpoints,
    "bench engines": _engines,
    "attack": _endpoints,
    "query": _questions,
    "check list": _suites,
    "check explain": _cases,
}


class _Values(ShellComplete):
    """Completes from `_VALUES` and `_ARGUMENTS`; else as click does."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Return the items for an incomplete word, after the words `args`."""
        try:
            source, kept, begun = self._find_source(args, incomplete)
            if source is None:
                return super().get_completions(args, incomplete)
            names = source(self._given(args))
        except (BothendsError, click.ClickException):
            return []  # an unknown verb, or a contract with an error
        lines = names if isinstance(names, Mapping) else dict.fromkeys(names, "")
        return [
            CompletionItem(kept + name, help=help_line or None)
            for name, help_line in lines.items()
            if name.startswith(begun)
        ]

    def _find_source(self, args: list[str], incomplete: str) -> tuple[Source | None, str, str]:
        """Return the source for a word, the part of the word that stays, and the rest, to be completed."""
        verb = args[0] if args else ""
        if "--" in args:
            return None, "", incomplete
        option, equals, begun = incomplete.partition("=")
        if equals and option.startswith("--"):
            kept = option + "="
        else:
            option, begun, kept = args[-1] if args else "", incomplete, ""
        source = _VALUES.get(f"{verb} {option}") or _VALUES.get(option)
        if source is not None:
            if option in ("--wire", "--toxic"):
                before, comma, begun = begun.rpartition(",")
                kept += before + comma
            return source, kept, begun
        if incomplete.startswith("-") or self._takes_value(args):
            return None, "", incomplete
        return _ARGUMENTS.get(" ".join(args[:2])) or _ARGUMENTS.get(verb), "", incomplete

    def _takes_value(self, args: list[str]) -> bool:
        """Return whether the last word is an option of the verb that takes a value."""
        if len(args) < 2 or not args[-1].startswith("-"):
            return False
        option = _options(self.cli, args).get(args[-1])
        return option is not None and not option.is_flag and not option.count

    def _given(self, args: list[str]) -> dict[str, str]:
        """Return the options given so far, with their values.

        Under "" is the last argument, under the name of the verb the first, which is the verb below it.
        """
        options = _options(self.cli, args)
        given: dict[str, str] = {}
        words = iter(args[1:])
        for word in words:
            name, equals, value = word.partition("=")
            if name not in options:
                given.setdefault(args[0], word)
                given[""] = word
            elif options[name].is_flag:
                given[name] = ""
            else:
                given[name] = value if equals else next(words, "")
        return given


def _options(cli: click.Command, args: list[str]) -> dict[str, click.Option]:
    """Return the options of the verb in `args`, and of the verb below it, by their names."""
    found: dict[str, click.Option] = {}
    command, context = cli, click.Context(cli, info_name="bothends")
    for word in args[:2]:
        if not isinstance(command, click.Group):
            break
        below = command.get_command(context, word)
        if below is None:
            break
        command, context = below, click.Context(below, parent=context, info_name=word)
        found |= {
            name: each
            for each in command.get_params(context)
            if isinstance(each, click.Option)
            for name in (*each.opts, *each.secondary_opts)
        }
    return found


class _Bash(_Values, BashComplete):
    """Words are separated by blanks only; what readline keeps of a word is left out."""

    source_template = _BASH

    def source(self) -> str:
        """Return the script, without starting bash to learn its version."""
        return ShellComplete.source(self)

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the incomplete one, and that one."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        return (words, "") if line[-1:].isspace() or not words else (words[:-1], words[-1])

    def complete(self) -> str:
        """Return one value for each line."""
        args, incomplete = self.get_completion_args()
        breaks = re.escape("".join(set(os.environ["COMP_CWORD"]) & set(":=")))
        kept = re.match(f".*[{breaks}]", incomplete) if breaks else None
        items = self.get_completions(args, incomplete)
        return "\n".join(item.value[kept.end() if kept else 0 :] for item in items if item.type == "plain")


class _Zsh(_Values, ZshComplete):
    """As click does it."""


class _Fish(_Values, FishComplete):
    """As click does it."""


_SHELLS: Final[Mapping[str, type[_Bash] | type[_Zsh] | type[_Fish]]] = {
    "bash": _Bash,
    "zsh": _Zsh,
    "fish": _Fish,
}


def answer_shell(command_line: click.Command, instruction: str) -> int:
    """Print the completions that a shell asks for with `_BOTHENDS_COMPLETE`. Returns the exit status."""
    for name, kind in _SHELLS.items():
        add_completion_class(kind, name)
    return shell_complete(command_line, {}, "bothends", VARIABLE, instruction)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("shell", type=click.Choice(list(_INSTALL)))
def completion(shell: str) -> None:
    """Print the script that completes verbs, options, services, engines, contracts, cases and toxics.

    \b
    For example:
      eval "$(bothends completion bash)"      in ~/.bashrc
      eval "$(bothends completion zsh)"       in ~/.zshrc, after compinit
      bothends completion fish > ~/.config/fish/completions/bothends.fish
    """
    command_line = click.get_current_context().find_root().command
    kind = _SHELLS[shell]
    terminal.show(f"# {_INSTALL[shell]}")
    terminal.show(kind(command_line, {}, "bothends", VARIABLE).source(), end="")
