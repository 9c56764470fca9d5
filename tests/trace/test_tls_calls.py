"""TLS in plain text: joined to the calls that carried it, and seen of real programs with either source."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import pytest

from bothends.errors import Unavailable
from bothends.trace.capture.tls_secrets import SecretsFile
from bothends.trace.capture.tls_source import NOT_CALLED, TLS_CALLS, TLS_READS, TlsRecord, TlsSource
from bothends.trace.correlation.correlator import Correlator
from bothends.trace.correlation.tls_calls import TlsMatcher
from bothends.trace.model import Call, Point, ProcessEvent, Socket, Trace, TracedProcess
from bothends.trace.tls_observer import TlsObserver
from tests.interop.bothends_servers import BOTHENDS
from tests.interop.running import ENVIRONMENT, TIMEOUT, Running
from tests.layers.keys import CertificateFiles
from tests.tools import find_tool, needs_tool
from tests.trace import go_programs
from tests.trace.running import python_command
from tests.trace.sources import source_option

RECORD: Final = bytes.fromhex("1703030020") + bytes(32)
CHANGE_AND_RECORD: Final = bytes.fromhex("140303000101") + RECORD
HELLO: Final = bytes.fromhex("1603010020") + bytes(32)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    return CertificateFiles(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def probes() -> None:
    """Skip the test where libssl cannot be observed."""
    try:
        TlsSource().close()
    except Unavailable as error:
        pytest.skip(str(error))


# Joining ---------------------------------------------------------------------------------------------


class Scene:
    """A process with two connections, its calls, and the matcher that sees them."""

    def __init__(self) -> None:
        self.trace = Trace()
        self.trace.processes[1] = TracedProcess(1, 4711, "client")
        for number in (1, 2):
            self.trace.sockets[number] = Socket(number, "inet", "stream")
        self.matcher = TlsMatcher(self.trace)
        list(self.matcher.observe(Point(ProcessEvent(1, 0, 1, "began", "process 4711"))))

    def call(self, number: int, name: str, at: int, until: int, data: bytes, socket: int = 1) -> list[int]:
        """Add a call. Returns the numbers of the calls of libssl that are linked to it late."""
        call = Call(number, 1, 4711, name, at, until, result=len(data), descriptor=socket + 2, socket=socket)
        call.size, call.data = len(data), data
        return [each.number for each, _, _ in self.matcher.observe(Point(call, is_end=True))]

    def record(
        self, number: int, function: str, at: int, until: int, data: bytes = b"text", ssl: int = 9
    ) -> tuple[int | None, list[tuple[int, int]]]:
        """Add a record. Returns its socket, and its links."""
        size = len(data) if data else 5
        found = self.matcher.add(TlsRecord(function, 4711, 4711, at, until, ssl, size, data), number)
        assert found is not None
        call, links = found
        assert (call.number, call.size, call.data) == (number, len(data), data)
        return call.socket, [(each.cause, each.effect) for each in links]


def test_calls_within_ssl_write_and_ssl_read_carry_their_bytes() -> None:
    scene = Scene()
    scene.call(1, "sendto", 100_000, 110_000, HELLO)
    scene.call(2, "sendto", 200_000, 210_000, RECORD)
    assert scene.record(10, "SSL_write", 190_000, 220_000) == (1, [(10, 2)])
    scene.call(3, "read", 300_000, 310_000, RECORD[:5])
    scene.call(4, "read", 320_000, 330_000, RECORD[5:])
    assert scene.record(11, "SSL_read_ex", 290_000, 340_000) == (1, [(3, 11), (4, 11)])


def test_handshake_sent_within_ssl_write_does_not_carry_its_bytes() -> None:
    scene = Scene()
    scene.call(1, "write", 100_000, 110_000, HELLO)
    scene.call(2, "write", 120_000, 130_000, RECORD)
    assert scene.record(10, "SSL_write", 90_000, 140_000) == (1, [(10, 2)])


def test_bytes_that_were_read_ahead_are_those_of_the_last_receive_on_the_same_socket() -> None:
    scene = Scene()
    scene.call(1, "read", 100_000, 110_000, RECORD)
    assert scene.record(10, "SSL_read", 90_000, 120_000) == (1, [(1, 10)])
    scene.call(2, "read", 200_000, 210_000, RECORD, socket=2)
    assert scene.record(11, "SSL_read", 300_000, 310_000) == (1, [])
    scene.call(3, "read", 400_000, 410_000, RECORD)
    assert scene.record(12, "SSL_read", 500_000, 510_000) == (1, [(3, 12)])


def test_bytes_in_memory_are_carried_by_the_next_send_of_application_data() -> None:
    scene = Scene()
    assert scene.record(10, "SSL_write_ex", 100_000, 110_000) == (None, [])
    assert scene.call(1, "sendto", 120_000, 130_000, b"something else") == []
    assert scene.call(2, "sendto", 140_000, 150_000, RECORD) == [10]
    assert scene.call(3, "sendto", 160_000, 170_000, RECORD) == []


def test_bytes_in_memory_may_have_been_sent_before_their_record_is_read() -> None:
    scene = Scene()
    scene.call(1, "sendto", 50_000, 60_000, RECORD)
    scene.call(2, "sendto", 120_000, 130_000, HELLO)
    scene.call(3, "sendto", 140_000, 150_000, CHANGE_AND_RECORD, socket=2)
    assert scene.record(10, "SSL_write_ex", 100_000, 110_000) == (2, [(10, 3)])


def test_ssl_set_fd_names_the_socket() -> None:
    scene = Scene()
    scene.call(1, "read", 100_000, 110_000, HELLO, socket=2)
    assert scene.matcher.add(TlsRecord("SSL_set_fd", 4711, 4711, 120_000, 120_000, 9, 4, b""), 9) is None
    assert scene.record(10, "SSL_write", 200_000, 210_000) == (2, [])


def test_process_that_only_encrypts_otherwise_is_one_that_is_not_seen() -> None:
    scene = Scene()
    scene.call(1, "sendto", 100_000, 110_000, b"plain text")
    assert scene.matcher.processes_not_seen() == []
    scene.call(2, "sendto", 200_000, 210_000, HELLO)
    assert scene.matcher.processes_not_seen() == [1]
    scene.record(10, "SSL_write", 300_000, 310_000)
    assert scene.matcher.processes_not_seen() == []


def test_secrets_are_whole_lines_of_the_format(tmp_path: Path) -> None:
    path = tmp_path / "secrets"
    path.write_text("CLIENT_RANDOM aa bb\n")
    secrets = SecretsFile(path)
    assert secrets.read() == []  # of an earlier program
    with path.open("a") as file:
        file.write("# a comment\nCLIENT_HANDSHAKE_TRAFFIC_SECRET 0a0b 0c0d\r\nnot one\nSERVER_TRAFFIC")
        file.flush()
        assert secrets.read() == ["CLIENT_HANDSHAKE_TRAFFIC_SECRET 0a0b 0c0d"]
        file.write("_SECRET_0 01 02\n")
        file.flush()
        assert secrets.read() == ["SERVER_TRAFFIC_SECRET_0 01 02"]
    path.unlink()
    assert secrets.read() == []


# Real programs ---------------------------------------------------------------------------------------


SERVER: Final = """
import contextlib, socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
        request = connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nhello\\n")
        with contextlib.suppress(OSError):
            connection.unwrap()
"""


def python_server(keys: CertificateFiles) -> list[str]:
    return [*python_command(SERVER), str(keys.server)]


def traced(folder: Path, server: Sequence[str], client: Sequence[str], *more: str) -> list[dict[str, Any]]:
    """Trace a server and a client with --tls. Returns the calls that were seen, as `query` answers."""
    saved = folder / "run.trace"
    command = [*BOTHENDS, "trace", "--tls", *source_option(), "--save", str(saved), *more]
    command += ["--server", shlex.join(server), "--client", shlex.join(client)]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    assert saved.stat().st_mode & 0o777 == 0o600
    return ask(saved, "calls")


def ask(saved: Path, *question: str) -> list[dict[str, Any]]:
    answer = subprocess.run(
        [*BOTHENDS, "query", str(saved), *question, "--json"],
        capture_output=True,
        timeout=TIMEOUT,
        check=True,
    )
    rows: list[dict[str, Any]] = json.loads(answer.stdout)["rows"]
    return rows


def plaintext(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return what was said, as in "client write HTTP/1.1 GET /"."""
    found = [row for row in rows if row["call"] in TLS_CALLS]
    found.sort(key=lambda row: row["at_ns"] + (row["took_ns"] if row["call"] in TLS_READS else 0))
    return [
        f"{row['process'].split()[0]} {'read' if row['call'] in TLS_READS else 'write'} {row['said']}"
        for row in found
    ]


SPOKEN: Final = [
    "client write HTTP/1.1 GET /secret",
    "server read HTTP/1.1 GET /secret",
    "server write HTTP/1.1 200 OK",
    "client read HTTP/1.1 200 OK",
]


@pytest.mark.spread("call_source", one_in=2)
@pytest.mark.usefixtures("probes")
@needs_tool("curl")
def test_plaintext_of_python_and_curl_is_drawn_where_it_was_encrypted(
    call_source: str, keys: CertificateFiles, tmp_path: Path
) -> None:
    packets = tmp_path / "run.pcapng"
    client = ["curl", "-s", "--cacert", str(keys.ca), "https://127.0.0.1:{port}/secret"]
    rows = traced(tmp_path, python_server(keys), client, "--pcapng", str(packets))
    assert plaintext(rows) == SPOKEN
    write = next(row for row in rows if row["call"].startswith("SSL_write"))
    effects = ask(tmp_path / "run.trace", "effects", str(write["event"]))
    assert {row["text"].partition("(")[0] for row in effects if row["distance"] == 1} == {"sendto"}
    received = [row for row in effects if row["process"].startswith("server") and row["kind"] == "call"]
    assert [row["said"] for row in received if row["text"].startswith("TLS read")] == [SPOKEN[0][13:]]
    assert "TLS ClientHello" in {row["said"] for row in rows}  # an address is no server name
    assert packets.stat().st_mode & 0o777 == 0o600
    if find_tool("tshark"):
        assert decrypted(packets, rows) == ["GET /secret HTTP/1.1", "HTTP/1.1 200 OK"]
        again = tmp_path / "again.pcapng"
        command = [*BOTHENDS, "trace", "--open", str(tmp_path / "run.trace"), "--pcapng", str(again)]
        subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=True)
        assert decrypted(again, rows) == ["GET /secret HTTP/1.1", "HTTP/1.1 200 OK"]


def decrypted(packets: Path, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the HTTP messages that tshark finds in packets with the secrets that are in the file."""
    port = next(
        found[1] for row in rows if (found := re.match(r"connect\(\d+, 127.0.0.1:(\d+)", row["text"]))
    )
    command = ["tshark", "-r", str(packets), "-d", f"tcp.port=={port},tls", "-Y", "http"]
    command += ["-T", "fields", "-e", "http.request.line", "-e", "_ws.col.Info"]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=True)
    lines = done.stdout.decode().splitlines()
    return [line.rpartition("\t")[2].split(" ,")[0].strip() for line in lines]


ASYNCIO_CLIENT: Final = """
import asyncio, ssl, sys

async def main():
    context = ssl.create_default_context(cafile=sys.argv[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]), ssl=context)
    writer.write(b"GET /secret HTTP/1.1\\r\\n\\r\\n")
    await reader.read(100)
    writer.close()

asyncio.run(main())
"""
NODE_CLIENT: Final = """
const fs = require("fs"), https = require("https");
https.get({host: "127.0.0.1", port: +process.argv[2], path: "/secret",
           ca: fs.readFileSync(process.argv[1])}, response => response.resume());
"""


def client_command(kind: str, keys: CertificateFiles) -> list[str]:
    if kind == "asyncio":
        return [*python_command(ASYNCIO_CLIENT), str(keys.ca), "{port}"]
    if kind == "node":
        return ["node", "-e", NODE_CLIENT, str(keys.ca), "{port}"]
    request = "printf 'GET /secret HTTP/1.1\\r\\n\\r\\n'"
    return ["sh", "-c", f"{request} | openssl s_client -quiet -ign_eof -connect 127.0.0.1:{{port}}"]


@pytest.mark.slow
@pytest.mark.usefixtures("probes")
@pytest.mark.parametrize("kind", ["asyncio", "node", "openssl"])
def test_plaintext_of_programs_is_seen(
    kind: str, call_source: str, keys: CertificateFiles, tmp_path: Path
) -> None:
    if kind != "asyncio" and not find_tool(kind):
        pytest.skip(f"{kind} is not installed")
    rows = traced(tmp_path, python_server(keys), client_command(kind, keys))
    assert plaintext(rows) == SPOKEN
    sockets = {row["connection"] for row in rows if row["call"].startswith("SSL_")}
    assert len(sockets) == 1
    assert None not in sockets


@pytest.mark.spread("call_source", one_in=2)
@pytest.mark.usefixtures("probes")
@needs_tool("wget")
def test_plaintext_of_gnutls_is_seen(call_source: str, keys: CertificateFiles, tmp_path: Path) -> None:
    linked = subprocess.run(["ldd", find_tool("wget") or ""], capture_output=True, check=False).stdout
    if b"libgnutls" not in linked:
        pytest.skip("wget uses another library here")
    client = ["wget", "-q", "-O", "/dev/null", "--no-config", f"--ca-certificate={keys.ca}"]
    rows = traced(tmp_path, python_server(keys), [*client, "https://localhost:{port}/secret"])
    # It reads the header byte by byte, or as much as there is.
    assert plaintext(rows)[:4] == SPOKEN
    calls = {row["call"] for row in rows if row["call"] in TLS_CALLS}
    assert {"gnutls_record_send", "gnutls_record_recv"} <= calls
    write = next(row for row in rows if row["call"] == "gnutls_record_send")
    effects = ask(tmp_path / "run.trace", "effects", str(write["event"]))
    assert [row["process"].split()[0] for row in effects if row["text"].startswith("TLS read")] == ["server"]


@pytest.mark.usefixtures("probes")
def test_reason_why_no_plaintext_is_seen_is_that_of_the_process() -> None:
    code = "{}; print('here', flush=True); input()"
    with (
        TlsSource() as source,
        Running(python_command(code.format("pass"))) as without,
        Running(python_command(code.format("import ssl"))) as with_library,
    ):
        for program in (without, with_library):
            program.line(b"here")
        source.look([without.process.pid, with_library.process.pid])
        assert source.why_not_seen(without.process.pid) == "it maps neither libssl nor libgnutls"
        assert source.why_not_seen(with_library.process.pid) == NOT_CALLED


GO_PROGRAM: Final = """
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Println("here")
	os.Stdin.Read(make([]byte, 1))
}
"""


@pytest.mark.slow
@pytest.mark.usefixtures("probes")
@needs_tool("go")
def test_program_of_go_has_tls_of_its_own(tmp_path: Path) -> None:
    program = go_programs.build(GO_PROGRAM, tmp_path)
    with TlsSource() as source, Running([program]) as running:
        running.line(b"here")
        source.look([running.process.pid])
        assert source.why_not_seen(running.process.pid) == "Go has its own TLS"


class SourceWithReasons:
    """What `TlsSource` says of processes, without probes."""

    def __init__(self, reasons: Mapping[int, str]) -> None:
        self.why_not_seen = reasons.__getitem__

    def count_lost(self) -> int:
        return 0


def test_notes_name_the_processes_not_seen_by_reason(tmp_path: Path) -> None:
    reasons = {4711: "Go has its own TLS", 4712: "Java has its own TLS", 4713: "Go has its own TLS"}
    trace = Trace()
    trace.sockets[1] = Socket(1, "inet", "stream")
    observer = TlsObserver(cast(TlsSource, SourceWithReasons(reasons)), SecretsFile(tmp_path / "secrets"))
    observer.begin(trace)
    for number, pid in enumerate(reasons, 1):
        trace.processes[number] = TracedProcess(number, pid, f"client {number}")
        call = Call(number, number, pid, "sendto", 0, 10, result=len(HELLO), descriptor=3, socket=1)
        call.size, call.data = len(HELLO), HELLO
        observer.observe(Point(call, is_end=True), cast(Correlator, None))
    assert list(observer.notes()) == [
        "TLS of client 1, client 3 is drawn encrypted only: Go has its own TLS",
        "TLS of client 2 is drawn encrypted only: Java has its own TLS",
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("probes")
@needs_tool("curl")
@needs_tool("nginx")
def test_plaintext_of_nginx_is_seen(call_source: str, keys: CertificateFiles, tmp_path: Path) -> None:
    path = tmp_path / "nginx.conf"
    path.write_text(
        f"""
daemon off; master_process off; pid {tmp_path}/pid; error_log stderr crit;
events {{}}
http {{
    access_log off;
    client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/proxy;
    fastcgi_temp_path {tmp_path}/fastcgi; uwsgi_temp_path {tmp_path}/uwsgi; scgi_temp_path {tmp_path}/scgi;
    server {{
        listen unix:{tmp_path}/socket ssl;
        ssl_certificate {keys.server}; ssl_certificate_key {keys.server};
        location / {{ return 200 "hello"; }}
    }}
}}
"""
    )
    client = ["curl", "-s", "--cacert", str(keys.ca), "--unix-socket", str(tmp_path / "socket")]
    client += ["https://localhost/secret"]
    rows = traced(tmp_path, [find_tool("nginx") or "", "-c", str(path), "-p", str(tmp_path)], client)
    assert plaintext(rows) == SPOKEN
    assert "TLS ClientHello for localhost" in {row["said"] for row in rows}


@pytest.mark.usefixtures("probes", "bpf")
@needs_tool("curl")
def test_program_with_a_library_of_its_own_that_runs_already_is_seen(
    keys: CertificateFiles, tmp_path: Path
) -> None:
    with TlsSource() as source:
        library = next(path for path in source.attached if "libssl" in path)
    shutil.copy(library, tmp_path / Path(library).resolve().name)
    saved = tmp_path / "run.trace"
    with Running(python_server(keys), env={**ENVIRONMENT, "LD_LIBRARY_PATH": str(tmp_path)}) as server:
        port = server.line(rb"(\d+)").group(1).decode()
        assert str(tmp_path) in Path(f"/proc/{server.process.pid}/maps").read_text()
        trace = [*BOTHENDS, "trace", "--tls", "--pid", str(server.process.pid), "--save", str(saved)]
        with Running([*trace, "--with", "bpf", "--calls-only"]) as tracing:
            tracing.text(b"accept")
            client = ["curl", "-s", "--cacert", str(keys.ca), f"https://127.0.0.1:{port}/secret"]
            subprocess.run(client, capture_output=True, timeout=TIMEOUT, check=True)
            server.process.wait(TIMEOUT)
            tracing.process.wait(TIMEOUT)
    role = server_role(saved)
    assert plaintext(ask(saved, "calls")) == [line.replace("server", role) for line in SPOKEN[1:3]]


def server_role(saved: Path) -> str:
    """Return the name of the only process of a trace."""
    return str(ask(saved, "processes")[0]["process"]).split()[0]


@needs_tool("strace")
def test_without_the_probes_one_line_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from bothends.cli.trace.output import open_tls
    from bothends.trace.capture import tls_source

    def refuse() -> Any:
        raise Unavailable("see", "TLS in plain text", 1, "run as root")

    monkeypatch.setattr(tls_source, "_open_probes", refuse)
    with open_tls() as tls:
        assert not tls.has_source
        assert Path(tls.variables["SSLKEYLOGFILE"]).stat().st_mode & 0o777 == 0o600
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "TLS is drawn encrypted" in lines[0]
    assert "run as root" in lines[0]
