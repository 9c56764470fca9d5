"""The cases that a server suite gets from the scenes of a contract: each scene, and its variations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from bothends.check.case import LINE_NOT_KEPT, Case, Note, Verdict
from bothends.check.contract import Contract
from bothends.check.scenes.exchanges import exchanges_of
from bothends.check.scenes.server_variations import VARIATIONS, play
from bothends.check.scenes.spec import CASE_PREFIX, Scene
from bothends.check.scenes.variation import Variation, applies
from bothends.check.subjects.server_context import ServerContext

GATE: Final = f"{CASE_PREFIX}starts"
"""The first case of a contract that has scenes only."""


async def _expect_listening(ctx: ServerContext) -> Note:
    """Connect to a running server; one that was started and does not listen fails before this."""
    where = ctx.server.endpoint
    if ctx.server.program is None:
        (await ctx.connect()).close()
    return Note(Verdict.INFO, f"it listens on {where.scheme}{f' port {where.port}' if where.port else ''}")


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
        cases += [
            _variation_case(contract, scene, each, cases)
            for each in VARIATIONS
            if applies(bool(scene.datagram_clients), each.suffix)
        ]
    return tuple(cases)


def _scene_case(scene: Scene) -> Case[ServerContext]:
    names = ", ".join(scene.clients)
    return Case(
        id=scene.case_id,
        stimulus=f"scene {scene.spec.name!r}, {len(scene.steps)} steps of {names}",
        expectation="what each line of the scene says, and no more",
        why=scene.spec.why or "The contract describes this dialogue.",
        likely_cause=scene.spec.mistake or LINE_NOT_KEPT,
        run=partial(play, scene=scene),
        requires=("process", "fixed endpoint") if scene.restarts else (),
        exchanges=exchanges_of(scene),
    )


def _variation_case(
    contract: Contract,
    scene: Scene,
    variation: Variation[ServerContext],
    earlier: Sequence[Case[ServerContext]],
) -> Case[ServerContext]:
    """Return the case for a variation. `earlier`: the cases of the scenes before."""
    same = [each.id for each in earlier if each.id.endswith(f"-{variation.suffix}")] if variation.once else []
    return Case(
        id=f"{scene.case_id}-{variation.suffix}",
        stimulus=f"scene {scene.spec.name!r}: {variation.stimulus}",
        expectation="what each line of the scene says, and no more",
        why=variation.why,
        likely_cause=variation.likely_cause,
        run=lambda ctx: variation.run(ctx, scene),
        requires=variation.requires,
        after=(scene.case_id, *(f"{scene.case_id}-{each}" for each in variation.after), *same),
        graded=not same,
        skip=variation.skip(contract, scene),
        family=variation.family or variation.suffix,
        follows=tuple(f"{scene.case_id}-{each}" for each in variation.follows),
    )
