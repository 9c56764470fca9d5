"""Judge many submissions under one contract, in parallel on this machine or on a cluster.

1. `pack` makes an archive of each submission, so that it can be judged on any machine, and no run changes it.
2. `judge_one` unpacks it into a temporary folder, builds it, and runs `bothends check ... --json` on it in a
   separate process, so that a failure does not affect the others. Cluster workers run the same function.
3. Each result is a file named after the submission, with a digest of the submission and the settings. A
   submission whose file has the same digest is not judged again, so a stopped batch can be resumed.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import io
import itertools
import json
import os
import re
import signal
import stat
import subprocess
import tarfile
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from bothends.check import contract as contracts
from bothends.check.batch.build_plan import BuildPlan, NoRecipe
from bothends.check.batch.build_recipes import find_recipe
from bothends.check.batch.built_programs import executables, with_built_program
from bothends.check.batch.cluster import run_on_cluster
from bothends.check.batch.contract_copy import write_copy
from bothends.check.batch.manifest import MANIFEST
from bothends.check.batch.repairs import repair_scripts
from bothends.check.case import Verdict
from bothends.check.contract import BUILTIN_DIR
from bothends.check.requirements import possible_points
from bothends.check.results import CaseOutcome, SuiteResult, from_object
from bothends.check.runner import load_factor, selected_cases
from bothends.check.sandbox.visible import home_folder
from bothends.check.suites.registry import cases, suite_for
from bothends.errors import BothendsError, ConfigurationError, SystemCallFailed
from bothends.escaping import escape, escape_text
from bothends.foreign_text import json_text
from bothends.osutil.private_files import open_private
from bothends.osutil.reaper import Reaper, process_tag
from bothends.osutil.reexec import self_command
from bothends.osutil.scratch import scratch_folder

MAX_ARCHIVE_SIZE: Final = 16 << 20  # bytes of a packed submission, which should contain only sources
MAX_DEPTH: Final = 64  # folders inside each other; far above any real submission
MAX_ENTRIES: Final = 32_768  # files and folders; an archive of more exceeds MAX_ARCHIVE_SIZE by its headers
MAX_NAME_SIZE: Final = 200  # bytes: a file name has at most 255 (NAME_MAX), and results are named NAME.json
BUILD_TIMEOUT: Final = 60.0  # seconds: one command of a build
BUILD_TOTAL: Final = 180.0  # seconds: all commands of a build, of which a submission may list thousands
JUDGE_TIMEOUT: Final = 300.0  # seconds: ten times the duration of a whole suite; longer on a busy machine
_UNTESTED: Final = "not tested on a clean machine"  # the likely cause if a submission does not even start
_UNFINISHED: Final = "the program or this machine is too slow: judge the program again alone"
_TAG_VARIABLE: Final = "BOTHENDS_BATCH"  # in the environment of all processes of a batch: its process tag
_GRACE: Final = 10.0  # seconds from SIGTERM to SIGKILL, for a check to end its processes
_MAX_STDERR: Final = 65_536  # bytes of standard error that are read
_MAX_STDOUT: Final = 64 << 20  # bytes of standard output that are read; far above the result of any suite


class _ChildProcesses:
    """The child processes of a batch, which are terminated together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def run(
        self, command: Sequence[str], folder: Path, timeout: float, **environment: str
    ) -> tuple[int | None, bytes, bytes]:
        """Run a command, and terminate it after `timeout` seconds.

        Its output goes to files, whose size the sandbox limits; a pipe could fill this process's memory.

        Args:
            environment: variables added to this process's environment.

        Returns: its exit status, or None after a timeout; its standard output; its standard error.

        Raises:
            OSError: it cannot be started, or the batch was stopped.
        """
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            with self._lock:
                if self._closed:
                    raise InterruptedError(errno.EINTR, "the batch was stopped")
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env={**os.environ, **environment, _TAG_VARIABLE: process_tag()},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    start_new_session=True,  # ^C goes to the batch only, which then ends its processes
                )
                self._processes.add(process)
            try:
                status: int | None = process.wait(timeout)
            except subprocess.TimeoutExpired:
                status = None
                _terminate(process)
            finally:
                with self._lock:
                    self._processes.discard(process)
                _kill_group(process)
            output.seek(0)
            errors.seek(0)
            return status, output.read(_MAX_STDOUT), errors.read(_MAX_STDERR)

    def reopen(self) -> None:
        """Allow new processes, at the start of a batch."""
        self._closed = False

    def terminate_all(self) -> None:
        """Terminate all processes, and prevent new ones."""
        with self._lock:
            self._closed = True
            processes = list(self._processes)
            for process in processes:
                process.terminate()  # on SIGTERM, a check kills its programs
        deadline = time.monotonic() + _GRACE
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _kill_group(process)


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to a process, and SIGKILL if it does not exit."""
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a command, if it runs, and the processes that it left behind in its process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


_children: Final = _ChildProcesses()


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How to judge the submissions.

    `contract` is a name, or the text of a contract file; `contract_files` are its Python files, as
    `contract_copy.find_files` returns them; `allow_code`: whether it may run them; `only`: the ids of the
    cases to run, if not all; `trace`: make a page with the calls and packets of each failed case; `against`:
    the command of a reference server, with absolute paths, and `against_digest` a digest of its files.
    """

    role: str
    contract: str
    sandbox: bool = True
    thorough: bool = False
    jobs: int = 4
    allow_code: bool = False
    contract_files: tuple[tuple[str, str], ...] = ()
    only: tuple[str, ...] = ()
    trace: bool = False
    against: str = ""
    against_digest: str = ""


PackedSubmission: TypeAlias = tuple[str, bytes, BatchSettings]
"""A name, an archive and the settings."""


@dataclass(frozen=True, slots=True)
class JudgedSubmission:
    """A submission and its result.

    `digest`: of the archive and the settings; `language`: as detected; `remark`: what was chosen or changed
    in order to run it.
    """

    name: str
    digest: str
    language: str
    result: SuiteResult
    remark: str = ""

    def as_object(self) -> dict[str, Any]:
        """Return the object for a result file."""
        return {
            "name": self.name,
            "digest": self.digest,
            "language": self.language,
            "remark": self.remark,
            **self.result.as_object(),
        }


def submission_name(folder: Path) -> str:
    """Return the name of a submission: its folder's, with control and undecodable characters escaped.

    The end of a name longer than `MAX_NAME_SIZE` is replaced by a digest.
    """
    name = escape_text(folder.resolve().name)
    if len(name.encode()) <= MAX_NAME_SIZE:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{name.encode()[: MAX_NAME_SIZE - 17].decode(errors='ignore')}-{digest}"


def pack(folder: Path) -> bytes:
    """Return an archive of a submission, without hidden files, symbolic links and special files.

    Sizes are checked before a file is read, because a sparse file can be larger than memory. Files are opened
    without following links or waiting for the writer of a FIFO, and examined when they are open (open(2),
    O_NOFOLLOW and O_NONBLOCK), because the submission's author may replace them at any time.

    Raises:
        SystemCallFailed: a file cannot be read, the archive is too large, or has too many or too deeply
            nested folders.
    """
    buffer = io.BytesIO()
    top = folder.resolve()
    entries = 0
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for parent, folders, files, parent_fd in os.fwalk(top, onerror=_raise_unreadable):
            folders[:] = sorted(each for each in folders if not each.startswith("."))
            inside = Path(parent).relative_to(top)
            entries += len(folders) + len(files)
            if folders and len(inside.parts) >= MAX_DEPTH:
                raise _pack_error(folder, errno.ENAMETOOLONG, f"{MAX_DEPTH} folders inside each other")
            if entries > MAX_ENTRIES:
                raise _pack_error(folder, errno.EFBIG, f"{MAX_ENTRIES:,} files and folders")
            for name in sorted(files):
                if name.startswith("."):
                    continue
                found = _read_regular_file(name, parent_fd, MAX_ARCHIVE_SIZE - buffer.tell(), folder)
                if found is not None:
                    member = tarfile.TarInfo(str(inside / name))
                    data, member.mode = found
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _read_regular_file(name: str, parent_fd: int, limit: int, folder: Path) -> tuple[bytes, int] | None:
    """Return the content and mode of a file; None if it is not a regular file, or has just been removed."""
    try:
        if not stat.S_ISREG(os.lstat(name, dir_fd=parent_fd).st_mode):
            return None  # not opened, because open(2) of a device can have effects
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent_fd)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return None
            if status.st_size > limit:
                raise _pack_error(folder, errno.EFBIG, f"{MAX_ARCHIVE_SIZE >> 20} MiB")
            return file.read(status.st_size), 0o755 if status.st_mode & 0o111 else 0o644
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):  # replaced since it was listed
            return None
        raise SystemCallFailed("read", name, error.errno or 0) from error


def _pack_error(folder: Path, number: int, limit: str) -> SystemCallFailed:
    return SystemCallFailed("pack", str(folder), number, f"a submission has at most {limit}")


def _raise_unreadable(error: OSError) -> None:
    raise SystemCallFailed("read", str(error.filename), error.errno or 0) from error


def unpack(archive: bytes, folder: Path) -> None:
    """Unpack a submission into a folder: regular files only, and none outside of it."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        for member in packed:
            path, file = folder / member.name, packed.extractfile(member)
            if file is None or not member.isreg() or ".." in Path(member.name).parts:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.read())
            path.chmod(member.mode & 0o755)


def compute_digest(archive: bytes, settings: BatchSettings) -> str:
    """Return a digest of a submission and the settings, as a hexadecimal string."""
    options = json.dumps(asdict(settings), sort_keys=True).encode()
    return hashlib.sha256(options + b"\0" + archive).hexdigest()


def judge_one(name: str, archive: bytes, settings: BatchSettings) -> dict[str, Any]:
    """Judge a packed submission on this machine.

    Any exception is a failure of this submission: the others are judged all the same.

    Returns: the object of `JudgedSubmission.as_object`; a submission that cannot be built is one failed case.

    Raises:
        InterruptedError: the batch was stopped.
    """
    try:
        with scratch_folder("batch") as work_dir:
            value = _judge_in(work_dir, name, archive, settings)
        judged_submission_from_object(value)  # a result of another form is an exception here
    except InterruptedError:
        raise
    except Exception as error:
        return judging_failure(name, settings, error).as_object()
    return value


def _judge_in(work_dir: Path, name: str, archive: bytes, settings: BatchSettings) -> dict[str, Any]:
    """Unpack, build and judge a submission in an empty folder."""
    digest, language, remark = compute_digest(archive, settings), "", ""
    folder = work_dir / "program"
    folder.mkdir()
    unpack(archive, folder)
    repaired = repair_scripts(folder)
    failure: tuple[str, str] | None
    cause = _UNTESTED
    try:
        contract = _contract_document(settings)
        typed = settings.role == "server" and bool(contract.get("server", {}).get("input"))
        recipe = find_recipe(folder, settings.role, contract["transport"], typed=typed)
    except (NoRecipe, BothendsError) as error:
        failure = str(error), ""
        if isinstance(error, ConfigurationError):
            cause = f"a mistake in its {MANIFEST}"
    else:
        recipe, failure = _build_first(folder, recipe, settings.role, contract["transport"], settings.sandbox)
        language = recipe.language
        remark = escape_text("; ".join(filter(None, (recipe.remark, repaired))))
        if failure is None:
            result = _judge(work_dir, folder, recipe, settings)
            if isinstance(result, dict):
                return {"name": name, "digest": digest, "language": language, "remark": remark, **result}
            reason, cause = result
            failure = reason, ""
    failed = _failed_to_run_result(name, settings, *failure, cause=cause)
    return JudgedSubmission(name, digest, language, failed, remark).as_object()


def _contract_document(settings: BatchSettings) -> dict[str, Any]:
    """Return the contract as a TOML document; it has been validated."""
    text = settings.contract
    if "\n" not in text:
        text = (BUILTIN_DIR / f"{text}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def judging_failure(name: str, settings: BatchSettings, error: BaseException) -> JudgedSubmission:
    """Return the result of a submission that cannot be read or judged: 0 points, and the reason.

    It has no digest, so the next run judges the submission again: the error may have been the system's.
    """
    kind = "" if isinstance(error, BothendsError) else f"{type(error).__name__}: "
    return JudgedSubmission(name, "", "", _failed_to_run_result(name, settings, f"{kind}{error}"))


def _build_first(
    folder: Path, plan: BuildPlan, role: str, transport: str, sandbox: bool
) -> tuple[BuildPlan, tuple[str, str] | None]:
    """Build a submission by its plan, or else by the plan's fallback.

    Returns: the plan that was carried out, and None; or the first plan, and why it failed.
    """
    before = executables(folder)
    failure = _build(folder, plan, sandbox=sandbox)
    if failure is None:
        built = with_built_program(plan, folder, before, role, transport)
        if built is not None:
            return built, None
        failure = f"the build failed: {plan.language} made no program", ""
    if plan.fallback is not None:
        other, other_failure = _build_first(folder, plan.fallback, role, transport, sandbox)
        if other_failure is None:
            remarks = [f"{failure[0]}; built as {other.language} instead", other.remark]
            return replace(other, remark="; ".join(filter(None, remarks))), None
    return plan, failure


def _build(folder: Path, recipe: BuildPlan, *, sandbox: bool) -> tuple[str, str] | None:
    """Build a submission. Returns: None, or what failed and the compiler's messages."""
    caches = {  # by default in the home directory, which is an empty folder in the sandbox
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", f"{home_folder()}/.rustup"),
        "GOCACHE": str(folder / ".cache"),
    }
    end = time.monotonic() + BUILD_TOTAL
    for command in recipe.build:
        timeout = min(BUILD_TIMEOUT, end - time.monotonic())
        if timeout <= 0:
            return f"the build failed: its commands did not finish within {BUILD_TOTAL:g} s", ""
        wrapper = self_command("bothends.check.batch.build") if sandbox else []
        try:
            status, stdout, stderr = _children.run([*wrapper, *command], folder, timeout, **caches)
        except OSError as error:
            return f"{command[0]}: {error.strerror}", ""
        if status is None:
            return f"the build failed: {command[0]} did not finish within {timeout:.3g} s", ""
        if status:
            head = "\n".join(map(escape, (stderr.strip() or stdout.strip()).splitlines()[:12]))
            return f"the build failed: {command[0]} exited with status {status}", head
    return None


def _judge(
    work_dir: Path, folder: Path, recipe: BuildPlan, settings: BatchSettings
) -> dict[str, Any] | tuple[str, str]:
    """Run the check in a separate process. Returns: its result, or why there is none and the cause."""
    contract = settings.contract
    if "\n" in contract:
        contract = str(write_copy(work_dir, contract, settings.contract_files))
    options = ["--allow-code"] * settings.allow_code
    options += ["--sandbox", "--folder", str(folder)] * settings.sandbox + ["--thorough"] * settings.thorough
    options += ["--contract", contract, "--json", "--jobs", str(settings.jobs)]
    options += [f"--only={case}" for case in settings.only]
    traces = work_dir / "traces"
    options += [f"--trace={traces}"] * settings.trace
    options += [f"--input={line}" for line in recipe.typed.splitlines()]
    options += [f"--against={settings.against}"] * bool(settings.against)
    command = [*self_command(), "check", settings.role, *options, "--", *recipe.run]
    timeout = JUDGE_TIMEOUT * load_factor()  # the timeouts of its cases are prolonged by as much
    status, stdout, stderr = _children.run(command, folder, timeout)
    if status is None:
        return f"the check did not finish within {timeout:g} s", _UNFINISHED
    try:
        result: dict[str, Any] = json.loads(stdout)
    except ValueError:
        return stderr.decode(
            "utf-8", "replace"
        ).strip() or f"the check exited with status {status}", _UNTESTED
    if settings.trace:
        result["pages"] = {page.name: page.read_text("utf-8") for page in sorted(traces.glob("*.html"))}
    return result


def _failed_to_run_result(
    name: str,
    settings: BatchSettings,
    reason: str,
    stderr_tail: str = "",
    cause: str = _UNTESTED,
) -> SuiteResult:
    """Return the result of a submission that cannot be built or run: one failed case."""
    reason = "\n".join(map(escape_text, reason.splitlines()))
    contract, suite, points = _describe_contract(settings)
    outcome = CaseOutcome(
        "build", Verdict.FAIL, expected="a program that can be built and run", happened=reason,
        likely_cause=_compiler_error(stderr_tail) or cause,
        stderr_tail=stderr_tail, max_points=points,
    )  # fmt: skip
    return SuiteResult(name, contract, suite, (outcome,))


def _compiler_error(text: str) -> str:
    """Return the first line of a compiler's output that says "error", or ""."""
    found = re.search(r"^.*\berror\b.*$", text, re.MULTILINE)
    return found[0].strip() if found else ""


@functools.lru_cache(maxsize=4)
def _describe_contract(settings: BatchSettings) -> tuple[str, str, float]:
    """Return the contract's name, the suite, and the points that any program can reach."""
    role: Literal["server", "client"] = "client" if settings.role == "client" else "server"
    with scratch_folder("batch") as folder:
        name = settings.contract
        if "\n" in name:
            name = str(write_copy(folder, name, settings.contract_files))
        contract = contracts.load(name, allow_code=settings.allow_code)
        suite = suite_for(contract, role)
        gate, *others = cases(suite, contract)
        asked = [gate, *(each for each in selected_cases(others, settings.only))]
        oracle = contracts.make_oracle(contract)
        possible = possible_points(asked, contract, oracle, thorough=settings.thorough)
    return contract.name, suite, sum(possible.values())


def load_previous(file: Path, digest: str | None = None) -> JudgedSubmission | None:
    """Return the result in a file, or None if there is none, or none with this digest if one is given."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(file.read_text(encoding="utf-8"))
        if digest is None or found["digest"] == digest:
            return judged_submission_from_object(found)
    return None


def judged_submission_from_object(value: dict[str, Any]) -> JudgedSubmission:
    """Return the submission for an object that `as_object` returned."""
    name, digest, language = value["name"], value["digest"], value["language"]
    return JudgedSubmission(name, digest, language, from_object(value), value.get("remark", ""))


def judge_all(
    folders: Sequence[Path],
    settings: BatchSettings,
    out: Path,
    *,
    workers: int,
    cluster: str = "",
    progress: Callable[[JudgedSubmission, int], None] = lambda _judged, _remaining: None,
    stopped: Callable[[list[JudgedSubmission]], None] = lambda _found: None,
    remark: Callable[[str], object] = lambda _text: None,
) -> list[JudgedSubmission]:
    """Judge all submissions, and write each result to a file in `out`.

    Args:
        workers: the number of submissions judged at the same time, without a cluster.
        cluster: the address of a dask.distributed scheduler whose workers judge; they need bothends.
        progress: called with each new result, and the number of submissions that remain.
        stopped: called with the results so far if an exception, such as KeyboardInterrupt, ends the batch.
        remark: called with a sentence about the batch, such as that the cluster has no TLS, or no workers.

    Returns: the results, in the order of `folders`.

    Raises:
        Unavailable: the cluster is unreachable, or distributed is not installed.
        OSError: a result cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    results: dict[str, JudgedSubmission] = {}
    pending: list[PackedSubmission] = []
    unreadable: list[JudgedSubmission] = []
    for folder in folders:
        name = submission_name(folder)
        try:
            archive = pack(folder)
        except Exception as error:
            unreadable.append(judging_failure(name, settings, error))
            continue
        previous = load_previous(out / f"{name}.json", compute_digest(archive, settings))
        if previous is None:
            pending.append((name, archive, settings))
        else:
            results[name] = previous
    remaining = len(unreadable) + len(pending)
    try:
        with closing(_judge_pending(pending, workers, cluster, remark)) as judged_now:
            for judged in itertools.chain(unreadable, (_keep_pages(each, out) for each in judged_now)):
                results[judged.name] = judged
                text = json_text(judged.as_object(), indent=2)
                (out / f"{judged.name}.json").write_text(text, encoding="utf-8", errors="backslashreplace")
                remaining -= 1
                progress(judged, remaining)
    except BaseException:
        names = [submission_name(folder) for folder in folders]
        stopped([results[name] for name in names if name in results])
        raise
    return [results[submission_name(folder)] for folder in folders]


def _keep_pages(value: dict[str, Any], out: Path) -> JudgedSubmission:
    """Return a submission for its object, and write the pages about its failed cases below `out`."""
    pages = value.pop("pages", {})
    judged = judged_submission_from_object(value)
    folder = out / "traces" / judged.name
    if not pages:
        return judged
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        with open(open_private(folder / Path(name).name), "w", encoding="utf-8") as file:
            file.write(text)
    outcomes = tuple(
        replace(each, evidence=str(folder / Path(each.evidence).name)) if each.evidence else each
        for each in judged.result.outcomes
    )
    return replace(judged, result=replace(judged.result, outcomes=outcomes))


def _failed_worker(submission: PackedSubmission, error: BaseException) -> dict[str, Any]:
    """Return the result of a submission whose worker raised an exception, such as KilledWorker."""
    name, _, settings = submission
    return judging_failure(name, settings, error).as_object()


def _judge_pending(
    pending: Sequence[PackedSubmission], workers: int, cluster: str, remark: Callable[[str], object]
) -> Generator[dict[str, Any], None, None]:
    if pending and cluster:
        pending = yield from run_on_cluster(judge_one, _failed_worker, pending, cluster, remark)
        if pending:
            remark(
                f"{cluster} has no workers: the remaining {len(pending)} programs are judged on this machine"
            )
    if not pending:
        return
    _children.reopen()
    pool = ThreadPoolExecutor(workers)
    with Reaper() as reaper:
        reaper.kill_tagged(_TAG_VARIABLE)
        try:
            futures: list[Future[dict[str, Any]]] = [pool.submit(judge_one, *each) for each in pending]
            for done in as_completed(futures):
                yield done.result()
        except BaseException:  # including KeyboardInterrupt
            _children.terminate_all()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
