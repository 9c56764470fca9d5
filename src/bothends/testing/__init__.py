"""Test tools for code in other packages: scripted streams for services, the contract suite for engines.

    from bothends.testing import END, all_splits, replay    # a service, byte by byte, without a socket
    from bothends.testing.contract import EngineContract    # an engine, with real sockets (needs pytest)

Rank 4. Everything exported here is pure. `harness` runs an engine in its own process.
"""

from bothends.testing.clock import FakeClock
from bothends.testing.streams import END, all_splits, bytewise, replay, replay_all

__all__ = ["END", "FakeClock", "all_splits", "bytewise", "replay", "replay_all"]
