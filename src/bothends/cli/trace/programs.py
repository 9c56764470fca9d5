"""The programs of `bothends trace`: commands, or source files that are built first."""

from __future__ import annotations

import contextlib
import itertools
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bothends import suggest
from bothends.osutil.scratch import scratch_folder
from bothends.source_programs import (
    LANGUAGES,
    BuildFailed,
    NotAProgram,
    Recipe,
    find_file_recipe,
    is_runnable,
)
from bothends.trace.capture import tracees
from bothends.trace.capture.bpf import FollowedProcesses
from bothends.trace.capture.running_processes import (
    find_cgroup,
    find_container,
    pids_at_port,
    pids_in_cgroup,
)

if TYPE_CHECKING:
    from bothends.trace.session import TraceSession


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs to trace, as given on the command line."""

    command: Sequence[str] = ()
    servers: Sequence[str] = ()
    clients: Sequence[str] = ()
    lanes: Sequence[str] = ()
    pids: Sequence[int] = ()
    port: int = 0  # follow the processes with a socket at it; 0 for none
    cgroup: str = ""  # follow the processes in it
    container: str = ""

    def __bool__(self) -> bool:
        started = self.command or self.servers or self.clients or self.lanes
        return bool(started or self.pids or self.follows)

    @property
    def follows(self) -> bool:
        """Whether processes are followed that may be many, and come and go."""
        return bool(self.port or self.cgroup or self.container)

    @property
    def roles(self) -> list[str]:
        """Names of the programs to start, in the order of `add_to`."""
        roles = [role for role, _ in _numbered("server", self.servers)]
        roles += [role for role, _ in _numbered("client", self.clients)]
        roles += [lane.partition("=")[0] for lane in self.lanes]
        return roles + ([self.command[0].rpartition("/")[2]] if self.command else [])

    def with_files(self) -> Programs:
        """Return the programs with those in `command` that are files as servers and clients.

        A word with spaces is a program with its arguments, as in a shell. Of several programs the first is
        the server, unless there is one; the others are clients.

        Raises:
            click.UsageError: two programs and then something else: either may be meant.
        """
        texts = [_as_text(word, is_first=at == 0) for at, word in enumerate(self.command)]
        count = next((at for at, text in enumerate(texts) if not _is_program(text)), len(texts))
        has_others = bool(self.servers or self.clients or self.lanes)
        if len(texts) == 1 and count == 1 and not has_others:
            return self if _is_file(texts[0]) else replace(self, command=tracees.split_words(texts[0]))
        if count == 0 or (count == 1 and len(texts) > 1):
            return self._checked()
        if count < len(texts):
            first, second, *others = self.command
            quoted = shlex.quote(shlex.join([second, *others]))
            raise click.UsageError(
                f"quote a program with its arguments: {first} {quoted}; or for one program: -- "
                + shlex.join(self.command)
            )
        servers = self.servers or texts[:1]
        clients = texts if self.servers else texts[1:]
        return replace(self, command=(), servers=servers, clients=[*clients, *self.clients])

    def _checked(self) -> Programs:
        """Return the same programs. Raises click.UsageError if `command` contains two of them, unquoted."""
        starts = [
            at
            for at, (word, following) in enumerate(itertools.pairwise(self.command))
            if shutil.which(word) and Path(following).suffix in LANGUAGES and Path(following).is_file()
        ]
        if starts[:1] == [0] and len(starts) > 1:
            parts = [self.command[at:end] for at, end in itertools.pairwise([*starts, len(self.command)])]
            quoted = " ".join(shlex.quote(shlex.join(part)) for part in parts)
            raise click.UsageError(
                f"quote each program: {quoted}; or for one program: -- {shlex.join(self.command)}"
            )
        return self

    @property
    def note(self) -> str:
        """Which words are arguments of the only program, if they may have been meant otherwise."""
        first, *others = self.command or ("",)
        if not others or not _is_file(shlex.quote(first)):
            return ""
        return (
            f"one program is traced: {shlex.join(self.command)}; for a server and a client, "
            "give two files, each quoted with its arguments"
        )

    def add_to(self, session: TraceSession, builder: ProgramBuilder, output: int | None) -> None:
        """Build the programs and add them to a session.

        `output` is the descriptor for their standard output, or None to inherit it.

        Raises:
            BothendsError, click.UsageError: a program cannot be built or run.
        """
        servers = [(role, builder.split_command(text)) for role, text in _numbered("server", self.servers)]
        clients = [(role, builder.split_command(text)) for role, text in _numbered("client", self.clients)]
        for lane in self.lanes:
            name, has_command, text = lane.partition("=")
            if not has_command:
                raise click.UsageError(f"--lane takes NAME=COMMAND, but {lane!r} has no =")
            clients.append((name, builder.split_command(text)))
        if self.command:
            clients.append((self.command[0].rpartition("/")[2], builder.find_command(self.command)))
        for role, argv in servers:
            session.add_server(role, argv, output=output)
        for index, (role, argv) in enumerate(clients):
            session.add_client(role, argv, inherit_stdin=index == 0, output=output)
        for pid in self.pids:
            session.attach(f"process {pid}", pid)
        if self.port:
            port = self.port
            session.follow(f"port {port}", FollowedProcesses(lambda: pids_at_port(port), port))
        for name, find in ((self.cgroup, find_cgroup), (self.container, find_container)):
            if name:
                folder = find(name)
                session.follow(name, FollowedProcesses(partial(pids_in_cgroup, folder)))


class ProgramBuilder:
    """Turns command lines into those of programs; builds source files. A context manager.

    Built programs are in a temporary folder, which is removed at the end.
    """

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._folder: Path | None = None
        self._recipes: dict[Path, Recipe] = {}

    def __enter__(self) -> ProgramBuilder:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def split_command(self, text: str) -> list[str]:
        """Split a command line as a shell does, and find its program. Raises as `find_command`."""
        return self.find_command(tracees.split_words(text), text)

    def find_command(self, argv: Sequence[str], text: str = "") -> list[str]:
        """Return the command line with a source file replaced by the command that runs it.

        Raises:
            NoSuchProgram, NotAProgram: there is no such program, or it cannot be run.
            Unavailable: its compiler or interpreter is not installed.
            BuildFailed: the compiler has reported errors.
        """
        if argv and _is_file(shlex.quote(argv[0])):
            path = Path(argv[0])
            if not path.exists():
                nearest = suggest.nearest(path.name, [each.name for each in _siblings(path)])
                hint = f"did you mean {path.parent / nearest}?" if nearest else ""
                raise NotAProgram(argv[0], "there is no such file", hint)
            return [*self._build(path).run, *argv[1:]]
        if argv and Path(argv[0]).is_dir() and shutil.which(argv[0]) is None:
            raise NotAProgram(argv[0], "it is a folder")
        if argv and shutil.which(argv[0]) is None:
            path = Path(argv[0])
            found = [each for each in _siblings(path) if each.stem == path.name and each.suffix in LANGUAGES]
            if found:
                raise NotAProgram(argv[0], "there is no such command or file", f"did you mean {min(found)}?")
        tracees.check_program(argv, text)
        return list(argv)

    def _build(self, path: Path) -> Recipe:
        if path in self._recipes:
            return self._recipes[path]
        if self._folder is None:
            self._folder = self._stack.enter_context(scratch_folder("build"))
        output = self._folder / str(len(self._recipes))
        output.mkdir()
        recipe = find_file_recipe(path, output)
        for command in recipe.build:
            status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=2, check=False).returncode
            if status:
                raise BuildFailed(str(path), command[0], status)
        self._recipes[path] = recipe
        return recipe


def _numbered(role: str, texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    for number, text in enumerate(texts, 1):
        yield (role if number == 1 else f"{role} {number}"), text


def _is_file(text: str) -> bool:
    """Return whether a command line starts with a program's file, not with the name of a command.

    A file with the suffix of a language counts even if it doesn't exist, unless a command has its name.
    """
    try:
        word = next(iter(shlex.split(text)), "")
    except ValueError:
        return False
    path = Path(word)
    if not word or path.is_dir():
        return False
    if is_runnable(path) and ("/" in word or path.suffix in LANGUAGES):
        return True
    return shutil.which(word) is None and (path.is_file() or path.suffix in LANGUAGES)


def _as_text(word: str, *, is_first: bool) -> str:
    """Return a word of the command line as a command: a file is quoted.

    Unless it is the first word, a file counts even if a command has its name.
    """
    path = Path(word)
    if not is_first and is_runnable(path) and not _is_file(shlex.quote(word)):
        return shlex.quote(f"./{word}")
    return shlex.quote(word) if path.exists() else word


def _is_program(text: str) -> bool:
    """Return whether a word of the command line is a program: a file, or a command with its arguments."""
    if _is_file(text):
        return True
    try:
        words = shlex.split(text)
    except ValueError:
        return False
    return len(words) > 1 and shutil.which(words[0]) is not None


def _siblings(path: Path) -> list[Path]:
    try:
        return list(path.parent.iterdir())
    except OSError:
        return []
