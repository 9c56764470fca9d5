"""The native engine, told to observe nothing but troubles: what `bothends serve -q` makes of it."""

from __future__ import annotations

import dataclasses

from bothends.engines.base import Job
from bothends.engines.native import NativeOnEpoll, NativeOnRing
from bothends.events import Troubles


def quietened(job: Job) -> Job:
    return job if job.observe is None else dataclasses.replace(job, observe=Troubles(job.observe))


class QuietOnRing(NativeOnRing):
    def __init__(self, job: Job) -> None:
        super().__init__(quietened(job))


class QuietOnEpoll(NativeOnEpoll):
    def __init__(self, job: Job) -> None:
        super().__init__(quietened(job))
