"""Testing what others write: services by scripts, engines by the contract suite.

    from bothends.testing import END, replay, cuts          # a service, byte by byte, without a socket
    from bothends.testing.contract import EngineContract    # an engine, with real ones (needs pytest)

Rank 4. What is exported here is pure; `harness` runs an engine in a process of its own.
"""

from bothends.testing.clock import FakeClock
from bothends.testing.streams import END, all_splits, bytewise, replay, replay_all

__all__ = ["END", "FakeClock", "all_splits", "bytewise", "replay", "replay_all"]
