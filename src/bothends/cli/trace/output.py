"""The outputs of `bothends trace`: the diagram in the terminal, files, findings, the exit status."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from bothends.cli import terminal
from bothends.cli.output_files import OutputFiles, output_files
from bothends.errors import SystemCallFailed, Unavailable
from bothends.osutil.child_result import ChildResult
from bothends.osutil.collection import rare_collection
from bothends.osutil.observer_file import CLOSE_TIMEOUT, ObserverFile
from bothends.osutil.private_files import open_private
from bothends.trace.model import Packet
from bothends.trace.rendering.picture_style import PictureStyle

if TYPE_CHECKING:
    from bothends.trace.capture.bpf import BpfSource
    from bothends.trace.capture.kernel_events import KernelTracer
    from bothends.trace.capture.packets import Capture
    from bothends.trace.findings import Finding
    from bothends.trace.model import Point, Trace
    from bothends.trace.rendering.html import Page
    from bothends.trace.rendering.layout import Filter, Row, WaitArrow
    from bothends.trace.rendering.pcapng import PcapngWriter
    from bothends.trace.run_file import RunFile
    from bothends.trace.session import TraceSession
    from bothends.trace.source_blocks import SourceReader, SourceRecorder
    from bothends.trace.tls_observer import TlsObserver
    from bothends.trace.trace_file import TraceFileWriter


STDOUT: Final = Path("-")
HANG_NS: Final = 1_000_000_000  # nanoseconds: a call that is blocked for longer is explained at the end
TIME_LIMIT_STATUS: Final = 124  # as timeout(1)
STALL_NS: Final = 2_000_000_000  # the same, when nothing moves for three seconds
MAX_ANALYSED: Final = (
    60_000  # recorded calls and packets that are analysed at the end of a run, in about two seconds
)
MANY_POINTS: Final = 50_000  # of a saved trace, above which a second process looks for mistakes
_QUEUE_BYTES: Final = 64 << 20  # of an output whose reader is slow, while programs run
_CAST_WIDTH: Final = 120  # columns of a recording, unless --width is given
_PAGER_TIMEOUT: Final = 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class TraceOutputs:
    """The outputs of a run. A path is None if that file is not written."""

    event_filter: Filter
    explain: bool = False
    width: int | None = None
    as_json: bool = False
    save: Path | None = None
    svg: Path | None = None
    html: Path | None = None
    pcapng: Path | None = None
    fold: bool = True
    summary: bool = False
    cast: Path | None = None
    pdf: Path | None = None
    picture: PictureStyle = field(default_factory=PictureStyle)
    is_stepped: bool = False

    @property
    def takes_stdout(self) -> bool:
        """Whether standard output carries data only: no diagram, and no output of the traced programs."""
        return self.as_json or self.pcapng == STDOUT

    @property
    def needs_all_points(self) -> bool:
        """Whether an output is made at the end, from the whole run."""
        files = self.svg, self.html, self.pdf, self.cast, self.pcapng
        return self.summary or any(each is not None for each in files)


@dataclass(slots=True)
class TraceWriter:
    """Draw or write the points of a run as they occur, and write the other files at its end.

    Packets are written to a pipe at once, because its reader may show them live.

    `programs_run`: a full disk, or a reader that stops or closes its end, must not hurt the traced programs.
    Then each output that cannot be written is reported once, and what is missing is counted, as always in
    the trace file (`save`).

    `records`: what the sources report is recorded in the trace file until its points are complete.

    `is_part`: the trace is a part of a saved one, so the rules for findings would be wrong about it.

    Raises:
        SystemCallFailed: a file cannot be written; at the end, if something is missing in one.
    """

    outputs: TraceOutputs
    trace: Trace
    roles: Sequence[str] = ()
    end_line: Callable[[], bool] = lambda: False  # whether the cursor is behind a program's prompt
    programs_run: bool = False
    is_part: bool = False
    records: bool = False
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _observed: OutputFiles = field(default_factory=OutputFiles)
    _writers: list[Any] = field(default_factory=list)
    _files: dict[Path, Any] = field(default_factory=dict)
    _packets: Any = None
    _layout: Any = None
    _folded: Any = None  # the events that the diagram has folded, if it was drawn from a whole trace
    _painter: Any = None
    _run_file: RunFile | None = None
    _recorder: SourceRecorder | None = None
    _written: int = 0  # points
    _drawn: int = 0  # points that have been drawn before: the run is analysed again, from its start

    def __enter__(self) -> TraceWriter:

        with self._stack:
            self._stack.enter_context(rare_collection())
            self._observed = self._stack.enter_context(output_files())
            if self.outputs.as_json:
                self._writers.append(self._trace_file(STDOUT))
            elif not (self.outputs.takes_stdout or self.outputs.summary or self.outputs.is_stepped):
                self._start_diagram()
            if self.outputs.save is not None:
                self._writers.append(self._trace_file(self.outputs.save))
            for writer in self._writers:
                self._stack.callback(writer.flush)
            for path in filter(None, (self.outputs.svg, self.outputs.html, self.outputs.cast)):
                self._open(path, "w")  # fail before a long run, not after it
            if self.outputs.pdf is not None:
                self._open(self.outputs.pdf, "wb")
            if self.outputs.pcapng is not None:
                self._open(self.outputs.pcapng, "wb")
                if not _is_regular(self.outputs.pcapng):
                    self._start_packets(self.outputs.pcapng)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def write(self, point: Point) -> None:
        """Draw and write the next point."""
        self._written += 1
        for writer in self._writers:
            writer.write(point)
        if self._packets is not None and isinstance(point.event, Packet):
            self._packets.write(point.event, arrives=point.is_end)
        if self._layout is not None:
            rows = self._layout.rows(point)
            if self._written <= self._drawn:
                deque(rows, maxlen=0)
                if self._written == self._drawn:  # what is folded has been drawn, too
                    deque(self._layout.pending(), maxlen=0)
            elif rows:
                self._draw(rows)

    @property
    def recorder(self) -> SourceRecorder | None:
        """Records what the sources report into the trace file; None if that is not wanted."""
        return self._recorder

    def on_record_only(self) -> None:
        """Say that the programs are too fast to be drawn: the rest of the run is recorded."""
        assert self._run_file is not None
        self._run_file.keep_source()
        if self._layout is not None:
            terminal.show("┊ too fast to draw live: the rest is only saved ┊", flush=True)

    def settle(self) -> None:
        """Let the points take the place of the recording: so far all has been drawn in time."""
        if self._run_file is not None:
            self._run_file.settle()

    def end_recording(self, count: int) -> None:
        """End a run of which the rest is recorded only: `count` calls and packets in all.

        They are analysed now if that takes a moment, or if an output needs them.
        """
        if count <= MAX_ANALYSED or self.outputs.needs_all_points:
            self._analyse_again(goes_on=False)
            self.end()
            return
        self._layout = None
        terminal.note(
            f"{count:,} calls and packets are saved, more than could be drawn live; "
            f"to draw them and to look for mistakes: bothends trace --open {self.outputs.save}"
        )

    def on_calm(self, count: int) -> SourceReader | None:
        """Analyse what has been recorded so far, `count` calls and packets, if that takes a moment."""
        return self._analyse_again(goes_on=True) if count <= MAX_ANALYSED else None

    def _analyse_again(self, *, goes_on: bool) -> SourceReader | None:
        """Analyse all that has been recorded, draw what has not been drawn, and save the points.

        `goes_on`: the run does. Returns what has read the recording.
        """
        from bothends.trace.model import Trace
        from bothends.trace.opening import open_trace
        from bothends.trace.trace_blocks import BlockWriter

        assert self._run_file is not None
        assert self.outputs.save is not None
        self._run_file.begin_again()
        self.trace = Trace()
        self._writers = [BlockWriter(self._run_file, self.trace)]
        self._written, self._drawn = 0, self._written
        if self._layout is not None:
            self._start_diagram()
        with open_trace(self.outputs.save) as recorded:
            return recorded.read(self.write, self.trace, goes_on=goes_on)

    def idle(self) -> None:
        """Draw the calls that are still blocked, and flush the files. Called when no event is pending."""
        if self._layout is not None:
            self._draw(self._layout.pending())
        for writer in self._writers:
            writer.flush()
        if self._packets is not None:
            self._packets.flush()

    def on_stall(self, requested: bool) -> None:
        """Print what the blocked calls wait for, while the run goes on."""
        found, arrows = self._describe_waits(time.time_ns(), 0 if requested else STALL_NS)
        if requested and not found:
            found = ["No call waits for another program."]
        self._show_waits(found, arrows, time.time_ns())

    def _describe_waits(self, now: int | None, min_age: int) -> tuple[list[str], list[WaitArrow]]:
        from bothends.trace.findings.base import TraceIndex
        from bothends.trace.waits.graph import WaitsAtEnd
        from bothends.trace.waits.sentences import sentences, wait_arrows

        waits = WaitsAtEnd(TraceIndex(self.trace), now)
        return sentences(waits, min_age), wait_arrows(waits, min_age)

    def _show_waits(self, found: Sequence[str], arrows: Sequence[WaitArrow], at: int) -> None:
        import textwrap

        if self._layout is not None:
            self._draw(self._layout.wait_rows(arrows, at))
        stream = sys.stderr if self.outputs.takes_stdout else sys.stdout
        if found and terminal.is_terminal(stream) and self.end_line():
            terminal.show(stream=stream)
        mark = terminal.styled("waits", "warning", stream)
        for text in found:
            lines = textwrap.wrap(text, 103, break_on_hyphens=False)
            terminal.show("\n       ".join([f"{mark}  {lines[0]}", *lines[1:]]), stream=stream, flush=True)

    def end(self) -> None:
        """Print findings and notes, and write the files. Called once at the end of a run."""
        self.idle()
        self.settle()
        if self.trace.dropped:
            more = f" and {pruned} sockets and processes" if (pruned := self.trace.pruned) else ""
            self.trace.notes.append(
                f"the oldest {self.trace.dropped} events{more} were drawn, but are not in files and findings"
            )
        for writer in self._writers:
            writer.write_end()
        waits: list[str] = []
        arrows: list[WaitArrow] = []
        if self.trace.ended_by:
            waits, arrows = self._describe_waits(None, HANG_NS)
        with contextlib.ExitStack() as stack:
            page, child = None, None
            if self.outputs.html is not None:
                if not self.is_part and not self.programs_run and len(self.trace.points) > MANY_POINTS:
                    child = stack.enter_context(ChildResult(self._find_mistakes))
                page = self._page(arrows)
            found, failures = child.get() if child is not None else self._find_mistakes()
        self.trace.notes += failures
        if self.is_part:
            terminal.note("findings need the whole trace: without --from and --to")
        for note in self.trace.notes:
            terminal.note(note, "warning")
            for writer in self._writers:
                writer.write_note(note)
        for writer in self._writers:
            writer.flush()
        if self.outputs.as_json:
            self._writers[0].write_waits(waits)
            self._writers[0].write_findings(found)
        elif self.outputs.is_stepped:
            self._step(found, arrows)
        else:
            if self.outputs.summary and not self.outputs.takes_stdout:
                self._show_summary()
            self._show_waits(waits, arrows, self.trace.frozen_at or 0)
            show_findings(found, self.trace, sys.stderr if self.outputs.takes_stdout else sys.stdout)
        self._write_files(found, waits, arrows, page)

    def _find_mistakes(self) -> tuple[list[Finding], list[str]]:
        """Return the findings, and a note for each rule that failed."""
        from bothends.trace.findings import run_rules

        if self.is_part:
            return [], []
        failures: list[str] = []

        def note(name: str, error: Exception) -> None:
            reason = f"{type(error).__name__}: {error}"
            failures.append(f"internal error in the rule {name} (please report): {reason}")

        return run_rules(self.trace, note), failures

    def _page(self, arrows: Sequence[WaitArrow]) -> Page:
        """Return the page with its rows."""
        from bothends.trace.rendering.html import Page
        from bothends.trace.rendering.layout import folded_events, rows_of

        event_filter, folded = self.outputs.event_filter, self._folded
        rows = rows_of(self.trace, event_filter, waits=arrows)
        if folded is None:
            folded = folded_events(self.trace, event_filter) if self.outputs.fold else {}
        return Page(self.trace, rows, folded)

    def _show_summary(self) -> None:
        from bothends.trace.rendering.layout import Filter
        from bothends.trace.summary import (
            CONNECTION_HEADERS,
            TraceSummary,
            connection_rows,
            process_table,
        )

        chosen = self.outputs.event_filter
        event_filter = Filter(False, chosen.only, chosen.descriptors, chosen.ports)
        summary = TraceSummary(self.trace, lambda event: event_filter.shows(event, self.trace.sockets))
        if rows := connection_rows(summary):
            terminal.table(CONNECTION_HEADERS, rows)
            terminal.show()
        headers, rows = process_table(summary)
        if rows:
            terminal.table(headers, rows)
            terminal.show()

    def _write_files(
        self,
        found: Sequence[Finding],
        waits: Sequence[str],
        arrows: Sequence[WaitArrow],
        page: Page | None,
    ) -> None:
        self._write_pictures(found, waits, arrows)
        if self.outputs.html is not None and page is not None:
            text = page.render(found, self._title(), waits)
            self._files[self.outputs.html].write(text, records=1)
        if self.outputs.pcapng is not None and self._packets is None:
            writer = self._start_packets(self.outputs.pcapng)
            for point in self.trace.points:
                if isinstance(point.event, Packet):
                    writer.write(point.event, arrives=point.is_end)

    def _rows(self, arrows: Sequence[WaitArrow]) -> Iterator[Row]:
        from bothends.trace.rendering.layout import rows_of

        return rows_of(self.trace, self.outputs.event_filter, waits=arrows, fold=self.outputs.fold)

    def _write_pictures(
        self, found: Sequence[Finding], waits: Sequence[str], arrows: Sequence[WaitArrow]
    ) -> None:
        """Write the SVG picture, the PDF file and the recording."""
        from bothends.trace.rendering.comments import comment_rows
        from bothends.trace.rendering.svg import render_svg

        outputs, style = self.outputs, self.outputs.picture
        if outputs.svg is not None:
            comments = comment_rows(found, waits) if style.is_animated else ()
            picture = render_svg(self._rows(arrows), self._title(), style, comments)
            self._files[outputs.svg].write(picture, records=1)
        if outputs.pdf is not None:
            from bothends.trace.rendering.pdf import render_pdf

            pages = render_pdf(self._rows(arrows), self._title(), style, comment_rows(found, waits))
            self._files[outputs.pdf].write(pages, records=1)
        if outputs.cast is not None:
            from bothends.trace.rendering.cast import render_cast

            width = outputs.width or _CAST_WIDTH
            recording = render_cast(self._rows(arrows), self._title(), width, comment_rows(found, waits))
            self._files[outputs.cast].write(recording, records=1)

    def _step(self, found: Sequence[Finding], arrows: Sequence[WaitArrow]) -> None:
        """Show the trace row by row, until a key quits."""
        from bothends.cli.trace.stepping import step_through
        from bothends.trace.rendering.steps import Steps

        colour = terminal.has_colour(sys.stdout)
        step_through(Steps(self.trace, [*self._rows(arrows)], found, colour=colour))

    def _title(self) -> str:
        roles = [process.role for process in self.trace.processes.values() if process.role]
        return "bothends trace: " + (", ".join(roles[:4]) + (" and others" if roles[4:] else "") or "nothing")

    def _start_diagram(self) -> None:
        import shutil

        from bothends.trace.rendering.layout import Layout
        from bothends.trace.rendering.terminal import Painter

        width = self.outputs.width or shutil.get_terminal_size((120, 24)).columns
        self._painter = Painter(width, colour=terminal.has_colour(sys.stdout))
        self._layout = Layout(
            self.trace,
            self.outputs.event_filter,
            explain=self.outputs.explain,
            roles=self.roles,
            fold=self.outputs.fold,
        )
        if self.outputs.html is not None and self.outputs.fold and not self.programs_run:
            self._folded = self._layout.remember_folded()

    def _draw(self, rows: Iterable[Row]) -> None:
        for row in rows:
            for line in self._painter.lines(row):
                if terminal.is_terminal(sys.stdout) and self.end_line():
                    terminal.show()
                terminal.show(line, flush=True)

    def _open(self, path: Path, mode: str) -> None:
        if self.programs_run:
            is_picture = path != self.outputs.pcapng
            missing = _nothing if is_picture else self._missing_packets
            self._files[path] = self._observe(path, missing, is_binary=True, is_picture=is_picture)
        else:
            self._files[path] = file = OutputFile(path, mode)
            self._stack.callback(file.close)

    def _trace_file(self, path: Path) -> TraceFileWriter:
        """Begin the trace file, which is compact, or the trace on standard output, as lines."""
        from bothends.trace.trace_file import FIRST_LINE, TraceFileWriter, missing_note

        if path != STDOUT:
            from bothends.trace import trace_blocks

            first_line = trace_blocks.FIRST_LINE.decode()
            blocks = self._observe(path, trace_blocks.missing_block, first_line=first_line, is_binary=True)
            if self.records and _is_regular(path):
                from bothends.trace.run_file import RecordingFile, RunFile
                from bothends.trace.source_blocks import SourceRecorder

                self._run_file = RunFile(blocks)
                self._recorder = SourceRecorder(RecordingFile(self._run_file))
                return trace_blocks.BlockWriter(self._run_file, self.trace)
            return trace_blocks.BlockWriter(blocks, self.trace)
        if path == STDOUT and not (self.programs_run and _has_descriptor(sys.stdout)):
            return TraceFileWriter(sys.stdout, self.trace)
        file = self._observe(path, missing_note, first_line=FIRST_LINE)
        return TraceFileWriter(file, self.trace, is_begun=True)

    def _observe(
        self,
        path: Path,
        missing: Callable[[int, str], str | bytes],
        *,
        first_line: str = "",
        is_binary: bool = False,
        is_picture: bool = False,
    ) -> ObserverFile:
        """Open a file, or standard output, that must not end the run: programs are running."""
        is_stdout = path == STDOUT
        try:
            descriptor = sys.stdout.fileno() if is_stdout else open_private(path)
        except OSError as error:
            raise SystemCallFailed("write", str(path), error.errno or 0) from error
        if is_stdout:
            sys.stdout.flush()
        file = ObserverFile(
            descriptor,
            "standard output" if is_stdout else str(path),
            missing_line=missing,
            report=self._observed.warn,
            first_line=first_line,
            owns_descriptor=not is_stdout,
            queue_bytes=_QUEUE_BYTES,
            is_binary=is_binary,
        )
        self._observed.closing(_ObservedOutput(file, is_picture))
        return file

    def _start_packets(self, path: Path) -> PcapngWriter:
        from bothends.trace.rendering.pcapng import PcapngWriter

        self._packets = writer = PcapngWriter(self._files[path], self.trace)
        return writer

    def _missing_packets(self, count: int, reason: str) -> bytes:
        block: bytes = self._packets.missing_block(count, reason) if self._packets is not None else b""
        return block


@dataclass(frozen=True, slots=True)
class _ObservedOutput:
    """An output of a run whose programs have ended when it is closed."""

    file: ObserverFile
    is_picture: bool

    def close(self) -> SystemCallFailed | None:
        """Close the file. Returns an error if something is missing in it.

        The reader may be a pager, so it gets time where a user can press ^C.
        """
        self.file.wait_for_reader(_PAGER_TIMEOUT if terminal.is_terminal(sys.stderr) else CLOSE_TIMEOUT)
        error = self.file.close()
        return SystemCallFailed("write", error.target, error.errno) if error and self.is_picture else error


def _nothing(_count: int, _reason: str) -> bytes:
    """Return what a picture that could not be written says about that: nothing, because it is empty."""
    return b""


def _has_descriptor(stream: TextIO) -> bool:
    try:
        return stream.fileno() >= 0
    except (OSError, ValueError):  # io.UnsupportedOperation, or closed
        return False


def _is_regular(path: Path) -> bool:
    try:
        return path != STDOUT and S_ISREG(path.stat().st_mode)
    except OSError:  # it was removed in the meantime
        return True


class OutputFile:
    """An output file, or standard output for `STDOUT`, with errors that name the file.

    Every method raises SystemCallFailed if it fails, and BrokenPipeError if a pipe's reader has closed it.
    """

    def __init__(self, path: Path, mode: str) -> None:
        self._path = path
        self._file: Any = None
        with self._translate_errors():
            if path == STDOUT:
                self._file = sys.stdout.buffer
            else:
                self._file = os.fdopen(open_private(path), mode, encoding=None if "b" in mode else "utf-8")

    def write(self, data: str | bytes, *, records: int = 1) -> None:
        """Write all data."""
        with self._translate_errors():
            self._file.write(data)

    def flush(self) -> None:
        """Flush the buffer to the file."""
        with self._translate_errors():
            self._file.flush()

    def close(self) -> None:
        """Close the file; standard output is flushed only."""
        if self._path == STDOUT:
            self.flush()
            return
        with self._translate_errors():
            self._file.close()

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            operation, name = "write", str(self._path)
            if self._path == STDOUT:
                terminal.discard_stdout()
                operation, name = "write to", "standard output"
            raise SystemCallFailed(operation, name, error.errno or 0) from error


def show_findings(found: Sequence[Finding], trace: Trace, stream: TextIO, indent: str = "") -> None:
    """Print each finding below the diagram: title, explanation, evidence, remedy, consequences."""
    import textwrap

    from bothends.trace.findings import evidence_lines

    width = min(110, max(terminal.columns(), 40)) if terminal.is_terminal(stream) else 110
    for finding in found:
        terminal.show(stream=stream)
        mark = "follows" if indent else "finding"
        terminal.show(f"{indent}{terminal.styled(mark, 'warning', stream)}  {finding.title}", stream=stream)
        texts = [finding.text, *evidence_lines(finding, trace), f"Remedy: {finding.remedy}"]
        texts += [f"In C: {finding.in_c}"] if finding.in_c else []
        texts += [f"In Python: {finding.in_python}"] if finding.in_python else []
        if finding.certainty == "inferred":
            texts.insert(1, f"Inferred: {finding.basis}" if finding.basis else "Inferred from the events.")
        for text in texts:
            inner = f"{indent}  "
            lines = textwrap.wrap(
                text, width, initial_indent=inner, subsequent_indent=f"{inner}  ", break_on_hyphens=False
            )
            terminal.show("\n".join(lines), stream=stream)
        show_findings(finding.consequences, trace, stream, f"{indent}    ")


def open_capture(*, needed: bool = False, wire_hint: bool = False) -> Capture | None:
    """Open a packet capture, or print why that failed and return None.

    `wire_hint`: mention --wire, which needs no privilege.

    Raises:
        Unavailable: packets are `needed`, but cannot be captured.
    """
    from bothends.trace.capture.packets import Capture

    try:
        return Capture()
    except Unavailable as error:
        if needed:
            raise
        hint = (
            ", or with --wire '', which needs no privilege: the server is at 10.0.0.1 then, not at 127.0.0.1"
        )
        terminal.note(f"calls only: {error}{hint if wire_hint else ''}", "warning")
        return None


@contextlib.contextmanager
def open_call_source(wanted: str | None, *, has_wire: bool = False) -> Iterator[BpfSource | None]:
    """Open the source of calls: eBPF, or None for strace. By default eBPF if it can be had.

    `wanted` is the value of --with. `has_wire`: the programs run in hosts of a wire, whose processes have
    other ids.

    Raises:
        Unavailable: the wanted source, or both.
        click.UsageError: eBPF and --wire.
    """
    from bothends.trace.capture.bpf import BpfSource
    from bothends.trace.capture.tracees import find_strace

    if has_wire and wanted == "bpf":
        raise click.UsageError("--with bpf and --wire cannot be combined: a wire needs no root")
    source = None
    if wanted == "bpf" or (wanted is None and not has_wire):
        try:
            source = BpfSource()
        except Unavailable:
            if wanted == "bpf":
                raise
    if source is None:
        find_strace()
        yield None
        return
    with source:
        if wanted is None and terminal.is_terminal(sys.stderr):
            terminal.note("calls are seen with eBPF, which root may use; --with strace chooses strace")
        yield source


@contextlib.contextmanager
def open_tls() -> Iterator[TlsObserver]:
    """Observe TLS in plain text, or print why that is not seen: then the secrets are collected only."""
    from bothends.trace.capture.tls_secrets import secrets_file
    from bothends.trace.capture.tls_source import TlsSource
    from bothends.trace.tls_observer import TlsObserver

    with contextlib.ExitStack() as stack:
        secrets = stack.enter_context(secrets_file())
        source: TlsSource | None = None
        try:
            source = stack.enter_context(TlsSource())
        except Unavailable as error:
            terminal.note(f"TLS is drawn encrypted: {error}; --pcapng has its keys", "warning")
        yield TlsObserver(source, secrets)


@contextlib.contextmanager
def open_kernel_tracer(*, has_packets: bool) -> Iterator[KernelTracer | None]:
    """Trace the kernel's reasons, or yield None. Prints why not, if packets can be captured."""
    from bothends.trace.capture.kernel_events import KernelTracer

    try:
        tracer = KernelTracer()
    except Unavailable as error:
        if has_packets:
            terminal.note(f"without the kernel's reasons for drops and resets: {error}", "warning")
        yield None
        return
    with tracer:
        yield tracer


def describe_missing_sockets(session: TraceSession) -> Iterator[str]:
    """Yield a line for each program that made no call on a socket: then there is nothing to draw."""
    for role in session.programs_without_sockets:
        status = session.exit_statuses[role]
        end = ""
        if status is not None and session.stopped_by is None:
            is_signal = -status in list(signal.Signals)
            end = (
                f"; {signal.Signals(-status).name} killed it"
                if is_signal
                else f"; its exit status is {status}"
            )
        yield f"{role} made no call on a socket (TCP, UDP or UNIX){end}"


def check_attachments(session: TraceSession) -> None:
    """Check that strace could attach to all processes. Raises Unavailable."""
    from bothends.trace.capture.tracees import tracer_of

    for pid in session.failed_attachments:
        tracer = tracer_of(pid)
        hint = f"end process {tracer}, which traces it already" if tracer else "run as root"
        raise Unavailable("trace", f"process {pid}", reason="strace cannot attach to it", hint=hint)


def exit_status(session: TraceSession) -> int:
    """Return the exit status for a session: the last client's, or 128 plus a signal number as in a shell."""
    if session.reached_time_limit:
        return TIME_LIMIT_STATUS
    if session.stopped_by is not None:
        return 130 if session.stopped_by == signal.SIGINT else 128 + session.stopped_by
    if session.servers_exited_early:
        terminal.error(f"{session.servers_exited_early[0]} exited before it listened")
        return 1
    status = next(iter(reversed(session.exit_statuses.values())), 0) or 0
    return status if status >= 0 else 128 - status
