"""A class: students with names and without accounts, what they are doing, and their work.

1. The address of the class has a token, and each browser that opens it becomes a student: it gets a cookie
   with a secret of its own. The teacher's address has another token.
2. Everything that must survive a restart is in one file of the state folder, which only its owner may read:
   the tokens, the hash of each secret, names and work. It is replaced as a whole (rename(2)), two seconds
   after a change.
3. Names and work are a student's: bounded by `messages.py`, and escaped when they enter.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import os
import secrets
import threading
import time
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from bothends.errors import ConfigurationError, SystemCallFailed, UsageError
from bothends.escaping import escape_controls, escape_text
from bothends.lab.messages import MAX_NAME, Work
from bothends.osutil.private_files import open_private

MAX_STUDENTS: Final = 200
MAX_STATE: Final = 256 << 20  # bytes of the file
SAVE_INTERVAL: Final = 2.0  # seconds
_VERSION: Final = 1
_FILE: Final = "class.json"
_LOCK: Final = "lock"
_MAX_PASSED: Final = 200  # lessons that a student has done

_EASY: Final = "abcdefghjkmnpqrstuvwxyz2345679"  # without letters that look like others

_Token = Annotated[str, Meta(min_length=11, max_length=100)]


class Student(Struct):
    """A student: a number, the hash of its secret, and what it has said about itself.

    `state`: "idle", "waits" or "runs"; `seen`: seconds since 1970.
    """

    number: Annotated[int, Meta(ge=1, le=MAX_STUDENTS)]
    digest: Annotated[str, Meta(min_length=64, max_length=64)]
    name: Annotated[str, Meta(max_length=4 * MAX_NAME)] = ""
    state: Annotated[str, Meta(max_length=20)] = "idle"
    seen: float = 0.0
    passed: Annotated[list[Annotated[str, Meta(max_length=100)]], Meta(max_length=_MAX_PASSED)] = []
    work: Work | None = None

    def summary(self) -> dict[str, Any]:
        """Return what the teacher's list shows, for JSON. Times are seconds ago."""
        return {
            "number": self.number,
            "name": self.name,
            "where": self.work.where if self.work is not None else "",
            "state": self.state,
            "seen": round(max(0.0, time.time() - self.seen), 1),
            "passed": self.passed,
        }


class _State(Struct):
    """The file."""

    version: int
    join: _Token
    teacher: _Token
    teachers: Annotated[list[str], Meta(max_length=20)] = []  # hashes of their secrets
    students: Annotated[list[Student], Meta(max_length=MAX_STUDENTS)] = []


class Classroom:
    """The students, their secrets and their work. Open it with `Classroom.open`, and close it.

    It is the `Keys` of a class: see `guard.py`.
    """

    max_age: int | None = 30 * 24 * 3600  # seconds: a cookie is for a course, not for an evening

    def __init__(self, folder: Path, lock: int, state: _State) -> None:
        self._folder = folder
        self._lock = lock
        self._state = state
        self._is_dirty = False
        self._saved_at = 0.0
        self._saving = threading.Lock()

    @classmethod
    def open(cls, folder: Path) -> Classroom:
        """Open the class of a state folder, which is created if it does not exist.

        Raises:
            SystemCallFailed: the folder cannot be used.
            UsageError: another lab has it.
            ConfigurationError: the file in it is damaged.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SystemCallFailed("use", str(folder), error.errno or 0) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise UsageError(f"another lab has the class in {folder}; give another --state") from None
        try:
            return cls(folder, lock, _read(folder / _FILE))
        except BaseException:
            os.close(lock)
            raise

    def close(self) -> None:
        """Save, and let another lab open it."""
        with contextlib.suppress(SystemCallFailed):
            self.save(at_once=True)
        os.close(self._lock)

    # Keys ---------------------------------------------------------------------------------------------

    @property
    def join_token(self) -> str:
        """The token of the address for students."""
        return self._state.join

    @property
    def teacher_token(self) -> str:
        """The token of the teacher's address."""
        return self._state.teacher

    def visitor(self, secret: str) -> object | None:
        """Return the student with a secret, True for the teacher, or None."""
        digest = _digest(secret)
        if any(hmac.compare_digest(digest, each) for each in self._state.teachers):
            return True
        return next((each for each in self._state.students if hmac.compare_digest(digest, each.digest)), None)

    def admit(self, token: str, visitor: object | None) -> str | None:
        """Return a new secret for a browser that has opened an address, or None if it needs none.

        Raises:
            PermissionError: the token is wrong, or the class is full.
        """
        is_teacher = hmac.compare_digest(token.encode(), self._state.teacher.encode())
        if visitor is True or (visitor is not None and not is_teacher):
            return None
        secret = secrets.token_urlsafe(24)
        if is_teacher:
            self._state.teachers = [*self._state.teachers[-19:], _digest(secret)]
        elif hmac.compare_digest(token.encode(), self._state.join.encode()):
            self._make_room()
            number = 1 + max((each.number for each in self._state.students), default=0)
            if number > MAX_STUDENTS:
                number = min(set(range(1, MAX_STUDENTS + 1)) - {each.number for each in self.students})
            self._state.students.append(Student(number, _digest(secret), seen=time.time()))
        else:
            raise PermissionError("wrong token")
        self.touch()
        return secret

    def _make_room(self) -> None:
        """Remove a browser that has opened the address only, if the class is full. Raises PermissionError."""
        if len(self._state.students) < MAX_STUDENTS:
            return
        unused = [each for each in self._state.students if not each.name and each.work is None]
        if not unused:
            raise PermissionError("the class is full")
        self._state.students.remove(min(unused, key=lambda each: each.seen))

    # Students -----------------------------------------------------------------------------------------

    @property
    def students(self) -> list[Student]:
        """The students, by number."""
        return sorted(self._state.students, key=lambda each: each.number)

    def rename(self, student: Student, name: str) -> None:
        """Give a student a name."""
        student.name = escape_controls(" ".join(name.split()))[: 4 * MAX_NAME]
        self.touch()

    def keep(self, student: Student, work: Work) -> None:
        """Keep a student's work."""
        student.work, student.seen = work, time.time()
        self.touch()

    def remove(self, number: int) -> Student | None:
        """Remove a student with its work, so that its secret is worth nothing. Returns: it, or None."""
        found = next((each for each in self._state.students if each.number == number), None)
        if found is not None:
            self._state.students.remove(found)
            self.touch()
        return found

    def pass_lesson(self, student: Student, lesson: str) -> None:
        """Note that a student has done a lesson."""
        if lesson not in student.passed and len(student.passed) < _MAX_PASSED:
            student.passed.append(lesson)
            self.touch()

    def touch(self) -> None:
        """Note that there is something to save."""
        self._is_dirty = True

    def save(self, *, at_once: bool = False) -> None:
        """Write the file, if something has changed and the last time was long enough ago.

        It may be called in another thread: the state is encoded at once, while no other thread runs.

        Raises:
            SystemCallFailed: it cannot be written.
        """
        with self._saving:
            if self._is_dirty and (at_once or time.monotonic() - self._saved_at >= SAVE_INTERVAL):
                self._is_dirty, self._saved_at = False, time.monotonic()
                self._write()

    def _write(self) -> None:
        path = self._folder / _FILE
        new = path.with_suffix(".new")
        try:
            with open(open_private(new, os.O_NOFOLLOW), "wb") as file:
                file.write(msgspec.json.encode(self._state))
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except OSError as error:
            self._is_dirty = True
            raise SystemCallFailed("write", str(path), error.errno or 0) from error


def parse_state(data: bytes, file: str) -> _State:
    """Return the content of the file. Raises ConfigurationError."""
    try:
        state = msgspec.json.decode(data, type=_State)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(file, "", "", f"damaged: {escape_text(str(error))}; move it away") from error
    if state.version != _VERSION:
        raise ConfigurationError(file, "", "", f"version {state.version} is not supported")
    if len({each.number for each in state.students}) < len(state.students):
        raise ConfigurationError(file, "", "", "two students have the same number")
    for each in state.students:
        each.name, each.state = escape_controls(each.name), "idle"
    return state


def _read(path: Path) -> _State:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_STATE + 1)
    except FileNotFoundError:
        return _State(_VERSION, _easy_token(), secrets.token_urlsafe(24))
    except OSError as error:
        raise SystemCallFailed("read", str(path), error.errno or 0) from error
    if len(data) > MAX_STATE:
        raise ConfigurationError(str(path), "", "", f"longer than {MAX_STATE:,} bytes")
    return parse_state(data, str(path))


def _easy_token() -> str:
    """Return a token of 49 bits that can be typed from a projector."""
    letters = "".join(secrets.choice(_EASY) for _ in range(10))
    return f"{letters[:5]}-{letters[5:]}"


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def default_folder() -> Path:
    """Return the folder for a class in the user's state directory (XDG Base Directory Specification, 0.8)."""
    state = os.environ.get("XDG_STATE_HOME", "")
    home = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return home / "bothends" / "class"
