"""Judge submissions on the workers of a dask.distributed cluster.

A scheduler whose workers are all gone keeps the tasks, and waits for others. So the workers are counted while
nothing finishes; without any for a while, the submissions that remain go back to the caller.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, TypeVar

from bothends import dask_cluster

_POLL: Final = 1.0  # seconds between looks at the cluster while nothing finishes
GRACE: Final = 5.0  # seconds without a worker: one that is started again takes two or three

T = TypeVar("T", bound=tuple[Any, ...])


def run_on_cluster(
    judge: Callable[..., dict[str, Any]],
    failed: Callable[[T, BaseException], dict[str, Any]],
    pending: Sequence[T],
    address: str,
    warn: Callable[[str], object],
) -> Generator[dict[str, Any], None, list[T]]:
    """Run `judge` with the values of each submission on a cluster, and yield the results as they come.

    Args:
        failed: makes a result of a submission whose worker raised an exception.
        address: the scheduler's, such as tls://host:8786.
        warn: called with one line if the connection is not encrypted.

    Returns: the submissions without a result, if the cluster has lost all its workers, or its scheduler.

    Raises:
        Unavailable: the cluster is unreachable, or distributed is not installed.
    """
    with dask_cluster.connect(address, warn) as client:
        distributed: Any = importlib.import_module("distributed")
        # A worker judges one program at a time, because the cases of a program run concurrently already.
        futures = {client.submit(judge, *each, pure=False): each for each in pending}
        last_worker, lost = time.monotonic(), []
        while futures:
            done = _wait(distributed, client, list(futures))
            if done or _has_workers(client):
                last_worker = time.monotonic()
            elif time.monotonic() - last_worker > GRACE:
                client.cancel(list(futures), force=True)
                break
            for future in done:
                submission = futures.pop(future)
                if future.status == "finished":
                    yield future.result()
                elif future.status == "error":  # such as KilledWorker: the submission ended its worker
                    yield failed(submission, future.exception())
                else:  # cancelled or lost: the scheduler is gone
                    lost.append(submission)
        return [*lost, *futures.values()]


def _wait(distributed: Any, client: Any, futures: list[Any]) -> set[Any]:
    """Return the futures that are done, after a moment at most."""
    try:
        with client.as_current():  # wait() has no other way to take a client
            done: set[Any] = distributed.wait(futures, timeout=_POLL, return_when="FIRST_COMPLETED").done
    except (TimeoutError, OSError):  # distributed raises a TimeoutError of its own, or asyncio's
        return set()
    except distributed.TimeoutError:
        return set()
    return done


def _has_workers(client: Any) -> bool:
    try:
        return bool(client.nthreads())
    except (OSError, TimeoutError, RuntimeError):
        return False
