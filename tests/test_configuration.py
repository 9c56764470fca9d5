"""Configuration files: every key matches its option, and every error names its table and key."""

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
        log_level = "connections"
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
        log_level="connections",
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
    assert second.tls is None  # it has no tls:// endpoint


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
    assert parse_error(text) == "[[serve]] 2 (upper), key 'trace': server 1 writes to the same file"


SECONDS = "must be a number of seconds, 0 or more, not"


@pytest.mark.parametrize(
    ("line", "key", "message"),
    [
        ("endpoint = 1", "endpoint", "unknown key; did you mean 'endpoints'?"),
        ("workers = 0", "workers", "must be an integer from 1 to 512, not 0"),
        ("workers = 1.5", "workers", "must be an integer, not 1.5"),
        ("workers = true", "workers", "must be an integer, not true"),
        ("hex = 1", "hex", "must be true or false, not 1"),
        ("log = 'jsn'", "log", 'must be "text" or "json", not "jsn"; did you mean "json"?'),
        ("limits = 5", "limits", "must be a table, not an integer"),
        ("exec = 'cat'", "service", "both service and exec are given; give either service or exec"),
        ("shell = true", "shell", "has no effect without exec"),
        ("metrics = 'tcp://:12000'", "endpoints", "tcp://:12000 is already used by this server"),
        ("metrics = 'tpc://:1'", "metrics", "there is no endpoint scheme 'tpc'; did you mean 'tcp'?"),
        ("metrics = [1]", "metrics", "must be a string, not 1"),
    ],
)
def test_invalid_key_error_names_location_and_nearest_key(line: str, key: str, message: str) -> None:
    assert parse_error(MINIMAL + line).startswith(f"[[serve]] 1 (upper), key {key!r}: {message}")


@pytest.mark.parametrize(
    ("line", "key", "message"),
    [
        ("idel = 1", "idel", "unknown key; did you mean 'idle'?"),
        ("idle = -1", "idle", f"{SECONDS} -1"),
        ("drain = inf", "drain", f"{SECONDS} inf"),
        ("chunk = 0", "chunk", "must be an integer of 1 or more, not 0"),
        ("connections = 'many'", "connections", 'must be an integer, not "many"'),
        ("deny = ['nobody']", "deny", "'nobody' is not a network; for example \"192.0.2.0/24\""),
    ],
)
def test_error_in_nested_table_names_table(line: str, key: str, message: str) -> None:
    message = f"key {key!r}: {message}"
    assert parse_error(f"{MINIMAL}[serve.limits]\n{line}") == f"[[serve]] 1 (upper), limits, {message}"
    assert parse_error(f"[limits]\n{line}\n{MINIMAL}") == f"[limits], {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "key 'serve': there is no table [[serve]]; add one for each server"),
        ("serve = []", "key 'serve': empty; add a table [[serve]] for each server"),
        ("[serve]", "key 'serve': a single table; write [[serve]], with two brackets on each side"),
        ("serve = [1]", "[[serve]] 1: must be a table, not an integer"),
        ("[[serve]]\nservice = ", "invalid TOML: Invalid value (at end of document); see https://toml.io"),
        ("serve = " + "[" * 5000, "nested too deeply"),
        ("enginee = 'epoll'", "key 'enginee': unknown key; did you mean 'engine'?"),
        ("service = 'upper'", "key 'service': not allowed at the top level; move it to its [[serve]]"),
        ("[[serve]]\nendpoints = []", "[[serve]] 1, key 'service': missing; give either service or exec"),
        (
            "[[serve]]\nservice = 'a'",
            "[[serve]] 1 (a), key 'endpoints': missing; for example endpoints",
        ),
        (
            "[[serve]]\nexec = 'cat'\nengine = 'epoll'\nendpoints = ['tcp://:1']",
            "[[serve]] 1 (cat), key 'engine': has no effect with exec, which runs a process",
        ),
        (
            MINIMAL + MINIMAL,
            "[[serve]] 2 (upper), key 'endpoints': tcp://:12000 is already used by server 1",
        ),
        (
            MINIMAL + MINIMAL.replace("tcp://:12000", "stdio:"),
            "[[serve]] 2 (upper), key 'endpoints': stdio: cannot be used with several servers",
        ),
    ],
)
def test_document_level_error_message(text: str, message: str) -> None:
    assert parse_error(text).startswith(message)


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
    with pytest.raises(ConfigurationError, match=r"latin\.toml: invalid UTF-8 at byte 8"):
        read(tmp_path / "latin.toml")
