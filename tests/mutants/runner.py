"""Run tests against mutants, in copies of the tree: the checkout is never edited."""

from __future__ import annotations

import compileall
import contextlib
import os
import py_compile
import queue
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutants.mutation import ROOT, Mutation

TIME_LIMIT: Final = 100.0  # seconds for the tests of one mutant: a mutant that hangs is noticed, too
HANGS: Final = 20  # seconds for one quick test
BASELINE_LIMIT: Final = 1800.0
LONG: Final = 19.0  # seconds: after a run that hung for so long, its test is not run again

_SKIPPED: Final = {
    ".git", ".venv", "build", "dist", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis",
    "__pycache__",
}  # fmt: skip
_PASSED: Final = re.compile(r"^PASSED (.*)$", re.MULTILINE)
_FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", re.MULTILINE)
_ATTEMPTS: Final = 2  # to see one test fail twice: on a busy machine, a test may fail for another reason


class RunFailed(Exception):
    """The tests cannot be run as they should: they fail without a mutation, or the C code isn't built."""


@dataclass(frozen=True)
class Outcome:
    """What the tests made of one mutant. `by` names the test that failed, or why there was no end."""

    mutation: Mutation
    noticed: bool
    by: str
    seconds: float


@dataclass(frozen=True)
class _Run:
    status: int | None  # None: the time limit passed
    output: str
    seconds: float


class Tree:
    """A copy of the checkout in a scratch folder."""

    def __init__(self, path: Path, source: Path = ROOT) -> None:
        self.path = path
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        shutil.copytree(source, path, ignore=shutil.ignore_patterns(*_SKIPPED), symlinks=True)
        # Tests limit the size of files, so that Python could not write its cache completely.
        compileall.compile_dir(path / "src", quiet=2)

    def build(self) -> None:
        """Build the C extensions. Raises RunFailed if the engine or the generator is not there afterwards."""
        for old in self._extensions():
            old.unlink()
        environment = self._environment() | {"CFLAGS": "-O1 -g0"}
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--force"]
        built = subprocess.run(
            command, cwd=self.path, env=environment, capture_output=True, text=True, check=False
        )
        names = {each.name.partition(".")[0] for each in self._extensions()}
        if not {"_native", "_generator"} <= names:  # they are optional, so the status is 0
            raise RunFailed(f"the C extensions cannot be built:\n{built.stderr[-2000:]}")

    def run_tests(self, tests: Iterable[str], *options: str, limit: float) -> _Run:
        """Run pytest in a process group of its own, which is killed at the time limit.

        Raises RunFailed after `stop`.
        """
        started = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *tests]
        process = subprocess.Popen(
            command, cwd=self.path, env=self._environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True,
        )  # fmt: skip
        self._process = process
        try:
            if not self._stopped:
                output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return _Run(None, "", limit)
        finally:
            _kill(process)
            process.wait()
        if self._stopped:
            raise RunFailed("it was stopped")
        return _Run(process.returncode, output, time.monotonic() - started)

    def stop(self) -> None:
        """End the run of another thread, and all later ones."""
        self._stopped = True
        if self._process is not None and self._process.returncode is None:
            _kill(self._process)

    @contextlib.contextmanager
    def mutated(self, mutation: Mutation) -> Iterator[None]:
        """Apply a mutation, and restore the file."""
        path = self.path / mutation.file
        text = path.read_text(encoding="utf-8")
        built = {each: each.read_bytes() for each in self._extensions()} if mutation.is_native else {}
        self._write(path, mutation.apply(text))
        try:
            if mutation.is_native:
                self.build()
            yield
        finally:
            self._write(path, text)
            for extension, data in built.items():
                extension.write_bytes(data)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        if path.suffix == ".py":
            # Python compares the time, in seconds, and the size of a source file with those in its cache.
            py_compile.compile(str(path), doraise=True)

    def _extensions(self) -> list[Path]:
        return sorted((self.path / "src").rglob("*.so"))

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return kept | {"PYTHONPATH": str(self.path / "src")}


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def markers(mutation: Mutation) -> tuple[str, ...]:
    """Return the options of pytest that select slow tests, if the mutation names some."""
    return ("-m", "") if mutation.slow else ()


def check_baseline(tree: Tree, mutations: Iterable[Mutation], jobs: int) -> set[str]:
    """Run all tests named without a mutation. Returns the ids of those that passed.

    Raises RunFailed if one failed, and failed again when it ran alone.
    """
    passed: set[str] = set()
    for slow in (False, True):
        chosen = [each for each in mutations if each.slow is slow]
        named = sorted({test for each in chosen for test in each.tests.split()})
        if not named:
            continue
        parallel = ("-n", str(jobs), "--dist", "worksteal") if jobs > 1 else ()
        run = tree.run_tests(named, *markers(chosen[0]), *parallel, "-rpfE", limit=BASELINE_LIMIT)
        passed.update(_PASSED.findall(run.output))
        if failed := _FAILED.findall(run.output):
            run = tree.run_tests(failed, *markers(chosen[0]), "-rpfE", limit=BASELINE_LIMIT)
        if run.status != 0:
            raise RunFailed(f"the tests fail without a mutation:\n{run.output[-4000:]}")
        passed.update(_PASSED.findall(run.output))
    return passed


def has_passed(mutation: Mutation, passed: set[str]) -> bool:
    """Whether some test that each name of the mutation selects has run here, rather than been skipped."""
    return all(
        any(each == name or each.startswith((f"{name}::", f"{name}[", f"{name}/")) for each in passed)
        for name in mutation.tests.split()
    )


def judge(tree: Tree, mutation: Mutation) -> Outcome:
    """Run the tests named against one mutant. It is noticed if one test fails twice."""
    options = (*markers(mutation), *(() if mutation.slow else (f"--timeout={HANGS}",)))
    started = time.monotonic()
    noticed, by = False, "all tests passed"
    try:
        with tree.mutated(mutation):
            for _ in range(_ATTEMPTS):
                run = tree.run_tests(mutation.tests.split(), "-x", *options, limit=TIME_LIMIT)
                if run.status in (0, 5):
                    break
                failed = _FAILED.search(run.output)
                by = failed[1] if failed else "a run that never ended, or not as it should"
                if failed and "::" in by and run.seconds < LONG:
                    run = tree.run_tests([by], *options, limit=TIME_LIMIT)
                if noticed := run.status != 0:
                    break
                by = f"{by} failed once only"
    except RunFailed as error:
        raise RunFailed(f"{mutation.name}: {error}") from error
    return Outcome(mutation, noticed, by, time.monotonic() - started)


def judge_all(mutations: list[Mutation], scratch: Path, jobs: int) -> Generator[Outcome]:
    """Judge mutants, `jobs` at a time, and yield the outcomes as they come.

    Raises:
        RunFailed: the tests fail without a mutation, or the C code can't be built.
        StaleMutation: the text of one is not found exactly once.
    """
    for each in mutations:
        each.apply((ROOT / each.file).read_text(encoding="utf-8"))
    first = Tree(scratch / "0")
    if any(each.is_native for each in mutations):
        first.build()
    passed = check_baseline(first, mutations, jobs)
    trees = [first, *(Tree(scratch / str(n), first.path) for n in range(1, min(jobs, len(mutations))))]
    unused: queue.Queue[Tree] = queue.Queue()
    for tree in trees:
        unused.put(tree)

    def judge_one(mutation: Mutation) -> Outcome:
        tree = unused.get()
        try:
            return judge(tree, mutation)
        finally:
            unused.put(tree)

    skipped = [each for each in mutations if not has_passed(each, passed)]
    yield from (Outcome(each, False, "its tests are skipped here", 0.0) for each in skipped)
    with ThreadPoolExecutor(jobs) as pool:
        work = [pool.submit(judge_one, each) for each in mutations if each not in skipped]
        try:
            for done in as_completed(work):
                yield done.result()
        finally:
            for tree in trees:
                tree.stop()
            pool.shutdown(cancel_futures=True)
