"""A load through HAProxy to several servers, as docs/how-to/behind-haproxy.md says."""

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
        for heard, written in zip(events, ("12001", "12002"), strict=True):
            server = bothends.serve(
                "upper", "proxyprotocol+tcp://127.0.0.1:0", engine="epoll", observe=heard.append
            )
            config = config.replace(written, str(stack.enter_context(server).endpoints[0].port))
        start_haproxy(stack, tmp_path, config, front)
        (command,) = [
            line for line in "\n".join(code_blocks("behind-haproxy.md", "sh")).splitlines() if "bench" in line
        ]
        words = shlex.split(command.replace(":12000", f":{front.getsockname()[1]}"))[2:]
        done = CliRunner().invoke(bench, [*words, "--duration", "0.5", "--warmup", "0.1", "--json"])
        assert done.exit_code == 0, done.output
    (found,) = decode(done.stdout_bytes, "here").entries[0].rounds
    assert found.faults == Faults()
    told = [
        [each for each in heard if isinstance(each, HandshakeCompleted) and each.agreed == "PROXY v2"]
        for heard in events
    ]
    # Each of ours was announced to one server or the other; with as many to each, as HAProxy takes turns.
    connections = int(re.findall(r"--connections (\d+)", command)[0])
    assert sum(map(len, told)) >= connections
    assert min(map(len, told)) >= connections // 2 - 1
