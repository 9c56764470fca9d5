"""Configuration: every key does what the option does, and every mistake is told with its place."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from bothends.configuration import ServeOptions, parse, read
from bothends.endpoints import Endpoint
from bothends.engines.base import Limits
from bothends.errors import ConfigurationError, SystemCallFailed
from bothends.layers import TlsSettings

FOLDER = Path("/etc/bothends")
TCP = Endpoint.parse("tcp://:12000")
MINIMAL = '[[serve]]\nservice = "upper"\nendpoints = ["tcp://:12000"]\n'


def options(text: str) -> list[ServeOptions]:
    return parse(text, "servers.toml", FOLDER)


def parse_error(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        options(text)
    assert str(caught.value).startswith("servers.toml")
    return str(caught.value).removeprefix("servers.toml").lstrip(",: ")


def test_minimal_configuration_uses_defaults() -> None:
    assert options(MINIMAL) == [ServeOptions(service="upper", endpoints=(TCP,))]


def test_every_key_is_parsed() -> None:
    [found] = options(
        """
        [[serve]]
        name = "capitals"
        service = "shout.py:shout"
        endpoints = ["tls://:12000", "unix:///run/shout.sock"]
        engine = "epoll"
        workers = 4
        takeover = "take.over"
        metrics = "tcp://127.0.0.1:9100"
        trace = "run.trace"
        log = "json"
        hex = true
        quiet = true
        [serve.limits]
        connections = 100
        per_address = 10
        allow = ["192.0.2.0/24", "2001:db8::1"]
        deny = ["192.0.2.66"]
        when_full = "refuse"
        idle = 60
        life = 3600.5
        rate = 0
        [serve.tls]
        certificate = "cert.pem"
        key = "/etc/ssl/key.pem"
        alpn = ["h2"]
        """
    )
    network = ipaddress.ip_network
    assert found == ServeOptions(
        name="capitals",
        service="/etc/bothends/shout.py:shout",
        endpoints=(Endpoint.parse("tls://:12000"), Endpoint.parse("unix:///run/shout.sock")),
        engine="epoll",
        workers=4,
        takeover=FOLDER / "take.over",
        metrics=(Endpoint.parse("tcp://127.0.0.1:9100"),),
        trace=FOLDER / "run.trace",
        log="json",
        hex=True,
        quiet=True,
        limits=Limits(
            connections=100,
            per_address=10,
            allow=(network("192.0.2.0/24"), network("2001:db8::1")),
            deny=(network("192.0.2.66"),),
            when_full="refuse",
            idle=60.0,
            life=3600.5,
        ),
        tls=TlsSettings(FOLDER / "cert.pem", Path("/etc/ssl/key.pem"), alpn=("h2",)),
    )


def test_top_level_defaults_are_overridden_per_server() -> None:
    first, second = options(
        """
        engine = "threads"
        workers = 2
        limits = { idle = 60, connections = 10 }
        tls = { self_signed = true }
        [[serve]]
        service = "upper"
        endpoints = ["tls://:1"]
        [[serve]]
        exec = "sort -u"
        endpoints = ["tcp://:2"]
        workers = 1
        limits = { idle = 0, drain = 1 }
        """
    )
    assert (first.engine, first.workers, first.limits.idle) == ("threads", 2, 60.0)
    assert first.tls == TlsSettings(self_signed=True)
    assert (second.engine, second.workers, second.exec) == (None, 1, "sort -u")
    assert second.limits == Limits(idle=None, connections=10, drain=1.0)
    assert second.tls is None  # it has no use for it


@pytest.mark.parametrize(
    ("service", "found"),
    [
        ("upper", "upper"),
        ("shout.py", "/etc/bothends/shout.py"),
        ("sub/shout.py:shout", "/etc/bothends/sub/shout.py:shout"),
        ("/srv/shout.py:shout", "/srv/shout.py:shout"),
        ("package.module:shout", "package.module:shout"),
    ],
)
def test_service_path_is_relative_to_configuration(service: str, found: str) -> None:
    assert options(MINIMAL.replace("upper", service))[0].service == found


def test_shared_trace_file_is_rejected() -> None:
    line = "trace = 'run.trace'\n"
    text = f"{MINIMAL}{line}{MINIMAL.replace('12000', '12001')}{line}"
    assert parse_error(text) == "[[serve]] 2 (upper), key 'trace': server 1 writes this file already"


BOTH = "either a service or a command (exec), and not both"
SECONDS = "it should be a number of seconds, 0 or more, not"


@pytest.mark.parametrize(
    ("line", "key", "said"),
    [
        ("endpoint = 1", "endpoint", "there is no such key; did you mean 'endpoints'?"),
        ("workers = 0", "workers", "it should be a whole number from 1 to 512, not 0"),
        ("workers = 1.5", "workers", "it should be a whole number, not 1.5"),
        ("workers = true", "workers", "it should be a whole number, not true"),
        ("hex = 1", "hex", "it should be true or false, not 1"),
        ("log = 'jsn'", "log", 'it should be "text" or "json", not "jsn"; "json"?'),
        ("limits = 5", "limits", "it should be a table, not a whole number"),
        ("exec = 'cat'", "service", BOTH),
        ("shell = true", "shell", "it says who reads a command, and there is none (exec)"),
        ("metrics = 'tcp://:12000'", "endpoints", "tcp://:12000 is taken already, by the same server"),
        ("metrics = 'tpc://:1'", "metrics", "there is no endpoint scheme 'tpc'; did you mean 'tcp'?"),
        ("metrics = [1]", "metrics", "it should be text in quotes, not 1"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_the_nearest_known(line: str, key: str, said: str) -> None:
    assert parse_error(MINIMAL + line).startswith(f"[[serve]] 1 (upper), key {key!r}: {said}")


@pytest.mark.parametrize(
    ("line", "key", "said"),
    [
        ("idel = 1", "idel", "there is no such key; did you mean 'idle'?"),
        ("idle = -1", "idle", f"{SECONDS} -1"),
        ("drain = inf", "drain", f"{SECONDS} inf"),
        ("chunk = 0", "chunk", "it should be a whole number of 1 or more, not 0"),
        ("connections = 'many'", "connections", 'it should be a whole number, not "many"'),
        ("deny = ['nobody']", "deny", "'nobody' is no network; \"192.0.2.0/24\", for example"),
    ],
)
def test_error_in_nested_table_names_table(line: str, key: str, said: str) -> None:
    message = f"key {key!r}: {said}"
    assert parse_error(f"{MINIMAL}[serve.limits]\n{line}") == f"[[serve]] 1 (upper), limits, {message}"
    assert parse_error(f"[limits]\n{line}\n{MINIMAL}") == f"[limits], {message}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "key 'serve': there is no table [[serve]], so nothing to serve; one for each server"),
        ("serve = []", "key 'serve': it is empty, so there is nothing to serve"),
        ("[serve]", "key 'serve': it is a single table; write [[serve]], with two brackets on each side"),
        ("serve = [1]", "[[serve]] 1: it should be a table, not a whole number"),
        ("[[serve]]\nservice = ", "it is no TOML: Invalid value (at end of document); see https://toml.io"),
        ("enginee = 'epoll'", "key 'enginee': there is no such key; did you mean 'engine'?"),
        ("service = 'upper'", "key 'service': it belongs to one server; write it under its [[serve]]"),
        ("[[serve]]\nendpoints = []", f"[[serve]] 1, key 'service': what to serve is missing: {BOTH}"),
        (
            "[[serve]]\nservice = 'a'",
            "[[serve]] 1 (a), key 'endpoints': where to serve is missing; endpoints",
        ),
        (
            "[[serve]]\nexec = 'cat'\nengine = 'epoll'\nendpoints = ['tcp://:1']",
            "[[serve]] 1 (cat), key 'engine': exec runs a process for each connection: there is no engine",
        ),
        (
            MINIMAL + MINIMAL,
            "[[serve]] 2 (upper), key 'endpoints': tcp://:12000 is taken already, by server 1",
        ),
        (
            MINIMAL + MINIMAL.replace("tcp://:12000", "stdio:"),
            "[[serve]] 2 (upper), key 'endpoints': stdio: is for a server that is alone",
        ),
    ],
)
def test_document_level_error_message(text: str, said: str) -> None:
    assert parse_error(text).startswith(said)


def test_port_0_may_be_shared() -> None:
    text = MINIMAL.replace("12000", "0")
    assert len(options(text + text)) == 2


def test_read_resolves_paths_from_file_directory(tmp_path: Path) -> None:
    path = tmp_path / "servers.toml"
    path.write_text(MINIMAL.replace("upper", "shout.py"))
    assert read(path)[0].service == str(tmp_path / "shout.py")


def test_read_unreadable_file_raises(tmp_path: Path) -> None:
    with pytest.raises(SystemCallFailed, match=r"cannot read .*ENOENT"):
        read(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe9'")
    with pytest.raises(ConfigurationError, match=r"latin\.toml: it is no UTF-8 at byte 8"):
        read(tmp_path / "latin.toml")
