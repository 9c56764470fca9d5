"""The native engine passes the contract suite on both backends, io_uring and epoll."""

from __future__ import annotations

from typing import ClassVar

import pytest

pytest.register_assert_rewrite("bothends.testing.contract")

from bothends.testing.contract import EngineContract  # noqa: E402

pytestmark = pytest.mark.spread(
    "stream_transport",
    "connection_transport",
    "push_transport",
    "datagram_transport",
    "reading",
    "cut",
    "answer",
    one_in=3,
)


class TestUring(EngineContract):
    engine: ClassVar[str] = "bothends.engines.native:NativeUringEngine"


class TestEpoll(EngineContract):
    engine: ClassVar[str] = "bothends.engines.native:NativeEpollEngine"
