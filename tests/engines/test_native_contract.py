"""The native engine passes the contract suite on either of what it can rest on, whatever it chooses here."""

from __future__ import annotations

from typing import ClassVar

import pytest

pytest.register_assert_rewrite("bothends.testing.contract")

from bothends.testing.contract import EngineContract  # noqa: E402


class TestUring(EngineContract):
    engine: ClassVar[str] = "bothends.engines.native:NativeUringEngine"


class TestEpoll(EngineContract):
    engine: ClassVar[str] = "bothends.engines.native:NativeEpollEngine"
