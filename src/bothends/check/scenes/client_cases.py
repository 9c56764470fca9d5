"""The cases that a client suite gets from the scenes of a contract: each scene that has one client.

The client reads the texts that it is to send, or the scene's `input`, and must send them; the checker sends
what the client is to receive, and looks for it in the client's output.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from bothends.check.case import Case, CheckFailed, Note, Verdict
from bothends.check.contract import Contract
from bothends.check.scenes.samples import MissingExample, find_values
from bothends.check.scenes.server_side import ServerSidePlayer
from bothends.check.scenes.spec import CASE_PREFIX, Scene
from bothends.check.scenes.steps import EndConnection, Ending, ExpectSame, SendTexts
from bothends.check.subjects.client_under_test import ClientContext

GATE: Final = f"{CASE_PREFIX}client-starts"
"""The first case of a contract that has scenes only."""


def _skip_reason(contract: Contract, scene: Scene) -> str:
    """Return why a scene cannot be played with a client under test, or an empty string."""
    if len(scene.clients) > 1:
        return f"it has several clients or connections: {', '.join(scene.clients)}"
    if scene.is_datagram(scene.clients[0]) != contract.is_datagram:
        return "its client uses another transport than the contract"
    if any(isinstance(step, EndConnection) and step.ending is Ending.RESET for step in scene.steps):
        return "its client resets the connection, which a program seldom can"
    if any(isinstance(step, ExpectSame) for step in scene.steps):
        return "it compares with a reference server, which a client has not"
    sends = sum(isinstance(step, SendTexts) for step in scene.steps)
    if scene.spec.input is None and sends > 1 and not contract.client.several:
        return "the contract's clients send one message (write several = true in [client], or input)"
    try:
        found = _find_input(scene, find_values(scene))
    except MissingExample as error:
        return str(error)
    return found if isinstance(found, str) else ""


def _find_input(scene: Scene, values: dict[str, bytes]) -> list[bytes] | str:
    """Return the lines that the client reads, or why there are none."""
    if scene.spec.input is not None:
        return [line.encode() for line in scene.spec.input.splitlines()]
    texts = [step.texts[0].render(values) for step in scene.steps if isinstance(step, SendTexts)]
    lines = [text.removesuffix(b"\n").removesuffix(b"\r") for text in texts]
    if any(b"\n" in line or b"\0" in line for line in lines):
        return "a text that it sends is not a line: write the input in the scene"
    return lines


async def play(ctx: ClientContext, scene: Scene) -> Note | None:
    """Play the server's part of a scene."""
    try:
        values = find_values(scene)
        found = _find_input(scene, values)
        if isinstance(found, str):
            return Note(Verdict.SKIP, found)
        player = ServerSidePlayer(ctx, scene, values)
        ctx.start_client(player.endpoint, found)
        await player.play()
    except MissingExample as error:
        return Note(Verdict.SKIP, str(error))
    await player.finish()
    await ctx.expect_output(*filter(None, player.sent))
    await ctx.expect_success()
    return None


async def _expect_start(ctx: ClientContext, contract: Contract) -> Note:
    """Start the client with the input of the first scene that can be played, and wait for its first data."""
    for scene in contract.scenes:
        if scene.spec.role == "server" or _skip_reason(contract, scene):
            continue
        found = _find_input(scene, find_values(scene))
        assert not isinstance(found, str)
        listener, endpoint = ctx.listen()
        ctx.start_client(endpoint, found)
        if contract.is_datagram:
            try:
                await ctx.receive_datagram(listener)
            except TimeoutError:
                raise CheckFailed("a datagram of the client", "it sent none", timed_out=True) from None
            return Note(Verdict.INFO, "it sends datagrams")
        await ctx.accept(listener)
        return Note(Verdict.INFO, "it connects")
    return Note(Verdict.SKIP, "no scene can be played with a client")


def client_cases(contract: Contract) -> tuple[Case[ClientContext], ...]:
    """Return the cases for the scenes of a contract, and before them a gate if it has scenes only."""
    gate: Case[ClientContext] = Case(
        id=GATE,
        stimulus="the client is started",
        expectation="it connects, or sends a datagram",
        why="All scenes need a client that finds its server.",
        likely_cause="the program does not start, or connects to another endpoint",
        run=partial(_expect_start, contract=contract),
        graded=False,
    )
    cases = [] if contract.has_answer else [gate]
    for scene in contract.scenes:
        if scene.spec.role == "server":
            continue
        case: Case[ClientContext] = Case(
            id=scene.case_id,
            stimulus=f"scene {scene.spec.name!r}, played from the server's side",
            expectation="the client sends what the scene says, shows what it receives, and exits with 0",
            why=scene.spec.why or "The contract describes this dialogue.",
            likely_cause=scene.spec.mistake or "does not do what this line of the scene says",
            run=partial(play, scene=scene),
            skip=_skip_reason(contract, scene),
        )
        cases.append(case)
    return tuple(cases)
