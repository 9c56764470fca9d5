"""Choose an engine, and check what it supports before any socket is bound.

Rank 2, like the engines. Knows engines by the registry, and services by their contract.
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
    """Return the requested engine, or the best engine that supports the service on all endpoints.

    Raises:
        UnknownName: there is no such engine.
        UnsupportedCombination, Unavailable: the engine does not support it. If no engine does, the reason of
            the best one.
    """
    reasons: list[Exception] = []
    candidates = registry.PREFERRED if requested is None else (requested,)
    for candidate in candidates:
        engine = registry.load(candidate) if isinstance(candidate, str) else candidate
        reason = incompatibility(engine, service, endpoints, limits, workers)
        if reason is None:
            return engine
        reasons.append(reason)
    # Prefer an incompatibility to "not installed", because it is the more useful reason.
    raise next((each for each in reasons if not isinstance(each, Unavailable)), reasons[0])


def check_inherited_connection(engine: type[Engine], listener: Listener, workers: int) -> None:
    """Check that exactly one process will use an inherited connection. Raises UnsupportedCombination."""
    lack = engine.lack("accepts_inherited", str(listener.requested_endpoint))
    if lack is not None:
        raise lack
    if workers > 1:
        reason = "all of them would use the same connection"
        raise UnsupportedCombination(f"{workers} workers", str(listener.requested_endpoint), reason)


def incompatibility(
    engine: type[Engine], service: Service, endpoints: Sequence[Endpoint], limits: Limits, workers: int
) -> Exception | None:
    """Return why this engine does not support this service on all of these endpoints, or None if it does."""
    reason = engine.unavailable_reason()
    if reason is not None:
        return Unavailable("run engine", engine.name, reason=reason, hint="see `bothends engines`")
    for endpoint in endpoints:
        supported = service.datagrams if endpoint.is_datagram else service.streams
        if not supported:
            kind = "datagrams" if endpoint.is_datagram else "connections"
            return UnsupportedCombination(
                f"service {service.name}",
                str(endpoint),
                f"it makes no sense on {kind}",
                "see `bothends services`",
            )
        unsupported = engine.unsupported_reason(service, endpoint)
        if unsupported is not None:
            return unsupported
    if limits.when_full == "evict" and not engine.evicts_when_full:
        reason = "it cannot close one connection to accept another; use select, poll or epoll"
        return UnsupportedCombination(
            f"engine {engine.name}", "closing idle connections at the limit", reason
        )
    if limits.when_full == "refuse":
        lack = engine.lack("rejects_when_full", "rejecting connections at the limit")
        if lack is not None:
            return lack
    if limits.busy_poll and not engine.supports_busy_poll:
        reason = "it blocks in the kernel until a descriptor is ready"
        return UnsupportedCombination(
            f"engine {engine.name}", "busy polling", reason, "use the native engine"
        )
    if workers > 1 and service.pushes:
        return UnsupportedCombination(
            f"service {service.name}",
            f"{workers} workers",
            "it pushes to its peers, which must all be in one process",
        )
    return None
