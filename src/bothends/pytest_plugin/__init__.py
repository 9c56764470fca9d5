"""The plugin for pytest: servers, misbehaving peers, bad paths and traces as fixtures. Rank 5.

pytest finds it by the entry point `bothends` of the group pytest11, which is `fixtures`. The classes here are
the types of the fixtures, for annotations. Every run of pytest imports them, so they import what they use
when they are called.
"""

from bothends.pytest_plugin.bad_paths import BadPath, PathFactory, WireRunner
from bothends.pytest_plugin.servers import Behaviour, PeerFactory, ServerFactory, ServerHandle
from bothends.pytest_plugin.traces import TracedRun, TraceRunner

__all__ = [
    "BadPath",
    "Behaviour",
    "PathFactory",
    "PeerFactory",
    "ServerFactory",
    "ServerHandle",
    "TraceRunner",
    "TracedRun",
    "WireRunner",
]
