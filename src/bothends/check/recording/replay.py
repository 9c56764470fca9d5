"""Play recorded scenes against a fresh server, and let texts that differ each time become patterns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bothends.check.case import CheckFailed
from bothends.check.contract import make_oracle, parse
from bothends.check.recording.talk_writer import RecordedScene, write_contract
from bothends.check.scenes.player import SceneMismatch, ScenePlayer
from bothends.check.subjects.server_under_test import ServerUnderTest
from bothends.check.transcript import Transcript

_MAX_ROUNDS: Final = 40  # playings of one scene, each of which may find a text that differs
_TIMES: Final = 2  # playings in a row that must pass


class ContractWriter:
    """Writes recorded scenes as a contract.

    Args:
        command: that of the server.
        timeout: seconds for each step.
    """

    def __init__(
        self, command: Sequence[str], *, transport: str, framing: str, line_end: str, timeout: float
    ) -> None:
        self._command = command
        self._transport = transport
        self._framing = framing
        self._line_end = line_end
        self._timeout = timeout

    def write(self, scenes: Sequence[RecordedScene]) -> str:
        """Return the text of the contract."""
        return write_contract(
            scenes,
            transport=self._transport,
            framing=self._framing,
            line_end=self._line_end,
            command=" ".join(self._command),
        )

    async def settle(self, scene: RecordedScene) -> int:
        """Play a scene until it passes twice; a text that differs gets patterns.

        A scene that does not pass has a note. Returns: the number of texts with patterns.

        Raises:
            BothendsError: the server cannot be started.
        """
        passed = 0
        before = [dict(line.varying) for line in scene.lines]
        for _ in range(_MAX_ROUNDS):
            try:
                await self._play(scene)
                passed += 1
                if passed == _TIMES:
                    break
            except SceneMismatch as mismatch:
                passed = 0
                line = scene.lines[mismatch.line - 1]
                if line.event or line.sign != "<" or not line.vary(mismatch.received):
                    scene.note = f"Played again, this scene failed: {mismatch}"
                    break
            except CheckFailed as failure:
                scene.note = f"Played again, this scene failed: {failure}"
                break
        else:
            scene.note = "Played again, this scene was different each time."
        if scene.note:  # the patterns were no solution
            for line, varying in zip(scene.lines, before, strict=True):
                line.varying = varying
        return sum(bool(line.varying) for line in scene.lines)

    async def _play(self, scene: RecordedScene) -> None:
        contract = parse(self.write([scene]), "the recorded contract", "recorded", Path())
        subject = ServerUnderTest(contract, self._command, own_network=False)
        await subject.prepare()
        try:
            async with subject.case_context(make_oracle(contract), Transcript(), self._timeout) as context:
                await ScenePlayer(context, contract.scenes[0]).play()
        finally:
            await subject.close()


async def start_reference(command: Sequence[str], transport: str) -> ServerUnderTest:
    """Return the server under test for a reference server.

    Raises:
        BothendsError: it cannot be started, or does not listen.
    """
    text = f"transport = '{transport}'\n[answer]\nnothing = true\n"
    subject = ServerUnderTest(parse(text, "", "record", Path()), command, own_network=False)
    await subject.prepare()
    return subject
