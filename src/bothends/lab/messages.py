"""The messages between the page, the server and the process of a run: JSON with a "type", each one bounded.

Requests go from the page through the server to the process of a run, which checks them again. Replies go back
as they are: the process is ours, and the programs can't write there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from bothends.escaping import escape_line

MAX_SOURCE: Final = 100_000  # characters of one program
MAX_PROGRAMS: Final = 6
MAX_TYPED: Final = 2_000  # characters of one input
MAX_NAME: Final = 40  # characters of the name of a student
MAX_REQUEST: Final = 1 << 20  # bytes
MAX_REPLY: Final = 4 << 20  # bytes of one line of the process of a run
DEFAULT_TIME_LIMIT: Final = 30.0  # seconds
MAX_TIME_LIMIT: Final = 120.0


class Program(Struct, forbid_unknown_fields=True):
    """A program to run: its kind, file name, text and command-line arguments."""

    kind: Literal["server", "client"]
    file: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_-]{0,40}\.[a-z]{1,8}\Z")]
    text: Annotated[str, Meta(max_length=MAX_SOURCE)]
    arguments: Annotated[str, Meta(max_length=500)] = ""


Percent = Annotated[float, Meta(ge=0, le=90)]


class Path(Struct, forbid_unknown_fields=True):
    """The path between the programs: toxics that apply each way, and the seed of their decisions.

    `delay` and `jitter` are milliseconds, `loss`, `duplicate` and `reorder` per cent of the packets, and
    `rate` is kilobytes per second. 0: without that toxic.
    """

    delay: Annotated[float, Meta(ge=0, le=2000)] = 0.0
    jitter: Annotated[float, Meta(ge=0, le=2000)] = 0.0
    loss: Percent = 0.0
    duplicate: Percent = 0.0
    reorder: Percent = 0.0
    rate: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    seed: Annotated[int, Meta(ge=0, lt=1 << 32)] = 1


class Start(Struct, tag_field="type", tag="start", forbid_unknown_fields=True):
    """Run programs, for `time_limit` seconds at most. Without a `path`, over the loopback interface."""

    programs: Annotated[list[Program], Meta(min_length=1, max_length=MAX_PROGRAMS)]
    time_limit: Annotated[float, Meta(gt=0, le=MAX_TIME_LIMIT)] = DEFAULT_TIME_LIMIT
    path: Path | None = None
    lesson: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{0,61}\Z")] = ""
    """The lesson that these programs are of: its checks follow the run (`Checked`)."""


class Stop(Struct, tag_field="type", tag="stop", forbid_unknown_fields=True):
    """End the run."""


class Typed(Struct, tag_field="type", tag="input", forbid_unknown_fields=True):
    """Type a text to a program, given by its place in `Start.programs`. `ends`: and then the end of input."""

    program: Annotated[int, Meta(ge=0, lt=MAX_PROGRAMS)]
    text: Annotated[str, Meta(max_length=MAX_TYPED)] = ""
    ends: bool = False


class Judge(Struct, tag_field="type", tag="judge", forbid_unknown_fields=True):
    """Judge a program by a contract: a built-in one by its `name`, or else its `text`, without code.

    With `cases`, only those are run. With a `case`, that case is run once, and traced.
    """

    program: Program
    name: Annotated[str, Meta(max_length=40)] = ""
    text: Annotated[str, Meta(max_length=20_000)] = ""
    cases: Annotated[list[Annotated[str, Meta(max_length=100)]], Meta(max_length=50)] = []
    case: Annotated[str, Meta(max_length=100)] = ""


class MeasuredLoad(Struct, forbid_unknown_fields=True, frozen=True):
    """A load: connections, requests in flight on each, bytes of a request, and seconds of each measurement.

    `rate` is in requests per second; None: a closed loop.
    """

    connections: Annotated[int, Meta(ge=1, le=200)] = 10
    depth: Annotated[int, Meta(ge=1, le=64)] = 1
    size: Annotated[int, Meta(ge=16, le=4096)] = 64
    reconnect: bool = False
    rate: Annotated[float, Meta(ge=1, le=1e6)] | None = None
    warmup: Annotated[float, Meta(ge=0, le=5)] = 0.5
    duration: Annotated[float, Meta(ge=0.1, le=10)] = 2.0


class Measure(Struct, tag_field="type", tag="measure", forbid_unknown_fields=True):
    """Measure servers of the page, and engines, in `rounds` rounds of random order."""

    programs: Annotated[list[Program], Meta(max_length=MAX_PROGRAMS)] = []
    engines: Annotated[list[Annotated[str, Meta(pattern=r"\A[a-z]{1,20}\Z")]], Meta(max_length=10)] = []
    transport: Literal["tcp", "udp"] = "tcp"
    load: MeasuredLoad = MeasuredLoad()
    rounds: Annotated[int, Meta(ge=1, le=9)] = 3
    seed: Annotated[int, Meta(ge=0, lt=1 << 32)] = 1


class Look(Struct, tag_field="type", tag="look", forbid_unknown_fields=True):
    """Send the sockets of the running programs, and what they wait for."""


class Work(Struct, forbid_unknown_fields=True):
    """What a student works on: the programs, the path, and the view or lesson."""

    programs: Annotated[list[Program], Meta(max_length=MAX_PROGRAMS)]
    seconds: Annotated[float, Meta(gt=0, le=MAX_TIME_LIMIT)] = DEFAULT_TIME_LIMIT
    path: Path | None = None
    where: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9 :_-]{0,80}\Z")] = ""


class Keep(Struct, tag_field="type", tag="keep", forbid_unknown_fields=True):
    """Keep the work of a student, for the next visit and for the teacher."""

    work: Work


class Rename(Struct, tag_field="type", tag="name", forbid_unknown_fields=True):
    """The name by which a student is known in the class."""

    name: Annotated[str, Meta(max_length=MAX_NAME)]


Job: TypeAlias = Start | Judge | Measure
"""A request that a process of its own carries out. `LAST_REPLIES` has what it ends with."""

Request: TypeAlias = Start | Stop | Typed | Judge | Measure | Look | Keep | Rename


class Prepared(Struct, tag_field="type", tag="prepared"):
    """The process of a run has a sandbox, and waits for `Start`."""

    sandbox: str


class Failed(Struct, tag_field="type", tag="failed"):
    """The run could not be started, or was broken off."""

    text: str


class Diagnostic(Struct):
    """What a compiler says about a line. `severity`: "error", "warning" or "note"."""

    line: int
    severity: str
    text: str


class Built(Struct, tag_field="type", tag="built"):
    """A compiler has finished. `output` is what it has printed, escaped."""

    program: int
    succeeded: bool
    output: str
    problems: list[Diagnostic]


class Started(Struct, tag_field="type", tag="started"):
    """The programs run. `roles` are the names of their lanes."""

    roles: list[str]


class Output(Struct, tag_field="type", tag="output"):
    """A program has written to its terminal. `at`: microseconds since 1970."""

    program: int
    text: str
    at: int


class Rows(Struct, tag_field="type", tag="rows"):
    """New rows of the timeline, and what there is to say about their events and their sockets, by number.

    `began`: the time from which rows count, in microseconds since 1970.
    """

    rows: list[dict[str, Any]]
    events: dict[int, dict[str, Any]]
    sockets: dict[int, dict[str, Any]]
    began: int


class Waits(Struct, tag_field="type", tag="waits"):
    """Which calls wait for which program, while nothing moves. Empty: something moves again."""

    sentences: list[str]


class Exited(Struct, tag_field="type", tag="exited"):
    """A program has exited, or was killed: how. `at`: when that was seen, in microseconds since 1970."""

    program: int
    how: str
    at: int


class Ended(Struct, tag_field="type", tag="ended"):
    """The run is over. `findings` are nested; `reason` is empty if the programs have exited by themselves.

    `steps` are those of `trace/comparison.py`, for a comparison with another run.
    """

    reason: str
    findings: list[dict[str, Any]]
    waits: list[str]
    notes: list[str]
    seconds: float
    steps: Sequence[tuple[str, str, int, int | None, int]] = ()


class Judging(Struct, tag_field="type", tag="judging"):
    """A program is being judged. `cases`: each with "id", "stimulus", "expectation" and "why"."""

    contract: str
    cases: list[dict[str, str]]


class Judged(Struct, tag_field="type", tag="verdict"):
    """The verdict of one case, with the fields of `CaseOutcome`. It may change until the end."""

    outcome: dict[str, Any]


class JudgedAll(Struct, tag_field="type", tag="judged"):
    """The result of all cases, as `bothends check --json` writes it. None: it was broken off."""

    result: dict[str, Any] | None


class Measuring(Struct, tag_field="type", tag="measuring"):
    """What is measured: the names of the targets, and the request with its defaults."""

    targets: list[str]
    load: MeasuredLoad
    rounds: int


class LoadSample(Struct, tag_field="type", tag="sample"):
    """Progress of one measurement: seconds since its warm-up began, and correct responses since then."""

    target: int
    round: int
    at: float
    completed: int
    faults: int


class Measured(Struct, tag_field="type", tag="round"):
    """The result of one measurement. Latencies in microseconds; `limit`: why the generator was the limit.

    `skipped`: why there is none.
    """

    target: int
    round: int
    per_s: float = 0.0
    latency: dict[str, float] = {}
    faults: str = ""
    limit: str = ""
    ended: str = ""
    generator: str = ""
    server_us: float | None = None
    skipped: str = ""


class MeasuredAll(Struct, tag_field="type", tag="measured"):
    """All measurements are done. `notes`: how it was measured."""

    notes: list[str]


class Queued(Struct, tag_field="type", tag="queued"):
    """A job waits for its turn; `ahead` others come first."""

    ahead: int


class Checked(Struct, tag_field="type", tag="checked"):
    """Whether a lesson is done: for each of its checks "says", "passed" and "happened"."""

    lesson: str
    checks: list[dict[str, Any]]


class Looked(Struct, tag_field="type", tag="looked"):
    """The sockets of the running programs, and the lines of `bothends why` about them: style and text."""

    columns: list[str]
    sockets: list[list[str]]
    lines: list[tuple[str, str]]
    notes: list[str]


Reply: TypeAlias = (
    Prepared | Failed | Built | Started | Output | Rows | Waits | Exited | Ended
    | Judging | Judged | JudgedAll | Measuring | LoadSample | Measured | MeasuredAll
    | Looked | Checked | Queued
)  # fmt: skip

LAST_REPLIES: Final = tuple(f'{{"type":"{tag}"'.encode() for tag in ("ended", "failed", "judged", "measured"))
"""How the last reply to a `Job` begins."""

_decoder: Final = msgspec.json.Decoder(Request)
_encoder: Final = msgspec.json.Encoder()


def decode_request(text: str | bytes) -> Request:
    """Return a request. Raises msgspec.DecodeError for anything else."""
    request: Request = decode_with(_decoder, text)
    return request


def decode_with(decoder: msgspec.json.Decoder[Any], text: str | bytes) -> Any:
    """Return a value. Raises msgspec.DecodeError, whose text is one line, also for one nested too deeply."""
    try:
        return decoder.decode(text)
    except RecursionError as error:
        raise msgspec.DecodeError("nested too deeply") from error
    except msgspec.DecodeError as error:  # which names unknown fields as they are
        raise type(error)(escape_line(str(error))) from error


def encode(message: Request | Reply) -> bytes:
    """Return a message as one line of JSON, without its newline."""
    return _encoder.encode(message)
