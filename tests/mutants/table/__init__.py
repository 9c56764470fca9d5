"""The kept set of mutations: `MUTATIONS`, in the order of their packages."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutation import Mutation
from tests.mutants.table import analysis, base, engines, judging, native, peers, traffic

MUTATIONS: Final[tuple[Mutation, ...]] = (
    *base.MUTATIONS,
    *peers.MUTATIONS,
    *traffic.MUTATIONS,
    *engines.MUTATIONS,
    *native.MUTATIONS,
    *analysis.MUTATIONS,
    *judging.MUTATIONS,
)
