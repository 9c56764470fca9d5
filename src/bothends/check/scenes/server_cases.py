"""The cases that a server suite gets from the scenes of a contract: each scene, and its variations.

A variation delivers the same scene in another way that the network or a client may choose. It runs only if
the scene itself does not fail.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from bothends.check.case import Case, Note, NotListening, Verdict
from bothends.check.contract import Contract
from bothends.check.scenes.player import ScenePlayer
from bothends.check.scenes.segmentation import BYTEWISE, CUT, Segmentation, join_sends
from bothends.check.scenes.spec import CASE_PREFIX, Scene
from bothends.check.scenes.steps import SendTexts
from bothends.check.subjects.server_context import ServerContext

GATE: Final = f"{CASE_PREFIX}starts"
"""The first case of a contract that has scenes only."""

_DATAGRAMS_ONLY: Final = "its clients send datagrams, which the network does not cut or join"
_NO_FRAMING: Final = "the contract has no framing: data sent in two pieces may be two messages"
_ONCE: Final = 'the contract does not say that it can be played again (repeat = "after" or "beside")'
_NOT_BESIDE: Final = 'the contract does not say that two can be played at once (repeat = "beside")'


def _skip(reason: str) -> Note:
    return Note(Verdict.SKIP, reason)


async def _expect_listening(ctx: ServerContext) -> Note:
    """Connect to a running server; one that was started and does not listen fails before this."""
    where = ctx.server.endpoint
    if ctx.server.program is None:
        (await ctx.connect()).close()
    return Note(Verdict.INFO, f"it listens on {where.scheme}{f' port {where.port}' if where.port else ''}")


async def _refresh_server(ctx: ServerContext, scene: Scene) -> Note | None:
    """Start the server again if earlier cases have used it, because it may remember them."""
    if not ctx.server.used or scene.spec.repeat != "no":
        return None
    if ctx.server.program is None:
        return None  # the server runs already, and cannot be started again
    try:
        await ctx.kill()
        await ctx.restart()
    except NotListening as error:
        return _skip(f"it needs a server that was just started, which could not listen again: {error.reason}")
    return None


async def play(ctx: ServerContext, scene: Scene) -> Note | None:
    """Play the scene."""
    if note := await _refresh_server(ctx, scene):
        return note
    await ScenePlayer(ctx, scene).play()
    return None


async def play_in_pieces(ctx: ServerContext, scene: Scene, segmentation: Segmentation) -> Note | None:
    """Play the scene, with each text in several segments."""
    if note := await _refresh_server(ctx, scene):
        return note
    await ScenePlayer(ctx, scene, segmentation).play()
    return None


async def play_joined(ctx: ServerContext, scene: Scene) -> Note | None:
    """Play the scene, with consecutive texts of a client in one segment."""
    steps = join_sends(scene.steps, scene.is_datagram)
    if note := await _refresh_server(ctx, scene):
        return note
    await ScenePlayer(ctx, scene).play(steps)
    return None


async def play_interleaved(ctx: ServerContext, scene: Scene) -> Note | None:
    """Play the scene twice at once, each step of one after the same step of the other."""
    players = [ScenePlayer(ctx, scene, suffix=f" ({number})") for number in (1, 2)]
    for step in scene.steps:
        for player in players:
            await player.step(step)
    for player in players:
        await player.expect_nothing_more()
    return None


async def play_after_interruption(ctx: ServerContext, scene: Scene) -> Note | None:
    """Play half of the scene, reset the connection of a client, close the others, and play the scene."""
    sockets = ctx.socket_count()
    interrupted = ScenePlayer(ctx, scene, suffix=" (gone)")
    for step in scene.steps[: (len(scene.steps) + 1) // 2]:
        await interrupted.step(step)
    await interrupted.leave()
    # The server may need a moment to notice, and to forget what belonged to the connections.
    await ctx.wait_until(lambda: ctx.is_idle() and ctx.socket_count() <= sockets, ctx.timeout)
    await ScenePlayer(ctx, scene).play()
    return None


def _pieces_reason(contract: Contract, scene: Scene) -> str:
    streams = [step for step in scene.texts() if not scene.is_datagram(step.client)]
    if not any(isinstance(step, SendTexts) for step in streams):
        return _DATAGRAMS_ONLY
    return _NO_FRAMING if contract.framing == "none" else ""


def _joined_reason(contract: Contract, scene: Scene) -> str:
    if len(join_sends(scene.steps, scene.is_datagram)) == len(scene.steps):
        return "no client sends two texts in a row on a stream"
    return _NO_FRAMING if contract.framing == "none" else ""


@dataclass(frozen=True, slots=True)
class _Variation:
    """A way to play every scene. `suffix` is added to the scene's case id.

    `skip`: returns why it is not asked under a contract, or "".
    """

    suffix: str
    stimulus: str
    why: str
    likely_cause: str
    run: Callable[[ServerContext, Scene], Awaitable[Note | None]]
    skip: Callable[[Contract, Scene], str]


_VARIATIONS: Final = (
    _Variation(
        "bytewise",
        "every text sent byte by byte",
        "TCP is a byte stream: the network may split a message anywhere.",
        "treats the data of one recv() as one message",
        partial(play_in_pieces, segmentation=BYTEWISE),
        _pieces_reason,
    ),
    _Variation(
        "cut",
        "every text cut in the middle",
        "TCP is a byte stream: the network may split a message anywhere.",
        "treats the data of one recv() as one message, or forgets the first part of a message",
        partial(play_in_pieces, segmentation=CUT),
        _pieces_reason,
    ),
    _Variation(
        "joined",
        "consecutive texts of a client in one segment",
        "Data from two writes may arrive together (RFC 9293, 3.9.1.2: a stream has no records).",
        "discards the data after the first message of a recv()",
        play_joined,
        _joined_reason,
    ),
    _Variation(
        "interleaved",
        "two of it at once, step by step",
        "Other clients do the same at the same time.",
        "mixes the states of its clients, or serves one client at a time",
        play_interleaved,
        lambda _contract, scene: "" if scene.spec.repeat == "beside" else _NOT_BESIDE,
    ),
    _Variation(
        "gone",
        "a client gone in the middle (RST), then the whole scene",
        "Clients crash, and networks fail; the others must be served as before.",
        "exits on ECONNRESET or EPIPE, or keeps what belonged to the lost connection",
        play_after_interruption,
        lambda _contract, scene: _ONCE if scene.spec.repeat == "no" else "",
    ),
)


def server_cases(contract: Contract) -> tuple[Case[ServerContext], ...]:
    """Return the cases for the scenes of a contract, and before them a gate if it has scenes only."""
    gate: Case[ServerContext] = Case(
        id=GATE,
        stimulus="the server is started",
        expectation="it listens",
        why="All scenes need a server that listens.",
        likely_cause="the program does not start, or listens on another endpoint",
        run=_expect_listening,
        graded=False,
    )
    cases = [] if contract.has_answer else [gate]
    for scene in contract.scenes:
        if scene.spec.role == "client":
            continue
        cases.append(_scene_case(scene))
        cases += (_variation_case(contract, scene, each) for each in _VARIATIONS)
    return tuple(cases)


def _scene_case(scene: Scene) -> Case[ServerContext]:
    names = ", ".join(scene.clients)
    return Case(
        id=scene.case_id,
        stimulus=f"scene {scene.spec.name!r}, {len(scene.steps)} steps of {names}",
        expectation="what each line of the scene says, and no more",
        why=scene.spec.why or "The contract describes this dialogue.",
        likely_cause=scene.spec.mistake or "does not do what this line of the scene says",
        run=partial(play, scene=scene),
    )


def _variation_case(contract: Contract, scene: Scene, variation: _Variation) -> Case[ServerContext]:
    return Case(
        id=f"{scene.case_id}-{variation.suffix}",
        stimulus=f"scene {scene.spec.name!r}: {variation.stimulus}",
        expectation="what each line of the scene says, and no more",
        why=variation.why,
        likely_cause=variation.likely_cause,
        run=lambda ctx: variation.run(ctx, scene),
        after=(scene.case_id,),
        skip=variation.skip(contract, scene),
    )
