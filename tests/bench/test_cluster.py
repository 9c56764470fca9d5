"""Clusters: split a plan, start on all workers at one time, merge the results."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import bothends
from bothends.bench.cluster import Shard, merge_shards, split_plan
from bothends.bench.generators.base import RunOutcome, RunPlan
from bothends.bench.histogram import Histogram
from bothends.bench.results import Faults, decode
from bothends.bench.schedule import Schedule
from bothends.bench.workload import numbered
from bothends.cli.bench.command import bench
from bothends.cli.main import run
from bothends.endpoints import Endpoint
from bothends.errors import UsageError

PLAN = RunPlan(Endpoint("tcp", host="h", port=1), numbered(16, "echo", newline=True))


@given(st.integers(1, 1000), st.integers(1, 50))
def test_split_plan_covers_whole_plan(connections: int, count: int) -> None:
    plan = RunPlan(PLAN.endpoint, PLAN.workload, connections=connections, schedule=Schedule(100))
    if connections < count:
        with pytest.raises(UsageError, match="can't be spread"):
            split_plan(plan, count)
        return
    parts = split_plan(plan, count)
    assert sum(each.connections for each in parts) == connections
    assert max(each.connections for each in parts) - min(each.connections for each in parts) <= 1
    assert [each.schedule.first for each in parts if each.schedule] == list(range(count))


def outcome(latency: int, completed: int, seconds: list[int]) -> RunOutcome:
    histogram = Histogram()
    histogram.add([latency] * completed)
    return RunOutcome(
        Faults(lost=1), histogram, histogram, Histogram(), seconds, completed, wall=2.0, cpu=1.0
    )


def test_merge_shards_merges_histograms() -> None:
    parts = [
        Shard("a", "C", outcome(1000, 900, [400, 500])),
        Shard("b", "C", outcome(9000, 100, [100])),
        Shard("c", "", None, error="ECONNREFUSED"),
    ]
    found = merge_shards(PLAN, parts)
    assert found.uncorrected.n == found.completed == 1000
    assert found.uncorrected.percentiles_us["p50"] == pytest.approx(1, rel=0.01)
    assert found.uncorrected.percentiles_us["p99"] == pytest.approx(9, rel=0.01)
    assert found.per_s == 500
    assert found.each_second == [500, 500]
    assert found.faults == Faults(refused=1, lost=2)
    assert found.own.name == "2 times C"
    with pytest.raises(UsageError, match="no worker could start"):
        merge_shards(PLAN, parts[2:])


def test_cluster_without_scheduler_is_unavailable(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "tcp://127.0.0.1:1", "--expect", "echo", "--cluster", "no-such-protocol://x"]
    assert run(words) == 69
    assert "no scheduler answers there" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # dask warns about its own event loops and sockets
def test_cluster_three_workers(tmp_path: Path) -> None:
    from distributed import LocalCluster

    with (
        bothends.serve("upper", "tcp://127.0.0.1:0") as server,
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=3,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            local_directory=str(tmp_path),
        ) as cluster,
    ):
        words = [str(server.endpoints[0]), "--cluster", cluster.scheduler_address, "--connections", "9"]
        words += ["--rate", "900", "--duration", "2", "--warmup", "0.3", "--json"]
        started = time.monotonic()
        result = CliRunner().invoke(bench, words)
        assert result.exit_code == 0, result.output
        assert time.monotonic() - started < 60
        assert result.stderr.count("has no TLS") == 1
    document = decode(result.stdout_bytes, "stdout")
    (entry,) = document.entries
    (found,) = entry.rounds
    assert found.faults == Faults()
    assert found.own.name.startswith("3 times ")
    assert found.connections_made == 9
    assert found.corrected is not None
    assert found.corrected.n + found.unsent == 1800  # each scheduled request was sent by one worker
    assert document.notes[0].startswith("3 workers; their clocks differ")
