"""The log of decisions: written with `--record`, followed with `--replay`.

JSON, a line for each stage (a toxic on one direction of one connection) when it begins, and one for each of
its decisions but those to let something pass at once, which are most:

    {"impair": 1}
    {"stage": 1, "proxy": "a", "connection": 1, "direction": "upstream", "toxic": "loss_upstream", "place": 0}
    {"stage": 1, "place": 4, "size": 100, "pieces": []}

`place` counts what reached the stage before: bytes on a stream, otherwise messages. No times, no addresses:
so two runs with the same seed and the same input write the same lines for each stage.

Replayed, a stream's decisions hold for the same bytes, however it is cut this time, and a message's for the
message with the same number. A stage is replayed for the connection with the same number: let clients come
in the same order. What a toxic held when it was taken away is held again, for as long as it had decided.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from bothends.errors import ConfigurationError, SystemCallFailed
from bothends.toxics.base import DROP, HOLD, PASS, Decision, Delivery, Medium, Signal, ToxicState
from bothends.toxics.pipeline import BEGIN_SIZE, END_SIZE, DecisionRecorder, Stage
from bothends.toxics.placement import Direction

VERSION: Final = 1
_EVENT_NAMES: Final = {END_SIZE: "end", BEGIN_SIZE: "begin"}


class RecordingWriter:
    """Writes decisions to a file, which it opens anew."""

    def __init__(self, path: Path) -> None:
        """Raises SystemRefused."""
        try:
            self._file: TextIO = path.open("w", encoding="utf-8")
        except OSError as error:
            raise SystemCallFailed("write", str(path), error.errno or 0) from error
        self._stages = 0
        self._write({"impair": VERSION})

    def start_stage(
        self, proxy: str, connection: int, direction: Direction, toxic: str, position: int
    ) -> DecisionRecorder:
        """A stage begins; what its decisions are told to."""
        self._stages += 1
        number = self._stages
        place_of = {"proxy": proxy, "connection": connection, "direction": direction, "toxic": toxic}
        self._write({"stage": number, **place_of, "place": position})

        def record(place: int, size: int, decision: Decision) -> None:
            what = {"at": _EVENT_NAMES[size]} if size in _EVENT_NAMES else {"size": size}
            pieces = [_delivery_to_json(piece) for piece in decision]
            self._write({"stage": number, "place": place, **what, "pieces": pieces})

        return record

    def flush(self) -> None:
        """Have on disk what has been decided until now."""
        self._file.flush()

    def close(self) -> None:
        """No more decisions."""
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")


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
    return Delivery(
        delay=HOLD if given.get("delay") == "hold" else float(given.get("delay", 0)),
        start=int(given.get("start", 0)),
        stop=None if given.get("stop") is None else int(given["stop"]),
        flips=tuple(map(int, given.get("flips", ()))),
        then=Signal(given["then"]) if "then" in given else None,
    )


@dataclass(slots=True)
class RecordedStage:
    """What is known of one stage."""

    toxic: str
    position: int
    begin: Decision = DROP
    end: Decision = PASS
    decisions: list[tuple[int, int, Decision]] = field(default_factory=list)
    """Place, size and decision, in order."""


class Replay:
    """Decisions that were recorded, all of them, in memory."""

    def __init__(self, path: Path) -> None:
        """Raises SystemRefused, ConfigurationError."""
        self._stages: dict[tuple[str, int, str], list[RecordedStage]] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise SystemCallFailed("read", str(path), error.errno or 0) from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(str(path), "", "", "it is no record of impair: no UTF-8") from error
        by_number: dict[int, RecordedStage] = {}
        if not lines:
            raise ConfigurationError(str(path), "", "", "it is no record of impair: it is empty")
        for number, line in enumerate(lines, 1):
            try:
                given = json.loads(line)
                if number == 1:
                    if given["impair"] != VERSION:
                        raise ValueError("of another version")
                elif "proxy" in given:
                    recorded = by_number[given["stage"]] = RecordedStage(
                        str(given["toxic"]), int(given["place"])
                    )
                    key = str(given["proxy"]), int(given["connection"]), str(given["direction"])
                    self._stages.setdefault(key, []).append(recorded)
                else:
                    _add_decision(by_number[given["stage"]], given)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                hint = 'a file that --record has written begins with {"impair": 1}'
                raise ConfigurationError(str(path), f"line {number}", "", "it is no record", hint) from error

    @property
    def proxies(self) -> set[str]:
        """The names of the proxies that it has decisions for."""
        return {proxy for proxy, _, _ in self._stages}

    def stages(self, proxy: str, connection: int, direction: Direction, medium: Medium) -> Iterator[Stage]:
        """The stages of one direction of a connection, as they were."""
        for recorded in self._stages.get((proxy, connection, direction), ()):
            behaviour = _StreamReplay(recorded) if medium is Medium.STREAM else _MessageReplay(recorded)
            yield Stage(recorded.toxic, behaviour, medium)


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
        """What the stage did when it came: for a toxic that came later, at the same place."""
        if self._has_begun or self._position < self._recorded.position:
            return DROP
        self._has_begun = True
        return self._recorded.begin


class _MessageReplay(_ReplayState):
    def __init__(self, recorded: RecordedStage) -> None:
        super().__init__(recorded)
        self._decisions = {place: decision for place, _, decision in recorded.decisions}

    def decide(self, now: float, size: int) -> Decision:
        decision = self._decisions.get(self._position, PASS)
        self._position += 1
        return decision + self._begin_decision() if not self._has_begun else decision


class _StreamReplay(_ReplayState):
    """A decision is a stretch of the stream; a chunk meets as many as it overlaps."""

    def __init__(self, recorded: RecordedStage) -> None:
        super().__init__(recorded)
        self._decisions = recorded.decisions
        self._next = 0

    def decide(self, now: float, size: int) -> Decision:
        first, last = self._position, self._position + size
        pieces: list[Delivery] = []
        at = first
        while self._next < len(self._decisions):
            place, length, decision = self._decisions[self._next]
            if place >= last:
                break
            if at < place:
                pieces.append(Delivery(start=at - first, stop=place - first))
            for piece in decision:
                pieces += _clip(piece, place, length, first, last)
            at = min(last, place + length)
            if place + length > last:
                break
            self._next += 1
        if at < last:
            pieces.append(Delivery(start=at - first, stop=last - first))
        self._position = last
        whole = len(pieces) == 1 and pieces[0] == (0.0, 0, size, (), None)
        decided = PASS if whole else tuple(pieces)
        return decided + self._begin_decision() if not self._has_begun else decided


def _clip(delivery: Delivery, position: int, length: int, first: int, last: int) -> Iterator[Delivery]:
    """The part of a piece of the stretch at `place` that lies between two places of the stream."""
    begins = position + delivery.start
    ends = position + (length if delivery.stop is None else delivery.stop)
    start, stop = max(begins, first), min(ends, last)
    is_here = start < stop
    # What follows a piece comes with its last byte; behind a piece of nothing, with the stretch's first.
    then = (
        delivery.then if (is_here and stop == ends) or (ends <= begins and first <= position < last) else None
    )
    if is_here or then is not None:
        low, high = 8 * (start - begins), 8 * (stop - begins)
        flips = tuple(bit - low for bit in delivery.flips if low <= bit < high)
        stop = max(stop, start)
        yield Delivery(delivery.delay, start - first, stop - first, flips, then)
