"""Which engine carries what: asked before anything is bound, so that whoever asks for the impossible is told.

Rank 2, like the engines: knows them by the registry, and services by their contract.
"""

from __future__ import annotations

from collections.abc import Sequence

from bothends.endpoints import Endpoint
from bothends.engines import registry
from bothends.engines.base import Engine, Limits
from bothends.errors import Unavailable, UnsupportedCombination
from bothends.services.base import Service
from bothends.sockets import Listener


def choose_engine(
    requested: str | type[Engine] | None,
    service: Service,
    endpoints: Sequence[Endpoint],
    limits: Limits,
    workers: int,
) -> type[Engine]:
    """The engine that was asked for, if it can carry everything, or the best one that can.

    Raises:
        UnknownName: no such engine.
        CannotCarry, Unavailable: why it can't; of several, what keeps the best one from it.
    """
    refusals: list[Exception] = []
    candidates = registry.PREFERRED if requested is None else (requested,)
    for candidate in candidates:
        engine = registry.load(candidate) if isinstance(candidate, str) else candidate
        refusal = incompatibility(engine, service, endpoints, limits, workers)
        if refusal is None:
            return engine
        refusals.append(refusal)
    # That one isn't here is no reason, where another says what it can't do.
    raise next((each for each in refusals if not isinstance(each, Unavailable)), refusals[0])


def check_inherited_connection(engine: type[Engine], listener: Listener, workers: int) -> None:
    """One connection is one conversation. Raises CannotCarry where several would be held on it."""
    if not engine.accepts_inherited:
        raise UnsupportedCombination(
            f"engine {engine.name}", str(listener.requested_endpoint), engine.why_not["adopts"]
        )
    if workers > 1:
        reason = "it is one connection, and all of them would talk on it"
        raise UnsupportedCombination(f"{workers} workers", str(listener.requested_endpoint), reason)


def incompatibility(
    engine: type[Engine], service: Service, endpoints: Sequence[Endpoint], limits: Limits, workers: int
) -> Exception | None:
    """Why this engine can't carry this service on all of these endpoints; None if it can."""
    reason = engine.unavailable_reason()
    if reason is not None:
        return Unavailable("run engine", engine.name, reason=reason, hint="see `bothends engines`")
    for endpoint in endpoints:
        sense = service.datagrams if endpoint.is_datagram else service.streams
        if not sense:
            kind = "datagrams" if endpoint.is_datagram else "connections"
            return UnsupportedCombination(
                f"service {service.name}",
                str(endpoint),
                f"it makes no sense on {kind}",
                "see `bothends services`",
            )
        refusal = engine.unsupported_reason(service, endpoint)
        if refusal is not None:
            return refusal
    if limits.when_full == "refuse" and not engine.rejects_when_full:
        return UnsupportedCombination(
            f"engine {engine.name}", "a limit that refuses", engine.why_not["turns_away"]
        )
    if limits.busy_poll and not engine.supports_busy_poll:
        reason = "it waits in the kernel, until it is woken"
        return UnsupportedCombination(
            f"engine {engine.name}", "busy polling", reason, "native looks for itself"
        )
    if workers > 1 and service.pushes:
        return UnsupportedCombination(
            f"service {service.name}",
            f"{workers} workers",
            "its peers must all be in one process to hear each other",
        )
    return None
