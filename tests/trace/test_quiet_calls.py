"""Which calls the diagram leaves out: those that transfer nothing, unless they fail or block for long."""

from __future__ import annotations

import pytest

from bothends.trace.model import Call, Point, ProcessEvent, Socket, Trace, TracedProcess
from bothends.trace.rendering.layout import LONG_WAIT_NS, Filter, Layout, Row, WaitArrow

MILLISECOND = 1_000_000
START = 10 * LONG_WAIT_NS


class Run:
    """A program with one socket, whose calls are drawn one by one."""

    def __init__(self, row_filter: Filter) -> None:
        self.trace = Trace()
        self.trace.processes[1] = TracedProcess(1, 100, "client")
        self.trace.sockets[1] = Socket(1, "inet", "stream")
        self.layout = Layout(self.trace, row_filter)
        self.now = START
        self.rows: list[Row] = []
        self.call("socket", result=3)

    def begin(self, name: str, *arguments: str, thread: int = 100) -> Call:
        call = Call(len(self.trace.points) + 1, 1, thread, name, self.now, arguments=arguments)
        call.descriptor, call.socket = 3, 1
        self.add(Point(call))
        return call

    def end(self, call: Call, *, after: int = 1000, result: int = 0, error: str = "") -> None:
        self.now += after
        call.until, call.result, call.error = self.now, None if error else result, error
        self.add(Point(call, is_end=True))

    def call(self, name: str, *arguments: str, after: int = 1000, result: int = 0, error: str = "") -> None:
        self.end(self.begin(name, *arguments), after=after, result=result, error=error)

    def add(self, point: Point) -> None:
        self.trace.add(point)
        self.rows += self.layout.rows(point)

    @property
    def texts(self) -> list[str]:
        """The texts of all rows but the headers."""
        return [cell.text for row in self.rows for cell in row.cells if not row.is_header][1:]


@pytest.mark.parametrize(
    ("name", "arguments", "after", "error"),
    [
        ("setsockopt", ("3", "SOL_SOCKET", "SO_REUSEADDR", "[1]", "4"), 1000, ""),
        ("poll", ("[{fd=3, events=POLLIN}]", "1", "-1"), 999 * MILLISECOND, ""),
        ("getpeername", ("3",), 1000, "ENOTCONN"),
        ("ioctl", ("3", "TCGETS"), 1000, "ENOTTY"),
        ("poll", ("[]", "0", "-1"), 1000, "ERESTART_RESTARTBLOCK"),
        ("getsockopt", ("3", "SOL_SOCKET", "SO_ERROR", "[0]", "[4]"), 1000, ""),
    ],
)
def test_quiet_call_is_drawn_only_if_asked(
    name: str, arguments: tuple[str, ...], after: int, error: str
) -> None:
    run = Run(Filter(hide_quiet_calls=True))
    run.call(name, *arguments, after=after, error=error)
    assert run.texts == []
    run = Run(Filter())
    run.call(name, *arguments, after=after, error=error)
    assert len(run.texts) == 1
    assert [cell.style for row in run.rows for cell in row.cells][-1] == "quiet"


@pytest.mark.parametrize(
    ("name", "arguments", "after", "error", "text"),
    [
        ("setsockopt", ("3", "0", "99"), 1000, "ENOPROTOOPT", "setsockopt(3, 0, 99) = ENOPROTOOPT"),
        ("poll", ("[]", "0", "2000"), 2 * LONG_WAIT_NS, "", "poll([], 0, 2000) = 0, after 2 s"),
        (
            "getsockopt", ("3", "SOL_SOCKET", "SO_ERROR", "[ECONNREFUSED]", "[4]"), 1000, "",
            "getsockopt(3, SOL_SOCKET, SO_ERROR, [ECONNREFUSED], [4])",
        ),
        ("fork", (), 1000, "", "fork()"),
    ],
)  # fmt: skip
def test_call_that_fails_or_blocks_is_drawn(
    name: str, arguments: tuple[str, ...], after: int, error: str, text: str
) -> None:
    run = Run(Filter(hide_quiet_calls=True))
    run.call(name, *arguments, after=after, error=error)
    assert run.texts == [text]


def test_lane_is_dotted_while_a_hidden_call_blocks() -> None:
    run = Run(Filter(hide_quiet_calls=True))
    poll = run.begin("poll", "[]", "0", "-1")
    run.add(Point(ProcessEvent(9, run.now, 1, "signal", "SIGALRM")))
    assert run.rows[-1].bars == ("waits",)
    run.end(poll)
    run.add(Point(ProcessEvent(10, run.now, 1, "signal", "SIGALRM")))
    assert run.rows[-1].bars == ("runs",)
    assert run.texts == ["SIGALRM", "SIGALRM"]


def test_hidden_call_is_drawn_when_it_has_blocked_for_long() -> None:
    run = Run(Filter(hide_quiet_calls=True))
    poll = run.begin("poll", "[]", "0", "-1")
    arrow = WaitArrow(1, 1, "waits", poll.number)
    assert list(run.layout.wait_rows([arrow], run.now + LONG_WAIT_NS - 1)) == []
    [row] = run.layout.wait_rows([arrow], run.now + LONG_WAIT_NS)
    assert [cell.text for cell in row.cells] == ["poll([], 0, -1) waits"]
    assert list(run.layout.wait_rows([arrow], run.now + 2 * LONG_WAIT_NS)) == []
    run.end(poll, after=3 * LONG_WAIT_NS)
    assert run.texts == ["poll([], 0, -1) = 0, after 3 s"]


def test_wait_of_an_ended_process_is_not_drawn() -> None:
    run = Run(Filter(hide_quiet_calls=True))
    run.begin("poll", "[]", "0", "-1")
    run.add(Point(ProcessEvent(9, run.now, 1, "ended", "killed by SIGKILL", -9)))
    assert list(run.layout.wait_rows([], run.now + 2 * LONG_WAIT_NS)) == []


def test_other_filters_apply_to_hidden_waits() -> None:
    run = Run(Filter(hide_quiet_calls=True, ports=frozenset({80})))
    run.begin("poll", "[]", "0", "-1")
    assert list(run.layout.wait_rows([], run.now + 2 * LONG_WAIT_NS)) == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("ERESTARTSYS", "recvfrom(3) interrupted by a signal"),
        ("ERESTARTNOINTR", "recvfrom(3) interrupted by a signal, and restarted"),
        ("ERESTARTNOHAND", "recvfrom(3) interrupted by a signal"),
        ("ERESTART_RESTARTBLOCK", "recvfrom(3) interrupted by a signal"),
        ("EINTR", "recvfrom(3) = EINTR"),
        ("EAGAIN", "recvfrom(3) = EAGAIN"),
    ],
)
def test_interrupted_call_is_in_words_and_no_error(error: str, text: str) -> None:
    run = Run(Filter())
    run.call("recvfrom", error=error)
    assert run.texts == [text]
    assert [cell.style for row in run.rows for cell in row.cells][-1] == "quiet"


@pytest.mark.parametrize(
    ("after", "texts"), [(900_000, []), (1_100_000, ["clock_nanosleep(), after 1.1 ms"])]
)
def test_a_sleep_is_drawn_if_it_lasts(after: int, texts: list[str]) -> None:
    run = Run(Filter(hide_quiet_calls=True))
    run.call("clock_nanosleep", "CLOCK_MONOTONIC", "TIMER_ABSTIME", after=after)
    assert run.texts == texts


def test_threads_are_marked_when_there_are_several() -> None:
    run = Run(Filter())
    for thread, name in ((100, "fcntl"), (101, "getsockname"), (100, "ioctl"), (105, "getpeername")):
        run.end(run.begin(name, thread=thread))
    assert [text.partition("(")[0] for text in run.texts] == [
        "fcntl",
        "t2 getsockname",
        "t1 ioctl",
        "t3 getpeername",
    ]
    run.add(Point(ProcessEvent(99, run.now, 1, "ended", "exit status 0")))
    run.call("shutdown")
    assert run.texts[-1].startswith("shutdown")  # of another process with the same number of a lane
