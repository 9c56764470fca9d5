"""Pairs with many calls from many threads and processes: with both sources, each call as in strace's log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from bothends.sockets.free_port import free_port
from bothends.trace.capture.calls import WAITING
from bothends.trace.capture.strace import OPTIONS
from bothends.trace.model import Point, Trace
from bothends.trace.session import TraceSession
from tests.tools import needs_tool
from tests.trace import go_programs
from tests.trace.running import run_traced
from tests.trace.test_against_others import RecordingParser, compare_calls

# Waits for no socket, or for none yet, are not recognized as such in the log: Go's for a pipe of its own,
# PostgreSQL's for its latches and the postmaster.
LEFT_OUT: Final = WAITING | {"epoll_ctl"}
pytestmark = [needs_tool("strace"), pytest.mark.slow, pytest.mark.timeout(300)]

GO_SERVER: Final = """
package main

import (
	"bufio"
	"fmt"
	"net"
)

func main() {
	listener, _ := net.Listen("tcp", "127.0.0.1:0")
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer connection.Close()
			lines := bufio.NewScanner(connection)
			for lines.Scan() {
				fmt.Fprintf(connection, "%s\\n", lines.Text())
			}
		}()
	}
}
"""
GO_CLIENT: Final = """
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"sync"
)

func main() {
	var all sync.WaitGroup
	for client := 0; client < 8; client++ {
		all.Add(1)
		go func() {
			defer all.Done()
			connection, err := net.Dial("tcp", "127.0.0.1:"+os.Args[1])
			if err != nil {
				panic(err)
			}
			defer connection.Close()
			answers := bufio.NewScanner(connection)
			for request := 0; request < 50; request++ {
				fmt.Fprintf(connection, "request %d\\n", request)
				answers.Scan()
			}
		}()
	}
	all.Wait()
}
"""


def run_with_logs(
    source: str, server: Sequence[str], client: Sequence[str], folder: Path
) -> tuple[Trace, dict[str, str]]:
    """Trace a pair. Returns the trace, and strace's log of each program, of the same run."""
    if source == "strace":
        points: list[Point] = []
        session = TraceSession(points.append)
        programs = {
            "server": session.add_server("server", server),
            "client": session.add_client("client", client, inherit_stdin=False),
        }
        parsers = {role: RecordingParser() for role in programs}
        for role, program in programs.items():
            program.parser = parsers[role]
        session.run()
        return session.trace, {role: parser.log.decode() for role, parser in parsers.items()}
    paths = {role: folder / f"{role}.strace" for role in ("server", "client")}
    under_strace = {role: ["strace", *OPTIONS, "-o", str(path), "--"] for role, path in paths.items()}
    trace = run_traced(
        [*under_strace["client"], *client], server=[*under_strace["server"], *server], packets=False
    )
    return trace, {role: path.read_text() for role, path in paths.items()}


@needs_tool("go")
def test_calls_of_a_pair_in_go(call_source: str, tmp_path: Path) -> None:
    built = {}
    for role, source in (("server", GO_SERVER), ("client", GO_CLIENT)):
        (tmp_path / role).mkdir()
        built[role] = go_programs.build(source, tmp_path / role)
    trace, logs = run_with_logs(call_source, [built["server"]], [built["client"], "{port}"], tmp_path)
    # 8 connections with 50 requests, each written and read at both ends
    assert compare_calls(trace, logs, LEFT_OUT, {"client"}) >= 8 * 50 * 4


@needs_tool("pgbench")
@needs_tool("initdb")
@needs_tool("setpriv")
def test_calls_of_postgresql_under_load(
    call_source: str, postgres_command: list[str], tmp_path: Path
) -> None:
    port = free_port()
    options = f"-h 127.0.0.1 -p {port} -U postgres"
    load = (
        f"until pgbench -q -i {options} postgres 2>/dev/null; do sleep 0.2; done;"
        f" exec pgbench -n -c 4 -j 2 -t 25 -S {options} postgres"
    )
    server = [*postgres_command, "-p", str(port)]
    trace, logs = run_with_logs(call_source, server, ["sh", "-c", load], tmp_path)
    assert compare_calls(trace, logs, LEFT_OUT, {"client"}) >= 4 * 25 * 4
