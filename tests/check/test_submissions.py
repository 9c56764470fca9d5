"""Programs as students hand them in: how they are built, which one runs, and what is said about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

from bothends.check.batch.build_recipes import find_recipe
from bothends.check.batch.grading import BatchSettings, JudgedSubmission, judge_all
from bothends.check.batch.source_evidence import find_evidence
from bothends.check.contract import parse
from bothends.check.reports.batch_report import as_csv, as_html
from bothends.check.suites.registry import cases
from bothends.errors import ConfigurationError
from bothends.starters.writing import LANGUAGES, make_starter
from tests.check.helpers import failed_cases, format_failures, judge, write_server_script
from tests.check.test_batch import needs_sandbox
from tests.tools import find_tool, needs_tool

FIRST_CASES: Final = {"tcp": "tcp-one-message", "udp": "udp-one-message"}
SERVE: Final = """
def serve(listener):
    while True:
        client, _ = listener.accept()
        with client, client.makefile("rwb") as file:
            for line in file:
                file.write(line.upper())
                file.flush()
"""
ASKS_FOR_PORT: Final = f"""import socket
{SERVE}
port = int(input("Port? "))
name = input("Name? ")
serve(socket.create_server(("", port)))
"""


def write_files(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def quick_contract(transport: str, server: str = "") -> str:
    """Return the text of a contract with one case only."""
    left_out = [each.id for each in cases(transport) if each.id != FIRST_CASES[transport]]
    framing = 'framing = "lines"\n' if transport == "tcp" else ""
    tables = f'{server}\n[answer]\nservice = "upper"\n'
    return f'transport = "{transport}"\n{framing}leave_out = {json.dumps(left_out)}\n{tables}'


def judge_folder(
    folder: Path, transport: str = "tcp", *, server: str = "", sandbox: bool = False
) -> JudgedSubmission:
    """Build and judge a submission in one case, as a batch does."""
    settings = BatchSettings("server", quick_contract(transport, server), sandbox=sandbox)
    [judged] = judge_all([folder], settings, folder.parent / "out", workers=1)
    return judged


def assert_passes(judged: JudgedSubmission) -> None:
    assert not judged.result.failed, format_failures(judged.result)
    assert judged.result.points == 1


def test_server_that_asks_for_its_port_is_judged(tmp_path: Path) -> None:
    text = quick_contract("tcp", '[server]\ninput = "{port}\\nme"')  # the last line needs no newline
    command = write_server_script(tmp_path, ASKS_FOR_PORT)[:-1]
    result = judge(command, parse(text, "asks.toml", "asks", tmp_path))
    assert not result.failed, format_failures(result)
    silent = judge(command, parse(quick_contract("tcp"), "asks.toml", "asks", tmp_path))
    assert failed_cases(silent) == {"tcp-one-message"}


BOUND_TO_A_NAME: Final = f"""import socket, sys
{SERVE}
{{name}}
serve(socket.create_server((socket.gethostname(), int(sys.argv[1]))))
"""


def test_server_bound_to_another_loopback_address_is_found(tmp_path: Path) -> None:
    """As Debian's /etc/hosts names the machine itself: 127.0.1.1."""
    text = BOUND_TO_A_NAME.format(name="socket.gethostname = lambda: '127.0.1.1'")
    command = write_server_script(tmp_path, text)
    result = judge(command, "upper-tcp", "tcp-one-message", "tcp-sigterm")
    assert not result.failed, format_failures(result)


@needs_sandbox
def test_server_bound_to_its_host_name_is_found_in_the_sandbox(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "one", {"server.py": BOUND_TO_A_NAME.format(name="")})
    assert_passes(judge_folder(folder, sandbox=True))


@pytest.mark.slow
def test_batch_types_what_the_manifest_or_the_contract_says(tmp_path: Path) -> None:
    manifest = 'run = "python3 server.py"\ninput = "{port}\\nme\\n"'
    folder = write_files(tmp_path / "one", {"server.py": ASKS_FOR_PORT, "check.toml": manifest})
    assert_passes(judge_folder(folder))
    assert_passes(judge_folder(folder, server='[server]\ninput = "wrong"'))
    (folder / "check.toml").unlink()
    assert_passes(judge_folder(folder, server='[server]\ninput = "{port}\\nme"'))


RUN: Final = 'run = "./server {port}"\n'
WRONG_MANIFESTS: Final = {  # the text, and the error after "check.toml"
    "": ", key 'run': it is missing; for example, run = \"./server {port}\"",
    'build = ["make"]': ", key 'run': it is missing; for example, run = \"./server {port}\"",
    'run = ["./server", "{port}"]': ", key 'run': it must be a string, and is an array",
    "run = 1": ", key 'run': it must be a string, and is an integer",
    "run = true": ", key 'run': it must be a string, and is a boolean",
    "run = 2026-11-29": ", key 'run': it must be a string, and is a date or a time",
    'run = ""': ", key 'run': a command is empty",
    'run = "./server {PORT}"': ", key 'run': unknown placeholder {PORT}; write {port}",
    'run = "cd bin && ./server {port}"': ", key 'run': no shell runs the command, so && has no meaning "
    "in it; give it to a shell: run = \"sh -c 'cd bin && exec ./server {port}'\"",
    RUN + 'build = "make"': ", key 'build': it must be an array of strings, and is a string",
    RUN + 'build = ["make", 5]': ", key 'build': command 2 must be a string, and is an integer",
    RUN + "input = 5": ", key 'input': it must be a string, and is an integer",
    RUN + f'input = "{"x" * 1001}"': ", key 'input': it has 1,001 characters, and may have 1,000",
    RUN + 'input = "\\u0000"': ", key 'input': it has a NUL",
    RUN + 'input = "{Port}"': ", key 'input': unknown placeholder {Port}; write {port}",
    RUN + 'Run = "./server"': ", key 'Run': unknown key; did you mean 'run'?",
    RUN + "[server]": ", key 'server': unknown key; the keys are build, run, input",
    "run = ./server": ": invalid TOML: Invalid value (at line 1, column 7)",
}


@pytest.mark.parametrize("text", WRONG_MANIFESTS)
def test_wrong_manifest_is_refused_in_one_line_that_names_the_key(text: str, tmp_path: Path) -> None:
    write_files(tmp_path, {"check.toml": text})
    with pytest.raises(ConfigurationError) as refused:
        find_recipe(tmp_path, "server")
    assert str(refused.value).startswith(f"check.toml{WRONG_MANIFESTS[text]}")
    assert "\n" not in str(refused.value)


def test_manifest_may_have_a_bom_and_braces_of_the_program(tmp_path: Path) -> None:
    write_files(tmp_path, {"check.toml": "\ufeffrun = \"./server {port} {Name} a|b ';'\""})
    assert find_recipe(tmp_path, "server").run == ("./server", "{port}", "{Name}", "a|b", ";")


def test_batch_names_the_manifest_as_the_cause(tmp_path: Path) -> None:
    judged = judge_folder(write_files(tmp_path / "one", {"server.c": "", "check.toml": "run = 1"}))
    [outcome] = judged.result.outcomes
    assert outcome.happened.startswith("check.toml, key 'run': it must be a string, and is an integer")
    assert outcome.likely_cause == "a mistake in its check.toml"


UDP_SERVER: Final = """# {other}
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", int(sys.argv[1])))
while True:
    data, peer = s.recvfrom(65535)
    s.sendto(data.upper(), peer)
"""
TCP_SERVER: Final = f"""# {{other}}
import socket, sys
{SERVE}
serve(socket.create_server(("", int(sys.argv[1]))))
"""
UDP_CLIENT: Final = """# {other}
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(input().encode(), (sys.argv[1], int(sys.argv[2])))
print(s.recvfrom(65535)[0].decode())
"""
TCP_CLIENT: Final = """# {other}
from socket import *
s = socket(AF_INET, SOCK_STREAM)
s.connect(("localhost", 12000))
"""
PROGRAMS: Final = {
    ("tcp", "server"): TCP_SERVER, ("udp", "server"): UDP_SERVER,
    ("tcp", "client"): TCP_CLIENT, ("udp", "client"): UDP_CLIENT,
}  # fmt: skip
NAMINGS: Final = {
    "as in Kurose and Ross": {
        ("tcp", "server"): "TCPServer.py", ("udp", "server"): "UDPServer.py",
        ("tcp", "client"): "TCPClient.py", ("udp", "client"): "UDPClient.py",
    },
    "folders": {
        ("tcp", "server"): "tcp/server.py", ("udp", "server"): "udp/server.py",
        ("tcp", "client"): "tcp/client.py", ("udp", "client"): "udp/client.py",
    },
    "numbers": {
        ("tcp", "server"): "ex1.py", ("udp", "server"): "ex2.py",
        ("tcp", "client"): "ex3.py", ("udp", "client"): "ex4.py",
    },
    "misleading order": {
        ("tcp", "server"): "server.py", ("udp", "server"): "server2.py",
        ("tcp", "client"): "a.py", ("udp", "client"): "b.py",
    },
}  # fmt: skip


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("role", ["server", "client"])
def test_program_of_the_transport_and_role_is_chosen(
    role: str, transport: str, naming: str, tmp_path: Path
) -> None:
    names = NAMINGS[naming]
    misleading = "not SOCK_DGRAM, SOCK_STREAM, listen() or connect()"  # in a comment
    write_files(tmp_path, {names[key]: text.format(other=misleading) for key, text in PROGRAMS.items()})
    found = find_recipe(tmp_path, role, transport)
    assert found.run[1] == names[transport, role]
    assert found.remark == f"chose {names[transport, role]} of 2 {role}s"


STARTER_KINDS: Final = [(language, style) for language in LANGUAGES for style in ("robust", "minimal")]


@pytest.mark.parametrize(("language", "style"), STARTER_KINDS)
@pytest.mark.parametrize("transport", ["tcp", "udp", "unix"])
@pytest.mark.parametrize("role", ["server", "client"])
def test_evidence_of_starters(role: str, transport: str, language: str, style: str, tmp_path: Path) -> None:
    made = make_starter(role, language, transport, style=style)
    write_files(tmp_path, {made.file: made.text})
    found = find_evidence(tmp_path / made.file)
    assert (set(found.transports), set(found.roles)) == ({transport}, {role})


OTHER_SOURCES: Final = {
    "socketserver": ("tcp", "server", "a.py", "socketserver.TCPServer(('', 0), Handler).serve_forever()"),
    "asyncio": ("tcp", "client", "a.py", "reader, writer = await asyncio.open_connection('h', 1)"),
    "default kind": ("tcp", "server", "a.py", "s = socket.socket()\ns.bind(('', 1))"),
    "Node.js": ("tcp", "server", "a.js", "require('net').createServer(c => c.pipe(c)).listen(1)"),
    "Node.js, UDP": ("udp", "server", "a.js", "const s = require('dgram').createSocket('udp4'); s.bind(1)"),
    "Node.js, UDP client": ("udp", "client", "a.js", "require('dgram').createSocket('udp4').send('x', 1)"),
    "Go": ("tcp", "server", "a.go", 'l, err := net.Listen("tcp", ":1")'),
    "Go, UDP": ("udp", "server", "a.go", 'c, err := net.ListenPacket("udp", ":1")'),
    "Go, UDP client": ("udp", "client", "a.go", 'c, err := net.Dial("udp", "h:1")'),
    "Java, UDP client": ("udp", "client", "A.java", "DatagramSocket s = new DatagramSocket();"),
    "Java, UDP": ("udp", "server", "A.java", "DatagramSocket s = new DatagramSocket(port);"),
    "Rust": ("tcp", "server", "a.rs", 'let l = TcpListener::bind("0.0.0.0:1")?;'),
}


@pytest.mark.parametrize("kind", OTHER_SOURCES)
def test_evidence_of_other_sources(kind: str, tmp_path: Path) -> None:
    transport, role, name, text = OTHER_SOURCES[kind]
    write_files(tmp_path, {name: text})
    found = find_evidence(tmp_path / name)
    assert (set(found.transports), set(found.roles)) == ({transport}, {role})


def test_evidence_of_unclosed_comments_takes_linear_time(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.c": "/*" * 500_000, "b.py": "'" * 300_000 + '\n"""' * 200_000})
    assert find_evidence(tmp_path / "a.c", tmp_path / "b.py").roles == set()


def test_module_with_the_sockets_is_not_run(tmp_path: Path) -> None:
    module = "import socket\ndef start(port):\n    return socket.create_server(('', port))\n"
    main = "import sys\nfrom net import start\nif __name__ == '__main__':\n    start(int(sys.argv[1]))\n"
    write_files(
        tmp_path, {"net.py": module, "prog.py": main, "node_modules/x/server.js": "net.createServer()"}
    )
    found = find_recipe(tmp_path, "server")
    assert (found.run[1], found.remark) == ("prog.py", "")


def test_batch_says_which_server_it_chose(tmp_path: Path) -> None:
    servers = {"TCPServer.py": TCP_SERVER.format(other=""), "UDPServer.py": UDP_SERVER.format(other="")}
    judged = judge_folder(write_files(tmp_path / "one", dict(servers)), "udp")
    assert_passes(judged)
    assert judged.remark == "chose UDPServer.py of 2 servers"
    assert "chose UDPServer.py of 2 servers" in as_html([judged], "upper-udp")
    assert ",chose UDPServer.py of 2 servers," in as_csv([judged])


C_SERVER: Final = """
#include <arpa/inet.h>
#include <stdlib.h>
#include <unistd.h>
void answer(int client);
int main(int argc, char *argv[])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[argc - 1]))};
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 9))
        return 1;
    for (;;) {
        int client = accept(listener, 0, 0);
        answer(client);
        close(client);
    }
}
"""
C_PART: Final = """
#include <ctype.h>
#include <unistd.h>
void answer(int client)
{
    char c;
    while (read(client, &c, 1) == 1) {
        c = toupper(c);
        write(client, &c, 1);
    }
}
"""
C_CLIENT: Final = """
#include <arpa/inet.h>
int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    return connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&address, sizeof address);
}
"""
C_SOURCES: Final = {"src/main.c": C_SERVER, "src/part.c": C_PART, "src/other.c": C_CLIENT}
MAKE_ALL: Final = """all: a b
a: src/other.c
\tcc -o a src/other.c
b: src/main.c src/part.c
\tcc -w -o b src/main.c src/part.c
"""
CMAKE: Final = """cmake_minimum_required(VERSION 3.10)
project(homework C)
add_executable(talker src/other.c)
add_executable(app src/main.c src/part.c)
"""
NODE_SERVER: Final = """
const net = require('net')
const serve = c => c.on('data', d => c.write(d.toString('latin1').toUpperCase(), 'latin1'))
net.createServer(serve).listen(process.argv[2])
"""
needs_make = (needs_tool("make"), needs_tool("cc"))
PROJECTS: Final = {
    "make": pytest.param("make", {**C_SOURCES, "Makefile": MAKE_ALL}, marks=needs_make),
    "make, with an old program": pytest.param(
        "make", {**C_SOURCES, "makefile": MAKE_ALL, "server": b"\x7fELF of another machine"}, marks=needs_make
    ),
    "make, only run": pytest.param(
        "make", {"x.py": TCP_SERVER, "Makefile": "run:\n\tpython3 x.py $(PORT)\n"}, marks=needs_tool("make")
    ),
    "make, nothing to build": pytest.param(
        "make",
        {"x.py": TCP_SERVER, "Makefile": "PORT = 1\nall:\n\t@true\nrun:\n\tpython3 x.py ${PORT}\n"},
        marks=needs_tool("make"),
    ),
    "CMake": pytest.param(
        "CMake", {**C_SOURCES, "CMakeLists.txt": CMAKE}, marks=(needs_tool("cmake"), needs_tool("cc"))
    ),
    "CMake, with a cache of another machine": pytest.param(
        "CMake",
        {**C_SOURCES, "CMakeLists.txt": CMAKE, "build/CMakeCache.txt": "CMAKE_HOME_DIRECTORY:INTERNAL=/x\n"},
        marks=(needs_tool("cmake"), needs_tool("cc")),
    ),
    "package.json, start": pytest.param(
        "Node.js",
        {"lib/a.js": NODE_SERVER, "b.js": "", "package.json": '{"scripts": {"start": "node lib/a.js"}}'},
        marks=needs_tool("node"),
    ),
    "package.json, a shell script": pytest.param(
        "Node.js",
        {"a.js": NODE_SERVER, "package.json": '{"scripts": {"start": "MODE=x node \'a.js\'"}}'},
        marks=needs_tool("node"),
    ),
    "package.json, main": pytest.param(
        "Node.js", {"z.js": NODE_SERVER, "a.js": "", "package.json": b'\xef\xbb\xbf{"main": "z.js"}'},
        marks=needs_tool("node"),
    ),
}  # fmt: skip


@pytest.mark.spread("language", "files", one_in=3)
@pytest.mark.parametrize(("language", "files"), PROJECTS.values(), ids=PROJECTS)
def test_project_is_built_with_its_tool(language: str, files: dict[str, str | bytes], tmp_path: Path) -> None:
    folder = write_files(tmp_path / "one", files)
    for path in folder.glob("server"):
        path.chmod(0o755)
    judged = judge_folder(folder)
    assert_passes(judged)
    assert (judged.language, judged.remark) == (language, "")


@pytest.mark.slow
@needs_sandbox
@pytest.mark.skipif(not find_tool("cmake"), reason="cmake is not installed")
def test_project_is_built_in_the_sandbox(tmp_path: Path) -> None:
    judged = judge_folder(write_files(tmp_path / "one", {**C_SOURCES, "CMakeLists.txt": CMAKE}), sandbox=True)
    assert_passes(judged)


@needs_tool("make")
def test_submission_whose_makefile_fails_is_built_by_its_language(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"server.py": TCP_SERVER, "Makefile": "all:\n\tnosuchcompiler x.c\n"}
    judged = judge_folder(write_files(tmp_path / "one", files))
    assert_passes(judged)
    assert judged.remark == ("the build failed: make exited with status 2; built as Python instead")


@needs_tool("make")
def test_makefile_without_a_program_fails_with_the_tools_message(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "one", {"Makefile": "all:\n\tnosuchcompiler x.c\n"})
    [outcome] = judge_folder(folder).result.outcomes
    assert outcome.happened == "the build failed: make exited with status 2"
    assert "nosuchcompiler" in outcome.stderr_tail
    write_files(folder, {"Makefile": "all:\n\t@true\n"})
    [outcome] = judge_folder(folder).result.outcomes
    assert outcome.happened == "the build failed: make made no program"
