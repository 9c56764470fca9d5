"""Every engine of the registry passes the contract suite."""

from __future__ import annotations

from typing import ClassVar

import pytest

pytest.register_assert_rewrite("bothends.testing.contract")

from bothends.engines import registry  # noqa: E402
from bothends.errors import UnknownName  # noqa: E402
from bothends.testing.contract import EngineContract  # noqa: E402

# Each test runs on one engine of each family, with one in six of the pairs of a transport and a
# way to be cut off; the basic ones run on all engines over all transports, and `make slow` runs the others.
pytestmark = pytest.mark.spread(
    "stream_transport",
    "connection_transport",
    "push_transport",
    "datagram_transport",
    "reading",
    "cut",
    "answer",
    one_in=6,
)

# libuv opens a pipe for signals once for the whole process (uv__signal_global_init).
RETAINED_DESCRIPTORS: dict[str, int] = {"uvloop": 2}


# Engines that share the code that serves a connection.
FAMILIES = {
    **dict.fromkeys(("iterative", "threads", "pool"), "threads"),
    **dict.fromkeys(("fork", "prefork"), "processes"),
    **dict.fromkeys(("select", "poll", "epoll"), "readiness"),
    **dict.fromkeys(("asyncio", "uvloop"), "asyncio"),
}


def contract_for(name: str) -> type[EngineContract]:
    class Contract(EngineContract):
        engine: ClassVar[str] = name
        retained_descriptors: ClassVar[int] = RETAINED_DESCRIPTORS.get(name, 0)
        spread_over: ClassVar[str] = FAMILIES.get(name, name)

    Contract.__name__ = Contract.__qualname__ = f"Test{name.capitalize()}"
    return Contract


def can_be_loaded(name: str) -> bool:
    try:
        registry.load(name)
    except UnknownName:
        return False
    return True


@pytest.mark.parametrize("name", registry.names())
def test_registry_name_loads_engine(name: str) -> None:
    assert registry.load(name).name == name


# test_native_contract.py runs the suite on both backends of `native`.
for _name in filter(can_be_loaded, registry.names()):
    if _name == "native":
        continue
    globals()[f"Test{_name.capitalize()}"] = contract_for(_name)
