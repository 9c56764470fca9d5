"""The recording of decisions: written by `--record`, read by `--replay`.

JSON lines: one for each stage (a toxic on one direction of a connection) when it starts, and one for each of
its decisions, except the most frequent one, to pass an item at once:

    {"impair": 1}
    {"stage": 1, "proxy": "a", "connection": 1, "direction": "upstream", "toxic": "loss_upstream", "place": 0}
    {"stage": 1, "place": 4, "size": 100, "pieces": []}

`place` is the position in the stage's input: bytes on a stream, messages otherwise. There are no times and no
addresses, so two runs with the same seed and input write the same lines for each stage.

A replay applies the decisions on a stream to the same bytes, whatever the chunking, and the decisions on
messages to the messages with the same numbers. Where the disk was full, `{"missing": 12}` stands for 12
lines, and such a recording is not replayed. A stage is replayed on the connection with the same number, so
clients must connect in the same order. Removals of toxics are not recorded: data that a toxic held until its
removal is held for the recorded delay.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bothends.errors import ConfigurationError, SystemCallFailed
from bothends.osutil.observer_file import ObserverFile
from bothends.toxics.base import DROP, HOLD, PASS, Decision, Delivery, Medium, Signal, ToxicState
from bothends.toxics.pipeline import BEGIN_SIZE, END_SIZE, DecisionRecorder, Stage
from bothends.toxics.placement import Direction

VERSION: Final = 1
_EVENT_NAMES: Final = {END_SIZE: "end", BEGIN_SIZE: "begin"}


class RecordingWriter:
    """Writes decisions to a file, which it truncates. The proxy goes on if the disk is full.

    Args:
        path: the file.
        report: called once, with a message, when decisions cannot be written.

    Raises:
        SystemCallFailed: the file cannot be opened, or not even its first line be written.
    """

    def __init__(self, path: Path, report: Callable[[str], object] | None = None) -> None:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise SystemCallFailed("write", str(path), error.errno or 0) from error
        self._file = ObserverFile(
            descriptor,
            str(path),
            missing_line=_missing_line,
            report=report,
            first_line=json.dumps({"impair": VERSION}) + "\n",
        )
        self._stages = 0

    def start_stage(
        self, proxy: str, connection: int, direction: Direction, toxic: str, position: int
    ) -> DecisionRecorder:
        """Record the start of a stage. Returns the recorder of its decisions."""
        self._stages += 1
        number = self._stages
        identity = {"proxy": proxy, "connection": connection, "direction": direction, "toxic": toxic}
        self._write({"stage": number, **identity, "place": position})

        def record(position: int, size: int, decision: Decision) -> None:
            event = {"at": _EVENT_NAMES[size]} if size in _EVENT_NAMES else {"size": size}
            pieces = [_delivery_to_json(piece) for piece in decision]
            self._write({"stage": number, "place": position, **event, "pieces": pieces})

        return record

    def close(self) -> SystemCallFailed | None:
        """Close the file. Returns an error if lines are missing in it."""
        return self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")


def _missing_line(count: int, _reason: str) -> str:
    return json.dumps({"missing": count}) + "\n"


def _delivery_to_json(delivery: Delivery) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if delivery.delay:
        shown["delay"] = "hold" if delivery.delay == HOLD else delivery.delay
    if delivery.start:
        shown["start"] = delivery.start
    if delivery.stop is not None:
        shown["stop"] = delivery.stop
    if delivery.flips:
        shown["flips"] = list(delivery.flips)
    if delivery.then is not None:
        shown["then"] = delivery.then.value
    return shown


def _delivery_from_json(given: dict[str, Any]) -> Delivery:
    delay = HOLD if given.get("delay") == "hold" else float(given.get("delay", 0))
    start = int(given.get("start", 0))
    stop = None if given.get("stop") is None else int(given["stop"])
    flips = tuple(map(int, given.get("flips", ())))
    if not (delay >= 0 and 0 <= start <= (start if stop is None else stop) and min(flips, default=0) >= 0):
        raise ValueError("a delivery before the message")
    return Delivery(delay, start, stop, flips, Signal(given["then"]) if "then" in given else None)


@dataclass(slots=True)
class RecordedStage:
    """The recorded decisions of one stage."""

    toxic: str
    position: int
    begin: Decision = DROP
    end: Decision = PASS
    decisions: list[tuple[int, int, Decision]] = field(default_factory=list)
    """Position, size and decision, in order of position."""


class Replay:
    """A recording, held in memory."""

    def __init__(self, path: Path) -> None:
        """Read a recording. Raises SystemCallFailed, ConfigurationError."""
        self._stages: dict[tuple[str, int, str], list[RecordedStage]] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise SystemCallFailed("read", str(path), error.errno or 0) from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(str(path), "", "", "not a recording of impair: not UTF-8") from error
        by_number: dict[int, RecordedStage] = {}
        if not lines:
            raise ConfigurationError(str(path), "", "", "not a recording of impair: the file is empty")
        for number, line in enumerate(lines, 1):
            try:
                given = json.loads(line)
                if "missing" in given:
                    raise _incomplete(path, number, int(given["missing"]))
                if number == 1:
                    if given["impair"] != VERSION:
                        raise ValueError("unsupported version")
                elif "proxy" in given:
                    recorded = by_number[given["stage"]] = RecordedStage(
                        str(given["toxic"]), int(given["place"])
                    )
                    key = str(given["proxy"]), int(given["connection"]), str(given["direction"])
                    self._stages.setdefault(key, []).append(recorded)
                else:
                    _add_decision(by_number[given["stage"]], given)
            except (
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
                ArithmeticError,
                RecursionError,
            ) as error:
                hint = 'a file written by --record begins with {"impair": 1}'
                reason = "not a line of a recording"
                raise ConfigurationError(str(path), f"line {number}", "", reason, hint) from error

    @property
    def proxies(self) -> set[str]:
        """The names of the proxies in the recording."""
        return {proxy for proxy, _, _ in self._stages}

    def stages(self, proxy: str, connection: int, direction: Direction, medium: Medium) -> Iterator[Stage]:
        """Yield stages that replay the decisions on one direction of a connection."""
        for recorded in self._stages.get((proxy, connection, direction), ()):
            state = _StreamReplay(recorded) if medium is Medium.STREAM else _MessageReplay(recorded)
            yield Stage(recorded.toxic, state, medium)


def _incomplete(path: Path, number: int, missing: int) -> ConfigurationError:
    lines = "1 line is" if missing == 1 else f"{missing:,} lines are"
    hint = "the disk was full, or the reader too slow, when it was recorded; record again"
    return ConfigurationError(str(path), f"line {number}", "", f"{lines} missing here", hint)


def _add_decision(recorded: RecordedStage, given: dict[str, Any]) -> None:
    decision = tuple(_delivery_from_json(piece) for piece in given["pieces"])
    match given.get("at"):
        case "begin":
            recorded.begin = decision
        case "end":
            recorded.end = decision
        case _:
            recorded.decisions.append((int(given["place"]), int(given["size"]), decision))


class _ReplayState(ToxicState):
    def __init__(self, recorded: RecordedStage) -> None:
        self._recorded = recorded
        self._position = 0
        self._has_begun = not recorded.begin

    def begin(self, now: float) -> Decision:
        return self._begin_decision() if not self._recorded.position else DROP

    def end(self, now: float) -> Decision:
        return self._recorded.end

    def _begin_decision(self) -> Decision:
        """Return the decision of `begin` once, at the position where the toxic was added."""
        if self._has_begun or self._position < self._recorded.position:
            return DROP
        self._has_begun = True
        return self._recorded.begin


class _MessageReplay(_ReplayState):
    def __init__(self, recorded: RecordedStage) -> None:
        super().__init__(recorded)
        self._decisions = {position: decision for position, _, decision in recorded.decisions}

    def decide(self, now: float, size: int) -> Decision:
        decision = self._decisions.get(self._position, PASS)
        self._position += 1
        return decision + self._begin_decision() if not self._has_begun else decision


class _StreamReplay(_ReplayState):
    """Each decision covers a range of the stream; a chunk gets the parts of all decisions it overlaps."""

    def __init__(self, recorded: RecordedStage) -> None:
        super().__init__(recorded)
        self._decisions = recorded.decisions
        self._next = 0

    def decide(self, now: float, size: int) -> Decision:
        first, last = self._position, self._position + size
        pieces: list[Delivery] = []
        at = first
        while self._next < len(self._decisions):
            position, length, decision = self._decisions[self._next]
            if position >= last:
                break
            if at < position:
                pieces.append(Delivery(start=at - first, stop=position - first))
            for piece in decision:
                pieces += _clip(piece, position, length, first, last)
            at = min(last, position + length)
            if position + length > last:
                break
            self._next += 1
        if at < last:
            pieces.append(Delivery(start=at - first, stop=last - first))
        self._position = last
        whole = len(pieces) == 1 and pieces[0] == (0.0, 0, size, (), None)
        decided = PASS if whole else tuple(pieces)
        return decided + self._begin_decision() if not self._has_begun else decided


def _clip(delivery: Delivery, position: int, length: int, first: int, last: int) -> Iterator[Delivery]:
    """Clip a delivery to the range from `first` to `last` of the stream.

    The decision was made on `length` bytes at `position`.
    """
    begins = position + delivery.start
    ends = position + (length if delivery.stop is None else delivery.stop)
    start, stop = max(begins, first), min(ends, last)
    overlaps = start < stop
    # A signal follows the last byte of its delivery; of an empty delivery, the first byte of the decision.
    then = (
        delivery.then
        if (overlaps and stop == ends) or (ends <= begins and first <= position < last)
        else None
    )
    if overlaps or then is not None:
        low, high = 8 * (start - begins), 8 * (stop - begins)
        flips = tuple(bit - low for bit in delivery.flips if low <= bit < high)
        stop = max(stop, start)
        yield Delivery(delivery.delay, start - first, stop - first, flips, then)
