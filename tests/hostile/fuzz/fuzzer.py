"""The frame of all fuzz targets: mutate inputs of a corpus, run them, save and shrink those that fail.

1. A target runs an input and checks what must hold. It may raise the errors that it is documented to raise,
   and their text is one line; anything else is a failure.
2. The corpus of a target is the files in `corpus/NAME`. An input that reaches a new line of the source joins
   it for the rest of a run.
3. A failure is shrunk, saved in the corpus, so that the tests run it from then on, and reported with its
   seed.
"""

from __future__ import annotations

import contextlib
import hashlib
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from tests.hostile.fuzz.coverage import LineCoverage
from tests.hostile.fuzz.mutators import Mutator, Source, mutate_bytes, words_of

CORPUS: Final = Path(__file__).parent / "corpus"
SOURCE: Final = Path(__file__).resolve().parents[3] / "src" / "bothends"
CPU_LIMIT: Final = 10.0  # seconds of processor time for one input
_SHRINK_LIMIT: Final = 400  # runs
_MAX_FAILURES: Final = 10  # different ones of a target


@dataclass(frozen=True, slots=True)
class Target:
    """Something that reads inputs of others.

    `run` takes an input and raises AssertionError if something does not hold. `refusals` are the errors that
    it may raise; `mutate` changes inputs, which have at most `max_size` bytes. A short round has `runs`
    inputs.
    """

    name: str
    run: Callable[[bytes], None]
    refusals: tuple[type[Exception], ...] = ()
    mutate: Mutator = mutate_bytes
    max_size: int = 16 << 10
    runs: int = 100

    def corpus(self, folder: Path = CORPUS) -> dict[str, bytes]:
        """Return the inputs of the corpus, by the names of their files."""
        return {path.name: path.read_bytes() for path in sorted((folder / self.name).iterdir())}

    def check(self, data: bytes) -> bool:
        """Run an input. Returns whether it was accepted. Raises any exception if it fails."""
        try:
            with _limited_time():
                self.run(data)
        except self.refusals as error:
            text, kind = str(error), type(error).__name__
        else:
            return True
        assert text, f"{kind} says nothing"
        assert "\n" not in text, f"{kind} has several lines: {text!r}"
        return False


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that failed: `where` is the exception and the line that raised it."""

    data: bytes
    where: str
    details: str


@dataclass(slots=True)
class Report:
    """What a run of a target did. `kept` are the inputs that reached new lines."""

    target: str
    seed: int
    runs: int = 0
    refused: int = 0
    lines: int = 0
    kept: list[bytes] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


@contextlib.contextmanager
def _limited_time() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"an input takes more than {CPU_LIMIT:g} s of processor time")

    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


def attempt(target: Target, data: bytes) -> Failure | None:
    """Run an input. Returns its failure, or None."""
    try:
        target.check(data)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}"
        return Failure(data, where, "".join(traceback.format_exception(error)))
    return None


def fuzz(
    target: Target,
    seed: int,
    *,
    seconds: float = float("inf"),
    runs: float = float("inf"),
    max_failures: int = _MAX_FAILURES,
    corpus: Path = CORPUS,
    source: Path | None = SOURCE,
) -> Report:
    """Run mutated inputs for a time, or a number of runs. Failures are shrunk, but not saved.

    Args:
        max_failures: different ones after which it ends.
        source: the folder whose lines are new ground; None: no input joins the corpus, which is faster.
    """
    report = Report(target.name, seed)
    generator = Random(f"{seed} {target.name}")
    inputs = list(target.corpus(corpus).values())
    words = words_of(inputs)
    found: dict[str, Failure] = {}
    deadline = time.monotonic() + seconds
    coverage = LineCoverage(source)
    with coverage:
        for each in inputs if source is not None else ():
            attempt(target, each)  # the tests report what fails here
        while time.monotonic() < deadline and report.runs < runs and len(found) < max_failures:
            data = target.mutate(Source(generator, inputs, words))[: target.max_size]
            before = coverage.lines
            coverage.resume()
            failure = None
            try:
                report.refused += not target.check(data)
            except Exception:
                failure = attempt(target, data)
            report.runs += 1
            if failure is not None:
                found.setdefault(failure.where, failure)
            elif coverage.lines > before:
                inputs.append(data)
                report.kept.append(data)
    report.failures = [shrink(target, each) for each in found.values()]
    report.lines = coverage.lines
    return report


def shrink(target: Target, failure: Failure) -> Failure:
    """Remove pieces of an input as long as it fails at the same line."""
    left = _SHRINK_LIMIT
    size = len(failure.data)
    while size := size // 2:
        at = 0
        while at < len(failure.data) and (left := left - 1) > 0:
            smaller = attempt(target, failure.data[:at] + failure.data[at + size :])
            if smaller is not None and smaller.where == failure.where:
                failure = smaller
            else:
                at += size
    return failure


def save(target: str, data: bytes, kind: str, corpus: Path = CORPUS) -> Path:
    """Save an input in the corpus, as `KIND-HASH`. Returns its path."""
    path = corpus / target / f"{kind}-{hashlib.sha256(data).hexdigest()[:8]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def describe(report: Report, failure: Failure, path: Path) -> str:
    """Return the report of a failure: the seed, the saved input, the traceback."""
    return (
        f"{report.target}: {failure.where}, with seed {report.seed}\n"
        f"  input: {failure.data[:200]!r}{'...' if len(failure.data) > 200 else ''}\n"
        f"  saved as {path}\n  again: python -m tests.hostile.fuzz --input {path}\n{failure.details}"
    )
