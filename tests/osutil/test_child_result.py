"""A function runs in a child process; if that fails, in this one; and no process stays behind."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from bothends.osutil.child_result import ChildResult


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing else ran here: pytest's own threads don't count."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(threading, "active_count", lambda: 1)


def test_result_comes_from_another_process() -> None:
    with ChildResult(lambda: (os.getpid(), "x" * 1_000_000)) as child:
        pid, text = child.get()
    assert pid != os.getpid()
    assert len(text) == 1_000_000
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_failing_child_is_replaced() -> None:
    own = os.getpid()

    def function() -> int:
        if os.getpid() != own:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    with ChildResult(function) as child:
        assert child.get() == own


@pytest.mark.parametrize(("name", "value"), [("cpu_count", 1), ("active_count", 2)])
def test_without_a_second_processor_there_is_no_child(
    monkeypatch: pytest.MonkeyPatch, name: str, value: int
) -> None:
    module = os if name == "cpu_count" else threading
    monkeypatch.setattr(module, name, lambda: value)
    with ChildResult(os.getpid) as child:
        assert child.get() == os.getpid()


def test_child_ends_with_the_block() -> None:
    reader, writer = os.pipe()
    with ChildResult(lambda: os.read(reader, 1)):  # it would wait for ever
        pass
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    os.close(reader)
    os.close(writer)
