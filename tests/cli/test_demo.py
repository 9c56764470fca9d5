"""`bothends demo`, which is what `make demo` runs."""

from __future__ import annotations

from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import run


def test_demo_shows_tcp_and_udp() -> None:
    shown = run([*BOTHENDS, "demo"]).decode()
    assert shown.count("client  hello\n") == 2
    assert shown.count("server  HELLO\n") == 2
    assert shown.count("server  GRÖSSE, NAÏVETÉ, É\n") == 2
    assert "bothends connect tcp://127.0.0.1:12000" in shown
    assert "\x1b" not in shown
