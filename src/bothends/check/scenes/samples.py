"""Values that the checker sends for the patterns of a scene when it plays the server. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bothends.check.patterns import compile_pattern, match_whole
from bothends.check.scenes.spec import Scene
from bothends.check.scenes.steps import ExpectText, Step
from bothends.check.scenes.template import CapturedText, TextTemplate

# Values that match most patterns of dialogues: numbers, words, identifiers, dates, times, addresses.
_SAMPLES: Final = (
    b"7", b"42", b"1024", b"1700000000", b"3.14", b"abc", b"a1b2c3d4", b"0a1b2c3d4e5f60718293a4b5c6d7e8f9",
    b"ABC", b"Abc def", b"2026-01-02", b"12:34:56", b"2026-01-02T12:34:56", b"192.0.2.1", b"192.0.2.1:4000",
    b"123e4567-e89b-12d3-a456-426614174000", b"ab", b"abcd", b"",
)  # fmt: skip


class MissingExample(ValueError):
    """A pattern has no example. Fields: `step`, `capture`."""

    def __init__(self, step: Step, capture: CapturedText) -> None:
        super().__init__(step, capture)
        self.step = step
        self.capture = capture

    def __str__(self) -> str:
        pattern = self.capture.pattern.decode()
        name = self.capture.name or "NAME"
        return f"{self.step}: write examples = {{ {name} = ... }}, a value for the pattern {pattern!r}"


def find_values(scene: Scene) -> dict[str, bytes]:
    """Return a value for each name that the scene remembers.

    Raises:
        MissingExample: no example is given, and none is known.
    """
    values: dict[str, bytes] = {}
    for step in scene.texts():
        if isinstance(step, ExpectText):
            for capture in step.choices[0].captures:
                if capture.name:
                    values[capture.name] = _find_value(step, capture, scene.spec.examples)
    return values


def render_sample(step: ExpectText, values: Mapping[str, bytes], examples: Mapping[str, str]) -> bytes:
    """Return the text that a server sends for a step: its first choice, with a value for each pattern.

    Raises:
        MissingExample: a pattern without a name has no known example.
    """
    if step.choices[0].checker is not None:
        raise MissingExample(step, CapturedText("", b"(checked by ...)"))
    parts = [
        _find_value(step, part, examples) if isinstance(part, CapturedText) and not part.name else part
        for part in step.choices[0].parts
    ]
    return TextTemplate(tuple(parts)).render(values)


def _find_value(step: ExpectText, capture: CapturedText, examples: Mapping[str, str]) -> bytes:
    pattern = compile_pattern(capture.pattern)
    if capture.name in examples:
        return examples[capture.name].encode()
    for sample in _SAMPLES:
        if match_whole(pattern, sample):
            return sample
    raise MissingExample(step, capture)
