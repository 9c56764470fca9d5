"""Compile and match the regular expressions of contracts, with a limit on the CPU time of each match.

1. `re` backtracks: a pattern such as `(a+)+b` takes time that doubles with each byte of a wrong text. Its
   author may not have noticed, and the text comes from the program under test.
2. `re` holds the interpreter lock while it matches, so no thread and no timeout of the event loop can
   interrupt it. It does look for signals, every 4,096 steps, and a signal handler of Python that raises an
   exception ends the match. ITIMER_VIRTUAL counts the process's own CPU time (setitimer(2)), so that a busy
   machine changes nothing.
3. Signal handlers run in the main thread only, where all of `check` matches. In another thread, as that of
   the honest client of `attack`, a match has no limit.
4. Many such patterns are found before anything is judged: `check_speed` tries texts that make them slow.
"""

from __future__ import annotations

import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final, TypeVar

from bothends.errors import UsageError

MAX_SECONDS: Final = 1.0  # of CPU time; a pattern without the problem needs milliseconds
_PROBE_SECONDS: Final = 0.25
_PROBE_SIZE: Final = 200  # bytes: 2 ** 200 steps if the time doubles with each byte, 8e6 if it is cubic
_PROBE_UNITS: Final = (b"a", b"1", b" ", b"a ", b"a,", b"1.", b"a: b\r\n", b"\0")

_T = TypeVar("_T")


@dataclass(eq=False, repr=False)
class PatternTooSlow(UsageError):
    """A pattern of a contract needs too much CPU time. Fields: `pattern`, `size` (of the text, in bytes)."""

    pattern: str
    size: int

    @property
    def reason_and_hint(self) -> tuple[str, str]:
        """The reason, and what to write instead."""
        return (
            f"the pattern {self.pattern!r} takes too long on a text of {self.size:,} bytes",
            "write it without a repetition inside a repetition",
        )

    def __str__(self) -> str:
        return "; ".join(self.reason_and_hint)


def compile_pattern(pattern: str | bytes) -> re.Pattern[bytes]:
    """Compile a pattern in which a dot matches LF too. Raises re.error."""
    with warnings.catch_warnings():
        # Python warns of "[[", which a later version may interpret in another way.
        warnings.simplefilter("ignore", FutureWarning)
        try:
            return re.compile(pattern.encode() if isinstance(pattern, str) else pattern, re.DOTALL)
        except OverflowError as error:  # a{99999999999}
            raise re.error(str(error)) from error
        except RecursionError as error:
            raise re.error("nested too deeply") from error


class _Expired(Exception):
    """The CPU time is over."""


@contextmanager
def _cpu_limit(seconds: float) -> Iterator[None]:
    """Raise _Expired in the block after this CPU time. No limit in another thread than the main one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(_number: int, _frame: FrameType | None) -> None:
        raise _Expired

    previous = signal.signal(signal.SIGVTALRM, expire)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)


def _limited(
    pattern: re.Pattern[bytes], text: bytes, match: Callable[[bytes], _T], seconds: float = MAX_SECONDS
) -> _T:
    try:
        with _cpu_limit(seconds):
            return match(text)
    except _Expired:
        raise PatternTooSlow(pattern.pattern.decode("utf-8", "replace"), len(text)) from None


def match_whole(pattern: re.Pattern[bytes], text: bytes) -> re.Match[bytes] | None:
    """Match the whole of a text.

    Raises:
        PatternTooSlow: it takes more than MAX_SECONDS of CPU time.
    """
    return _limited(pattern, text, pattern.fullmatch)


def match_start(pattern: re.Pattern[bytes], text: bytes) -> re.Match[bytes] | None:
    """Match the beginning of a text.

    Raises:
        PatternTooSlow: it takes more than MAX_SECONDS of CPU time.
    """
    return _limited(pattern, text, pattern.match)


def check_speed(pattern: re.Pattern[bytes], examples: Sequence[bytes] = ()) -> None:
    """Try a pattern on texts of 200 bytes that almost match: repetitions with a wrong end.

    Args:
        examples: texts that match it.

    Raises:
        PatternTooSlow: one of them takes more than a quarter of a second of CPU time.
    """
    for unit in (*_PROBE_UNITS, *filter(None, examples)):
        repeated = (unit * (_PROBE_SIZE // len(unit) + 1))[:_PROBE_SIZE]
        for end in (b"", b"\0", b"\xff!"):
            text = repeated + end
            _limited(pattern, text, pattern.fullmatch, _PROBE_SECONDS)
