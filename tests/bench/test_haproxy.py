"""Measure several servers through HAProxy, as in docs/how-to/behind-haproxy.md."""

from __future__ import annotations

import re
import shlex
from contextlib import ExitStack
from pathlib import Path

from click.testing import CliRunner

import bothends
from bothends.bench.results import Faults, decode
from bothends.cli.bench.command import bench
from bothends.events import Event, HandshakeCompleted
from tests.layers.howto import code_blocks
from tests.layers.test_haproxy import open_listener, page_config, start_haproxy
from tests.tools import needs_tool


@needs_tool("haproxy")
def test_haproxy_guide_load_reaches_every_server(tmp_path: Path) -> None:
    events: list[list[Event]] = [[], []]
    with ExitStack() as stack:
        front = open_listener(stack)
        config = page_config("frontend everybody").replace(":12000", f"fd@{front.fileno()}")
        for received, port in zip(events, ("12001", "12002"), strict=True):
            server = bothends.serve(
                "upper", "proxyprotocol+tcp://127.0.0.1:0", engine="epoll", observe=received.append
            )
            config = config.replace(port, str(stack.enter_context(server).endpoints[0].port))
        start_haproxy(stack, tmp_path, config, front)
        (command,) = [
            line for line in "\n".join(code_blocks("behind-haproxy.md", "sh")).splitlines() if "bench" in line
        ]
        words = shlex.split(command.replace(":12000", f":{front.getsockname()[1]}"))[2:]
        result = CliRunner().invoke(bench, [*words, "--duration", "0.5", "--warmup", "0.1", "--json"])
        assert result.exit_code == 0, result.output
    (found,) = decode(result.stdout_bytes, "stdout").entries[0].rounds
    assert found.faults == Faults()
    headers = [
        [each for each in received if isinstance(each, HandshakeCompleted) and each.agreed == "PROXY v2"]
        for received in events
    ]
    # Each connection is announced to one of the servers, with about as many to each: round robin.
    connections = int(re.findall(r"--connections (\d+)", command)[0])
    assert sum(map(len, headers)) >= connections
    assert min(map(len, headers)) >= connections // 2 - 1
