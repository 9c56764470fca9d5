"""Recording and replay: a replay makes the same decisions, even if a stream is chunked differently."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bothends.errors import ConfigurationError, SystemCallFailed
from bothends.impair.recording import RecordingWriter, Replay
from bothends.toxics.base import Medium, Signal
from bothends.toxics.pipeline import Item, Pipeline
from tests.impair.running import TIMEOUT, RunningProxies, connect, echo, read_all, tcp_server, udp_echo_server
from tests.toxics.path import DATAGRAMS, MESSAGES, STREAM, Arrivals, stage
from tests.toxics.test_pipeline import supported, toxic


def run(pipeline: Pipeline, sent: list[tuple[float, Item]]) -> Arrivals:
    """Run a pipeline in virtual time. Returns the output items and their times."""
    arrived: Arrivals = [(0.0, item) for item in pipeline.begin(0.0)]
    for at, item in [*sent, (1e6, None)]:
        while pipeline.due <= at:
            due = pipeline.due
            arrived += [(due, out) for out in pipeline.advance(due)]
        if item is not None:
            arrived += [(at, out) for out in pipeline.put(at, item)]
    return arrived


def run_and_record(path: Path, medium: Medium, names: list[str], sent: list[tuple[float, Item]]) -> Arrivals:
    """Run these toxics and record their decisions. Returns the output items and their times."""
    recording = RecordingWriter(path)
    stages = [stage(toxic(name), medium, seed) for seed, name in enumerate(names)]
    for each in stages:
        each.record = recording.start_stage("proxy", 1, "upstream", each.name, 0)
    arrived = run(Pipeline(medium, stages), sent)
    recording.close()
    return arrived


def run_replay(path: Path, medium: Medium, sent: list[tuple[float, Item]]) -> Arrivals:
    return run(Pipeline(medium, Replay(path).stages("proxy", 1, "upstream", medium)), sent)


def by_byte(arrived: Arrivals) -> list[tuple[float, int | Signal]]:
    """Return the time of each byte and signal."""
    flat: list[tuple[float, int | Signal]] = []
    for at, item in arrived:
        if isinstance(item, Signal):
            flat.append((at, item))
        else:
            flat += [(at, byte) for byte in item]
    return flat


def sample_input(medium: Medium) -> list[tuple[float, Item]]:
    random = Random(4)
    sent: list[tuple[float, Item]] = [
        (number / 20, random.randbytes(random.randint(1, 80))) for number in range(30)
    ]
    return sent if medium is DATAGRAMS else [*sent, (1.6, Signal.END)]


@pytest.mark.parametrize(
    ("medium", "name"),
    [(medium, name) for medium in (STREAM, MESSAGES, DATAGRAMS) for name in supported(medium)],
)
def test_replay_same_input_gives_same_output(medium: Medium, name: str, tmp_path: Path) -> None:
    path = tmp_path / "record"
    sent = sample_input(medium)
    arrived = run_and_record(path, medium, [name], sent)
    assert by_byte(run_replay(path, medium, sent)) == by_byte(arrived)


@settings(max_examples=40)
@given(cuts=st.lists(st.integers(1, 70), min_size=1, max_size=4), chosen=st.integers(0, 1000))
def test_replay_stream_is_independent_of_chunking(
    cuts: list[int], chosen: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("recording") / "record"
    names = supported(STREAM)
    name = names[chosen % len(names)]
    arrived = run_and_record(path, STREAM, [name], sample_input(STREAM))
    finer: list[tuple[float, Item]] = []
    for at, item in sample_input(STREAM):
        if isinstance(item, Signal):
            finer.append((at, item))
            continue
        start = 0
        for cut in [*sorted(cuts), len(item)]:
            if start < min(cut, len(item)):
                finer.append((at, item[start : min(cut, len(item))]))
                start = min(cut, len(item))
    replayed = by_byte(run_replay(path, STREAM, finer))
    assert [item for _, item in replayed] == [item for _, item in by_byte(arrived)]
    assert [at for at, _ in replayed] == pytest.approx([at for at, _ in by_byte(arrived)])


def test_replay_several_stages_in_order(tmp_path: Path) -> None:
    path = tmp_path / "record"
    names = ["loss", "duplicate", "corrupt", "reorder", "latency"]
    arrived = run_and_record(path, DATAGRAMS, names, sample_input(DATAGRAMS))
    assert run_replay(path, DATAGRAMS, sample_input(DATAGRAMS)) == arrived


def test_recording_omits_pass_decisions(tmp_path: Path) -> None:
    path = tmp_path / "record"
    run_and_record(path, DATAGRAMS, ["drop_first"], [(0.0, b"a"), (1.0, b"b"), (2.0, b"c")])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"impair": 1},
        {
            "stage": 1,
            "proxy": "proxy",
            "connection": 1,
            "direction": "upstream",
            "toxic": "drop_first",
            "place": 0,
        },
        {"stage": 1, "place": 0, "size": 1, "pieces": []},
        {"stage": 1, "place": 1, "size": 1, "pieces": []},
    ]


def exchange_datagrams(
    record: Path | None = None, replay: Path | None = None, *, seed: int = 1
) -> list[bytes]:
    """Send 50 requests from each of two clients in turn. Returns the responses."""
    toxics = () if replay is not None else (("loss", "20%,burst=2"), ("corrupt", "down:30%"))
    with udp_echo_server() as server, RunningProxies(seed=seed, record=record, replay=replay) as running:
        proxy = running.proxy("udp://127.0.0.1:0", server, *toxics)
        received: list[bytes] = []
        for connection in (1, 2):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.connect((proxy.listen.host, proxy.listen.port))
                for number in range(50):
                    client.send(b"%d %d" % (connection, number))
                running.wait_until(lambda: len(proxy.toxic_counters) == 3, "all toxics have counters")
                up, down = proxy.toxic_counters["loss_upstream"], proxy.toxic_counters["loss_downstream"]
                running.wait_until(
                    lambda up=up, down=down, all_of=50 * connection: (  # type: ignore[misc]
                        up.seen == all_of and down.seen == up.seen - up.dropped
                    ),
                    "all requests and responses are counted",
                )
                client.settimeout(TIMEOUT)
                while len(received) < down.seen - down.dropped:
                    received.append(client.recv(100))
    return received


def by_stage(path: Path) -> dict[int, list[str]]:
    """Return the lines of each stage, because the lines of the two directions may interleave in any order."""
    stages: dict[int, list[str]] = {}
    for line in path.read_text().splitlines()[1:]:
        stages.setdefault(json.loads(line)["stage"], []).append(line)
    return stages


def test_recording_same_seed_and_replay_are_identical(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one", "two", "three", "other")]
    one = exchange_datagrams(files[0], seed=9)
    two = exchange_datagrams(files[1], seed=9)
    replayed = exchange_datagrams(files[2], replay=files[0], seed=1234)
    exchange_datagrams(files[3], seed=10)
    assert by_stage(files[0]) == by_stage(files[1]) == by_stage(files[2])
    assert one == two == replayed
    assert 20 < len(one) < 90
    assert by_stage(files[3]) != by_stage(files[0])


def test_replay_toxic_added_later_starts_at_same_position(tmp_path: Path) -> None:
    received = []
    for replaying in (False, True):
        replay = {"replay": tmp_path / "record"} if replaying else {"record": tmp_path / "record"}
        with tcp_server(echo) as server, RunningProxies(**replay) as running:  # type: ignore[arg-type]
            proxy = running.proxy("tcp://127.0.0.1:0", server)
            with connect(proxy.listen) as client:
                client.sendall(b"before ")
                assert client.recv(100) == b"before "
                if not replaying:
                    running.add_toxic(proxy, "limit_data", "down:3")
                client.sendall(b"after")
                received.append(read_all(client))
    assert received == [b"aft", b"aft"]


HEAD = (
    '{"impair": 1}\n'
    '{"stage": 1, "proxy": "p", "connection": 1, "direction": "upstream", "toxic": "corrupt", "place": 0}\n'
)


def test_replay_shorter_message_than_recorded(tmp_path: Path) -> None:
    path = tmp_path / "record"
    path.write_text(f'{HEAD}{{"stage": 1, "place": 0, "size": 9, "pieces": [{{"flips": [1, 70]}}]}}\n')
    pipeline = Pipeline(DATAGRAMS, Replay(path).stages("p", 1, "upstream", DATAGRAMS))
    assert list(pipeline.put(0.0, b"ab")) == [b"cb"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "[]",
        '{"impair": 2}',
        '{"impair": 1}\n{"stage": 1}',
        '{"impair": 1}\n{"stage": 1, "place": 0, "size": 1, "pieces": []}',
        '{"impair": 1}\n{"stage": 1, "proxy": "a"}',
        '{"impair": 1}\n5',
        '{"impair": 1}\n{"stage": 1, "proxy": "a", "toxic": "", "place": Infinity}',
        '{"impair": 1}\n' + "[" * 100_000,
        *(
            f'{HEAD}{{"stage": 1, "place": 0, "size": 9, "pieces": [{{{piece}}}]}}'
            for piece in (
                '"delay": -1',
                '"delay": NaN',
                '"start": -1',
                '"start": 2, "stop": 1',
                '"flips": [-9]',
            )
        ),
    ],
)
def test_replay_invalid_recording_names_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "record"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        Replay(path)
    assert "record" in str(caught.value)


def test_recording_unopenable_file_raises(tmp_path: Path) -> None:
    with pytest.raises(SystemCallFailed):
        Replay(tmp_path / "nosuch")
    with pytest.raises(SystemCallFailed):
        RecordingWriter(tmp_path / "nosuch" / "record")
