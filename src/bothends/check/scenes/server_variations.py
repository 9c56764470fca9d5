"""The variations of a scene: other ways in which the network or a client may deliver it to a server.

A variation runs only if the scene itself does not fail. A new one is a coroutine, the reason not to ask it
under a contract, and a row of `VARIATIONS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from bothends.check.case import Note, NotListening, Verdict
from bothends.check.contract import Contract
from bothends.check.scenes.datagram_path import Disturbance, reorder_sends
from bothends.check.scenes.player import ScenePlayer
from bothends.check.scenes.segmentation import BYTEWISE, CUT, WHOLE, Segmentation, join_sends
from bothends.check.scenes.spec import Scene
from bothends.check.scenes.steps import SendTexts, Step
from bothends.check.scenes.variation import NO_FRAMING, Variation, not_borne, pieces
from bothends.check.subjects.recorded_socket import run_concurrently
from bothends.check.subjects.server_context import ServerContext

_CROWD: Final = 100  # clients at once
_CROWD_INTERVAL: Final = 0.002  # seconds between them: not a test of the accept queue
_CROWD_TIMEOUTS: Final = 4.0  # a factor for the timeouts of its steps

_DATAGRAMS_ONLY: Final = "its clients send datagrams, which the network does not cut or join"
_ONCE: Final = 'the contract does not say that it can be played again (repeat = "after" or "beside")'
_NOT_BESIDE: Final = 'the contract does not say that two can be played at once (repeat = "beside")'


_RESTARTS: Final = "it starts the server again"


def _skip(reason: str) -> Note:
    return Note(Verdict.SKIP, reason)


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


def _as_written(scene: Scene) -> tuple[Step, ...]:
    return scene.steps


def _joined(scene: Scene) -> tuple[Step, ...]:
    """Return the steps with consecutive texts of a client in one segment."""
    return join_sends(scene.steps, scene.is_datagram)


def _reordered(scene: Scene) -> tuple[Step, ...]:
    """Return the steps with datagrams in a row in reverse, and then again in order."""
    return reorder_sends(scene.steps, scene.is_datagram)


async def play(
    ctx: ServerContext,
    scene: Scene,
    segmentation: Segmentation = WHOLE,
    *,
    disturbance: Disturbance = Disturbance.NONE,
    steps_of: Callable[[Scene], tuple[Step, ...]] = _as_written,
) -> Note | None:
    """Play the scene, or other steps that say the same. See ScenePlayer."""
    if note := await _refresh_server(ctx, scene):
        return note
    await ScenePlayer(ctx, scene, segmentation, disturbance=disturbance).play(steps_of(scene))
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


async def play_beside_slow_client(ctx: ServerContext, scene: Scene) -> Note | None:
    """Send half of a text of one playing, play the whole scene, and then the rest of the first."""
    slow = ScenePlayer(ctx, scene, suffix=" (slow)")
    at = next(number for number, step in enumerate(scene.steps) if _is_stream_text(scene, step))
    text = scene.steps[at]
    assert isinstance(text, SendTexts)
    for step in scene.steps[:at]:
        await slow.step(step)
    await slow.start_text(text)
    await ScenePlayer(ctx, scene, beside=True).play()
    await slow.finish_text(text)
    await slow.play(scene.steps[at + 1 :])
    return None


async def play_beside_client_not_reading(ctx: ServerContext, scene: Scene) -> Note | None:
    """Play the scene, with another client that sends its texts again and again, and does not read."""
    not_reading = ScenePlayer(ctx, scene, suffix=" (deaf)", small_rcvbuf=True)
    await not_reading.flood(next(step.client for step in scene.steps if _is_stream_text(scene, step)))
    if not await ctx.wait_until(ctx.is_idle, _CROWD_TIMEOUTS * ctx.timeout):
        return _skip("the server did not come to rest, so what it still does may disturb the scene")
    await ScenePlayer(ctx, scene, beside=True).play()
    await not_reading.leave()
    return None


async def play_in_crowd(ctx: ServerContext, scene: Scene) -> Note | None:
    """Play the scene with a hundred clients, each step of all at once, after the step before it of all."""
    count = max(2, _CROWD // len(scene.clients))
    players = [
        ScenePlayer(ctx, scene, suffix=f" ({number})", timeout_factor=_CROWD_TIMEOUTS, beside=True)
        for number in range(1, count + 1)
    ]

    async def play_step(number: int, step: Step) -> None:
        await asyncio.sleep(number * _CROWD_INTERVAL)
        await players[number].step(step)

    for step in scene.steps:
        await run_concurrently([play_step(number, step) for number in range(count)])
    await run_concurrently([player.expect_nothing_more() for player in players])
    return None


async def stop_in_the_middle(ctx: ServerContext, scene: Scene) -> Note | None:
    """Play half of the scene, send SIGTERM, and close each connection when the server does."""
    if note := await _refresh_server(ctx, scene):
        return note
    player = ScenePlayer(ctx, scene)
    for step in scene.steps[: (len(scene.steps) + 1) // 2]:
        await player.step(step)
    await ctx.expect_stop(player.close_when_server_does)
    return None


def _pieces_reason(contract: Contract, scene: Scene) -> str:
    streams = [step for step in scene.texts() if not scene.is_datagram(step.client)]
    if not any(isinstance(step, SendTexts) for step in streams):
        return _DATAGRAMS_ONLY
    return NO_FRAMING if contract.framing == "none" else ""


def _joined_reason(contract: Contract, scene: Scene) -> str:
    if len(_joined(scene)) == len(scene.steps):
        return "no client sends two texts in a row on a stream"
    return NO_FRAMING if contract.framing == "none" else ""


def _is_stream_text(scene: Scene, step: Step) -> bool:
    return isinstance(step, SendTexts) and not scene.is_datagram(step.client)


def _beside_reason(_contract: Contract, scene: Scene) -> str:
    if scene.restarts:
        return _RESTARTS
    return "" if scene.spec.repeat == "beside" else _NOT_BESIDE


def _gone_reason(_contract: Contract, scene: Scene) -> str:
    if scene.restarts:
        return _RESTARTS
    return _ONCE if scene.spec.repeat == "no" else ""


def _slow_reason(contract: Contract, scene: Scene) -> str:
    return _beside_reason(contract, scene) or _pieces_reason(contract, scene)


def _stop_reason(_contract: Contract, scene: Scene) -> str:
    return _RESTARTS if scene.restarts else ""


def _disturbance_reason(contract: Contract, scene: Scene, disturbance: Disturbance) -> str:
    if reason := not_borne(contract, scene, disturbance):
        return reason
    if disturbance is Disturbance.REORDERING and _reordered(scene) == scene.steps:
        return "no client sends two datagrams in a row"
    return ""


VARIATIONS: Final[tuple[Variation[ServerContext], ...]] = (
    *pieces(
        "",
        partial(play, segmentation=BYTEWISE),
        partial(play, segmentation=CUT),
        partial(play, steps_of=_joined),
        _pieces_reason,
        _joined_reason,
    ),
    Variation(
        "interleaved",
        "two of it at once, step by step",
        "Other clients do the same at the same time.",
        "mixes the states of its clients, or serves one client at a time",
        play_interleaved,
        _beside_reason,
    ),
    Variation(
        "slow",
        "another client in the middle of a text, which it completes afterwards",
        "A readable socket does not imply a complete message, and slow clients must not block the others.",
        "waits for the rest of a message, and serves no other client meanwhile",
        play_beside_slow_client,
        _slow_reason,
        after=("interleaved",),
        follows=("bytewise", "cut"),
    ),
    Variation(
        "deaf",
        "another client that sends the same again and again, and does not read",
        "A blocking send() waits while the client's receive window is full.",
        "a blocking send() in the event loop",
        play_beside_client_not_reading,
        _slow_reason,
        after=("interleaved",),
    ),
    Variation(
        "crowd",
        f"{_CROWD} clients at once",
        "Connections must not share state, and a server has more than a few clients.",
        "one buffer for all clients, or a limit on their number",
        play_in_crowd,
        _beside_reason,
        after=("interleaved",),
    ),
    Variation(
        "gone",
        "a client gone in the middle (RST), then the whole scene",
        "Clients crash, and networks fail; the others must be served as before.",
        "exits on ECONNRESET or EPIPE, or keeps what belonged to the lost connection",
        play_after_interruption,
        _gone_reason,
    ),
    Variation(
        "stopped",
        "SIGTERM in the middle, after which its clients close when the server does",
        "Service managers stop a service with SIGTERM, and kill it with SIGKILL after a timeout.",
        "ignores the signal, waits for its clients, or leaves child processes that hold the port",
        stop_in_the_middle,
        _stop_reason,
        requires=("process",),
        once=True,
    ),
    *(
        Variation(
            disturbance.value,
            stimulus,
            f"The network may do this to datagrams, and the contract says that the protocol bears it{why}.",
            likely_cause,
            partial(
                play,
                disturbance=disturbance,
                steps_of=_reordered if disturbance is Disturbance.REORDERING else _as_written,
            ),
            partial(_disturbance_reason, disturbance=disturbance),
        )
        for disturbance, stimulus, why, likely_cause in (
            (
                Disturbance.LOSS,
                "the first reply to each datagram is lost, and the datagram is sent again",
                ": a client cannot know which of the two was lost",
                "does the same twice when a request comes again, or does not reply to it again",
            ),
            (
                Disturbance.DUPLICATES,
                "each datagram arrives twice",
                " (RFC 768 gives no protection against duplicates)",
                "does the same twice when a datagram arrives twice",
            ),
            (
                Disturbance.REORDERING,
                "datagrams sent in a row arrive in reverse, and are then sent again in order",
                "",
                "takes datagrams in the order of their arrival, not of their numbers",
            ),
            (
                Disturbance.DELAY,
                "a copy of each datagram arrives after the reply to the next",
                "",
                "takes an old datagram for a new one",
            ),
        )
    ),
)
