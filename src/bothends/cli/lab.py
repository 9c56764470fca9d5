"""`bothends lab`: a page on which a server and a client are written, run and seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bothends.cli import terminal
from bothends.errors import UsageError

if TYPE_CHECKING:
    from bothends.lab.recording import LabFile
    from bothends.lab.server import Lab, LabOptions

_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
_PEM = click.Path(exists=True, dir_okay=False)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--port", metavar="PORT", type=click.IntRange(0, 65535), default=0, help="Port; default: a free one."
)
@click.option(
    "--open/--no-browser",
    "opens",
    default=True,
    help="Open the page in the browser, or print its address only.",
)
@click.option(
    "--page",
    metavar="OUT",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the run in FILE as a page that replays it without a server, and exit.",
)
@click.option(
    "--svg",
    metavar="OUT",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the run in FILE as a picture, and exit.",
)
@click.option("--lessons", type=_FOLDER, metavar="FOLDER", help="With the lessons in this folder, too.")
@click.option("--test-lessons", is_flag=True, help="Run each lesson and its solution, and exit.")
@click.option("--class", "for_class", is_flag=True, help="Serve a class: each browser is a student.")
@click.option(
    "--host", default="", metavar="HOST", help="With --class: listen on this address; * is every one."
)
@click.option("--tls-cert", type=_PEM, metavar="FILE", help="With --class: certificate (PEM).")
@click.option("--tls-key", type=_PEM, metavar="FILE", help="With --class: its key (PEM), if in another file.")
@click.option(
    "--state", type=click.Path(path_type=Path), metavar="FOLDER", help="With --class: where work is kept."
)
@click.option(
    "--at-a-time", type=click.IntRange(1, 64), metavar="N",
    help="With --class: runs that start at a time; default: two for each processor.",
)  # fmt: skip
@click.argument("files", metavar="[FILE]...", type=click.Path(dir_okay=False, path_type=Path), nargs=-1)
def lab(
    port: int,
    opens: bool,
    page: Path | None,
    svg: Path | None,
    lessons: Path | None,
    test_lessons: bool,
    for_class: bool,
    host: str,
    tls_cert: str | None,
    tls_key: str | None,
    state: Path | None,
    at_a_time: int | None,
    files: tuple[Path, ...],
) -> None:
    """Write a server and a client side by side on a page, run them, and see what they do.

    \b
    For example:
      bothends lab
      bothends lab --port 8000 --no-browser
      bothends lab server.py client.c   with these programs
      bothends lab run.lab              a run that Save > File has saved
      bothends lab run.lab --page run.html
      bothends lab --class --host 192.0.2.7 --port 8443 --tls-cert lab.pem

    The page is on 127.0.0.1, for the browser of this user only: the printed address has a token. Programs run
    in the sandbox: loopback only, no files but their own, bounded in time, memory and processes; without a
    sandbox nothing runs. ^C ends it.

    With --class, each browser that opens the address is a student, whose programs have smaller limits and
    whose runs wait for their turn. Only with --host can other machines reach it.

    Exit status: 2 if FILE is neither a program nor a file of the lab, 69 if there is no sandbox or no strace;
    1 if a lesson fails its test.
    """
    import asyncio
    import contextlib
    import os
    import signal
    from collections.abc import Callable

    from bothends.trace.capture.tracees import find_strace

    given = {"--host": host, "--tls-cert": tls_cert, "--tls-key": tls_key, "--state": state,
             "--at-a-time": at_a_time}  # fmt: skip
    if not for_class and any(given.values()):
        raise UsageError(f"{next(name for name, value in given.items() if value)} needs --class")
    if tls_key and not tls_cert:
        raise UsageError("--tls-key needs --tls-cert")
    if (page or svg) and not files:
        raise UsageError("--page and --svg need a FILE that has a run")
    if not (page or svg):
        find_strace()
    from bothends.lab import server
    from bothends.lab.classroom import Classroom, default_folder

    if test_lessons:
        _test_lessons(lessons)
        return

    opened = _open(files) if files else None
    if page or svg:
        assert opened is not None
        _export(opened, page, svg)
        return

    def on_ready(served: Lab, sandbox: str) -> None:
        terminal.show(f"lab  {served.address}", flush=True)
        if served.teacher_address:
            terminal.show(f"teacher  {served.teacher_address}", flush=True)
        if not options.is_local:
            terminal.note(_describe_reach(options), "" if options.certificate else "warning")
        terminal.note(f"{sandbox}; ^C ends the lab")
        if opens:
            import webbrowser

            webbrowser.open(served.teacher_address or served.address)

    async def main() -> None:
        def stop(exit_soon: Callable[[], None]) -> None:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(number, exit_soon)

        with contextlib.ExitStack() as stack:
            listeners = [stack.enter_context(each) for each in server.listen(port, options.host)]
            await server.serve(listeners, on_ready, stop, options)

    address = ("" if host == "*" else host) if host else "127.0.0.1"
    if not for_class:
        options = server.LabOptions(lessons=lessons, opened=opened)
        asyncio.run(main())
        return
    classroom = Classroom.open(state or default_folder())
    try:
        places = at_a_time or 2 * (os.cpu_count() or 1)
        options = server.LabOptions(
            address, tls_cert or "", tls_key or "", lessons, classroom, places, opened
        )
        asyncio.run(main())
    finally:
        classroom.close()


def _describe_reach(options: LabOptions) -> str:
    where = f"on {options.host}" if options.host else "on every address"
    if options.certificate:
        return f"other machines can reach this lab {where}, over TLS"
    return f"other machines can reach this lab {where}, and nothing is encrypted: --tls-cert turns TLS on"


def _test_lessons(folder: Path | None) -> None:
    """Run each lesson as it begins, which must not pass its checks, and its solution, which must."""
    import asyncio

    from bothends.lab.lesson_runs import judge_lesson
    from bothends.lab.lessons import BUILT_IN, load_lessons
    from bothends.lab.runs import RunPool

    found = load_lessons([folder if folder is not None else BUILT_IN])

    async def main() -> bool:
        pool = RunPool()
        await pool.prepare()
        try:
            all_pass = True
            for each in found.values():
                faults = await judge_lesson(each, pool)
                all_pass = all_pass and not faults
                terminal.show(f"{'FAIL' if faults else 'PASS'}  {each.id}  {each.about.title}", flush=True)
                for fault in faults:
                    terminal.show(f"      {fault}", flush=True)
            return all_pass
        finally:
            await pool.close()

    if not asyncio.run(main()):
        raise click.exceptions.Exit(1)


def _open(paths: tuple[Path, ...]) -> LabFile:
    """Return what a file of the lab holds, or programs. Raises SystemCallFailed, UsageError."""
    import msgspec

    from bothends.errors import SystemCallFailed
    from bothends.lab import recording

    texts = {}
    for path in paths:
        try:
            texts[path.name] = path.read_bytes()
        except OSError as error:
            raise SystemCallFailed("read", str(path), error.errno or 0) from error
    names = ", ".join(map(str, paths))
    try:
        if paths[0].suffix != ".lab":
            return recording.of_programs(texts)
        if len(paths) > 1:
            raise UsageError("a file of the lab is opened alone")
        return recording.parse(texts[paths[0].name])
    except msgspec.DecodeError as error:
        kind = "a file of the lab" if paths[0].suffix == ".lab" else "programs for the lab"
        raise UsageError(f"{names}: not {kind}: {error}") from error


def _export(file: LabFile, page: Path | None, svg: Path | None) -> None:
    from bothends.errors import SystemCallFailed
    from bothends.lab import recording

    if file.run is None:
        raise UsageError("the file has no run: save it again after one")
    for path, text in (
        (page, recording.render_page(file) if page else ""),
        (svg, recording.render_picture(file.run) if svg else ""),
    ):
        if path is None:
            continue
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise SystemCallFailed("write", str(path), error.errno or 0) from error
