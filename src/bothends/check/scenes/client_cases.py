"""The cases that a client suite gets from the scenes of a contract: each that has one client, and variations.

The client reads the texts that it is to send, or the scene's `input`, and must send them; the checker sends
what the client is to receive, and looks for it, or for the scene's `output`, in what the client prints.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Final

from bothends.check.case import LINE_NOT_KEPT, Case, CheckFailed, Note, Verdict
from bothends.check.contract import Contract
from bothends.check.scenes.datagram_path import Disturbance
from bothends.check.scenes.exchanges import exchanges_of_client
from bothends.check.scenes.samples import MissingExample, find_values
from bothends.check.scenes.segmentation import BYTEWISE, CUT, WHOLE, Segmentation
from bothends.check.scenes.server_side import ServerSidePlayer
from bothends.check.scenes.spec import CASE_PREFIX, Scene
from bothends.check.scenes.steps import Connect, EndConnection, Ending, ExpectSame, ExpectText, SendTexts
from bothends.check.scenes.variation import NO_FRAMING, Variation, applies, not_borne, pieces
from bothends.check.subjects.client_under_test import ClientContext

GATE: Final = f"{CASE_PREFIX}client-starts"
"""The first case of a contract that has scenes only."""

_EXPECTATION: Final = "the client sends what the scene says, shows what it receives, and exits with 0"


def _skip_reason(contract: Contract, scene: Scene) -> str:
    """Return why a scene cannot be played with a client under test, or an empty string."""
    if scene.spec.upstreams:
        return "it is for a program between clients and a server"
    if any(isinstance(step, Connect) and step.port is not None for step in scene.steps):
        return "its client connects to another port, at which the checker does not listen"
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
    if scene.restarts:
        return "it starts the server again"
    return found if isinstance(found, str) else ""


def _find_input(scene: Scene, values: dict[str, bytes]) -> list[bytes] | str:
    """Return the lines that the client reads, or why there are none."""
    if scene.spec.input is not None:
        return [line.encode() for line in scene.spec.input.splitlines()]
    sent = [step.texts[0] for step in scene.steps if isinstance(step, SendTexts)]
    if any(text.captures for text in sent):
        return "what it sends has a pattern: write the input in the scene"
    texts = [text.render(values) for text in sent]
    lines = [text.removesuffix(b"\n").removesuffix(b"\r") for text in texts]
    if any(b"\n" in line or b"\0" in line for line in lines):
        return "a text that it sends is not a line: write the input in the scene"
    return lines


async def play(
    ctx: ClientContext,
    scene: Scene,
    segmentation: Segmentation = WHOLE,
    *,
    joined: bool = False,
    disturbance: Disturbance = Disturbance.NONE,
) -> Note | None:
    """Play the server's part of a scene. See ServerSidePlayer."""
    try:
        values = find_values(scene)
        found = _find_input(scene, values)
        if isinstance(found, str):
            return Note(Verdict.SKIP, found)
        player = ServerSidePlayer(ctx, scene, values, segmentation, joined=joined, disturbance=disturbance)
        ctx.start_client(player.endpoint, found)
        await player.play()
    except MissingExample as error:
        return Note(Verdict.SKIP, str(error))
    await player.finish()
    if scene.spec.output is None:
        await ctx.expect_output(*filter(None, player.sent))
    else:
        await ctx.expect_printed(*filter(None, scene.spec.output.encode().splitlines()))
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


def _pieces_reason(contract: Contract, scene: Scene) -> str:
    if contract.is_datagram:
        return "the network does not cut or join datagrams"
    if not any(isinstance(step, ExpectText) for step in scene.steps):
        return "the client receives no text"
    return NO_FRAMING if contract.framing == "none" else ""


def _joined_reason(contract: Contract, scene: Scene) -> str:
    in_a_row = any(
        isinstance(first, ExpectText) and isinstance(second, ExpectText)
        for first, second in pairwise(scene.steps)
    )
    return _pieces_reason(contract, scene) or (
        "" if in_a_row else "the client receives no two texts in a row"
    )


_VARIATIONS: Final[tuple[Variation[ClientContext], ...]] = (
    *pieces(
        " for the client",
        partial(play, segmentation=BYTEWISE),
        partial(play, segmentation=CUT),
        partial(play, joined=True),
        _pieces_reason,
        _joined_reason,
    ),
    *(
        Variation(
            disturbance.value,
            stimulus,
            "The network may do this to datagrams, and the contract says that the protocol bears it.",
            likely_cause,
            partial(play, disturbance=disturbance),
            partial(not_borne, disturbance=disturbance),
        )
        for disturbance, stimulus, likely_cause in (
            (
                Disturbance.LOSS,
                "each datagram of the client is lost once",
                "has no timeout, or does not send again",
            ),
            (
                Disturbance.DUPLICATES,
                "each datagram for the client arrives twice",
                "takes the second copy of a reply for the reply to its next request",
            ),
            (
                Disturbance.DELAY,
                "a copy of the reply before arrives ahead of each reply",
                "takes an old reply for that to its last request",
            ),
        )
    ),
)


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
        reason = _skip_reason(contract, scene)
        case: Case[ClientContext] = Case(
            id=scene.case_id,
            stimulus=f"scene {scene.spec.name!r}, played from the server's side",
            expectation=_EXPECTATION,
            why=scene.spec.why or "The contract describes this dialogue.",
            likely_cause=scene.spec.mistake or LINE_NOT_KEPT,
            run=partial(play, scene=scene),
            skip=reason,
            exchanges=exchanges_of_client(scene),
        )
        cases.append(case)
        if not reason:
            cases += [
                _variation_case(contract, scene, each)
                for each in _VARIATIONS
                if applies(contract.is_datagram, each.suffix)
            ]
    return tuple(cases)


def _variation_case(
    contract: Contract, scene: Scene, variation: Variation[ClientContext]
) -> Case[ClientContext]:
    return Case(
        id=f"{scene.case_id}-{variation.suffix}",
        stimulus=f"scene {scene.spec.name!r}: {variation.stimulus}",
        expectation=_EXPECTATION,
        why=variation.why,
        likely_cause=variation.likely_cause,
        run=lambda ctx: variation.run(ctx, scene),
        after=(scene.case_id,),
        skip=variation.skip(contract, scene),
        family=variation.family or variation.suffix,
        follows=tuple(f"{scene.case_id}-{each}" for each in variation.follows),
    )
