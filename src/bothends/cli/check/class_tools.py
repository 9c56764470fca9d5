"""`bothends check gradescope` and `bothends check classroom`: autograders for a class, from a contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bothends.cli import terminal
from bothends.cli.check.options import allow_code_option
from bothends.errors import SystemCallFailed, UsageError
from bothends.textfile import read_text

if TYPE_CHECKING:
    from bothends.check.batch.grading import BatchSettings

_HELP: Final = {"help_option_names": ["-h", "--help"]}
_CLASSROOM_FOLDER: Final = ".github/bothends"


def _class_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed((
        click.argument("folder", type=click.Path(path_type=Path, file_okay=False)),
        click.option(
            "--contract", required=True, metavar="NAME",
            help="Expected behaviour: a built-in contract, or a file.",
        ),
        allow_code_option,
        click.option(
            "--role", type=click.Choice(["server", "client"]), default="server", help="Default: server."
        ),
        click.option("--only", multiple=True, metavar="CASE", help="Only this case; may be repeated."),
    )):  # fmt: skip
        command = option(command)
    return command


@click.command(context_settings=_HELP)
@_class_options
@click.option("--thorough", is_flag=True, help="Also run slow and large cases.")
@click.option(
    "--apt", "packages", multiple=True, metavar="PACKAGE",
    help="A package that the image gets, such as gcc or default-jdk; may be repeated.",
)  # fmt: skip
def gradescope(folder: Path, packages: tuple[str, ...], **options: Any) -> None:
    """Write FOLDER/autograder.zip, which judges the submissions of a Gradescope assignment.

    It holds bothends, what it imports, and the contract; a submission is judged without a network.

    \b
    For example:
      bothends check gradescope hw1 --contract upper-tcp --apt default-jdk
    """
    from bothends.check.batch.autograder_archive import make_archive

    for package in packages:
        if not package.replace("-", "").replace("+", "").replace(".", "").replace(":", "").isalnum():
            raise UsageError(f"{package!r} is not the name of a package")
    content = make_archive(_settings(**options), packages)
    path = folder / "autograder.zip"
    _write(path, content)
    terminal.show(f"{path} ({len(content) >> 10:,} KiB): upload it as the autograder of the assignment")


@click.command(context_settings=_HELP)
@_class_options
def classroom(folder: Path, **options: Any) -> None:
    """Write a workflow for GitHub Classroom into FOLDER, the template repository of an assignment.

    It judges each push, and reports the points of each case to GitHub Classroom.

    \b
    For example:
      bothends check classroom template --contract upper-tcp
    """
    from bothends.check import contract as contracts
    from bothends.check.batch.autograder_archive import make_workflow

    settings = _settings(thorough=False, **options)
    contract = options["contract"]
    if contracts.is_file_name(contract):
        if any(".." in Path(name).parts for name, _ in settings.contract_files):
            raise UsageError("the Python code of the contract must be in its folder or below it")
        contract = f"{_CLASSROOM_FOLDER}/contract.toml"
        _write(folder / contract, settings.contract.encode())
        for name, text in settings.contract_files:
            _write(folder / _CLASSROOM_FOLDER / name, text.encode("latin-1"))
    workflow = folder / ".github/workflows/classroom.yml"
    text = make_workflow(settings.role, contract, settings.only, allow_code=settings.allow_code)
    _write(workflow, text.encode())
    terminal.show(f"{workflow}: commit it in the template repository of the assignment")


def _settings(
    contract: str, allow_code: bool, role: str, only: tuple[str, ...], thorough: bool
) -> BatchSettings:
    from bothends.check import contract as contracts
    from bothends.check.batch.contract_copy import find_files
    from bothends.check.batch.grading import BatchSettings
    from bothends.check.suites.registry import check_selection, suite_for

    agreed = contracts.load(contract, allow_code=allow_code)
    if agreed.needs_reference:
        raise UsageError(f"{agreed.name} compares with a reference server, which an autograder does not run")
    check_selection(agreed, suite_for(agreed, "client" if role == "client" else "server"), only)
    text = read_text(Path(contract)) if contracts.is_file_name(contract) else contract
    return BatchSettings(
        role, text, allow_code=allow_code, contract_files=find_files(agreed), only=only, thorough=thorough
    )


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise SystemCallFailed("write", str(path), error.errno or 0) from error
