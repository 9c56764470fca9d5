"""What engines are measured beside: each does what it is measured for."""

import contextlib
import os
from pathlib import Path

import pytest

from bothends.bench.targets import Target, rivals, running
from bothends.client.blocking import connect

OFFERED = [(rival, transport) for rival in rivals() for transport in dict(rival.commands)]


@pytest.mark.parametrize(("rival", "transport"), OFFERED, ids=[f"{r.name}-{t}" for r, t in OFFERED])
def test_it_answers_in_capitals_and_ends(rival: Target, transport: str, tmp_path: Path) -> None:
    if rival.missing:
        pytest.skip(rival.missing)
    with running(rival, transport, tmp_path, cpu=None) as place:
        with connect(place.endpoint, timeout=20) as connection:
            for said in (b"once\n", b"and again\n"):
                connection.send(said)
                assert connection.receive() == said.upper()
        assert place.pid is not None
        os.kill(place.pid, 0)
    with contextlib.suppress(ProcessLookupError):
        os.kill(place.pid, 0)
        pytest.fail(f"{rival.name} is still there")
