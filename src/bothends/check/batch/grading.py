"""Many programs under one contract: built, judged side by side here or on a cluster, and summed up.

1. A submission is packed (`pack`), so that it can be judged on any machine, and that no run changes it.
2. `judge_one` unpacks it into a folder of its own, builds it, and runs `bothends check ... --json` on it as a
   process of its own: whatever happens there, the others go on. It is what a worker of a cluster runs, too.
3. Each result is a file, named for the submission, with a digest of what was judged. What has one already is
   not judged again: so a batch that was stopped goes on where it was.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bothends.check.batch.build_recipes import NoRecipe, Recipe, find_recipe
from bothends.check.case import Verdict
from bothends.check.results import CaseOutcome, SuiteResult, from_object
from bothends.errors import BothendsError, SystemCallFailed, Unavailable
from bothends.escaping import escape
from bothends.osutil.reaper import Reaper, process_tag
from bothends.osutil.reexec import self_command

MAX_ARCHIVE_SIZE: Final = 16 << 20  # bytes of a submission, packed: sources, and no data
BUILD_TIMEOUT: Final = 60.0  # seconds
JUDGE_TIMEOUT: Final = 300.0  # seconds: ten times what a whole suite takes
_TAG_VARIABLE: Final = "BOTHENDS_BATCH"  # in the environment of all that a batch starts: its process
_GRACE: Final = 10.0  # seconds in which a check ends what it has started
_MAX_STDERR: Final = 65_536  # bytes of complaints that are read


class _ChildProcesses:
    """The processes of a batch, all of which end when it does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def run(
        self, command: Sequence[str], folder: Path, timeout: float, **environment: str
    ) -> tuple[int | None, bytes, bytes]:
        """Run a command: its status, None if it wasn't done in time, and what it wrote and complained.

        `environment` is added to ours. It writes into files, which have an end where it is confined; by a
        pipe it could fill our memory.

        Raises:
            OSError: it can't be started.
        """
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
            with self._lock:
                if self._closed:
                    raise InterruptedError(errno.EINTR, "the batch was stopped")
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env={**os.environ, **environment, _TAG_VARIABLE: process_tag()},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=complaints,
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
            output.seek(0)
            complaints.seek(0)
            return status, output.read(), complaints.read(_MAX_STDERR)

    def reopen(self) -> None:
        """A batch begins."""
        self._closed = False

    def terminate_all(self) -> None:
        """End what is under way, and let nothing begin any more."""
        with self._lock:
            self._closed = True
            for process in self._processes:
                process.terminate()  # a check then takes its programs with it


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """End a process, in good order if it can be."""
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


_children: Final = _ChildProcesses()


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How all of them are judged. `contract` is a name, or the text of a file."""

    role: str
    contract: str
    sandbox: bool = True
    thorough: bool = False
    jobs: int = 4


@dataclass(frozen=True, slots=True)
class JudgedSubmission:
    """One submission and how it was judged: `digest` of what was, `language` that it was taken for."""

    name: str
    digest: str
    language: str
    result: SuiteResult

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "digest": self.digest,
            "language": self.language,
            **self.result.as_object(),
        }


def pack(folder: Path) -> bytes:
    """A submission as an archive, without what is hidden, and without links.

    Raises:
        SystemRefused: it can't be read, or is too large.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            place = path.relative_to(folder)
            if path.is_symlink() or not path.is_file() or any(part.startswith(".") for part in place.parts):
                continue
            try:
                data = path.read_bytes()
            except OSError as error:
                raise SystemCallFailed("read", str(path), error.errno or 0) from error
            if buffer.tell() + len(data) > MAX_ARCHIVE_SIZE:
                raise SystemCallFailed(
                    "take", str(folder), 27, f"more than {MAX_ARCHIVE_SIZE >> 20} MiB"
                )  # EFBIG
            member = tarfile.TarInfo(str(place))
            member.size, member.mode = len(data), 0o755 if os.access(path, os.X_OK) else 0o644
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def unpack(archive: bytes, folder: Path) -> None:
    """Put a packed submission into a folder; only plain files, and only there."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        for member in packed:
            path, file = folder / member.name, packed.extractfile(member)
            if file is None or not member.isreg() or ".." in Path(member.name).parts:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.read())
            path.chmod(member.mode & 0o755)


def compute_digest(archive: bytes, settings: BatchSettings) -> str:
    """What was judged, and how: another digest is another run."""
    told = json.dumps(asdict(settings), sort_keys=True).encode()
    return hashlib.sha256(told + b"\0" + archive).hexdigest()


def judge_one(name: str, archive: bytes, settings: BatchSettings) -> dict[str, Any]:
    """Judge one packed submission, here; what `JudgedSubmission.as_object` gives. Raises nothing for what is in it."""
    digest = compute_digest(archive, settings)
    with tempfile.TemporaryDirectory(prefix="bothends-batch-") as place:
        folder = Path(place) / "program"
        folder.mkdir()
        unpack(archive, folder)
        try:
            known = find_recipe(folder, settings.role)
        except (NoRecipe, BothendsError, OSError) as error:
            return JudgedSubmission(
                name, digest, "", _failed_to_run_result(name, settings, str(error))
            ).as_object()
        failure = _build(folder, known, sandbox=settings.sandbox)
        if failure is not None:
            return JudgedSubmission(
                name, digest, known.language, _failed_to_run_result(name, settings, *failure)
            ).as_object()
        result = _judge(Path(place), folder, known, settings)
    if isinstance(result, str):
        return JudgedSubmission(
            name, digest, known.language, _failed_to_run_result(name, settings, result)
        ).as_object()
    return {"name": name, "digest": digest, "language": known.language, **result}


def _build(folder: Path, build_recipe: Recipe, *, sandbox: bool) -> tuple[str, str] | None:
    """Build it; None, or what went wrong and what the compiler said."""
    places = {  # compilers that keep these at home, which in the sandbox is an empty folder
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup")),
        "GOCACHE": str(folder / ".cache"),
    }
    for command in build_recipe.build:
        ours = self_command("bothends.check.batch.build") if sandbox else []
        try:
            status, _, complaint = _children.run([*ours, *command], folder, BUILD_TIMEOUT, **places)
        except OSError as error:
            return f"{command[0]}: {error.strerror}", ""
        if status is None:
            return f"{command[0]} isn't done after {BUILD_TIMEOUT:g} s", ""
        if status:
            said = "\n".join(map(escape, complaint.strip().splitlines()[:12]))
            return f"it doesn't build: {command[0]} ended with {status}", said
    return None


def _judge(
    work_dir: Path, folder: Path, build_recipe: Recipe, settings: BatchSettings
) -> dict[str, Any] | str:
    """Run the check on it as a process of its own; its result, or why there is none."""
    contract = settings.contract
    if "\n" in contract:
        contract = str(work_dir / "contract.toml")
        Path(contract).write_text(settings.contract, encoding="utf-8")
    options = ["--sandbox"] * settings.sandbox + ["--thorough"] * settings.thorough
    options += ["--contract", contract, "--json", "--jobs", str(settings.jobs)]
    command = [*self_command(), "check", settings.role, *options, "--", *build_recipe.run]
    status, said, complaint = _children.run(command, folder, JUDGE_TIMEOUT)
    if status is None:
        return f"it can't be judged in {JUDGE_TIMEOUT:g} s"
    try:
        found: dict[str, Any] = json.loads(said)
    except ValueError:
        return complaint.decode("utf-8", "replace").strip() or f"the check ended with {status}"
    return found


def _failed_to_run_result(
    name: str, settings: BatchSettings, reason: str, stderr_tail: str = ""
) -> SuiteResult:
    """The result of what can't be judged: one failure."""
    suite = "udp" if "udp" in settings.contract else "tcp"
    outcome = CaseOutcome(
        "build", Verdict.FAIL, expected="a program that can be built and run", happened=reason,
        mistake="it was never tried on a clean machine", complaint=stderr_tail,
    )  # fmt: skip
    contract = settings.contract if "\n" not in settings.contract else "contract"
    return SuiteResult(name, contract, suite, (outcome,))


def load_previous(file: Path, digest: str) -> JudgedSubmission | None:
    """The result that lies there, if it is of the same program, judged in the same way."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["digest"] == digest:
            return judged_submission_from_object(found)
    return None


def judged_submission_from_object(value: dict[str, Any]) -> JudgedSubmission:
    """What `as_object` gave, read back."""
    return JudgedSubmission(value["name"], value["digest"], value["language"], from_object(value))


def judge_all(
    folders: Sequence[Path],
    settings: BatchSettings,
    out: Path,
    *,
    workers: int,
    cluster: str = "",
    progress: Callable[[JudgedSubmission, int], None] = lambda _marked, _left: None,
) -> list[JudgedSubmission]:
    """Judge all of them, and put each result into `out`; in the order of `folders`.

    `progress` is told of each result, and how many are left. With a `cluster` (the address of a
    dask.distributed scheduler) its workers do it; bothends must be installed there.

    Raises:
        SystemRefused: a submission can't be read, a result can't be written.
        Unavailable: there is no such cluster, or distributed isn't installed.
    """
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, JudgedSubmission] = {}
    waiting: list[tuple[str, bytes, BatchSettings]] = []
    for folder in folders:
        name = folder.resolve().name
        archive = pack(folder)
        before = load_previous(out / f"{name}.json", compute_digest(archive, settings))
        if before is None:
            waiting.append((name, archive, settings))
        else:
            found[name] = before
    for number, value in enumerate(_judge_pending(waiting, workers, cluster), 1):
        one = judged_submission_from_object(value)
        found[one.name] = one
        text = json.dumps(value, indent=2, ensure_ascii=False)
        (out / f"{one.name}.json").write_text(text, encoding="utf-8")
        progress(one, len(waiting) - number)
    return [found[folder.resolve().name] for folder in folders]


def _judge_pending(
    pending: Sequence[tuple[str, bytes, BatchSettings]], workers: int, cluster: str
) -> Iterator[dict[str, Any]]:
    if not pending:
        return
    if cluster:
        yield from _run_on_cluster(pending, cluster)
        return
    _children.reopen()
    pool = ThreadPoolExecutor(workers)
    with Reaper() as heir:
        heir.kill_tagged(_TAG_VARIABLE)
        try:
            futures: list[Future[dict[str, Any]]] = [pool.submit(judge_one, *each) for each in pending]
            for done in as_completed(futures):
                yield done.result()
        except BaseException:  # ^C as well
            _children.terminate_all()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _run_on_cluster(
    pending: Sequence[tuple[str, bytes, BatchSettings]], cluster: str
) -> Iterator[dict[str, Any]]:
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise Unavailable(
            "reach", cluster, hint="pip install 'bothends[cluster]'", reason="distributed isn't installed"
        ) from error
    try:
        client = distributed.Client(cluster, timeout="10s")
    except (OSError, ValueError) as error:
        raise Unavailable("reach", cluster, hint="is the scheduler running?", reason=str(error)) from error
    with client:
        # Its own cases run at once already, so a worker judges one program at a time.
        futures = [client.submit(judge_one, *each, pure=False) for each in pending]
        for done in distributed.as_completed(futures):
            yield done.result()
